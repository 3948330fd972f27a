//! Access to the port between proxies: which peers, and for what.
//!
//! Claims: attack-28, attack-6

use std::time::{Duration, SystemTime};

use http::{Method, Request};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::tls::{self, CertHandle, MESH_ALPN};
use policy::name::SpiffeId;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use tokio_rustls::client::TlsStream;
use weft_proxy::{Budget, MESH_PORT};
use wire::v1::Protocol;

use super::answers::sum;
use crate::support::{Authority, Pod, endpoint, endpoints, get, http_app, id, pair, service, vip};

pub(super) type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

pub(super) async fn secured(
    authority: &Authority,
    certs: &CertHandle,
    server: &Pod,
) -> Result<TlsStream<TcpStream>, std::io::Error> {
    let config = tls::mesh_client_config(&authority.roots(), certs, id("api"), &[MESH_ALPN]);
    let stream = TcpStream::connect((server.ip, MESH_PORT)).await?;
    tokio_rustls::TlsConnector::from(config)
        .connect(tls::peer_name(), stream)
        .await
}

/// A hand-made peer: real TLS, requests of its own choice.
pub(super) async fn peer(
    authority: &Authority,
    certs: &CertHandle,
    server: &Pod,
) -> Result<Sender, std::io::Error> {
    let secured = secured(authority, certs, server).await?;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(secured))
            .await
            .map_err(std::io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

pub(super) async fn ask(
    sender: &mut Sender,
    method: Method,
    protocol: &str,
    uri: &str,
    port: &str,
) -> Result<u16, hyper::Error> {
    let request = Request::builder()
        .method(method)
        .uri(uri)
        .header("weft-port", port)
        .header("weft-protocol", protocol)
        .body(Empty::new())
        .unwrap();
    sender
        .send_request(request)
        .await
        .map(|response| response.status().as_u16())
}

// Claims: mesh-3c
#[tokio::test]
async fn mesh_port_reaches_no_proxy_port_or_other_address() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let certs = authority.leaf("web", Duration::from_secs(60), SystemTime::now());
    let mut sender = peer(&authority, &certs, &server).await.unwrap();
    for own in ["15101", "15106", "15108", "15190", "0", "", "70000", "x"] {
        assert_eq!(
            ask(&mut sender, Method::GET, "http1", "http://h/", own)
                .await
                .unwrap(),
            400,
            "{own}"
        );
    }
    // The authority names another address; only the connection's own counts.
    let other = format!("http://127.0.0.1:{port}/");
    assert_eq!(
        ask(&mut sender, Method::GET, "http1", &other, &port.to_string())
            .await
            .unwrap(),
        200
    );
    assert_eq!(seen.lock().len(), 1);
    // An application that listens on 127.0.0.1 only stays out of reach.
    let local = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let local_port = local.local_addr().unwrap().port();
    let uri = format!("http://127.0.0.1:{local_port}/");
    let local_port = local_port.to_string();
    assert_eq!(
        ask(&mut sender, Method::POST, "tcp", &uri, &local_port)
            .await
            .unwrap(),
        503
    );
    // An upgrade names its protocol; anything else that would become bytes is refused.
    let uri = format!("127.0.0.1:{port}");
    assert_eq!(
        ask(
            &mut sender,
            Method::CONNECT,
            "tcp1",
            &uri,
            &port.to_string()
        )
        .await
        .unwrap(),
        400
    );
    assert_eq!(seen.lock().len(), 1);
}

// Claims: R8, mesh-3b
#[tokio::test]
async fn callers_without_a_valid_certificate_are_refused() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let stranger = Authority::new();
    let now = SystemTime::now();
    let hour = Duration::from_secs(3600);
    let cases = [
        ("another CA", stranger.leaf("web", hour, now)),
        (
            "expired",
            authority.leaf("web", Duration::from_secs(1), now - hour),
        ),
        ("none", CertHandle::empty()),
    ];
    for (case, certs) in cases {
        let refused = match peer(&authority, &certs, &server).await {
            Err(_) => true,
            // A TLS 1.3 client receives its refusal after the handshake.
            Ok(mut sender) => ask(
                &mut sender,
                Method::GET,
                "http1",
                "http://h/",
                &port.to_string(),
            )
            .await
            .is_err(),
        };
        assert!(refused, "{case}");
    }
    assert!(seen.lock().is_empty());
    let metrics = server.metrics();
    for reason in ["unknown-authority", "expired", "no-certificate"] {
        let line =
            format!("weft_tls_failures_total{{direction=\"inbound\",reason=\"{reason}\"}} 1");
        assert!(metrics.contains(&line), "{line}\n{metrics}");
    }
    // Control: a good certificate on the same way.
    let mut sender = peer(&authority, &authority.leaf("web", hour, now), &server)
        .await
        .unwrap();
    assert_eq!(
        ask(
            &mut sender,
            Method::GET,
            "http1",
            "http://h/",
            &port.to_string()
        )
        .await
        .unwrap(),
        200
    );
}

