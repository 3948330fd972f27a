//! TLS that the proxy begins to a server outside the mesh, for requests that the application sends
//! in plaintext.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rcgen::{CertifiedKey, KeyPair, generate_simple_self_signed};
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::PrivateKeyDer;
use rustls::version::{TLS12, TLS13};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use wire::v1;
use wire::v1::egress::Mode;
use wire::v1::external_port::Protocol;

use crate::support::{
    Authority, Pod, egress, external, external_object, raw, resolved, resource, service, vip,
};

const HOST: &str = "api.pay.example";
const PATIENCE: Duration = Duration::from_secs(10);

/// A server outside the mesh that speaks HTTP/1.1 over TLS, and what came to it: the server name,
/// and the request.
struct Server {
    at: SocketAddr,
    seen: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    async fn new(
        pod: &Pod,
        certified: &CertifiedKey<KeyPair>,
        version: &'static rustls::SupportedProtocolVersion,
    ) -> Self {
        let key = PrivateKeyDer::Pkcs8(certified.signing_key.serialize_der().into());
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certified.cert.der().clone()], key)
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind((pod.ip, 0)).await.unwrap();
        let server = Self {
            at: listener.local_addr().unwrap(),
            seen: Arc::default(),
        };
        let seen = Arc::clone(&server.seen);
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, seen) = (acceptor.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    // A client that does not trust it leaves.
                    if let Ok(stream) = acceptor.accept(stream).await {
                        serve(stream, &seen).await;
                    }
                });
            }
        });
        server
    }
}

/// Answers one request.
async fn serve(mut stream: TlsStream<TcpStream>, seen: &Mutex<Vec<(String, String)>>) {
    let name = stream.get_ref().1.server_name().unwrap_or("-").to_owned();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let Ok(byte) = stream.read_u8().await else {
            return;
        };
        head.push(byte);
    }
    let head = String::from_utf8(head).unwrap();
    seen.lock().push((name, head));
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok";
    stream.write_all(answer).await.unwrap();
    let _ = stream.shutdown().await;
}

fn self_signed(name: &str) -> CertifiedKey<KeyPair> {
    generate_simple_self_signed(vec![name.to_owned()]).unwrap()
}

fn tls(roots: &CertifiedKey<KeyPair>, server_name: &str) -> v1::OriginateTls {
    v1::OriginateTls {
        server_name: server_name.to_owned(),
        roots: Some(roots.cert.pem()),
    }
}

async fn ask(stream: &mut TcpStream, host: &str) -> String {
    let request = format!("GET /a HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n");
    raw(stream, request.as_bytes(), PATIENCE).await
}

// Claims: egress-5
#[tokio::test]
async fn plaintext_leaves_in_tls_to_a_proven_name_only() {
    let authority = Authority::new();
    let (good, other) = (self_signed(HOST), self_signed("b.pay.example"));
    let dialled: SocketAddr = ([203, 0, 113, 7], 80).into();
    for (case, certified, roots, server_name, version, arrives) in [
        ("its host", &good, &good, "", &TLS13, true),
        (
            "a name of its own",
            &other,
            &other,
            "b.pay.example",
            &TLS13,
            true,
        ),
        ("another authority", &good, &other, "", &TLS13, false),
        ("another name", &other, &other, "", &TLS13, false),
        ("an older version", &good, &good, "", &TLS12, false),
    ] {
        let client = Pod::new(&authority, "web").await;
        let host = Pod::new(&authority, "api").await;
        let server = Server::new(&host, certified, version).await;
        let port = v1::ExternalPort {
            port: dialled.port().into(),
            protocol: Protocol::Http.into(),
            target_port: server.at.port().into(),
            tls: Some(tls(roots, server_name)),
        };
        client.set(vec![
            external(dialled),
            egress(Mode::Deny, vec![external_object(&[HOST], &[], port)]),
            resolved(HOST, server.at.port(), &[host.ip]),
        ]);
        let answer = ask(&mut client.call(dialled).await, HOST).await;
        if !arrives {
            assert!(answer.starts_with("HTTP/1.1 503 "), "{case}: {answer}");
            assert!(
                answer.contains("weft-reason: tls-failed\r\n"),
                "{case}: {answer}"
            );
            assert!(server.seen.lock().is_empty(), "{case}");
            continue;
        }
        assert!(answer.starts_with("HTTP/1.1 200 "), "{case}: {answer}");
        let name = if server_name.is_empty() {
            HOST
        } else {
            server_name
        };
        let seen = server.seen.lock().remove(0);
        assert_eq!(seen.0, name, "{case}");
        let head = seen.1.to_ascii_lowercase();
        assert!(head.starts_with("get /a http/1.1\r\n"), "{case}: {head}");
        assert!(
            head.contains(&format!("host: {HOST}\r\n")),
            "{case}: {head}"
        );
        // Bytes that are no request get no TLS around them, and do not go without it.
        let mut stream = client.call(dialled).await;
        stream.write_all(b"\x00binary").await.unwrap();
        let ended = tokio::time::timeout(PATIENCE, stream.read(&mut [0])).await;
        assert!(ended.unwrap().is_err(), "{case}");
        assert!(server.seen.lock().is_empty(), "{case}");
    }
}

#[tokio::test]
async fn service_that_stands_for_host_leaves_in_tls() {
    let authority = Authority::new();
    let client = Pod::new(&authority, "web").await;
    let host = Pod::new(&authority, "api").await;
    let certified = self_signed(HOST);
    let server = Server::new(&host, &certified, &TLS13).await;
    client.set(service("api", vip().ip(), v1::Protocol::Http1, Vec::new()));
    let endpoints = v1::Endpoints {
        endpoints: vec![v1::Endpoint {
            ip: host.ip.to_string(),
            port: server.at.port().into(),
            ..v1::Endpoint::default()
        }],
        external: Some(v1::ExternalTarget {
            object: Some(v1::ObjectRef {
                kind: "ExternalService".to_owned(),
                namespace: "shop".to_owned(),
                name: "api".to_owned(),
            }),
            host: HOST.to_owned(),
            tls: Some(tls(&certified, "")),
            denied: false,
            gateway: String::new(),
        }),
        ..v1::Endpoints::default()
    };
    let name = wire::names::endpoints("shop", "api", 80);
    let content = v1::resource::Content::Endpoints(endpoints);
    client.set(vec![resource(&name, content)]);
    let answer = ask(&mut client.call(vip()).await, "api.shop").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    let (name, head) = server.seen.lock().remove(0);
    assert_eq!(name, HOST);
    let head = head.to_ascii_lowercase();
    assert!(head.contains(&format!("host: {HOST}\r\n")), "{head}");
}
