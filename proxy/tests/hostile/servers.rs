//! Applications that lie, break off or flood: the caller gets one well-formed
//! answer or a 502, and the broken connection serves nobody else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::v1::Protocol;

use super::raw_http2::{
    self, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PUSH_PROMISE, RawHttp2, SETTINGS, Told, frame,
    get,
};
use super::two_pods::{TwoPods, WAYS, Way, answers, rest, serving, status};

/// Reads the head of a request and writes `script`; `keep` leaves the
/// connection open afterwards, for whoever would use it again.
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

/// A field whose application answers every connection with `script`.
async fn lying(script: impl Into<Vec<u8>>, keep: bool) -> (TwoPods, Arc<AtomicUsize>) {
    let mut field = TwoPods::new(Protocol::Http1).await;
    let connections = Arc::new(AtomicUsize::new(0));
    let script = Arc::new(script.into());
    let count = Arc::clone(&connections);
    let port = serving(&field.server, move |stream| {
        count.fetch_add(1, Ordering::Relaxed);
        scripted(stream, Arc::clone(&script), keep)
    })
    .await;
    field.deliver_to(port);
    field.port = port;
    (field, connections)
}

fn request(method: &str) -> String {
    format!("{method} /ok HTTP/1.1\r\nHost: s\r\n\r\n")
}

#[tokio::test]
async fn answers_that_parsers_read_differently_become_one_answer_or_502() {
    let large = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "a".repeat(1024 * 1024));
    let many = format!(
        "HTTP/1.1 200 OK\r\n{}Content-Length: 0\r\n\r\n",
        (0..200)
            .map(|at| format!("x{at}: 1\r\n"))
            .collect::<String>()
    );
    let second = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nSECOND";
    for (case, script) in [
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
    ] {
        let (field, _) = lying(script, false).await;
        for way in WAYS {
            let answer = field.send(way, request("GET")).await;
            assert_eq!(answers(&answer), 1, "{case}, {way:?}: {}", cut(&answer));
            let lower = answer.to_lowercase();
            assert!(
                !(lower.contains("content-length") && lower.contains("transfer-encoding")),
                "{case}, {way:?}: {}",
                cut(&answer)
            );
            assert_ne!(status(&answer), 101, "{case}, {way:?}: {}", cut(&answer));
            if status(&answer) >= 500 && status(&answer) != 999 {
                assert_eq!(status(&answer), 502, "{case}, {way:?}: {}", cut(&answer));
                assert!(
                    answer.contains("weft-reason: connection-lost"),
                    "{case}: {}",
                    cut(&answer)
                );
            }
            if [204, 304].contains(&status(&answer)) {
                let body = answer.split_once("\r\n\r\n").map(|(_, body)| body);
                assert_eq!(body, Some(""), "{case}, {way:?}");
            }
        }
        // The control: the same pods, with an application that behaves.
        let (port, _log) = super::two_pods::recorder(&field.server).await;
        let field = TwoPods { port, ..field };
        field.deliver_to(port);
        field.works(case).await;
    }
}

fn cut(text: &str) -> &str {
    text.get(..300).unwrap_or(text)
}

/// A transfer coding says where an answer ends; a length beside it is none.
#[tokio::test]
async fn an_answer_with_both_a_length_and_chunks_arrives_whole() {
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
            let (field, _) = lying(script, false).await;
            for way in WAYS {
                let answer = field.send(way, request("GET")).await;
                let (head, body) = answer.split_once("\r\n\r\n").unwrap();
                let content: String = if head.to_lowercase().contains("chunked") {
                    body.split("\r\n").skip(1).step_by(2).collect()
                } else {
                    body.to_owned()
                };
                assert_eq!(content, "ok123456", "{first}, {way:?}: {answer}");
            }
        }
    }
}

/// A body behind the answer to a HEAD would be the answer to whoever is next.
#[tokio::test]
async fn what_follows_an_answer_reaches_nobody_else() {
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
        let (field, connections) = lying(script, true).await;
        for way in WAYS {
            let before = connections.load(Ordering::Relaxed);
            for _ in 0..2 {
                let answer = field.send(way, request(method)).await;
                assert!(!answer.contains("EVIL"), "{way:?}: {answer}");
                assert!([200, 204].contains(&status(&answer)), "{way:?}: {answer}");
                // Time for what follows to come in, and be noticed.
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let used = connections.load(Ordering::Relaxed) - before;
            assert_eq!(
                used, 2,
                "{method}, {way:?}: a poisoned connection was used again"
            );
        }
    }
}

