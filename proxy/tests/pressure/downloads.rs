//! Honest callers that are many and slow: each gets its complete response, those without room a
//! little later, and other callers do not wait.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, Socket, Type};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use weft_proxy::serve_plain;

use super::support::raw;
use super::{LIMIT, MIB, ONE_AT_A_TIME, PATIENCE, PEAK, Testbed};

const CALLERS: usize = 1000;
/// The size of each download.
pub(super) const LENGTH: usize = 100 * 1024;
/// What one of them takes at a time, and how often.
const TAKEN: usize = 16 * 1024;
const TAKEN_EVERY: Duration = Duration::from_millis(200);
/// The same of callers that are slower still: 20 kB in a second.
const SLOWER_EVERY: Duration = Duration::from_millis(800);
const SLOWER_CALLERS: usize = 300;
/// In percent of the limit: memory that others hold beside the downloads.
const BESIDE: usize = 45;
/// Small buffers of the kernel, which would otherwise take all of an answer at once.
const KERNEL: usize = 8 * 1024;
/// All of them are done by then, in a test that is not optimised.
const WITHIN: Duration = Duration::from_secs(60);

/// A connection to the application's port that the kernel holds little for.
async fn open_narrow(testbed: &Testbed, last: u8) -> TcpStream {
    let permit = testbed
        .occupancy
        .admit(IpAddr::from([10, 0, 0, last]).into())
        .await
        .unwrap();
    let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
    let listener = socket();
    listener.set_send_buffer_size(KERNEL).unwrap();
    listener
        .bind(&SockAddr::from(SocketAddr::new(testbed.pod.ip, 0)))
        .unwrap();
    listener.listen(1).unwrap();
    listener.set_nonblocking(true).unwrap();
    let listener = TcpListener::from_std(listener.into()).unwrap();
    let client = socket();
    client.set_recv_buffer_size(4 * KERNEL).unwrap();
    let at = SockAddr::from(listener.local_addr().unwrap());
    client.connect(&at).unwrap();
    client.set_nonblocking(true).unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let proxy = Arc::clone(&testbed.pod.proxy);
    let original = SocketAddr::new(testbed.pod.ip, testbed.port);
    tokio::spawn(async move {
        let serving = serve_plain(proxy, stream, original, Arc::clone(&permit));
        permit.keep(serving).await;
    });
    TcpStream::from_std(client.into()).unwrap()
}

/// Takes a part of an answer `every` so often: its head, and how many bytes came behind it.
async fn download(mut stream: TcpStream, every: Duration) -> (String, usize) {
    let request = b"GET /download HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
    if let Err(error) = stream.write_all(request).await {
        return (error.to_string(), 0);
    }
    let (mut head, mut body) = (Vec::new(), None);
    while stream.readable().await.is_ok() {
        // No part of what a caller holds while it waits, which is not to be measured.
        let mut part = Box::new([0; TAKEN]);
        let count = match stream.try_read(&mut part[..]) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => continue,
            Err(_) => break,
        };
        match &mut body {
            Some(body) => *body += count,
            None => {
                head.extend_from_slice(&part[..count]);
                let end = head.windows(4).position(|four| four == b"\r\n\r\n");
                if let Some(end) = end {
                    body = Some(head.len() - end - 4);
                    head.truncate(end);
                }
            }
        }
        drop(part);
        sleep(every).await;
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    (head, body.unwrap_or_default())
}

/// A neighbour's call, which is served at once.
async fn one_call(testbed: &Testbed) {
    let request = "POST /echo HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\
                   Content-Length: 5\r\n\r\nhello";
    let calling = async {
        let mut stream = testbed.open(1).await;
        raw(&mut stream, request.as_bytes(), PATIENCE).await
    };
    let answer = timeout(PATIENCE, calling).await.unwrap();
    let good = answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello");
    assert!(good, "{answer}");
}

