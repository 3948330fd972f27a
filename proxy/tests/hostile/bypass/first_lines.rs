//! First lines that some server accepts as HTTP, and first lines of other protocols.
//!
//! Claims: attack-3

use super::super::two_pods::Recorded;
use super::*;

/// First lines that some server reads as HTTP, with an identity of their own.
fn forgeries() -> Vec<(Vec<u8>, Vec<u8>)> {
    let long = format!("{} / HTTP/1.1\r\n", "M".repeat(30));
    let far = format!("get /{} HTTP/1.1\r\n", "a".repeat(20_000));
    let lines: [&[u8]; 24] = [
        b"\r\nGET / HTTP/1.1\r\n",
        b"\nGET / HTTP/1.1\r\n",
        b"\r\n\r\n \t\r\nget / HTTP/1.1\r\n",
        b"get / HTTP/1.1\r\n",
        b"get / http/1.1\r\n",
        b"get / HTTP/1.0\n",
        b"M1 / HTTP/1.1\r\n",
        b"GET  /  HTTP/1.1\r\n",
        b"GET\t/\tHTTP/1.1\r\n",
        b"get\x0b/\x0cHTTP/1.1\r\n",
        b"get\xa0/\xa0HTTP/1.1\r\n",
        b"GET / HTTP/1.1 \t\r\n",
        b" GET / HTTP/1.1\r\n",
        b"GET foo HTTP/1.1\r\n",
        b"GET foo?x=/ HTTP/1.1\r\n",
        b"GET  HTTP/1.1\r\n",
        b"CONNECT s:80 HTTP/1.1\r\nHost: s:80\r\n\r\nGET / HTTP/1.1\r\n",
        b"x\xc3\xa4y / HTTP/1.1\r\n",
        b"\0GET / HTTP/1.1\r\n",
        b"GET /\xc3\xa4 HTTP/1.1\r\n",
        b"{} / HTTP/1.1\r\n",
        b"PRI * HTTP/1.1\r\n",
        long.as_bytes(),
        far.as_bytes(),
    ];
    let mut cases = Vec::new();
    for line in lines {
        let whole = [line, FORGED.as_bytes()].concat();
        // All at once, in two parts, and with the line's end late.
        cases.push((whole.clone(), Vec::new()));
        for at in [1, 3, line.len() - 5, line.len() - 1] {
            let (first, then) = whole.split_at(at);
            cases.push((first.to_vec(), then.to_vec()));
        }
    }
    cases
}

// Claims: A2
#[tokio::test]
async fn http_like_first_line_never_carries_forged_identity() {
    for mode in passing() {
        let ground = Ground::passing(&mode).await;
        ground.no_identity_comes(&mode, &forgeries()).await;
        // Control: an ordinary request arrives, with the true identity if there is one.
        for by in EVERY {
            let mut stream = ground.open(by).await;
            let request = format!("GET / HTTP/1.1\r\n{FORGED}");
            let sent = stream.write_all(request.as_bytes()).await;
            assert!(sent.is_ok() || !mode.admits(by), "{mode}, {by:?}: {sent:?}");
            sleep(SETTLED).await;
            let arrived = ground.kept().to_lowercase();
            if !mode.admits(by) {
                assert_eq!(arrived, "", "{mode}, {by:?}");
                continue;
            }
            assert!(arrived.starts_with("get / http/1.1"), "{by:?}: {arrived}");
            let own = arrived.contains("weft-client-id: spiffe://cluster.local/ns/shop/sa/web");
            assert_eq!(
                own,
                by != By::Caller(EntryPoint::Inbound),
                "{by:?}: {arrived}"
            );
        }
    }
}

/// A request in order, which makes a connection one of HTTP,
const IN_ORDER: &[u8] = b"GET /first HTTP/1.1\r\nHost: s\r\n\r\n";
/// and lines that follow in the same segment, the first of them in order as well.
const BEHIND: [&[u8]; 13] = [
    b"GET /behind HTTP/1.1\r\n",
    b"\r\nGET / HTTP/1.1\r\n",
    b"\nget / HTTP/1.1\r\n",
    b"get / HTTP/1.1\r\n",
    b"get / http/1.1\r\n",
    b"get / HTTP/1.0\n",
    b"M1 / HTTP/1.1\r\n",
    b"GET  /  HTTP/1.1\r\n",
    b"GET\t/\tHTTP/1.1\r\n",
    b"GET foo HTTP/1.1\r\n",
    b"GET / HTTP/1.1 \t\r\n",
    b"GET rtsp://a/x RTSP/1.0\r\n",
    b"get k\r\n",
];

