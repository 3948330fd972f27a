//! `weft check` looks at the whole cluster and names the first few faults of each kind, so
//! no other test may plant any meanwhile.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::harness::{App, Namespace, Outcome, Said, eventually};
use serde_json::Value;

/// The namespaces of other tests go meanwhile, and so do pods that were replaced.
const FOUND: Duration = Duration::from_secs(180);
/// In the order in which they are told.
const IDS: [&str; 3] = ["pods-without-proxy", "resolved", "annotations"];

fn weft(ns: &Namespace, args: &[&str]) -> anyhow::Result<Said> {
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

#[test]
fn check_finds_what_is_wrong_in_a_namespace_at_its_own_id_until_it_is_mended() -> Outcome {
    let ns = Namespace::unmeshed("check-faults")?;
    // A pod that was there before its namespace asked.
    ns.run(&["early"])?;
    ns.cluster
        .kubectl(&["label", "namespace", &ns.name, "weft.dev/inject=enabled"])?;
    ns.apply_all(&App::new("late").objects())?;
    ns.ready(&["late"])?;
    let late = ns.pod("late")?;
    let access = |value: &str| {
        let value = format!("weft.dev/access={value}");
        ns.kubectl(&["annotate", "--overwrite", "pod", &late.name, &value])
    };
    access("denied")?;
    ns.apply(
        "apiVersion: split.smi-spec.io/v1alpha4\nkind: TrafficSplit\nmetadata: {name: lost}\n\
         spec: {service: nobody, backends: [{service: late, weight: 1}]}\n",
    )?;
    eventually(FOUND, "each fault is found at its own id", || {
        let found = failing(&ns)?;
        ensure!(found == IDS, "{found:?}");
        Ok(())
    })?;
    weft(&ns, &["check", "--fail-on", "warning"])?.with_status(1)?;

    access("deny")?;
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
