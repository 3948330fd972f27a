//! What is at the end of a chain and down is not asked again by every layer above it.

use anyhow::ensure;
use e2e::harness::{Api, Load, Namespace, Outcome, Pod, eventually};

use super::super::{SOON, url};
use super::links::{calls_on, fault, link, requests};

/// What the applications of a chain pass on.
const WAYS: [&str; 3] = ["context", "trace", "none"];
const RATE: &str = "50";
const TIME: &str = "30s";

/// From `a` a chain for each way to the same `d`. Two pods each, but of `a`: without another
/// one that was not asked yet nobody could try again.
fn town() -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed("chain-retries")?;
    ns.apply_all(&link("a").objects())?;
    ns.apply_all(&link("d").replicas(3).objects())?;
    let mut names = vec!["a".to_owned(), "d".to_owned()];
    for way in WAYS {
        let (b, c) = (format!("b-{way}"), format!("c-{way}"));
        ns.apply_all(&calls_on(&b, &c, way).replicas(2).objects())?;
        ns.apply_all(&calls_on(&c, "d", way).replicas(2).objects())?;
        names.extend([b, c]);
    }
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ns.ready(&names)?;
    Ok(ns)
}

fn load(a: &Pod, way: &str) -> anyhow::Result<Load> {
    let first = url(&format!("b-{way}"), 8080, &format!("/by-{way}"));
    let shown: &[&str] = match way {
        // Only of a request with an end, or the like, the mesh tells the name.
        "context" => &["-H", "weft-timeout:20000ms"],
        "trace" => &["--trace"],
        _ => &[],
    };
    let args = ["--rate", RATE, "--duration", TIME, "-c", "8"];
    a.start_load(&first, &[&args[..], shown].concat())
}

/// Requests that reached a service of the chain, for each that was sent into it.
fn times(
    ns: &Namespace,
    api: &Api,
    (service, way): (&str, &str),
    sent: u64,
) -> anyhow::Result<f64> {
    let mut reached = 0;
    for pod in ns.pods(service)? {
        reached += requests(api, &pod, &format!("/by-{way}"))?.len();
    }
    Ok(reached as f64 / sent as f64)
}

#[test]
fn one_layer_of_a_chain_tries_again_and_spares_what_is_down() -> Outcome {
    let ns = town()?;
    let api = Api::open(&ns.cluster)?;
    let a = ns.pod("a")?;
    for way in WAYS {
        let first = url(&format!("b-{way}"), 8080, "/warm");
        eventually(SOON, "the chain answers", || {
            let report = a.report(&first, &[])?;
            ensure!(report.hops.len() == 2, "{report:?}");
            Ok(())
        })?;
    }
    for pod in ns.pods("d")? {
        fault(&pod, r#"{"status": 503, "for": "5m"}"#)?;
    }
    let mut loads = Vec::new();
    for way in WAYS {
        loads.push((way, load(&a, way)?));
    }
    for (way, load) in loads {
        let seen = load.finish()?;
        let sent = seen.planned;
        assert!(
            sent == 1500 && seen.by_status.get("503") == Some(&sent),
            "{way}: {seen:?}"
        );
        let c = times(&ns, &api, (&format!("c-{way}"), way), sent)?;
        let d = times(&ns, &api, ("d", way), sent)?;
        println!("{way}: {c:.3} at c and {d:.3} at d for each of {sent}");
        assert!(d >= 1.01, "{way}: nobody tried again: {d}");
        if way == "none" {
            assert!(c >= 1.02, "{way}: above c nobody tried again: {c}");
            assert!(d <= 1.20, "{way}: {d} at d");
        } else {
            assert!(c <= 1.01, "{way}: above c somebody tried again: {c}");
            assert!(d <= 1.08, "{way}: {d} at d");
        }
    }
    Ok(())
}
