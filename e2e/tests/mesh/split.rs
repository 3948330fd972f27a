//! TrafficSplits: calls have the requested shares, and none fails.

use anyhow::ensure;
use e2e::{
    conformance::Record,
    echo::load::Summary,
    harness::{App, Namespace, Outcome, app, eventually},
};
use serde_json::json;

use super::{SOON, url};

/// A root Service over both backends, which overlaps their selectors, and a client.
pub(crate) fn shop(claim: &str) -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed(claim)?;
    for backend in ["stable", "canary"] {
        ns.apply_all(&App::new(backend).label("part", "shop").objects())?;
    }
    ns.apply_all(&App::new("client").objects())?;
    ns.apply_all(&[app::service("shop", &json!({"part": "shop"}))])?;
    ns.ready(&["stable", "canary", "client"])?;
    Ok(ns)
}

pub(crate) fn weigh(ns: &Namespace, backends: &[(&str, i64)]) -> anyhow::Result<()> {
    let backends: Vec<_> = backends
        .iter()
        .map(|(service, weight)| json!({"service": service, "weight": weight}))
        .collect();
    ns.apply_all(&[
        json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": "shop"}, "spec": {"service": "shop", "backends": backends}}),
    ])
}

/// Fails unless `version` got `share` of all requests within 5 sigma and none failed.
pub(crate) fn within_5_sigma(seen: &Summary, version: &str, share: f64) -> anyhow::Result<()> {
    let all = seen.planned as f64;
    ensure!(
        seen.by_status.get("200") == Some(&seen.planned),
        "not all were answered with 200: {seen:?}"
    );
    let got = seen.by_version.get(version).copied().unwrap_or_default() as f64;
    let sigma = (all * share * (1.0 - share)).sqrt();
    let off = (got - all * share).abs();
    ensure!(
        off <= 5.0 * sigma,
        "{version} got {got} of {all}, {:.1} sigma off: {:?}",
        off / sigma,
        seen.by_version
    );
    println!("{version}: {got} of {all}, {:.1} sigma", off / sigma);
    Ok(())
}

/// Has all calls go to `version`, and waits until they do. Before the first split is in force
/// the pods of both backends answer for the root, which may look like many weights.
pub(crate) fn all_to(ns: &Namespace, version: &str) -> anyhow::Result<()> {
    let weight = |name: &'static str| (name, i64::from(name == version));
    weigh(ns, &["stable", "canary"].map(weight))?;
    in_force(ns, |seen| of(seen, version) == seen.planned)
}

/// Waits until a short load shows that the weights are in force.
pub(crate) fn in_force(ns: &Namespace, expected: impl Fn(&Summary) -> bool) -> anyhow::Result<()> {
    let client = ns.pod("client")?;
    eventually(SOON, "the new weights are in force", || {
        let seen = client.get(&url("shop", 8080, "/"), &["-n", "60", "-c", "2"])?;
        ensure!(expected(&seen), "{:?}", seen.by_version);
        Ok(())
    })
}

pub(crate) fn of(seen: &Summary, version: &str) -> u64 {
    seen.by_version.get(version).copied().unwrap_or_default()
}

// Claims: mesh-1a
#[test]
fn split_90_10_of_10000_requests_within_5_sigma() -> Outcome {
    let ns = shop("split")?;
    all_to(&ns, "canary")?;
    weigh(&ns, &[("stable", 90), ("canary", 10)])?;
    in_force(&ns, |seen| of(seen, "stable") > 40)?;
    let seen = ns
        .pod("client")?
        .get(&url("shop", 8080, "/"), &["-n", "10000", "-c", "20"])?;
    within_5_sigma(&seen, "canary", 0.1)?;
    assert_eq!(seen.connects, 20, "connections were not kept: {seen:?}");
    Ok(())
}

#[test]
fn weight_zero_gets_not_a_single_request() -> Outcome {
    let ns = shop("zero")?;
    weigh(&ns, &[("stable", 100), ("canary", 0)])?;
    in_force(&ns, |seen| of(seen, "canary") == 0)?;
    let seen = ns
        .pod("client")?
        .get(&url("shop", 8080, "/"), &["-n", "5000", "-c", "20"])?;
    assert_eq!(seen.by_status.get("200"), Some(&5000), "{seen:?}");
    assert_eq!(of(&seen, "stable"), 5000, "{seen:?}");
    Ok(())
}

// Claims: mesh-1b
#[test]
fn weights_change_under_load_without_an_error() -> Outcome {
    let ns = shop("reweigh")?;
    weigh(&ns, &[("stable", 100), ("canary", 0)])?;
    in_force(&ns, |seen| of(seen, "canary") == 0)?;
    let client = ns.pod("client")?;
    let load = client.start_load(
        &url("shop", 8080, "/"),
        &["--rate", "50", "--duration", "25s", "-c", "4"],
    )?;
    weigh(&ns, &[("stable", 0), ("canary", 100)])?;
    in_force(&ns, |seen| of(seen, "stable") == 0)?;
    // Weights are shares of their sum, not percentages.
    weigh(&ns, &[("stable", 1000), ("canary", 500)])?;
    in_force(&ns, |seen| {
        of(seen, "stable") > 20 && of(seen, "canary") > 5
    })?;
    let thirds = client.get(&url("shop", 8080, "/"), &["-n", "2000", "-c", "10"])?;
    within_5_sigma(&thirds, "canary", 1.0 / 3.0)?;
    let seen = load.finish()?;
    assert!(
        seen.by_status.get("200") == Some(&seen.planned),
        "requests failed while weights changed: {seen:?}"
    );
    Ok(())
}

