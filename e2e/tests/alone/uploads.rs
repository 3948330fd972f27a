//! Large uploads are served once, also while the server's pods come and go.
//!
//! Every request begins a trace, and the application reports each to a witness as soon as its
//! head is there, before its body: so a request that reached two of its instances shows, also
//! where one of them saw a part only and is gone since.

use std::{collections::BTreeMap, time::Instant};

use anyhow::{Context as _, ensure};
use e2e::{
    echo::{
        load::Summary,
        request_log::{LogSnapshot, PATH},
    },
    harness::{Api, App, Load, Namespace, Outcome, Pod, UNTIL_ENDED},
};
use http::Method;
use serde_json::json;

use super::url;

/// Port of the application's log of requests.
const LOG: u16 = 9091;
/// More than a proxy keeps of a body; and less, which it could send to two.
const BODY: &str = "102400";
const SMALL_BODY: &str = "4096";
/// Of so many requests one may fail. A pod that ends finishes the uploads that it has started
/// within moments, so none should.
const ONE_FAILURE_IN: u64 = 200;
const UPLOADS: &str = "/orders";
const PAYMENTS: &str = "/payments";
const CALLS: &str = "/weft.echo.Echo/Unary";

// Claims: calls-5
#[test]
fn uploads_over_a_rollout_come_to_no_application_twice() -> Outcome {
    let ns = Namespace::meshed("uploads")?;
    let server = App::new("server")
        .replicas(3)
        .env("WITNESS", "http://ledger:8080")
        // Not by the port whose requests are reported.
        .readiness(json!({"httpGet": {"path": "/metrics", "port": "call"}, "periodSeconds": 1}));
    let apps = [App::new("client"), App::new("ledger"), server];
    ns.apply_all(&apps.iter().flat_map(App::objects).collect::<Vec<_>>())?;
    ns.ready(&["client", "ledger", "server"])?;
    let (client, ledger) = (ns.pod("client")?, ns.pod("ledger")?);
    let api = Api::open(&ns.cluster)?;
    repeated_report_is_found(&api, &client, &ledger)?;

    let before: Vec<String> = ns.pods("server")?.into_iter().map(|pod| pod.name).collect();
    let started = Instant::now();
    let uploads = load(&client, UPLOADS, &["-X", "POST", "--body-size", BODY])?;
    let payments = load(
        &client,
        PAYMENTS,
        &["-X", "POST", "--body-size", SMALL_BODY],
    )?;
    let calls = load(&client, CALLS, &["--grpc", "--body-size", BODY])?;
    ns.kubectl(&["rollout", "restart", "deployment/server"])?;
    ns.ready(&["server"])?;
    println!("rolled over within {:?}", started.elapsed());
    let (uploads, payments, calls) = (uploads.end()?, payments.end()?, calls.end()?);

    for (path, seen, good) in [
        (UPLOADS, &uploads, uploads.by_status.get("200")),
        (PAYMENTS, &payments, payments.by_status.get("200")),
        (CALLS, &calls, calls.by_grpc_status.get("0")),
    ] {
        let good = good.copied().unwrap_or_default();
        assert!(
            seen.by_pod.keys().any(|pod| !before.contains(pod))
                && before.iter().any(|pod| seen.by_pod.contains_key(pod)),
            "the load did not span the rollout: {:?}, before {before:?}",
            seen.by_pod
        );
        few_failed(path, seen, good)?;
        let came = by_trace(&api, &ledger, path)?;
        assert!(
            came.len() as u64 >= good,
            "{good} were answered, and the witness knows of {}",
            came.len()
        );
        let twice: Vec<_> = came.iter().filter(|(_, times)| **times > 1).collect();
        assert!(
            twice.is_empty(),
            "{path}: they came to two applications: {twice:?}"
        );
    }
    Ok(())
}

/// A request that is sent twice on purpose shows as what it is.
fn repeated_report_is_found(api: &Api, client: &Pod, ledger: &Pod) -> anyhow::Result<()> {
    let parent = format!("traceparent:00-{:032x}-{:016x}-01", 7, 7);
    let args = ["-X", "POST", "-H", parent.as_str(), "-n", "2"];
    let seen = client.get(&url("server", 8080, "/twice"), &args)?;
    ensure!(seen.by_status.get("200") == Some(&2), "{seen:?}");
    let came = by_trace(api, ledger, "/twice")?;
    ensure!(came.values().copied().eq([2_u32]), "{came:?}");
    Ok(())
}

/// 25 a second, each with a trace of its own.
fn load(client: &Pod, path: &str, kind: &[&str]) -> anyhow::Result<Load> {
    let rate = ["--rate", "25", "--duration", UNTIL_ENDED, "-c", "8"];
    let args = [&rate[..], &["--trace"], kind].concat();
    client.start_load(&url("server", 8080, path), &args)
}

fn few_failed(path: &str, seen: &Summary, good: u64) -> anyhow::Result<()> {
    println!(
        "{path}: {} planned, {} sent, {good} good, {:?}, {:?}, {:?}",
        seen.planned, seen.sent, seen.by_status, seen.by_reason, seen.errors
    );
    ensure!(
        seen.planned == seen.sent && (seen.sent - good) * ONE_FAILURE_IN <= seen.sent,
        "{path}: more than one in {ONE_FAILURE_IN} failed: {seen:?}"
    );
    Ok(())
}

/// How many reports of each trace the witness received.
fn by_trace(api: &Api, ledger: &Pod, path: &str) -> anyhow::Result<BTreeMap<String, u32>> {
    let path_and_query = format!("{PATH}?only={path}");
    let (status, text) = api.ask_pod(ledger, LOG, &Method::GET, &path_and_query, "")?;
    ensure!(status == 200, "{path_and_query} answered {status}: {text}");
    let log: LogSnapshot = serde_json::from_str(&text)?;
    ensure!(log.lost == 0, "the witness forgot {} requests", log.lost);
    let mut came = BTreeMap::new();
    for record in log.records {
        let parent = record.headers.get("traceparent");
        let trace = parent.and_then(|parent| parent.split('-').nth(1));
        let trace = trace.with_context(|| format!("no trace: {record:?}"))?;
        *came.entry(trace.to_owned()).or_default() += 1;
    }
    Ok(came)
}