impl Ground {
    /// Like `passing`, with an application that answers, so that what comes behind a request
    /// is read.
    async fn answering(mode: &Passing) -> Self {
        let pods = TwoPods::new(Protocol::Detect).await;
        pods.workload_in(Protocol::Detect, mode.enforcement, mode.mtls);
        pods.server.set(mode.rule.iter().cloned().collect());
        let kept = Bytes::default();
        Self { pods, kept }
    }
}

#[tokio::test]
async fn pipelined_request_never_carries_forged_identity() {
    for mode in passing() {
        let ground = Ground::answering(&mode).await;
        let log = &ground.pods.log;
        for by in EVERY {
            let mut streams = Vec::new();
            for line in BEHIND {
                let mut stream = ground.open(by).await;
                let both = [IN_ORDER, line, FORGED.as_bytes()].concat();
                let sent = stream.write_all(&both).await;
                assert!(sent.is_ok() || !mode.admits(by), "{mode}, {by:?}: {sent:?}");
                streams.push(stream);
            }
            // Control: the one in order arrives.
            let behind = |one: &Recorded| one.line().contains("/behind");
            let arrives = async {
                while !log.lock().iter().any(behind) {
                    sleep(Duration::from_millis(10)).await;
                }
            };
            if mode.admits(by) {
                let arrived = timeout(Duration::from_secs(5), arrives).await;
                assert!(arrived.is_ok(), "{mode}, {by:?}: {:?}", log.lock());
            }
            sleep(SETTLED).await;
            let requests = std::mem::take(&mut *log.lock());
            assert_eq!(requests.is_empty(), !mode.admits(by), "{mode}, {by:?}");
            let own: &[&str] = match by {
                By::Caller(EntryPoint::Inbound) => &[],
                _ => &["spiffe://cluster.local/ns/shop/sa/web"],
            };
            for request in &requests {
                let head = &request.head;
                assert!(!head.contains("evil"), "{mode}, {by:?}: {head}");
                if behind(request) {
                    assert_eq!(request.values("weft-client-id"), own, "{mode}, {by:?}");
                }
            }
            drop(streams);
        }
    }
}

/// First lines that end otherwise than HTTP's and that some server reads as a request with headers,
/// each with its way of sending: complete, in two parts, letter by letter.
fn requests_of_other_names() -> Vec<(Vec<u8>, Vec<u8>)> {
    let lines: [&[u8]; 16] = [
        b"GET rtsp://a/private RTSP/1.0\r\n",
        b"\r\nGET /private RTSP/1.0\r\n",
        b"\nGET /private RTSP/1.0\r\n",
        b"GET  /private RTSP/1.0\r\n",
        b"GET\tx\trtsp/1.0 \r\n",
        b"\r\nSOURCE /private ICE/1.0\r\n",
        b"SOURCE private ICE/1.0\r\n",
        b"SOURCE private ice/1.0\n",
        b"M1 x WORD/12.34\r\n",
        b"\r\nGET /private\r\n",
        b"GET private\r\n",
        b"get k\n",
        b"GET / HTTP/1.1 x\r\n",
        b"OPTIONS rtsp://a/ RTSP/1.0\r\n\r\nGET / HTTP/1.1\r\n",
        b"get k\r\nGET / HTTP/1.1\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\n",
    ];
    let forged = [
        FORGED,
        "WEFT_Client_Id : spiffe://evil\r\n\r\n",
        "Host: s\rweft.client~id: spiffe://evil\r\n\r\n",
    ];
    let mut cases = Vec::new();
    for line in lines {
        for forged in forged {
            let whole = [line, forged.as_bytes()].concat();
            cases.push((whole.clone(), Vec::new()));
            for at in [1, 2, line.len() - 3, line.len(), line.len() + 14] {
                let (first, then) = whole.split_at(at);
                cases.push((first.to_vec(), then.to_vec()));
            }
        }
    }
    cases
}

