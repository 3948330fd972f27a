//! Memory of a proxy while unauthenticated peers try to fill it: unfinished requests, responses
//! that are not read, heads of the max size. A process of its own and one test at a time, because
//! the process is measured: clients and applications of the tests included, so the true numbers
//! are smaller.
//!
//! Claims: attack-37

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "pressure/application.rs"]
mod application;
#[path = "pressure/downloads.rs"]
mod downloads;
#[path = "pressure/gateway.rs"]
mod gateway;
#[path = "hostile/raw_http2.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod raw_http2;
#[path = "support/pod.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod support;
#[path = "pressure/tunnels.rs"]
mod tunnels;
#[path = "pressure/uploads.rs"]
mod uploads;

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use runtime::occupancy::Occupancy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, timeout};
use weft_proxy::{Budget, LimitLabels, heap_count, heap_in_use, of_listener, relieve};

use raw_http2::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, HEADERS, SETTINGS, WINDOW_UPDATE, block, frame,
    get,
};
use support::{Authority, Pod, raw};

// The proxy's own allocator, which measures its heap.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

const MIB: usize = 1024 * 1024;
const LIMIT: usize = 64 * MIB;
/// What may come on top of [`FULL`]: what no read brings, such as heads that are sent on.
const ON_TOP: usize = 10 * MIB;
/// In percent of the limit: above it the proxy reads nothing before it has cut off a connection.
const FULL: usize = 65;
/// How long the flood of the unauthenticated peer goes on.
const FLOODED: Duration = Duration::from_secs(3);
/// It has filled what it may within this time, on a machine that does other things too.
const FULL_WITHIN: Duration = Duration::from_secs(30);
/// An honest call takes no longer, in a test that is not optimised.
const PATIENCE: Duration = Duration::from_secs(5);

static BEFORE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);

/// What this test holds beyond what others of this process left.
fn used() -> usize {
    let used = heap_in_use().saturating_sub(BEFORE.load(Relaxed));
    PEAK.fetch_max(used, Relaxed);
    used
}

/// Heap in use once everything that the test before left is gone, however long that takes: memory
/// that was freed later would make uncounted room.
async fn settled() -> usize {
    let (mut least, mut since) = (usize::MAX, Instant::now());
    while since.elapsed() < Duration::from_millis(500) {
        sleep(Duration::from_millis(50)).await;
        heap_count();
        let in_use = heap_in_use();
        if in_use + 64 * 1024 < least {
            (least, since) = (in_use, Instant::now());
        }
    }
    least
}

/// A pod with an application, its permits, and the task that relieves its memory.
struct Testbed {
    authority: Authority,
    pod: Arc<Pod>,
    occupancy: Arc<Occupancy>,
    /// Where the application's own calls have theirs.
    own: Arc<Occupancy>,
    /// And peers.
    peers: Arc<Occupancy>,
    port: u16,
    /// What may be held, in bytes.
    most: usize,
}

impl Testbed {
    async fn new() -> Self {
        Self::of(LIMIT).await
    }