// Claims: A4
#[tokio::test]
async fn foreign_trust_domain_identity_is_refused_despite_same_root() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let (now, hour) = (SystemTime::now(), Duration::from_secs(3600));
    let port = port.to_string();
    let elsewhere = SpiffeId::of("other.example", "shop", "web").unwrap();
    let abroad = authority.leaf_named(elsewhere, None, hour, now);
    let refused = match peer(&authority, &abroad, &server).await {
        Err(_) => true,
        Ok(mut sender) => ask(&mut sender, Method::GET, "http1", "http://h/", &port)
            .await
            .is_err(),
    };
    assert!(refused);
    assert!(seen.lock().is_empty());
    // Control: the same account in our trust domain.
    let ours = authority.leaf("web", hour, now);
    let mut sender = peer(&authority, &ours, &server).await.unwrap();
    let status = ask(&mut sender, Method::GET, "http1", "http://h/", &port).await;
    assert_eq!(status.unwrap(), 200);
}

/// Lets so many seconds pass, each of which leaves time to all that goes on.
async fn pass(seconds: u64) {
    for _ in 0..seconds {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        sleep(Duration::from_millis(20)).await;
    }
}

async fn status(sender: &mut Sender, port: &str) -> Result<u16, hyper::Error> {
    ask(sender, Method::GET, "http1", "http://h/", port).await
}

// Claims: attack-8
#[tokio::test]
async fn connection_takes_no_request_after_caller_certificate_expiry() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, _) = http_app(&server, "api").await;
    let port = port.to_string();
    let [short, long] = [40, 3600].map(|seconds| {
        let life = Duration::from_secs(seconds);
        authority.leaf("web", life, SystemTime::now())
    });
    let mut ends = peer(&authority, &short, &server).await.unwrap();
    let mut stays = peer(&authority, &long, &server).await.unwrap();
    let slow = TcpListener::bind((server.ip, 0)).await.unwrap();
    let slow_port = slow.local_addr().unwrap().port().to_string();
    let mut other = ends.clone();
    let in_flight = tokio::spawn(async move { status(&mut other, &slow_port).await });
    let (mut served, _) = slow.accept().await.unwrap();
    let _ = served.read(&mut [0; 512]).await.unwrap();
    pass(20).await;
    for sender in [&mut ends, &mut stays] {
        let status = status(sender, &port).await;
        assert_eq!(status.unwrap(), 200, "it has not ended");
    }
    pass(30).await;
    let refused = async {
        while status(&mut ends, &port).await.is_ok() {
            sleep(Duration::from_millis(10)).await;
        }
    };
    let refused = timeout(Duration::from_secs(10), refused).await;
    assert!(refused.is_ok(), "it still takes requests");
    assert_eq!(status(&mut stays, &port).await.unwrap(), 200);
    // Its request in flight completes.
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
    served.write_all(answer).await.unwrap();
    assert_eq!(in_flight.await.unwrap().unwrap(), 200);
}

