//! Metrics and reports of a call, on both sides.
//!
//! Claims: attack-50, attack-76, calls-44, observe-92

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use crate::support::{
    Pod, endpoint, endpoints, get, http_app, id, pair, raw, resource, rule, service, split, vip,
};

/// Sum of a pod's samples whose line contains all of `parts`.
pub(crate) fn sum(pod: &Pod, name: &str, parts: &[&str]) -> f64 {
    pod.metrics()
        .lines()
        .filter(|line| line.starts_with(&format!("{name}{{")))
        .filter(|line| parts.iter().all(|part| line.contains(part)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}

const REQUESTS: &str = "weft_requests_total";
pub(super) const CANCELLED: &str = "weft_requests_cancelled_total";
const ATTEMPTS: &str = "weft_attempts_total";
const GOOD: &str = "success=\"true\"";
const BAD: &str = "success=\"false\"";

#[tokio::test]
async fn mesh_refusal_counts_as_failure_on_both_sides() {
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

/// An application that reads and never responds; counts the heads that it saw.
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

// Claims: R8, observability-2
#[tokio::test]
async fn request_counts_once_as_success_failure_or_cancelled() {
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
        let (port, request_count) = hanging(&server).await;
        client.reaches(&server, port);
        let request = http::Request::get("http://web.shop/slow")
            .body(http_body_util::Empty::<hyper::body::Bytes>::new())
            .unwrap();
        let answer = tokio::spawn(sender.send_request(request));
        let seen = "the application must see the request";
        soon(&server, seen, || *request_count.lock() == 1).await;
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
        // No caller waited for these responses, so they have no latency.
        let counted = sum(pod, "weft_request_duration_seconds_count", &[side]);
        assert_eq!(counted, 1.0 + bad, "{}", pod.metrics());
    }
    // The results of attempts whose callers left are unknown.
    assert_eq!(sum(&client, ATTEMPTS, &[GOOD]), 1.0, "{}", client.metrics());
    assert_eq!(sum(&client, ATTEMPTS, &[BAD]), 1.0, "{}", client.metrics());
    assert!(!connection.is_finished(), "one stream ended, no connection");
}

/// As over HTTP/1.1, where the proxy first waits for a caller that has only closed its sending
/// side.
#[tokio::test]
async fn http1_caller_reset_cancels_but_half_close_waits() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let (port, request_count) = hanging(&server).await;
    client.reaches(&server, port);
    let mut streams = Vec::new();
    for nth in 1..=2 {
        let mut stream = client.call(vip()).await;
        let head = b"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n";
        stream.write_all(head).await.unwrap();
        soon(&server, "it is asked", || *request_count.lock() == nth).await;
        streams.push(stream);
    }
    let mut waits = streams.pop().unwrap();
    let gone = streams.pop().unwrap();
    let linger = socket2::SockRef::from(&gone).set_linger(Some(Duration::ZERO));
    linger.unwrap();
    let left = Instant::now();
    drop(gone);
    for (pod, side) in [(&client, "outbound"), (&server, "inbound")] {
        soon(pod, "who left is counted", || {
            sum(pod, CANCELLED, &[side]) == 1.0
        })
        .await;
    }
    let took = left.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    // It is waited for, for two seconds.
    waits.shutdown().await.unwrap();
    let answer = tokio::time::timeout(Duration::from_millis(500), waits.read_u8()).await;
    assert!(answer.is_err(), "it waits: {answer:?}");
    assert_eq!(sum(&client, CANCELLED, &["outbound"]), 1.0);
}

/// A port of the pod where nothing listens.
async fn closed_port(pod: &Pod) -> u16 {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn attempts_count_per_backend_and_request_once() {
    let (client, server, port, _) = pair(Protocol::Http1).await;
    let dead = endpoint(server.ip, closed_port(&server).await, None);
    let alive = endpoint(server.ip, port, Some("api"));
    client.set(vec![endpoints("api", vec![dead, alive])]);
    let mut request_count = 0.0;
    while sum(&client, ATTEMPTS, &[BAD]) == 0.0 {
        assert!(
            request_count < 100.0,
            "the dead endpoint must be tried: {}",
            client.metrics()
        );
        assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
        request_count += 1.0;
    }
    // Another endpoint made good what the dead one failed.
    assert_eq!(
        sum(&client, REQUESTS, &[GOOD]),
        request_count,
        "{}",
        client.metrics()
    );
    assert_eq!(sum(&client, REQUESTS, &[BAD]), 0.0);
    let of_api = |success| {
        let labels = ["service=\"shop/api\"", "backend=\"shop/api\"", success];
        sum(&client, ATTEMPTS, &labels)
    };
    assert_eq!(
        (of_api(GOOD), of_api(BAD)),
        (request_count, 1.0),
        "{}",
        client.metrics()
    );
    assert_eq!(
        sum(&server, ATTEMPTS, &[]),
        0.0,
        "the caller's proxy counts them"
    );
}

#[tokio::test]
async fn chosen_backend_counts_failures_unlike_own_proxys_refusals() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let bad_at = |backend: &str| {
        let backend = format!("backend=\"shop/{backend}\"");
        sum(&client, ATTEMPTS, &[&backend, BAD])
    };
    let status = |path: &'static str| async { get(client.call(vip()).await, path, "").await.0 };
    // The application's own failure, and what its proxy refuses.
    let port = answering(&server, "HTTP/1.1 500 No\r\ncontent-length: 0\r\n\r\n").await;
    client.reaches(&server, port);
    assert_eq!(status("/").await, 500);
    assert_eq!(bad_at("api"), 1.0);
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    assert_eq!(status("/").await, 403);
    assert_eq!(bad_at("api"), 2.0);
    // Nothing that could be tried.
    client.set(vec![endpoints("api", Vec::new())]);
    assert_eq!(status("/").await, 503);
    assert_eq!(bad_at("api"), 3.0, "{}", client.metrics());
    client.set(vec![endpoints("canary", Vec::new())]);
    let canary = vec![split("roll", &[("canary", 1)])];
    client.set(service("api", vip().ip(), Protocol::Http1, canary));
    assert_eq!(status("/").await, 503);
    assert_eq!(
        (bad_at("canary"), bad_at("api")),
        (1.0, 3.0),
        "{}",
        client.metrics()
    );
    // No backend is chosen.
    let none = vec![split("roll", &[("canary", 0)])];
    client.set(service("api", vip().ip(), Protocol::Http1, none));
    assert_eq!(status("/").await, 503);
    let mut stream = client.call(vip()).await;
    let two_hosts = b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\nConnection: close\r\n\r\n";
    let answer = raw(&mut stream, two_hosts, Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    assert_eq!(sum(&client, REQUESTS, &[BAD]), 6.0, "{}", client.metrics());
    assert_eq!(sum(&client, ATTEMPTS, &[]), 4.0, "{}", client.metrics());
}

/// Edges that the pod has reported to its controller since it started.
pub(crate) async fn reported_edges(pod: &Pod) -> Vec<v1::Edge> {
    let reports = reports(pod).await.into_iter();
    reports.flat_map(|report| report.edges).collect()
}

/// The same, interval by interval.
pub(crate) async fn reports(pod: &Pod) -> Vec<v1::Report> {
    let telemetry = Arc::clone(&pod.proxy.telemetry);
    telemetry.reports.leave();
    let (stream, mut reports) = tokio::sync::mpsc::channel(8);
    let feeding = tokio::spawn(async move { telemetry.reports.feed(stream).await });
    // A later report replaces one of the same interval.
    let mut slots = std::collections::BTreeMap::new();
    let patience = Duration::from_millis(100);
    while let Ok(Some(report)) = tokio::time::timeout(patience, reports.recv()).await {
        slots.insert(report.slot, report);
    }
    feeding.abort();
    slots.into_values().collect()
}

#[tokio::test]
async fn report_counts_attempt_only_with_chosen_backend() {
    let (client, _server, _, _) = pair(Protocol::Http1).await;
    client.set(vec![endpoints("api", Vec::new())]);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 503);
    client.set(vec![endpoints("canary", Vec::new())]);
    let none = vec![split("roll", &[("canary", 0)])];
    client.set(service("api", vip().ip(), Protocol::Http1, none));
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 503);
    let edges = reported_edges(&client).await;
    for (reason, attempts) in [("no-endpoint", 1), ("no-backend", 0)] {
        let named = |edge: &&v1::Edge| edge.reasons.iter().any(|one| one.reason == reason);
        let reported: Vec<_> = edges
            .iter()
            .filter(named)
            .map(|edge| (edge.failure, edge.attempts, edge.attempt_failures))
            .collect();
        assert_eq!(reported, [(1, Some(attempts), attempts)], "{edges:?}");
    }
}

