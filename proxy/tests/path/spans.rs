//! Spans of calls that did not simply succeed: retried, refused, late, cancelled by their callers,
//! upgraded.
//!
//! Claims: observe-100, observe-101

use std::net::SocketAddr;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::answers::{OK, SILENCE, UNAVAILABLE, ask};
use super::collector::{CLIENT, SERVER, export, grpc, hex, text};
use super::deadlines::{SWITCHED, fleet};
use super::names::routes;
use super::shown::{self, Does, serve};
use super::tracing::{ALL, until};
use crate::support::{Pod, external, get, listening, pair, rule, tracing, vip};

/// This pod records all traces and sends its spans to this collector.
fn record(pod: &Pod, collector: SocketAddr) {
    let url = format!("http://{collector}");
    let telemetry = tracing(&url, ALL, &["tracecontext"]);
    pod.set(vec![external(collector), telemetry]);
    export(pod);
}

fn attributes_of(span: &Span, keys: [&str; 3]) -> [Option<String>; 3] {
    keys.map(|key| text(span, key))
}

const STATUS: &str = "http.response.status_code";
const REASON: &str = "weft.reason";
const ERROR: &str = "error.type";

// Claims: R7
#[tokio::test]
async fn retried_call_has_one_span_parenting_each_attempt() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let (client, _server, apps) = fleet([UNAVAILABLE, OK]).await;
    record(&client, addr);
    let mut calls = 0;
    while apps[0].request_count() == 0 {
        let (status, answer) = ask(&client, "GET", "", "").await;
        assert_eq!(status, 200, "{answer}");
        calls += 1;
        assert!(calls < 200, "the failing one must be tried");
    }
    let spans = got.wait(calls).await;
    let attempts = |span: &&Span| text(span, "weft.attempts").as_deref() == Some("2");
    let twice: Vec<&Span> = spans.iter().filter(attempts).collect();
    assert_eq!(twice.len(), 1, "{spans:#?}");
    assert_eq!(text(twice[0], STATUS).as_deref(), Some("200"));
    let (trace, own) = (hex(&twice[0].trace_id), hex(&twice[0].span_id));
    let parent = format!("traceparent: 00-{trace}-{own}-01");
    for app in &apps {
        let heads = app.heads();
        let named = heads.iter().filter(|head| head.contains(&parent));
        assert_eq!(named.count(), 1, "{heads:#?}");
    }
}

#[tokio::test]
async fn refused_call_has_its_reason_on_both_sides() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let (client, server, apps) = fleet([OK]).await;
    for pod in [&client, &server] {
        record(pod, addr);
    }
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    assert_eq!(ask(&client, "GET", "", "").await.0, 403);
    assert_eq!(apps[0].request_count(), 0);
    let spans = got.wait(2).await;
    let of_kind = |kind| spans.iter().find(|span| span.kind == kind).unwrap();
    let (called, served) = (of_kind(CLIENT), of_kind(SERVER));
    assert_eq!(served.parent_span_id, called.span_id);
    for span in [called, served] {
        let expected = ["403", "not-allowed", "not-allowed"].map(|text| Some(text.to_owned()));
        assert_eq!(
            attributes_of(span, [STATUS, REASON, ERROR]),
            expected,
            "{span:#?}"
        );
    }
}

#[tokio::test]
async fn served_call_span_has_route_and_allowing_rule() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let (client, server, _apps) = fleet([OK]).await;
    for pod in [&client, &server] {
        record(pod, addr);
    }
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![
        routes(&[("cart", "item", "/items/[0-9]+$")]),
        rule("t", "web", None, Some(&["/items", "/else"])),
    ]);
    for path in ["/items/7", "/else"] {
        assert_eq!(get(client.call(vip()).await, path, "").await.0, 200);
    }
    let spans = got.wait(4).await;
    let of_kind = |kind| {
        let spans = spans.iter().filter(move |span| span.kind == kind);
        let mut attributes: Vec<_> = spans
            .map(|span| (span.name.clone(), text(span, "http.route")))
            .collect();
        attributes.sort();
        attributes
    };
    let plain = ("GET".to_owned(), None);
    let routed = ("GET cart/item".to_owned(), Some("cart/item".to_owned()));
    assert_eq!(of_kind(SERVER), [plain.clone(), routed]);
    // The caller's proxy does not know the route.
    assert_eq!(of_kind(CLIENT), [plain.clone(), plain]);
    for span in spans.iter().filter(|span| span.kind == SERVER) {
        let target = text(span, "weft.target");
        assert_eq!(target.as_deref(), Some("TrafficTarget shop/t"), "{span:#?}");
    }
}

#[tokio::test]
async fn a_late_call_is_an_error() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let (client, _server, _apps) = fleet([SILENCE]).await;
    record(&client, addr);
    let status = ask(&client, "GET", "weft-timeout: 300ms\r\n", "").await.0;
    assert_eq!(status, 504);
    let late = got.wait(1).await.remove(0);
    let expected = ["504", "deadline", "deadline"].map(|text| Some(text.to_owned()));
    assert_eq!(attributes_of(&late, [STATUS, REASON, ERROR]), expected);
    assert!(lasted(&late) >= Duration::from_millis(290), "{late:#?}");
}

#[tokio::test]
async fn a_call_that_its_caller_left_is_no_error() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let request_count = serve(listening(&client, &server).await, Does::Hangs);
    record(&client, addr);
    let mut sender = shown::grpc(&client).await;
    let answer = tokio::spawn(sender.send_request(shown::call()));
    until("it is asked", || request_count.load(Relaxed) == 1).await;
    answer.abort();
    let left = got.wait(1).await.remove(0);
    let expected = [None, Some("cancelled".to_owned()), None];
    assert_eq!(attributes_of(&left, [STATUS, REASON, ERROR]), expected);
    assert_eq!(left.status, None);
}

#[tokio::test]
async fn span_of_upgraded_connection_lasts_until_it_closes() {
    const OPEN: Duration = Duration::from_millis(400);
    let (addr, got) = grpc("127.0.0.1:0").await;
    let (client, _server, _apps) = fleet([SWITCHED]).await;
    record(&client, addr);
    let mut stream = client.call(vip()).await;
    let request = b"GET /ws HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\n\
                    Upgrade: websocket\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut head = vec![0; 1024];
    let count = stream.read(&mut head).await.unwrap();
    assert!(head[..count].starts_with(b"HTTP/1.1 101"));
    tokio::time::sleep(OPEN).await;
    drop(stream);
    let span = got.wait(1).await.remove(0);
    assert_eq!(text(&span, STATUS).as_deref(), Some("101"));
    assert!(lasted(&span) >= OPEN, "{span:#?}");
}

fn lasted(span: &Span) -> Duration {
    Duration::from_nanos(span.end_time_unix_nano - span.start_time_unix_nano)
}
