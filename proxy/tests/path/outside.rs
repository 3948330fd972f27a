//! Reports about peers outside the mesh, on both sides of a call.
//!
//! Claims: observe-140, observe-144

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use wire::v1::destination::Target;
use wire::v1::resource::Content;
use wire::v1::{self, Enforcement, MtlsMode};

use super::counts::reported_edges;
use crate::support::{Authority, Pod, get, http_app, raw, resource, service, vip};

pub(super) fn external(at: SocketAddr) -> v1::Resource {
    stands(at, Target::External(v1::External::default()))
}

fn stands(at: SocketAddr, target: Target) -> v1::Resource {
    let name = wire::names::destination(at.ip(), at.port());
    let target = Some(target);
    resource(&name, Content::Destination(v1::Destination { target }))
}

/// The controller's target for a port that a Service lacks; older ones do not name the Service.
fn lacking(service: &str) -> Target {
    Target::Refused(v1::Refused {
        reason: "no such port".to_owned(),
        service: service.to_owned(),
    })
}

/// Waits until an unserved call has ended.
async fn in_vain(client: &Pod, at: SocketAddr) {
    let mut stream = client.call(at).await;
    // Some are refused before they say anything.
    let head = b"GET / HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n";
    let _ = stream.write_all(head).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let ended = tokio::time::timeout(Duration::from_secs(20), read).await;
    assert!(ended.is_ok(), "{at}");
}

// Claims: observability-1
#[tokio::test]
async fn outside_hosts_are_reported_by_name_else_address() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let host = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&host, "api").await;
    let named = SocketAddr::new(host.ip, port);
    let listener = TcpListener::bind((host.ip, 0)).await.unwrap();
    let unnamed = listener.local_addr().unwrap();
    client.set(vec![external(named), external(unnamed)]);
    assert_eq!(get(client.call(named).await, "/", "").await.0, 200);
    assert_eq!(seen.lock().len(), 1, "all that was said arrived");
    // A caller that waits for the other end to speak is not delayed.
    let banner = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b"220 hello\r\n").await.unwrap();
    });
    let mut stream = client.call(unnamed).await;
    let began = std::time::Instant::now();
    let answer = raw(&mut stream, b"", Duration::from_secs(5)).await;
    assert_eq!(answer, "220 hello\r\n");
    assert!(began.elapsed() < Duration::from_millis(500), "{began:?}");
    banner.await.unwrap();

    let edges = reported_edges(&client).await;
    let remotes: BTreeSet<&str> = edges.iter().map(|edge| edge.remote.as_str()).collect();
    let address = host.ip.to_string();
    assert_eq!(
        remotes,
        BTreeSet::from(["web.shop", &*address]),
        "{edges:?}"
    );
    assert!(
        edges
            .iter()
            .all(|edge| edge.service.is_empty() && edge.pod.is_empty())
    );
}

// Claims: observability-1
#[tokio::test]
async fn outside_host_is_named_for_late_client() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let host = Pod::new(&authority, "api").await;
    let (port, _seen) = http_app(&host, "api").await;
    let named = SocketAddr::new(host.ip, port);
    client.set(vec![external(named)]);
    let stream = client.call(named).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(get(stream, "/", "").await.0, 200);
    let edges = reported_edges(&client).await;
    let remotes: Vec<&str> = edges.iter().map(|edge| edge.remote.as_str()).collect();
    assert_eq!(remotes, ["web.shop"], "{edges:?}");
}

/// The proxy does not read it as HTTP, so that any protocol passes; docs/operating.md explains the
/// consequences.
#[tokio::test]
async fn outside_traffic_is_relayed_with_copied_mesh_headers() {
    const ID: &str = "spiffe://cluster.local/ns/shop/sa/caller";
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let host = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&host, "outside").await;
    let at = SocketAddr::new(host.ip, port);
    client.set(vec![external(at)]);
    let copied = format!("weft-client-id: {ID}\r\nweft-forged: yes\r\n");
    assert_eq!(get(client.call(at).await, "/", &copied).await.0, 200);
    let received = seen.lock().remove(0);
    assert!(received.contains(&format!("id={ID} ")), "{received}");
    assert!(received.contains("forged=yes"), "{received}");
}

