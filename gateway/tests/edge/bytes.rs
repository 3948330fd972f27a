//! Connections that a Gateway does not read: TLS by its server name, and whatever else by its port.

use std::io::ErrorKind;
use std::sync::Arc;

use policy::gateway::ListenerProtocol;
use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use wire::v1::Protocol;

use super::harness::{
    Certificate, Edge, SOON, all, always, answer, https, listener, routes, served, to,
};

/// A server at the pod's address that welcomes each client in TLS with this certificate.
async fn welcoming(edge: &Edge, certificate: &Certificate) -> u16 {
    let listener = TcpListener::bind((edge.server.ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from(certificate.der.clone())],
            PrivateKeyDer::try_from(certificate.key.clone()).unwrap(),
        )
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut tls = acceptor.accept(stream).await.ok()?;
                tls.write_all(b"welcome").await.ok()?;
                tls.shutdown().await.ok()
            });
        }
    });
    port
}

#[tokio::test]
async fn tls_passes_through_by_its_server_name() {
    let (of_app, of_edge) = (
        Certificate::of(&["app.pass.example"]),
        Certificate::of(&["web.example"]),
    );
    let through = vec![routes(Some("app.pass.example"), vec![always(to("db"))])];
    let passes = listener(
        "tls",
        (443, ListenerProtocol::Tls),
        Some("*.pass.example"),
        through,
    );
    let edge = Edge::with(vec![
        passes,
        https(
            "https",
            Some("web.example"),
            "web",
            vec![routes(None, all())],
        ),
    ])
    .await;
    edge.pod.set(vec![of_edge.resource("web")]);
    let port = welcoming(&edge, &of_app).await;
    edge.backend("db", Protocol::Tls, port);
    let mut tls = edge.tls(443, "app.pass.example", &of_app).await.unwrap();
    let mut got = String::new();
    timeout(SOON, tls.read_to_string(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(got, "welcome");
    // The listener beside it ends TLS itself.
    let tls = edge.tls(443, "web.example", &of_edge).await.unwrap();
    let head = "GET / HTTP/1.1\r\nHost: web.example\r\n";
    assert_eq!(answer(tls, head).await.0, 200);
    // No route, and no listener: the end of the connection, without a word in TLS.
    for server in ["none.pass.example", "app.other"] {
        let error = edge.tls(443, server, &of_app).await.unwrap_err();
        let ended = [ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset];
        assert!(ended.contains(&error.kind()), "{server}: {error:?}");
    }
}

#[tokio::test]
async fn server_behind_a_port_may_speak_first() {
    let rules = vec![routes(None, vec![always(to("db"))])];
    let edge = Edge::with(vec![listener(
        "tcp",
        (5432, ListenerProtocol::Tcp),
        None,
        rules,
    )])
    .await;
    let application = TcpListener::bind((edge.server.ip, 0)).await.unwrap();
    edge.backend(
        "db",
        Protocol::Opaque,
        application.local_addr().unwrap().port(),
    );
    let mut client = edge.connect(5432).await;
    let accepted = timeout(SOON, application.accept()).await;
    let (mut application, _) = accepted.expect("it must be connected").unwrap();
    application.write_all(b"hello").await.unwrap();
    let mut got = [0; 5];
    timeout(SOON, client.read_exact(&mut got))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(&got, b"hello");
    client.write_all(b"GET / ").await.unwrap();
    client.shutdown().await.unwrap();
    let mut rest = String::new();
    timeout(SOON, application.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "GET / ", "whatever it is");
    application.write_all(b"bye").await.unwrap();
    drop(application);
    timeout(SOON, client.read_to_string(&mut rest))
        .await
        .unwrap()
        .unwrap();
    assert_eq!(rest, "GET / bye");
}

#[tokio::test]
async fn bytes_end_with_their_listener() {
    let rules = vec![routes(None, vec![always(to("db"))])];
    let edge = Edge::with(vec![listener(
        "tcp",
        (5432, ListenerProtocol::Tcp),
        None,
        rules,
    )])
    .await;
    let application = TcpListener::bind((edge.server.ip, 0)).await.unwrap();
    edge.backend(
        "db",
        Protocol::Opaque,
        application.local_addr().unwrap().port(),
    );
    let mut client = edge.connect(5432).await;
    let (mut application, _) = timeout(SOON, application.accept()).await.unwrap().unwrap();
    client.write_all(b"a").await.unwrap();
    assert_eq!(application.read_u8().await.unwrap(), b'a');
    edge.pod.set(vec![served(Vec::new())]);
    let mut rest = Vec::new();
    let ended = timeout(SOON, client.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection stayed open");
    let ended = timeout(SOON, application.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the application noticed nothing");
}
