//! A failing service at the end of a chain is not retried by every layer above it.

use anyhow::ensure;
use e2e::{
    echo::load::Summary,
    harness::{Api, Load, Namespace, Outcome, Pod, eventually},
};
use serde_json::json;

use super::super::{SOON, url};
use super::links::{CALLS, calls_on, fault, link, requests};

/// What the applications of a chain pass on. Over gRPC it is the mesh's name of the request.
const PASSED_ON: [&str; 4] = ["context", "trace", "none", GRPC];
const GRPC: &str = "grpc";
const RATE: &str = "50";
const TIME: &str = "30s";

/// From `a` a chain for each way to the same `d`. Two pods each, but of `a`: a retry needs an
/// endpoint that was not tried yet.
fn town() -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed("chain-retries")?;
    ns.apply_all(&link("a").objects())?;
    ns.apply_all(&link("d").replicas(3).objects())?;
    let mut names = vec!["a".to_owned(), "d".to_owned()];
    for variant in PASSED_ON {
        let (b, c) = (format!("b-{variant}"), format!("c-{variant}"));
        let passed_on = if variant == GRPC { "context" } else { variant };
        ns.apply_all(&calls_on(&b, &c, passed_on).replicas(2).objects())?;
        ns.apply_all(&calls_on(&c, "d", passed_on).replicas(2).objects())?;
        names.extend([b, c]);
    }
    // Without a word gRPC is never tried again; of HTTP it says what holds without one.
    ns.apply_all(&[json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
        "metadata": {"name": "retries"},
        "spec": {"targetRef": {"kind": "Namespace"}, "retry": {"grpcCodes": ["Unavailable"]}},
    })])?;
    ns.await_condition("tp/retries", "Accepted", "True")?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    ns.ready(&names)?;
    Ok(ns)
}

fn path(variant: &str) -> String {
    match variant {
        GRPC => CALLS.to_owned(),
        variant => format!("/by-{variant}"),
    }
}

fn load(a: &Pod, variant: &str) -> anyhow::Result<Load> {
    let first = url(&format!("b-{variant}"), 8080, &path(variant));
    let shown: &[&str] = match variant {
        // The mesh sends the name only of a request with a deadline, or the like.
        "context" => &["-H", "weft-timeout:20000ms"],
        GRPC => &["-H", "weft-timeout:20000ms", "--grpc"],
        "trace" => &["--trace"],
        _ => &[],
    };
    let args = ["--rate", RATE, "--duration", TIME, "-c", "8"];
    a.start_load(&first, &[&args[..], shown].concat())
}

/// Calls that ended as what is at the end of the chain makes them end.
fn failed(seen: &Summary, variant: &str) -> u64 {
    let failed = match variant {
        GRPC => seen.by_grpc_status.get("14"),
        _ => seen.by_status.get("503"),
    };
    failed.copied().unwrap_or_default()
}

/// Requests that reached a service of the chain, for each that was sent into it.
fn times(
    ns: &Namespace,
    api: &Api,
    (service, variant): (&str, &str),
    sent: u64,
) -> anyhow::Result<f64> {
    let mut reached = 0;
    for pod in ns.pods(service)? {
        reached += requests(api, &pod, &path(variant))?.len();
    }
    Ok(reached as f64 / sent as f64)
}

// Claims: calls-75
#[test]
fn one_layer_of_chain_retries_and_spares_failed_instances() -> Outcome {
    let ns = town()?;
    let api = Api::open(&ns.cluster)?;
    let a = ns.pod("a")?;
    for variant in PASSED_ON {
        let first = url(&format!("b-{variant}"), 8080, "/warm");
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
    for variant in PASSED_ON {
        loads.push((variant, load(&a, variant)?));
    }
    for (variant, load) in loads {
        let seen = load.finish()?;
        let sent = seen.planned;
        assert!(
            sent == 1500 && failed(&seen, variant) == sent,
            "{variant}: {seen:?}"
        );
        let c = times(&ns, &api, (&format!("c-{variant}"), variant), sent)?;
        let d = times(&ns, &api, ("d", variant), sent)?;
        println!("{variant}: {c:.3} at c and {d:.3} at d for each of {sent}");
        assert!(d >= 1.01, "{variant}: no retries: {d}");
        if variant == "none" {
            assert!(c >= 1.02, "{variant}: no retries above c: {c}");
            assert!(d <= 1.20, "{variant}: {d} at d");
        } else {
            assert!(c <= 1.01, "{variant}: retries above c: {c}");
            assert!(d <= 1.08, "{variant}: {d} at d");
        }
    }
    Ok(())
}
