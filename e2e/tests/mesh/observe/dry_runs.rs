//! A dry run of a change on live calls, compared with the effect of the change itself.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{Load, Namespace, Outcome, Pod, eventually};
use serde_json::Value;

use super::super::url;
use super::{SHOWN, weft};

/// A change takes effect within 2 s; kubectl's own time and a busy machine come on top.
const IN_FORCE_WITHIN: Duration = Duration::from_secs(30);
/// Longer than a watch, with the time that both take to begin.
const LASTS: &str = "16s";

fn items() -> String {
    url("cart", 8080, "/items")
}

/// Calls of a pod that go on while a dry run watches.
pub(super) fn load(pod: &Pod, method: &str) -> anyhow::Result<Load> {
    let args = ["-X", method, "--rate", "20", "--duration", LASTS, "-c", "2"];
    pod.start_load(&items(), &args)
}

/// The load's end: all of it got this answer.
pub(super) fn all_answered(load: Load, status: &str) -> anyhow::Result<()> {
    let seen = load.finish()?;
    let only = seen.by_status.keys().eq([status]);
    ensure!(only && seen.errors.is_empty(), "{seen:?}");
    Ok(())
}

/// How a dry run ends that watches for some seconds, and what it saw.
fn watched(ns: &Namespace, change: &[&str]) -> anyhow::Result<(i32, Value)> {
    let args = [&["dry-run"][..], change, &["--watch", "8s", "-o", "json"]];
    let output = weft(ns, &args.concat())?;
    let answer = output.json().with_context(|| format!("{output:?}"))?;
    let trial = answer["status"]["trial"].clone();
    ensure!(trial["takingPart"] == 1, "{trial:#}");
    Ok((output.status, trial))
}

/// Calls of a Deployment that were judged: kept, refused, allowed.
fn judged(ns: &Namespace, trial: &Value, from: &str) -> [u64; 3] {
    let id = |name: &str| format!("{}/Deployment/{name}", ns.name);
    let edges = trial["edges"].as_array().into_iter().flatten();
    let edges = edges.filter(|edge| edge["from"] == id(from) && edge["to"] == id("cart"));
    let mut sum = [0; 3];
    for edge in edges {
        for (sum, field) in sum.iter_mut().zip(["kept", "refused", "allowed"]) {
            *sum += edge[field].as_u64().unwrap_or_default();
        }
    }
    sum
}

// Claims: observability-15, observe-125
#[test]
fn watched_dry_run_matches_actual_effect_of_change() -> Outcome {
    let ns = Namespace::meshed("eyes-trial")?;
    ns.run(&["web", "other", "cart"])?;
    let (web, other) = (ns.pod("web")?, ns.pod("other")?);
    let change = format!(
        "apiVersion: specs.smi-spec.io/v1alpha4\nkind: HTTPRouteGroup\n\
         metadata: {{name: cart}}\nspec: {{matches: [{{name: read, methods: [GET]}}]}}\n---\n\
         apiVersion: access.smi-spec.io/v1alpha4\nkind: TrafficTarget\n\
         metadata: {{name: cart-read}}\nspec:\n  \
         destination: {{kind: ServiceAccount, name: cart, namespace: {0}}}\n  \
         rules: [{{kind: HTTPRouteGroup, name: cart, matches: [read]}}]\n  \
         sources: [{{kind: ServiceAccount, name: web, namespace: {0}}}]\n",
        ns.name
    );
    let file = std::env::temp_dir().join(format!("{}.yaml", ns.name));
    std::fs::write(&file, &change)?;
    let path = file.to_string_lossy();
    let trial = eventually(SHOWN, "live calls are judged by the change", || {
        let loads = [
            load(&web, "GET")?,
            load(&web, "POST")?,
            load(&other, "GET")?,
        ];
        let (status, trial) = watched(&ns, &["-f", &path])?;
        // Nothing of it is enforced.
        for load in loads {
            all_answered(load, "200")?;
        }
        ensure!(status == 1, "it ended with {status}: {trial:#}");
        let [kept, refused, _] = judged(&ns, &trial, "web");
        ensure!(kept >= 20 && refused >= 20, "{trial:#}");
        let [kept, refused, _] = judged(&ns, &trial, "other");
        ensure!(kept == 0 && refused >= 20, "{trial:#}");
        ensure!(trial["allowed"] == 0, "{trial:#}");
        Ok(trial)
    })?;
    let _ = std::fs::remove_file(&file);
    // A user who may tap is shown some of them, and none of those that would pass.
    let examples = trial["examples"].as_array().context("no examples")?;
    let web_id = format!("{}/Deployment/web", ns.name);
    for example in examples {
        let passes = example["from"] == web_id.as_str() && example["method"] == "GET";
        assert!(!passes && example["path"] == "/items", "{example}");
    }
    assert!(!examples.is_empty(), "{trial:#}");

    ns.apply(&change)?;
    let refused =
        |pod: &Pod, method: &str| pod.refused(&items(), &["-X", method], 403, "not-allowed");
    eventually(IN_FORCE_WITHIN, "it does what was said", || {
        refused(&other, "GET")?;
        refused(&web, "POST")?;
        web.report(&items(), &[])
    })?;

    let gone = eventually(SHOWN, "refused calls are judged by a deletion", || {
        let refused = load(&other, "GET")?;
        let (status, trial) = watched(&ns, &["--delete", "TrafficTarget/cart-read"])?;
        all_answered(refused, "403")?;
        // It opens cart to everybody.
        ensure!(status == 1, "it ended with {status}: {trial:#}");
        ensure!(judged(&ns, &trial, "other")[2] >= 20, "{trial:#}");
        Ok(trial)
    })?;
    assert_eq!(gone["refused"], 0, "{gone:#}");
    ns.kubectl(&["delete", "traffictarget", "cart-read"])?;
    eventually(IN_FORCE_WITHIN, "they pass", || other.report(&items(), &[]))?;
    Ok(())
}
