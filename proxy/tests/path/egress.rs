//! Calls outside the mesh: what an ExternalService gives arrives at an address of its host, and with
//! `weft.dev/egress: deny` nothing else arrives anywhere.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::Duration;

use http::Request;
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use wire::v1;
use wire::v1::egress::Mode;
use wire::v1::external_port::Protocol;

use super::counts::reported_edges;
use super::own_tls::{BYTES, hello};
use crate::support::{
    Authority, Pod, SeenRequests, egress, endpoint, external, external_object, get, http_app, raw,
    resolved, resource, service, vip,
};

const HOST: &str = "api.pay.example";
/// Far more than what ends within two seconds takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// A server that records all bytes and answers nothing.
#[derive(Clone)]
struct Recorder {
    at: SocketAddr,
    seen: Arc<Mutex<Vec<u8>>>,
    connections: Arc<AtomicUsize>,
}

impl Recorder {
    async fn new(pod: &Pod) -> Self {
        let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
        let recorder = Self {
            at: listener.local_addr().unwrap(),
            seen: Arc::default(),
            connections: Arc::default(),
        };
        let Self {
            seen, connections, ..
        } = recorder.clone();
        tokio::spawn(async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                connections.fetch_add(1, Relaxed);
                let seen = Arc::clone(&seen);
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        seen.lock().extend_from_slice(&buffer[..read]);
                    }
                });
            }
        });
        recorder
    }

    async fn gets(&self, expected: &[u8]) {
        let got = async {
            while self.seen.lock().len() < expected.len() {
                sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, got).await.unwrap();
        assert_eq!(*self.seen.lock(), expected);
    }

    fn assert_untouched(&self) {
        assert_eq!(self.connections.load(Relaxed), 0);
    }
}

/// A client, the server of [`HOST`], and another one, whose address the client dials.
struct Scene {
    client: Pod,
    named: Pod,
    dialled: Recorder,
    _other: Pod,
}

impl Scene {
    async fn new() -> Self {
        let authority = Authority::new();
        let client = Pod::new(&authority, "web").await;
        let named = Pod::new(&authority, "api").await;
        let other = Pod::new(&authority, "other").await;
        let dialled = Recorder::new(&other).await;
        client.set(vec![external(dialled.at)]);
        Self {
            client,
            named,
            dialled,
            _other: other,
        }
    }

    /// A port of an object, as the client dials it, that is served at `target`.
    fn port(&self, protocol: Protocol, target: u16) -> v1::ExternalPort {
        v1::ExternalPort {
            port: self.dialled.at.port().into(),
            protocol: protocol.into(),
            target_port: target.into(),
            tls: None,
        }
    }

    /// The host is given, and is served at this port of its server.
    fn gives(&self, mode: Mode, protocol: Protocol, target: u16) {
        let object = external_object(&[HOST], &[], self.port(protocol, target));
        self.client.set(vec![
            egress(mode, vec![object]),
            resolved(HOST, target, &[self.named.ip]),
        ]);
    }

    async fn call(&self) -> TcpStream {
        self.client.call(self.dialled.at).await
    }

    /// The same with an application that serves the host.
    async fn of_http(mode: Mode) -> (Self, SeenRequests) {
        let scene = Self::new().await;
        let (port, seen) = http_app(&scene.named, "named").await;
        scene.gives(mode, Protocol::Http, port);
        (scene, seen)
    }
}

fn request(host: &str, more: &str) -> String {
    format!("GET /a HTTP/1.1\r\nHost: {host}\r\n{more}\r\n")
}

/// On a connection that is kept.
// Claims: egress-1, egress-2
#[tokio::test]
async fn each_request_goes_by_its_own_host() {
    let (scene, seen) = Scene::of_http(Mode::Deny).await;
    let mut stream = scene.call().await;
    let requests = [
        request(HOST, ""),
        request("evil.example", ""),
        request("API.pay.example.:443", ""),
        request("203.0.113.9", ""),
        "GET http://evil.example/ HTTP/1.1\r\nHost: api.pay.example\r\n\r\n".to_owned(),
        "GET http://api.pay.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n".to_owned(),
        request("api.pay.example.evil.example", "Connection: close\r\n"),
    ];
    let answer = raw(&mut stream, requests.concat().as_bytes(), PATIENCE).await;
    let statuses: Vec<&str> = answer
        .match_indices("HTTP/1.1 ")
        .map(|(at, _)| &answer[at + 9..at + 12])
        .filter(|status| status.parse::<u16>().is_ok())
        .collect();
    assert_eq!(
        statuses,
        ["200", "403", "200", "403", "403", "200", "403"],
        "{answer}"
    );
    assert_eq!(answer.matches("weft-reason: egress-denied\r\n").count(), 4);
    let seen = seen.lock().clone();
    assert_eq!(seen.len(), 3);
    let is_forged = |line: &String| line.contains("evil");
    assert!(!seen.iter().any(is_forged), "{seen:?}");
    scene.dialled.assert_untouched();
    let edges = reported_edges(&scene.client).await;
    let remotes: Vec<&str> = edges.iter().map(|edge| edge.remote.as_str()).collect();
    for remote in ["shop/pay", "evil.example", "api.pay.example.evil.example"] {
        assert!(remotes.contains(&remote), "{remotes:?}");
    }
}

