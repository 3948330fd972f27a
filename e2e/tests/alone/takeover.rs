//! Definitions of another product are taken over with their stored objects, and the
//! uninstall leaves objects that every client can read.
//!
//! Claims: smi-10, smi-13

use std::time::Duration;

use anyhow::{bail, ensure};
use e2e::harness::{Cluster, Namespace, Outcome, eventually, mesh};
use serde_json::{Value, json};

use super::{altered::Altered, lifecycle::uninstall};

const TARGETS: &str = "traffictargets.access.smi-spec.io";
const SPLITS: &str = "trafficsplits.split.smi-spec.io";
const GROUPS: &str = "httproutegroups.specs.smi-spec.io";
/// More than any reader with a limit of 128 takes, as a tenant may have stored it.
const LEVELS: usize = 300;
/// The controller looks every 15 s and waits 10 s before it writes.
const REWRITTEN: Duration = Duration::from_secs(90);

#[test]
fn foreign_definition_takeover_is_explicit_and_lossless() -> Outcome {
    let ns = Namespace::unmeshed("takeover")?;
    let cluster = &ns.cluster;
    let altered = Altered::begin()?;
    uninstall(cluster)?;
    remove_definitions(cluster)?;
    foreign_definitions(cluster)?;
    ns.apply(FOREIGN)?;
    let nested = (0..LEVELS).fold(json!("x"), |inner, _| json!({"a": inner}));
    ns.apply_all(&[
        json!({"apiVersion": "specs.smi-spec.io/v1alpha2", "kind": "HTTPRouteGroup",
        "metadata": {"name": "nested"}, "matches": [{"name": "m", "headers": nested}]}),
    ])?;

    let refused = mesh::install(&[]);
    let message = refused
        .err()
        .map(|error| format!("{error:#}"))
        .unwrap_or_default();
    for word in [
        "crds.smi.takeOver=true",
        "--take-ownership",
        TARGETS,
        SPLITS,
    ] {
        assert!(message.contains(word), "{word} is not in: {message}");
    }
    mesh::install_with(&["crds.smi.takeOver=true"], &["--take-ownership"])?;
    for name in [TARGETS, SPLITS, GROUPS] {
        eventually(REWRITTEN, "everything is stored in one version", || {
            let stored = stored_versions(cluster, name)?;
            ensure!(stored == json!(["v1alpha4"]), "{name}: {stored}");
            Ok(())
        })?;
    }
    shows(
        &ns,
        "trafficsplits.v1alpha1.split.smi-spec.io/canary",
        &json!(["1", "500m"]),
    )?;
    shows(
        &ns,
        "trafficsplits.v1alpha4.split.smi-spec.io/canary",
        &json!([1000, 500]),
    )?;
    let target = ns.json(&["get", "traffictargets.v1alpha4.access.smi-spec.io/old"])?;
    assert_eq!(target["spec"]["destination"]["port"], 8080, "{target}");

    // An unreadable object harms no other, and stays changeable.
    ns.await_condition("httproutegroup/routes", "Accepted", "True")?;
    ns.await_condition("httproutegroup/nested", "Accepted", "False")?;
    ns.kubectl(&["label", "httproutegroup/nested", "team=web"])?;

    // Without the injector nothing converts: what is shown now is what is stored.
    refusal_names_the_way_out(cluster)?;
    uninstall(cluster)?;
    shows(&ns, "trafficsplit/canary", &json!([1000, 500]))?;
    let target = ns.json(&["get", "traffictarget/old"])?;
    assert_eq!(target["spec"]["destination"]["port"], 8080, "{target}");
    assert_eq!(target["apiVersion"], "access.smi-spec.io/v1alpha4");
    ns.kubectl(&["label", "trafficsplit/canary", "team=web"])?;
    for name in [TARGETS, SPLITS] {
        let spec = definition(cluster, name)?["spec"].clone();
        assert_eq!(spec["conversion"], json!({"strategy": "None"}));
        let versions = spec["versions"].as_array().cloned().unwrap_or_default();
        let served = versions.iter().filter(|version| version["served"] == true);
        let served: Vec<&Value> = served.map(|version| &version["name"]).collect();
        assert_eq!(served, ["v1alpha4"], "{name}");
    }

    altered.restore()?;
    shows(
        &ns,
        "trafficsplits.v1alpha1.split.smi-spec.io/canary",
        &json!(["1", "500m"]),
    )?;
    shows(
        &ns,
        "trafficsplits.v1alpha2.split.smi-spec.io/canary",
        &json!([1000, 500]),
    )?;
    Ok(())
}