// Claims: mesh-1c
#[test]
fn backend_without_a_service_gets_nothing_and_breaks_nothing() -> Outcome {
    let ns = shop("missing")?;
    all_to(&ns, "canary")?;
    weigh(&ns, &[("stable", 50), ("canary", 50), ("unborn", 900)])?;
    in_force(&ns, |seen| of(seen, "stable") > 0 && of(seen, "canary") > 0)?;
    let seen = ns
        .pod("client")?
        .get(&url("shop", 8080, "/"), &["-n", "1000", "-c", "10"])?;
    within_5_sigma(&seen, "canary", 0.5)?;
    let condition = ns.await_condition("trafficsplit/shop", "ResolvedRefs", "False")?;
    assert_eq!(condition["reason"], "RefNotFound", "{condition}");
    assert!(
        condition["message"]
            .as_str()
            .is_some_and(|text| text.contains("unborn")),
        "{condition}"
    );
    // Its birth heals the split.
    ns.apply_all(&[app::service("unborn", &json!({"app": "canary"}))])?;
    in_force(&ns, |seen| of(seen, "canary") > 45)?;
    ns.await_condition("trafficsplit/shop", "ResolvedRefs", "True")?;
    Ok(())
}

/// Sends `count` requests to the root, all of which must be answered with 200, and
/// returns for how many the root itself and the canary were chosen as backend.
///
/// Which pod answers for the root is the balancer's choice, so shares are those of
/// the backends that the split chose, as the client's proxy counts them.
pub(crate) fn chosen(
    ns: &Namespace,
    count: u64,
    args: &[&str],
) -> anyhow::Result<(Summary, [f64; 2])> {
    let client = ns.pod("client")?;
    let by_backend = || {
        let samples = client.proxy_metrics()?;
        let of = |name: &str| {
            let (service, backend) = (format!("{}/shop", ns.name), format!("{}/{name}", ns.name));
            samples.sum(
                "weft_requests_total",
                &[
                    ("direction", "outbound"),
                    ("service", &service),
                    ("backend", &backend),
                ],
            )
        };
        anyhow::Ok([of("shop"), of("canary")])
    };
    let before = by_backend()?;
    let number = count.to_string();
    let words = [&["-n", &number, "-c", "10"], args].concat();
    let seen = client.get(&url("shop", 8080, "/"), &words)?;
    ensure!(seen.by_status.get("200") == Some(&count), "{seen:?}");
    let after = by_backend()?;
    let [root, canary] = [after[0] - before[0], after[1] - before[1]];
    ensure!(
        root + canary == count as f64,
        "backends {before:?}, then {after:?}"
    );
    Ok((seen, [root, canary]))
}

// Claims: mesh-1d
#[test]
fn root_may_be_its_own_backend() -> Outcome {
    let ns = shop("self")?;
    // The root selects both, so half of its share is the canary's.
    weigh(&ns, &[("shop", 0), ("canary", 100)])?;
    in_force(&ns, |seen| of(seen, "stable") == 0)?;
    weigh(&ns, &[("shop", 75), ("canary", 25)])?;
    in_force(&ns, |seen| of(seen, "stable") > 0)?;
    let (seen, [_, canary]) = chosen(&ns, 2000, &[])?;
    let sigma = (2000.0_f64 * 0.75 * 0.25).sqrt();
    assert!(
        (canary - 500.0).abs() <= 5.0 * sigma,
        "the canary was chosen for {canary} of 2000"
    );
    assert!(
        of(&seen, "stable") > 0,
        "the root's share reached only the canary"
    );
    Ok(())
}

// Claims: mesh-1d
#[test]
fn connections_of_plain_tcp_are_split_too() -> Outcome {
    let ns = shop("tcp-split")?;
    weigh(&ns, &[("stable", 0), ("canary", 100)])?;
    let client = ns.pod("client")?;
    let reaches = |version: &str| {
        eventually(SOON, "connections go to one backend", || {
            for _ in 0..5 {
                let who = client.exec(&["tcp", "shop:9000"])?;
                ensure!(who.trim_end().ends_with(version), "reached {who}");
            }
            Ok(())
        })
    };
    reaches("canary")?;
    weigh(&ns, &[("stable", 100), ("canary", 0)])?;
    reaches("stable")?;
    Ok(())
}

// Claims: mesh-1d
#[test]
fn backend_called_by_its_own_name_is_not_split() -> Outcome {
    let mut row = Record::begin("E13")?;
    let ns = shop("direct")?;
    weigh(&ns, &[("stable", 0), ("canary", 100)])?;
    in_force(&ns, |seen| of(seen, "stable") == 0)?;
    let seen = ns
        .pod("client")?
        .get(&url("stable", 8080, "/"), &["-n", "100", "-c", "2"])?;
    assert_eq!(of(&seen, "stable"), 100, "{seen:?}");
    row.saw(
        "100 x GET http://stable:8080/ while the split of shop sends all to canary",
        format!("answered by {:?}", seen.by_version),
    );
    row.passed()?;
    Ok(())
}