#[tokio::test]
async fn open_connection_reports_bytes_and_ends_as_success() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
    client.reaches(&server, listener.local_addr().unwrap().port());
    let mut stream = client.call(vip()).await;
    stream.write_all(b"\x00binary").await.unwrap();
    let (mut served, _) = listener.accept().await.unwrap();
    served.read_exact(&mut [0; 7]).await.unwrap();
    for (pod, side) in [(&client, v1::Side::Client), (&server, v1::Side::Server)] {
        let edges = reported_edges(pod).await;
        let [edge] = &edges[..] else {
            panic!("{edges:?}");
        };
        assert_eq!((edge.side(), edge.protocol()), (side, Protocol::Opaque));
        assert_eq!(edge.security(), v1::Security::Mtls);
        assert_eq!((edge.opened, edge.open), (1, 1), "{edge:?}");
        assert_eq!((edge.sent, edge.received), (7, 0), "{edge:?}");
        assert_eq!((edge.success, edge.failure), (0, 0), "{edge:?}");
    }
    drop((stream, served));
    for pod in [&client, &server] {
        let tcp = "weft_tcp_connections_total";
        soon(pod, "the end must be counted", || {
            sum(pod, tcp, &["mtls"]) == 1.0
        })
        .await;
        let edges = reported_edges(pod).await;
        let all = |of: fn(&v1::Edge) -> u64| edges.iter().map(of).sum::<u64>();
        assert_eq!(all(|edge| edge.opened), 1, "{edges:?}");
        assert_eq!(all(|edge| edge.success + edge.failure), 1, "{edges:?}");
        assert_eq!(edges.last().unwrap().open, 0, "{edges:?}");
        let attempts = edges.last().unwrap().attempts.is_some();
        assert_eq!(attempts, edges[0].side() == v1::Side::Client);
    }
}

