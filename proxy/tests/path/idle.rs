//! Idle timeouts of calls and connections.
//!
//! Claims: calls-51

use std::net::IpAddr;
use std::time::{Duration, Instant};

use policy::traffic::EffectivePolicy;
use policy::traffic::call::Timeouts;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use wire::v1::Protocol;

use super::answers::{OK, SILENCE, ask, limited, policy_of, sum};
use super::deadlines::{PARTIAL_RESPONSE, SWITCHED, broken_off, fleet};
use crate::support::{endpoint, endpoints, listening, pair, raw, vip};

const IDLE: Duration = Duration::from_millis(600);
/// Well within it.
const OFTEN: Duration = Duration::from_millis(150);

pub(super) fn idle() -> EffectivePolicy {
    EffectivePolicy {
        timeouts: limited(Timeouts {
            idle: Some(IDLE),
            ..Timeouts::DEFAULT
        }),
        ..EffectivePolicy::default()
    }
}

async fn echoes(stream: &mut TcpStream) -> bool {
    let mut buffer = [0; 6];
    stream.write_all(b"hello\n").await.is_ok() && stream.read_exact(&mut buffer).await.is_ok()
}

/// The end of a connection that nothing more comes from.
async fn closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let end = tokio::time::timeout(Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    end.expect("it must have been closed").ok();
}

#[tokio::test]
async fn idle_opaque_connection_closes_and_active_one_stays() {
    let (client, server, _, _) = pair(Protocol::Opaque).await;
    let listener = listening(&client, &server).await;
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    client.set(vec![policy_of(&idle())]);
    let mut silent = client.call(vip()).await;
    let mut busy = client.call(vip()).await;
    assert!(echoes(&mut silent).await);
    let started = Instant::now();
    while started.elapsed() < IDLE * 3 {
        assert!(echoes(&mut busy).await, "after {:?}", started.elapsed());
        tokio::time::sleep(OFTEN).await;
    }
    closed(&mut silent).await;
    assert!(echoes(&mut busy).await);
    let ended = ["direction=\"outbound\"", "reason=\"deadline\""];
    assert_eq!(
        sum(&client, "weft_tcp_connections_total", &ended),
        1.0,
        "{}",
        client.metrics()
    );
}

/// An application whose answer takes eight parts of one byte.
async fn drips(ip: IpAddr) -> u16 {
    let listener = TcpListener::bind((ip, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let _ = stream.read(&mut [0; 1024]).await;
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n";
        stream.write_all(head).await.unwrap();
        for _ in 0..8 {
            tokio::time::sleep(OFTEN).await;
            stream.write_all(b"x").await.unwrap();
        }
    });
    port
}

#[tokio::test]
async fn stalled_response_is_aborted_and_slow_one_completes() {
    let (client, server, apps) = fleet([PARTIAL_RESPONSE]).await;
    client.set(vec![policy_of(&idle())]);
    let started = Instant::now();
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(status, 200, "{answer}");
    let took = started.elapsed();
    assert!((IDLE..IDLE * 3).contains(&took), "{took:?}");
    broken_off(&apps[0]).await;
    let labels = ["status=\"200\"", "reason=\"deadline\"", "success=\"false\""];
    assert_eq!(sum(&client, "weft_requests_total", &labels), 1.0);

    let port = drips(server.ip).await;
    let one = endpoint(server.ip, port, Some("api"));
    client.set(vec![endpoints("api", vec![one])]);
    let (_, answer) = ask(&client, "GET", "", "").await;
    assert!(answer.ends_with("xxxxxxxx"), "{answer}");
}

#[tokio::test]
async fn stalled_request_ends_and_progressing_upload_continues() {
    let (client, _server, apps) = fleet([SILENCE]).await;
    client.set(vec![policy_of(&idle())]);
    let started = Instant::now();
    let (status, answer) = ask(&client, "GET", "", "").await;
    assert_eq!(status, 504, "{answer}");
    assert!(answer.contains("weft-reason: deadline"), "{answer}");
    let took = started.elapsed();
    assert!((IDLE..IDLE * 3).contains(&took), "{took:?}");
    broken_off(&apps[0]).await;

    let (client, _server, apps) = fleet([OK]).await;
    client.set(vec![policy_of(&idle())]);
    let mut stream = client.call(vip()).await;
    let head = b"PUT / HTTP/1.1\r\nHost: api\r\nConnection: close\r\nContent-Length: 9\r\n\r\n";
    stream.write_all(head).await.unwrap();
    for _ in 0..8 {
        tokio::time::sleep(OFTEN).await;
        stream.write_all(b"x").await.unwrap();
    }
    let answer = raw(&mut stream, b"x", Duration::from_secs(5)).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(apps[0].bodies(), ["xxxxxxxxx"]);
}

#[tokio::test]
async fn what_switched_protocols_and_stands_still_is_broken_off() {
    let (client, _server, apps) = fleet([SWITCHED]).await;
    client.set(vec![policy_of(&idle())]);
    let mut stream = client.call(vip()).await;
    let ask = b"GET / HTTP/1.1\r\nHost: api\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    let started = Instant::now();
    while started.elapsed() < IDLE * 3 {
        stream.write_all(ask).await.unwrap();
        let mut answer = [0; 512];
        let count = stream.read(&mut answer).await.unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 101"), "{count}");
        tokio::time::sleep(OFTEN).await;
    }
    assert_eq!(apps[0].ended(), 0);
    closed(&mut stream).await;
    broken_off(&apps[0]).await;
}
