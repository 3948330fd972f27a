//! Connection reuse with servers that leave requests unread, or close between two requests.

use super::*;

/// Answers as soon as it has a head, though slowly. What comes behind a POST it never
/// reads: hypercorn does not when its application leaves ten chunks of one unread.
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
async fn request_does_not_wait_behind_upload_answered_unread() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let port = serving(&pods.server, deaf).await;
    pods.deliver_to(port);
    pods.port = port;
    for entry in ENTRY_POINTS {
        let mut stream = pods.open(entry).await;
        let head = "POST /ok HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n";
        stream.write_all(head.as_bytes()).await.unwrap();
        let mut answer = String::new();
        while !answer.ends_with("\r\n\r\no") {
            let mut buffer = [0; 1024];
            let read = timeout(Duration::from_secs(1), stream.read(&mut buffer)).await;
            let count = read
                .unwrap_or_else(|_| panic!("{entry:?}: {answer}"))
                .unwrap();
            assert_ne!(count, 0, "{entry:?}: {answer}");
            answer.push_str(&String::from_utf8_lossy(&buffer[..count]));
        }
        // The request is complete before the response is.
        stream.write_all(b"1\r\nb\r\n0\r\n\r\n").await.unwrap();
        let end = rest(&mut stream, Duration::from_secs(1)).await;
        assert_eq!(end, "k", "{entry:?}");
        let next = timeout(Duration::from_secs(2), pods.send(entry, request("GET"))).await;
        let next = next.unwrap_or_else(|_| panic!("{entry:?}: it waits on an unread connection"));
        assert_eq!(status(&next), 200, "{entry:?}: {next}");
    }
}

