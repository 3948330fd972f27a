//! Proxies of the version before this one, in the bytes that they write and read.
//!
//! No older program runs here. What stands for one is the code by which it encoded and
//! decoded, as its protocol generated it: what it says comes to the controller in its bytes,
//! and what the controller sends is read as it would read it.
//!
//! Claims: calls-37

use policy::name::Kind;
use prost::Message as _;
use serde_json::json;
use wire::capability::Capabilities;

use super::*;
use crate::metrics::ReportOutcome;
use crate::observe::reports::INTERVAL;

/// The messages of that version.
#[path = "../../../../wire/tests/older/messages.rs"]
mod before;
/// The status of a later one.
#[path = "../../../../wire/tests/older/status.rs"]
mod status_before;

use before::from_proxy::Message as Older;

/// A split, a protected pod, and a policy with sections for callers and for servers.
fn everything(weight: i64) -> Cluster {
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let spec = json!({
        "targetRef": {"kind": "Service", "name": "api"},
        "timeouts": {"request": "10s"}, "retry": {"attempts": 2}, "breaker": {},
        "rateLimits": [{"name": "all", "requests": 100}], "overload": {},
    });
    with_split(weight)
        .with(cluster::tcp_route("ports", &[8080]))
        .with(cluster::target("readers", "api", &["web"], rules))
        .with(cluster::traffic_policy("p", spec))
}

fn policy() -> ObjectRef {
    ObjectRef::new(Kind::TrafficPolicy, "shop", "p")
}

/// What an older proxy said, as it comes here.
fn decoded(message: Older) -> Message {
    let message = before::FromProxy {
        message: Some(message),
    };
    let read = v1::FromProxy::decode(message.encode_to_vec().as_slice());
    read.unwrap().message.unwrap()
}

fn hello(versions: HashMap<String, String>, destinations: &[&str]) -> before::Hello {
    before::Hello {
        proxy_version: "0.1.0".to_owned(),
        held: versions,
        destinations: destinations.iter().map(|name| (*name).to_owned()).collect(),
        capabilities: vec!["extended-rule".to_owned()],
    }
}

/// A pod of the Service that the policy is about, with an older proxy.
async fn open(bench: &Bench, hello: before::Hello) -> Proxy {
    let Message::Hello(hello) = decoded(Older::Hello(hello)) else {
        panic!("no Hello")
    };
    let channel = bench
        .mesh_channel(&account("shop", "api"), Some("uid-api-1"))
        .await;
    Proxy::open(channel, hello).await
}

/// The next message, as an older proxy reads it.
async fn next(proxy: &mut Proxy) -> before::Batch {
    let sent = timeout(PATIENCE, proxy.inbox.message()).await;
    let sent = sent.unwrap().unwrap().unwrap();
    let read = before::ToProxy::decode(sent.encode_to_vec().as_slice()).unwrap();
    let Some(before::to_proxy::Message::Batch(batch)) = read.message else {
        panic!("it does not know {sent:?}")
    };
    for resource in &batch.set {
        assert!(resource.content.is_some(), "nor what {} is", resource.name);
    }
    batch
}

async fn answer(proxy: &Proxy, batch: &before::Batch, nacks: Vec<before::Nack>) {
    let batch = batch.id;
    let ack = before::Ack { batch, nacks };
    proxy.send_message(decoded(Older::Ack(ack))).await;
}

fn sent(batch: &before::Batch) -> Vec<&str> {
    let resources = batch.set.iter();
    resources.map(|resource| resource.name.as_str()).collect()
}

fn weight_in(batch: &before::Batch) -> u32 {
    let weight = batch
        .set
        .iter()
        .find_map(|resource| match &resource.content {
            Some(before::resource::Content::Service(service)) => {
                Some(service.splits[0].backends[0].weight)
            }
            _ => None,
        });
    weight.unwrap()
}

