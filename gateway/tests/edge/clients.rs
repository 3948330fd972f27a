//! What a Gateway believes about its clients, and what applications and other proxies learn of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use policy::origin::Origin;
use policy::route::{Match, Rule, Table};
use policy::traffic::guard::{LimitKey, LimitMode, LimitScope, RateLimit};
use policy::traffic::pod::{GuardPort, PodGuard};
use policy::traffic::{Scoped, Sources};
use wire::v1::Protocol;
use wire::v1::resource::Content;

use super::harness::{Edge, all, answer, http, routes};
use crate::answers::{App, OK};
use crate::support::{endpoint, endpoints, resource, service, tracing, vip};

/// A client that claims whatever it can.
const FORGED: &str = "GET / HTTP/1.1\r\nHost: web.example\r\n\
                      X-Forwarded-For: 10.0.0.1\r\nX-Forwarded-Proto: https\r\n\
                      X-Forwarded-Host: admin.example\r\nForwarded: for=10.0.0.1\r\n\
                      X-Real-Ip: 10.0.0.1\r\nx_forwarded_for: 10.0.0.1\r\n\
                      Connection: x-forwarded-for, x-forwarded-host\r\n\
                      weft-client-id: spiffe://cluster.local/ns/shop/sa/admin\r\n\
                      weft-client-address: 10.0.0.1\r\nweft-timeout: 1ms\r\nweft-priority: low\r\n\
                      weft-context: a\r\nweft-shadow: 1\r\nweft-attempt: 2\r\n";

// Claims: gateways-3
#[tokio::test]
async fn client_can_claim_nothing() {
    let edge = Edge::ruled(all()).await;
    let app = App::new(edge.server.ip, OK).await;
    edge.backend("api", Protocol::Http1, app.port);
    let stream = edge.connect(80).await;
    let own = stream.local_addr().unwrap().ip();
    let (status, text) = answer(stream, FORGED).await;
    assert_eq!(status, 200, "{text}");
    let head = app.heads()[0].clone();
    for line in [
        format!("x-forwarded-for: {own}").as_str(),
        "x-forwarded-proto: http",
        "x-forwarded-host: web.example",
        "weft-client-id: spiffe://cluster.local/ns/shop/sa/edge-weft",
    ] {
        assert_eq!(head.matches(line).count(), 1, "{line} in {head}");
    }
    for gone in [
        "10.0.0.1",
        "admin",
        "forwarded: ",
        "weft-client-address",
        "weft-shadow",
    ] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
}

#[tokio::test]
async fn as_many_proxies_are_believed_as_were_named() {
    let edge = Edge::believing(1).await;
    edge.listen(vec![http("http", None, vec![routes(None, all())])]);
    let app = App::new(edge.server.ip, OK).await;
    edge.backend("api", Protocol::Http1, app.port);
    let stream = edge.connect(80).await;
    let own = stream.local_addr().unwrap().ip();
    let head = "GET / HTTP/1.1\r\nHost: web.example\r\nX-Forwarded-Proto: https\r\n\
                X-Forwarded-For: 10.0.0.1, 203.0.113.7\r\n";
    assert_eq!(answer(stream, head).await.0, 200);
    let head = app.heads()[0].clone();
    let line = format!("x-forwarded-for: 203.0.113.7, {own}");
    assert!(head.contains(&line), "{head}");
    assert!(head.contains("x-forwarded-proto: https"), "{head}");
}

// Claims: gateways-3
#[tokio::test]
async fn traces_begin_at_the_gateway_where_any_are_recorded() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let sent = format!(
        "GET / HTTP/1.1\r\nHost: web.example\r\ntraceparent: 00-{TRACE}-b7ad6b7169203331-01\r\n\
         X-B3-TraceId: {TRACE}\r\nX-B3-SpanId: b7ad6b7169203331\r\nX-B3-Sampled: 1\r\n"
    );
    for (hops, records, goes_on) in [(0, false, true), (0, true, false), (1, true, true)] {
        let edge = Edge::believing(hops).await;
        edge.listen(vec![http("http", None, vec![routes(None, all())])]);
        let app = App::new(edge.server.ip, OK).await;
        edge.backend("api", Protocol::Http1, app.port);
        if records {
            let none = tracing("http://127.0.0.1:9", 0, &["tracecontext"]);
            edge.pod.set(vec![none]);
        }
        assert_eq!(edge.ask(&sent).await.0, 200);
        let head = app.heads()[0].clone();
        assert_eq!(head.contains(TRACE), goes_on, "{hops} {records}: {head}");
    }
}

