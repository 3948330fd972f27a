//! Applications that send wrong framing, break off or flood: the caller gets one well-formed
//! response or a 502, and the broken connection is not reused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::v1::Protocol;

use super::raw_http2::{
    self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, Outcome, PUSH_PROMISE, RawHttp2, SETTINGS,
    frame, get,
};
use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, answers, rest, serving, status};

mod http2;
mod reuse;

/// Reads the head of a request and writes `script`; `keep` leaves the connection open afterwards,
/// for reuse.
async fn scripted(mut stream: TcpStream, script: Arc<Vec<u8>>, keep: bool) {
    let mut head = Vec::new();
    let mut buffer = [0; 4096];
    while !head.windows(4).any(|part| part == b"\r\n\r\n") {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => head.extend_from_slice(&buffer[..count]),
        }
    }
    let _ = stream.write_all(&script).await;
    if keep {
        // What comes now would get no answer.
        let _ = stream.read_to_end(&mut head).await;
    } else {
        let _ = stream.shutdown().await;
        let _ = stream.read_to_end(&mut head).await;
    }
}

/// Two pods whose application answers every connection with `script`.
async fn lying(script: impl Into<Vec<u8>>, keep: bool) -> (TwoPods, Arc<AtomicUsize>) {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let script = Arc::new(script.into());
    let count = Arc::clone(&connections);
    let port = serving(&pods.server, move |stream| {
        count.fetch_add(1, Ordering::Relaxed);
        scripted(stream, Arc::clone(&script), keep)
    })
    .await;
    pods.deliver_to(port);
    pods.port = port;
    (pods, connections)
}

fn request(method: &str) -> String {
    format!("{method} /ok HTTP/1.1\r\nHost: s\r\n\r\n")
}

/// Answers that end, or begin, elsewhere for another parser.
fn malformed_responses() -> Vec<(&'static str, String)> {
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(1024 * 1024));
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
        (0..200)
            .map(|at| format!("x{at}: 1\r\n"))
            .collect::<String>()
    );
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECOND";
    vec![
        (
            "length and encoding",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n{second}"
            ),
        ),
        (
            "encoding and length",
            format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n5\r\nhello\r\n0\r\n\r\n{second}"
            ),
        ),
        (
            "two lengths",
            format!(
                "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!{second}"
            ),
        ),
        (
            "signed length",
            format!("HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\nhello{second}"),
        ),
        (
            "body of 204",
            format!("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello{second}"),
        ),
        (
            "body of 304",
            format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello{second}"),
        ),
        ("no status", "HTTP/1.1 abc OK\r\n\r\n".to_owned()),
        ("status of two digits", "HTTP/1.1 20 OK\r\n\r\n".to_owned()),
        (
            "status 999",
            "HTTP/1.1 999 Odd\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ),
        ("not HTTP", "220 ready for mail\r\n".to_owned()),
        ("HTTP/0.9", "<html>old</html>".to_owned()),
        (
            "broken header",
            "HTTP/1.1 200 OK\r\nx y: 1\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ),
        (
            "NUL in a header",
            "HTTP/1.1 200 OK\r\nx: a\0b\r\nContent-Length: 0\r\n\r\n".to_owned(),
        ),
        ("large header", large),
        ("many headers", many),
        ("nothing", String::new()),
        ("half a head", "HTTP/1.1 200 OK\r\nContent-Le".to_owned()),
        (
            "unasked 101",
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nbytes"
                .to_owned(),
        ),
        (
            "unknown encoding",
            format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nhello{second}"),
        ),
    ]
}

#[tokio::test]
async fn ambiguous_response_becomes_one_response_or_502() {
    for (case, script) in malformed_responses() {
        let (pods, _) = lying(script, false).await;
        for entry in ENTRY_POINTS {
            let answer = pods.send(entry, request("GET")).await;
            assert_eq!(answers(&answer), 1, "{case}, {entry:?}: {}", cut(&answer));
            let lower = answer.to_lowercase();
            assert!(
                !(lower.contains("content-length") && lower.contains("transfer-encoding")),
                "{case}, {entry:?}: {}",
                cut(&answer)
            );
            assert_ne!(status(&answer), 101, "{case}, {entry:?}: {}", cut(&answer));
            if status(&answer) >= 500 && status(&answer) != 999 {
                assert_eq!(status(&answer), 502, "{case}, {entry:?}: {}", cut(&answer));
                assert!(
                    answer.contains("weft-reason: connection-lost"),
                    "{case}: {}",
                    cut(&answer)
                );
            }
            if [204, 304].contains(&status(&answer)) {
                let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
                assert_eq!(body, Some(""), "{case}, {entry:?}");
            }
        }
        // The control: the same pods, with an application that behaves.
        let (port, _log) = super::two_pods::recorder(&pods.server).await;
        let pods = TwoPods { port, ..pods };
        pods.deliver_to(port);
        pods.works(case).await;
    }
}

