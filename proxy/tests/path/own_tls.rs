//! TLS of the applications' own: reported as TLS where it is declared or where the proxy saw a
//! connection begin so, and counted by metrics as any other bytes.
//!
//! Claims: observe-145

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustls::pki_types::ServerName;
use rustls::{ClientConfig, ClientConnection, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::v1::{self, Enforcement, MtlsMode, Protocol, Security};

use super::counts::{reported_edges, sum};
use super::tcp::echo;
use crate::support::{Authority, Pod, endpoint, external, id, pair, resource, vip};

/// No TLS, and no HTTP either.
pub(super) const BYTES: &[u8] = b"\x00binary";
const CONNECTIONS: &str = "weft_tcp_connections_total";

/// A TLS client's first bytes to a host of this name, or of this address.
pub(super) fn hello(host: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    let name = ServerName::try_from(host.to_owned()).unwrap();
    let mut client = ClientConnection::new(Arc::new(config), name).unwrap();
    let mut sent = Vec::new();
    client.write_tls(&mut sent).unwrap();
    sent
}

/// Sends the bytes to an application that echoes, and receives them again. The connection stays
/// open.
pub(super) async fn said(mut stream: TcpStream, bytes: &[u8]) -> TcpStream {
    stream.write_all(bytes).await.unwrap();
    let mut heard = vec![0; bytes.len()];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(heard, bytes);
    stream
}

/// What the pod reports about its only connection.
async fn reported(pod: &Pod) -> (Protocol, Security) {
    let edges = reported_edges(pod).await;
    let [edge] = &edges[..] else {
        panic!("{edges:?}");
    };
    assert_eq!((edge.opened, edge.open), (1, 1), "{edge:?}");
    (edge.protocol(), edge.security())
}

#[tokio::test]
async fn external_tls_is_reported_separately_from_other_bytes() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let host = Pod::new(&authority, "api").await;
    let at = SocketAddr::new(host.ip, echo(&host, "").await);
    client.set(vec![external(at)]);
    let (named, nameless) = (hello("api.example.com"), hello("10.0.0.1"));
    for bytes in [&named[..], &nameless[..], BYTES] {
        let mut stream = said(client.call(at).await, bytes).await;
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    }
    let began = Instant::now();
    while sum(&client, CONNECTIONS, &["peer=\"external\""]) < 3.0 {
        assert!(began.elapsed() < Duration::from_secs(5), "all have ended");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Metrics tell them apart by nothing.
    let page = client.metrics();
    let series = page.lines().filter(|line| line.starts_with(CONNECTIONS));
    assert_eq!(series.count(), 1, "{page}");

    let edges = reported_edges(&client).await;
    let known: BTreeSet<(&str, Protocol)> = edges
        .iter()
        .map(|edge| (edge.remote.as_str(), edge.protocol()))
        .collect();
    let address = host.ip.to_string();
    let expected = [
        ("api.example.com", Protocol::Tls),
        // It names no host.
        (&*address, Protocol::Tls),
        (&*address, Protocol::Opaque),
    ];
    assert_eq!(known, BTreeSet::from(expected), "{edges:?}");
    let plain = |edge: &v1::Edge| edge.security() == Security::Plaintext;
    assert!(edges.iter().all(plain), "{edges:?}");
}

/// Sends the bytes to an address without a listener, and waits for the end.
async fn in_vain(mut stream: TcpStream, bytes: &[u8]) {
    // It may be reset before.
    let _ = stream.write_all(bytes).await;
    let mut heard = [0];
    let ended = tokio::time::timeout(Duration::from_secs(20), stream.read(&mut heard)).await;
    assert!(matches!(ended, Ok(Ok(0) | Err(_))), "{ended:?}");
}

/// An address of the pod without a listener.
async fn nowhere(pod: &Pod) -> SocketAddr {
    let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
    listener.local_addr().unwrap()
}

/// Failures by host and protocol.
fn failures(edges: &[v1::Edge]) -> BTreeMap<(&str, Protocol), u64> {
    let mut all: BTreeMap<_, u64> = BTreeMap::new();
    for edge in edges {
        let way = (edge.remote.as_str(), edge.protocol());
        *all.entry(way).or_default() += edge.failure;
    }
    all
}

#[tokio::test]
async fn failed_external_connections_are_reported_by_sent_bytes() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let host = Pod::new(&authority, "api").await;
    let at = nowhere(&host).await;
    client.set(vec![external(at)]);
    let (named, nameless) = (hello("api.example.com"), hello("10.0.0.1"));
    let request: &[u8] = b"GET / HTTP/1.1\r\nhost: shop.example\r\n\r\n";
    // A silent caller is not delayed for long.
    for bytes in [&named[..], &nameless[..], request, BYTES, b""] {
        in_vain(client.call(at).await, bytes).await;
    }
    let edges = reported_edges(&client).await;
    let address = host.ip.to_string();
    let expected = [
        (("api.example.com", Protocol::Tls), 1),
        ((&*address, Protocol::Tls), 1),
        (("shop.example", Protocol::Opaque), 1),
        ((&*address, Protocol::Opaque), 2),
    ];
    assert_eq!(failures(&edges), BTreeMap::from(expected), "{edges:?}");
}

/// A near host refuses a connection before its caller has sent a byte.
#[tokio::test]
async fn immediately_failed_external_connection_reports_later_bytes() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let host = Pod::new(&authority, "api").await;
    let at = nowhere(&host).await;
    client.set(vec![external(at)]);
    let hello = hello("api.example.com");
    // A machine that stalls makes some of them late.
    for _ in 0..20 {
        let stream = client.call(at).await;
        tokio::time::sleep(Duration::from_millis(3)).await;
        in_vain(stream, &hello).await;
    }
    let edges = reported_edges(&client).await;
    let reported = failures(&edges);
    let known = ("api.example.com", Protocol::Tls);
    assert!(reported.contains_key(&known), "{edges:?}");
}

