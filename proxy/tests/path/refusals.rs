//! Every refusal increments one counter by one, whichever proxy refuses and however early.
//!
//! Claims: attack-54

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::Method;
use runtime::occupancy::Permit;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use weft_proxy::{MESH_PORT, serve_plain};
use wire::v1::{self, Enforcement, MtlsMode, Protocol};

use crate::path::mesh_port::{ask, peer};
use crate::path::tcp::echo;
use crate::support::{
    Authority, Pod, endpoint, endpoints, http_app, raw, resource, rule, service, split, vip,
};

/// Calls of this side that were counted, however they ended.
fn counted(pod: &Pod, side: &str) -> Vec<String> {
    let families = [
        "weft_requests_total{",
        "weft_requests_cancelled_total{",
        "weft_tcp_connections_total{",
    ];
    let metrics = pod.metrics();
    let side = format!("direction=\"{side}\"");
    let lines = metrics.lines().filter(|line| line.contains(&side));
    lines
        .filter(|line| families.iter().any(|family| line.starts_with(family)))
        .flat_map(|line| {
            let (series, count) = line.rsplit_once(' ').unwrap();
            vec![series.to_owned(); count.parse().unwrap()]
        })
        .collect()
}

/// Waits until `pod` has counted one more call than `before`, and checks that the count stays there
/// and has this reason.
async fn one_more(pod: &Pod, side: &str, before: &[String], reason: &str, case: &str) {
    let started = Instant::now();
    while counted(pod, side).len() == before.len() {
        let late = started.elapsed() > Duration::from_secs(5);
        assert!(!late, "{case}: not counted");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    // A second count would come with the end of the connection.
    tokio::time::sleep(Duration::from_millis(30)).await;
    let mut after = counted(pod, side);
    for series in before {
        let at = after.iter().position(|one| one == series);
        after.remove(at.expect("a counter does not go back"));
    }
    let reason = format!("reason=\"{reason}\"");
    assert!(after.len() == 1, "{case}: {after:?}");
    assert!(after[0].contains(&reason), "{case}: {after:?}");
}

pub(super) fn refused_heads() -> [(&'static str, String); 6] {
    let head = |lines: &str| format!("{lines}\r\nConnection: close\r\n\r\n");
    let long = "a".repeat(9000);
    [
        ("CONNECT", head("CONNECT h:80 HTTP/1.1\r\nHost: h:80")),
        (
            "a long target",
            head(&format!("GET /{long} HTTP/1.1\r\nHost: h")),
        ),
        ("two hosts", head("GET / HTTP/1.1\r\nHost: a\r\nHost: b")),
        ("no host", head("GET / HTTP/1.1\r\nX: y")),
        (
            "another encoding",
            head("POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip"),
        ),
        (
            "a broken header",
            head("GET / HTTP/1.1\r\nHost: h\r\nbroken"),
        ),
    ]
}

const GET: &str = "GET /closed HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n";
const BYTES: &str = "\u{0}\u{1}raw";
const PATIENCE: Duration = Duration::from_secs(3);

pub(super) async fn send(mut stream: TcpStream, bytes: &str) -> String {
    raw(&mut stream, bytes.as_bytes(), PATIENCE).await
}

/// A port of the pod without a listener.
async fn closed(pod: &Pod) -> u16 {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

fn to(addr: SocketAddr, target: v1::destination::Target) -> v1::Resource {
    let target = Some(target);
    resource(
        &wire::names::destination(addr.ip(), addr.port()),
        v1::resource::Content::Destination(v1::Destination { target }),
    )
}

#[tokio::test]
async fn every_refusal_inbound_moves_one_counter_by_one() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let closed_port = closed(&server).await;
    let mode = |enforcement, mtls| server.mode("api", enforcement, mtls);
    // Where an answer is due, whatever might be a request is read as one.
    mode(Enforcement::Open, MtlsMode::Strict);
    for (case, head) in refused_heads() {
        let before = counted(&server, "inbound");
        let answer = send(server.plain(port).await, &head).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{case}: {answer}");
        one_more(&server, "inbound", &before, "bad-request", case).await;
    }
    let permissive = MtlsMode::Permissive;
    for (case, port, bytes, enforcement, mtls, reason) in [
        (
            "no rule",
            port,
            GET,
            Enforcement::Enforce,
            permissive,
            "no-identity",
        ),
        (
            "strict",
            port,
            GET,
            Enforcement::Open,
            MtlsMode::Strict,
            "no-identity",
        ),
        (
            "bytes, no rule",
            port,
            BYTES,
            Enforcement::Enforce,
            permissive,
            "no-identity",
        ),
        (
            "bytes, strict",
            port,
            BYTES,
            Enforcement::Open,
            MtlsMode::Strict,
            "no-identity",
        ),
        (
            "no listener",
            closed_port,
            GET,
            Enforcement::Open,
            permissive,
            "connect-failed",
        ),
        (
            "bytes, no listener",
            closed_port,
            BYTES,
            Enforcement::Open,
            permissive,
            "connect-failed",
        ),
    ] {
        mode(enforcement, mtls);
        let before = counted(&server, "inbound");
        send(server.plain(port).await, bytes).await;
        one_more(&server, "inbound", &before, reason, case).await;
    }
    assert!(seen.lock().is_empty(), "{:?}", seen.lock());
}

#[tokio::test]
async fn every_peer_refusal_increments_one_counter_once() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let closed_port = closed(&server).await;
    let certs = authority.leaf("web", Duration::from_secs(60), SystemTime::now());
    let mut sender = peer(&authority, &certs, &server).await.unwrap();
    let (port, closed_port) = (port.to_string(), closed_port.to_string());
    for (case, method, protocol, uri, port, reason) in [
        (
            "no port",
            Method::GET,
            "http1",
            "http://h/",
            "0",
            "bad-request",
        ),
        (
            "own port",
            Method::GET,
            "http1",
            "http://h/",
            "15108",
            "bad-request",
        ),
        (
            "CONNECT to nothing",
            Method::CONNECT,
            "http1",
            "h:80",
            &port[..],
            "bad-request",
        ),
        (
            "tunnel, no listener",
            Method::POST,
            "tcp",
            "http://h/",
            &closed_port,
            "connect-failed",
        ),
        (
            "peer, no listener",
            Method::GET,
            "http1",
            "http://h/",
            &closed_port,
            "connect-failed",
        ),
    ] {
        let before = counted(&server, "inbound");
        let status = ask(&mut sender, method, protocol, uri, port).await.unwrap();
        assert!(status >= 400, "{case}: {status}");
        one_more(&server, "inbound", &before, reason, case).await;
    }
    server.mode("api", Enforcement::Enforce, MtlsMode::Permissive);
    server.set(vec![rule("t", "other", Some(&[]), None)]);
    for (case, protocol) in [("tunnel, no rule", "tcp"), ("peer, no rule", "http1")] {
        let before = counted(&server, "inbound");
        let answer = ask(&mut sender, Method::POST, protocol, "http://h/", &port).await;
        assert_eq!(answer.unwrap(), 403, "{case}");
        one_more(&server, "inbound", &before, "not-allowed", case).await;
    }
    assert!(seen.lock().is_empty(), "{:?}", seen.lock());
}

#[tokio::test]
async fn every_refusal_outbound_moves_one_counter_by_one() {
    use v1::destination::Target;
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let closed_endpoint = endpoint(client.ip, closed(&client).await, None);
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    client.set(vec![endpoints("api", vec![closed_endpoint.clone()])]);
    for (case, head) in refused_heads() {
        let before = counted(&client, "outbound");
        let answer = send(client.call(vip()).await, &head).await;
        assert!(answer.starts_with("HTTP/1.1 4"), "{case}: {answer}");
        one_more(&client, "outbound", &before, "bad-request", case).await;
    }
    let service = |split| service("api", vip().ip(), Protocol::Detect, split);
    let external = SocketAddr::new(client.ip, closed(&client).await);
    let unknown: SocketAddr = "10.96.7.7:80".parse().unwrap();
    let refused = Target::Refused(v1::Refused {
        reason: "no such port".into(),
        service: "shop/api".into(),
    });
    let none = split("none", &[("api", 0)]);
    let strict = || client.mode("web", Enforcement::Open, MtlsMode::Strict);
    for (case, resources, addr, reason, kinds) in [
        (
            "no listener",
            service(vec![]),
            vip(),
            "connect-failed",
            &[GET, BYTES][..],
        ),
        (
            "no backend",
            service(vec![none]),
            vip(),
            "no-backend",
            &[GET, BYTES],
        ),
        (
            "no endpoint",
            service(vec![]),
            vip(),
            "no-endpoint",
            &[GET, BYTES],
        ),
        (
            "external, no listener",
            vec![to(external, Target::External(v1::External::default()))],
            external,
            "connect-failed",
            &[GET, BYTES],
        ),
        (
            "no such port",
            vec![to(vip(), refused)],
            vip(),
            "no-endpoint",
            &[GET],
        ),
        (
            "unknown",
            vec![],
            unknown,
            "unknown-destination",
            &[GET, BYTES],
        ),
    ] {
        client.set(resources);
        match case {
            "no endpoint" => client.set(vec![endpoints("api", Vec::new())]),
            "unknown" => strict(),
            _ => {}
        }
        for bytes in kinds {
            let case = format!("{case}: {bytes:?}");
            let before = counted(&client, "outbound");
            let mut stream = client.call(addr).await;
            // Some are refused before they say anything.
            let _ = stream.write_all(bytes.as_bytes()).await;
            let mut rest = Vec::new();
            let read = tokio::io::AsyncReadExt::read_to_end(&mut stream, &mut rest);
            let _ = tokio::time::timeout(PATIENCE, read).await;
            one_more(&client, "outbound", &before, reason, &case).await;
        }
    }
    for (case, head) in refused_heads().into_iter().take(3) {
        let before = counted(&client, "outbound");
        // Where nothing is declared, no Service's client begins like this.
        let reason = match case {
            "CONNECT" => "unknown-destination",
            _ => "bad-request",
        };
        send(client.call(unknown).await, &head).await;
        one_more(&client, "outbound", &before, reason, case).await;
    }
}

/// A clean end would say that the server had nothing more to say.
// Claims: R4, attack-73
#[tokio::test]
async fn bytes_to_unknown_destination_are_reset_unlike_external_ones() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let outside = SocketAddr::new(client.ip, echo(&client, "").await);
    let external = v1::destination::Target::External(v1::External::default());
    client.set(vec![to(outside, external)]);
    client.mode("web", Enforcement::Open, MtlsMode::Strict);
    let unknown: SocketAddr = "10.96.7.7:80".parse().unwrap();
    for (addr, heard) in [(unknown, ""), (outside, BYTES)] {
        let admitted = addr == outside;
        let mut stream = client.call(addr).await;
        stream.write_all(BYTES.as_bytes()).await.unwrap();
        if admitted {
            stream.shutdown().await.unwrap();
        }
        let mut answer = Vec::new();
        let read = stream.read_to_end(&mut answer);
        let ended = tokio::time::timeout(3 * PATIENCE, read).await;
        let ended = ended.expect("it ends");
        assert_eq!(ended.is_ok(), admitted, "{addr}: {ended:?}");
        assert_eq!(answer, heard.as_bytes(), "{addr}");
    }
}

/// A caller that the redirection should not have brought, and one of a port of the proxy.
#[tokio::test]
async fn misdirected_connection_is_rejected_and_counted() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let turned_away = || {
        let metrics = server.metrics();
        let line = metrics.lines().find(|line| line.contains("direct-call"));
        line.map_or(0, |line| line.rsplit_once(' ').unwrap().1.parse().unwrap())
    };
    let elsewhere = SocketAddr::from(([127, 0, 0, 1], port));
    let own = SocketAddr::new(server.ip, MESH_PORT);
    for (count, target) in [(1, elsewhere), (2, own)] {
        let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap())
            .await
            .unwrap();
        let (accepted, _) = listener.accept().await.unwrap();
        let proxy = Arc::clone(&server.proxy);
        serve_plain(proxy, accepted, target, Permit::unlisted()).await;
        let mut answer = Vec::new();
        let ended = stream.read_to_end(&mut answer).await;
        assert!(ended.is_err() && answer.is_empty(), "{target}: {ended:?}");
        assert_eq!(turned_away(), count, "{target}");
    }
    assert!(counted(&server, "inbound").is_empty(), "it is no call");
    assert!(seen.lock().is_empty());
}
