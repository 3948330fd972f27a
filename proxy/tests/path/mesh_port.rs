//! Who may use the port between proxies, and for what.

use std::time::{Duration, SystemTime};

use http::{Method, Request};
use http_body_util::Empty;
use hyper::body::Bytes;
use hyper_util::rt::{TokioExecutor, TokioIo};
use identity::tls::{self, CertHandle, MESH_ALPN};
use policy::name::SpiffeId;
use tokio::net::TcpStream;
use weft_proxy::MESH_PORT;
use wire::v1::Protocol;

use crate::support::{Authority, Pod, endpoint, endpoints, get, http_app, id, pair, service, vip};

pub(super) type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

/// A hand-made peer: real TLS, requests of its own choice.
pub(super) async fn peer(
    authority: &Authority,
    certs: &CertHandle,
    server: &Pod,
) -> Result<Sender, std::io::Error> {
    let config = tls::mesh_client_config(&authority.roots(), certs, id("api"), &[MESH_ALPN]);
    let stream = TcpStream::connect((server.ip, MESH_PORT)).await?;
    let secured = tokio_rustls::TlsConnector::from(config)
        .connect(tls::peer_name(), stream)
        .await?;
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

#[tokio::test]
async fn the_mesh_port_delivers_to_no_port_of_the_proxy_and_to_no_other_address() {
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
    // An upgrade says what to; anything else that would become bytes is refused.
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
            // TLS 1.3 tells a client of its refusal after the handshake.
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

#[tokio::test]
async fn an_identity_of_another_trust_domain_is_refused_though_the_same_root_signed_it() {
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

#[tokio::test]
async fn a_peer_with_another_identity_than_expected_gets_no_request() {
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
