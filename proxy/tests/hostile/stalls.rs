//! Streams that stall because their receiver does not read, and that crash while stalled: they
//! slow down no other stream.
//!
//! Claims: attack-18, attack-22

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use wire::v1::{Enforcement, Protocol};

use super::raw_http2::{DATA, END_STREAM, Outcome, RawHttp2, frame};
use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, serving, status};

const SOON: Duration = Duration::from_secs(5);
/// Streams that are left alone at once.
const STALLED: usize = 100;

/// Drops the connection so that the other end gets a reset.
pub(super) fn crash(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

/// Writes until no more is taken.
async fn fill(stream: &mut TcpStream) {
    let chunk = [b'x'; 64 * 1024];
    while let Ok(Ok(())) = timeout(Duration::from_millis(300), stream.write_all(&chunk)).await {}
}

/// Answers each request with its body's size once the complete body has arrived.
async fn sizes(stream: TcpStream) {
    let Ok(mut connection) = h2::server::handshake(stream).await else {
        return;
    };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        tokio::spawn(async move {
            let mut body = request.into_body();
            let mut size = 0;
            while let Some(Ok(data)) = body.data().await {
                size += data.len();
                let _ = body.flow_control().release_capacity(data.len());
            }
            let response = Response::builder().header("size", size).body(()).unwrap();
            let _ = respond.send_response(response, true);
        });
    }
}

// Claims: R1
#[tokio::test]
async fn empty_frames_end_no_connection() {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    pods.port = serving(&pods.server, sizes).await;
    pods.deliver_to(pods.port);
    for entry in ENTRY_POINTS {
        let mut raw = RawHttp2::new(pods.open(entry).await).await;
        for at in 0..300 {
            let stream = 2 * at + 1;
            let fields: [(&[u8], &[u8]); 4] = [
                (b":method", b"POST"),
                (b":scheme", b"http"),
                (b":authority", b"s"),
                (b":path", b"/"),
            ];
            raw.request(stream, false, &fields).await;
            for (flags, content) in [(0, "a"), (0, ""), (0, "b"), (END_STREAM, "")] {
                raw.write(&frame(DATA, flags, stream, content.as_bytes()))
                    .await;
            }
            let outcome = raw.outcome(stream, SOON).await;
            assert_eq!(outcome, Outcome::Status(200), "{entry:?}, request {at}");
        }
    }
}

/// Counts the connections of an application that reads nothing, while they live.
#[derive(Clone, Default)]
struct Open(Arc<AtomicUsize>);

