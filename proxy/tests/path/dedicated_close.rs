//! Start and end of dedicated connections: to which peers they are opened, and that none loses a
//! request or sends one twice.
//!
//! Claims: mesh-15

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use identity::Roots;
use identity::tls::{self, CertHandle, ClientAuth, DEDICATED_ALPN, MESH_ALPN};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;
use weft_proxy::Acquire;
use weft_proxy::MESH_PORT;
use wire::v1::Protocol;

use super::dedicated::{dedicated, warm};
use crate::support::{
    Authority, Pod, SeenRequests, endpoint, endpoints, get, http_app, id, pair, raw, service, vip,
};

mod peer;

const PATIENCE: Duration = Duration::from_secs(5);
const POST: &str =
    "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello";

async fn post(client: &Pod) -> String {
    raw(&mut client.call(vip()).await, POST.as_bytes(), PATIENCE).await
}

/// A hand-made peer proxy with the transport of dedicated connections, on a real server's mesh
/// port.
struct Peer {
    authority: Authority,
    certs: CertHandle,
    server: Pod,
    port: u16,
    seen: SeenRequests,
}

impl Peer {
    async fn new() -> Self {
        let authority = Authority::new();
        let server = Pod::new(&authority, "api").await;
        let (port, seen) = http_app(&server, "api").await;
        let certs = authority.leaf("web", Duration::from_secs(600), SystemTime::now());
        Self {
            authority,
            certs,
            server,
            port,
            seen,
        }
    }

    async fn connect(&self) -> TlsStream<TcpStream> {
        connect_to(&self.authority.roots(), &self.certs, &self.server)
            .await
            .unwrap()
    }

    fn head(&self, line: &str, more: &str) -> String {
        let port = self.port;
        format!(
            "{line} HTTP/1.1\r\nHost: h\r\nweft-port: {port}\r\nweft-protocol: http1\r\n{more}\r\n"
        )
    }
}

async fn connect_to(
    roots: &Roots,
    certs: &CertHandle,
    server: &Pod,
) -> std::io::Result<TlsStream<TcpStream>> {
    let alpn = [DEDICATED_ALPN, MESH_ALPN];
    let config = tls::mesh_client_config(roots, certs, id("api"), &alpn);
    let stream = TcpStream::connect((server.ip, MESH_PORT)).await?;
    let secured = tokio_rustls::TlsConnector::from(config)
        .connect(tls::peer_name(), stream)
        .await?;
    assert_eq!(secured.get_ref().1.alpn_protocol(), Some(DEDICATED_ALPN));
    Ok(secured)
}

