//! Tracing: which requests are recorded, which headers they carry from here on, and how spans
//! reach their collector.
//!
//! Claims: observe-91, observe-92, observe-94, observe-99

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use opentelemetry::propagation::TextMapPropagator;
use opentelemetry::trace::{SpanContext, TraceContextExt};
use opentelemetry_sdk::propagation::TraceContextPropagator;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use wire::v1::{Enforcement, MtlsMode, Protocol};

use super::answers::sum;
use super::collector::{CLIENT, SERVER, export, grpc, hex, http1, text};
use crate::support::{
    Pod, endpoint, endpoints, external, get, logging, pair, raw, rule, service, tracing, vip,
};

pub(super) const ALL: u32 = 1_000_000;

/// An application that keeps the heads of its requests.
async fn keeping_heads(pod: &Pod) -> (u16, Arc<Mutex<Vec<String>>>) {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::<Mutex<Vec<String>>>::default();
    let log = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                if stream.read_buf(&mut head).await.unwrap() == 0 {
                    break;
                }
            }
            log.lock().push(String::from_utf8_lossy(&head).into_owned());
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    });
    (port, heads)
}

/// A header of the newest request.
fn header(heads: &Mutex<Vec<String>>, name: &str) -> Option<String> {
    let heads = heads.lock();
    heads.last()?.lines().find_map(|line| {
        let (field, value) = line.split_once(':')?;
        field
            .eq_ignore_ascii_case(name)
            .then(|| value.trim().to_owned())
    })
}

/// What an application's own tracer writes.
const OF_AN_APPLICATION: [(&str, &str); 4] = [
    (
        "traceparent",
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03",
    ),
    ("tracestate", "vendor=1 , other=b"),
    ("tracestate", "third=c"),
    ("baggage", "user=alice;x=1"),
];

// Claims: R7, observability-11
#[tokio::test]
async fn trace_headers_pass_unchanged_where_nothing_is_recorded() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let (port, heads) = keeping_heads(&server).await;
    let lines = OF_AN_APPLICATION.map(|(name, value)| format!("{name}: {value}"));
    for account in [Some("api"), None] {
        let at = endpoint(server.ip, port, account);
        client.set(vec![endpoints("api", vec![at])]);
        let own = format!("{}\r\n", lines.join("\r\n"));
        let (status, answer) = get(client.call(vip()).await, "/", &own).await;
        assert_eq!(status, 200, "{account:?}: {answer}");
        let head = heads.lock().pop().unwrap();
        for line in &lines {
            assert!(head.contains(line), "{account:?}: {line}\n{head}");
        }
    }
}

/// An application over HTTP/2 that gives away the headers of its requests.
async fn giving_headers(pod: &Pod) -> (u16, mpsc::Receiver<HeaderMap>) {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let (give, given) = mpsc::channel(8);
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let give = give.clone();
            tokio::spawn(async move {
                let Ok(mut connection) = h2::server::handshake(stream).await else {
                    return;
                };
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    let _ = give.send(request.into_parts().0.headers).await;
                    let _ = respond.send_response(http::Response::new(()), true);
                }
            });
        }
    });
    (port, given)
}

