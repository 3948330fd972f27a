//! Capture by the node: a namespace whose pods may have no privilege is in the mesh, and its pods
//! wait where their node has no agent.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Cluster, Namespace, Outcome, eventually, mesh};
use serde_json::{Value, json};

use super::{altered::Altered, url};

/// Pods that end have up to 30 s for that.
const SOON: Duration = Duration::from_secs(60);
/// Five times what a pod may wait for an agent that is back.
const CAPTURED: Duration = Duration::from_secs(15);
const AGENTS: &str = "daemonset/weft-node";

/// A pod of its namespace's level, but for what the mesh adds.
fn restricted(name: &str) -> App {
    App::new(name).container(json!({"securityContext": {
        "runAsNonRoot": true, "runAsUser": 65532, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    }}))
}

fn bare_pod(name: &str) -> Value {
    let template = restricted(name).template();
    let mut spec = template["spec"].clone();
    spec["serviceAccountName"] = json!("default");
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

fn kubectl(cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
    cluster.kubectl(&[&["-n", mesh::NAMESPACE], args].concat())
}

/// Puts the agents on no node, or back on all.
fn place_agents(cluster: &Cluster, selector: &Value) -> anyhow::Result<()> {
    let spec = json!({"spec": {"template": {"spec": {"nodeSelector": selector}}}});
    let patch = ["patch", AGENTS, "--type=merge", "-p", &spec.to_string()];
    kubectl(cluster, &patch).map(drop)
}

fn agents(cluster: &Cluster) -> anyhow::Result<usize> {
    let label = "app.kubernetes.io/component=node";
    let names = kubectl(cluster, &["get", "pods", "-l", label, "-o", "name"])?;
    Ok(names.lines().count())
}

fn node_agents(cluster: &Cluster) -> anyhow::Result<Value> {
    let report = cluster.weft(&["check", "-o", "json"])?.json()?;
    let checks = report["checks"].as_array().context("no checks")?;
    let check = checks.iter().find(|check| check["id"] == "node-agents");
    check.cloned().context("no check of agents")
}

/// The status of a pod's init container that redirects its traffic.
fn capture_of(ns: &Namespace, app: &str) -> anyhow::Result<(String, Value)> {
    let pods = ns.json(&["get", "pods", "-l", &format!("app={app}")])?;
    let pod = &pods["items"][0];
    let name = pod["metadata"]["name"].as_str().context("no pod")?;
    let statuses = pod["status"]["initContainerStatuses"].as_array();
    let mut statuses = statuses.into_iter().flatten();
    let capture = statuses.find(|one| one["name"] == "weft-capture");
    let state = capture.context("no weft-capture")?["state"].clone();
    Ok((name.to_owned(), state))
}

fn is_captured(ns: &Namespace, app: &str) -> anyhow::Result<()> {
    let (name, state) = capture_of(ns, app)?;
    ensure!(state["terminated"]["exitCode"] == 0, "{name}: {state}");
    Ok(())
}

/// No container of the mesh adds a capability, and none runs as root.
fn has_no_privilege(ns: &Namespace) -> anyhow::Result<()> {
    let pods = ns.json(&["get", "pods"])?;
    for pod in pods["items"].as_array().context("no pods")? {
        let init = pod["spec"]["initContainers"].as_array();
        let init = init.context("no proxy")?;
        ensure!(init.len() == 2, "{pod}");
        for container in init {
            let context = &container["securityContext"];
            let capabilities = json!({"drop": ["ALL"]});
            ensure!(context["capabilities"] == capabilities, "{context}");
            ensure!(context["runAsNonRoot"] == true, "{context}");
        }
    }
    Ok(())
}

// Claims: trust-6
#[test]
fn restricted_namespace_is_meshed_and_waits_for_agents() -> Outcome {
    let ns = Namespace::meshed("by-node")?;
    let cluster = &ns.cluster;
    let level = "pod-security.kubernetes.io/enforce=restricted";
    cluster.kubectl(&["label", "namespace", &ns.name, level])?;
    let altered = Altered::begin()?;
    // Control: a pod that redirects its traffic itself is refused there.
    let refused = ns.apply_all(&[bare_pod("early")]).err();
    let refused = refused
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    assert!(refused.contains("violates PodSecurity"), "{refused}");

    mesh::install(&["capture.mode=node"])?;
    let objects = ["server", "client"].map(|name| restricted(name).objects());
    ns.apply_all(&objects.concat())?;
    ns.ready(&["server", "client"])?;
    has_no_privilege(&ns)?;
    let client = ns.pod("client")?;
    let report = client.report(&url("server", 8080, "/"), &[])?;
    assert!(report.client_id.is_some(), "in plaintext: {report:?}");
    assert_eq!(node_agents(cluster)?["result"], "ok");

    place_agents(cluster, &json!({"weft.dev/nowhere": "true"}))?;
    eventually(SOON, "no agent runs", || {
        let left = agents(cluster)?;
        ensure!(left == 0, "{left} are left");
        Ok(())
    })?;
    ns.apply_all(&restricted("late").objects())?;
    waits(&ns)?;
    assert_eq!(node_agents(cluster)?["result"], "error");
    client.report(&url("server", 8080, "/"), &[])?;

    place_agents(cluster, &json!({"weft.dev/nowhere": null}))?;
    kubectl(cluster, &["rollout", "status", AGENTS, "--timeout=60s"])?;
    let back = Instant::now();
    eventually(CAPTURED, "the pod is captured", || is_captured(&ns, "late"))?;
    println!("captured {:?} after the agents' return", back.elapsed());
    ns.ready(&["late"])?;
    client.report(&url("late", 8080, "/"), &[])?;

    // What is captured stays so without agents, and is as it was.
    altered.restore()?;
    let report = client.report(&url("server", 8080, "/"), &[])?;
    assert!(report.client_id.is_some(), "in plaintext: {report:?}");
    assert_eq!(agents(cluster)?, 0);
    Ok(())
}

/// No application of the pod starts, and its log names the reason.
fn waits(ns: &Namespace) -> anyhow::Result<()> {
    eventually(SOON, "the log names the node", || {
        let (name, state) = capture_of(ns, "late")?;
        ensure!(!state["running"].is_null(), "{name}: {state}");
        let log = ns.kubectl(&["logs", &name, "-c", "weft-capture"])?;
        let reminder = "no weft-node came: does it run on node node";
        ensure!(log.contains(reminder), "{log}");
        Ok(())
    })?;
    let (name, state) = capture_of(ns, "late")?;
    ensure!(!state["running"].is_null(), "{name}: {state}");
    Ok(())
}
