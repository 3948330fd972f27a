//! The definitions of the Gateway API, which the mesh reads where a cluster has them and never
//! installs.
//!
//! The first test that needs them applies them, beside a mesh that may be running: that its
//! controllers then read routes without a restart is a part of what these tests show.

use std::{env, path::Path, sync::OnceLock, time::Duration};

use anyhow::Context as _;
use serde_json::json;

use super::{Cluster, eventually};

/// The namespace of all Gateways of tests: the chart gives the controller its rights there.
pub const GATEWAYS: &str = "e2e-gateways";
/// Another one in which the controller may read Secrets, where a grant permits it.
pub const SECRETS: &str = "e2e-gateway-secrets";
/// The folder of their module, which `e2e/run` prepares.
const SOURCE: &str = "GATEWAY_API_SOURCE";
/// Kinds that routes with Services as parents need.
const OF_ROUTES: [&str; 4] = ["httproutes", "grpcroutes", "tcproutes", "referencegrants"];
/// Kinds that the chart needs besides where it serves Gateways.
const OF_GATEWAYS: [&str; 3] = ["gatewayclasses", "gateways", "tlsroutes"];
/// As they are called in files and objects.
const GROUP: &str = "gateway.networking.k8s.io";

/// Applies the definitions of the standard channel, once per test program, unless the cluster
/// has some.
pub fn installed() -> anyhow::Result<()> {
    static OUTCOME: OnceLock<Result<(), String>> = OnceLock::new();
    let outcome = OUTCOME.get_or_init(|| install().map_err(|error| format!("{error:#}")));
    outcome
        .clone()
        .map_err(|error| anyhow::anyhow!("the Gateway API cannot be installed: {error}"))
}

fn install() -> anyhow::Result<()> {
    let cluster = Cluster::connect()?;
    if are_there(&cluster, &OF_ROUTES) {
        return Ok(());
    }
    let source = env::var(SOURCE).with_context(|| {
        format!("{SOURCE} is not set: run `make test`, or install the Gateway API's standard channel in this cluster")
    })?;
    apply(&cluster, &source, &OF_ROUTES)
}

/// The chart's settings that serve Gateways, once the cluster has what the chart needs for that:
/// the definitions and the namespaces. None where definitions are neither there nor at hand.
pub(super) fn settings(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    if !has_gateways(cluster)? {
        return Ok(Vec::new());
    }
    // Pods of Gateways keep to the strictest profile that Kubernetes has.
    let labels = json!({"weft-e2e": "true", "pod-security.kubernetes.io/enforce": "restricted"});
    let namespace = |name: &str| {
        json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels}})
    };
    let items = [GATEWAYS, SECRETS].map(namespace);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": items});
    cluster.apply("default", &list.to_string())?;
    Ok(vec![
        "gateway.enabled=true".to_owned(),
        format!("gateway.namespaces={{{GATEWAYS},{SECRETS}}}"),
    ])
}

/// Applies the definitions of Gateways, before the mesh is installed: its chart finds out whether
/// the cluster has them. False where it has none and their module is not at hand.
fn has_gateways(cluster: &Cluster) -> anyhow::Result<bool> {
    if are_there(cluster, &OF_GATEWAYS) {
        return Ok(true);
    }
    let Ok(source) = env::var(SOURCE) else {
        return Ok(false);
    };
    apply(cluster, &source, &OF_GATEWAYS)?;
    // Discovery, which helm reads, has them a moment after they are established.
    let limit = Duration::from_secs(30);
    eventually(limit, "GatewayClasses are served", || {
        cluster.kubectl(&["get", "gatewayclasses"])
    })?;
    Ok(true)
}

fn names(kinds: &[&str]) -> Vec<String> {
    let name = |kind: &&str| format!("crd/{kind}.{GROUP}");
    kinds.iter().map(name).collect()
}

fn are_there(cluster: &Cluster, kinds: &[&str]) -> bool {
    let names = names(kinds);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    cluster.kubectl(&[&["get"], &names[..]].concat()).is_ok()
}

fn apply(cluster: &Cluster, source: &str, kinds: &[&str]) -> anyhow::Result<()> {
    let folder = Path::new(source).join("config/crd/standard");
    for kind in kinds {
        let file = folder.join(format!("{GROUP}_{kind}.yaml"));
        // Their schemas are too long for the annotation of a client-side apply.
        let words = ["apply", "--server-side", "--force-conflicts", "-f"];
        cluster.kubectl(&[&words[..], &[&*file.to_string_lossy()]].concat())?;
    }
    let names = names(kinds);
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let wait = ["wait", "--for=condition=Established", "--timeout=60s"];
    cluster.kubectl(&[&wait[..], &names].concat()).map(drop)
}