// Claims: R7, observability-11
#[tokio::test]
async fn trace_headers_pass_unchanged_over_http2() {
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let (port, mut given) = giving_headers(&server).await;
    for account in [Some("api"), None] {
        let at = endpoint(server.ip, port, account);
        client.set(vec![endpoints("api", vec![at])]);
        let stream = client.call(vip()).await;
        let (sender, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut request = http::Request::get("http://web.shop/");
        for (name, value) in OF_AN_APPLICATION {
            request = request.header(name, value);
        }
        let mut sender = sender.ready().await.unwrap();
        let pending = sender.send_request(request.body(()).unwrap(), true);
        let (answer, _) = pending.unwrap();
        assert_eq!(answer.await.unwrap().status(), 200, "{account:?}");
        let headers = given.recv().await.unwrap();
        for (name, _) in OF_AN_APPLICATION {
            let own = OF_AN_APPLICATION.iter().filter(|(own, _)| *own == name);
            let sent: Vec<&str> = own.map(|(_, value)| *value).collect();
            let came: Vec<&str> = headers
                .get_all(name)
                .iter()
                .map(|value| value.to_str().unwrap())
                .collect();
            assert_eq!(came, sent, "{account:?}, {name}");
        }
    }
}

/// Two pods, the second with an application that keeps heads, that both record all traces
/// and send their spans to a collector outside the mesh.
async fn traced(
    collector: SocketAddr,
    url: &str,
    inject: &[&str],
) -> (Pod, Pod, Arc<Mutex<Vec<String>>>) {
    let (client, server, heads, _) = traced_at(collector, url, inject).await;
    (client, server, heads)
}

/// The same, and the port of the application.
async fn traced_at(
    collector: SocketAddr,
    url: &str,
    inject: &[&str],
) -> (Pod, Pod, Arc<Mutex<Vec<String>>>, u16) {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let (port, heads) = keeping_heads(&server).await;
    client.reaches(&server, port);
    for pod in [&client, &server] {
        pod.set(vec![external(collector), tracing(url, ALL, inject)]);
        export(pod);
    }
    (client, server, heads, port)
}

/// What OpenTelemetry's own propagator makes of a `traceparent`.
fn as_applications_read(parent: &str) -> SpanContext {
    let headers = HashMap::from([("traceparent".to_owned(), parent.to_owned())]);
    let context = TraceContextPropagator::new().extract(&headers);
    context.span().span_context().clone()
}

pub(super) const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
pub(super) const PARENT: &str = "b7ad6b7169203331";

/// The application's span, that of its proxy, and that of the called proxy: each the parent of the
/// next. The called application receives the last one.
// Claims: observability-11
#[tokio::test]
async fn call_spans_form_one_chain_between_applications() {
    for over_grpc in [true, false] {
        let (addr, got) = if over_grpc {
            grpc("127.0.0.1:0").await
        } else {
            http1().await
        };
        let path = if over_grpc { "" } else { "/v1/traces" };
        let url = format!("http://{addr}{path}");
        let (client, _server, heads) = traced(addr, &url, &["tracecontext"]).await;
        let came = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: vendor=1\r\n");
        let status = get(client.call(vip()).await, "/items/7?secret=1", &came)
            .await
            .0;
        assert_eq!(status, 200);
        let spans = got.wait(2).await;
        let of_kind = |kind| spans.iter().find(|span| span.kind == kind).unwrap();
        let (called, served) = (of_kind(CLIENT), of_kind(SERVER));
        assert_eq!(hex(&called.trace_id), TRACE);
        assert_eq!(hex(&served.trace_id), TRACE);
        assert_eq!(hex(&called.parent_span_id), PARENT);
        assert_eq!(served.parent_span_id, called.span_id);
        let sent = header(&heads, "traceparent").unwrap();
        assert_eq!(sent, format!("00-{TRACE}-{}-01", hex(&served.span_id)));
        let read = as_applications_read(&sent);
        assert_eq!(read.trace_id().to_bytes()[..], served.trace_id);
        assert_eq!(read.span_id().to_bytes()[..], served.span_id);
        assert!(read.is_sampled() && read.is_remote());
        assert_eq!(header(&heads, "tracestate").as_deref(), Some("vendor=1"));
        for (span, key, expected) in [
            (called, "weft.service", "shop/api"),
            (called, "weft.attempts", "1"),
            (called, "url.path", "/items/7"),
            (called, "http.response.status_code", "200"),
            (served, "weft.peer", "shop/web"),
            (served, "server.address", "web.shop"),
        ] {
            assert_eq!(text(span, key).as_deref(), Some(expected), "{key}");
        }
        assert_eq!(called.name, "GET");
        assert!(called.start_time_unix_nano <= served.start_time_unix_nano);
        assert!(served.end_time_unix_nano >= served.start_time_unix_nano);
        // Of the workload, as the controller names it; and no span of the way to the collector.
        let first = got.requests.lock()[0].resource_spans[0].clone();
        let resource = first.resource.unwrap();
        assert_eq!(resource.attributes[0].key, "service.name");
        let scope = first.scope_spans[0].scope.clone().unwrap();
        assert_eq!(scope.name, "weft-proxy");
        assert!(
            first
                .schema_url
                .starts_with("https://opentelemetry.io/schemas/")
        );
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert_eq!(got.spans().len(), 2, "{:#?}", got.spans());
        for head in got.heads.lock().iter() {
            assert!(
                head.contains("-00\""),
                "the decision of the way there: {head}"
            );
        }
    }
}

// Claims: observability-11
#[tokio::test]
async fn b3_headers_keep_their_single_or_multiple_form() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let url = format!("http://{addr}");
    let (client, _server, heads) = traced(addr, &url, &["tracecontext"]).await;
    let short = &TRACE[16..];
    for (came, spans) in [
        (format!("b3: {short}-{PARENT}-1\r\n"), 2),
        (
            format!(
                "X-B3-TraceId: {TRACE}\r\nX-B3-SpanId: {PARENT}\r\nX-B3-Sampled: 1\r\n\
                 traceparent: damaged\r\n"
            ),
            4,
        ),
    ] {
        assert_eq!(get(client.call(vip()).await, "/", &came).await.0, 200);
        let all = got.wait(spans).await;
        let newest = &all[spans - 2..];
        let served = newest.iter().find(|span| span.kind == SERVER).unwrap();
        let called = newest.iter().find(|span| span.kind == CLIENT).unwrap();
        assert_eq!(hex(&called.parent_span_id), PARENT);
        assert_eq!(served.parent_span_id, called.span_id);
        let (own, parent) = (hex(&served.span_id), hex(&called.span_id));
        if spans == 2 {
            assert_eq!(hex(&served.trace_id), format!("{:0>32}", short));
            let b3 = format!("{short}-{own}-1-{parent}");
            assert_eq!(header(&heads, "b3"), Some(b3));
            assert_eq!(header(&heads, "traceparent"), None);
        } else {
            assert_eq!(header(&heads, "x-b3-traceid").as_deref(), Some(TRACE));
            assert_eq!(header(&heads, "x-b3-spanid"), Some(own));
            assert_eq!(header(&heads, "x-b3-parentspanid"), Some(parent));
            assert_eq!(header(&heads, "x-b3-sampled").as_deref(), Some("1"));
            assert_eq!(header(&heads, "traceparent").as_deref(), Some("damaged"));
        }
    }
}

