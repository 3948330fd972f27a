//! The spans at a real collector after calls over three services, and the trace headers that
//! applications propagate.

use std::{collections::BTreeSet, thread, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::{
    echo::{
        call::{Order, ProxyResponse},
        reply::Report,
    },
    eyes::Record,
    harness::{Namespace, Outcome, Pod, eventually, mesh, settled},
};

use super::{
    SOON,
    altered::{Altered, own_ready},
    collector::{Collector, Span},
    url,
};

/// A message goes a second after its first span, and stands in the file at once.
const SENT: Duration = Duration::from_secs(3);
/// Calls that begin a trace at the caller's proxy, and the share of them that is recorded.
const FRESH: u64 = 2400;
const SHARE: f64 = 0.1;
/// Standard deviations.
const DEVIATIONS: f64 = 5.0;
/// Kinds of spans.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const APPS: [&str; 4] = ["client", "front", "middle", "back"];

/// The format in which an application propagates its own span.
struct Format {
    /// The row of its chain.
    row: &'static str,
    headers: fn(&Own, bool) -> Vec<(&'static str, String)>,
    /// The header in which the next application reads its parent, and the place of the
    /// parent in it, between hyphens.
    parent: (&'static str, usize),
}

static FORMATS: [Format; 3] = [
    Format {
        row: "chain-w3c",
        headers: |own, sampled| {
            let sampled = u8::from(sampled);
            let (trace, span) = (&own.trace, &own.span);
            vec![("traceparent", format!("00-{trace}-{span}-0{sampled}"))]
        },
        parent: ("traceparent", 2),
    },
    Format {
        row: "chain-b3",
        headers: |own, sampled| {
            let sampled = u8::from(sampled);
            let (trace, span) = (&own.trace, &own.span);
            vec![("b3", format!("{trace}-{span}-{sampled}"))]
        },
        parent: ("b3", 1),
    },
    Format {
        row: "chain-b3multi",
        headers: |own, sampled| {
            vec![
                ("x-b3-traceid", own.trace.clone()),
                ("x-b3-spanid", own.span.clone()),
                ("x-b3-sampled", u8::from(sampled).to_string()),
            ]
        },
        parent: ("x-b3-spanid", 0),
    },
];

/// A span of an application, in a trace of its own.
struct Own {
    trace: String,
    span: String,
}

impl Own {
    fn new() -> Self {
        // All zeros would be no id.
        Self {
            trace: format!("{:032x}", rand::random::<u128>() | 1),
            span: format!("{:016x}", rand::random::<u64>() | 1),
        }
    }
}

// Claims: observability-11
#[test]
fn three_service_spans_form_one_chain_without_loss() -> Outcome {
    let mut chains = Vec::new();
    for format in &FORMATS {
        chains.push((format, Record::begin(format.row)?));
    }
    let mut off = Record::begin("parents-off")?;
    let mut unsampled = Record::begin("parents-unsampled")?;
    let mut sampled = Record::begin("parents-sampled")?;
    let sampling = Record::begin("sampling")?;

    let altered = Altered::begin()?;
    let ns = Namespace::meshed("eyes-traces")?;
    ns.run(&APPS)?;
    let client = ns.pod("client")?;
    eventually(SOON, "the services call each other", || {
        through(&client, &[])
    })?;
    let collector = Collector::start(&ns)?;
    untouched(&client, &[false, true], &mut off)?;
    off.holds()?;

    let endpoint = format!("tracing.endpoint={}", collector.endpoint());
    mesh::install(&[&endpoint, "tracing.sampling=10"])?;
    own_ready(&ns.cluster)?;
    for (format, mut record) in chains {
        let (own, response, spans) = eventually(SOON, "six spans are at the collector", || {
            let own = Own::new();
            let response = through(&client, &(format.headers)(&own, true))?;
            thread::sleep(SENT);
            let mut spans = collector.spans(&ns)?;
            spans.retain(|span| span.trace == own.trace);
            ensure!(spans.len() == 6, "{}: {spans:#?}", format.row);
            Ok((own, response, spans))
        })?;
        let chain = chain(&own, &spans)?;
        let names: Vec<String> = chain.iter().map(|span| shown(span)).collect();
        record.saw(format!("the client's own span, {}", names.join(", ")));
        record.holds()?;
        let (header, at) = format.parent;
        let last = chain.last().context("an empty chain")?;
        let parent = response.headers.get(header);
        let parent = parent.and_then(|value| value.split('-').nth(at));
        assert_eq!(parent, Some(last.id.as_str()), "{header}: {response:?}");
        sampled.saw(format!("{header}: {}", shown(last)));
    }
    sampled.holds()?;

    let traces = untouched(&client, &[false], &mut unsampled)?;
    thread::sleep(SENT);
    let mut spans = collector.spans(&ns)?;
    spans.retain(|span| traces.contains(&span.trace));
    assert!(spans.is_empty(), "{spans:#?}");
    unsampled.holds()?;
    share(&client, &ns, &collector, sampling)?;
    altered.restore()?;
    Ok(())
}

/// What the last of three services received, when the first was called with these headers.
fn through(client: &Pod, headers: &[(&str, String)]) -> anyhow::Result<Report> {
    let back = Order::written(url("back", 8080, "/"), "GET", String::new())?;
    let middle = Order::written(url("middle", 9091, "/proxy"), "POST", back)?;
    let front = url("front", 9091, "/proxy");
    let headers: Vec<String> = headers
        .iter()
        .map(|(name, value)| format!("{name}:{value}"))
        .collect();
    let mut args = vec!["-X", "POST", "--body", &middle];
    for header in &headers {
        args.extend(["-H", header.as_str()]);
    }
    let called = client.get(&front, &args)?.last;
    ensure!(called.status == 200, "{front}: {called:?}");
    let middle: ProxyResponse = serde_json::from_str(&called.body)?;
    let back: ProxyResponse = serde_json::from_str(&middle.body)
        .with_context(|| format!("middle answered {middle:?}"))?;
    serde_json::from_str(&back.body).with_context(|| format!("back answered {back:?}"))
}

/// Headers of traces that are not recorded reach the last service unchanged; returns the
/// traces.
fn untouched(client: &Pod, decisions: &[bool], record: &mut Record) -> anyhow::Result<Vec<String>> {
    let mut traces = Vec::new();
    for format in &FORMATS {
        for sampled in decisions {
            let own = Own::new();
            let sent = (format.headers)(&own, *sampled);
            let response = through(client, &sent)?;
            for (name, value) in &sent {
                ensure!(
                    response.headers.get(*name) == Some(value),
                    "{name}: {value} became {response:?}"
                );
                record.saw(format!("{name}: {value}"));
            }
            traces.push(own.trace);
        }
    }
    Ok(traces)
}

/// The spans from the application's own to that of the last service, each the parent of the
/// next.
fn chain<'a>(own: &Own, spans: &'a [Span]) -> anyhow::Result<Vec<&'a Span>> {
    let mut parent = &own.span;
    let mut chain = Vec::new();
    for (service, kind) in [
        ("client", CLIENT),
        ("front", SERVER),
        ("front", CLIENT),
        ("middle", SERVER),
        ("middle", CLIENT),
        ("back", SERVER),
    ] {
        let next = spans.iter().filter(|span| span.parent == *parent);
        let next: Vec<&Span> = next.collect();
        let [next] = next[..] else {
            anyhow::bail!("{} of {spans:#?} follow {parent}", next.len())
        };
        ensure!(
            (next.service.as_str(), next.kind) == (service, kind),
            "{next:?} is not of {service}"
        );
        parent = &next.id;
        chain.push(next);
    }
    Ok(chain)
}

fn shown(span: &Span) -> String {
    let kind = if span.kind == CLIENT {
        "CLIENT"
    } else {
        "SERVER"
    };
    format!("{kind} of {}", span.service)
}

/// Of calls that begin a trace so many are recorded, each by both proxies.
fn share(
    client: &Pod,
    ns: &Namespace,
    collector: &Collector,
    mut record: Record,
) -> anyhow::Result<()> {
    let before = recorded(&collector.spans(ns)?);
    let number = FRESH.to_string();
    let args = ["-n", &number, "--rate", "120", "-c", "4"];
    let seen = client.get(&url("back", 8080, "/"), &args)?;
    ensure!(
        seen.by_status.get("200") == Some(&FRESH),
        "not all were answered with 200: {seen:?}"
    );
    let look = || anyhow::Ok(recorded(&collector.spans(ns)?));
    let (_, after) = settled(SOON, SENT, look)?;
    let (called, served) = (after.0 - before.0, after.1 - before.1);
    let (calls, shown) = (FRESH as f64, called as f64);
    let mean = calls * SHARE;
    let around = DEVIATIONS * (mean * (1.0 - SHARE)).sqrt();
    record.saw(format!(
        "{called} of {FRESH} calls, {:.2} %; {:.0} to {:.0} are within the bound",
        shown / calls * 100.0,
        mean - around,
        mean + around
    ));
    ensure!((shown - mean).abs() <= around, "{called} of {FRESH}");
    ensure!(called == served, "{called} were recorded, {served} there");
    record.holds()
}

/// Calls of the client that began a trace, and those of them that the called side recorded
/// too. What comes from outside, such as probes, begins traces as well.
fn recorded(spans: &[Span]) -> (usize, usize) {
    let begins =
        |span: &&Span| span.service == "client" && span.kind == CLIENT && span.parent.is_empty();
    let roots: BTreeSet<&str> = spans
        .iter()
        .filter(begins)
        .map(|span| span.id.as_str())
        .collect();
    let served = spans.iter().filter(|span| span.kind == SERVER);
    let served = served.filter(|span| roots.contains(span.parent.as_str()));
    (roots.len(), served.count())
}
