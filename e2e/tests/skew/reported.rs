//! What `weft` reports of proxies of both versions.

use anyhow::{Context as _, ensure};
use e2e::harness::{CommandOutput, Namespace, Pod, eventually};
use serde_json::Value;

use super::{SOON, previous::Previous};

/// What a proxy names that carries out this part of a TrafficPolicy.
const RETRY: &str = "traffic-policy/retry";
/// What would fail if an older proxy were no proxy, refused something or had no stream.
const CHECKS: [&str; 4] = ["pods-without-proxy", "old-proxies", "connected", "refusals"];

fn weft(ns: &Namespace, args: &[&str]) -> anyhow::Result<CommandOutput> {
    let more = ["-n", &ns.name, "--request-timeout", "30s"];
    ns.cluster.weft(&[args, &more].concat())
}

/// The proxies of these pods are connected, refused nothing, and say which version they are
/// of and what they lack.
pub(crate) fn versions(
    ns: &Namespace,
    previous: &Previous,
    older: &[&Pod],
    newer: &[&Pod],
) -> anyhow::Result<()> {
    eventually(SOON, "every proxy reports its version", || {
        let proxies = weft(ns, &["proxies", "-o", "json"])?.json()?;
        for pod in older {
            let status = status_of(&proxies, pod)?;
            is_well(status, &previous.number)?;
            let lacks = lacks(status);
            ensure!(
                lacks.contains(&RETRY) != previous.knows_policies,
                "{} lacks {lacks:?}",
                pod.name
            );
        }
        for pod in newer {
            let status = status_of(&proxies, pod)?;
            is_well(status, env!("CARGO_PKG_VERSION"))?;
            let lacks = lacks(status);
            ensure!(lacks.is_empty(), "{} lacks {lacks:?}", pod.name);
        }
        Ok(())
    })
}

fn status_of<'a>(proxies: &'a Value, pod: &Pod) -> anyhow::Result<&'a Value> {
    let items = proxies["items"].as_array();
    let mut items = items.into_iter().flatten();
    let item = items.find(|item| item["metadata"]["name"] == pod.name.as_str());
    let item = item.with_context(|| format!("{} is not among {proxies}", pod.name))?;
    Ok(&item["status"])
}

fn is_well(status: &Value, version: &str) -> anyhow::Result<()> {
    ensure!(
        status["version"] == version && status["connected"] == true && status["nacks"].is_null(),
        "not of version {version}, or not well: {status}"
    );
    Ok(())
}

fn lacks(status: &Value) -> Vec<&str> {
    let lacks = status["lacks"].as_array().into_iter().flatten();
    lacks.filter_map(Value::as_str).collect()
}

/// `weft check` finds nothing wrong with proxies of a neighbouring version.
pub(crate) fn checks_hold(ns: &Namespace) -> anyhow::Result<()> {
    eventually(SOON, "the checks of proxies hold", || {
        let report = weft(ns, &["check", "-o", "json"])?.json()?;
        let checks = report["checks"].as_array().context("no checks")?;
        for id in CHECKS {
            let found = checks.iter().find(|check| check["id"] == id);
            let found = found.with_context(|| format!("no check {id}"))?;
            ensure!(found["result"] == "ok", "{found}");
        }
        Ok(())
    })
}
