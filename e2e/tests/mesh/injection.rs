//! Which pods get a proxy, and that pods with one work as before.
//!
//! Claims: attack-13, observe-54

use std::{collections::BTreeSet, fs, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Namespace, Outcome, eventually};
use serde_json::{Value, json};

use super::{SOON, url};

#[test]
fn labelled_namespace_pod_starts_behind_capture_and_proxy() -> Outcome {
    let ns = Namespace::meshed("inject")?;
    ns.run(&["web"])?;
    let pod = ns.pod("web")?;
    assert_eq!(pod.init_containers(), ["weft-capture", "weft-proxy"]);
    let proxy = &pod.object["spec"]["initContainers"][1];
    assert_eq!(
        proxy["restartPolicy"], "Always",
        "a native sidecar: {proxy}"
    );
    assert_eq!(
        proxy["securityContext"]["readOnlyRootFilesystem"], true,
        "{proxy}"
    );
    let annotations = &pod.object["metadata"]["annotations"];
    assert_eq!(
        annotations["weft.dev/proxy-version"], "0.1.0",
        "{annotations}"
    );
    assert_eq!(
        annotations["kubectl.kubernetes.io/default-container"], "app",
        "{annotations}"
    );
    Ok(())
}

#[test]
fn drain_evicts_meshed_pod_with_tokenless_proxy() -> Outcome {
    let ns = Namespace::meshed("drain")?;
    ns.run(&["web"])?;
    let pod = ns.pod("web")?.object;
    let containers = pod["spec"]["initContainers"].as_array();
    for container in containers.context("init containers must be a list")? {
        let mounts = container["volumeMounts"].as_array();
        let mounts = mounts.context("mounts must be a list")?.iter();
        let folder = "/var/run/secrets/kubernetes.io/serviceaccount";
        let there: Vec<_> = mounts.filter(|m| m["mountPath"] == folder).collect();
        let names: Vec<_> = there.iter().map(|mount| &mount["name"]).collect();
        assert_eq!(names, ["weft-no-api-token"], "{container}");
    }
    // A dry run looks for local storage as well. The template's hash keeps it to this pod.
    let node = pod["spec"]["nodeName"].as_str();
    let node = node.context("the pod must have a node")?;
    let hash = &pod["metadata"]["labels"]["pod-template-hash"];
    let hash = hash.as_str().context("the pod must have its hash")?;
    let selector = format!("--pod-selector=pod-template-hash={hash}");
    let drain = ["drain", node, "--dry-run=client", "--ignore-daemonsets"];
    let answer = ns
        .cluster
        .kubectl(&[&drain[..], &[selector.as_str()]].concat())?;
    assert!(answer.contains("drained"), "{answer}");
    Ok(())
}

#[test]
fn pod_inject_label_overrides_namespace_label() -> Outcome {
    let meshed = Namespace::meshed("opt-out")?;
    let plain = Namespace::unmeshed("opt-in")?;
    meshed.apply_all(
        &App::new("out")
            .label("weft.dev/inject", "disabled")
            .objects(),
    )?;
    plain.apply_all(&App::new("in").label("weft.dev/inject", "enabled").objects())?;
    plain.apply_all(&App::new("nothing").objects())?;
    meshed.ready(&["out"])?;
    plain.ready(&["in", "nothing"])?;
    assert_eq!(meshed.pod("out")?.init_containers(), [] as [&str; 0]);
    assert_eq!(plain.pod("nothing")?.init_containers(), [] as [&str; 0]);
    assert_eq!(
        plain.pod("in")?.init_containers(),
        ["weft-capture", "weft-proxy"]
    );
    Ok(())
}

