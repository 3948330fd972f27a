//! Details of an ordinary exchange that proxies often get wrong.
//!
//! Claims: attack-104

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use wire::v1::Protocol;

use super::two_pods::{ENTRY_POINTS, TwoPods, answers, rest, serving, status};

/// Answers every request of a connection with the same bytes.
async fn answering(pods: &mut TwoPods, answer: &'static str) {
    let port = serving(&pods.server, move |mut stream| async move {
        let mut bytes = Vec::new();
        let mut buffer = [0; 4096];
        loop {
            while let Some(end) = bytes.windows(4).position(|part| part == b"\r\n\r\n") {
                bytes.drain(..end + 4);
                if stream.write_all(answer.as_bytes()).await.is_err() {
                    return;
                }
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => bytes.extend_from_slice(&buffer[..count]),
            }
        }
    })
    .await;
    pods.deliver_to(port);
    pods.port = port;
}

#[tokio::test]
async fn expect_100_caller_gets_continue_and_body_arrives() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        let mut stream = pods.open(entry).await;
        let head = "POST /ok HTTP/1.1\r\nHost: s\r\nExpect: 100-continue\r\nContent-Length: 5\r\nConnection: close\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut buffer = [0; 1024];
        let count = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut buffer))
            .await
            .unwrap_or_else(|_| panic!("{entry:?}: no 100"))
            .unwrap();
        let interim = String::from_utf8_lossy(&buffer[..count]).into_owned();
        assert_eq!(interim, "HTTP/1.1 100 Continue\r\n\r\n", "{entry:?}");
        stream.write_all(b"hello").await.unwrap();
        let answer = rest(&mut stream, Duration::from_secs(2)).await;
        assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
        assert!(!answer.contains(" 100 "), "{entry:?}: {answer}");
        assert_eq!(pods.recorded("expect")[0].body, b"hello");
    }
}

#[tokio::test]
async fn old_callers_keep_their_connection_only_when_they_ask() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        // Without a word the connection ends after one answer.
        let answer = pods
            .send_and_stay(
                entry,
                "GET /ok HTTP/1.0\r\nHost: s\r\n\r\nGET /ok HTTP/1.0\r\nHost: s\r\n\r\n",
            )
            .await;
        assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
        assert_eq!(pods.recorded("1.0").len(), 1, "{entry:?}");
        assert!(
            !answer.to_lowercase().contains("transfer-encoding"),
            "{entry:?}: {answer}"
        );
        let keep = "GET /ok HTTP/1.0\r\nHost: s\r\nConnection: keep-alive\r\n\r\n";
        let answer = pods.send_and_stay(entry, format!("{keep}{keep}")).await;
        assert_eq!(pods.recorded("1.0 kept").len(), 2, "{entry:?}: {answer}");
        assert!(
            answer.to_lowercase().contains("connection: keep-alive"),
            "{entry:?}: {answer}"
        );
    }
}

/// HTTP/1.0 knows no chunks, and needs no Host.
#[tokio::test]
async fn response_of_unknown_length_reaches_http10_caller_unchunked() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        let answer = pods.send(entry, "GET /ok HTTP/1.0\r\n\r\n").await;
        assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
        let got = pods.recorded("no Host");
        assert_eq!(got[0].values("host").len(), 1, "{entry:?}: {got:?}");
    }
    answering(
        &mut pods,
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    )
    .await;
    for entry in ENTRY_POINTS {
        let answer = pods
            .send_and_stay(entry, "GET /ok HTTP/1.0\r\nHost: s\r\n\r\n")
            .await;
        assert!(answer.ends_with("\r\n\r\nhello"), "{entry:?}: {answer}");
    }
}

#[tokio::test]
async fn answers_without_a_body_keep_their_framing() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    for (method, answer, length) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n",
            Some("1234"),
        ),
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            None,
        ),
        (
            "HEAD",
            "HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n",
            Some("9"),
        ),
        ("GET", "HTTP/1.1 204 No Content\r\n\r\n", None),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\nContent-Length: 77\r\n\r\n",
            Some("77"),
        ),
        (
            "GET",
            "HTTP/1.1 304 Not Modified\r\nETag: \"a\"\r\n\r\n",
            None,
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Some("0"),
        ),
        (
            "DELETE",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
            Some("0"),
        ),
    ] {
        answering(&mut pods, answer).await;
        for entry in ENTRY_POINTS {
            // Three on one connection: a body too much or too little of one
            // would be seen in the next.
            let bytes = format!("{method} /ok HTTP/1.1\r\nHost: s\r\n\r\n").repeat(3);
            let got = pods.send(entry, bytes).await;
            let case = format!("{method}, {answer:?}, {entry:?}: {got}");
            assert_eq!(answers(&got), 3, "{case}");
            assert!(got.ends_with("\r\n\r\n"), "{case}");
            let heads: Vec<&str> = got.trim_end().split("\r\n\r\n").collect();
            assert_eq!(heads.len(), 3, "{case}");
            for head in heads {
                let given = head
                    .to_lowercase()
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: ").map(str::to_owned));
                // On a 304 it is only information, and may be skipped.
                if given.is_some() || status(head) != 304 {
                    assert_eq!(given.as_deref(), length, "{case}");
                }
                assert_eq!(status(head), status(answer), "{case}");
            }
        }
    }
}

/// A body that ends with its connection is complete when the connection closes.
#[tokio::test]
async fn an_answer_that_ends_with_its_connection_arrives_whole() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let port = serving(&pods.server, |mut stream| async move {
        let mut head = [0; 4096];
        let _ = stream.read(&mut head).await;
        let body = "x".repeat(300_000);
        let answer = format!("HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{body}");
        let _ = stream.write_all(answer.as_bytes()).await;
    })
    .await;
    pods.deliver_to(port);
    pods.port = port;
    for entry in ENTRY_POINTS {
        let answer = pods
            .send(
                entry,
                "GET /ok HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n",
            )
            .await;
        assert_eq!(answer.matches('x').count(), 300_000, "{entry:?}");
    }
}

/// Callers send requests before the answers to earlier ones; order stays.
#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let pods = TwoPods::new(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        let bytes: String = (0..50)
            .map(|at| format!("GET /{at} HTTP/1.1\r\nHost: s\r\n\r\n"))
            .collect();
        let answer = pods.send(entry, bytes).await;
        let order: Vec<usize> = answer
            .lines()
            .filter_map(|line| line.strip_prefix('/'))
            .filter_map(|line| line.split(' ').next()?.parse().ok())
            .collect();
        assert_eq!(order, (0..50).collect::<Vec<_>>(), "{entry:?}: {answer}");
        pods.recorded("pipeline");
    }
}