#[tokio::test]
async fn endless_interim_answers_end() {
    let flood = "HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n".repeat(20_000);
    let script = format!("{flood}HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let (field, _) = lying(script, false).await;
    for way in WAYS {
        let answer = field.send(way, request("GET")).await;
        assert!(
            [200, 502].contains(&status(&answer)),
            "{way:?}: {}",
            cut(&answer)
        );
        assert_eq!(answers(&answer), 1, "{way:?}: {}", cut(&answer));
    }
}

/// The application answers and closes while the caller still sends.
#[tokio::test]
async fn an_early_answer_reaches_a_caller_that_still_sends() {
    let script = "HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig";
    let (field, _) = lying(script, false).await;
    for way in WAYS {
        let mut stream = field.open(way).await;
        let head = "POST /ok HTTP/1.1\r\nHost: s\r\nContent-Length: 10000000\r\n\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let answer = rest(&mut stream, Duration::from_secs(1)).await;
        assert_eq!(status(&answer), 413, "{way:?}: {answer}");
        assert!(answer.ends_with("big"), "{way:?}: {answer}");
    }
}

/// Answers as soon as it has a head, though slowly. What comes behind a POST it never
/// reads: hypercorn does not when its application leaves ten pieces of one unread.
async fn deaf(mut stream: TcpStream) {
    let mut buffer = [0; 4096];
    let count = stream.read(&mut buffer).await.unwrap_or(0);
    let _ = stream
        .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\no")
        .await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    let _ = stream.write_all(b"k").await;
    if buffer[..count].starts_with(b"POST") {
        std::future::pending::<()>().await;
    }
}

#[tokio::test]
async fn nobody_waits_behind_a_request_that_was_answered_before_it_was_read() {
    let mut field = TwoPods::new(Protocol::Http1).await;
    let port = serving(&field.server, deaf).await;
    field.deliver_to(port);
    field.port = port;
    for way in WAYS {
        let mut stream = field.open(way).await;
        let head = "POST /ok HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\no") {
            let mut buffer = [0; 1024];
            let read = timeout(Duration::from_secs(1), stream.read(&mut buffer)).await;
            let count = read
                .unwrap_or_else(|_| panic!("{way:?}: {answer}"))
                .unwrap();
            assert_ne!(count, 0, "{way:?}: {answer}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        // The request is whole before the answer is.
        stream.write_all(b"1\r\nb\r\n0\r\n\r\n").await.unwrap();
        let end = rest(&mut stream, Duration::from_secs(1)).await;
        assert_eq!(end, "k", "{way:?}");
        let next = timeout(Duration::from_secs(2), field.send(way, request("GET"))).await;
        let next = next.unwrap_or_else(|_| panic!("{way:?}: it waits where nobody reads"));
        assert_eq!(status(&next), 200, "{way:?}: {next}");
    }
}

/// The same, where all of the request was sent before the answer came.
#[tokio::test]
async fn nobody_waits_behind_chunks_that_were_left_unread() {
    let mut field = TwoPods::new(Protocol::Http1).await;
    let port = serving(&field.server, |mut stream| async move {
        let mut buffer = [0; 4096];
        let count = stream.read(&mut buffer).await.unwrap_or(0);
        let posted = buffer[..count].starts_with(b"POST");
        tokio::time::sleep(Duration::from_millis(300)).await;
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let _ = stream.write_all(answer).await;
        if posted {
            std::future::pending::<()>().await;
        }
    })
    .await;
    field.deliver_to(port);
    field.port = port;
    for way in WAYS {
        let head = "POST /ok HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n";
        let posted = format!("{head}{}0\r\n\r\n", "1\r\na\r\n".repeat(20));
        let answer = field.send(way, posted).await;
        assert_eq!(status(&answer), 200, "{way:?}: {answer}");
        let next = timeout(Duration::from_secs(2), field.send(way, request("GET"))).await;
        let next = next.unwrap_or_else(|_| panic!("{way:?}: it waits where nobody reads"));
        assert_eq!(status(&next), 200, "{way:?}: {next}");
    }
}

/// Answers requests with five bytes, and as soon as `keeps` is unset closes `after` an
/// answer without having said so.
async fn closing(mut stream: TcpStream, keeps: Arc<AtomicBool>, after: Duration) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let end = loop {
            let head = seen.windows(4).position(|part| part == b"\r\n\r\n");
            if let Some(end) = head.map(|at| at + 9)
                && seen.len() >= end
            {
                break end;
            }
            match stream.read(&mut buffer).await {
                Ok(0) | Err(_) => return,
                Ok(count) => seen.extend_from_slice(&buffer[..count]),
            }
        };
        seen.drain(..end);
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        if stream.write_all(answer).await.is_err() {
            return;
        }
        if !keeps.load(Ordering::Relaxed) {
            tokio::time::sleep(after).await;
            return;
        }
    }
}

