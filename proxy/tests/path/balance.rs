//! Calls that stay in their zone as long as no endpoint there reports overload, and calls that use
//! a part of a large Service.
//!
//! Claims: calls-25, calls-64

use std::collections::BTreeSet;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use policy::traffic::EffectivePolicy;
use policy::traffic::endpoint::{Balance, Locality, Subset};
use wire::v1::{self, Protocol, balance};

use super::answers::{App, OK, ask, policy_of, served_by, sum, whole};
use super::ejection::grpc_app;
use crate::support::{Pod, endpoint, pair, resource};

const LOCALITY: &str = "weft_locality_requests_total";
const UNREADABLE: &str = "weft_unreadable_loads_total";
const BUSY: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nendpoint-load-metrics: TEXT application_utilization=0.9\r\n\r\nok";

const LIMITED: &str = "HTTP/1.1 429 No\r\nretry-after: 60\r\ncontent-length: 2\r\n\r\nno";

/// How seldom it is drawn meanwhile is held where latencies are given, in
/// `endpoints/set/tests/limited.rs`.
#[tokio::test]
async fn rate_limited_instance_is_neither_ejected_nor_retried() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let limited = App::new(server.ip, LIMITED).await;
    let others = [App::new(server.ip, OK).await, App::new(server.ip, OK).await];
    served_by(&client, &server, &[&limited, &others[0], &others[1]]);
    let mut gets = 0;
    while limited.request_count() == 0 {
        ask(&client, "GET", "", "").await;
        gets += 1;
        assert!(gets < 200, "it must be asked");
    }
    for _ in 0..300 {
        ask(&client, "GET", "", "").await;
    }
    let there = limited.request_count();
    let elsewhere: usize = others.iter().map(App::request_count).sum();
    assert_eq!(there + elsewhere, gets + 300, "none was sent twice");
    assert_eq!(sum(&client, "weft_ejections_total", &[]), 0.0);
}

/// The own pod runs in this zone, on this node.
pub(super) fn runs_in(zone: &str, node: &str) -> v1::Resource {
    let workload = v1::Workload {
        identity: crate::support::id("web").as_str().to_owned(),
        enforcement: v1::Enforcement::Open.into(),
        mtls: v1::MtlsMode::Permissive.into(),
        zone: zone.to_owned(),
        node: node.to_owned(),
        ..v1::Workload::default()
    };
    let content = v1::resource::Content::Workload(workload);
    resource(wire::names::WORKLOAD, content)
}

/// `api` is served at these ports, by the zone of each, and is to be called near by.
pub(super) fn near_by(server: &Pod, account: Option<&str>, ports: &[(u16, &str)]) -> v1::Resource {
    let at = |(port, zone): &(u16, &str)| v1::Endpoint {
        zone: (*zone).to_owned(),
        node: format!("node-{port}"),
        ..endpoint(server.ip, *port, account)
    };
    let endpoints = v1::Endpoints {
        endpoints: ports.iter().map(at).collect(),
        locality: balance::Locality::PreferSameZone.into(),
        ..v1::Endpoints::default()
    };
    let name = wire::names::endpoints("shop", "api", 80);
    resource(&name, v1::resource::Content::Endpoints(endpoints))
}

/// An application in the own zone that answers this, and one in another zone.
async fn zones(near: &'static str) -> (Pod, Pod, [App; 2]) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let apps = [
        App::new(server.ip, near).await,
        App::new(server.ip, OK).await,
    ];
    let ports = [(apps[1].port, "b"), (apps[0].port, "a")];
    // In this order, as in a new proxy: its own location comes last.
    client.set(vec![near_by(&server, Some("api"), &ports)]);
    client.set(vec![runs_in("a", "node-0")]);
    (client, server, apps)
}

async fn request_count(client: &Pod, apps: &[App; 2], times: usize) -> [usize; 2] {
    let before = apps.each_ref().map(App::request_count);
    for _ in 0..times {
        let (status, answer) = ask(client, "GET", "", "").await;
        assert_eq!(status, 200, "{answer}");
    }
    [0, 1].map(|at| apps[at].request_count() - before[at])
}

