//! Chains of services: the time that one of them uses reduces the deadline of the others, to
//! some hundredths of a second.
//!
//! Under other tests' load the time of a single call proves little: a round holds when each of
//! its calls does, and one of three rounds must hold. The proxies' decisions hold in each round.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use e2e::{
    echo::{
        call::{Order, ProxyResponse},
        request_log::Record,
    },
    harness::{Api, Pod},
};
use http::Method;

use links::BYPASS;

mod deadlines;
#[path = "../mesh/chains/links.rs"]
pub(crate) mod links;
mod timeouts;

/// A change takes effect within 2 s; kubectl's own time and a busy machine come on top.
const SOON: Duration = Duration::from_secs(10);
const ROUNDS: usize = 3;

/// A call that the application of this pod makes, with these headers and for no request of
/// its own that goes on meanwhile.
fn order(
    api: &Api,
    from: &Pod,
    (method, url): (&str, String),
    (name, value): (&str, &str),
) -> anyhow::Result<ProxyResponse> {
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

/// The remaining milliseconds that the application received.
fn left(record: &Record) -> anyhow::Result<f64> {
    let left = record.headers.get("weft-timeout");
    let left = left.and_then(|left| left.strip_suffix("ms"));
    let left = left.with_context(|| format!("it received no time: {record:?}"))?;
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
