//! `weft check` looks at the whole cluster and names the first few faults of each kind, so
//! no other test may plant any meanwhile.
//!
//! Claims: observe-156

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Cluster, CommandOutput, Namespace, Outcome, eventually, mesh};
use serde_json::{Value, json};

use super::altered::{Altered, own_pods, scale};

const CONTROLLER: [&str; 1] = ["deployment/weft-controller"];
const INJECTOR: [&str; 1] = ["deployment/weft-injector"];

/// The namespaces of other tests go meanwhile, and so do pods that were replaced.
const FOUND: Duration = Duration::from_secs(180);
/// In the order of the output.
const IDS: [&str; 4] = ["pods-without-proxy", "resolved", "annotations", "labels"];

fn weft(ns: &Namespace, args: &[&str]) -> anyhow::Result<CommandOutput> {
    let more = ["-n", &ns.name, "--request-timeout", "30s"];
    ns.cluster.weft(&[args, &more].concat())
}

/// Which of the checks fail because of something in this namespace.
fn failing(ns: &Namespace) -> anyhow::Result<Vec<String>> {
    let report = weft(ns, &["check", "-o", "json"])?.json()?;
    let checks = report["checks"].as_array().context("no checks")?;
    let text = |check: &Value, field: &str| check[field].as_str().unwrap_or_default().to_owned();
    let ours = checks.iter().filter(|check| {
        IDS.contains(&text(check, "id").as_str())
            && check["result"] != "ok"
            && text(check, "message").contains(&ns.name)
    });
    Ok(ours.map(|check| text(check, "id")).collect())
}

// Claims: observability-7
#[test]
fn check_finds_namespace_faults_by_id_until_repaired() -> Outcome {
    let ns = Namespace::unmeshed("check-faults")?;
    // A pod that was there before its namespace was labelled.
    ns.apply_all(&App::new("early").objects())?;
    eventually(FOUND, "the early pod is there", || {
        let pods = ns.kubectl(&["get", "pods", "-l", "app=early", "-o", "name"])?;
        ensure!(!pods.is_empty(), "it is not");
        Ok(())
    })?;
    ns.cluster
        .kubectl(&["label", "namespace", &ns.name, "weft.dev/inject=enabled"])?;
    ns.apply_all(&App::new("late").objects())?;
    ns.ready(&["early", "late"])?;
    let late = ns.pod("late")?;
    let access = |value: &str| {
        let value = format!("weft.dev/access={value}");
        ns.kubectl(&["annotate", "--overwrite", "pod", &late.name, &value])
    };
    access("denied")?;
    let label = |change: &str| {
        let change = format!("weft.dev/inject{change}");
        ns.kubectl(&["label", "--overwrite", "pod", &late.name, &change])
    };
    label("=true")?;
    ns.apply(
        "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: lost}\n\
         spec: {service: missing, backends: [{service: late, weight: 1}]}\n",
    )?;
    eventually(FOUND, "each fault is found at its own id", || {
        let found = failing(&ns)?;
        ensure!(found == IDS, "{found:?}");
        Ok(())
    })?;
    weft(&ns, &["check", "--fail-on", "warning"])?.with_status(1)?;

    access("deny")?;
    label("-")?;
    ns.kubectl(&["delete", "trafficsplit", "lost"])?;
    ns.kubectl(&["rollout", "restart", "deployment/early"])?;
    ns.ready(&["early"])?;
    eventually(FOUND, "mended, they are well", || {
        let found = failing(&ns)?;
        ensure!(found.is_empty(), "{found:?}");
        Ok(())
    })?;
    Ok(())
}

/// Waits until each of these checks fails as it should, and the command with an error.
fn fail(ns: &Namespace, wanted: &[(&str, &str)]) -> anyhow::Result<()> {
    fail_with(ns, &[], wanted)
}

/// The same of a check with more arguments.
fn fail_with(ns: &Namespace, more: &[&str], wanted: &[(&str, &str)]) -> anyhow::Result<()> {
    eventually(FOUND, &format!("{wanted:?} is found"), || {
        let output = weft(ns, &[&["check", "-o", "json"], more].concat())?;
        let report = output.json()?;
        let checks = report["checks"].as_array().context("no checks")?;
        for (id, result) in wanted {
            let found = checks.iter().find(|check| check["id"] == *id);
            let found = found.with_context(|| format!("no check {id}"))?;
            ensure!(found["result"] == *result, "{found}");
        }
        if wanted.iter().any(|(_, result)| *result == "error") {
            output.with_status(1)?;
        }
        Ok(())
    })
}

/// Of the namespace that the mesh's own parts are in.
fn kubectl(cluster: &Cluster, args: &[&str]) -> anyhow::Result<String> {
    cluster.kubectl(&[&["-n", mesh::NAMESPACE], args].concat())
}

