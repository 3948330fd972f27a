//! Rare and legal traffic: honest clients get the same as without a proxy in between.
//!
//! Claims: attack-104

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::v1::Protocol;

use super::raw_http2::{DATA, Outcome, RawHttp2};
use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, rest, serving, status};
use crate::support::http_app;

const PATIENCE: Duration = Duration::from_secs(2);

async fn for_http2() -> TwoPods {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    let (port, _) = http_app(&pods.server, "api").await;
    pods.deliver_to(port);
    pods.port = port;
    pods
}

// Claims: R5
#[tokio::test]
async fn http2_request_may_carry_host_only_in_header() {
    let pods = for_http2().await;
    pods.allow(Protocol::Http2, &["/ok"]);
    for entry in ENTRY_POINTS {
        for (path, expected) in [(&b"/ok"[..], 200), (b"/private", 403)] {
            let mut raw = RawHttp2::new(pods.open(entry).await).await;
            let fields: [(&[u8], &[u8]); 4] = [
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":path", path),
                (b"host", b"api.shop"),
            ];
            raw.request(1, true, &fields).await;
            let outcome = raw.outcome(1, PATIENCE).await;
            assert_eq!(outcome, Outcome::Status(expected), "{entry:?}");
        }
    }
}

// Claims: R5
#[tokio::test]
async fn get_with_body_is_served_without_requested_upgrade() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        for (framing, body) in [
            ("Content-Length: 5", "hello"),
            ("Transfer-Encoding: chunked", "5\r\nhello\r\n0\r\n\r\n"),
        ] {
            let request = format!(
                "GET /ok HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n{framing}\r\n\r\n{body}"
            );
            let answer = pods.send_and_stay(entry, request).await;
            assert_eq!(status(&answer), 200, "{framing}, {entry:?}: {answer}");
            let got = pods.recorded(framing);
            assert_eq!(got.len(), 1, "{framing}, {entry:?}");
            assert_eq!(got[0].body, b"hello", "{framing}, {entry:?}");
            assert!(got[0].values("upgrade").is_empty(), "{framing}, {entry:?}");
        }
    }
}

// Claims: R5
#[tokio::test]
async fn an_empty_host_is_served() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        let request = "GET /ok HTTP/1.1\r\nHost:\r\nConnection: close\r\n\r\n";
        let answer = pods.send(entry, request).await;
        assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
        assert_eq!(pods.recorded("empty host")[0].values("host").len(), 1);
    }
}

// Claims: R5
#[tokio::test]
async fn refused_head_request_gets_status_without_body() {
    let pods = for_http2().await;
    pods.allow(Protocol::Http2, &["/ok"]);
    for entry in ENTRY_POINTS {
        let mut raw = RawHttp2::new(pods.open(entry).await).await;
        let fields: [(&[u8], &[u8]); 4] = [
            (b":method", b"HEAD"),
            (b":scheme", b"http"),
            (b":authority", b"s"),
            (b":path", b"/denied"),
        ];
        raw.request(1, true, &fields).await;
        assert_eq!(
            raw.outcome(1, PATIENCE).await,
            Outcome::Status(403),
            "{entry:?}"
        );
        let until = tokio::time::Instant::now() + Duration::from_millis(200);
        while let Some(frame) = raw.read(until).await {
            assert!(
                frame.kind != DATA || frame.payload.is_empty(),
                "{entry:?}: a body of {} bytes",
                frame.payload.len()
            );
        }
    }
    // By HTTP/1.1 through two proxies, which speak HTTP/2 to each other.
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    for _ in 0..5 {
        let request = "HEAD /denied HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let answer = pods.send(EntryPoint::Outbound, request).await;
        assert_eq!(status(&answer), 403, "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
        // As long as GET's: else a client may take the connection for one that ends here.
        let request = "GET /denied HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
        let got = pods.send(EntryPoint::Outbound, request).await;
        let length = |answer: &str| {
            let mut lines = answer.lines().map(str::to_ascii_lowercase);
            lines.find(|line| line.starts_with("content-length:"))
        };
        assert!(length(&got).is_some(), "{got}");
        assert_eq!(length(&answer), length(&got), "{answer}");
    }
}

// Claims: R5
#[tokio::test]
async fn a_callers_broken_body_is_its_own_fault() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        let request = "POST /ok HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n";
        let answer = pods.send_and_stay(entry, request).await;
        assert_eq!(status(&answer), 400, "{entry:?}: {answer}");
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    for pod in [&pods.client, &pods.server] {
        let metrics = pod.metrics();
        let blamed = metrics
            .lines()
            .find(|line| line.starts_with("weft_requests_total{") && line.contains("status=\"5"));
        assert_eq!(blamed, None);
    }
    pods.recorded("broken body");
    pods.works("broken bodies").await;
}

/// Most clients write all of a body before they read.
// Claims: R5
#[tokio::test]
async fn upload_refusal_is_readable_after_sending_complete_body() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    for entry in ENTRY_POINTS {
        for size in [256 * 1024, 16 * 1024 * 1024] {
            let mut stream = pods.open(entry).await;
            let head =
                format!("POST /denied HTTP/1.1\r\nHost: s\r\nContent-Length: {size}\r\n\r\n");
            let body = vec![b'x'; size];
            let sending = async {
                stream.write_all(head.as_bytes()).await?;
                for chunk in body.chunks(16 * 1024) {
                    stream.write_all(chunk).await?;
                }
                Ok::<_, std::io::Error>(())
            };
            let sent = tokio::time::timeout(Duration::from_secs(5), sending).await;
            assert!(matches!(sent, Ok(Ok(()))), "{entry:?}, {size}: {sent:?}");
            let mut answer = vec![0; 4096];
            let read = tokio::time::timeout(PATIENCE, stream.read(&mut answer)).await;
            let count = read.unwrap_or_else(|_| panic!("{entry:?}, {size}: no answer"));
            let count = count.unwrap_or_else(|error| panic!("{entry:?}, {size}: {error}"));
            let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
            assert_eq!(status(&answer), 403, "{entry:?}, {size}: {answer}");
        }
    }
    // Control: a client that stops when it is refused is let go at once.
    let mut stream = pods.open(EntryPoint::Inbound).await;
    let head = "POST /denied HTTP/1.1\r\nHost: s\r\nContent-Length: 10\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let answer = rest(&mut stream, PATIENCE).await;
    assert_eq!(status(&answer), 403, "{answer}");
    pods.recorded("uploads");
}

/// HTTP/1.1 names its trailers before the body; then they pass, and others do not.
// Claims: R5
#[tokio::test]
async fn trailers_that_are_announced_pass_both_ways() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        let request = "POST /ok HTTP/1.1\r\nHost: s\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";
        let answer = pods.send_and_stay(entry, request).await;
        assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
        let got = pods.recorded("announced");
        assert_eq!(got[0].trailers.to_lowercase(), "x-sum: 1", "{entry:?}");
    }
    let port = serving(&pods.server, |mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let answer = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 1\r\n\r\n";
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    pods.deliver_to(port);
    pods.port = port;
    for entry in ENTRY_POINTS {
        let request = "GET /ok HTTP/1.1\r\nHost: s\r\nTE: trailers\r\n\r\n";
        let answer = pods.send_and_stay(entry, request).await.to_lowercase();
        assert!(
            answer.ends_with("0\r\nx-sum: 1\r\n\r\n"),
            "{entry:?}: {answer}"
        );
    }
}