async fn until(bench: &Bench, object: &ObjectRef, so: impl Fn(&Tally) -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so(&bench.tally_now(object)) {
        assert!(Instant::now() < deadline, "{:?}", bench.tally_now(object));
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn older_proxy_understands_all_messages_and_is_understood() {
    let bench = Bench::start(&everything(10)).await;
    let mut proxy = open(&bench, hello(HashMap::new(), &[])).await;
    let own = next(&mut proxy).await;
    assert!(own.full);
    assert_eq!(sent(&own), ["bundle", "rule/shop/readers", "workload"]);
    answer(&proxy, &own, Vec::new()).await;
    let subscribe = before::Subscribe {
        add: vec![API.to_owned()],
        remove: Vec::new(),
    };
    proxy
        .send_message(decoded(Older::Subscribe(subscribe)))
        .await;
    let called = next(&mut proxy).await;
    assert_eq!(
        sent(&called),
        [API, "endpoints/shop/api:80", "service/shop/api:80"]
    );
    assert_eq!(weight_in(&called), 10);
    answer(&proxy, &called, Vec::new()).await;
    bench.tally(&canary(), 1).await;
    // What it does not carry out is reported to its author.
    until(&bench, &policy(), |tally| {
        let limits = |field: &String| field.starts_with("rateLimits");
        tally.too_old == ["shop/api-1"]
            && tally.lacks.contains("retry")
            && tally.lacks.iter().any(limits)
    })
    .await;

    // It comes back, and what it holds is not sent again.
    drop(proxy);
    let versions = own.set.iter().chain(&called.set);
    let versions = versions.map(|resource| (resource.name.clone(), resource.version.clone()));
    let mut proxy = open(&bench, hello(versions.collect(), &[API])).await;
    let batch = next(&mut proxy).await;
    assert!(batch.full && batch.set.is_empty(), "{batch:?}");
    assert_eq!(batch.unchanged.len(), 6);
    answer(&proxy, &batch, Vec::new()).await;

    // A change comes to it, and what it cannot use of that is known.
    bench.publish(&everything(20));
    let changed = next(&mut proxy).await;
    assert_eq!(sent(&changed), ["service/shop/api:80"]);
    assert_eq!(weight_in(&changed), 20);
    let nack = before::Nack {
        name: changed.set[0].name.clone(),
        version: changed.set[0].version.clone(),
        reason: "unknown split".to_owned(),
    };
    answer(&proxy, &changed, vec![nack]).await;
    let refused = Some(("shop/api-1".to_owned(), "unknown split".to_owned()));
    until(&bench, &canary(), |tally| tally.nack == refused).await;
}

/// Control: there is more to be sent to such a pod.
#[tokio::test]
async fn current_proxy_receives_additional_resources_unknown_to_older() {
    let bench = Bench::start(&everything(10)).await;
    let hello = v1::Hello {
        capabilities: Capabilities::of_this_version(),
        ..hello_for(&[API])
    };
    let channel = bench
        .mesh_channel(&account("shop", "api"), Some("uid-api-1"))
        .await;
    let mut proxy = Proxy::open(channel, hello).await;
    let batch = proxy.batch().await;
    let newer = ["guard", "policy/shop/api:80"];
    let names = names(&batch);
    let all_sent = newer.iter().all(|name| names.contains(name));
    assert!(all_sent, "{names:?}");
    for resource in &batch.set {
        let read = before::Resource::decode(resource.encode_to_vec().as_slice()).unwrap();
        let known = !newer.contains(&resource.name.as_str());
        if read.content.is_some() != known {
            let others = ["place", "routes", "telemetry"];
            assert!(others.contains(&&*resource.name), "{}", resource.name);
        }
    }
}

/// It does not say what its clock shows, and an hour is more than is kept.
// Claims: observe-104
#[tokio::test]
async fn older_proxys_calls_with_fast_clock_use_our_time() {
    let bench = Bench::start(&everything(10)).await;
    let mut proxy = open(&bench, hello(HashMap::new(), &[])).await;
    next(&mut proxy).await;
    let now = interval_of(SystemTime::now());
    let ahead = 3600 / INTERVAL;
    let edge = before::Edge {
        success: 1,
        ..before::Edge::default()
    };
    let report = before::Report {
        process: 1,
        // The last one that has ended there.
        slot: (now + ahead - 1) * INTERVAL,
        edges: vec![edge],
        routes: Vec::new(),
    };
    proxy.send_message(decoded(Older::Report(report))).await;
    let calls = || {
        let mut calls = 0;
        bench
            .reports
            .each(now - 1, now + 2, |_, edge| calls += edge.success);
        calls
    };
    let deadline = Instant::now() + PATIENCE;
    while calls() < 1 {
        let refused = bench.metrics.reports.reports(ReportOutcome::OutOfTime);
        assert!(Instant::now() < deadline, "{refused} refused");
        sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn older_proxy_names_its_issuer_and_no_authority() {
    let certificate = status_before::Certificate {
        serial: "0a:0b".to_owned(),
        issuer: "CN=weft issuer".to_owned(),
        not_after: 1_800_000_000,
        not_before: 1_799_913_300,
    };
    let sent = status_before::ProxyStatus {
        certificate: Some(certificate),
        now: 7,
        ..status_before::ProxyStatus::default()
    };
    let read = v1::ProxyStatus::decode(sent.encode_to_vec().as_slice()).unwrap();
    assert!(read.trusts.is_empty(), "its acknowledgement says it");
    let certificate = read.certificate.unwrap();
    assert_eq!(certificate.issuer, "CN=weft issuer");
    assert!(certificate.authority.is_empty());
}

#[test]
fn older_replica_takes_no_notice_of_early_reports() {
    let early = v1::PodEarlyReport {
        uid: "uid-api-1".to_owned(),
        report: Some(v1::EarlyReport::default()),
        ago: 1,
    };
    let pod = |uid: &str| v1::PodReport {
        uid: uid.to_owned(),
        ..v1::PodReport::default()
    };
    let news = v1::Reports {
        reports: vec![pod("uid-api-2")],
        early: vec![early],
        ..v1::Reports::default()
    };
    let read = before::Reports::decode(news.encode_to_vec().as_slice()).unwrap();
    let uids = read.reports.iter().map(|one| &*one.uid);
    assert_eq!(uids.collect::<Vec<_>>(), ["uid-api-2"]);
}
