//! The service graph is true whoever draws it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, Outcome, eventually, mesh};
use serde_json::Value;

use super::{
    altered::{Altered, own_pods, own_ready},
    url,
};

/// A slot, its report, the half minute that the window ends with, and after a restart the
/// proxies' way back as well.
const SHOWN: Duration = Duration::from_secs(120);

/// The edge from `web` to `cart` in the last five minutes.
fn edge(ns: &Namespace) -> anyhow::Result<Value> {
    let path = format!(
        "/apis/observe.weft.dev/v1alpha1/namespaces/{}/graphs/live?window=300s",
        ns.name
    );
    let text = ns.cluster.kubectl(&["get", "--raw", &path])?;
    let graph: Value = serde_json::from_str(&text)?;
    let to = format!("{}/Deployment/cart", ns.name);
    let edges = graph["edges"].as_array().context("no edges")?;
    let found = edges
        .iter()
        .find(|edge| edge["to"] == to && edge["port"] == 8080);
    found
        .cloned()
        .with_context(|| format!("no edge to {to}: {graph:#}"))
}

#[test]
fn graph_tells_the_same_calls_after_every_controller_was_replaced() -> Outcome {
    let ns = Namespace::meshed("graph-restart")?;
    ns.run(&["web", "cart"])?;
    let altered = Altered::begin()?;
    ns.pod("web")?
        .get(&url("cart", 8080, "/"), &["-n", "200", "-c", "4"])?;
    let all = |edge: &Value| -> anyhow::Result<()> {
        ensure!(
            edge["requests"] == 200 && edge["success"] == 200,
            "{edge:#}"
        );
        Ok(())
    };
    let first = eventually(SHOWN, "all calls show", || {
        let found = edge(&ns)?;
        all(&found).map(|()| found)
    })?;
    let before = own_pods(&ns.cluster)?;
    let restart = ["rollout", "restart", "deployment/weft-controller"];
    ns.cluster
        .kubectl(&[&["-n", mesh::NAMESPACE], &restart[..]].concat())?;
    own_ready(&ns.cluster)?;
    eventually(SHOWN, "the controllers of before are gone", || {
        let controller = |pod: &&String| pod.contains("weft-controller");
        let now = own_pods(&ns.cluster)?;
        ensure!(
            !now.iter()
                .filter(controller)
                .any(|pod| before.contains(pod)),
            "{now:?}"
        );
        Ok(())
    })?;
    let after = eventually(SHOWN, "all calls show again", || {
        let found = edge(&ns)?;
        all(&found).map(|()| found)
    })?;
    for field in ["id", "from", "protocol", "mtls", "identities", "attempts"] {
        assert_eq!(after[field], first[field], "{field}");
    }
    altered.restore()?;
    Ok(())
}
