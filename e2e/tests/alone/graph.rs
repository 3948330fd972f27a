//! The service graph is the same from every controller, also when controllers are replaced.
//!
//! Claims: observe-147, observe-149

use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Cluster, Namespace, Outcome, controllers, eventually, mesh};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{
    altered::{Altered, own_pods, own_ready},
    direct::{As, Caller},
    url,
};

/// A slot, its report, the half minute that the window ends with, and after a restart the
/// proxies' way back as well.
const SHOWN: Duration = Duration::from_secs(120);
/// What a replica that ends writes down, the others read within a minute.
const WRITTEN_WITHIN: Duration = Duration::from_secs(180);
const REPLICAS: usize = 2;
/// Of `web` to `cart`.
const CALLS: u64 = 200;
/// Seconds of a slot, which is how exactly it is known when a call was.
const INTERVAL: i64 = 5;

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

/// When the edge from `client` to `till` was seen last, in seconds since 1970, of each replica
/// that reports it by itself.
fn last_seen(ns: &Namespace, client: &str) -> anyhow::Result<Vec<i64>> {
    let path = format!(
        "/apis/observe.weft.dev/v1alpha1/namespaces/{}/graphs/live?window=60s&quiet=1&gone=1",
        ns.name
    );
    let id = |name: &str| format!("{}/Deployment/{name}", ns.name);
    let (from, to) = (id(client), id("till"));
    let mut caller = Caller::new(&ns.cluster)?;
    let pods = controllers::all(&ns.cluster)?;
    ensure!(pods.len() == REPLICAS, "{pods:?}");
    let mut all = Vec::new();
    for pod in pods {
        let (status, graph) = caller.ask(&pod, &path, As::ApiServer)?;
        ensure!(status == 200, "{} answered {status}: {graph}", pod.name);
        let edges = graph["edges"].as_array().context("no edges")?;
        let mut found = edges.iter();
        if let Some(edge) = found.find(|edge| edge["from"] == from && edge["to"] == to) {
            let seen = edge["lastSeen"].as_str().unwrap_or_default();
            let seen = OffsetDateTime::parse(seen, &Rfc3339);
            let seen = seen.with_context(|| format!("lastSeen of {edge:#}"))?;
            all.push(seen.unix_timestamp());
        }
    }
    Ok(all)
}

/// Waits until every replica does, with the time at which `client` called.
fn known(ns: &Namespace, client: &str, called: &RangeInclusive<i64>) -> anyhow::Result<()> {
    let what = format!("all replicas know when {client} called");
    eventually(WRITTEN_WITHIN, &what, || {
        let all = last_seen(ns, client)?;
        ensure!(all.len() == REPLICAS, "{} know", all.len());
        ensure!(
            all.iter().all(|seen| called.contains(seen)),
            "called {called:?}, seen {all:?}"
        );
        // Who saw the call says when its slot ended. Who read of it says when it began: the last
        // time is written down to the hour, the first one exactly.
        let ends = all.iter().min().zip(all.iter().max());
        ensure!(
            ends.is_some_and(|(first, last)| last - first <= INTERVAL),
            "seen {all:?}"
        );
        Ok(())
    })
}

/// `client` calls once, and goes with its pods. Returns when it called, in seconds since 1970,
/// with as much on both sides as slots and clocks take.
fn calls_once(ns: &Namespace, client: &str) -> anyhow::Result<RangeInclusive<i64>> {
    let now = || OffsetDateTime::now_utc().unix_timestamp();
    let started = now();
    ns.pod(client)?.report(&url("till", 8080, "/"), &[])?;
    let called = started - 2 * INTERVAL..=now() + 2 * INTERVAL;
    known(ns, client, &called)?;
    ns.kubectl(&["delete", "deployment", client])?;
    let selector = format!("app={client}");
    eventually(SHOWN, "its pods are gone", || {
        let left = ns.kubectl(&["get", "pods", "-l", &selector, "-o", "name"])?;
        ensure!(left.is_empty(), "{left}");
        Ok(())
    })?;
    Ok(called)
}

/// That all calls from `web` to `cart` show. Returns their edge.
fn all_show(ns: &Namespace, what: &str) -> anyhow::Result<Value> {
    eventually(SHOWN, what, || {
        let edge = edge(ns)?;
        ensure!(
            edge["requests"] == CALLS && edge["success"] == CALLS,
            "{edge:#}"
        );
        // Before the caller's side is there, the other's stands for it and reports less.
        ensure!(edge["server"]["requests"] == CALLS, "{edge:#}");
        Ok(edge)
    })
}

/// One rollout of the controllers serves both promises: that the same calls show after it, and
/// that what was called once is remembered by those who come, and by those who come after kills.
// Claims: observability-3
#[test]
fn graph_keeps_calls_and_edges_across_controller_replacement() -> Outcome {
    let ns = Namespace::meshed("graph")?;
    ns.run(&["web", "cart", "early", "late", "till"])?;
    let altered = Altered::begin()?;
    // They show when the half of a minute has ended in which they were: until then it is early's
    // turn. All of them must be within the five minutes after the rollout.
    let calls = CALLS.to_string();
    let args = ["-n", calls.as_str(), "-c", "4"];
    ns.pod("web")?.get(&url("cart", 8080, "/"), &args)?;
    // Just before, so that it is those who go who have to write it down.
    let early = calls_once(&ns, "early")?;
    let first = all_show(&ns, "all calls show")?;
    replace(&ns.cluster)?;
    let after = all_show(&ns, "all calls show again")?;
    for field in ["id", "from", "protocol", "mtls", "identities", "attempts"] {
        assert_eq!(after[field], first[field], "{field}");
    }
    known(&ns, "early", &early)?;

    // Of the last hour, so it is persisted nowhere: the remaining replica has it, and sends it
    // to the new one.
    let late = calls_once(&ns, "late")?;
    controllers::kill(&ns.cluster, &[controllers::leader(&ns.cluster)?])?;
    known(&ns, "late", &late)?;
    known(&ns, "early", &early)?;

    let all = controllers::all(&ns.cluster)?.into_iter();
    let all: Vec<String> = all.map(|pod| pod.name).collect();
    controllers::kill(&ns.cluster, &all)?;
    known(&ns, "early", &early)?;
    own_ready(&ns.cluster)?;
    // The Lease of who was killed lasts for a while, and what comes next needs a holder.
    eventually(SHOWN, "one of those that came leads", || {
        let leader = controllers::leader(&ns.cluster)?;
        let all = controllers::all(&ns.cluster)?;
        ensure!(all.iter().any(|pod| pod.name == leader), "{leader}");
        Ok(())
    })?;
    altered.nothing_to_restore();
    Ok(())
}