/// Reads one answer of the harness' application.
async fn answer<S: AsyncReadExt + Unpin>(stream: &mut S) -> String {
    let mut answer = String::new();
    while !answer.contains("body=") && !answer.contains("weft: ") {
        let mut more = [0; 2048];
        let read = timeout(PATIENCE, stream.read(&mut more));
        let count = read.await.unwrap().unwrap();
        assert!(count > 0, "ended after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&more[..count]));
    }
    answer
}

#[tokio::test]
async fn the_server_says_goodbye_only_between_two_requests() {
    let peer = Peer::new().await;
    // An application that lets its caller wait.
    let slow = TcpListener::bind((peer.server.ip, 0)).await.unwrap();
    let slow_port = slow.local_addr().unwrap().port();
    let mut idle = peer.connect().await;
    let mut resting = peer.connect().await;
    let mut fresh = peer.connect().await;
    for connection in [&mut idle, &mut resting] {
        let get = peer.head("GET /a", "");
        connection.write_all(get.as_bytes()).await.unwrap();
        assert!(answer(connection).await.starts_with("HTTP/1.1 200"));
    }
    // One of them long enough to be taken apart.
    tokio::time::sleep(Duration::from_millis(400)).await;
    idle.write_all(peer.head("GET /a", "").as_bytes())
        .await
        .unwrap();
    answer(&mut idle).await;
    let mut waiting = peer.connect().await;
    let request = peer
        .head("POST /w", "Content-Length: 5\r\n")
        .replace(&peer.port.to_string(), &slow_port.to_string());
    waiting.write_all(request.as_bytes()).await.unwrap();
    waiting.write_all(b"hello").await.unwrap();
    let (mut application, _) = slow.accept().await.unwrap();
    let before = peer.seen.lock().len();
    peer.server.proxy.drain.begin();
    for (case, connection) in [
        ("idle", &mut idle),
        ("resting", &mut resting),
        ("fresh", &mut fresh),
    ] {
        // Sent in the moment of the close: dropped by the server, but taken off
        // the socket, so that no reset comes before `close_notify` is read.
        let late = peer.head("POST /late", "Content-Length: 5\r\n");
        for chunk in [&late, "hel", "lo"] {
            tokio::time::sleep(Duration::from_millis(10)).await;
            connection
                .write_all(chunk.as_bytes())
                .await
                .unwrap_or_else(|error| panic!("{case}: {error}"));
        }
        let mut rest = Vec::new();
        let read = timeout(PATIENCE, connection.read_to_end(&mut rest))
            .await
            .unwrap();
        assert_eq!((case, read.unwrap(), &rest[..]), (case, 0, &b""[..]));
    }
    assert_eq!(
        peer.seen.lock().len(),
        before,
        "a request was taken after all"
    );
    // What was taken is answered, with a word that it was the last.
    let ok = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nbody=ok";
    tokio::time::sleep(Duration::from_millis(700)).await;
    application.write_all(ok).await.unwrap();
    let mut rest = Vec::new();
    timeout(PATIENCE, waiting.read_to_end(&mut rest))
        .await
        .unwrap()
        .unwrap();
    let rest = String::from_utf8(rest).unwrap().to_lowercase();
    assert!(
        rest.contains("connection: close") && rest.ends_with("body=ok"),
        "{rest}"
    );
}

#[tokio::test]
async fn server_stopping_mid_request_breaks_dedicated_connection() {
    let (made, peer) = tokio::sync::oneshot::channel();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    // A runtime of its own, which ends as that of a proxy does.
    let process = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .unwrap();
        runtime.block_on(async {
            let peer = Peer::new().await;
            let slow = TcpListener::bind((peer.server.ip, 0)).await.unwrap();
            let port = slow.local_addr().unwrap().port();
            let _ = made.send((peer, port));
            let _held = slow.accept().await;
            let _ = stopped.await;
        });
    });
    let (peer, port) = peer.await.ok().unwrap();
    let mut connection = peer.connect().await;
    let request = peer
        .head("GET /w", "")
        .replace(&peer.port.to_string(), &port.to_string());
    connection.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(Duration::from_millis(300)).await;
    drop(stop);
    process.join().unwrap();
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, connection.read_to_end(&mut rest))
        .await
        .unwrap();
    assert!(ended.is_err(), "a clean end: {rest:?}");
}

#[tokio::test]
async fn a_peer_that_leaves_in_a_request_cancels_it() {
    let peer = Peer::new().await;
    let slow = TcpListener::bind((peer.server.ip, 0)).await.unwrap();
    let port = slow.local_addr().unwrap().port();
    let mut connection = peer.connect().await;
    let request = peer
        .head("GET /w", "")
        .replace(&peer.port.to_string(), &port.to_string());
    connection.write_all(request.as_bytes()).await.unwrap();
    let (mut application, _) = slow.accept().await.unwrap();
    drop(connection);
    let mut rest = Vec::new();
    timeout(PATIENCE, application.read_to_end(&mut rest))
        .await
        .expect("the request goes on")
        .unwrap();
}

