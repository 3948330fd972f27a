//! Byte counts of requests, responses and upgraded connections, reported while the bytes pass.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use wire::v1::{self, Protocol};

use super::counts::{reports, sum};
use super::switching::{WEBSOCKET, accept_upgrade, head};
use crate::support::{Pod, listening, pair, vip};

const SOON: Duration = Duration::from_secs(5);
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Open connections now, and the bytes from and to the caller by now.
async fn reported_bytes(pod: &Pod) -> (u64, u64, u64) {
    let reports = reports(pod).await;
    let last = reports.last().expect("a report must exist");
    let open = last.edges.iter().map(|edge| edge.open).sum::<u64>();
    let edges = || reports.iter().flat_map(|report| &report.edges);
    let all = |of: fn(&v1::Edge) -> u64| edges().map(of).sum::<u64>();
    (open, all(|edge| edge.sent), all(|edge| edge.received))
}

/// Until the only request of the pod has ended well.
async fn ended(pod: &Pod) {
    let started = Instant::now();
    while sum(pod, "weft_requests_total", &["success=\"true\""]) != 1.0 {
        assert!(started.elapsed() < SOON, "{}", pod.metrics());
        sleep(Duration::from_millis(10)).await;
    }
}

/// These bytes come from one end to the other.
async fn passes(
    from: &mut (impl AsyncWriteExt + Unpin),
    to: &mut (impl AsyncReadExt + Unpin),
    bytes: &[u8],
) {
    from.write_all(bytes).await.unwrap();
    let mut came = vec![0; bytes.len()];
    let read = timeout(SOON, to.read_exact(&mut came)).await;
    read.expect("they must come").unwrap();
    assert_eq!(came, bytes);
}

#[tokio::test]
async fn upgraded_connection_reports_bytes_while_open() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    let mut caller = client.call(vip()).await;
    caller.write_all(WEBSOCKET).await.unwrap();
    let mut serving = accept_upgrade(&application).await;
    serving.write_all(SWITCHED).await.unwrap();
    let switched = head(&mut caller).await;
    assert!(switched.starts_with("HTTP/1.1 101 "), "{switched}");
    passes(&mut caller, &mut serving, b"ping!").await;
    passes(&mut serving, &mut caller, b"pong").await;
    for pod in [&client, &server] {
        assert_eq!(reported_bytes(pod).await, (1, 5, 4));
    }
    drop((caller, serving));
    for pod in [&client, &server] {
        ended(pod).await;
        assert_eq!(reported_bytes(pod).await, (0, 5, 4), "each counts once");
    }
}

#[tokio::test]
async fn body_bytes_are_counted_while_under_way() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    let mut caller = client.call(vip()).await;
    let post = b"POST /up HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 10\r\n\r\n";
    caller.write_all(post).await.unwrap();
    caller.write_all(b"half").await.unwrap();
    let mut serving = accept_upgrade(&application).await;
    let mut came = [0; 4];
    let read = timeout(SOON, serving.read_exact(&mut came)).await;
    read.expect("the half must come").unwrap();
    for pod in [&client, &server] {
        assert_eq!(reported_bytes(pod).await, (1, 4, 0));
    }
    passes(&mut caller, &mut serving, b" of it").await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n";
    serving.write_all(answer).await.unwrap();
    serving.write_all(b"abc").await.unwrap();
    head(&mut caller).await;
    let mut came = [0; 3];
    let read = timeout(SOON, caller.read_exact(&mut came)).await;
    read.expect("the half must come").unwrap();
    for pod in [&client, &server] {
        assert_eq!(reported_bytes(pod).await, (1, 10, 3));
    }
    passes(&mut serving, &mut caller, b"def").await;
    for pod in [&client, &server] {
        ended(pod).await;
        assert_eq!(reported_bytes(pod).await, (0, 10, 6), "each counts once");
    }
}
