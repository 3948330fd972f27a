//! Programs of the same machine without the key: they keep no authenticated client out.
//!
//! Claims: observe-67

use super::*;

/// A connection over which this was sent, kept open.
async fn sent(port: u16, request: &str) -> TcpStream {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn connections_without_key_are_evicted_before_authenticated_ones() {
    let (client, mut started) = streaming();
    let port = before(client).await;
    let served = Served {
        api: FakeApi::default(),
        port,
    };
    let mut reader = watching(port).await;
    let lines = next_stream(&mut started).await;
    read_until(&mut reader, "HTTP/1.1 200").await;
    let ours = format!("host: 127.0.0.1:{port}\r\n");
    let mut unauthenticated = Vec::new();
    for request in [
        "GET / HTTP/1.1\r\nhost: x\r\n\r\n".to_owned(),
        format!("GET / HTTP/1.1\r\n{ours}\r\n"),
        format!("GET {GRAPH} HTTP/1.1\r\n{ours}\r\n"),
        format!("GET {GRAPH} HTTP/1.1\r\n{ours}{KEY}origin: http://evil.example\r\n\r\n"),
    ] {
        for _ in 0..40 {
            unauthenticated.push(sent(port, &request).await);
        }
        let answer = timeout(HEAD_WITHIN / 2, served.ask("GET", "/start", KEY)).await;
        let (status, ..) = answer.unwrap_or_else(|_| panic!("shut out by {request}"));
        assert_eq!(status, 200, "{request}");
    }
    // The oldest of all has the key.
    lines.send(Bytes::from("{\"first\":1}\n")).await.unwrap();
    read_until(&mut reader, "first").await;
}

#[tokio::test]
async fn only_host_origin_or_key_refusal_closes_connection() {
    let served = served().await;
    let port = served.port;
    for (path, headers) in [
        ("/", "host: x\r\n".to_owned()),
        (GRAPH, format!("host: 127.0.0.1:{port}\r\n")),
        (
            "/",
            format!("host: 127.0.0.1:{port}\r\norigin: http://evil.example\r\n"),
        ),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\n{headers}\r\n");
        let answer = timeout(HEAD_WITHIN / 2, served.raw(request.as_bytes())).await;
        let answer = answer.unwrap_or_else(|_| panic!("it stays open: {headers}"));
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
    }
    // Two, one after the other, over one connection.
    let request = format!("GET /start HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\n{KEY}\r\n");
    let mut honest = sent(port, &request).await;
    read_until(&mut honest, "namespace").await;
    honest.write_all(request.as_bytes()).await.unwrap();
    read_until(&mut honest, "namespace").await;
}
