//! Controllers of the version before this one, in the bytes that they write and read.
//!
//! No older program runs here. Its stand-in is the code by which it encoded and decoded, as its
//! protocol generated it. It took an unknown message of a proxy for an empty one, and went on;
//! the controller's test of today is `serve/tests/older.rs` there.
//!
//! Claims: calls-37

use prost::Message as _;

use super::*;

/// The messages of that version.
#[path = "../../../../wire/tests/older/messages.rs"]
mod before;
/// The status of a later one.
#[path = "../../../../wire/tests/older/status.rs"]
mod status_before;

use before::from_proxy::Message as Heard;
use before::resource::Content;

const DESTINATION: &str = "destination/10.96.0.1:80";
const SERVICE: &str = "service/shop/api:80";
const ENDPOINTS: &str = "endpoints/shop/api:80";
const RULE: &str = "rule/shop/readers";

/// All messages of the proxy so far, as an older controller reads them.
fn decoded(bench: &Bench) -> Vec<Option<Heard>> {
    let received = bench.stand_in.messages.lock().clone();
    let read = |received: &v1::FromProxy| {
        let bytes = received.encode_to_vec();
        before::FromProxy::decode(bytes.as_slice()).unwrap().message
    };
    received.iter().map(read).collect()
}

fn hellos(bench: &Bench) -> Vec<before::Hello> {
    let hello = |decoded: Option<Heard>| match decoded {
        Some(Heard::Hello(hello)) => Some(hello),
        _ => None,
    };
    decoded(bench).into_iter().filter_map(hello).collect()
}

/// The answer to a batch.
fn answer(bench: &Bench, batch: u64) -> Option<before::Ack> {
    decoded(bench)
        .into_iter()
        .find_map(|decoded| match decoded {
            Some(Heard::Ack(ack)) if ack.batch == batch => Some(ack),
            _ => None,
        })
}

/// Sends what an older controller writes, and waits for the answer.
async fn sends(bench: &Bench, batch: before::Batch) -> before::Ack {
    let id = batch.id;
    let message = before::ToProxy {
        message: Some(before::to_proxy::Message::Batch(batch)),
    };
    let read = v1::ToProxy::decode(message.encode_to_vec().as_slice()).unwrap();
    bench.send_message(read.message.unwrap()).await;
    bench.until(|bench| answer(bench, id).is_some()).await;
    answer(bench, id).unwrap()
}

fn resource(name: &str, content: Content) -> before::Resource {
    before::Resource {
        name: name.to_owned(),
        version: "1".to_owned(),
        content: Some(content),
    }
}

fn origin(kind: &str, name: &str) -> Option<before::ObjectRef> {
    Some(before::ObjectRef {
        kind: kind.to_owned(),
        namespace: "shop".to_owned(),
        name: name.to_owned(),
    })
}

/// `api`, whose only endpoint is meshed, with a split.
fn service(port: u32) -> before::Resource {
    let backend = before::Backend {
        service: "api".to_owned(),
        weight: 1,
        endpoints: ENDPOINTS.to_owned(),
    };
    let split = before::Split {
        origin: origin("TrafficSplit", "canary"),
        matches: None,
        backends: vec![backend],
    };
    let service = before::Service {
        namespace: "shop".to_owned(),
        name: "api".to_owned(),
        port,
        protocol: before::Protocol::Http1.into(),
        affinity_seconds: 0,
        splits: vec![split],
        endpoints: ENDPOINTS.to_owned(),
    };
    resource(SERVICE, Content::Service(service))
}

/// All kinds of that version: the own pod protected, and a Service to call.
fn everything(bench: &Bench) -> Vec<before::Resource> {
    let roots = bench.control.roots.certificates();
    let bundle = before::Bundle {
        roots: roots.iter().map(|root| root.to_vec()).collect(),
    };
    let workload = before::Workload {
        identity: id("shop", "web").as_str().to_owned(),
        enforcement: before::Enforcement::Enforce.into(),
        mtls: before::MtlsMode::Strict.into(),
        ..before::Workload::default()
    };
    let reader = before::source::Who::SpiffeId(id("shop", "api").as_str().to_owned());
    let rule = before::Rule {
        origin: origin("TrafficTarget", "readers"),
        sources: vec![before::Source { who: Some(reader) }],
        ports: Some(before::PortSet {
            any: true,
            ports: Vec::new(),
        }),
        ..before::Rule::default()
    };
    let destination = before::Destination {
        target: Some(before::destination::Target::Service(SERVICE.to_owned())),
    };
    let endpoint = before::Endpoint {
        ip: "10.0.0.11".to_owned(),
        port: 8080,
        identity: id("shop", "api").as_str().to_owned(),
        namespace: "shop".to_owned(),
        pod: "api-1".to_owned(),
        ..before::Endpoint::default()
    };
    let endpoints = before::Endpoints {
        endpoints: vec![endpoint],
    };
    vec![
        resource(wire::names::BUNDLE, Content::Bundle(bundle)),
        resource(wire::names::WORKLOAD, Content::Workload(workload)),
        resource(RULE, Content::Rule(rule)),
        resource(DESTINATION, Content::Destination(destination)),
        resource(ENDPOINTS, Content::Endpoints(endpoints)),
        service(80),
    ]
}

