//! Unusual places to listen and to call, each as without a mesh.

use anyhow::Context as _;
use e2e::{
    conformance::Record,
    harness::{App, Namespace, Outcome, eventually},
};
use serde_json::json;

use super::{SOON, url};

// Claims: mesh-10b
#[test]
fn application_reaches_itself_by_service_address_and_loopback() -> Outcome {
    let mut row = Record::part("E22", "self")?;
    let ns = Namespace::meshed("self-call")?;
    ns.run(&["web"])?;
    let pod = ns.pod("web")?;
    for target in [
        url("web", 8080, "/"),
        format!("http://{}:8080/", pod.ip),
        "http://127.0.0.1:8080/".into(),
    ] {
        let report = pod
            .report(&target, &["-n", "5"])
            .with_context(|| target.clone())?;
        assert_eq!(report.pod, pod.name, "{target}");
        row.saw(
            format!("web: 5 x GET {}", target.replace(&pod.ip, "POD-IP")),
            "200 from itself",
        );
    }
    row.passed()?;
    Ok(())
}

// Claims: mesh-10a
#[test]
fn application_on_its_pod_address_only_is_reached() -> Outcome {
    let ns = Namespace::meshed("pod-ip")?;
    ns.apply_all(
        &App::new("web")
            .env_field("LISTEN", "status.podIP")
            .objects(),
    )?;
    ns.apply_all(&App::new("client").objects())?;
    ns.ready(&["web", "client"])?;
    ns.pod("client")?.report(&url("web", 8080, "/"), &[])?;
    Ok(())
}

// Claims: mesh-10a
#[test]
fn application_on_localhost_only_stays_private() -> Outcome {
    let ns = Namespace::meshed("localhost")?;
    ns.apply_all(
        &App::new("hidden")
            .env("LISTEN", "127.0.0.1")
            .readiness(json!(null))
            .objects(),
    )?;
    ns.apply_all(&App::new("client").objects())?;
    ns.ready(&["hidden", "client"])?;
    let hidden = ns.pod("hidden")?;
    hidden.report("http://127.0.0.1:8080/", &[])?;
    // Without a mesh the connection is refused; a proxy in between says so with 502 or 503.
    let seen = ns.pod("client")?.get(&url("hidden", 8080, "/"), &[])?;
    let status = seen.last.status;
    assert!(
        matches!(status, 0 | 502 | 503),
        "a private application was reached: {seen:?}"
    );
    Ok(())
}

// Claims: mesh-10c
#[test]
fn headless_stateful_peers_call_by_name_over_mtls() -> Outcome {
    let mut row = Record::part("E22", "peers")?;
    let ns = Namespace::meshed("headless")?;
    let template = App::new("peer").template();
    ns.apply_all(&[
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "peer"}}),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "peer"},
            "spec": {"clusterIP": "None", "selector": {"app": "peer"}, "ports": [{"name": "http", "port": 8080}]}}),
        json!({"apiVersion": "apps/v1", "kind": "StatefulSet", "metadata": {"name": "peer"}, "spec": {
            "serviceName": "peer", "replicas": 2, "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": {"app": "peer"}}, "template": template}}),
    ])?;
    ns.kubectl(&["rollout", "status", "statefulset/peer", "--timeout=120s"])?;
    let pods = ns.pods("peer")?;
    let identity = format!("spiffe://cluster.local/ns/{}/sa/peer", ns.name);
    for (caller, callee) in [(&pods[0], &pods[1]), (&pods[1], &pods[0])] {
        let target = url(&format!("{}.peer", callee.name), 8080, "/");
        let report = eventually(SOON, "the peer answers", || caller.report(&target, &[]))?;
        assert_eq!(report.pod, callee.name);
        assert_eq!(
            report.client_id.as_deref(),
            Some(identity.as_str()),
            "{report:?}"
        );
        row.saw(
            format!("{}: GET {target}", caller.name),
            format!("200 from {}, caller proven as sa/peer", report.pod),
        );
    }
    row.passed()?;
    Ok(())
}

// Claims: mesh-10f
#[test]
fn external_name_is_followed() -> Outcome {
    let ns = Namespace::meshed("external-name")?;
    for app in ["client", "server"] {
        ns.apply_all(&App::new(app).objects())?;
    }
    ns.apply_all(&[json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "alias"},
        "spec": {"type": "ExternalName", "externalName": format!("server.{}.svc.cluster.local", ns.name)}})])?;
    ns.ready(&["client", "server"])?;
    let client = ns.pod("client")?;
    let report = eventually(SOON, "the alias answers", || {
        client.report(&url("alias", 8080, "/"), &[])
    })?;
    assert!(report.pod.starts_with("server-"), "{report:?}");
    Ok(())
}

// Claims: mesh-10d
#[test]
fn application_init_containers_run_with_network_access() -> Outcome {
    let ns = Namespace::meshed("init")?;
    ns.run(&["server"])?;
    let mut objects = App::new("web").objects();
    let template = &mut objects[2]["spec"]["template"]["spec"];
    let image = template["containers"][0]["image"].clone();
    template["initContainers"] = json!([{"name": "fetch", "image": image, "imagePullPolicy": "IfNotPresent",
        "args": ["get", "http://server:8080/", "--expect", "/sa/web\"", "--until", "30s"]}]);
    ns.apply_all(&objects)?;
    ns.ready(&["web"])?;
    assert_eq!(
        ns.pod("web")?.init_containers(),
        ["weft-capture", "weft-proxy", "fetch"]
    );
    Ok(())
}
