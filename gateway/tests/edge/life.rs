//! Ports that come and go with the configuration, and the end of a Gateway.

use std::time::{Duration, Instant};

use policy::gateway::ListenerProtocol;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};

use super::harness::{Edge, SOON, all, answer, http, listener, routes};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: web.example\r\n\r\n";

/// One answer of the application, or a refusal, on a connection that goes on.
async fn ask(stream: &mut TcpStream) -> String {
    stream.write_all(GET).await.unwrap();
    let mut answer = String::new();
    while !answer.contains("body=") && !answer.contains("weft:") {
        let mut buffer = [0; 2048];
        let read = timeout(SOON, stream.read(&mut buffer)).await;
        let count = read.expect("an answer must come").unwrap();
        assert!(count > 0, "the connection ended after {answer:?}");
        answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
    }
    answer.to_lowercase()
}

async fn until_closed(edge: &Edge, port: u16) {
    let started = Instant::now();
    while edge.try_connect(port).await.is_ok() {
        assert!(started.elapsed() < SOON, "port {port} stayed open");
        sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn ports_are_open_as_the_configuration_says() {
    let other = || {
        listener(
            "other",
            (8080, ListenerProtocol::Http),
            None,
            vec![routes(None, all())],
        )
    };
    let edge = Edge::ruled(all()).await;
    timeout(SOON, edge.gateway.opened()).await.unwrap();
    let mut kept = edge.connect(80).await;
    assert!(ask(&mut kept).await.starts_with("http/1.1 200"));
    assert!(edge.try_connect(8080).await.is_err());
    let both = vec![http("http", None, vec![routes(None, all())]), other()];
    edge.listen(both);
    let opened = edge.connect(8080).await;
    let head = "GET / HTTP/1.1\r\nHost: web.example\r\n";
    assert_eq!(answer(opened, head).await.0, 200);
    // Its connections go on meanwhile.
    let text = ask(&mut kept).await;
    assert!(
        text.starts_with("http/1.1 200") && !text.contains("connection: close"),
        "{text}"
    );
    edge.listen(vec![other()]);
    until_closed(&edge, 80).await;
    // No request is lost on the way, and none is served.
    let text = ask(&mut kept).await;
    assert!(
        text.starts_with("http/1.1 404") && text.contains("connection: close"),
        "{text}"
    );
    assert_eq!(answer(edge.connect(8080).await, head).await.0, 200);
}

#[tokio::test]
async fn gateway_without_listeners_is_as_open_as_it_can_be() {
    let edge = Edge::with(Vec::new()).await;
    timeout(SOON, edge.gateway.opened()).await.unwrap();
}

#[tokio::test]
async fn leaving_gateway_takes_new_clients_and_loses_no_request() {
    let edge = Edge::ruled(all()).await;
    let mut kept = edge.connect(80).await;
    let at = kept.peer_addr().unwrap();
    assert!(!ask(&mut kept).await.contains("connection: close"));
    let began = Instant::now();
    let clients = async {
        sleep(Duration::from_millis(300)).await;
        let late = edge.connect(80).await;
        let head = "GET / HTTP/1.1\r\nHost: web.example\r\n";
        assert_eq!(answer(late, head).await.0, 200);
        // An idle connection has a while for its last request, whose answer says so.
        sleep(Duration::from_millis(700)).await;
        let text = ask(&mut kept).await;
        assert!(text.starts_with("http/1.1 200"), "{text}");
        assert!(text.contains("connection: close"), "{text}");
        drop(kept);
    };
    tokio::join!(edge.gateway.leave(), clients);
    let took = began.elapsed();
    assert!((5..12).contains(&took.as_secs()), "{took:?}");
    edge.gateway.stop().await;
    assert!(TcpStream::connect(at).await.is_err());
}