    async fn of(limit: usize) -> Self {
        // As the process itself begins: listeners have places by it.
        runtime::files::raise();
        BEFORE.store(settled().await, Relaxed);
        PEAK.store(0, Relaxed);
        let authority = Authority::new();
        let now = SystemTime::now();
        let certs = authority.leaf("api", Duration::from_secs(3600), now);
        let budget = Budget::measured(limit, limit, used);
        let pod = Pod::within(Arc::clone(&budget), authority.roots(), certs, "api").await;
        let metrics = pod.proxy.telemetry.metrics.clone();
        let permits = of_listener(&metrics, |_| {}, true, 1);
        let own = of_listener(&metrics, |_| {}, false, 1);
        let peers = of_listener(&metrics, |_| {}, true, 1);
        let _ = pod.peers.set(Arc::clone(&peers.occupancy));
        let all = [&permits, &own, &peers].map(Clone::clone);
        tokio::spawn(relieve(budget, all.to_vec()));
        // A caller that opens hundreds of connections at once finds room in the queue, as any
        // other.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind((pod.ip, 0).into()).unwrap();
        let listener = socket.listen(4096).unwrap();
        let port = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(application::serve(stream));
            }
        });
        Self {
            authority,
            pod: Arc::new(pod),
            occupancy: permits.occupancy,
            own: own.occupancy,
            peers: peers.occupancy,
            port,
            most: limit / 100 * FULL + ON_TOP,
        }
    }

    async fn open(&self, last: u8) -> TcpStream {
        let from = IpAddr::from([10, 0, 0, last]).into();
        let permit = self.occupancy.admit(from).await.unwrap();
        self.pod.plain_at(self.port, permit).await
    }

    /// Another caller's calls for as long as the flood lasts: how many were served. The flood lasts
    /// until it has filled what it may, which takes longer on a busy machine.
    async fn honest_calls(&self) -> usize {
        let (began, mut served) = (Instant::now(), 0);
        let is_full = || self.cut_off() + self.held_back() > 0;
        while began.elapsed() < FLOODED || (!is_full() && began.elapsed() < FULL_WITHIN) {
            let body = "h".repeat(20_000);
            let request = format!(
                "POST /echo HTTP/1.1\r\nHost: app\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            let mut stream = self.open(1).await;
            let answer = raw(&mut stream, request.as_bytes(), PATIENCE).await;
            assert!(
                answer.starts_with("HTTP/1.1 200") && answer.ends_with(&body),
                "after {served}: {:?}",
                &answer[..answer.floor_char_boundary(300)]
            );
            served += 1;
            sleep(Duration::from_millis(20)).await;
        }
        served
    }

    /// `many` connections of an unauthenticated peer, each of which writes `attack` until no more
    /// is taken, and reads nothing.
    async fn survives(&self, many: usize, attack: Vec<u8>) {
        // One copy for all of them: it is no memory of the proxy.
        let attack = Bytes::from(attack);
        let mut flood: Vec<JoinHandle<()>> = Vec::new();
        for _ in 0..many {
            let (mut stream, bytes) = (self.open(2).await, attack.clone());
            flood.push(tokio::spawn(async move {
                // Before a server has announced its window it takes little.
                let (first, rest) = bytes.split_at(60);
                let _ = stream.write_all(first).await;
                sleep(Duration::from_millis(100)).await;
                let _ = stream.write_all(rest).await;
                std::future::pending().await
            }));
        }
        let served = self.honest_calls().await;
        flood.iter().for_each(JoinHandle::abort);
        let peak = PEAK.load(Relaxed);
        println!("{} MiB at most, {served} honest calls", peak / MIB);
        assert!(peak <= self.most, "{} MiB", peak / MIB);
        assert!(served > 5, "{served}");
    }

    /// How many connections were cut off.
    fn cut_off(&self) -> u64 {
        self.reached("memory")
    }

    /// How many requests waited for memory before they were read.
    fn held_back(&self) -> u64 {
        self.reached("memory-wait") + self.reached("memory-expected")
    }

    fn reached(&self, limit: &'static str) -> u64 {
        let label = LimitLabels { limit };
        self.pod.proxy.telemetry.metrics.limits.at(&label).get()
    }
}

/// The beginning of a connection whose streams have such a window.
fn begin(window: u32) -> Vec<u8> {
    let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec();
    let setting = [&4_u16.to_be_bytes()[..], &window.to_be_bytes()].concat();
    bytes.extend(frame(SETTINGS, 0, 0, &setting));
    if window > 65_535 {
        let more = 0x7fff_ffff_u32 - 65_535;
        bytes.extend(frame(WINDOW_UPDATE, 0, 0, &more.to_be_bytes()));
    }
    bytes
}

/// So many requests for a path on one connection.
fn requests(window: u32, path: &str, many: u32) -> Vec<u8> {
    let mut bytes = begin(window);
    for at in 0..many {
        let flags = END_HEADERS | END_STREAM;
        bytes.extend(frame(HEADERS, flags, 2 * at + 1, &block(&get(path))));
    }
    bytes
}

fn large_value() -> String {
    "v".repeat(60_000)
}

#[tokio::test]
async fn unfinished_heads_cost_their_sender_connections() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    let head = format!("GET / HTTP/1.1\r\nHost: app\r\nX: {}", large_value());
    testbed.survives(1500, head.into_bytes()).await;
    assert!(testbed.cut_off() > 0);
}

#[tokio::test]
async fn large_heads_awaiting_response_cost_their_sender_connections() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    let head = format!(
        "GET /wait HTTP/1.1\r\nHost: app\r\nX: {}\r\n\r\n",
        large_value()
    );
    testbed.survives(800, head.into_bytes()).await;
    assert!(testbed.cut_off() > 0);
}

#[tokio::test]
async fn unread_http2_downloads_cost_their_requester_connections() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for window in [1, 0x7fff_ffff] {
        let testbed = Testbed::new().await;
        testbed.survives(15, requests(window, "/flood", 100)).await;
        assert!(testbed.cut_off() > 0, "{window}");
    }
}

#[tokio::test]
async fn unread_http2_uploads_cost_their_sender_connections() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    let mut fields = get("/wait");
    fields[0].1 = b"POST";
    let mut attack = begin(65_535);
    {
        let bytes = &mut attack;
        for at in 0..100 {
            let stream = 2 * at + 1;
            bytes.extend(frame(HEADERS, END_HEADERS, stream, &block(&fields)));
            bytes.extend(frame(DATA, 0, stream, &[0; 16_000]));
        }
    }
    testbed.survives(60, attack).await;
    assert!(testbed.cut_off() > 0);
}

