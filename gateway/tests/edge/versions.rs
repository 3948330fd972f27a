//! Versions of HTTP on both sides of a Gateway, gRPC, and connections that become something else.

use http::{Request, Version};
use http_body_util::{BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use wire::v1::Protocol;

use super::harness::{ACCOUNT, Certificate, EVERY_VERSION, Edge, SOON, all, http, https, routes};
use crate::answers::{App, OK};

const WEBSOCKET: &[u8] = b"GET /ws HTTP/1.1\r\nHost: web.example\r\nOrigin: ws://gateway/x\r\n\
                           Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

type Sender = SendRequest<Empty<Bytes>>;

/// A Gateway with a listener of HTTP and one of HTTPS.
async fn both() -> (Edge, Certificate) {
    let certificate = Certificate::of(&["web.example"]);
    let edge = Edge::with(vec![
        http("http", None, vec![routes(None, all())]),
        https("https", None, "web", vec![routes(None, all())]),
    ])
    .await;
    edge.pod.set(vec![certificate.resource("web")]);
    (edge, certificate)
}

async fn http2<S>(io: S) -> Sender
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(io));
    let (sender, connection) = handshake.await.unwrap();
    tokio::spawn(connection);
    sender
}

/// A client of HTTP/2 in TLS, and one in plaintext.
async fn clients(edge: &Edge, certificate: &Certificate) -> [Sender; 2] {
    let config = certificate.client(EVERY_VERSION, &["h2", "http/1.1"]);
    let tls = edge.tls_by(443, "web.example", config).await.unwrap();
    assert_eq!(tls.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    [http2(tls).await, http2(edge.connect(80).await).await]
}

async fn send(
    sender: &mut Sender,
    uri: &str,
    content_type: &str,
) -> (http::response::Parts, String) {
    let request = Request::post(uri)
        .version(Version::HTTP_2)
        .header("content-type", content_type)
        .body(Empty::new())
        .unwrap();
    let sent = timeout(SOON, sender.send_request(request)).await;
    let answer: http::Response<Incoming> = sent.expect("an answer in time").unwrap();
    let (parts, body) = answer.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    (parts, String::from_utf8_lossy(&body).into_owned())
}

#[tokio::test]
async fn http2_of_clients_becomes_what_the_application_speaks() {
    let (edge, certificate) = both().await;
    let old = App::new(edge.server.ip, OK).await;
    for (declared, port, spoken) in [
        (Protocol::Detect, old.port, "post /a?b http/1.1"),
        (Protocol::Http1, old.port, "post /a?b http/1.1"),
        (
            Protocol::Http2,
            edge.app_port,
            "api POST http://web.example/a?b ",
        ),
    ] {
        edge.backend("api", declared, port);
        for (at, mut sender) in clients(&edge, &certificate).await.into_iter().enumerate() {
            let scheme = ["https", "http"][at];
            let uri = format!("{scheme}://web.example/a?b");
            let (parts, body) = send(&mut sender, &uri, "text/plain").await;
            assert_eq!(parts.status, 200, "{declared:?} {scheme}: {body}");
            let seen = if port == old.port {
                old.heads().last().cloned().unwrap()
            } else {
                edge.last_seen()
            };
            assert!(seen.starts_with(spoken), "{declared:?} {scheme}: {seen}");
        }
    }
}

#[tokio::test]
async fn grpc_is_http2_whatever_is_declared() {
    let (edge, certificate) = both().await;
    for declared in [Protocol::Detect, Protocol::Grpc] {
        edge.backend("api", declared, edge.app_port);
        for mut sender in clients(&edge, &certificate).await {
            let uri = "http://web.example/a.B/C";
            let (parts, body) = send(&mut sender, uri, "application/grpc").await;
            assert_eq!(parts.status, 200, "{declared:?}: {body}");
            let seen = edge.last_seen();
            assert!(
                seen.starts_with("api POST http://web.example/a.B/C"),
                "{seen}"
            );
            let id = format!("/ns/shop/sa/{ACCOUNT} ");
            assert!(seen.contains(&id), "{seen}");
        }
    }
}

// Claims: gateways-3
#[tokio::test]
async fn grpc_learns_of_refusals_by_its_own_status() {
    let certificate = Certificate::of(&["one.example", "two.example"]);
    let edge = Edge::with(vec![
        https("one", Some("one.example"), "web", vec![routes(None, all())]),
        https("two", Some("two.example"), "web", vec![routes(None, all())]),
    ])
    .await;
    edge.pod.set(vec![certificate.resource("web")]);
    let config = certificate.client(EVERY_VERSION, &["h2"]);
    let tls = edge.tls_by(443, "one.example", config).await.unwrap();
    let mut sender = http2(tls).await;
    for (host, status) in [("two.example", "14"), ("three.example", "12")] {
        let uri = format!("https://{host}/a.B/C");
        let (parts, _) = send(&mut sender, &uri, "application/grpc").await;
        assert_eq!(parts.status, 200);
        assert_eq!(parts.headers["grpc-status"], status, "{host}");
        let (parts, body) = send(&mut sender, &uri, "text/plain").await;
        let expected = if status == "14" { 421 } else { 404 };
        assert_eq!(parts.status, expected, "{host}: {body}");
    }
}

async fn head<S: AsyncRead + Unpin>(stream: &mut S) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(SOON, stream.read_u8()).await;
        head.push(byte.expect("a head must come").unwrap());
    }
    String::from_utf8(head).unwrap().to_lowercase()
}

