//! Probes of every kind in one mesh that refuses everything else: row E21.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{
    conformance::Record,
    harness::{App, Namespace, Outcome, eventually},
};
use serde_json::{Value, json};

use super::super::SOON;

/// Longer than three failures in a row, after which Kubernetes gives a probe up.
const WATCHED: Duration = Duration::from_secs(6);

#[test]
fn all_probe_kinds_of_two_containers_keep_meaning() -> Outcome {
    let mut row = Record::begin("E21")?;
    let ns = Namespace::meshed("all-probes")?;
    ns.annotate("weft.dev/access", Some("deny"))?;
    ns.annotate("weft.dev/mtls", Some("strict"))?;
    let live = [
        ("http", json!({"httpGet": {"path": "/", "port": "http"}})),
        (
            "https",
            json!({"httpGet": {"path": "/", "port": 8443, "scheme": "HTTPS"}}),
        ),
        ("tcp", json!({"tcpSocket": {"port": "echo"}})),
        ("grpc", json!({"grpc": {"port": 8080}})),
        (
            "exec",
            json!({"exec": {"command": ["/weft-echo", "get", "http://127.0.0.1:8080/"]}}),
        ),
    ];
    // Nothing listens on 7777; a probe that only reached the proxy would succeed.
    let dead = [
        ("no-http", json!({"httpGet": {"path": "/", "port": 7777}})),
        (
            "no-https",
            json!({"httpGet": {"path": "/", "port": 7777, "scheme": "HTTPS"}}),
        ),
        ("no-tcp", json!({"tcpSocket": {"port": 7777}})),
        ("no-grpc", json!({"grpc": {"port": 7777}})),
        (
            "no-exec",
            json!({"exec": {"command": ["/weft-echo", "get", "http://127.0.0.1:7777/"]}}),
        ),
    ];
    for (name, probe) in &live {
        let app = App::new(name)
            .env("TLS_PORT", "8443")
            .readiness(quick(probe))
            .container(json!({"livenessProbe": quick(probe)}));
        ns.apply_all(&app.objects())?;
    }
    for (name, probe) in &dead {
        ns.apply_all(&App::new(name).readiness(quick(probe)).objects())?;
    }
    ns.apply_all(&[two_containers("both", 8180), two_containers("half", 7777)])?;

    let names: Vec<&str> = live.iter().map(|(name, _)| *name).collect();
    ns.ready(&names)?;
    ns.ready(&["both"])?;
    std::thread::sleep(WATCHED);
    for (name, probe) in &live {
        let pod = ns.pod(name)?;
        assert!(pod.restarts() == 0, "{name}: {}", pod.object["status"]);
        row.saw(
            format!("readiness and liveness {probe}"),
            format!("ready, {} restarts", pod.restarts()),
        );
    }
    for (name, probe) in &dead {
        not_ready(&ns, name)?;
        row.saw(format!("readiness {probe}, nothing listens"), "not ready");
    }
    row.saw(
        "two containers, each with an http probe of its own port",
        "ready",
    );
    eventually(SOON, "only the second container is not ready", || {
        let pod = ns.pod("half")?;
        let statuses = pod.object["status"]["containerStatuses"].as_array();
        let mut ready = Vec::new();
        for status in statuses.into_iter().flatten() {
            ready.push((status["name"].as_str().context("a name")?, &status["ready"]));
        }
        ready.sort_by_key(|(name, _)| *name);
        ensure!(
            ready == [("app", &json!(true)), ("second", &json!(false))],
            "{ready:?}"
        );
        Ok(())
    })?;
    row.saw(
        "the same, nothing listens on the second one's port",
        "first container ready, second not",
    );
    row.passed()?;
    Ok(())
}

fn quick(probe: &Value) -> Value {
    let mut probe = probe.clone();
    probe["periodSeconds"] = json!(1);
    // An exec probe starts a program, which takes its time on a busy machine.
    probe["timeoutSeconds"] = json!(5);
    probe
}

fn not_ready(ns: &Namespace, name: &str) -> anyhow::Result<()> {
    let dead = ns.json(&["get", "deployment", name])?;
    ensure!(
        dead["status"]["readyReplicas"].is_null(),
        "{name}: a probe of a closed port succeeded: {}",
        dead["status"]
    );
    Ok(())
}

/// A Deployment of two applications; the second is probed on `port` and listens
/// on 8180.
fn two_containers(name: &str, port: u16) -> Value {
    let mut template = App::new(name).template();
    let mut second = template["spec"]["containers"][0].clone();
    second["name"] = json!("second");
    second["readinessProbe"] = quick(&json!({"httpGet": {"path": "/", "port": port}}));
    second["ports"] = json!([]);
    if let Some(env) = second["env"].as_array_mut() {
        let ports = [
            ("PORT", "8180"),
            ("TCP_PORT", "9100"),
            ("BANNER_PORT", "9101"),
            ("CALL_PORT", "9191"),
            ("OUTSIDE_CALL_PORT", "9192"),
        ];
        env.extend(ports.map(|(name, value)| json!({"name": name, "value": value})));
    }
    if let Some(containers) = template["spec"]["containers"].as_array_mut() {
        containers.push(second);
    }
    template["spec"]["serviceAccountName"] = json!("default");
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name},
        "spec": {"selector": {"matchLabels": {"app": name}}, "template": template}})
}
