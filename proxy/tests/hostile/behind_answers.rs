//! Uploads whose server has already sent its complete response: an upload goes on as long as it
//! makes progress, and is ended once it stalls.
//!
//! Claims: calls-8

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::Reason;
use http::{Request, Response};
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{sleep, timeout};
use wire::v1::Protocol;

use super::two_pods::{ENTRY_POINTS, EntryPoint, TwoPods, serving};

const SOON: Duration = Duration::from_secs(5);
/// Seconds. An upload that stalls this long behind a response is abandoned.
const LATE: u64 = 20;
/// Seconds. An upload that stalls this long is not.
const EARLY: u64 = 10;
/// What an application takes at a time.
const TAKEN: usize = 1024 * 1024;
const ANSWER: &[u8] = b"HTTP/1.1 413 No\r\nContent-Length: 3\r\n\r\nbig";
static ZEROS: [u8; 64 * 1024] = [0; 64 * 1024];

/// Lets so many seconds pass, each of which leaves time to all that goes on.
async fn pass(seconds: u64) {
    for _ in 0..seconds {
        tokio::time::pause();
        tokio::time::advance(Duration::from_secs(1)).await;
        tokio::time::resume();
        sleep(Duration::from_millis(20)).await;
    }
}

/// Answers at once. Then `/slow` takes a part of the body every second, and others nothing.
async fn hasty(mut stream: TcpStream, open: Arc<AtomicUsize>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read_u8().await {
            Ok(byte) => head.push(byte),
            Err(_) => return,
        }
    }
    open.fetch_add(1, Relaxed);
    let _ = stream.write_all(ANSWER).await;
    if head.starts_with(b"POST /slow ") {
        let mut part = vec![0; TAKEN];
        while stream.read_exact(&mut part).await.is_ok() {
            sleep(Duration::from_secs(1)).await;
        }
    } else {
        let _ = stream.ready(Interest::ERROR).await;
    }
    open.fetch_sub(1, Relaxed);
}

/// Two pods, and how many have come to an application that answers at once, and are there.
async fn hasty_pods() -> (TwoPods, Arc<AtomicUsize>) {
    let mut pods = TwoPods::new(Protocol::Http1).await;
    let open = Arc::<AtomicUsize>::default();
    let counts = Arc::clone(&open);
    let serve = move |stream| hasty(stream, Arc::clone(&counts));
    pods.port = serving(&pods.server, serve).await;
    pods.deliver_to(pods.port);
    (pods, open)
}

/// A caller that has its answer, and has sent nothing of its body.
async fn answered(pods: &TwoPods, entry: EntryPoint, path: &str) -> TcpStream {
    let mut caller = pods.open(entry).await;
    let head = format!("POST {path} HTTP/1.1\r\nHost: s\r\nContent-Length: 10000000000\r\n\r\n");
    caller.write_all(head.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"big") {
            answer.push(caller.read_u8().await.unwrap());
        }
    };
    timeout(SOON, read).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 413"), "{entry:?}");
    caller
}

/// Writes until no more is taken.
async fn fill(caller: &mut TcpStream) {
    let patience = Duration::from_millis(300);
    while let Ok(Ok(())) = timeout(patience, caller.write_all(&ZEROS)).await {}
}

/// An upload that stalls behind a response stays for a while, and is then gone at both ends.
async fn ends_in_time(open: &AtomicUsize, mut caller: TcpStream, case: &str) {
    pass(EARLY).await;
    assert_eq!(open.load(Relaxed), 1, "{case}: it may go on yet");
    pass(LATE - EARLY).await;
    assert!(comes_to(open, 0).await, "{case}: it is still there");
    let end = timeout(SOON, caller.read_u8()).await;
    assert!(end.unwrap().is_err(), "{case}");
}

async fn comes_to(open: &AtomicUsize, count: usize) -> bool {
    let started = Instant::now();
    while open.load(Relaxed) != count && started.elapsed() < SOON {
        sleep(Duration::from_millis(20)).await;
    }
    open.load(Relaxed) == count
}

#[tokio::test]
async fn upload_behind_response_ends_when_server_stops_reading() {
    let (pods, open) = hasty_pods().await;
    for entry in ENTRY_POINTS {
        let mut caller = answered(&pods, entry, "/stuck").await;
        fill(&mut caller).await;
        ends_in_time(&open, caller, &format!("{entry:?}")).await;
    }
}

/// Its server would read on.
#[tokio::test]
async fn upload_behind_response_ends_when_caller_stops_sending() {
    let (pods, open) = hasty_pods().await;
    for entry in ENTRY_POINTS {
        let caller = answered(&pods, entry, "/slow").await;
        ends_in_time(&open, caller, &format!("{entry:?}")).await;
    }
}

#[tokio::test]
async fn upload_behind_response_continues_with_slow_server() {
    let (pods, open) = hasty_pods().await;
    let mut caller = answered(&pods, EntryPoint::Inbound, "/slow").await;
    tokio::spawn(async move { while caller.write_all(&ZEROS).await.is_ok() {} });
    pass(2 * LATE).await;
    assert_eq!(open.load(Relaxed), 1);
}

/// Responds at once, and reads the body without making room for more of it: sends how the body
/// ended.
async fn hasty2(stream: TcpStream, ended: mpsc::Sender<Option<Reason>>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let ended = ended.clone();
        let head = Response::builder().status(413).body(()).unwrap();
        let _answer = respond.send_response(head, true).unwrap();
        tokio::spawn(async move {
            let mut body = request.into_body();
            let reason = loop {
                match body.data().await {
                    Some(Ok(_)) => {}
                    Some(Err(error)) => break error.reason(),
                    None => break None,
                }
            };
            let _ = ended.send(reason).await;
        });
    }
}

#[tokio::test]
async fn http2_upload_behind_response_is_reset_without_error() {
    let mut pods = TwoPods::new(Protocol::Http2).await;
    let (ends, mut ended) = mpsc::channel(4);
    pods.port = serving(&pods.server, move |stream| hasty2(stream, ends.clone())).await;
    pods.deliver_to(pods.port);
    let stream = pods.open(EntryPoint::Inbound).await;
    let (mut sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = Request::post("http://s/stuck").body(()).unwrap();
    let (answer, mut out) = sender.send_request(request, false).unwrap();
    let answer = timeout(SOON, answer).await.unwrap().unwrap();
    assert_eq!(answer.status(), 413);
    out.send_data(Bytes::from_static(&ZEROS), false).unwrap();
    out.send_data(Bytes::from_static(&ZEROS), false).unwrap();
    out.send_data(Bytes::from_static(&ZEROS), false).unwrap();
    sleep(Duration::from_millis(300)).await;
    pass(EARLY).await;
    assert!(ended.try_recv().is_err(), "it may read on yet");
    pass(LATE - EARLY).await;
    let there = timeout(SOON, ended.recv()).await;
    // The application must not take the half for the complete body.
    assert_eq!(there.unwrap().unwrap(), Some(Reason::CANCEL));
    let here = timeout(SOON, poll_fn(|cx| out.poll_reset(cx))).await;
    assert_eq!(here.unwrap().unwrap(), Reason::NO_ERROR);
}
