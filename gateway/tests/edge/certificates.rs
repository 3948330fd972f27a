//! Certificates of listeners: which one a client is shown, what happens when one comes or goes, and
//! that keys lie nowhere else.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use rustls::pki_types::ServerName;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use weft_proxy::MESH_PORT;

use super::harness::{Certificate, EVERY_VERSION, Edge, SOON, all, answer, https, routes, served};

const GET: &str = "GET / HTTP/1.1\r\nHost: web.example\r\n";

fn shown(tls: &TlsStream<TcpStream>) -> Vec<u8> {
    let chain = tls.get_ref().1.peer_certificates().unwrap();
    chain[0].as_ref().to_vec()
}

/// A Gateway with one listener of HTTPS, and its certificate.
async fn secured() -> (Edge, Certificate) {
    let certificate = Certificate::of(&["web.example"]);
    let edge = Edge::with(vec![https("https", None, "web", vec![routes(None, all())])]).await;
    edge.pod.set(vec![certificate.resource("web")]);
    (edge, certificate)
}

#[tokio::test]
async fn clients_speak_both_versions_of_tls_and_peers_the_newer() {
    let (edge, certificate) = secured().await;
    for version in [&TLS12, &TLS13] {
        let config = certificate.client(&[version], &[]);
        let tls = edge.tls_by(443, "web.example", config).await.unwrap();
        assert_eq!(tls.get_ref().1.protocol_version(), Some(version.version));
        let (status, text) = answer(tls, GET).await;
        assert_eq!(status, 200, "{version:?}: {text}");
    }
    // The port of the mesh is as it was, in a program that knows both.
    let to_mesh = SocketAddr::new(edge.server.ip, MESH_PORT);
    for (versions, refused_for_version) in [(&[&TLS12][..], true), (EVERY_VERSION, false)] {
        let stream = TcpStream::connect(to_mesh).await.unwrap();
        let connector = TlsConnector::from(Arc::new(certificate.client(versions, &["h2"])));
        let name = ServerName::try_from("web.example").unwrap();
        let error = connector.connect(name, stream).await.unwrap_err();
        let error = format!("{error:?}");
        assert_eq!(
            error.contains("ProtocolVersion"),
            refused_for_version,
            "{error}"
        );
    }
}

#[tokio::test]
async fn client_is_shown_the_certificate_of_its_server() {
    let (one, two) = (
        Certificate::of(&["one.example"]),
        Certificate::of(&["*.two.example"]),
    );
    let mut listener = https("https", None, "one", vec![routes(None, all())]);
    let second = wire::names::certificate("shop", "two");
    listener.certificates.push(second.into());
    let edge = Edge::with(vec![listener]).await;
    edge.pod.set(vec![one.resource("one"), two.resource("two")]);
    for (server, certificate) in [("one.example", &one), ("a.two.example", &two)] {
        let tls = edge.tls(443, server, certificate).await.unwrap();
        assert_eq!(shown(&tls), certificate.der, "{server}");
    }
    // Without one that fits the first is shown, and the client does not take it.
    let error = edge.tls(443, "other.example", &one).await.unwrap_err();
    assert!(
        format!("{error:?}").contains("NotValidForName"),
        "{error:?}"
    );
}

// Claims: gateways-3
#[tokio::test]
async fn ended_certificate_is_not_served_without_controllers() {
    let an_hour_ago = SystemTime::now() - Duration::from_hours(1);
    let ended = Certificate::until("web.example", an_hour_ago);
    let lasting = Certificate::of(&["web.example"]);
    let mut listener = https("https", None, "ended", vec![routes(None, all())]);
    let second = wire::names::certificate("shop", "lasting");
    listener.certificates.push(second.into());
    let edge = Edge::with(vec![listener]).await;
    edge.pod.set(vec![ended.resource("ended")]);
    let error = edge.tls(443, "web.example", &ended).await.unwrap_err();
    let error = format!("{error:?}");
    assert!(error.contains("AlertReceived"), "{error}");
    edge.pod.set(vec![lasting.resource("lasting")]);
    until(&edge, &lasting, true).await;
    let tls = edge.tls(443, "web.example", &lasting).await.unwrap();
    assert_eq!(shown(&tls), lasting.der);
}

/// Connects until a handshake succeeds, or fails.
async fn until(edge: &Edge, certificate: &Certificate, succeeds: bool) {
    let started = Instant::now();
    loop {
        let shaken = edge.tls(443, "web.example", certificate).await;
        if shaken.is_ok() == succeeds {
            return;
        }
        let took = started.elapsed();
        assert!(took < Duration::from_secs(2), "{succeeds}: {shaken:?}");
        sleep(Duration::from_millis(10)).await;
    }
}

// Claims: gateways-3
#[tokio::test]
async fn certificate_is_replaced_and_taken_away_at_once() {
    let (edge, first) = secured().await;
    let second = Certificate::of(&["web.example"]);
    until(&edge, &first, true).await;
    edge.pod.set(vec![second.resource("web")]);
    until(&edge, &second, true).await;
    until(&edge, &first, false).await;
    let mut open = edge.tls(443, "web.example", &second).await.unwrap();
    open.write_all(format!("{GET}\r\n").as_bytes())
        .await
        .unwrap();
    assert_ne!(open.read_u8().await.unwrap(), 0);
    edge.pod
        .replace(&wire::names::certificate("shop", "web"), Vec::new());
    until(&edge, &second, false).await;
    // What is open ends, too.
    let mut rest = Vec::new();
    let ended = timeout(2 * SOON, open.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection stayed open");
    let metrics = edge.pod.metrics();
    let failed = "weft_tls_failures_total{direction=\"inbound\",reason=\"handshake\"}";
    assert!(metrics.contains(failed), "{metrics}");
}

#[tokio::test]
async fn handshake_without_a_listener_or_a_certificate_is_refused() {
    let certificate = Certificate::of(&["web.example", "other.example", "bare.example"]);
    let mut bare = https("bare", Some("bare.example"), "web", Vec::new());
    bare.certificates.clear();
    let edge = Edge::with(vec![
        https(
            "https",
            Some("web.example"),
            "web",
            vec![routes(None, all())],
        ),
        bare,
    ])
    .await;
    edge.pod.set(vec![certificate.resource("web")]);
    until(&edge, &certificate, true).await;
    for server in ["other.example", "bare.example", "203.0.113.9"] {
        let refused = edge.tls(443, server, &certificate).await;
        assert!(refused.is_err(), "{server}");
    }
    // What is no TLS gets no answer.
    let mut plain = edge.connect(443).await;
    plain
        .write_all(b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n")
        .await
        .unwrap();
    let mut answer = Vec::new();
    let read = timeout(SOON, plain.read_to_end(&mut answer)).await;
    let _ = read.expect("it must end");
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    until(&edge, &certificate, true).await;
}

// Claims: gateways-3
#[tokio::test]
async fn keys_lie_in_pods_of_their_gateway_alone() {
    let (edge, certificate) = secured().await;
    let sent = vec![certificate.resource("web"), served(Vec::new())];
    let refused = edge.server.try_set(sent);
    assert_eq!(refused.len(), 2, "{refused:?}");
    let held = edge.pod.proxy.config.snapshot();
    let printed = format!("{held:?} {:?} {:?}", edge.gateway, edge.pod.proxy);
    let key = format!("{:?}", &certificate.key[certificate.key.len() - 20..]);
    let key = key.trim_matches(['[', ']']);
    assert!(!printed.contains(key));
    assert!(
        printed.contains("certificate/shop/web"),
        "its name is there"
    );
}