/// HTTP in a tunnel, whose connection no other party ends.
// Claims: attack-8
#[tokio::test]
async fn tunnel_takes_no_request_after_caller_certificate_expiry() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, _) = http_app(&server, "api").await;
    let lives = [40, 3600].map(|seconds| {
        let life = Duration::from_secs(seconds);
        authority.leaf("web", life, SystemTime::now())
    });
    let mut answers = Vec::new();
    for certs in &lives {
        let secured = secured(&authority, certs, &server).await.unwrap();
        let (sender, connection) = h2::client::handshake(secured).await.unwrap();
        tokio::spawn(connection);
        let request = Request::post(format!("http://{}:{port}/", server.ip))
            .header("weft-port", port.to_string())
            .header("weft-protocol", "tcp")
            .body(())
            .unwrap();
        let mut sender = sender.ready().await.unwrap();
        let (answer, mut sent) = sender.send_request(request, false).unwrap();
        let mut bytes = answer.await.unwrap().into_body();
        let ask = Bytes::from_static(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n");
        for (second, passes) in [(0, 20), (20, 30)] {
            sent.send_data(ask.clone(), false).unwrap();
            let answer = timeout(Duration::from_secs(5), bytes.data()).await.unwrap();
            let answer = answer.unwrap().unwrap();
            assert!(answer.starts_with(b"HTTP/1.1 200"), "{second}: {answer:?}");
            let _ = bytes.flow_control().release_capacity(answer.len());
            pass(passes).await;
        }
        // The end is announced with the response to one more request.
        let mut answered = 0;
        for _ in 0..3 {
            let _ = sent.send_data(ask.clone(), false);
            let answer = timeout(Duration::from_secs(5), bytes.data()).await;
            answered += usize::from(matches!(answer, Ok(Some(Ok(_)))));
        }
        answers.push(answered);
    }
    assert_eq!(answers[1], 3, "it has not ended");
    assert!(answers[0] <= 1, "it still takes requests");
}

/// The clock of certificates goes on as it does, so that each is good for new connections.
// Claims: attack-8
#[tokio::test]
async fn the_end_of_a_certificate_costs_no_call() {
    let authority = Authority::new();
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    let leaf = || authority.leaf("web", Duration::from_secs(20), SystemTime::now());
    let certs = leaf();
    let client = Pod::with(authority.roots(), certs.clone(), "web").await;
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    client.reaches(&server, port);
    let connections = || sum(&server, "weft_connections_total", &["security=\"mtls\""]);
    let mut before = 0.0;
    for calls in 1..=50 {
        certs.store((*leaf().current().unwrap()).clone());
        let (status, answer) = get(client.call(vip()).await, "/", "").await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(seen.lock().len(), calls);
        pass(1).await;
        if calls == 10 {
            before = connections();
        }
    }
    assert!(connections() >= before + 2.0, "no connection has ended");
}

// Claims: R8, mesh-3b
#[tokio::test]
async fn peer_with_wrong_identity_gets_no_request() {
    let (client, server, port, seen) = pair(Protocol::Http1).await;
    client.set(vec![endpoints(
        "api",
        vec![endpoint(server.ip, port, Some("other"))],
    )]);
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("weft-reason: tls-failed"), "{answer}");
    assert!(seen.lock().is_empty());
    let metrics = client.metrics();
    let line = "weft_tls_failures_total{direction=\"outbound\",reason=\"wrong-identity\"} 1";
    assert!(metrics.contains(line), "{metrics}");
}

/// It proved nothing wrong: its process may have no CPU, or be gone.
#[tokio::test]
async fn a_handshake_without_an_answer_is_no_failed_tls() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let certs = authority.leaf("api", Duration::from_secs(3600), SystemTime::now());
    let budget = Budget::new(64 << 20);
    let silent = Pod::unserved(&budget, authority.roots(), certs, "api");
    let listener = TcpListener::bind((silent.ip, MESH_PORT)).await.unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        loop {
            open.push(listener.accept().await.unwrap());
        }
    });
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    client.reaches(&silent, 80);
    let (status, answer) = get(client.call(vip()).await, "/", "").await;
    assert_eq!(status, 503, "{answer}");
    assert!(answer.contains("weft-reason: connect-failed"), "{answer}");
    assert!(sum(&client, "weft_tls_failures_total", &["reason=\"timeout\""]) > 0.0);
}

#[tokio::test]
async fn a_meshed_endpoint_is_never_called_in_plaintext() {
    let authority = Authority::new();
    let client = Pod::with(authority.roots(), CertHandle::empty(), "web").await;
    let server = Pod::new(&authority, "api").await;
    let (port, seen) = http_app(&server, "api").await;
    client.set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    client.reaches(&server, port);
    let (status, _) = get(client.call(vip()).await, "/", "").await;
    assert!(status >= 500, "{status}");
    assert!(seen.lock().is_empty());
}