#[tokio::test]
async fn a_drain_between_posts_loses_none_of_them() {
    let (client, server, _, seen) = pair(Protocol::Http1).await;
    let dedicated = dedicated(&client, &server);
    warm(&client, &dedicated).await;
    let before = seen.lock().len();
    let taken = dedicated.used().1;
    for at in 0..400 {
        if at == 50 {
            server.proxy.drain.begin();
        }
        let answer = post(&client).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{at}: {answer}");
        if at > 50 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    assert_eq!(seen.lock().len(), before + 400);
    assert!(dedicated.used().1 > taken + 50, "{dedicated:?}");
}

#[tokio::test]
async fn callers_without_a_valid_certificate_get_no_line() {
    let peer = Peer::new().await;
    let stranger = Authority::new();
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    for (case, certs) in [
        ("another CA", stranger.leaf("web", hour, now)),
        ("none", CertHandle::empty()),
    ] {
        let mut rest = String::new();
        if let Ok(mut connection) = connect_to(&peer.authority.roots(), &certs, &peer.server).await
        {
            let _ = connection
                .write_all(peer.head("GET /a", "").as_bytes())
                .await;
            let _ = timeout(PATIENCE, connection.read_to_string(&mut rest))
                .await
                .unwrap();
        }
        assert_eq!((case, &*rest), (case, ""));
    }
    assert!(peer.seen.lock().is_empty());
    // Control: the same with a good one.
    let mut connection = peer.connect().await;
    connection
        .write_all(peer.head("GET /a", "").as_bytes())
        .await
        .unwrap();
    assert!(answer(&mut connection).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn dedicated_connection_refuses_tunnels_and_proxy_ports() {
    let peer = Peer::new().await;
    for (case, request) in [
        (
            "bytes",
            peer.head("POST /", "Content-Length: 0\r\n")
                .replace("http1", "tcp"),
        ),
        (
            "CONNECT",
            peer.head("CONNECT h:80", "weft-upgrade: x\r\nweft-target: /\r\n"),
        ),
        (
            "an own port",
            peer.head("GET /", "")
                .replace(&peer.port.to_string(), "15106"),
        ),
    ] {
        let mut connection = peer.connect().await;
        connection.write_all(request.as_bytes()).await.unwrap();
        let answer = answer(&mut connection).await;
        assert!(answer.starts_with("HTTP/1.1 400"), "{case}: {answer}");
    }
    assert!(peer.seen.lock().is_empty());
}

#[tokio::test]
async fn peer_with_wrong_identity_gets_no_dedicated_connection() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    client.set(vec![endpoints(
        "api",
        vec![endpoint(server.ip, port, Some("other"))],
    )]);
    let dedicated = Arc::clone(
        &client
            .proxy
            .peers
            .mesh(server.ip, &id("other"), &Arc::default())
            .dedicated,
    );
    for _ in 0..10 {
        assert_eq!(get(client.call(vip()).await, "/", "").await.0, 503);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(dedicated.used(), (0, 0));
    assert!(seen.lock().is_empty());
}

#[tokio::test]
async fn dedicated_connections_are_few_and_end_when_idle() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let dedicated = dedicated(&client, &server);
    // Called once: not worth a second handshake.
    get(client.call(vip()).await, "/", "").await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(dedicated.used(), (0, 0));
    warm(&client, &dedicated).await;
    for _ in 0..20 {
        let calls = (0..8).map(|_| async { get(client.call(vip()).await, "/", "").await.0 });
        assert_eq!(futures::future::join_all(calls).await, [200; 8]);
        tokio::time::sleep(Duration::from_millis(60)).await;
    }
    assert!(dedicated.used().0 <= 1, "{dedicated:?}");
    assert!(!dedicated.sweep(Duration::from_secs(60)), "used just now");
    assert!(dedicated.sweep(Duration::ZERO), "{dedicated:?}");
    assert_eq!(dedicated.used().0, 0);
    // And come again with use.
    warm(&client, &dedicated).await;
}

#[tokio::test]
async fn concurrent_requests_use_http2_until_traffic_calms() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let dedicated = dedicated(&client, &server);
    warm(&client, &dedicated).await;
    let concurrent = [dedicated.beside(), dedicated.beside(), dedicated.beside()];
    drop(concurrent);
    assert!(matches!(dedicated.offer(), Acquire::No), "{dedicated:?}");
    tokio::time::sleep(Duration::from_millis(30)).await;
    assert!(
        matches!(dedicated.offer(), Acquire::Leased(_)),
        "{dedicated:?}"
    );
    // Two at once are none.
    warm(&client, &dedicated).await;
    drop([dedicated.beside(), dedicated.beside()]);
    assert!(
        matches!(dedicated.offer(), Acquire::Leased(_)),
        "{dedicated:?}"
    );
}
