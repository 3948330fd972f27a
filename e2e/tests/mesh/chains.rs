//! Services behind each other: what one of them uses, fails in or is allowed shows at the
//! others.
//!
//! The test application calls on (`NEXT`), and its log of requests tells what reached it,
//! what it was told, and when and how that ended.

use anyhow::{Context as _, ensure};
use e2e::{
    echo::{
        call::{Order, Outcome as Answer},
        request_log::{PATH, Record, Told},
    },
    harness::{Api, App, Pod},
};
use http::Method;
use serde_json::json;

mod deadlines;
mod overrides;
mod retries;
mod timeouts;

/// Orders and logs of the application; the pods skip the port, so that no proxy counts what
/// the test itself asks.
const BYPASS: u16 = 9092;

/// An application that asks nobody.
fn link(name: &str) -> App {
    App::new(name)
        .annotation("weft.dev/skip-inbound-ports", &BYPASS.to_string())
        // Not by the port that calls on: a probe would go down the chain.
        .readiness(json!({"httpGet": {"path": "/metrics", "port": 9091}, "periodSeconds": 1}))
}

/// An application that asks the next one, with these headers of its request.
fn calls_on(name: &str, next: &str, propagate: &str) -> App {
    link(name)
        .env("NEXT", &format!("http://{next}:8080"))
        .env("PROPAGATE", propagate)
}

/// From now on the application of this pod fails so.
fn fault(pod: &Pod, fault: &str) -> anyhow::Result<()> {
    // Within the pod, past its proxy.
    let url = "http://127.0.0.1:8080/fault";
    let args = ["get", url, "-X", "POST", "--body", fault];
    pod.exec(&[&args[..], &["--expect", "fault set"]].concat())
        .map(drop)
}

/// The application's log of what reached it below `path`, as it tells it.
fn log(api: &Api, pod: &Pod, path: &str) -> anyhow::Result<String> {
    let path = format!("{PATH}?only={path}");
    let (status, text) = api.ask_pod(pod, BYPASS, &Method::GET, &path, "")?;
    ensure!(
        status == 200,
        "{path} of {} answered {status}: {text}",
        pod.name
    );
    Ok(text)
}

/// What reached the application below `path`, from the first request on.
fn requests(api: &Api, pod: &Pod, path: &str) -> anyhow::Result<Vec<Record>> {
    let text = log(api, pod, path)?;
    let told: Told = serde_json::from_str(&text)?;
    ensure!(told.lost == 0, "{} lost {} requests", pod.name, told.lost);
    Ok(told.records)
}

/// A call that the application of this pod makes, with these headers and for no request of
/// its own that goes on meanwhile.
fn order(
    api: &Api,
    from: &Pod,
    (method, url): (&str, String),
    (name, value): (&str, &str),
) -> anyhow::Result<Answer> {
    let order = Order {
        url,
        method: method.to_owned(),
        body: String::new(),
        headers: Some([(name.to_owned(), value.to_owned())].into()),
    };
    let body = serde_json::to_string(&order)?;
    let (status, text) = api.ask_pod(from, BYPASS, &Method::POST, "/proxy", &body)?;
    ensure!(
        status == 200,
        "{} answered {status} to {body}: {text}",
        from.name
    );
    serde_json::from_str(&text).with_context(|| format!("{} answered {text}", from.name))
}

/// Milliseconds that the application was told to have left.
fn left(record: &Record) -> anyhow::Result<f64> {
    let left = record.headers.get("weft-timeout");
    let left = left.and_then(|left| left.strip_suffix("ms"));
    let left = left.with_context(|| format!("it was told no time: {record:?}"))?;
    Ok(left.parse()?)
}

/// Milliseconds from one time of a log to another one. All nodes of the local cluster have
/// one clock.
fn between(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1000.0
}

/// The trace that a request belongs to, by which it is found again at the next hop.
fn trace(record: &Record) -> Option<&str> {
    record.headers.get("traceparent")?.split('-').nth(1)
}

/// Of one that has the same trace as `first`.
fn same<'a>(records: &'a [Record], first: &Record) -> anyhow::Result<&'a Record> {
    let id = trace(first).context("it has no trace")?;
    records
        .iter()
        .find(|record| trace(record) == Some(id))
        .with_context(|| format!("no request of the trace of {first:?}"))
}

/// What is added to three of four. What the machine adds to some, such as turns of the
/// scheduler while other tests run, is not what the proxies add to all.
fn lower_quartile(mut values: Vec<f64>) -> anyhow::Result<f64> {
    values.sort_by(f64::total_cmp);
    let lower = values.get(values.len() / 4);
    lower.copied().context("nothing was measured")
}