#[test]
fn every_pod_carries_only_its_own_account_label() -> Outcome {
    let ns = Namespace::meshed("account")?;
    ns.run(&["web"])?;
    let pod = ns.pod("web")?;
    let account = crds::labels::account_of(&pod.object["spec"]);
    let right = crds::labels::account_hash(&ns.name, account);
    assert_eq!(
        pod.object["metadata"]["labels"]["weft.dev/account"],
        json!(right),
        "of {account}"
    );
    let name = format!("pod/{}", pod.name);
    let refused = |words: &[&str]| {
        let answer = ns.kubectl(words);
        let why = answer.err().map(|error| format!("{error:#}"));
        ensure!(
            why.as_deref()
                .is_some_and(|why| why.contains("account.validate.weft.dev")),
            "{words:?}: {why:?}"
        );
        Ok(())
    };
    let another = "weft.dev/account=0123456789abcdef";
    refused(&["label", "--overwrite", &name, another])?;
    refused(&["label", &name, "weft.dev/account-"])?;
    // The status of a pod can carry labels, too.
    let patch = json!({"metadata": {"labels": {"weft.dev/account": "0123456789abcdef"}}});
    let patch = patch.to_string();
    refused(&[
        "patch",
        &name,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ])?;
    // Everything else about the pod stays writable.
    ns.kubectl(&["label", &name, "colour=blue"])?;

    let outside = Namespace::unmeshed("false-account")?;
    let image = e2e::harness::App::new("x").template()["spec"]["containers"][0]["image"].clone();
    let mut bare = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "bare",
        "labels": {"weft.dev/account": right}},
        "spec": {"containers": [{"name": "app", "image": image}]}});
    let answer = outside.apply(&bare.to_string());
    let why = format!("{:#}", answer.err().context("it must be refused")?);
    assert!(why.contains("account.validate.weft.dev"), "{why}");
    let own = crds::labels::account_hash(&outside.name, "default");
    bare["metadata"]["labels"]["weft.dev/account"] = json!(own);
    outside.apply(&bare.to_string())?;
    Ok(())
}

#[test]
fn new_namespaces_get_trust_bundle_except_kube_system() -> Outcome {
    let ns = Namespace::unmeshed("bundle")?;
    eventually(super::SOON, "the trust bundle is there", || {
        let bundle = ns.json(&["get", "configmap", "weft-trust-bundle"])?;
        let roots = bundle["data"]["ca.crt"].as_str().unwrap_or_default();
        ensure!(roots.contains("BEGIN CERTIFICATE"), "it holds {bundle}");
        Ok(())
    })?;
    let excluded =
        ns.cluster
            .kubectl(&["-n", "kube-system", "get", "configmap", "weft-trust-bundle"]);
    assert!(
        excluded.is_err(),
        "kube-system has a trust bundle: {excluded:?}"
    );
    Ok(())
}

// Claims: mesh-10d
#[test]
fn job_in_the_mesh_calls_and_finishes() -> Outcome {
    let ns = Namespace::meshed("job")?;
    ns.run(&["web"])?;
    let mut template = App::new("web").template();
    template["metadata"]["labels"]["app"] = json!("job");
    template["spec"]["restartPolicy"] = json!("Never");
    let container = &mut template["spec"]["containers"][0];
    container["args"] = json!([
        "get",
        "http://web:8080/",
        "--expect",
        "/sa/web\"",
        "--until",
        "30s"
    ]);
    container
        .as_object_mut()
        .context("a container must be an object")?
        .remove("readinessProbe");
    ns.apply_all(&[
        json!({"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "job"},
        "spec": {"backoffLimit": 0, "template": template}}),
    ])?;
    ns.kubectl(&[
        "wait",
        "--for=condition=complete",
        "job/job",
        "--timeout=90s",
    ])?;
    Ok(())
}

#[test]
fn pod_using_proxy_port_is_refused_by_name() -> Outcome {
    let ns = Namespace::meshed("port")?;
    let app =
        App::new("clash").container(json!({"ports": [{"name": "mine", "containerPort": 15108}]}));
    let pod = json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "clash"}, "spec": {"containers": app.template()["spec"]["containers"]}});
    let error = match ns.apply_all(&[pod]) {
        Ok(()) => panic!("the pod was admitted"),
        // The context holds the object itself; what the cluster said is the cause.
        Err(error) => error.root_cause().to_string(),
    };
    assert!(
        error.contains("15108"),
        "the refusal does not name the port: {error}"
    );
    Ok(())
}

