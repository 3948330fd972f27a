//! Upgrades whose callers leave before the response.
//!
//! Claims: calls-16

use std::time::{Duration, Instant};

use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use super::counts::sum;
use crate::support::{Pod, listening, pair, vip};

const SOON: Duration = Duration::from_secs(3);
pub(super) const WEBSOCKET: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
/// As some clients offer it with whatever they ask first. It is served without.
const OFFER: &[u8] =
    b"GET /a HTTP/1.1\r\nHost: web.shop\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n";
const GET: &[u8] = b"GET /b HTTP/1.1\r\nHost: web.shop\r\n\r\n";

/// Reads one head.
pub(super) async fn head(stream: &mut TcpStream) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let byte = timeout(SOON, stream.read_u8()).await;
        head.push(byte.expect("a head must come").unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// The next request that an application gets, without an answer.
pub(super) async fn accept_upgrade(application: &TcpListener) -> TcpStream {
    let accepted = timeout(SOON, application.accept()).await;
    let (mut stream, _) = accepted.expect("it must be asked").unwrap();
    head(&mut stream).await;
    stream
}

/// The other end gets a reset.
fn crash(caller: TcpStream) {
    let linger = SockRef::from(&caller).set_linger(Some(Duration::ZERO));
    linger.unwrap();
    drop(caller);
}

async fn is_let_go(mut application: TcpStream) -> bool {
    let mut rest = Vec::new();
    let ended = application.read_to_end(&mut rest);
    timeout(SOON, ended).await.is_ok()
}

/// Waits until so many callers of the pod are counted as gone.
async fn cancelled(pod: &Pod, count: f64) {
    let started = Instant::now();
    while sum(pod, "weft_requests_cancelled_total", &[]) != count {
        assert!(started.elapsed() < SOON, "not {count}: {}", pod.metrics());
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn upgrade_caller_leaving_early_is_cancelled_at_application() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    let port = application.local_addr().unwrap().port();
    let (mut of_client, mut of_server) = (0.0, 0.0);
    for meshed in [true, false] {
        for resets in [true, false] {
            let mut caller = if meshed {
                client.call(vip()).await
            } else {
                server.plain(port).await
            };
            caller.write_all(WEBSOCKET).await.unwrap();
            let serving = accept_upgrade(&application).await;
            if resets {
                crash(caller);
            } else {
                drop(caller);
            }
            let case = format!("meshed: {meshed}, resets: {resets}");
            assert!(
                is_let_go(serving).await,
                "{case}: it works on without a caller"
            );
            of_client += f64::from(u8::from(meshed));
            of_server += 1.0;
            cancelled(&client, of_client).await;
            cancelled(&server, of_server).await;
        }
    }
    for pod in [&client, &server] {
        assert_eq!(sum(pod, "weft_requests_total", &[]), 0.0);
    }
}

/// Such a connection is served for good as one that may switch.
#[tokio::test]
async fn reset_after_earlier_upgrade_offer_cancels_later_request() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let application = listening(&client, &server).await;
    let mut caller = client.call(vip()).await;
    caller.write_all(OFFER).await.unwrap();
    let mut first = accept_upgrade(&application).await;
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n";
    first.write_all(answer).await.unwrap();
    drop(first);
    let response = head(&mut caller).await;
    assert!(response.starts_with("HTTP/1.1 200 "), "{response}");
    caller.write_all(GET).await.unwrap();
    let serving = accept_upgrade(&application).await;
    crash(caller);
    assert!(is_let_go(serving).await, "it works on without a caller");
    for pod in [&client, &server] {
        cancelled(pod, 1.0).await;
    }
}