#[tokio::test]
async fn impossible_response_length_is_refused_with_its_reason() {
    let script = "HTTP/1.1 200 OK\r\nContent-Length: 18446744073709551614\r\n\r\nhello";
    let (pods, _) = lying(script, false).await;
    for entry in ENTRY_POINTS {
        let answer = pods.send(entry, request("GET")).await;
        assert_eq!(status(&answer), 502, "{entry:?}: {answer}");
        assert!(
            answer.contains("or its Content-Length is larger than any body"),
            "{answer}"
        );
    }
}

fn cut(text: &str) -> &str {
    text.get(..300).unwrap_or(text)
}

/// A transfer coding determines the end of a response; a length beside it does not.
// Claims: attack-60
#[tokio::test]
async fn response_with_length_and_chunks_arrives_complete() {
    for length in [2, 3, 500] {
        for (first, second) in [
            (
                format!("Content-Length: {length}"),
                "Transfer-Encoding: chunked".to_owned(),
            ),
            (
                "Transfer-Encoding: chunked".to_owned(),
                format!("Content-Length: {length}"),
            ),
        ] {
            let script = format!(
                "HTTP/1.1 200 OK\r\n{first}\r\n{second}\r\n\r\n2\r\nok\r\n6\r\n123456\r\n0\r\n\r\n"
            );
            let (pods, _) = lying(script, false).await;
            for entry in ENTRY_POINTS {
                let answer = pods.send(entry, request("GET")).await;
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                let content: String = if head.to_lowercase().contains("chunked") {
                    body.split("\r\n").skip(1).step_by(2).collect()
                } else {
                    body.to_owned()
                };
                assert_eq!(content, "ok123456", "{first}, {entry:?}: {answer}");
            }
        }
    }
}

/// A body behind the response to a HEAD would become the response to the next request.
#[tokio::test]
async fn bytes_behind_a_response_reach_no_other_caller() {
    for (method, script) in [
        (
            "HEAD",
            "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\nHTTP/1.1 200 OK\r\nEVIL: 1\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 204 No Content\r\n\r\nHTTP/1.1 200 OK\r\nEVIL: 1\r\nContent-Length: 0\r\n\r\n",
        ),
        (
            "GET",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nEVIL: 1\r\nContent-Length: 0\r\n\r\n",
        ),
    ] {
        let (pods, connections) = lying(script, true).await;
        for entry in ENTRY_POINTS {
            let before = connections.load(Ordering::Relaxed);
            for _ in 0..2 {
                let answer = pods.send(entry, request(method)).await;
                assert!(!answer.contains("EVIL"), "{entry:?}: {answer}");
                assert!([200, 204].contains(&status(&answer)), "{entry:?}: {answer}");
                // Time for what follows to come in, and be noticed.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let used = connections.load(Ordering::Relaxed) - before;
            assert_eq!(
                used, 2,
                "{method}, {entry:?}: a poisoned connection was used again"
            );
        }
    }
}

#[tokio::test]
async fn endless_interim_answers_end() {
    let flood = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(20_000);
    let script = format!("{flood}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (pods, _) = lying(script, false).await;
    for entry in ENTRY_POINTS {
        let answer = pods.send(entry, request("GET")).await;
        assert!(
            [200, 502].contains(&status(&answer)),
            "{entry:?}: {}",
            cut(&answer)
        );
        assert_eq!(answers(&answer), 1, "{entry:?}: {}", cut(&answer));
    }
}

/// The application answers and closes while the caller still sends.
#[tokio::test]
async fn an_early_answer_reaches_a_caller_that_still_sends() {
    let script = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
    let (pods, _) = lying(script, false).await;
    for entry in ENTRY_POINTS {
        let mut stream = pods.open(entry).await;
        let head = "POST /ok HTTP/1.1\r\nHost: s\r\nContent-Length: 10000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream, Duration::from_secs(1)).await;
        assert_eq!(status(&answer), 413, "{entry:?}: {answer}");
        assert!(answer.ends_with("big"), "{entry:?}: {answer}");
    }
}

/// The end of a body that broke off must not look like its proper end.
#[tokio::test]
async fn truncated_response_body_looks_truncated_to_caller() {
    for (case, script) in [
        (
            "length",
            "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        ),
        (
            "chunks",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        ),
        (
            "broken chunk",
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nzz\r\n",
        ),
    ] {
        let (pods, _) = lying(script, false).await;
        for entry in ENTRY_POINTS {
            let answer = pods.send(entry, request("GET")).await;
            assert_eq!(status(&answer), 200, "{case}, {entry:?}: {answer}");
            assert!(
                !answer.ends_with("\r\n0\r\n\r\n"),
                "{case}, {entry:?}: {answer}"
            );
            if case == "length" {
                assert!(
                    answer.to_lowercase().contains("content-length: 10")
                        && answer.ends_with("hello"),
                    "{case}, {entry:?}: {answer}"
                );
            }
        }
    }
}