#[tokio::test]
async fn older_controller_is_obeyed_and_understands_required_messages() {
    let bench = Bench::start(&Ca::new()).await;
    // A newer controller was there before.
    let position = v1::Resource {
        name: wire::names::PLACE.to_owned(),
        version: "1".to_owned(),
        content: Some(v1::resource::Content::Place(v1::Place {
            peers: 1,
            zone_peers: 1,
            ..v1::Place::default()
        })),
    };
    let nacks = bench.control.config.apply(v1::Batch {
        set: vec![position],
        ..v1::Batch::default()
    });
    assert!(nacks.is_empty(), "{nacks:?}");
    bench.until(|bench| !hellos(bench).is_empty()).await;
    assert_eq!(hellos(&bench)[0].proxy_version, env!("CARGO_PKG_VERSION"));

    let first = before::Batch {
        id: 1,
        full: true,
        set: everything(&bench),
        ..before::Batch::default()
    };
    let ack = sends(&bench, first).await;
    assert!(ack.nacks.is_empty(), "{ack:?}");
    let snapshot = bench.control.config.snapshot();
    assert!(snapshot.is_complete());
    assert_eq!(snapshot.access.rules.len(), 1);
    let api = &snapshot.services[SERVICE];
    assert_eq!((api.port, api.routes.rules.len()), (80, 1));
    let at = snapshot.meshed_at("10.0.0.11:8080".parse().unwrap());
    assert!(at.is_some(), "who is meshed is never called in plaintext");
    assert!(
        !snapshot
            .resource_versions()
            .contains_key(wire::names::PLACE)
    );

    // A change that cannot be used is refused by name, and the former one serves on.
    let second = before::Batch {
        id: 2,
        set: vec![service(0)],
        remove: vec![RULE.to_owned()],
        ..before::Batch::default()
    };
    let ack = sends(&bench, second).await;
    let refused: Vec<_> = ack.nacks.iter().map(|nack| nack.name.as_str()).collect();
    assert_eq!(refused, [SERVICE]);
    let snapshot = bench.control.config.snapshot();
    assert!(snapshot.access.rules.is_empty());
    assert_eq!(snapshot.services[SERVICE].port, 80);

    // Its other messages read as nothing.
    bench
        .until(|bench| decoded(bench).iter().any(Option::is_none))
        .await;
    let streams = bench.streams();
    bench.connections.lock().abort_all();
    bench.until(|bench| bench.streams() > streams).await;
    bench.until(|bench| hellos(bench).len() > 1).await;
    let versions = &hellos(&bench)[1].held;
    assert_eq!(versions.get(SERVICE).map(String::as_str), Some("1"));
    assert!(!versions.contains_key(RULE), "{versions:?}");
}

#[test]
fn older_proxy_is_strict_at_permissive_ports() {
    let workload = v1::Workload {
        identity: id("shop", "web").as_str().to_owned(),
        mtls: v1::MtlsMode::Strict.into(),
        permissive_ports: vec![v1::PortRange {
            first: 9090,
            last: 9090,
        }],
        ..v1::Workload::default()
    };
    let read = before::Workload::decode(workload.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read.mtls(), before::MtlsMode::Strict);
    let known = before::Workload {
        identity: workload.identity,
        mtls: before::MtlsMode::Strict.into(),
        ..before::Workload::default()
    };
    assert_eq!(read, known, "nothing else is changed by it");
}

#[test]
fn older_proxy_ignores_that_early_reports_are_wanted() {
    let workload = v1::Workload {
        identity: id("shop", "web").as_str().to_owned(),
        early_reports: true,
        ..v1::Workload::default()
    };
    let read = before::Workload::decode(workload.encode_to_vec().as_slice()).unwrap();
    let known = before::Workload {
        identity: workload.identity,
        ..before::Workload::default()
    };
    assert_eq!(read, known);
}

#[test]
fn older_proxy_ignores_right_and_grant_to_harm_calls() {
    let workload = v1::Workload {
        identity: id("shop", "web").as_str().to_owned(),
        fault_limit: 1_000_000,
        ..v1::Workload::default()
    };
    let read = before::Workload::decode(workload.encode_to_vec().as_slice()).unwrap();
    let known = before::Workload {
        identity: workload.identity,
        ..before::Workload::default()
    };
    assert_eq!(read, known);
    let sent = v1::ToProxy {
        message: Some(v1::to_proxy::Message::Grants(v1::Grants {
            grants: vec![v1::Grant::default()],
        })),
    };
    let read = before::ToProxy::decode(sent.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read.message, None);
}

#[test]
fn older_controller_takes_early_reports_for_nothing() {
    let said = v1::FromProxy {
        message: Some(v1::from_proxy::Message::EarlyReport(v1::EarlyReport {
            epoch: 1,
            number: 1,
            sums: vec![v1::EarlySums::default()],
        })),
    };
    let read = before::FromProxy::decode(said.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read.message, None);
}

#[test]
fn an_older_controller_takes_offered_loads_for_nothing() {
    let load = v1::OfferedLoad {
        of: Some(v1::ShareOf::default()),
        thousandths: 1000,
        refused: true,
    };
    let loads = vec![load];
    let said = v1::FromProxy {
        message: Some(v1::from_proxy::Message::OfferedLoads(v1::OfferedLoads {
            loads,
        })),
    };
    let read = before::FromProxy::decode(said.encode_to_vec().as_slice()).unwrap();
    assert_eq!(read.message, None);
}

// Claims: trust-1a
#[tokio::test]
async fn older_controller_reads_status_without_authorities() {
    let bench = Bench::start(&Ca::new()).await;
    let sent = bench.control.status();
    let certificate = sent.certificate.clone().unwrap();
    assert_eq!((certificate.authority.len(), sent.trusts.len()), (16, 1));
    let read = status_before::ProxyStatus::decode(sent.encode_to_vec().as_slice()).unwrap();
    let expected = status_before::ProxyStatus {
        certificate: Some(status_before::Certificate {
            serial: certificate.serial,
            issuer: certificate.issuer,
            not_after: certificate.not_after,
            not_before: certificate.not_before,
        }),
        memory: sent.memory,
        draining: sent.draining,
        now: sent.now,
    };
    assert_eq!(read, expected);
}
