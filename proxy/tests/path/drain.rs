//! A pod that shuts down loses no request.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use wire::v1::Protocol;

use crate::support::{get, pair, vip};

async fn ask(stream: &mut TcpStream) -> String {
    let answered = tokio::time::timeout(Duration::from_secs(5), answer(stream)).await;
    answered.expect("an answer must come")
}

async fn answer(stream: &mut TcpStream) -> String {
    stream
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .await
        .unwrap();
    let mut answer = String::new();
    while !answer.contains("body=") && !answer.contains("weft:") {
        let mut buffer = [0; 2048];
        let count = stream.read(&mut buffer).await.unwrap();
        assert!(count > 0, "the connection ended after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    answer
}

#[tokio::test]
async fn draining_server_loses_no_request_as_only_endpoint() {
    let (client, server, _, seen) = pair(Protocol::Http1).await;
    let mut stream = client.call(vip()).await;
    assert!(ask(&mut stream).await.starts_with("HTTP/1.1 200"));
    server.proxy.drain.begin();
    // Long enough for several rounds of ends and new connections.
    for _ in 0..300 {
        let answer = ask(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(seen.lock().len(), 301);
}

#[tokio::test]
async fn draining_server_closes_connections_of_outside_callers() {
    let (_client, server, port, _) = pair(Protocol::Http1).await;
    let mut stream = server.plain(port).await;
    assert!(
        !ask(&mut stream)
            .await
            .to_lowercase()
            .contains("connection: close")
    );
    server.proxy.drain.begin();
    // The idle connection is closed; a new one is still served.
    let mut rest = Vec::new();
    let ended = tokio::time::timeout(Duration::from_secs(2), stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "the connection stayed open");
    assert_eq!(get(server.plain(port).await, "/", "").await.0, 200);
}
