//! The chart is upgraded, tested, removed and installed again around
//! applications that run.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::{
    echo::load::Summary,
    harness::{App, Cluster, Load, Namespace, Outcome, Pod, UNTIL_ENDED, eventually, mesh},
};

use super::{altered::Altered, url};

/// What a mesh that has just been installed may take to reach everybody.
const SETTLED: Duration = Duration::from_secs(30);

#[test]
fn upgrade_with_a_changed_value_reaches_running_pods_and_keeps_their_traffic() -> Outcome {
    let ns = pair("upgrade")?;
    let server = ns.pod("server")?;
    let altered = Altered::begin()?;
    let begun = Instant::now();
    let load = load(&ns.pod("client")?)?;
    mesh::install(&["access.default=audit"])?;
    println!("upgraded after {:?}", begun.elapsed());
    eventually(SETTLED, "audit is the new default", || {
        let metrics = server.proxy_metrics()?;
        ensure!(
            metrics.sum("weft_audit_refusals_total", &[]) > 0.0,
            "nothing is counted"
        );
        Ok(())
    })?;
    altered.restore()?;
    println!("back after {:?}", begun.elapsed());
    nothing_lost(&load.end()?);
    assert_eq!(ns.pod("server")?.restarts(), 0);
    Ok(())
}

#[test]
fn chart_proves_itself_with_a_request_through_two_proxies() -> Outcome {
    mesh::installed()?;
    let cluster = Cluster::connect()?;
    let said = cluster.helm(&["test", "weft", "-n", mesh::NAMESPACE, "--timeout", "3m"])?;
    assert!(said.contains("Succeeded"), "{said}");
    eventually(SETTLED, "the test's namespace is removed", || {
        let left = cluster.kubectl(&["get", "namespace", "weft-test", "--ignore-not-found"])?;
        ensure!(left.is_empty() || left.contains("Terminating"), "{left}");
        Ok(())
    })?;
    Ok(())
}

#[test]
fn uninstalled_mesh_leaves_traffic_and_objects_and_can_come_back() -> Outcome {
    let ns = pair("uninstall")?;
    ns.apply_all(&App::new("leaver").objects())?;
    let template = App::new("server").template();
    ns.apply_all(&[serde_json::json!({"apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "alone", "labels": {"app": "alone"}}, "spec": template["spec"]})])?;
    ns.apply(SPLIT)?;
    ns.ready(&["leaver"])?;
    ns.kubectl(&[
        "wait",
        "--for=condition=Ready",
        "pod/alone",
        "--timeout=60s",
    ])?;
    let client = ns.pod("client")?;
    client.report(&url("server", 8080, "/"), &[])?;

    let altered = Altered::begin()?;
    let begun = Instant::now();
    let load = load(&client)?;
    let said = uninstall(&ns.cluster)?;
    println!("uninstalled after {:?}:\n{said}", begun.elapsed());
    assert!(said.contains("pods still carry a proxy"), "{said}");
    assert!(said.contains("4 SMI definitions serve"), "{said}");
    let command = format!(
        "kubectl -n {} rollout restart deployment/client deployment/leaver deployment/server",
        ns.name
    );
    assert!(said.contains(&command), "{command} is not in: {said}");
    let alone = format!("in {}, to be deleted or to finish: alone", ns.name);
    assert!(said.contains(&alone), "{alone} is not in: {said}");
    let bundle = ns.json(&["get", "configmap", "weft-trust-bundle"])?;
    assert_eq!(bundle["data"]["leaving"], "true", "{bundle}");
    ns.kubectl(&["get", "trafficsplit", "shop"])?;
    // Who holds a certificate and a configuration goes on with them.
    let report = client.report(&url("server", 8080, "/"), &[])?;
    assert!(report.client_id.is_some(), "in plaintext: {report:?}");

    ns.kubectl(&["rollout", "restart", "deployment/leaver"])?;
    ns.ready(&["leaver"])?;
    let leaver = eventually(SETTLED, "only the new pod is left", || {
        let pods = ns.pods("leaver")?;
        ensure!(pods.len() == 1, "there are {}", pods.len());
        Ok(pods)
    })?
    .remove(0);
    assert_eq!(leaver.init_containers(), [] as [&str; 0]);
    let report = leaver.report(&url("server", 8080, "/"), &[])?;
    assert_eq!(report.client_id, None, "{report:?}");

    altered.restore()?;
    println!("installed again after {:?}", begun.elapsed());
    ns.kubectl(&["get", "trafficsplit", "shop"])?;
    eventually(SETTLED, "the mark is taken away", || {
        let bundle = ns.json(&["get", "configmap", "weft-trust-bundle"])?;
        ensure!(bundle["data"]["leaving"].is_null(), "{bundle}");
        Ok(())
    })?;
    ns.kubectl(&["rollout", "restart", "deployment/leaver"])?;
    ns.ready(&["leaver"])?;
    eventually(SETTLED, "new pods have a proxy again", || {
        let pods = ns.pods("leaver")?;
        ensure!(
            pods.iter()
                .all(|pod| pod.init_containers() == ["weft-capture", "weft-proxy"]),
            "not all have one"
        );
        Ok(())
    })?;
    nothing_lost(&load.end()?);
    ns.annotate("weft.dev/access", Some("deny"))?;
    eventually(SETTLED, "running pods follow the new installation", || {
        client.refused(&url("server", 8080, "/"), &[], 403, "not-allowed")
    })?;
    Ok(())
}

const SPLIT: &str = r"
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: shop}
spec:
  service: leaver
  backends: [{service: server, weight: 1}]
";

/// All that it shows: what hooks log goes to standard error.
pub(crate) fn uninstall(cluster: &Cluster) -> anyhow::Result<String> {
    let words = ["uninstall", "weft", "-n", mesh::NAMESPACE, "--wait"];
    let words = [&words[..], &["--timeout", "3m"]].concat();
    let output = cluster.command("helm", &words).output()?;
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    ensure!(output.status.success(), "helm uninstall failed: {said}");
    Ok(said)
}

fn pair(claim: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?.without_retries()?;
    ns.run(&["client", "server"])?;
    ns.pod("client")?.report(&url("server", 8080, "/"), &[])?;
    Ok(ns)
}

fn load(client: &Pod) -> anyhow::Result<Load> {
    client.start_load(
        &url("server", 8080, "/"),
        &["--rate", "100", "--duration", UNTIL_ENDED, "-c", "10"],
    )
}

#[track_caller]
fn nothing_lost(seen: &Summary) {
    println!(
        "{} planned, {} sent, {:?}, latency {:?}",
        seen.planned, seen.sent, seen.by_status, seen.latency_ms
    );
    assert!(
        seen.planned == seen.sent && seen.by_status.get("200") == Some(&seen.planned),
        "requests were lost: {seen:?}"
    );
}