// Claims: observability-1
#[tokio::test]
async fn only_callers_without_identity_are_reported_by_address() {
    let authority = Authority::new();
    let client = Pod::of_uid(&authority, "web", "uid-1").await;
    let server = Pod::new(&authority, "api").await;
    let (port, _seen) = http_app(&server, "api").await;
    client.set(service("api", vip().ip(), v1::Protocol::Http1, Vec::new()));
    client.reaches(&server, port);
    server.mode("api", Enforcement::Open, MtlsMode::Permissive);
    assert_eq!(get(server.plain(port).await, "/", "").await.0, 200);
    assert_eq!(get(client.call(vip()).await, "/", "").await.0, 200);
    let edges = reported_edges(&server).await;
    let (outside, meshed): (Vec<_>, Vec<_>) =
        edges.iter().partition(|edge| edge.identity.is_empty());
    assert!(!outside.is_empty() && !meshed.is_empty(), "{edges:?}");
    for edge in outside {
        let address: IpAddr = edge.remote.parse().unwrap();
        assert!(address.is_loopback(), "{edge:?}");
    }
    // Its certificate names its pod, which is reported as the caller and nowhere else.
    for edge in meshed {
        assert_eq!((&*edge.caller, &*edge.remote), ("uid-1", ""), "{edge:?}");
    }
}

#[tokio::test]
async fn lacked_port_reports_service_and_unknown_one_its_address() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let lacks: SocketAddr = "10.96.7.1:81".parse().unwrap();
    let older: SocketAddr = "10.96.7.2:81".parse().unwrap();
    let unknown: SocketAddr = "10.96.7.7:80".parse().unwrap();
    client.set(vec![
        stands(lacks, lacking("shop/cart")),
        stands(older, lacking("")),
    ]);
    client.mode("web", Enforcement::Open, MtlsMode::Strict);
    for at in [lacks, older, unknown] {
        in_vain(&client, at).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let edges = reported_edges(&client).await;
    let reported: BTreeSet<(&str, u32, &str)> = edges
        .iter()
        .map(|edge| (edge.service.as_str(), edge.port, edge.remote.as_str()))
        .collect();
    let expected = [
        ("shop/cart", 81, ""),
        ("", 0, "10.96.7.2"),
        ("", 0, "10.96.7.7"),
    ];
    assert_eq!(reported, BTreeSet::from(expected), "{edges:?}");
    for edge in &edges {
        assert_eq!((edge.failure, edge.attempts), (1, Some(0)), "{edge:?}");
        assert!(edge.pod.is_empty() && edge.backend.is_empty(), "{edge:?}");
    }
}

/// More ports than two intervals keep apart.
#[tokio::test]
async fn service_port_scan_makes_bounded_edges() {
    const PORTS: u16 = 200;
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let ports = || (1..=PORTS).map(|port| SocketAddr::from(([10, 96, 7, 1], port)));
    let all = ports().map(|at| stands(at, lacking("shop/cart")));
    client.set(all.collect());
    for at in ports() {
        in_vain(&client, at).await;
    }
    tokio::time::sleep(Duration::from_millis(200)).await;
    let edges = reported_edges(&client).await;
    let reported: BTreeSet<u32> = edges.iter().map(|edge| edge.port).collect();
    // The ports with a row of their own, and the row of all others.
    assert_eq!(reported.len(), 64 + 1, "{reported:?}");
    assert!(
        reported.contains(&0) && reported.contains(&1),
        "{reported:?}"
    );
    assert!(edges.iter().all(|edge| edge.service == "shop/cart"));
    let failures: u64 = edges.iter().map(|edge| edge.failure).sum();
    assert_eq!(failures, u64::from(PORTS), "each is counted");
    let metrics = client.metrics();
    let series = metrics.matches("weft_tcp_connections_total{").count();
    assert_eq!(series, 1, "{metrics}");
}