impl Open {
    /// Takes one chunk, then waits for the end without reading.
    async fn hold(self, mut stream: TcpStream) {
        self.0.fetch_add(1, Ordering::Relaxed);
        let _ = stream.read_u8().await;
        let _ = stream.ready(tokio::io::Interest::ERROR).await;
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    async fn reaches(&self, count: usize) -> bool {
        let until = Instant::now() + SOON;
        while self.0.load(Ordering::Relaxed) != count {
            if Instant::now() > until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        true
    }
}

// Claims: R2, attack-20
#[tokio::test]
async fn crashed_stuck_tunnel_ends_at_application() {
    let (pods, open) = unread(Protocol::Opaque).await;
    for round in 0..3 {
        let mut callers = Vec::new();
        for _ in 0..10 {
            let mut caller = pods.open(EntryPoint::Outbound).await;
            fill(&mut caller).await;
            callers.push(caller);
        }
        assert!(open.reaches(10).await, "round {round}: not all arrived");
        callers.into_iter().for_each(crash);
        let left = open.reaches(0).await;
        assert!(left, "round {round}: {:?} are left", open.0);
    }
}

/// The application may never read on, so what is left of it there is left for ever.
async fn crash_uploads(pods: &TwoPods, open: &Open, entry: EntryPoint) {
    for round in 0..2 {
        let filling = (0..10).map(async |_| {
            let mut caller = pods.open(entry).await;
            let head = b"POST /up HTTP/1.1\r\nHost: s\r\nContent-Length: 1000000000\r\n\r\n";
            caller.write_all(head).await.unwrap();
            fill(&mut caller).await;
            caller
        });
        let callers = futures::future::join_all(filling).await;
        assert!(open.reaches(10).await, "{entry:?} {round}: not all arrived");
        callers.into_iter().for_each(crash);
        let left = open.reaches(0).await;
        assert!(left, "{entry:?} {round}: {:?} are left", open.0);
    }
}

/// Two pods, and an application that reads nothing.
async fn unread(protocol: Protocol) -> (TwoPods, Open) {
    let mut pods = TwoPods::new(protocol).await;
    let open = Open::default();
    let connections = open.clone();
    pods.port = serving(&pods.server, move |stream| connections.clone().hold(stream)).await;
    pods.deliver_to(pods.port);
    (pods, open)
}

// Claims: R2, attack-20
#[tokio::test]
async fn crashed_stuck_upload_ends_at_application() {
    let (pods, open) = unread(Protocol::Http1).await;
    for entry in ENTRY_POINTS {
        crash_uploads(&pods, &open, entry).await;
    }
}

/// The caller's proxy takes it for bytes, and the application's reads it.
// Claims: R2, attack-20
#[tokio::test]
async fn so_does_one_that_came_in_a_tunnel() {
    let (pods, open) = unread(Protocol::Opaque).await;
    pods.workload(Protocol::Http1, Enforcement::Open);
    crash_uploads(&pods, &open, EntryPoint::Outbound).await;
}

/// hyper would wait until the application took what it has of the body.
#[tokio::test]
async fn stuck_upload_with_non_http_response_ends_at_application() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let open = Open::default();
    let connections = open.clone();
    pods.port = serving(&pods.server, move |mut stream| {
        let connections = connections.clone();
        async move {
            connections.0.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(Duration::from_secs(1)).await;
            let _ = stream.write_all(b"garbage\r\n\r\n").await;
            let _ = stream.ready(tokio::io::Interest::ERROR).await;
            connections.0.fetch_sub(1, Ordering::Relaxed);
        }
    })
    .await;
    pods.deliver_to(pods.port);
    let mut caller = pods.open(EntryPoint::Outbound).await;
    let head = b"POST /up HTTP/1.1\r\nHost: s\r\nContent-Length: 1000000000\r\n\r\n";
    caller.write_all(head).await.unwrap();
    fill(&mut caller).await;
    assert!(open.reaches(1).await, "it did not arrive");
    assert!(open.reaches(0).await, "it is left");
}

/// A request that was sent completely arrives completely after its caller has left, however slow
/// the receiver is.
// Claims: R2
#[tokio::test]
async fn complete_unread_request_arrives_after_caller_crash() {
    // More than an application's kernel takes, and less than the proxy's: the rest is lost by a reset.
    const SENT: usize = 500_000;
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let (got, mut size) = tokio::sync::mpsc::unbounded_channel();
    pods.port = serving(&pods.server, move |mut stream| {
        let got = got.clone();
        async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            let mut all = Vec::new();
            let _ = stream.read_to_end(&mut all).await;
            let _ = got.send(all.iter().filter(|byte| **byte == b'~').count());
        }
    })
    .await;
    pods.deliver_to(pods.port);
    for entry in ENTRY_POINTS {
        let mut caller = pods.open(entry).await;
        let head = format!("POST / HTTP/1.1\r\nHost: s\r\nContent-Length: {SENT}\r\n\r\n");
        caller.write_all(head.as_bytes()).await.unwrap();
        caller.write_all(&[b'~'; SENT]).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        crash(caller);
        let came = timeout(SOON, size.recv()).await.unwrap();
        assert_eq!(came, Some(SENT), "{entry:?}");
    }
}

/// HTTP/1.1 of every kind: `/endless` for ever, `/stuck` reads nothing, else an answer.
async fn moody(mut stream: TcpStream) {
    let mut head = Vec::new();
    loop {
        head.clear();
        while !head.ends_with(b"\r\n\r\n") {
            match stream.read_u8().await {
                Ok(byte) => head.push(byte),
                Err(_) => return,
            }
        }
        let text = String::from_utf8_lossy(&head).into_owned();
        if text.contains(" /endless ") {
            let _ = stream
                .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
                .await;
            let chunk = [b"4000\r\n".as_slice(), &[b'x'; 0x4000], b"\r\n"].concat();
            while stream.write_all(&chunk).await.is_ok() {}
            return;
        }
        if text.contains(" /stuck ") {
            return std::future::pending().await;
        }
        let length = text
            .lines()
            .find_map(|line| {
                line.to_ascii_lowercase()
                    .strip_prefix("content-length: ")?
                    .parse()
                    .ok()
            })
            .unwrap_or(0);
        let mut body = vec![0; length];
        if stream.read_exact(&mut body).await.is_err() {
            return;
        }
        let _ = stream
            .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
            .await;
    }
}