/// The same, where all of the request was sent before the answer came.
// Claims: attack-61
#[tokio::test]
async fn no_request_waits_behind_unread_chunks() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let port = serving(&pods.server, |mut stream| async move {
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
    pods.deliver_to(port);
    pods.port = port;
    for entry in ENTRY_POINTS {
        let head = "POST /ok HTTP/1.1\r\nHost: s\r\nTransfer-Encoding: chunked\r\n\r\n";
        let posted = format!("{head}{}0\r\n\r\n", "1\r\na\r\n".repeat(20));
        let answer = pods.send(entry, posted).await;
        assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
        let next = timeout(Duration::from_secs(2), pods.send(entry, request("GET"))).await;
        let next = next.unwrap_or_else(|_| panic!("{entry:?}: it waits on an unread connection"));
        assert_eq!(status(&next), 200, "{entry:?}: {next}");
    }
}

/// Answers POSTs with five bytes and GETs without any, and as soon as `keeps` is unset closes
/// `after` a response without an announcement.
async fn closing(mut stream: TcpStream, keeps: Arc<AtomicBool>, after: Duration) {
    let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
    loop {
        let end = loop {
            let head = seen.windows(4).position(|part| part == b"\r\n\r\n");
            let body = if seen.starts_with(b"POST") { 5 } else { 0 };
            if let Some(end) = head.map(|at| at + 4 + body)
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
    pods: TwoPods,
    keeps: Arc<AtomicBool>,
    connections: Arc<AtomicUsize>,
}

impl Closing {
    async fn new(keeps: bool, after: Duration) -> Self {
        let mut pods = TwoPods::new(Protocol::Http1).await;
        let keeps = Arc::new(AtomicBool::new(keeps));
        let connections = Arc::new(AtomicUsize::new(0));
        let (kept, count) = (Arc::clone(&keeps), Arc::clone(&connections));
        pods.port = serving(&pods.server, move |stream| {
            count.fetch_add(1, Ordering::Relaxed);
            closing(stream, Arc::clone(&kept), after)
        })
        .await;
        pods.deliver_to(pods.port);
        Self {
            pods,
            keeps,
            connections,
        }
    }

    fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Posts over a connection of its own, which a direct caller would never see fail.
async fn post(pods: &TwoPods, entry: EntryPoint) -> String {
    let request =
        b"POST /ok HTTP/1.1\r\nHost: s\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
    ask(pods, entry, request).await
}

async fn ask(pods: &TwoPods, entry: EntryPoint, request: &[u8]) -> String {
    let mut stream = pods.open(entry).await;
    stream.write_all(request).await.unwrap();
    rest(&mut stream, Duration::from_secs(5)).await
}

/// A caller without a proxy has a connection of its own, and loses none of these.
// Claims: attack-61
#[tokio::test]
async fn posts_to_servers_that_close_unannounced_are_all_answered() {
    for after in [0, 1, 5, 20].map(Duration::from_millis) {
        let application = Closing::new(false, after).await;
        for entry in ENTRY_POINTS {
            let callers = (0..4).map(|caller| {
                let pods = &application.pods;
                async move {
                    for turn in 0..40_u64 {
                        let answer = post(pods, entry).await;
                        assert_eq!(status(&answer), 200, "{after:?}, {entry:?}: {answer}");
                        tokio::time::sleep(Duration::from_millis((turn * 7 + caller) % 11)).await;
                    }
                }
            });
            futures::future::join_all(callers).await;
        }
    }
}

/// Nor does it cost one where a server begins to do so.
// Claims: attack-61
#[tokio::test]
async fn posts_use_no_pooled_connection_after_an_unannounced_close() {
    for entry in ENTRY_POINTS {
        let application = Closing::new(true, Duration::from_millis(5)).await;
        for keeps in [true, false, true] {
            application.keeps.store(keeps, Ordering::Relaxed);
            let before = application.connections();
            for _ in 0..20 {
                assert_eq!(
                    status(&post(&application.pods, entry).await),
                    200,
                    "{entry:?}"
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            assert_eq!(application.connections() - before, 20, "{entry:?}");
        }
    }
}

/// The server's own 501 is its answer, not a sign that it read something else.
// Claims: attack-61
#[tokio::test]
async fn post_answered_501_505_or_400_is_sent_once() {
    for status_line in ["501 Not Implemented", "505 Version", "400 Bad Request"] {
        let mut pods = TwoPods::new(Protocol::Http1).await;
        let came = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&came);
        pods.port = serving(&pods.server, move |mut stream| {
            let count = Arc::clone(&count);
            async move {
                let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
                while let Ok(size @ 1..) = stream.read(&mut buffer).await {
                    seen.extend_from_slice(&buffer[..size]);
                    if !seen.ends_with(b"hello") {
                        continue;
                    }
                    seen.clear();
                    count.fetch_add(1, Ordering::Relaxed);
                    let head = format!("HTTP/1.1 {status_line}\r\nConnection: close\r\n");
                    let answer = format!("{head}Content-Length: 2\r\n\r\nok");
                    let _ = stream.write_all(answer.as_bytes()).await;
                }
            }
        })
        .await;
        pods.deliver_to(pods.port);
        for entry in ENTRY_POINTS {
            for _ in 0..3 {
                let before = came.load(Ordering::Relaxed);
                let answer = post(&pods, entry).await;
                assert!(
                    status_line.starts_with(&status(&answer).to_string()),
                    "{answer}"
                );
                assert_eq!(came.load(Ordering::Relaxed) - before, 1, "{entry:?}");
            }
        }
    }
}

/// The control: requests that only read share connections, also those of many callers at once,
/// which use HTTP/2 between the proxies: there the end of the stream alone shows that a request has
/// no body.
#[tokio::test]
async fn gets_share_connections_before_server_proves_keep_alive() {
    const CALLERS: usize = 8;
    for entry in ENTRY_POINTS {
        let application = Closing::new(true, Duration::ZERO).await;
        let callers = (0..CALLERS).map(|_| async {
            for _ in 0..10 {
                let request = b"GET /ok HTTP/1.1\r\nHost: s\r\nConnection: close\r\n\r\n";
                let answer = ask(&application.pods, entry, request).await;
                assert_eq!(status(&answer), 200, "{entry:?}: {answer}");
            }
        });
        futures::future::join_all(callers).await;
        // A connection is free a little after its answer has ended.
        let opened = application.connections();
        assert!(opened <= 2 * CALLERS, "{entry:?}: {opened}");
    }
}
