//! The remaining time at each service of a chain: its own timeout, or what earlier hops left.

use anyhow::{Context as _, anyhow, ensure};
use e2e::{
    echo::request_log::Record,
    harness::{Api, App, Namespace, Outcome, Pod, eventually},
};
use serde_json::json;

use super::super::url;
use super::links::{CALLS, calls_on, fault, link, requests};
use super::{ROUNDS, SOON, between, left, same};

/// `timeouts.request` of each Service, in milliseconds.
const LIMITS: [(&str, f64); 3] = [("a", 30_000.0), ("b", 10_000.0), ("c", 3_000.0)];
/// What a hop may add to or take from what is left, beside what it uses.
const WITHIN: f64 = 50.0;
/// How much less it may receive in a round that does not hold: where a hop receives no time,
/// it is 2000 at the last one.
const LESS_AT_MOST: f64 = 1900.0;
/// What `a` and `b` wait before they call on: so much that less than its own time is left for
/// each next one.
const WAITS: [f64; 2] = [22_000.0, 6_000.0];
/// A round, over HTTP/1.1 and over gRPC. Not all at once, or they would wait for each other's
/// work.
const NINE: [&str; 6] = ["-n", "9", "-c", "9", "--rate", "2"];
const EACH: usize = 9;

fn town() -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed("chain-timeouts")?;
    let apps = [
        link("client"),
        calls_on("a", "b", "context"),
        calls_on("b", "c", "context"),
        link("c"),
    ];
    let mut objects: Vec<_> = apps.iter().flat_map(App::objects).collect();
    objects.extend(LIMITS.map(|(service, limit)| {
        let request = format!("{}s", limit / 1000.0);
        json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": service},
            "spec": {
                "targetRef": {"kind": "Service", "name": service},
                "timeouts": {"request": request},
            },
        })
    }));
    ns.apply_all(&objects)?;
    for (service, _) in LIMITS {
        ns.await_condition(&format!("tp/{service}"), "Accepted", "True")?;
    }
    ns.ready(&["client", "a", "b", "c"])?;
    Ok(ns)
}

/// The last request below `path` of each application.
fn last(api: &Api, pods: &[Pod], path: &str) -> anyhow::Result<Vec<Record>> {
    pods.iter()
        .map(|pod| {
            let last = requests(api, pod, path)?.pop();
            last.with_context(|| format!("{path} did not reach {}", pod.name))
        })
        .collect()
}

// Claims: calls-76
#[test]
fn each_hop_receives_time_unused_by_earlier_hops() -> Outcome {
    let ns = town()?;
    let api = Api::open(&ns.cluster)?;
    let client = ns.pod("client")?;
    let pods = [ns.pod("a")?, ns.pod("b")?, ns.pod("c")?];
    eventually(SOON, "where no hop uses much each has its own time", || {
        client.report(&url("a", 8080, "/quick"), &[])?;
        for ((service, limit), record) in LIMITS.into_iter().zip(last(&api, &pods, "/quick")?) {
            let left = left(&record)?;
            let all = (limit - WITHIN..=limit).contains(&left);
            ensure!(all, "{service} received {left} ms of {limit}");
        }
        Ok(())
    })?;

    for (pod, wait) in pods.iter().zip(WAITS) {
        let slow = format!(r#"{{"delay": "{wait}ms", "for": "5m"}}"#);
        fault(pod, &slow)?;
    }
    for round in 0..ROUNDS {
        if all_have_deadlines(&api, &client, &pods, &format!("/slow/{round}"))? {
            return Ok(());
        }
    }
    let none = anyhow!("in none of {ROUNDS} rounds all received the remaining time to {WITHIN} ms");
    Err(none)?
}

/// Whether each hop of each of nine calls received the remaining time, over either protocol.
fn all_have_deadlines(
    api: &Api,
    client: &Pod,
    pods: &[Pod; 3],
    path: &str,
) -> anyhow::Result<bool> {
    let args = [&NINE[..], &["--trace", "--timeout", "60s"]].concat();
    let http = client.start_load(&url("a", 8080, path), &args)?;
    let grpc = client.start_load(&url("a", 8080, CALLS), &[&args[..], &["--grpc"]].concat())?;
    let (http, grpc) = (http.finish()?, grpc.finish()?);
    ensure!(http.by_status.get("200") == Some(&9), "{http:?}");
    ensure!(grpc.by_grpc_status.get("0") == Some(&9), "{grpc:?}");
    let mut holds = true;
    for path in [path, CALLS] {
        holds &= hops_have_deadlines(api, pods, path)?;
    }
    Ok(holds)
}

/// The same of the last nine calls below `path`.
fn hops_have_deadlines(api: &Api, pods: &[Pod; 3], path: &str) -> anyhow::Result<bool> {
    let mut before = requests(api, &pods[0], path)?;
    // Calls of gRPC have one path in all rounds.
    before.drain(..before.len().saturating_sub(EACH));
    let mut holds = true;
    let called = LIMITS.into_iter().zip(pods).skip(1);
    for (((service, limit), pod), waits) in called.zip(WAITS) {
        let mut here = requests(api, pod, path)?;
        here.drain(..here.len().saturating_sub(EACH));
        let mut off = Vec::new();
        for first in &before {
            let then = same(&here, first)?;
            let (all, reported) = (left(first)?, left(then)?);
            // Whenever the machine stood still, and however late a log was written.
            let most = all - waits;
            ensure!(most < limit - 500.0, "{most} ms is no less than its own");
            ensure!(
                reported <= most + WITHIN,
                "{service}: {reported} ms of {most}"
            );
            off.push(reported - (all - between(first.began, then.began)));
        }
        ensure!(off.len() == EACH, "{service}: {off:?}");
        println!("{path}: {service} received the remaining time, off by so many ms: {off:?}");
        let least = off.iter().copied().fold(f64::MAX, f64::min);
        ensure!(least >= -LESS_AT_MOST, "{service}: {least} ms off");
        holds &= off.iter().all(|off| off.abs() <= WITHIN);
        before = here;
    }
    Ok(holds)
}
