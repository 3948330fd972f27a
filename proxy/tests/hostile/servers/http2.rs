//! HTTP/2 servers that break the protocol's rules.

use super::*;

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
async fn rule_breaking_http2_server_costs_caller_one_502() {
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
            "body on an unopened stream",
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
        let mut pods = TwoPods::new(Protocol::Http2).await;
        let good = crate::support::http_app(&pods.server, "api").await.0;
        let script = Arc::new(script);
        let port = serving(&pods.server, move |stream| {
            bad2(stream, Arc::clone(&script))
        })
        .await;
        for entry in ENTRY_POINTS {
            pods.deliver_to(port);
            pods.port = port;
            let mut raw = RawHttp2::new(pods.open(entry).await).await;
            raw.request(1, true, &get("/ok")).await;
            let outcome = raw.outcome(1, Duration::from_secs(5)).await;
            assert!(
                matches!(outcome, Outcome::Status(502 | 503)),
                "{case}, {entry:?}: {outcome:?}"
            );
            // Another application, over the same pair of proxies.
            pods.deliver_to(good);
            pods.port = good;
            let mut raw = RawHttp2::new(pods.open(entry).await).await;
            raw.request(1, true, &get("/ok")).await;
            let outcome = raw.outcome(1, Duration::from_secs(1)).await;
            assert_eq!(outcome, Outcome::Status(200), "after {case}, {entry:?}");
        }
    }
}