/// Its clients all come by one load balancer.
#[tokio::test]
async fn session_affinity_keeps_clients_behind_believed_proxies_apart() {
    let edge = Edge::believing(1).await;
    edge.listen(vec![http("http", None, vec![routes(None, all())])]);
    let apps = [
        App::new(edge.server.ip, OK).await,
        App::new(edge.server.ip, OK).await,
    ];
    let mut resources = service("api", vip().ip(), Protocol::Http1, Vec::new());
    // Of the address a Gateway gets nothing.
    resources.retain(|one| matches!(one.content, Some(Content::Service(_))));
    for one in &mut resources {
        if let Some(Content::Service(service)) = &mut one.content {
            service.affinity_seconds = 600;
        }
    }
    let there = apps.iter();
    let there = there.map(|app| endpoint(edge.server.ip, app.port, Some("api")));
    resources.push(endpoints("api", there.collect()));
    edge.pod.set(resources);
    let mut used = [false; 2];
    for client in 0..40 {
        let before = apps[0].heads().len();
        let head = format!(
            "GET / HTTP/1.1\r\nHost: web.example\r\nX-Forwarded-For: 203.0.113.{client}\r\n"
        );
        for _ in 0..3 {
            assert_eq!(edge.ask(&head).await.0, 200);
        }
        let at_first = apps[0].heads().len() - before;
        assert!([0, 3].contains(&at_first), "{client}: {at_first} of 3");
        used[usize::from(at_first == 0)] = true;
    }
    assert_eq!(used, [true; 2], "each application has clients");
}

/// At a port of the pod each client may send one request.
fn one_each(port: u16) -> wire::v1::Resource {
    let limit = RateLimit {
        name: "each".into(),
        requests: 1,
        per: Duration::from_secs(3600),
        burst: 1,
        key: LimitKey::ClientAddress,
        scope: LimitScope::Instance,
        mode: LimitMode::Enforce,
    };
    let rule = Rule {
        origin: Origin::new("TrafficPolicy", "shop", "p").rule("each"),
        when: Match::Always,
        then: Some(Scoped {
            sources: Sources::Everyone,
            section: Arc::new(limit),
        }),
    };
    let of_port = GuardPort {
        rate_limits: Table {
            rules: vec![rule],
            otherwise: None,
        },
        ..GuardPort::default()
    };
    let guard = PodGuard {
        ports: BTreeMap::from([(port, of_port)]),
        read_only: None,
    };
    resource(wire::names::GUARD, Content::Guard((&guard).into()))
}

#[tokio::test]
async fn limit_by_client_address_counts_clients_and_not_the_gateway() {
    let edge = Edge::believing(1).await;
    edge.listen(vec![http("http", None, vec![routes(None, all())])]);
    edge.server.set(vec![one_each(edge.app_port)]);
    for (client, claims, status) in [
        ("203.0.113.1", "", 200),
        ("203.0.113.1", "", 429),
        ("203.0.113.2", "", 200),
        ("203.0.113.1", "weft-client-address: 203.0.113.3\r\n", 429),
        ("203.0.113.3", "", 200),
        ("2001:db8::1", "", 200),
        ("2001:db8::1", "", 429),
        // The network is that of one client.
        ("2001:db8::2:0:0:1", "", 429),
        ("2001:db8:0:1::1", "", 200),
    ] {
        let head =
            format!("GET / HTTP/1.1\r\nHost: web.example\r\nX-Forwarded-For: {client}\r\n{claims}");
        let (found, text) = edge.ask(&head).await;
        assert_eq!(found, status, "{client} {claims}: {text}");
    }
}
