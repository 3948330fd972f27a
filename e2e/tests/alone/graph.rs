//! The service graph is true whoever draws it.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Cluster, Namespace, Outcome, controllers, eventually, mesh};
use serde_json::Value;

use super::{
    altered::{Altered, own_pods, own_ready},
    direct::{As, Caller},
    url,
};

/// A slot, its report, the half minute that the window ends with, and after a restart the
/// proxies' way back as well.
const SHOWN: Duration = Duration::from_secs(120);
/// What a replica that ends writes down, the others read within a minute.
const TOLD: Duration = Duration::from_secs(180);
const REPLICAS: usize = 2;

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
        // Before the caller's side is there, the other's stands for it and tells less.
        ensure!(edge["server"]["requests"] == 200, "{edge:#}");
        Ok(())
    };
    let first = eventually(SHOWN, "all calls show", || {
        let found = edge(&ns)?;
        all(&found).map(|()| found)
    })?;
    replace(&ns.cluster)?;
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

/// A rollout of every controller.
fn replace(cluster: &Cluster) -> anyhow::Result<()> {
    let before = own_pods(cluster)?;
    let restart = ["rollout", "restart", "deployment/weft-controller"];
    cluster.kubectl(&[&["-n", mesh::NAMESPACE], &restart[..]].concat())?;
    own_ready(cluster)?;
    eventually(SHOWN, "the controllers of before are gone", || {
        let controller = |pod: &&String| pod.contains("weft-controller");
        let now = own_pods(cluster)?;
        ensure!(
            !now.iter()
                .filter(controller)
                .any(|pod| before.contains(pod)),
            "{now:?}"
        );
        Ok(())
    })
}

/// How many replicas tell of the edge from `client` to `cart` by themselves, with when it was
/// seen.
fn knowing(ns: &Namespace, client: &str) -> anyhow::Result<usize> {
    let path = format!(
        "/apis/observe.weft.dev/v1alpha1/namespaces/{}/graphs/live?window=60s&quiet=1&gone=1",
        ns.name
    );
    let id = |name: &str| format!("{}/Deployment/{name}", ns.name);
    let (from, to) = (id(client), id("cart"));
    let mut caller = Caller::new(&ns.cluster)?;
    let pods = controllers::all(&ns.cluster)?;
    ensure!(pods.len() == REPLICAS, "{pods:?}");
    let mut knowing = 0;
    for pod in pods {
        let (status, graph) = caller.ask(&pod, &path, As::ApiServer)?;
        ensure!(status == 200, "{} answered {status}: {graph}", pod.name);
        let edges = graph["edges"].as_array().context("no edges")?;
        let mut found = edges.iter();
        if let Some(edge) = found.find(|edge| edge["from"] == from && edge["to"] == to) {
            let seen = edge["lastSeen"].as_str().unwrap_or_default();
            ensure!(seen.starts_with("20"), "{edge:#}");
            knowing += 1;
        }
    }
    Ok(knowing)
}

/// Waits until so many replicas do.
fn known(ns: &Namespace, client: &str, replicas: usize) -> anyhow::Result<()> {
    let what = format!("{replicas} know of the call of {client}");
    eventually(TOLD, &what, || {
        let knowing = knowing(ns, client)?;
        ensure!(knowing >= replicas, "{knowing} do");
        Ok(())
    })
}

/// `client` calls once, and goes with its pods.
fn calls_once(ns: &Namespace, client: &str) -> anyhow::Result<()> {
    ns.pod(client)?.report(&url("cart", 8080, "/"), &[])?;
    known(ns, client, REPLICAS)?;
    ns.kubectl(&["delete", "deployment", client])?;
    let selector = format!("app={client}");
    eventually(SHOWN, "its pods are gone", || {
        let left = ns.kubectl(&["get", "pods", "-l", &selector, "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })
}

#[test]
fn edge_that_was_called_once_outlives_its_caller_and_every_controller() -> Outcome {
    let ns = Namespace::meshed("graph-memory")?;
    ns.run(&["early", "late", "cart"])?;
    let altered = Altered::begin()?;
    calls_once(&ns, "early")?;
    replace(&ns.cluster)?;
    known(&ns, "early", REPLICAS)?;

    // Of the last hour, so it is written down nowhere: whoever is left knows it.
    calls_once(&ns, "late")?;
    controllers::kill(&ns.cluster, &[controllers::leader(&ns.cluster)?])?;
    known(&ns, "late", 1)?;
    known(&ns, "early", REPLICAS)?;

    let all = controllers::all(&ns.cluster)?.into_iter();
    let all: Vec<String> = all.map(|pod| pod.name).collect();
    controllers::kill(&ns.cluster, &all)?;
    known(&ns, "early", REPLICAS)?;
    altered.restore()?;
    Ok(())
}
