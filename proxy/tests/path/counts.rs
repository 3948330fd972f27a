//! What the proxies count of a call, on both sides.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use crate::support::{
    Pod, endpoint, endpoints, get, http_app, id, pair, raw, resource, rule, service, vip,
};

/// Samples of a pod's metrics whose line holds all of `parts`, added up.
fn sum(pod: &Pod, name: &str, parts: &[&str]) -> f64 {
    pod.metrics()
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")))
        .filter(|line| parts.iter().all(|part| line.contains(part)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

const REQUESTS: &str = "weft_requests_total";
const CANCELLED: &str = "weft_requests_cancelled_total";
const GOOD: &str = "success=\"true\"";
const BAD: &str = "success=\"false\"";

#[tokio::test]
async fn a_call_that_the_mesh_refuses_is_a_failure_on_both_sides() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/open"]))]);
    assert_eq!(get(client.call(vip()).await, "/closed", "").await.0, 403);
    assert_eq!(get(client.call(vip()).await, "/open", "").await.0, 200);
    for (pod, side) in [(&client, "outbound"), (&server, "inbound")] {
        let side = format!("direction=\"{side}\"");
        let refused = [&side[..], BAD, "reason=\"not-allowed\""];
        assert_eq!(sum(pod, REQUESTS, &refused), 1.0, "{}", pod.metrics());
        assert_eq!(sum(pod, REQUESTS, &[&side, GOOD]), 1.0);
    }
}

#[tokio::test]
async fn an_applications_own_refusal_is_a_success() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let port = answering(&server, "HTTP/1.1 403 No\r\ncontent-length: 0\r\n\r\n").await;
    client.reaches(&server, port);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 403);
    for pod in [&client, &server] {
        assert_eq!(sum(pod, REQUESTS, &[GOOD, "status=\"403\""]), 1.0);
        assert_eq!(sum(pod, REQUESTS, &[BAD]), 0.0);
    }
}

/// Answers every connection once with these bytes.
async fn answering(pod: &Pod, answer: &'static str) -> u16 {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut head = [0; 4096];
                while stream.read(&mut head).await.is_ok_and(|count| count > 0) {
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            });
        }
    });
    port
}

/// An application that reads and never answers; tells how many heads it saw.
async fn hanging(pod: &Pod) -> (u16, Arc<Mutex<usize>>) {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let seen = Arc::new(Mutex::new(0));
    let log = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let log = Arc::clone(&log);
            tokio::spawn(async move {
                let mut bytes = [0; 4096];
                if stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {
                    *log.lock() += 1;
                }
                while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
            });
        }
    });
    (port, seen)
}