// Claims: egress-1, egress-2
#[tokio::test]
async fn http2_requests_go_by_their_own_authority() {
    let (scene, seen) = Scene::of_http(Mode::Deny).await;
    let stream = scene.call().await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    for (authority, status) in [(HOST, 200), ("evil.example", 403), (HOST, 200)] {
        poll_fn(|cx| sender.poll_ready(cx)).await.unwrap();
        let uri = format!("http://{authority}/a");
        let request = Request::get(uri).body(()).unwrap();
        let (response, _) = sender.send_request(request, true).unwrap();
        let response = timeout(PATIENCE, response).await.unwrap().unwrap();
        assert_eq!(response.status(), status, "{authority}");
    }
    assert_eq!(seen.lock().len(), 2);
    scene.dialled.assert_untouched();
}

/// It is what the caller says, so it decides the address too.
// Claims: egress-1, egress-2
#[tokio::test]
async fn tls_goes_to_address_of_its_server_name() {
    let scene = Scene::new().await;
    let server = Recorder::new(&scene.named).await;
    scene.gives(Mode::Deny, Protocol::Tls, server.at.port());
    let mut stream = scene.call().await;
    let bytes = [&hello("API.pay.example")[..], BYTES].concat();
    // In pieces, the first of which does not even show that it is TLS.
    let (first, rest) = bytes.split_at(1);
    for piece in std::iter::once(first).chain(rest.chunks(32)) {
        stream.write_all(piece).await.unwrap();
        sleep(Duration::from_millis(2)).await;
    }
    server.gets(&bytes).await;
    scene.dialled.assert_untouched();
}

// Claims: egress-1
#[tokio::test]
async fn unnamed_bytes_are_reset_and_arrive_nowhere() {
    let scene = Scene::new().await;
    let server = Recorder::new(&scene.named).await;
    scene.gives(Mode::Deny, Protocol::Tls, server.at.port());
    let half = hello(HOST);
    let connect = format!("CONNECT {HOST}:443 HTTP/1.1\r\nHost: {HOST}\r\n\r\n");
    for bytes in [
        &hello("evil.example")[..],
        &hello("10.0.0.1")[..],
        &half[..half.len() - 1],
        BYTES,
        b"SSH-2.0-a\r\n",
        connect.as_bytes(),
    ] {
        let mut stream = scene.call().await;
        stream.write_all(bytes).await.unwrap();
        let mut read = [0];
        let ended = timeout(PATIENCE, stream.read(&mut read)).await.unwrap();
        assert!(ended.is_err(), "a reset: {ended:?}");
    }
    // Nor does a request, though its host is given for TLS.
    let mut stream = scene.call().await;
    let answer = raw(
        &mut stream,
        request(HOST, "Connection: close\r\n").as_bytes(),
        PATIENCE,
    )
    .await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    server.assert_untouched();
    scene.dialled.assert_untouched();
}

#[tokio::test]
async fn address_gives_whatever_is_sent_to_it() {
    let scene = Scene::new().await;
    let net = format!("{}/32", scene.dialled.at.ip());
    let port = scene.port(Protocol::Tcp, scene.dialled.at.port());
    let object = external_object(&[], &[&net], port);
    scene.client.set(vec![egress(Mode::Deny, vec![object])]);
    let mut stream = scene.call().await;
    stream.write_all(BYTES).await.unwrap();
    scene.dialled.gets(BYTES).await;
}

// Claims: egress-4
#[tokio::test]
async fn host_with_no_address_outside_is_denied() {
    let scene = Scene::new().await;
    let (port, _) = http_app(&scene.named, "named").await;
    scene.gives(Mode::Allow, Protocol::Http, port);
    scene.client.set(vec![resolved(HOST, port, &[])]);
    let mut stream = scene.call().await;
    let close = request(HOST, "Connection: close\r\n");
    let answer = raw(&mut stream, close.as_bytes(), PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 403 "), "{answer}");
    assert!(
        answer.contains("weft-reason: egress-denied\r\n"),
        "{answer}"
    );
    scene.dialled.assert_untouched();
}

/// The wait for the controller is a second.
// Claims: egress-1
#[tokio::test]
async fn unexplained_address_is_denied() {
    let scene = Scene::new().await;
    scene.client.set(vec![egress(Mode::Deny, Vec::new())]);
    let other = Recorder::new(&scene.named).await;
    let (status, answer) = get(scene.client.call(other.at).await, "/", "").await;
    assert_eq!(status, 403, "{answer}");
    other.assert_untouched();
}

// Claims: egress-3
#[tokio::test]
async fn open_connections_end_when_they_are_denied() {
    let scene = Scene::new().await;
    let server = Recorder::new(&scene.named).await;
    // What passes unread, because nothing is named.
    let mut unread = scene.call().await;
    unread.write_all(BYTES).await.unwrap();
    scene.dialled.gets(BYTES).await;
    scene.gives(Mode::Deny, Protocol::Tls, server.at.port());
    ends_with_error(&mut unread).await;
    // What was given by its name.
    let mut named = scene.call().await;
    let bytes = hello(HOST);
    named.write_all(&bytes).await.unwrap();
    server.gets(&bytes).await;
    scene.client.set(vec![egress(Mode::Deny, Vec::new())]);
    ends_with_error(&mut named).await;
}

/// It ends by a reset, so that what came does not look whole.
async fn ends_with_error(stream: &mut TcpStream) {
    let mut came = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut came)).await;
    assert!(ended.expect("it is still open").is_err(), "{came:?}");
}

