//! Bytes behind a refused message are not read as a request.
//!
//! Claims: mesh-18

use super::*;

#[tokio::test]
async fn request_behind_refused_upgrade_is_evaluated_as_request() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    for (case, headers) in [
        ("upgrade", "Connection: upgrade\r\nUpgrade: foo"),
        (
            "websocket",
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        ),
        (
            "h2c",
            "Upgrade: h2c\r\nHTTP2-Settings: AAMAAABk\r\nConnection: Upgrade, HTTP2-Settings",
        ),
    ] {
        for entry in ENTRY_POINTS {
            let behind = "GET /private HTTP/1.1\r\nHost: s\r\n\r\n";
            let bytes = format!("GET /ok HTTP/1.1\r\nHost: s\r\n{headers}\r\n\r\n{behind}");
            let answer = pods.send_and_stay(entry, bytes).await;
            assert!(!answer.contains(" 101 "), "{case}, {entry:?}: {answer}");
            let got = pods.recorded(case);
            assert!(
                got.len() == 1 && got[0].line() == "GET /ok HTTP/1.1",
                "{case}, {entry:?}: {got:?}"
            );
            assert_eq!(status(&answer), 200, "{case}, {entry:?}: {answer}");
            if case == "h2c" {
                assert!(got[0].values("upgrade").is_empty(), "{got:?}");
                assert!(got[0].values("http2-settings").is_empty(), "{got:?}");
            }
        }
    }
    pods.works("upgrades").await;
}

#[tokio::test]
async fn connect_reaches_nothing_and_what_follows_it_is_dropped() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for target in [
        "127.0.0.1:15190",
        "10.0.0.1:6443",
        "/",
        "*",
        "http://x/",
        "x",
        "",
    ] {
        let case = format!("CONNECT {target}");
        let bytes =
            format!("{case} HTTP/1.1\r\nHost: s\r\n\r\nGET /private HTTP/1.1\r\nHost: s\r\n\r\n");
        for from in SPEAKERS {
            let answer = pods.send(from, &bytes).await;
            assert!(
                answer.is_empty() || (400..500).contains(&status(&answer)),
                "{case}, {from:?}: {answer}"
            );
            let got = pods.recorded(&case);
            assert!(
                got.iter().all(|one| !one.line().starts_with("CONNECT")),
                "{case}: {got:?}"
            );
        }
    }
    pods.works("CONNECT").await;
}

/// A refusal that comes before the body: what is left of it must not become a
/// request, whether the connection ends or the body is read away.
#[tokio::test]
async fn an_unread_body_never_becomes_a_request() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    let request = "GET /ok HTTP/1.1\r\nHost: s\r\n\r\n";
    let body = request.repeat(1024 * 1024 / request.len());
    for entry in ENTRY_POINTS {
        for size in [request.len(), body.len()] {
            let bytes = format!(
                "POST /denied HTTP/1.1\r\nHost: s\r\nContent-Length: {size}\r\n\r\n{}{request}",
                &body[..size]
            );
            let answer = pods.send(entry, bytes).await;
            // A close with bytes unread may overtake the answer, as a reset.
            if !answer.is_empty() {
                assert_eq!(status(&answer), 403, "{entry:?}, {size}: {answer}");
            }
            // The request behind the body may be served, what is in it may not.
            let got = pods.recorded("unread body");
            assert!(got.len() <= 1, "{entry:?}, {size}: {} requests", got.len());
            assert_eq!(
                answers(&answer).saturating_sub(1),
                got.len(),
                "{entry:?}, {size}"
            );
        }
    }
    pods.works("unread bodies").await;
}

/// The body comes late, when the refusal has long been sent.
#[tokio::test]
async fn late_body_after_refusal_never_becomes_request() {
    let pods = TwoPods::new(Protocol::Http1).await;
    pods.allow(Protocol::Http1, &["/ok"]);
    let request = "GET /ok HTTP/1.1\r\nHost: s\r\n\r\n";
    for entry in ENTRY_POINTS {
        let mut stream = pods.open(entry).await;
        let head = format!(
            "POST /denied HTTP/1.1\r\nHost: s\r\nContent-Length: {}\r\n\r\n",
            request.len()
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = vec![0; 1024];
        let count = stream.read(&mut answer).await.unwrap();
        assert_eq!(status(&String::from_utf8_lossy(&answer[..count])), 403);
        let _ = stream.write_all(request.as_bytes()).await;
        rest(&mut stream, Duration::from_millis(300)).await;
        let got = pods.recorded("late body");
        assert!(got.is_empty(), "{entry:?}: {got:?}");
    }
    pods.works("late bodies").await;
}
