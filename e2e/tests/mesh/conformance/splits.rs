//! Splits beyond the suite: rows E9, E11 and E12.

use anyhow::ensure;
use e2e::{
    conformance::Record,
    harness::{Outcome, app, eventually},
};
use serde_json::json;

use super::super::{
    SOON,
    split::{all_to, chosen, in_force, of, shop, weigh, within_5_sigma},
    url,
};

#[test]
fn split_root_as_backend_works_with_and_without_match() -> Outcome {
    let mut row = Record::begin("E9")?;
    let ns = shop("self-90")?;
    weigh(&ns, &[("shop", 90), ("canary", 10)])?;
    eventually(SOON, "the weights are in force", || {
        let (_, [root, canary]) = chosen(&ns, 100, &[])?;
        ensure!(root > 50.0 && canary > 0.0, "{root} and {canary}");
        Ok(())
    })?;
    let tenth = |count: f64| (count - 200.0).abs() <= 5.0 * (2000.0_f64 * 0.1 * 0.9).sqrt();
    let (_, [root, canary]) = chosen(&ns, 2000, &[])?;
    assert!(tenth(canary), "the canary was chosen for {canary} of 2000");
    row.saw(
        "2000 x GET http://shop:8080/, backends shop 90 and canary 10",
        format!("200 all; shop itself chosen {root}, canary {canary}"),
    );

    ns.apply(
        r"
apiVersion: specs.smi-spec.io/v1alpha4
kind: HTTPRouteGroup
metadata: {name: testers}
spec: {matches: [{name: header, headers: {x-tester: 'yes'}}]}
---
apiVersion: split.smi-spec.io/v1alpha4
kind: TrafficSplit
metadata: {name: shop}
spec:
  service: shop
  matches: [{kind: HTTPRouteGroup, name: testers}]
  backends: [{service: shop, weight: 90}, {service: canary, weight: 10}]
",
    )?;
    eventually(SOON, "without a hit the split says nothing", || {
        let (_, [_, canary]) = chosen(&ns, 200, &[])?;
        ensure!(canary == 0.0, "canary chosen {canary} times");
        Ok(())
    })?;
    let (_, [root, canary]) = chosen(&ns, 2000, &[])?;
    assert!(
        canary == 0.0,
        "without a hit the canary was chosen {canary} times"
    );
    row.saw(
        "the same with matches x-tester: yes, 2000 x without the header",
        format!("shop itself chosen {root}, canary {canary}"),
    );
    let (_, [root, canary]) = chosen(&ns, 2000, &["-H", "x-tester: yes"])?;
    assert!(tenth(canary), "the canary was chosen for {canary} of 2000");
    row.saw(
        "2000 x with the header",
        format!("shop itself chosen {root}, canary {canary}"),
    );
    row.passed()?;
    Ok(())
}

#[test]
fn backend_appears_late_and_vanishes_early_without_errors() -> Outcome {
    const RATE: u64 = 50;
    let mut row = Record::begin("E11")?;
    let ns = shop("unborn")?;
    weigh(&ns, &[("stable", 50), ("unborn", 50)])?;
    in_force(&ns, |seen| of(seen, "canary") == 0)?;
    let client = ns.pod("client")?;
    let seen = client.get(&url("shop", 8080, "/"), &["-n", "500", "-c", "5"])?;
    assert!(of(&seen, "stable") == 500, "{seen:?}");
    row.saw(
        "500 x GET http://shop:8080/, backends stable 50 and unborn 50, no Service unborn",
        format!("{:?} by {:?}", seen.by_status, seen.by_version),
    );
    ns.apply_all(&[app::service("unborn", &json!({"app": "canary"}))])?;
    in_force(&ns, |seen| of(seen, "canary") > 15)?;
    let seen = client.get(&url("shop", 8080, "/"), &["-n", "1000", "-c", "5"])?;
    within_5_sigma(&seen, "canary", 0.5)?;
    row.saw(
        "1000 x after Service unborn was made",
        format!("{:?} by {:?}", seen.by_status, seen.by_version),
    );

    let rate = RATE.to_string();
    let words = ["--rate", &rate, "--duration", "12s", "-c", "4"];
    let load = client.start_load(&url("shop", 8080, "/"), &words)?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    ns.kubectl(&["delete", "service", "unborn"])?;
    in_force(&ns, |seen| of(seen, "canary") == 0)?;
    let seen = load.finish()?;
    // S4 and S5 of docs/smi.md: a backend whose endpoints went before its Service
    // keeps its share for that moment, which is answered 503.
    let refused = seen.by_status.get("503").copied().unwrap_or_default();
    let known = ["no-endpoint", "no-backend"];
    assert!(seen.errors.is_empty(), "{seen:?}");
    assert!(
        seen.by_reason
            .keys()
            .all(|reason| known.contains(&reason.as_str())),
        "{seen:?}"
    );
    assert!(
        refused <= RATE,
        "{refused} refused, over a second of them: {seen:?}"
    );
    let answered = seen.by_status.get("200").copied().unwrap_or_default();
    assert!(answered + refused == seen.planned, "{seen:?}");
    row.saw(
        "50 requests/s for 12 s, Service unborn deleted after 2 s",
        format!(
            "{:?}, reasons {:?}, none lost",
            seen.by_status, seen.by_reason
        ),
    );
    row.passed()?;
    Ok(())
}

#[test]
fn a_root_may_overlap_its_backends_or_select_nothing() -> Outcome {
    let mut row = Record::begin("E12")?;
    let ns = shop("bare")?;
    // `shop` selects the pods of both backends.
    all_to(&ns, "stable")?;
    weigh(&ns, &[("stable", 25), ("canary", 75)])?;
    in_force(&ns, |seen| of(seen, "canary") > 30)?;
    let client = ns.pod("client")?;
    let seen = client.get(&url("shop", 8080, "/"), &["-n", "2000", "-c", "10"])?;
    within_5_sigma(&seen, "canary", 0.75)?;
    row.saw(
        "2000 x GET http://shop:8080/, whose selector holds both backends, 25 to 75",
        format!("{:?} by {:?}", seen.by_status, seen.by_version),
    );
    ns.apply_all(&[
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "bare"},
            "spec": {"ports": [{"name": "http", "port": 8080}]}}),
        json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"name": "bare"}, "spec": {"service": "bare", "backends": [
                {"service": "stable", "weight": 50}, {"service": "canary", "weight": 50}]}}),
    ])?;
    let bare = url("bare", 8080, "/");
    let seen = eventually(SOON, "the root without a selector is split", || {
        let seen = client.get(&bare, &["-n", "1000", "-c", "10"])?;
        within_5_sigma(&seen, "canary", 0.5)?;
        Ok(seen)
    })?;
    row.saw(
        "1000 x GET http://bare:8080/, a Service without a selector, 50 to 50",
        format!("{:?} by {:?}", seen.by_status, seen.by_version),
    );
    row.passed()?;
    Ok(())
}