/// Whether all of these come to their end, a neighbour beside them is served at once, and
/// all that keeps to what may be held.
async fn come_to_their_end(testbed: &Testbed, streams: Vec<TcpStream>, every: Duration) {
    let many = streams.len();
    let began = Instant::now();
    let downloads = streams.into_iter().map(|one| download(one, every));
    let mut callers: JoinSet<_> = downloads.collect();
    let (mut whole, mut broken) = (0, Vec::new());
    let mut latest = Duration::ZERO;
    let all = async {
        while let Some(ended) = callers.join_next().await {
            match ended.unwrap() {
                (head, LENGTH) if head.starts_with("HTTP/1.1 200") => whole += 1,
                other => broken.push(other),
            }
            latest = began.elapsed();
        }
    };
    let mut took = Vec::new();
    let beside = calls_beside(testbed, &mut took);
    let ended = timeout(WITHIN, async {
        tokio::select! {
            () = all => {}
            () = beside => {}
        }
    })
    .await;
    println!(
        "{whole} whole and {} broken within {latest:?}, {} MiB at most, {} cut off; {}",
        broken.len(),
        PEAK.load(Relaxed) / MIB,
        testbed.cut_off(),
        percentiles(took),
    );
    assert!(ended.is_ok(), "not within {WITHIN:?}");
    assert_eq!(whole, many, "{:?}", broken.first());
    assert_eq!(testbed.cut_off(), 0);
    assert!(PEAK.load(Relaxed) <= testbed.most);
    // They did not all fit at once, or this would say nothing.
    assert!(testbed.held_back() > 0);
}

/// A neighbour's calls, for ever, and how long each took.
pub(super) async fn calls_beside(testbed: &Testbed, took: &mut Vec<Duration>) {
    loop {
        let started = Instant::now();
        one_call(testbed).await;
        took.push(started.elapsed());
        sleep(Duration::from_millis(20)).await;
    }
}

/// That of them, in words.
pub(super) fn percentiles(mut took: Vec<Duration>) -> String {
    took.sort_unstable();
    let of = |percent: usize| took.get(took.len() * percent / 100);
    let (p50, p99) = (of(50), of(99));
    format!("{} calls beside them, p50 {p50:?} p99 {p99:?}", took.len())
}

// Claims: B2, attack-35, attack-40
#[tokio::test]
async fn thousand_concurrent_slow_downloads_all_complete() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::of(LIMIT).await;
    let mut streams = Vec::new();
    for _ in 0..CALLERS {
        streams.push(open_narrow(&testbed, 2).await);
    }
    come_to_their_end(&testbed, streams, TAKEN_EVERY).await;
}

/// Each of them requests little.
// Claims: attack-44
#[tokio::test]
async fn slow_downloads_of_two_hundred_callers_all_complete() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::of(LIMIT).await;
    let mut streams = Vec::new();
    for caller in (10..210).cycle().take(CALLERS) {
        streams.push(open_narrow(&testbed, caller).await);
    }
    come_to_their_end(&testbed, streams, TAKEN_EVERY).await;
}

/// It requests more all the time, and none of its downloads ends.
// Claims: attack-45
#[tokio::test]
async fn slow_downloads_lose_nothing_to_many_long_polls() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::of(LIMIT).await;
    let mut streams = Vec::new();
    for _ in 0..CALLERS {
        streams.push(open_narrow(&testbed, 2).await);
    }
    let mut polls = Vec::new();
    for _ in 0..200 {
        let mut poll = testbed.open(3).await;
        poll.write_all(b"GET /wait HTTP/1.1\r\nHost: app\r\n\r\n")
            .await
            .unwrap();
        polls.push(poll);
    }
    come_to_their_end(&testbed, streams, TAKEN_EVERY).await;
}

/// Each caller holds its unread data for seconds, and no other connection that could be cut off
/// holds as much: downloads with room start, and started downloads continue.
// Claims: attack-41
#[tokio::test]
async fn heaviest_holders_twenty_kilobyte_downloads_all_complete() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::of(LIMIT).await;
    let mut streams = Vec::new();
    for _ in 0..SLOWER_CALLERS {
        streams.push(open_narrow(&testbed, 2).await);
    }
    // Memory without a known owner.
    let rest = vec![1_u8; LIMIT / 100 * BESIDE];
    come_to_their_end(&testbed, streams, SLOWER_EVERY).await;
    drop(rest);
}
