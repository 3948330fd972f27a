//! Connections of clients other than the API server, and what they cost it.

use hyper::client::conn::http2;
use tokio::time::timeout;

use hyper_util::rt::TokioExecutor;

use super::*;

/// Connections that say nothing, from an address of their own.
async fn silent(to: SocketAddr, count: usize) -> Vec<TcpStream> {
    let mut open = Vec::new();
    for _ in 0..count {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind("127.0.0.66:0".parse().unwrap()).unwrap();
        open.push(socket.connect(to).await.unwrap());
    }
    open
}

// Claims: B5
#[tokio::test]
async fn unauthenticated_flood_closes_no_api_server_connection() {
    let bench = Bench::start().await;
    let (chain, key) = bench.ca.client("front-proxy");
    let mut config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(bench.roots.clone())
        .with_client_auth_cert(vec![chain], key)
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let socket = TcpStream::connect(bench.addr).await.unwrap();
    let stream = TlsConnector::from(Arc::new(config))
        .connect(ServerName::try_from(NAME).unwrap(), socket)
        .await
        .unwrap();
    let (sender, connection) = http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
        .await
        .unwrap();
    tokio::spawn(connection);
    let fetch = || {
        let mut sender = sender.clone();
        let request = Request::get(format!("https://{NAME}{DEPLOYMENTS}"))
            .header("x-remote-user", "reader")
            .header("x-remote-group", "readers")
            .header("x-remote-group", "all")
            .body(Empty::<Bytes>::new())
            .unwrap();
        async move {
            sender
                .send_request(request)
                .await
                .map(|answer| answer.status())
        }
    };
    assert_eq!(fetch().await.unwrap(), StatusCode::OK);
    for _ in 0..2 {
        let flood = silent(bench.addr, 140).await;
        assert_eq!(
            fetch().await.unwrap(),
            StatusCode::OK,
            "the open connection"
        );
        let fresh = timeout(Duration::from_secs(1), bench.fetch("reader", DEPLOYMENTS));
        assert_eq!(fresh.await.unwrap().0, 200, "a new connection");
        drop(flood);
    }
}