/// What both ends report about a connection between two proxies to a Service of this protocol,
/// whose pod may declare one too; its client speaks after so many milliseconds.
async fn between(
    (service, port): (Protocol, Option<Protocol>),
    says: &[u8],
    after: u64,
) -> [Protocol; 2] {
    let (client, server, _, _) = pair(service).await;
    let listens = echo(&server, "").await;
    if let Some(declared) = port {
        let workload = v1::Workload {
            identity: id("api").as_str().to_owned(),
            enforcement: Enforcement::Open as i32,
            mtls: MtlsMode::Permissive as i32,
            ports: vec![v1::PortProtocol {
                first: listens.into(),
                last: listens.into(),
                protocol: declared as i32,
            }],
            ..v1::Workload::default()
        };
        let workload = v1::resource::Content::Workload(workload);
        server.set(vec![resource(wire::names::WORKLOAD, workload)]);
    }
    client.reaches(&server, listens);
    let stream = client.call(vip()).await;
    tokio::time::sleep(Duration::from_millis(after)).await;
    let _stays = said(stream, says).await;
    let (one, other) = (reported(&client).await, reported(&server).await);
    assert_eq!((one.1, other.1), (Security::Mtls, Security::Mtls));
    [one.0, other.0]
}

#[tokio::test]
async fn tls_between_pods_is_reported_as_declared_or_detected() {
    let (opaque, detect, tls) = (Protocol::Opaque, Protocol::Detect, Protocol::Tls);
    let hello = &hello("api.shop")[..];
    for (service, port, says, after, expected) in [
        (tls, Some(tls), hello, 0, [tls, tls]),
        (detect, None, hello, 0, [tls, tls]),
        // The upstream connection was opened before its client sent a byte.
        (detect, None, hello, 300, [tls, tls]),
        // A declaration is believed, and what it covers is not looked at.
        (tls, Some(tls), BYTES, 0, [tls, tls]),
        (opaque, Some(opaque), hello, 0, [opaque, opaque]),
        (detect, None, BYTES, 0, [opaque, opaque]),
        (detect, None, BYTES, 300, [opaque, opaque]),
    ] {
        let seen = between((service, port), says, after).await;
        assert_eq!(seen, expected, "{service:?} {port:?} {after} {says:?}");
    }
}

#[tokio::test]
async fn outside_callers_tls_is_reported_separately_from_bytes() {
    for (says, expected) in [
        (&hello("api.shop")[..], Protocol::Tls),
        (BYTES, Protocol::Opaque),
    ] {
        let (_client, server, _, _) = pair(Protocol::Detect).await;
        server.mode("api", Enforcement::Open, MtlsMode::Permissive);
        let port = echo(&server, "").await;
        let _stays = said(server.plain(port).await, says).await;
        assert_eq!(reported(&server).await, (expected, Security::Plaintext));
    }
}

/// The counters show what such connections carry.
#[tokio::test]
async fn non_http_on_declared_http_port_is_counted() {
    for (says, carries) in [
        (hello("api.example.com"), Protocol::Tls),
        (BYTES.to_vec(), Protocol::Opaque),
    ] {
        let (client, server, port, seen) = pair(Protocol::Http1).await;
        let workload = v1::Workload {
            identity: id("api").as_str().to_owned(),
            enforcement: Enforcement::Open as i32,
            mtls: MtlsMode::Permissive as i32,
            ports: vec![v1::PortProtocol {
                first: port.into(),
                last: port.into(),
                protocol: Protocol::Http1 as i32,
            }],
            ..v1::Workload::default()
        };
        let workload = v1::resource::Content::Workload(workload);
        server.set(vec![resource(wire::names::WORKLOAD, workload)]);
        in_vain(client.call(vip()).await, &says).await;
        in_vain(server.plain(port).await, &says).await;
        for (pod, service, at) in [(&client, "shop/api", 80), (&server, "", port)] {
            let edges = reported_edges(pod).await;
            let [edge] = &edges[..] else {
                panic!("{edges:?}");
            };
            assert_eq!((edge.protocol(), edge.failure), (carries, 1), "{edge:?}");
            assert_eq!((&*edge.service, edge.port), (service, u32::from(at)));
            let reasons: Vec<(&str, u64)> = edge
                .reasons
                .iter()
                .map(|one| (one.reason.as_str(), one.calls))
                .collect();
            assert_eq!(reasons, [("bad-request", 1)]);
        }
        assert!(seen.lock().is_empty(), "{:?}", seen.lock());
    }
}

/// By the pod a controller finds the Service that declares the port.
#[tokio::test]
async fn what_is_no_http_names_the_pod_called_by_address() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let pod = v1::PodTarget {
        endpoint: Some(endpoint(client.ip, 9000, Some("api"))),
        protocol: Protocol::Http1 as i32,
        ..v1::PodTarget::default()
    };
    let addr = SocketAddr::new(client.ip, 9000);
    client.set(vec![resource(
        &wire::names::destination(addr.ip(), addr.port()),
        v1::resource::Content::Destination(v1::Destination {
            target: Some(v1::destination::Target::Pod(pod)),
        }),
    )]);
    in_vain(client.call(addr).await, BYTES).await;
    let edges = reported_edges(&client).await;
    let [edge] = &edges[..] else {
        panic!("{edges:?}");
    };
    assert_eq!(edge.pod, format!("shop/pod-{}", client.ip), "{edge:?}");
    assert_eq!((&*edge.service, edge.port), ("", 9000));
    assert_eq!(edge.reasons[0].reason, "bad-request");
}