// Claims: mesh-13
#[test]
fn probes_keep_their_meaning_in_strict_and_deny() -> Outcome {
    let ns = Namespace::meshed("probes")?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    ns.annotate("weft.dev/mtls", Some("strict"))?;
    let quick = |mut probe: serde_json::Value| {
        probe["periodSeconds"] = json!(1);
        probe
    };
    let http = json!({"httpGet": {"path": "/?probe", "port": "http", "httpHeaders": [{"name": "x-probe", "value": "1"}]}});
    let tcp = json!({"tcpSocket": {"port": "echo"}});
    let grpc = json!({"grpc": {"port": 8080}});
    for (name, probe) in [("http", &http), ("tcp", &tcp), ("grpc", &grpc)] {
        let app = App::new(name).readiness(quick(probe.clone()));
        ns.apply_all(
            &app.container(json!({"livenessProbe": quick(probe.clone())}))
                .objects(),
        )?;
    }
    // Nothing listens there, so a probe that only reached the proxy would succeed.
    let dead = App::new("dead").readiness(quick(json!({"tcpSocket": {"port": 7777}})));
    ns.apply_all(&dead.objects())?;
    ns.ready(&["http", "tcp", "grpc"])?;
    std::thread::sleep(Duration::from_secs(5));
    for name in ["http", "tcp", "grpc"] {
        let pod = ns.pod(name)?;
        assert_eq!(pod.restarts(), 0, "{name}: {}", pod.object["status"]);
    }
    let dead = ns.json(&["get", "deployment", "dead"])?;
    assert!(
        dead["status"]["readyReplicas"].is_null(),
        "a probe of a closed port succeeded: {}",
        dead["status"]
    );
    Ok(())
}

#[test]
fn host_network_pod_is_skipped_with_warning_and_event() -> Outcome {
    let ns = Namespace::meshed("host-network")?;
    let overrides = json!({"spec": {"hostNetwork": true}}).to_string();
    let image = format!("--image={}", e2e::harness::app::image());
    let args = [
        "-n",
        &ns.name,
        "run",
        "agent",
        &image,
        "--env=PORT=18080",
        "--overrides",
        &overrides,
    ];
    let output = ns
        .cluster
        .command("kubectl", &args)
        .output()
        .map_err(anyhow::Error::from)?;
    let warning = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{warning}");
    assert!(
        warning.contains("Warning") && warning.contains("hostNetwork"),
        "no warning: {warning}"
    );
    let pod = ns.json(&["get", "pod", "agent"])?;
    assert!(
        pod["spec"]["initContainers"].is_null(),
        "a host network pod got a proxy: {pod}"
    );
    eventually(SOON, "the Event on the pod", || {
        let events = ns.json(&["get", "events"])?.to_string();
        ensure!(
            events.contains("HostNetworkSkipped"),
            "there is none: {events}"
        );
        Ok(())
    })?;
    Ok(())
}

/// The warnings that kubectl prints beside its result.
fn warnings_of(ns: &Namespace, args: &[&str]) -> anyhow::Result<String> {
    let output = ns.cluster.command("kubectl", args).output()?;
    let warnings = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(output.status.success(), "{args:?}: {warnings}");
    Ok(warnings)
}

/// Names of objects of which an Event says that their request for injection is not understood.
fn spoken_of(events: &Value) -> BTreeSet<String> {
    let items = events["items"].as_array().map_or(&[][..], Vec::as_slice);
    items
        .iter()
        .filter(|event| event["reason"] == "InjectNotUnderstood")
        .filter_map(|event| event["involvedObject"]["name"].as_str())
        .map(str::to_owned)
        .collect()
}

// Claims: C7, attack-114
#[test]
fn misspelt_injection_request_gets_correct_spelling_and_event() -> Outcome {
    let ns = Namespace::unmeshed("spelling")?;
    // A pod's own label, while its namespace has none.
    let image = format!("--image={}", e2e::harness::app::image());
    let run = [
        "-n",
        &ns.name,
        "run",
        "asks",
        &image,
        "--env=PORT=18080",
        "--labels=weft.dev/inject=true",
    ];
    let warnings = warnings_of(&ns, &run)?;
    let said = "label weft.dev/inject is \"true\"";
    assert!(
        warnings.contains("Warning") && warnings.contains(said),
        "{warnings}"
    );
    let label = |value: &str| format!("weft.dev/inject={value}");
    let warnings = warnings_of(&ns, &["label", "namespace", &ns.name, &label("true")])?;
    let right = "write weft.dev/inject=enabled";
    assert!(
        warnings.contains("Warning") && warnings.contains(right),
        "{warnings}"
    );
    let mut deployment = App::new("web").template();
    deployment["metadata"]["annotations"] = json!({"weft.dev/inject": "enabled"});
    // Only the template is applied, and not the account that belongs to it.
    deployment["spec"]["serviceAccountName"] = json!("default");
    let deployment = json!({"apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web"}, "spec": {"replicas": 1, "template": deployment,
            "selector": {"matchLabels": {"app": "web"}}}});
    let file = std::env::temp_dir().join(format!("{}.json", ns.name));
    std::fs::write(&file, deployment.to_string())?;
    let file = file.to_string_lossy();
    let warnings = warnings_of(&ns, &["-n", &ns.name, "apply", "-f", &file])?;
    assert!(
        warnings.contains("spec.template.metadata: annotation"),
        "{warnings}"
    );
    eventually(SOON, "the Events on pods and namespace", || {
        let about = spoken_of(&ns.json(&["get", "events"])?);
        ensure!(about.contains("asks"), "not on the pod alone: {about:?}");
        let of_deployment = about.iter().any(|name| name.starts_with("web-"));
        ensure!(of_deployment, "on no pod of the Deployment: {about:?}");
        // Events about objects without a namespace are in `default`.
        let about = spoken_of(&ns.cluster.json(&["-n", "default", "get", "events"])?);
        ensure!(about.contains(&ns.name), "none about the namespace");
        Ok(())
    })?;
    // Control: the right spelling is not talked about.
    let args = [
        "label",
        "--overwrite",
        "namespace",
        &ns.name,
        &label("enabled"),
    ];
    let warnings = warnings_of(&ns, &args)?;
    assert!(!warnings.contains("weft:"), "{warnings}");
    Ok(())
}