/// They pass, as RTSP, memcached and Redis have such lines, but bring no identity.
// Claims: A2, attack-64
#[tokio::test]
async fn request_like_line_of_other_protocol_forges_no_identity() {
    for mode in passing() {
        let ground = Ground::passing(&mode).await;
        ground
            .no_identity_comes(&mode, &requests_of_other_names())
            .await;
        for by in EVERY {
            // The connection that sent one ends, and is counted.
            let mut stream = ground.open(by).await;
            let bytes = format!("GET rtsp://a/x RTSP/1.0\r\n{FORGED}");
            let sent = stream.write_all(bytes.as_bytes()).await;
            assert!(sent.is_ok() || !mode.admits(by), "{mode}, {by:?}: {sent:?}");
            let read = timeout(LATE, stream.read(&mut [0; 16])).await;
            // A caller without admission may get a refusal first.
            let ended = matches!(read, Ok(Ok(0) | Err(_)));
            assert!(ended || !mode.admits(by), "{mode}, {by:?}: {read:?}");
        }
        let metrics = ground.pods.server.metrics();
        assert!(
            metrics.lines().any(|line| line.starts_with("weft_tcp")
                && line.contains("bad-request")
                && !line.ends_with(" 0")),
            "{metrics}"
        );
    }
}

/// First lines of clients of other text protocols. Redis' inline form of a command with a path as
/// its first word is the one that looks the same as HTTP.
const FIRST_BYTES: [(&str, &str); 15] = [
    ("memcached", "get k\r\n"),
    ("memcached", "get /a/path\r\n"),
    ("memcached", "set k 0 0 5\r\nhello\r\n"),
    ("Redis inline", "PING\r\n"),
    ("Redis inline", "GET key\r\n"),
    ("Redis", "*2\r\n$3\r\nGET\r\n$1\r\nk\r\n"),
    ("NATS", "CONNECT {\"verbose\":false}\r\nPING\r\n"),
    ("STOMP", "CONNECT\naccept-version:1.2\nhost:h\n\n\0"),
    ("RTSP", "OPTIONS rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\n\r\n"),
    (
        "RTSP",
        "DESCRIBE rtsp://h/a RTSP/1.0\r\nCSeq: 2\r\nAccept: application/sdp\r\n\r\n",
    ),
    (
        "SIP",
        "OPTIONS sip:a@h SIP/2.0\r\nVia: SIP/2.0/TCP h\r\nContent-Length: 0\r\n\r\n",
    ),
    (
        "Redis with a header as value",
        "*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$17\r\nweft-client-id: x\r\n",
    ),
    ("SSH", "SSH-2.0-x\r\n"),
    ("without a line's end", "ruok"),
    ("Kafka", "\0\0\0\x24\0\x12\0\x03\0\0\0\x01\0\x07rdkafka\0"),
];

// Claims: A2
#[tokio::test]
async fn other_text_protocols_pass_undeclared_ports_as_they_are() {
    for mode in passing() {
        let ground = Ground::passing(&mode).await;
        for by in EVERY.into_iter().filter(|by| mode.admits(*by)) {
            for (name, first_bytes) in FIRST_BYTES {
                let mut stream = ground.open(by).await;
                for turn in 0..2 {
                    stream.write_all(first_bytes.as_bytes()).await.unwrap();
                    let mut back = vec![0; first_bytes.len()];
                    let read = timeout(SETTLED, stream.read_exact(&mut back)).await;
                    assert!(matches!(read, Ok(Ok(_))), "{name} {turn}, {by:?}: {read:?}");
                    assert_eq!(back, first_bytes.as_bytes(), "{name}, {by:?}");
                }
            }
            ground.kept();
        }
    }
}

#[tokio::test]
async fn server_first_connection_stays_in_servers_protocol() {
    let ground = Ground::new(Protocol::Detect, "220 mail ESMTP\r\n").await;
    for by in EVERY {
        let mut stream = ground.open(by).await;
        let mut banner = [0; 16];
        stream.read_exact(&mut banner).await.unwrap();
        for first_bytes in [
            &b"EHLO h\r\n"[..],
            b"MAIL FROM:<a@b>\r\n",
            b"get / HTTP/1.1\r\n",
        ] {
            stream.write_all(first_bytes).await.unwrap();
            let mut back = vec![0; first_bytes.len()];
            stream.read_exact(&mut back).await.unwrap();
            assert_eq!(back, first_bytes, "{by:?}");
        }
    }
}
