//! A route of the Gateway API, to callers whose proxies are of the version before.
//!
//! Claims: routes-5

use anyhow::{Context as _, ensure};
use e2e::harness::{Namespace, Pod, Process, eventually, gateway_api};
use serde_json::json;

use super::{SOON, previous::Previous, shop::Shop, url};

/// By its whole name: SMI has kinds that are called alike.
const ROUTE: &str = "httproutes.gateway.networking.k8s.io/shop";
/// Calls of one look at where they go.
const CALLS: u64 = 20;

/// While a route leads to the second server and the split to the first, `newer` follows the
/// route. `older` keeps the split, also over a restart of its proxy, and the route names it. A
/// version that knows routes follows them.
pub(crate) fn leave_older_callers_their_split(
    shop: &Shop,
    previous: &Previous,
    older: &Pod,
    newer: &Pod,
) -> anyhow::Result<()> {
    gateway_api::installed()?;
    let ns = &shop.ns;
    shop.split([1, 0])?;
    for caller in [older, newer] {
        calls_only(caller, "first")?;
    }
    let parent = json!({"group": "", "kind": "Service", "name": "shop", "port": 8080});
    ns.apply_all(&[
        json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "HTTPRoute",
        "metadata": {"name": "shop"}, "spec": {"parentRefs": [parent], "rules": [
            {"backendRefs": [{"name": "second", "port": 8080}]}]}}),
    ])?;
    calls_only(newer, "second")?;
    if previous.knows_routes {
        calls_only(older, "second")?;
    } else {
        calls_only(older, "first")?;
        is_named(ns, older, newer)?;
        restart_proxy(ns, older)?;
        calls_only(older, "first")?;
        is_named(ns, older, newer)?;
    }
    ns.kubectl(&["delete", ROUTE])?;
    for caller in [older, newer] {
        calls_only(caller, "first")?;
    }
    shop.split([1, 1])
}

fn calls_only(caller: &Pod, server: &str) -> anyhow::Result<()> {
    let what = format!("{} calls {server} and no other", caller.name);
    eventually(SOON, &what, || {
        let seen = caller.get(&url("shop", 8080, "/"), &["-n", &CALLS.to_string()])?;
        let there = seen.by_version.get(server) == Some(&CALLS);
        ensure!(there, "{seen:?}");
        Ok(())
    })
}

/// Waits until the route says of the one proxy that it is too old, and not of the other.
fn is_named(ns: &Namespace, older: &Pod, newer: &Pod) -> anyhow::Result<()> {
    let message = eventually(SOON, "the route names the older proxy", || {
        let route = ns.json(&["get", ROUTE])?;
        let parents = route["status"]["parents"].as_array();
        let conditions = parents
            .into_iter()
            .flatten()
            .filter_map(|parent| parent["conditions"].as_array());
        let programmed = conditions
            .flatten()
            .find(|condition| condition["type"] == "weft.dev/Programmed")
            .with_context(|| format!("it has no Programmed: {}", route["status"]))?;
        let message = programmed["message"].as_str().unwrap_or_default();
        ensure!(
            programmed["reason"] == "ProxyTooOld"
                && message.contains(&older.name)
                && !message.contains(&newer.name),
            "it is {programmed}"
        );
        Ok(message.to_owned())
    })?;
    println!("ProxyTooOld: {message}");
    Ok(())
}

/// Ends the proxy of a pod as a crash would, and waits until the kubelet has started it again.
fn restart_proxy(ns: &Namespace, pod: &Pod) -> anyhow::Result<()> {
    Process::of_pod(pod, "weft-proxy")?.kill()?;
    eventually(SOON, "the proxy is back", || {
        let now = ns.pod("keeper")?;
        ensure!(
            now.name == pod.name && now.restarts() > pod.restarts() && now.is_ready(),
            "{} has {} restarts",
            now.name,
            now.restarts()
        );
        Ok(())
    })
}