// Claims: A7
#[test]
fn debugger_cannot_run_as_proxy_and_proxy_lacks_token() -> Outcome {
    let ns = Namespace::meshed("debugger")?;
    ns.run(&["web"])?;
    let pod = ns.pod("web")?;
    let spec = &pod.object["spec"];
    for container in spec["initContainers"]
        .as_array()
        .context("no init containers")?
    {
        let mounts = container["volumeMounts"].to_string();
        assert!(!mounts.contains("kube-api-access"), "{mounts}");
    }
    let image = &spec["containers"][0]["image"];
    let debug = |name: &str, user: u32| {
        let patch = json!({"spec": {"ephemeralContainers": [{"name": name, "image": image,
            "securityContext": {"runAsUser": user}}]}});
        let patch = patch.to_string();
        let pod = format!("pod/{}", pod.name);
        let words = [
            "patch",
            &pod,
            "--subresource=ephemeralcontainers",
            "-p",
            &patch,
        ];
        ns.kubectl(&words)
    };
    let refused = debug("thief", 15190);
    let why = format!("{:#}", refused.err().context("it must be refused")?);
    assert!(
        why.contains("spec.ephemeralContainers[0].securityContext.runAsUser is 15190"),
        "{why}"
    );
    debug("honest", 1000)?;
    Ok(())
}

#[test]
fn chart_has_nothing_that_helm_lint_minds() -> Outcome {
    let ns = Namespace::unmeshed("lint")?;
    let chart = e2e::harness::cluster::root().join("charts/weft");
    ns.cluster
        .helm(&["lint", "--strict", &chart.to_string_lossy()])?;
    Ok(())
}

/// In a namespace that asks for nothing, so that all that is there was printed.
// Claims: observability-8
#[test]
fn manifests_that_the_command_injected_run_in_the_mesh() -> Outcome {
    let ns = Namespace::unmeshed("by-hand")?;
    let folder = std::env::temp_dir().join(&ns.name);
    fs::create_dir_all(&folder)?;
    for (app, flags) in [("web", &["--manual"][..]), ("cart", &[][..])] {
        let objects = App::new(app).objects();
        let documents = objects.iter().map(serde_yaml_ng::to_string);
        let documents = documents.collect::<Result<Vec<String>, _>>()?;
        let text = format!("# Of a repository.\n{}", documents.join("---\n"));
        let file = folder.join(format!("{app}.yaml"));
        fs::write(&file, &text)?;
        let file = file.to_string_lossy().into_owned();
        let words = ["inject", &file, "-n", &ns.name];
        let output = ns.cluster.weft(&[&words[..], flags].concat())?;
        let printed = output.with_status(0)?.out;
        let kept = printed.starts_with("# Of a repository.") && printed != text;
        assert!(kept, "{printed}");
        ns.apply(&printed)?;
    }
    fs::remove_dir_all(&folder)?;
    ns.ready(&["web", "cart"])?;
    for app in ["web", "cart"] {
        let pod = ns.pod(app)?;
        assert_eq!(
            pod.init_containers(),
            ["weft-capture", "weft-proxy"],
            "{app}"
        );
    }
    let report = ns.pod("web")?.report(&url("cart", 8080, "/"), &[])?;
    let web = format!("spiffe://cluster.local/ns/{}/sa/web", ns.name);
    assert_eq!(report.client_id, Some(web));
    Ok(())
}