// Claims: egress-3
#[tokio::test]
async fn response_in_flight_ends_when_its_host_is_denied() {
    let scene = Scene::new().await;
    let listener = TcpListener::bind((scene.named.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    scene.gives(Mode::Deny, Protocol::Http, port);
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\npart";
        stream.write_all(head).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    let mut stream = scene.call().await;
    let sent = request(HOST, "Connection: close\r\n");
    stream.write_all(sent.as_bytes()).await.unwrap();
    until_part(&mut stream).await;
    scene.client.set(vec![egress(Mode::Deny, Vec::new())]);
    ends_with_error(&mut stream).await;
}

// Claims: egress-6
#[tokio::test]
async fn audit_counts_what_it_lets_through() {
    let scene = Scene::new().await;
    scene.client.set(vec![egress(Mode::Audit, Vec::new())]);
    let mut stream = scene.call().await;
    stream.write_all(BYTES).await.unwrap();
    scene.dialled.gets(BYTES).await;
    // Of requests each counts.
    let (port, _) = http_app(&scene.named, "named").await;
    scene.gives(Mode::Audit, Protocol::Http, port);
    let named = request(HOST, "Connection: close\r\n");
    let mut stream = scene.call().await;
    let answer = raw(&mut stream, named.as_bytes(), PATIENCE).await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let metrics = scene.client.metrics();
    assert!(
        metrics.contains("\nweft_audit_egress_total 1\n"),
        "{metrics}"
    );
}

/// Port 80 of Service `shop/api` stands for [`HOST`], which is served at this address.
fn standing(at: SocketAddr, denied: bool) -> v1::Resource {
    let endpoints = if denied {
        Vec::new()
    } else {
        vec![endpoint(at.ip(), at.port(), None)]
    };
    let external = v1::ExternalTarget {
        object: Some(v1::ObjectRef {
            kind: "ExternalService".to_owned(),
            namespace: "shop".to_owned(),
            name: "api".to_owned(),
        }),
        host: HOST.to_owned(),
        tls: None,
        denied,
        gateway: String::new(),
    };
    let name = wire::names::endpoints("shop", "api", 80);
    let content = v1::Endpoints {
        endpoints,
        external: Some(external),
        ..v1::Endpoints::default()
    };
    resource(&name, v1::resource::Content::Endpoints(content))
}

/// A Service that stands for the host, as users write it.
// Claims: egress-6
#[tokio::test]
async fn service_that_stands_for_host_sends_its_name() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let host = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&host, "outside").await;
    let at = SocketAddr::new(host.ip, port);
    client.set(service("api", vip().ip(), v1::Protocol::Http1, Vec::new()));
    client.set(vec![standing(at, false)]);
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 200, "{answer}");
    let received = seen.lock().remove(0);
    assert!(received.contains(&format!("host={HOST} ")), "{received}");
    client.set(vec![standing(at, true)]);
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 403, "{answer}");
    assert!(answer.contains("ExternalService shop/api"), "{answer}");
    assert!(seen.lock().is_empty());
}

// Claims: egress-3
#[tokio::test]
async fn upgraded_connection_of_service_ends_when_denied() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let host = Pod::new(&authority, "api").await;
    let listener = TcpListener::bind((host.ip, 0)).await.unwrap();
    let at = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let head = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\n\
            upgrade: websocket\r\n\r\npart";
        stream.write_all(head).await.unwrap();
        let _ = stream.read_to_end(&mut Vec::new()).await;
    });
    client.set(service("api", vip().ip(), v1::Protocol::Http1, Vec::new()));
    client.set(vec![standing(at, false)]);
    let mut stream = client.call(vip()).await;
    let sent = request("api.shop", "Connection: upgrade\r\nUpgrade: websocket\r\n");
    stream.write_all(sent.as_bytes()).await.unwrap();
    until_part(&mut stream).await;
    client.set(vec![standing(at, true)]);
    let ended = timeout(PATIENCE, stream.read_to_end(&mut Vec::new())).await;
    assert!(ended.is_ok(), "it is still open");
}

/// Reads until the server has sent `part`.
async fn until_part(stream: &mut TcpStream) {
    let mut came = [0; 4096];
    let mut all = Vec::new();
    while !all.windows(4).any(|part| part == b"part") {
        let read = timeout(PATIENCE, stream.read(&mut came)).await.unwrap();
        let read = read.unwrap();
        assert!(read > 0, "it ended");
        all.extend_from_slice(&came[..read]);
    }
}