/// Returns both ends.
async fn speaks_both_ways<S>(mut client: S, application: &TcpListener) -> (S, TcpStream)
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    client.write_all(WEBSOCKET).await.unwrap();
    let accepted = timeout(SOON, application.accept()).await;
    let (mut application, _) = accepted.expect("it must be asked").unwrap();
    let asked = head(&mut application).await;
    assert!(asked.contains("upgrade: websocket"), "{asked}");
    assert!(asked.contains(ACCOUNT), "{asked}");
    application.write_all(SWITCHED).await.unwrap();
    let answer = head(&mut client).await;
    assert!(answer.starts_with("http/1.1 101 "), "{answer}");
    let mut got = [0; 4];
    client.write_all(b"ping").await.unwrap();
    client.flush().await.unwrap();
    let read = timeout(SOON, application.read_exact(&mut got)).await;
    read.expect("bytes must come").unwrap();
    assert_eq!(&got, b"ping");
    application.write_all(b"pong").await.unwrap();
    let read = timeout(SOON, client.read_exact(&mut got)).await;
    read.expect("bytes must come").unwrap();
    assert_eq!(&got, b"pong");
    (client, application)
}

/// Whether a stream ends soon.
async fn ends<S: AsyncRead + Unpin>(mut stream: S) -> bool {
    let mut rest = Vec::new();
    timeout(SOON, stream.read_to_end(&mut rest)).await.is_ok()
}

#[tokio::test]
async fn websocket_passes_in_plaintext_and_in_tls() {
    let (edge, certificate) = both().await;
    let application = TcpListener::bind((edge.server.ip, 0)).await.unwrap();
    let port = application.local_addr().unwrap().port();
    edge.backend("api", Protocol::Http1, port);
    speaks_both_ways(edge.connect(80).await, &application).await;
    let tls = edge.tls(443, "web.example", &certificate).await.unwrap();
    speaks_both_ways(tls, &application).await;
}

// Claims: gateways-3
#[tokio::test]
async fn websocket_ends_with_its_listener_or_certificate() {
    let (edge, certificate) = both().await;
    let application = TcpListener::bind((edge.server.ip, 0)).await.unwrap();
    let port = application.local_addr().unwrap().port();
    edge.backend("api", Protocol::Http1, port);
    let (mut plain, mut served) = speaks_both_ways(edge.connect(80).await, &application).await;
    let tls = edge.tls(443, "web.example", &certificate).await.unwrap();
    let (secured, by_tls) = speaks_both_ways(tls, &application).await;
    let name = wire::names::certificate("shop", "web");
    edge.pod.replace(&name, Vec::new());
    assert!(ends(secured).await && ends(by_tls).await);
    // The other one goes on until its own listener goes.
    plain.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    let read = timeout(SOON, served.read_exact(&mut got)).await;
    read.expect("bytes must come").unwrap();
    edge.listen(Vec::new());
    assert!(ends(plain).await && ends(served).await);
}

/// All listeners of the port share its connections.
#[tokio::test]
async fn plain_websocket_ends_with_listener_of_its_host() {
    let of = |host: &str| http(host, Some(host), vec![routes(None, all())]);
    let edge = Edge::with(vec![of("web.example"), of("*.other")]).await;
    let application = TcpListener::bind((edge.server.ip, 0)).await.unwrap();
    let port = application.local_addr().unwrap().port();
    edge.backend("api", Protocol::Http1, port);
    let (mut plain, mut served) = speaks_both_ways(edge.connect(80).await, &application).await;
    edge.listen(vec![of("*.example"), of("*.other")]);
    plain.write_all(b"ping").await.unwrap();
    let mut got = [0; 4];
    let read = timeout(SOON, served.read_exact(&mut got)).await;
    read.expect("another listener is for its host").unwrap();
    edge.listen(vec![of("*.other")]);
    assert!(ends(plain).await && ends(served).await);
}