struct Closing {
    field: TwoPods,
    keeps: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Closing {
    async fn new(keeps: bool, after: Duration) -> Self {
        let mut field = TwoPods::new(Protocol::Http1).await;
        let keeps = Arc::new(AtomicBool::new(keeps));
        let connections = Arc::new(AtomicUsize::new(0));
        let (kept, count) = (Arc::clone(&keeps), Arc::clone(&connections));
        field.port = serving(&field.server, move |stream| {
            count.fetch_add(1, Ordering::Relaxed);
            closing(stream, Arc::clone(&kept), after)
        })
        .await;
        field.deliver_to(field.port);
        Self {
            field,
            keeps,
            connections,
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }

    /// Posts for longer than a server needs to prove that it keeps its connections.
    async fn prove(&self, way: Way) {
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_millis(1300) {
            assert_eq!(status(&post(&self.field, way).await), 200, "{way:?}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// Posts over a connection of its own, which a direct caller would never see fail.
async fn post(field: &TwoPods, way: Way) -> String {
    let mut stream = field.open(way).await;
    let request =
        b"POST /ok HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    stream.write_all(request).await.unwrap();
    rest(&mut stream, Duration::from_secs(5)).await
}

/// Whoever calls directly has a connection of its own, and loses none of these.
#[tokio::test]
async fn posts_to_servers_that_close_unannounced_are_all_answered() {
    for after in [0, 1, 5, 20].map(Duration::from_millis) {
        let application = Closing::new(false, after).await;
        for way in WAYS {
            let callers = (0..4).map(|caller| {
                let field = &application.field;
                async move {
                    for turn in 0..40_u64 {
                        let answer = post(field, way).await;
                        assert_eq!(status(&answer), 200, "{after:?}, {way:?}: {answer}");
                        tokio::time::sleep(Duration::from_millis((turn * 7 + caller) % 11)).await;
                    }
                }
            });
            futures::future::join_all(callers).await;
        }
    }
}

/// What a server did for long may cost the one request that finds out.
#[tokio::test]
async fn posts_use_no_pooled_connection_after_an_unannounced_close() {
    for way in WAYS {
        let application = Closing::new(true, Duration::from_millis(5)).await;
        application.prove(way).await;
        application.keeps.store(false, Ordering::Relaxed);
        let mut lost = 0;
        for _ in 0..40 {
            lost += usize::from(status(&post(&application.field, way).await) != 200);
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        assert!(lost <= 1, "{way:?}: {lost}");
        // Nor are they as soon as it keeps its connections again.
        application.keeps.store(true, Ordering::Relaxed);
        application.prove(way).await;
        let begun = application.connections();
        for _ in 0..20 {
            assert_eq!(status(&post(&application.field, way).await), 200, "{way:?}");
        }
        assert_eq!(application.connections() - begun, 20, "{way:?}");
    }
}

/// The control: one that keeps its connections is not asked for one by every POST.
#[tokio::test]
async fn posts_share_the_connections_of_a_server_that_keeps_them() {
    for way in WAYS {
        let application = Closing::new(true, Duration::ZERO).await;
        application.prove(way).await;
        let before = application.connections();
        for _ in 0..50 {
            assert_eq!(status(&post(&application.field, way).await), 200, "{way:?}");
        }
        let opened = application.connections() - before;
        assert!(opened <= 2, "{way:?}: {opened}");
    }
}

/// The end of a body that broke off must not look like its proper end.
#[tokio::test]
async fn a_body_that_breaks_off_looks_broken_to_the_caller() {
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
        let (field, _) = lying(script, false).await;
        for way in WAYS {
            let answer = field.send(way, request("GET")).await;
            assert_eq!(status(&answer), 200, "{case}, {way:?}: {answer}");
            assert!(
                !answer.ends_with("\r\n0\r\n\r\n"),
                "{case}, {way:?}: {answer}"
            );
            if case == "length" {
                assert!(
                    answer.to_lowercase().contains("content-length: 10")
                        && answer.ends_with("hello"),
                    "{case}, {way:?}: {answer}"
                );
            }
        }
    }
}

/// Speaks HTTP/2 as a server, badly.
async fn bad2(mut stream: TcpStream, script: Arc<Vec<u8>>) {
    let mut seen = Vec::new();
    let mut buffer = [0; 16 * 1024];
    let _ = stream.write_all(&frame(SETTINGS, 0, 0, &[])).await;
    // A request has come when a HEADERS frame for stream 1 has.
    while !seen
        .windows(8)
        .any(|part| part[0] == HEADERS && part[2..6] == [0, 0, 0, 1])
    {
        match stream.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(count) => seen.extend_from_slice(&buffer[..count]),
        }
    }
    let _ = stream.write_all(&script).await;
    let mut sink = Vec::new();
    let _ = tokio::time::timeout(Duration::from_secs(3), stream.read_to_end(&mut sink)).await;
}

#[tokio::test]
async fn http2_servers_that_break_the_rules_cost_their_caller_one_502() {
    let mut no_streams = vec![0, 3, 0, 0, 0, 0];
    no_streams = frame(SETTINGS, 0, 0, &no_streams);
    let mut goaway = no_streams.clone();
    goaway.extend(frame(GOAWAY, 0, 0, &[0, 0, 0, 0, 0, 0, 0, 1]));
    let mut bomb = vec![0x88];
    bomb.extend(raw_http2::block(&[(b"x", &[b'a'; 16_000])]));
    let endless: Vec<u8> = frame(HEADERS, 0, 1, &[0x88])
        .into_iter()
        .chain((0..2000).flat_map(|_| {
            frame(
                raw_http2::CONTINUATION,
                0,
                1,
                &raw_http2::block(&[(b"x", &[b'a'; 15_000])]),
            )
        }))
        .collect();
    let push: Vec<u8> = [0, 0, 0, 2]
        .into_iter()
        .chain(raw_http2::block(&get("/pushed")))
        .collect();
    for (case, script) in [
        ("goaway with streams forbidden", goaway),
        ("headers without end", endless),
        ("push", frame(PUSH_PROMISE, END_HEADERS, 1, &push)),
        (
            "body on a stream of nobody",
            frame(raw_http2::DATA, 0, 77, b"x"),
        ),
        (
            "no status",
            frame(
                HEADERS,
                END_HEADERS | END_STREAM,
                1,
                &raw_http2::block(&[(b"x", b"y")]),
            ),
        ),
        (
            "HTTP/1.1",
            b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n".to_vec(),
        ),
        (
            "upper case",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &{
                let mut block = vec![0x88];
                block.extend(raw_http2::block(&[(b"X-Up", b"y")]));
                block
            }),
        ),
        (
            "connection header",
            frame(HEADERS, END_HEADERS | END_STREAM, 1, &{
                let mut block = vec![0x88];
                block.extend(raw_http2::block(&[(b"connection", b"close")]));
                block
            }),
        ),
    ] {
        let mut field = TwoPods::new(Protocol::Http2).await;
        let good = crate::support::http_app(&field.server, "api").await.0;
        let script = Arc::new(script);
        let port = serving(&field.server, move |stream| {
            bad2(stream, Arc::clone(&script))
        })
        .await;
        for way in WAYS {
            field.deliver_to(port);
            field.port = port;
            let mut raw = RawHttp2::new(field.open(way).await).await;
            raw.request(1, true, &get("/ok")).await;
            let told = raw.told(1, Duration::from_secs(5)).await;
            assert!(
                matches!(told, Told::Status(502 | 503)),
                "{case}, {way:?}: {told:?}"
            );
            // Another application, over the same pair of proxies.
            field.deliver_to(good);
            field.port = good;
            let mut raw = RawHttp2::new(field.open(way).await).await;
            raw.request(1, true, &get("/ok")).await;
            let told = raw.told(1, Duration::from_secs(1)).await;
            assert_eq!(told, Told::Status(200), "after {case}, {way:?}");
        }
    }
}