#[tokio::test]
async fn calls_stay_in_requested_zone_counted_by_locality() {
    let (client, _server, apps) = zones(OK).await;
    assert_eq!(request_count(&client, &apps, 30).await, [30, 0]);
    let counted = |locality: &str| {
        let label = format!("locality=\"{locality}\"");
        sum(&client, LOCALITY, &["service=\"shop/api\"", &label])
    };
    assert_eq!(counted("same-zone"), 30.0);
    client.set(vec![runs_in("a", &format!("node-{}", apps[0].port))]);
    request_count(&client, &apps, 1).await;
    assert_eq!(counted("same-node"), 1.0);
    client.set(vec![runs_in("b", "node-0")]);
    assert_eq!(request_count(&client, &apps, 30).await, [0, 30]);
    client.set(vec![runs_in("c", "node-0")]);
    // What the first handshakes took is forgotten, so that both are as fast.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let both = request_count(&client, &apps, 60).await;
    assert!(both.iter().all(|some| *some > 0), "{both:?}");
    assert_eq!(counted("elsewhere"), 60.0);
    // The last word has a policy.
    client.set(vec![runs_in("a", "node-0")]);
    client.set(vec![policy_of(&EffectivePolicy {
        balance: whole(Balance {
            locality: Some(Locality::None),
            ..Balance::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let both = request_count(&client, &apps, 60).await;
    assert!(both.iter().all(|some| *some > 0), "{both:?}");
    assert_eq!(sum(&client, LOCALITY, &[]), 121.0, "a policy turns it off");
}

#[tokio::test]
async fn busy_application_is_avoided_for_other_zone() {
    let (client, server, apps) = zones(BUSY).await;
    let (_, answer) = ask(&client, "GET", "", "").await;
    assert!(!answer.to_lowercase().contains("weft-load"), "{answer}");
    assert!(answer.contains("endpoint-load-metrics"), "{answer}");
    assert_eq!(apps[0].request_count(), 1);
    assert_eq!(request_count(&client, &apps, 30).await, [0, 30]);
    for pod in [&client, &server] {
        assert_eq!(sum(pod, UNREADABLE, &[]), 0.0);
    }
}

#[tokio::test]
async fn load_in_grpc_trailers_counts_from_next_response() {
    // application_utilization: 0.9
    const REPORT: &str = "Sc3MzMzMzOw/";
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let reported = [("grpc-status", "0"), ("endpoint-load-metrics-bin", REPORT)];
    let (near, near_asked) = grpc_app(&server, &reported).await;
    let (far, far_asked) = grpc_app(&server, &reported[..1]).await;
    client.set(vec![
        runs_in("a", "node-0"),
        near_by(&server, Some("api"), &[(near, "a"), (far, "b")]),
    ]);
    let stream = TokioIo::new(client.call(crate::support::vip()).await);
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), stream);
    let (mut sender, connection) = handshake.await.unwrap();
    let _connection = tokio::spawn(connection);
    for _ in 0..10 {
        let request = Request::post("http://web.shop/a.B/C")
            .header("content-type", "application/grpc")
            .body(Empty::<Bytes>::new())
            .unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let trailers = answer.into_body().collect().await.unwrap();
        let trailers = trailers.trailers().unwrap();
        assert!(!trailers.contains_key("weft-load"), "{trailers:?}");
    }
    assert_eq!(near_asked.load(Relaxed), 2);
    assert_eq!(far_asked.load(Relaxed), 8);
}

/// Only a proxy of the mesh may report load, and no report exceeds its maximum.
#[tokio::test]
async fn invalid_or_forged_loads_are_ignored_and_invalid_counted() {
    const FORGED: &str =
        "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nweft-load: 100\r\nweft-load: x\r\n\r\nok";
    const NONSENSE: &str = "HTTP/1.1 200 OK\r\ncontent-length: 2\r\nendpoint-load-metrics: TEXT cpu_utilization=1e999\r\n\r\nok";
    for (answer, unreadable) in [(FORGED, 0.0), (NONSENSE, 20.0), (OK, 0.0)] {
        let (client, server, apps) = zones(answer).await;
        assert_eq!(request_count(&client, &apps, 20).await, [20, 0]);
        assert_eq!(sum(&client, UNREADABLE, &[]), 0.0);
        assert_eq!(sum(&server, UNREADABLE, &[]), unreadable, "{answer}");
        // Without a proxy in front of it.
        let ports = [(apps[0].port, "a"), (apps[1].port, "b")];
        client.set(vec![near_by(&server, None, &ports)]);
        assert_eq!(request_count(&client, &apps, 20).await, [20, 0]);
        assert_eq!(sum(&client, UNREADABLE, &[]), 0.0);
    }
}

#[tokio::test]
async fn caller_uses_its_subset_once_position_is_known() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let mut apps = Vec::new();
    for _ in 0..6 {
        apps.push(App::new(server.ip, OK).await);
    }
    super::answers::served_by(&client, &server, &apps.iter().collect::<Vec<_>>());
    client.set(vec![policy_of(&EffectivePolicy {
        balance: whole(Balance {
            subset: Subset::Count(2),
            ..Balance::DEFAULT
        }),
        ..EffectivePolicy::default()
    })]);
    let position = |index| {
        let position = v1::Place {
            index,
            peers: 3,
            zone_index: 0,
            zone_peers: 1,
        };
        let content = v1::resource::Content::Place(position);
        resource(wire::names::PLACE, content)
    };
    let used = async || {
        let before: Vec<usize> = apps.iter().map(App::request_count).collect();
        for _ in 0..40 {
            assert_eq!(ask(&client, "GET", "", "").await.0, 200);
        }
        let after = apps.iter().map(App::request_count).zip(before);
        let used = after.enumerate().filter(|(_, (now, then))| now > then);
        used.map(|(at, _)| at).collect::<BTreeSet<_>>()
    };
    assert!(used().await.len() > 2, "no position received");
    let mut all = BTreeSet::new();
    for index in 0..3 {
        client.set(vec![position(index)]);
        let part = used().await;
        // An endpoint that was slow once may be skipped for a while.
        assert!((1..=2).contains(&part.len()), "{index}: {part:?}");
        all.extend(part);
    }
    assert!(all.len() >= 4, "each has its own: {all:?}");
    let nacks = client.try_set(vec![position(3)]);
    assert_eq!(nacks[0].reason, "3 is no place among 3 proxies");
    assert!(used().await.len() <= 2, "the last good one holds");
    client.replace(wire::names::PLACE, Vec::new());
    assert!(used().await.len() > 2);
}