// Claims: R3
#[tokio::test]
async fn unread_streams_hold_up_no_other() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    pods.port = serving(&pods.server, moody).await;
    pods.deliver_to(pods.port);
    let entry = EntryPoint::Outbound;
    let post = format!(
        "POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 30000\r\nConnection: close\r\n\r\n{}",
        "y".repeat(30_000)
    );
    let ask = async || {
        let started = Instant::now();
        let answer = pods.send(entry, &post).await;
        assert_eq!(
            status(&answer),
            200,
            "after {:?}: {answer}",
            started.elapsed()
        );
        started.elapsed()
    };
    let mut calm = Duration::ZERO;
    for _ in 0..50 {
        calm = calm.max(ask().await);
    }
    let mut stalled = Vec::new();
    for at in 0..STALLED {
        let mut down = pods.open(entry).await;
        // The kernel would take megabytes for each before anything waits in a proxy.
        SockRef::from(&down).set_recv_buffer_size(4096).unwrap();
        down.write_all(b"GET /endless HTTP/1.1\r\nHost: s\r\n\r\n")
            .await
            .unwrap();
        down.read_u8().await.unwrap();
        let mut up = pods.open(entry).await;
        up.write_all(b"POST /stuck HTTP/1.1\r\nHost: s\r\nContent-Length: 100000000\r\n\r\n")
            .await
            .unwrap();
        let chunk = vec![b'z'; 4 * 1024 * 1024];
        let _ = timeout(Duration::from_millis(30), up.write_all(&chunk)).await;
        stalled.push((down, up));
        if at % 10 == 9 {
            tokio::time::sleep(Duration::from_millis(300)).await;
            ask().await;
        }
    }
    let mut all = Vec::new();
    for _ in 0..100 {
        all.push(ask().await);
    }
    all.sort();
    let p99 = all[all.len() - 2];
    // Two processes' worth of work in one thread of a test: more than on the wire.
    let bound = (2 * calm).max(Duration::from_millis(200));
    assert!(p99 <= bound, "p99 {p99:?}, calm {calm:?}");
}

// Claims: R3
#[tokio::test]
async fn non_reading_caller_blocks_no_http2_of_others() {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    pods.port = serving(&pods.server, |stream: TcpStream| async move {
        // What an application that was configured for few may allow.
        let Ok(mut connection) = h2::server::Builder::new()
            .max_concurrent_streams(2)
            .handshake::<_, Bytes>(stream)
            .await
        else {
            return;
        };
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let endless = request.uri().path() == "/endless";
            let Ok(mut send) = respond.send_response(Response::new(()), !endless) else {
                continue;
            };
            tokio::spawn(async move {
                while endless && send.send_data(vec![b'x'; 16_384].into(), false).is_ok() {
                    send.reserve_capacity(16_384);
                    if std::future::poll_fn(|cx| send.poll_capacity(cx))
                        .await
                        .is_none()
                    {
                        return;
                    }
                }
            });
        }
    })
    .await;
    pods.deliver_to(pods.port);
    let mut connections = Vec::new();
    for entry in ENTRY_POINTS {
        let (mut sender, connection) = h2::client::handshake(pods.open(entry).await).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..10 {
            let request = Request::get("http://s/endless").body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            // Head only: the body stays where it is.
            connections.push(timeout(SOON, response).await.unwrap().unwrap());
        }
    }
    for entry in ENTRY_POINTS {
        let (mut sender, connection) = h2::client::handshake(pods.open(entry).await).await.unwrap();
        tokio::spawn(connection);
        for _ in 0..20 {
            let request = Request::get("http://s/quick").body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            let answer = timeout(SOON, response).await;
            assert!(answer.is_ok(), "{entry:?}: no answer");
            assert_eq!(answer.unwrap().unwrap().status(), 200, "{entry:?}");
        }
    }
}

#[tokio::test]
async fn an_answer_given_before_the_request_was_read_arrives() {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    pods.port = serving(&pods.server, |mut stream: TcpStream| async move {
        let mut head = [0; 64];
        let _ = stream.read(&mut head).await;
        let _ = stream
            .write_all(
                b"HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\nConnection: close\r\n\r\nnone",
            )
            .await;
        // Closes with most of the request unread, for which the kernel sends a reset.
    })
    .await;
    pods.deliver_to(pods.port);
    let request = format!(
        "POST / HTTP/1.1\r\nHost: s\r\nContent-Length: 3000000\r\n\r\n{}",
        "y".repeat(3_000_000)
    );
    for entry in ENTRY_POINTS {
        for at in 0..20 {
            let mut caller = pods.open(entry).await;
            let (mut read, mut write) = caller.split();
            let sending = async {
                let _ = write.write_all(request.as_bytes()).await;
                std::future::pending::<()>().await;
            };
            let mut got = [0; 12];
            let reading = timeout(SOON, read.read_exact(&mut got));
            tokio::select! {
                () = sending => {}
                outcome = reading => {
                    outcome.unwrap().unwrap();
                    assert_eq!(&got, b"HTTP/1.1 404", "{entry:?} {at}");
                }
            }
        }
    }
}