/// What is looked at before an install: the rights of who would install, and whose the
/// definitions are.
fn before_an_install(ns: &Namespace) -> anyhow::Result<()> {
    let no_rights = ["--pre", "--as", "system:serviceaccount:default:default"];
    fail_with(ns, &no_rights, &[("rights", "error")])?;
    let definition = "customresourcedefinition/trafficsplits.split.smi-spec.io";
    let owner = |release: &str| {
        let release = format!("meta.helm.sh/release-name={release}");
        let words = ["annotate", "--overwrite", definition, &release];
        ns.cluster.kubectl(&words).map(drop)
    };
    owner("others")?;
    let found = fail_with(ns, &["--pre"], &[("foreign-definitions", "warning")]);
    // At once: no release can be upgraded whose definitions belong to another.
    owner("weft")?;
    found
}

/// The definition of an unused kind is gone.
fn without_a_definition(ns: &Namespace) -> anyhow::Result<()> {
    ns.cluster
        .kubectl(&["delete", "crd", "udproutes.specs.smi-spec.io"])?;
    fail(ns, &[("definitions", "error")])
}

/// The API server no longer calls the injector: objects are stored unvalidated.
fn without_webhooks(ns: &Namespace) -> anyhow::Result<()> {
    for webhook in [
        "mutatingwebhookconfiguration/weft-injector",
        "validatingwebhookconfiguration/weft-validator",
    ] {
        ns.cluster.kubectl(&["delete", webhook])?;
    }
    ns.apply(
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\n\
         metadata: {name: broken}\n\
         spec: {matches: [{name: m, pathRegex: \"/api/(\", methods: [GET]}]}\n",
    )?;
    let errors = ["webhooks", "injection", "validation", "accepted"];
    fail(ns, &errors.map(|id| (id, "error")))?;
    ns.kubectl(&["delete", "httproutegroup", "broken"])?;
    Ok(())
}

/// Leaves no pod of either Deployment. One of two replicas that end may still take over what
/// the other released, so that nothing is looked at before all are gone.
fn take_both_away(ns: &Namespace) -> anyhow::Result<()> {
    scale(&ns.cluster, &[CONTROLLER, INJECTOR].concat(), 0)?;
    eventually(FOUND, "controllers and injectors are gone", || {
        let left = own_pods(&ns.cluster)?;
        ensure!(left.is_empty(), "{left:?}");
        Ok(())
    })
}

/// The webhooks trust a foreign authority, and the injector, which would repair that, is away.
fn without_injector(ns: &Namespace) -> anyhow::Result<()> {
    let secret = ["-n", mesh::NAMESPACE, "get", "secret", "weft-ca"];
    let other = ns.cluster.json(&secret)?["data"]["issuer.crt"].clone();
    let patch = json!([
        {"op": "add", "path": "/webhooks/0/clientConfig/caBundle", "value": other},
    ]);
    let patch = patch.to_string();
    let webhook = "mutatingwebhookconfiguration/weft-injector";
    let words = ["patch", webhook, "--type=json", "-p", &patch];
    ns.cluster.kubectl(&words)?;
    fail(ns, &["injector", "ca-bundles"].map(|id| (id, "error")))
}

/// No controller holds the Lease, serves our groups or restores what other clients write.
fn without_controller(ns: &Namespace) -> anyhow::Result<()> {
    let gone = ["lease", "api-services", "controller"];
    fail(ns, &gone.map(|id| (id, "error")))?;
    let patch = json!({"data": {"ca.crt": "of another authority"}}).to_string();
    let map = "configmap/weft-trust-bundle";
    ns.kubectl(&["patch", map, "--type=merge", "-p", &patch])?;
    fail(ns, &[("trust-bundles", "error")])
}

// Claims: observability-7
#[test]
fn check_finds_control_plane_faults_by_id() -> Outcome {
    let ns = Namespace::meshed("check-plane")?;
    ns.run(&["old"])?;
    let altered = Altered::begin()?;
    // As if it had been upgraded twice since the pod's proxy was injected.
    let version = "app.kubernetes.io/version=0.9.0";
    kubectl(
        &ns.cluster,
        &["label", "--overwrite", CONTROLLER[0], version],
    )?;
    scale(&ns.cluster, &CONTROLLER, 1)?;
    let warnings = ["versions", "single-replicas", "old-proxies"];
    fail(&ns, &warnings.map(|id| (id, "warning")))?;
    weft(&ns, &["check", "--fail-on", "warning"])?.with_status(1)?;
    before_an_install(&ns)?;
    // No check depends on another's fault, so one upgrade repairs several of them.
    without_webhooks(&ns)?;
    without_a_definition(&ns)?;
    mesh::install(&[])?;
    take_both_away(&ns)?;
    without_injector(&ns)?;
    without_controller(&ns)?;
    altered.restore()?;
    eventually(FOUND, "a mesh that is well has no error", || {
        weft(&ns, &["check"])?.with_status(0)
    })?;
    Ok(())
}