/// Waits for what is counted a moment later.
async fn soon(pod: &Pod, what: &str, holds: impl Fn() -> bool) {
    let started = Instant::now();
    while !holds() {
        let late = started.elapsed() > Duration::from_secs(5);
        assert!(!late, "{what}: {}", pod.metrics());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn every_request_is_a_success_a_failure_or_cancelled_and_only_one_of_them() {
    const LEFT: usize = 3;
    let (client, server, _, _) = pair(Protocol::Http2).await;
    let (mut sender, connection) = hyper::client::conn::http2::handshake(
        hyper_util::rt::TokioExecutor::new(),
        hyper_util::rt::TokioIo::new(client.call(vip()).await),
    )
    .await
    .unwrap();
    let connection = tokio::spawn(connection);
    for _ in 0..LEFT {
        let (port, asked) = hanging(&server).await;
        client.reaches(&server, port);
        let request = http::Request::get("http://web.shop/slow")
            .body(http_body_util::Empty::<hyper::body::Bytes>::new())
            .unwrap();
        let answer = tokio::spawn(sender.send_request(request));
        let seen = "the application must see the request";
        soon(&server, seen, || *asked.lock() == 1).await;
        answer.abort();
    }
    let (port, _) = http_app(&server, "api").await;
    client.reaches(&server, port);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    client.set(vec![endpoints("api", Vec::new())]);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 503);
    for (pod, side, bad) in [(&client, "outbound", 1.0), (&server, "inbound", 0.0)] {
        soon(pod, "callers that left must be counted", || {
            sum(pod, CANCELLED, &[side, "security=\"mtls\""]) == LEFT as f64
        })
        .await;
        assert_eq!(sum(pod, REQUESTS, &[side, GOOD]), 1.0, "{}", pod.metrics());
        assert_eq!(sum(pod, REQUESTS, &[side, BAD]), bad, "{}", pod.metrics());
        // Nobody waited for these answers, so they have no latency.
        let counted = sum(pod, "weft_request_duration_seconds_count", &[side]);
        assert_eq!(counted, 1.0 + bad, "{}", pod.metrics());
    }
    assert!(!connection.is_finished(), "one stream ended, no connection");
}

/// Ports that nothing declares and nobody serves.
const SCANNED: std::ops::Range<u16> = 20_000..20_300;

#[tokio::test]
async fn a_scan_of_ports_is_one_series_and_ports_that_are_known_keep_theirs() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let (served, _) = http_app(&server, "api").await;
    let workload = v1::Workload {
        identity: id("api").as_str().to_owned(),
        enforcement: Enforcement::Open as i32,
        mtls: MtlsMode::Permissive as i32,
        // Declared, and nothing listens there.
        ports: vec![v1::PortProtocol {
            first: 19_000,
            last: 19_000,
            protocol: Protocol::Http1 as i32,
        }],
        ..v1::Workload::default()
    };
    server.set(vec![resource(
        wire::names::WORKLOAD,
        v1::resource::Content::Workload(workload),
    )]);
    for port in SCANNED.chain([19_000]) {
        assert_eq!(
            get(server.plain(port).await, "/", "").await.0,
            503,
            "{port}"
        );
    }
    assert_eq!(get(server.plain(served).await, "/", "").await.0, 200);
    let scanned = SCANNED.len() as f64;
    let of = |port: &str| sum(&server, REQUESTS, &[&format!("port=\"{port}\"")]);
    assert_eq!(of("other"), scanned, "{}", server.metrics());
    assert_eq!(of("19000"), 1.0, "a declared port keeps its label");
    assert_eq!(of(&served.to_string()), 1.0, "a served port gets one");
    let families = [
        "weft_requests_total{",
        "weft_request_duration_seconds_count{",
    ];
    for family in families {
        let series = server.metrics().matches(family).count();
        assert_eq!(series, 3, "{family}");
    }
    // Outbound: a scan by the pod's own application, by pods' own addresses.
    for port in SCANNED.take(50) {
        let at = SocketAddr::new(server.ip, port);
        client.set(vec![resource(
            &wire::names::destination(at.ip(), port),
            v1::resource::Content::Destination(v1::Destination {
                target: Some(v1::destination::Target::Pod(v1::PodTarget {
                    endpoint: Some(endpoint(server.ip, port, Some("api"))),
                    ..v1::PodTarget::default()
                })),
            }),
        )]);
        assert_eq!(get(client.call(at).await, "/", "").await.0, 503);
    }
    assert_eq!(client.metrics().matches(families[0]).count(), 1);
    // Control: a Service's port is a label whatever comes of the call.
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    client.set(vec![endpoints("api", Vec::new())]);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 503);
    assert_eq!(sum(&client, REQUESTS, &["port=\"80\""]), 1.0);
}

#[tokio::test]
async fn headers_of_a_trace_pass_byte_for_byte() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let heads = Arc::new(Mutex::new(String::new()));
    let log = Arc::clone(&heads);
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut head = [0; 4096];
            let count = stream.read(&mut head).await.unwrap();
            *log.lock() = String::from_utf8_lossy(&head[..count]).into_owned();
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    });
    let trace = [
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03",
        "tracestate: vendor=1 , other=b",
        "tracestate: third=c",
        "baggage: user=alice;x=1",
    ];
    for meshed in [true, false] {
        client.set(vec![endpoints(
            "api",
            vec![endpoint(server.ip, port, meshed.then_some("api"))],
        )]);
        let request = format!(
            "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n{}\r\n\r\n",
            trace.join("\r\n")
        );
        let mut stream = client.call(vip()).await;
        let answer = raw(&mut stream, request.as_bytes(), Duration::from_secs(5)).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        for line in trace {
            assert!(heads.lock().contains(line), "{line}\n{}", heads.lock());
        }
    }
}