/// Of a trace that begins at the proxy the decision is drawn once; one that came holds.
#[tokio::test]
async fn a_verdict_holds_from_where_the_trace_began() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let url = format!("http://{addr}");
    let (client, server, heads) = traced(addr, &url, &["tracecontext", "b3"]).await;
    // Headers of an unrecorded trace pass byte for byte.
    let unsampled = format!("00-{TRACE}-{PARENT}-00");
    let came = format!("traceparent: {unsampled}\r\n");
    assert_eq!(get(client.call(vip()).await, "/", &came).await.0, 200);
    assert_eq!(header(&heads, "traceparent"), Some(unsampled));
    assert_eq!(header(&heads, "b3"), None);
    // The calling proxy is the root and does not sample; the called one, which would, follows.
    client.set(vec![tracing(&url, 0, &["tracecontext", "b3"])]);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    let sent = header(&heads, "traceparent").unwrap();
    assert!(sent.starts_with("00-") && sent.ends_with("-00"), "{sent}");
    assert!(header(&heads, "b3").unwrap().ends_with("-0"));
    // And the other way round: what came sampled is recorded by both.
    client.set(vec![tracing(&url, ALL, &["b3multi"])]);
    server.set(vec![tracing(&url, 0, &["b3multi"])]);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    let spans = got.wait(2).await;
    assert_eq!(spans[0].trace_id, spans[1].trace_id);
    let sent = header(&heads, "x-b3-traceid").unwrap();
    assert_eq!(sent, hex(&spans[0].trace_id));
    assert_eq!(header(&heads, "traceparent"), None);
    // Off again: headers pass as they came, and none are added.
    for pod in [&client, &server] {
        pod.replace(wire::names::TELEMETRY, Vec::new());
    }
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    assert_eq!(header(&heads, "x-b3-traceid"), None);
    assert_eq!(header(&heads, "traceparent"), None);
}

/// An unrecorded call reaches a peer without headers, and a pod without a proxy with the decision;
/// where the caller's proxy logs it, both sides know one trace.
#[tokio::test]
async fn unrecorded_trace_starts_where_call_arrives() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let url = format!("http://{addr}");
    let (client, server, heads, port) = traced_at(addr, &url, &["tracecontext"]).await;
    client.set(vec![tracing(&url, 0, &["tracecontext"])]);
    // The called proxy shows what came: it traces nothing, so it adds nothing.
    server.replace(wire::names::TELEMETRY, Vec::new());
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    assert_eq!(header(&heads, "traceparent"), None);
    // The called proxy passes the decision to its application, in its own formats.
    server.set(vec![tracing(&url, ALL, &["b3"])]);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    assert!(header(&heads, "b3").unwrap().ends_with("-0"));
    // A caller without a proxy has decided nothing.
    let plain = server.plain(port).await;
    assert_eq!(get(plain, "/", "").await.0, 200);
    assert!(header(&heads, "b3").unwrap().ends_with("-1"));
    // The caller's log line names the trace that the called application receives.
    client.set(vec![logging(&url, "otlp")]);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    until("the caller's line is there", || got.records().len() == 1).await;
    let sent = header(&heads, "traceparent").unwrap();
    assert_eq!(sent.get(3..35), Some(&*hex(&got.records()[0].trace_id)));
    client.set(vec![tracing(&url, 0, &["tracecontext"])]);
    // An application without a proxy gets the decision from the calling proxy.
    let (port, outside) = keeping_heads(&server).await;
    client.set(vec![endpoints(
        "api",
        vec![endpoint(server.ip, port, None)],
    )]);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    let sent = header(&outside, "traceparent").unwrap();
    assert!(as_applications_read(&sent).is_valid(), "{sent}");
    assert!(sent.ends_with("-00"), "{sent}");
}

