//! HTTP/1 callers that close their sending side and wait for the response.
//!
//! Claims: calls-44

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use super::answers::{App, LATE, SILENCE, served_by, sum};
use super::counts::CANCELLED;
use crate::support::{pair, raw, vip};

/// Whatever its Connection header, and with each version.
#[tokio::test]
async fn http1_half_closed_caller_gets_complete_response() {
    let (client, server, _, _) = pair(Protocol::Http1).await;
    let app = App::new(server.ip, LATE).await;
    client.reaches(&server, app.port);
    for request in [
        "GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: web.shop\r\nConnection: close\r\n\r\n",
        "GET / HTTP/1.0\r\nHost: web.shop\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: web.shop\r\nContent-Length: 2\r\n\r\nok",
    ] {
        let mut stream = client.call(vip()).await;
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let answer = raw(&mut stream, b"", Duration::from_secs(5)).await;
        let whole = answer.contains(" 200 OK\r\n") && answer.ends_with("\r\n\r\nok");
        assert!(whole, "{request}: {answer}");
    }
    assert_eq!(app.request_count(), 4, "none was asked twice");
    assert_eq!(sum(&client, CANCELLED, &["outbound"]), 0.0);
}

/// A close of the caller's socket looks like that to a proxy that waits. A caller that still reads
/// gets two seconds.
#[tokio::test]
async fn closed_caller_without_a_head_is_gone_everywhere() {
    for meshed in [true, false] {
        let (client, server, _, _) = pair(Protocol::Http1).await;
        let app = App::new(server.ip, SILENCE).await;
        served_by(&client, &server, &[&app]);
        let mut caller = if meshed {
            client.call(vip()).await
        } else {
            server.plain(app.port).await
        };
        let head = b"GET / HTTP/1.1\r\nHost: web.shop\r\n\r\n";
        caller.write_all(head).await.unwrap();
        caller.shutdown().await.unwrap();
        let closed = Instant::now();
        let ended = timeout(Duration::from_secs(12), async {
            while app.ended() == 0 {
                sleep(Duration::from_millis(10)).await;
            }
        });
        assert!(ended.await.is_ok(), "the application works on: {meshed}");
        let waited = closed.elapsed();
        assert!(
            waited >= Duration::from_millis(1900),
            "{meshed}: {waited:?}"
        );
        let mut answer = Vec::new();
        let read = timeout(Duration::from_secs(5), caller.read_to_end(&mut answer));
        let _ = read.await.expect("its own connection ends");
        assert!(answer.is_empty(), "{}", String::from_utf8_lossy(&answer));
        assert_eq!(app.request_count(), 1, "none was asked twice");
    }
}
