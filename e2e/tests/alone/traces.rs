//! A trace over three services, at a collector in the mesh. A part of what `upgraded` tries.
//!
//! Claims: observe-91

use std::{thread, time::Duration};

use anyhow::{Context as _, ensure};
use e2e::{
    echo::{call::Order, posted},
    harness::{Namespace, Outcome, eventually},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest, common::v1::any_value::Value, trace::v1::Span,
};
use prost::Message as _;

use super::url;

/// Proxies follow their controllers' new settings within seconds.
const SOON: Duration = Duration::from_secs(90);
/// A message goes a second after its first span.
const SENT: Duration = Duration::from_secs(2);
const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";
/// Kinds of spans.
const SERVER: i32 = 2;
const CLIENT: i32 = 3;

/// A span, and the service that sent it.
#[derive(Debug)]
struct Sent {
    service: String,
    span: Span,
}

/// The services, with the collector beside them.
pub(super) fn services() -> anyhow::Result<Namespace> {
    let ns = Namespace::meshed("traces")?;
    ns.run(&["client", "front", "middle", "back", "collector"])?;
    Ok(ns)
}

/// Values of the chart that send spans to that collector: only requests with a sampling
/// decision are recorded, so none of other workloads in the mesh.
pub(super) fn values(ns: &Namespace) -> [String; 2] {
    let endpoint = format!("http://collector.{}:8080{}", ns.name, posted::PATH);
    let endpoint = format!("tracing.endpoint={endpoint}");
    [endpoint, "tracing.sampling=0".into()]
}

// Claims: observability-11
pub(super) fn a_trace_over_three_services_is_one_chain_of_six_spans(ns: &Namespace) -> Outcome {
    for header in [
        format!("traceparent:00-{TRACE}-{PARENT}-01"),
        format!("b3:{TRACE}-{PARENT}-1"),
    ] {
        eventually(SOON, "six spans are at the collector, one chain", || {
            let sent = traced(ns, &header)?;
            ensure!(sent.len() == 6, "{header}: {sent:#?}");
            // Those of the try before may have come late, and then among these.
            chain(&sent)
        })?;
    }
    Ok(())
}

/// The spans of one call from the client through all services.
fn traced(ns: &Namespace, header: &str) -> anyhow::Result<Vec<Sent>> {
    let client = ns.pod("client")?;
    let collector = url("collector", 8080, posted::PATH);
    client.get(&collector, &["-X", "DELETE"])?;
    let back = Order::written(url("back", 8080, "/"), "GET", String::new())?;
    let middle = Order::written(url("middle", 9091, "/proxy"), "POST", back)?;
    let front = url("front", 9091, "/proxy");
    let called = client.get(&front, &["-X", "POST", "-H", header, "--body", &middle])?;
    ensure!(called.last.status == 200, "{front}: {:?}", called.last);
    thread::sleep(SENT);
    let got = client.get(&collector, &[])?.last.body;
    let messages: Vec<String> =
        serde_json::from_str(&got).with_context(|| format!("the collector has {got}"))?;
    let mut sent = Vec::new();
    for message in messages {
        let message = ExportTraceServiceRequest::decode(bytes(&message)?.as_slice())?;
        for all in message.resource_spans {
            let attributes = all.resource.unwrap_or_default().attributes;
            let named = attributes.into_iter().find(|one| one.key == "service.name");
            let service = match named.and_then(|one| one.value?.value) {
                Some(Value::StringValue(name)) => name,
                _ => String::new(),
            };
            let spans = all.scope_spans.into_iter().flat_map(|scope| scope.spans);
            sent.extend(spans.map(|span| Sent {
                service: service.clone(),
                span,
            }));
        }
    }
    Ok(sent)
}

/// Each is the parent of the next.
fn chain(sent: &[Sent]) -> anyhow::Result<()> {
    let mut parent = bytes(PARENT)?;
    for (service, kind) in [
        ("client", CLIENT),
        ("front", SERVER),
        ("front", CLIENT),
        ("middle", SERVER),
        ("middle", CLIENT),
        ("back", SERVER),
    ] {
        let next = sent.iter().filter(|one| one.span.parent_span_id == parent);
        let next: Vec<&Sent> = next.collect();
        let [next] = next[..] else {
            anyhow::bail!("{} of {sent:#?} follow {parent:?}", next.len())
        };
        ensure!(next.span.trace_id == bytes(TRACE)?, "{next:#?}");
        ensure!(
            (next.service.as_str(), next.span.kind) == (service, kind),
            "{next:#?} is not of {service}"
        );
        parent.clone_from(&next.span.span_id);
    }
    Ok(())
}

fn bytes(hex: &str) -> anyhow::Result<Vec<u8>> {
    let pairs = (0..hex.len()).step_by(2);
    let pairs = pairs.map(|at| hex.get(at..at + 2).context("half a byte"));
    pairs
        .map(|pair| Ok(u8::from_str_radix(pair?, 16)?))
        .collect()
}