/// Waits until this holds.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

const SPANS: &str = "weft_spans_total";
const DROPPED: &str = "weft_telemetry_dropped_total";

/// The collector is a Service of the mesh: its proxy gets the spans by mutual TLS, and refuses
/// callers without permission, which costs no request.
#[tokio::test]
async fn mesh_collector_gets_mutual_tls_and_denial_counts() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let (addr, got) = grpc((server.ip, 0)).await;
    let there = SocketAddr::from(([10, 96, 0, 90], 80));
    client.set(service("collector", there.ip(), Protocol::Grpc, Vec::new()));
    let at = endpoint(server.ip, addr.port(), Some("api"));
    client.set(vec![endpoints("collector", vec![at])]);
    client.set(vec![tracing(&format!("http://{there}"), ALL, &["b3"])]);
    export(&client);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    got.wait(1).await;
    until("the span is counted", || {
        sum(&client, SPANS, &["outcome=\"exported\""]) == 1.0
    })
    .await;
    let to_collector = [
        "service=\"shop/collector\"",
        "security=\"mtls\"",
        "success=\"true\"",
    ];
    until("the way there is mutual TLS", || {
        sum(&client, "weft_requests_total", &to_collector) == 1.0
    })
    .await;

    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/items"]))]);
    assert_eq!(get(client.call(vip()).await, "/items", "").await.0, 200);
    until("the refused span is counted", || {
        sum(&client, DROPPED, &["signal=\"spans\"", "reason=\"failed\""]) == 1.0
    })
    .await;
    assert_eq!(got.spans().len(), 1);
    let refused = ["service=\"shop/collector\"", "reason=\"not-allowed\""];
    until("the refusal is counted", || {
        sum(&client, "weft_requests_total", &refused) == 1.0
    })
    .await;
}

/// Nothing answers at the collector's address, and more spans come than may wait.
// Claims: observability-12
#[tokio::test]
async fn dead_collector_costs_no_request_and_counts_spans() {
    let (client, _server, _, _) = pair(Protocol::Http1).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    client.set(vec![
        external(addr),
        tracing(&format!("http://{addr}"), ALL, &["b3"]),
    ]);
    export(&client);
    const CALLS: usize = 3000;
    let request = "GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n".repeat(CALLS - 1)
        + "GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n";
    let mut stream = client.call(vip()).await;
    let answers = raw(&mut stream, request.as_bytes(), Duration::from_secs(60)).await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), CALLS);
    until("what found no room or was not taken is counted", || {
        sum(&client, DROPPED, &["reason=\"queue\""]) > 0.0
            && sum(&client, DROPPED, &["reason=\"failed\""]) > 0.0
    })
    .await;
    // With tracing off waiting spans are dropped, so that every span is accounted for.
    client.replace(wire::names::TELEMETRY, Vec::new());
    let dropped = || sum(&client, DROPPED, &["signal=\"spans\""]);
    until("none waits any more", || dropped() >= CALLS as f64).await;
    assert_eq!(dropped(), CALLS as f64, "some were counted twice");
    assert_eq!(sum(&client, SPANS, &["outcome=\"dropped\""]), CALLS as f64);
    assert_eq!(sum(&client, SPANS, &["outcome=\"exported\""]), 0.0);
}

/// Whatever a caller writes into these headers: its request is served, and the headers
/// that others beside it sent are none the worse.
#[tokio::test]
async fn hostile_trace_headers_affect_no_call() {
    let (addr, got) = grpc("127.0.0.1:0").await;
    let url = format!("http://{addr}");
    let (client, _server, heads) = traced(addr, &url, &["tracecontext"]).await;
    let long = "a".repeat(8000);
    let many = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n").repeat(50);
    for hostile in [
        format!("traceparent: {long}\r\n"),
        format!("traceparent: 01-{TRACE}-{PARENT}-01-{long}\r\n"),
        many,
        format!("b3: {long}\r\n"),
        format!("b3: {}\r\n", "-".repeat(8000)),
        format!("X-B3-TraceId: {long}\r\nX-B3-SpanId: {PARENT}\r\n"),
        "traceparent: \u{fc}\r\nb3: \u{1f600}\r\n".to_owned(),
        "X-B3-Sampled: maybe\r\nX-B3-Flags: 99999999999999999999\r\n".to_owned(),
    ] {
        let status = get(client.call(vip()).await, "/", &hostile).await.0;
        assert_eq!(status, 200, "{hostile:.60}");
        let sent = header(&heads, "traceparent").unwrap();
        assert_eq!(sent.len(), 55, "{sent:.80}");
    }
    let spans = got.wait(16).await;
    for span in &spans {
        assert_eq!((span.trace_id.len(), span.span_id.len()), (16, 8));
    }
}