#[tokio::test]
async fn report_includes_open_requests_caller_faults_and_reasons() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let port = answering(&server, "HTTP/1.1 404 No\r\ncontent-length: 0\r\n\r\n").await;
    client.reaches(&server, port);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 404);
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "web", None, Some(&["/slow"]))]);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 403);
    let (port, request_count) = hanging(&server).await;
    client.reaches(&server, port);
    let mut waiting = client.call(vip()).await;
    let request = b"GET /slow HTTP/1.1\r\nHost: h\r\n\r\n";
    waiting.write_all(request).await.unwrap();
    soon(&server, "the application must see it", || {
        *request_count.lock() == 1
    })
    .await;
    for pod in [&client, &server] {
        let edges = reported_edges(pod).await;
        let all = |of: fn(&v1::Edge) -> u64| edges.iter().map(of).sum::<u64>();
        assert_eq!(all(|edge| edge.success), 1, "{edges:?}");
        assert_eq!(all(|edge| edge.client_errors), 1, "{edges:?}");
        assert_eq!(all(|edge| edge.failure), 1, "{edges:?}");
        let reasons: Vec<_> = edges.iter().flat_map(|edge| &edge.reasons).collect();
        assert_eq!(reasons.len(), 1, "{edges:?}");
        assert_eq!((&*reasons[0].reason, reasons[0].calls), ("not-allowed", 1));
        assert!(edges.iter().any(|edge| edge.open == 1), "{edges:?}");
        assert!(
            edges.iter().all(|edge| edge.protocol() == Protocol::Http1),
            "{edges:?}"
        );
        // The server alone knows what allowed a call: here the one that waits.
        let rules: Vec<_> = edges.iter().flat_map(|edge| &edge.rules).collect();
        let allowed = pod.ip == server.ip;
        assert_eq!(rules.len(), usize::from(allowed), "{edges:?}");
        assert!(rules.iter().all(|rule| *rule == "shop/t"), "{edges:?}");
    }
}

/// Ports that are neither declared nor served.
const SCANNED: std::ops::Range<u16> = 20_000..20_300;

// Claims: B4
#[tokio::test]
async fn port_scan_makes_one_series_beside_known_ports() {
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