/// Bodies that are kept complete for a retry, and bodies that stall on their way.
#[tokio::test]
async fn thousand_unread_post_bodies_cost_no_other_caller() {
    let _alone = ONE_AT_A_TIME.lock().await;
    for bytes in [60_000, 300_000] {
        let testbed = Testbed::new().await;
        let mut attack =
            format!("POST /wait HTTP/1.1\r\nHost: app\r\nContent-Length: {bytes}\r\n\r\n")
                .into_bytes();
        attack.resize(attack.len() + bytes, b'u');
        testbed.survives(1000, attack).await;
        let bounded = testbed.cut_off() + testbed.held_back();
        assert!(bounded > 0, "{bytes}: there was room for all of them");
    }
}

#[tokio::test]
async fn unread_large_http2_response_heads_cost_requester_connections() {
    let _alone = ONE_AT_A_TIME.lock().await;
    // They come more slowly than the others, so it begins earlier.
    let testbed = Testbed::of(18 * MIB).await;
    testbed
        .survives(20, requests(0x7fff_ffff, "/head", 100))
        .await;
    assert!(testbed.cut_off() > 0);
}

#[tokio::test]
async fn large_heads_over_http2_cost_who_sends_them_connections() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    let value = "v".repeat(50_000);
    let mut fields = get("/wait").to_vec();
    fields.push((b"x", value.as_bytes()));
    let head = block(&fields);
    let mut attack = begin(65_535);
    {
        let bytes = &mut attack;
        for at in 0..100 {
            let stream = 2 * at + 1;
            let parts: Vec<_> = head.chunks(16_000).collect();
            for (nth, part) in parts.iter().enumerate() {
                let kind = if nth == 0 { HEADERS } else { CONTINUATION };
                let mut flags = if nth == 0 { END_STREAM } else { 0 };
                if nth + 1 == parts.len() {
                    flags |= END_HEADERS;
                }
                bytes.extend(frame(kind, flags, stream, part));
            }
        }
    }
    testbed.survives(6, attack).await;
    assert!(testbed.cut_off() > 0);
}

/// So many fields of three bytes each.
fn tiny_fields(many: usize) -> Vec<(&'static [u8], &'static [u8])> {
    vec![(&b"a"[..], &b""[..]); many]
}

// Claims: attack-38
#[tokio::test]
async fn heads_of_many_tiny_fields_are_refused_before_buffering() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    let head = block(&[&get("/wait")[..], &tiny_fields(1500)].concat());
    let mut attack = begin(65_535);
    for at in 0..100 {
        attack.extend(frame(HEADERS, END_HEADERS | END_STREAM, 2 * at + 1, &head));
    }
    testbed.survives(6, attack).await;
    assert_eq!(testbed.cut_off(), 0, "there was enough for all");
}

// Claims: attack-38
#[tokio::test]
async fn trailers_of_many_tiny_fields_end_their_connection() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    let mut fields = get("/wait");
    fields[0].1 = b"POST";
    let (head, trailers) = (block(&fields), block(&tiny_fields(1500)));
    let mut attack = begin(65_535);
    for at in 0..100 {
        let stream = 2 * at + 1;
        attack.extend(frame(HEADERS, END_HEADERS, stream, &head));
        attack.extend(frame(DATA, 0, stream, &[0; 100]));
        attack.extend(frame(HEADERS, END_HEADERS | END_STREAM, stream, &trailers));
    }
    testbed.survives(6, attack).await;
    assert_eq!(testbed.cut_off(), 0, "they ended by themselves");
}

#[tokio::test]
async fn upgraded_connections_are_cut_off_as_well() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    let mut stream = testbed.open(2).await;
    let ask = "GET /switch HTTP/1.1\r\nHost: app\r\nConnection: upgrade\r\nUpgrade: foo\r\n\r\n";
    stream.write_all(ask.as_bytes()).await.unwrap();
    let mut head = [0; 12];
    stream.read_exact(&mut head).await.unwrap();
    assert_eq!(&head, b"HTTP/1.1 101");
    let (_, holder) = testbed.occupancy.heaviest().unwrap();
    assert_eq!(testbed.occupancy.shed(&holder, usize::MAX), 1);
    let mut rest = Vec::new();
    let ended = timeout(PATIENCE, stream.read_to_end(&mut rest)).await;
    assert!(ended.is_ok(), "it goes on");
    while testbed.occupancy.leaving() > 0 {
        sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn hundreds_of_ordinary_requests_in_flight_lose_nothing() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::new().await;
    let ordinary = format!(
        "GET /wait HTTP/1.1\r\nHost: app\r\nCookie: {}\r\n\r\n",
        "c".repeat(1500)
    );
    testbed.survives(500, ordinary.into_bytes()).await;
    assert_eq!(testbed.cut_off(), 0);
    // And they are still there.
    assert!(timeout(PATIENCE, testbed.open(3)).await.is_ok());
}