/// With a definition that says that older versions are stored, and no controller to rewrite them.
fn refusal_names_the_way_out(cluster: &Cluster) -> anyhow::Result<()> {
    let controller = ["-n", mesh::NAMESPACE, "scale", "deployment/weft-controller"];
    cluster.kubectl(&[&controller[..], &["--replicas=0"]].concat())?;
    eventually(Duration::from_secs(60), "no controller runs", || {
        let label = "app.kubernetes.io/component=controller";
        let pods = cluster.kubectl(&[
            "-n",
            mesh::NAMESPACE,
            "get",
            "pods",
            "-l",
            label,
            "-o",
            "name",
        ])?;
        ensure!(pods.is_empty(), "{pods}");
        Ok(())
    })?;
    store(cluster, &json!(["v1alpha1", "v1alpha4"]))?;
    let outcome = uninstall(cluster);
    let touched = definition(cluster, TARGETS)?["spec"]["conversion"].clone();
    // Who wants to keep the mesh after all. At once, so that a failure below does not
    // leave a release that is neither here nor gone.
    if outcome.is_err() {
        let releases = cluster.helm(&["history", "weft", "-n", mesh::NAMESPACE, "-o", "json"])?;
        let releases: Vec<Value> = serde_json::from_str(&releases)?;
        let last = releases
            .last()
            .map(|release| release["revision"].to_string());
        let last = last.unwrap_or_default();
        let words = ["rollback", "weft", &last, "-n", mesh::NAMESPACE, "--wait"];
        cluster.helm(&[&words[..], &["--timeout", "3m"]].concat())?;
    }
    let Err(refused) = outcome else {
        bail!("nothing kept the chart from going");
    };
    let error = format!("{refused:#}");
    for word in [SPLITS, "v1alpha1", "try again"] {
        ensure!(error.contains(word), "{word} is not in: {error}");
    }
    ensure!(
        touched["strategy"] == "Webhook",
        "it was touched: {touched}"
    );
    mesh::install(&[])?;
    eventually(REWRITTEN, "the controller has made it good", || {
        let stored = stored_versions(cluster, SPLITS)?;
        ensure!(stored == json!(["v1alpha4"]), "{stored}");
        Ok(())
    })
}

fn definition(cluster: &Cluster, name: &str) -> anyhow::Result<Value> {
    cluster.json(&["get", "crd", name])
}

fn stored_versions(cluster: &Cluster, name: &str) -> anyhow::Result<Value> {
    Ok(definition(cluster, name)?["status"]["storedVersions"].clone())
}

fn store(cluster: &Cluster, versions: &Value) -> anyhow::Result<()> {
    let patch = json!({"status": {"storedVersions": versions}}).to_string();
    let words = [
        "patch",
        "crd",
        SPLITS,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ];
    cluster.kubectl(&words).map(drop)
}

fn remove_definitions(cluster: &Cluster) -> anyhow::Result<()> {
    let names = cluster.kubectl(&["get", "crd", "-o", "name"])?;
    let names: Vec<&str> = names
        .lines()
        .filter(|name| name.contains(".smi-spec.io"))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    let words = [&["delete"], &names[..], &["--wait", "--timeout=60s"]].concat();
    cluster.kubectl(&words).map(drop)
}

/// As other meshes have left them: one or two versions, no conversion between them.
fn foreign_definitions(cluster: &Cluster) -> anyhow::Result<()> {
    let definition = |kind: &str, plural: &str, group: &str, versions: &[&str]| {
        let schema = json!({"openAPIV3Schema": {"type": "object",
            "x-kubernetes-preserve-unknown-fields": true}});
        let versions: Vec<Value> = versions
            .iter()
            .enumerate()
            .map(|(i, name)| json!({"name": name, "served": true, "storage": i == 0, "schema": schema}))
            .collect();
        json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{plural}.{group}")},
            "spec": {"group": group, "scope": "Namespaced", "versions": versions,
                "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase(),
                    "listKind": format!("{kind}List")}}})
    };
    let split = ["v1alpha1", "v1alpha2"];
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [
        definition("TrafficSplit", "trafficsplits", "split.smi-spec.io", &split),
        definition("TrafficTarget", "traffictargets", "access.smi-spec.io", &["v1alpha2"]),
        definition("HTTPRouteGroup", "httproutegroups", "specs.smi-spec.io", &["v1alpha2"]),
    ]});
    cluster.apply("default", &list.to_string())?;
    for name in [TARGETS, SPLITS, GROUPS] {
        let crd = format!("crd/{name}");
        cluster.kubectl(&["wait", "--for=condition=Established", &crd, "--timeout=30s"])?;
    }
    Ok(())
}

fn shows(ns: &Namespace, object: &str, weights: &Value) -> anyhow::Result<()> {
    eventually(Duration::from_secs(20), "the version is served", || {
        let split = ns.json(&["get", object])?;
        let backends = split["spec"]["backends"]
            .as_array()
            .cloned()
            .unwrap_or_default();
        let seen: Vec<&Value> = backends.iter().map(|backend| &backend["weight"]).collect();
        ensure!(json!(seen) == *weights, "{object} shows {split}");
        Ok(())
    })
}

const FOREIGN: &str = r#"
apiVersion: specs.smi-spec.io/v1alpha2
kind: HTTPRouteGroup
metadata: {name: routes}
matches: [{name: m, pathRegex: /}]
---
apiVersion: split.smi-spec.io/v1alpha1
kind: TrafficSplit
metadata: {name: canary}
spec:
  service: web
  backends: [{service: web-v1, weight: "1"}, {service: web-v2, weight: 500m}]
---
apiVersion: access.smi-spec.io/v1alpha2
kind: TrafficTarget
metadata: {name: old}
spec:
  destination: {kind: ServiceAccount, name: web, port: 8080}
  sources: [{kind: ServiceAccount, name: client}]
  rules: [{kind: HTTPRouteGroup, name: routes}]
"#;
