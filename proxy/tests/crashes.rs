//! Tests that ten thousand tunnels, upgrades and uploads that crash leave nothing behind: no
//! connection, no share of an HTTP/2 window, no memory. They run in a process of their own,
//! because the process is measured, clients and applications of the test included.
//!
//! Claims: attack-21

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

#[path = "support/pod.rs"]
#[allow(dead_code, reason = "shared with tests that use the rest of it")]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime};

use futures::future::join_all;
use socket2::SockRef;
use tokio::io::{AsyncReadExt, AsyncWriteExt, Interest};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use weft_proxy::{Budget, heap_count, heap_in_use};
use wire::v1::Protocol;

use support::{Authority, Pod, endpoint, endpoints, service, vip};

// The proxy's own: glibc's keeps more of what was freed, the busier the machine is.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

const MIB: usize = 1024 * 1024;
const SOON: Duration = Duration::from_secs(10);

/// All kinds in turn.
const BATCHES: usize = 100;
/// One connection between two proxies carries as many.
const AT_ONCE: usize = 100;
/// Three batches of so many fill what lies between caller and application, by some of theirs.
/// Were the windows of one kind lost, they would come to more than a connection of HTTP/2 has,
/// 16 MiB: each kind has fourteen such batches, and each stream 64 KiB.
const FILLED_EVERY: usize = 7;
const FILLED: usize = 20;
/// The kernel alone takes almost three MiB of it on the way to the application.
const FILLING: usize = 6 * MIB;
const FILLED_WITHIN: Duration = Duration::from_millis(500);
/// Bytes that each of the other callers sends, which stay unread too.
const UNFILLED: usize = 1000;
/// Memory limit of a proxy: room for a complete window of each of that many streams.
const ROOM: usize = 256 * MIB;
/// What the application takes. One is more than the window of a connection between two
/// proxies, and of the others many share what is left of it.
const UPLOADS: [(&str, usize); 2] = [("POST /take ", 20 * MIB), ("POST /part ", MIB)];
const SHARING: usize = 16;
/// In pages that hold something. A KiB that each of them left would be as much.
const GROWTH: usize = 10 * MIB;
/// With pages that the allocator keeps for later.
const RESIDENT_GROWTH: usize = 48 * MIB;
/// Connections between the proxies come and go.
const FILES: usize = 8;

static ZEROS: [u8; FILLING] = [0; FILLING];

const ANSWERED: &[u8] = &[7];
const UPGRADE: &[u8] =
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHED: &[u8] =
    b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// Resident memory of this process, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<usize>().unwrap() * 4096
}

/// Sockets are most of them: of callers, proxies and the application.
fn open_files() -> usize {
    std::fs::read_dir("/proc/self/fd").unwrap().count()
}

/// What is in use, in bytes.
fn bytes_in_use() -> usize {
    heap_count();
    heap_in_use()
}

/// Drops the connection so that the other end gets a reset.
fn crash(stream: TcpStream) {
    SockRef::from(&stream)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(stream);
}

/// Looks until it is so.
async fn comes(holds: impl Fn() -> bool) -> bool {
    let until = Instant::now() + SOON;
    while !holds() {
        if Instant::now() > until {
            return false;
        }
        sleep(Duration::from_millis(5)).await;
    }
    true
}

/// One connection of the application. Counts while it is open.
struct Accepted(Arc<AtomicUsize>);

impl Accepted {
    fn count(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Relaxed);
        Self(Arc::clone(open))
    }
}

impl Drop for Accepted {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Echoes one byte, switches protocols, or takes an upload. After the first two it reads nothing,
/// until its other end crashes or the `crashes` channel makes it crash.
async fn serve(mut stream: TcpStream, mut crashes: watch::Receiver<usize>) {
    let mut got = Vec::new();
    let end = loop {
        let mut more = [0; 2048];
        match stream.read(&mut more).await {
            Ok(count @ 1..) => got.extend_from_slice(&more[..count]),
            Ok(0) | Err(_) => return,
        }
        if got[0] == 1 {
            break 1;
        }
        if let Some(at) = got.windows(4).position(|part| part == b"\r\n\r\n") {
            break at + 4;
        }
    };
    let mut takes = UPLOADS.iter();
    if let Some((_, size)) = takes.find(|(line, _)| got.starts_with(line.as_bytes())) {
        let mut left = size - (got.len() - end);
        let mut part = vec![0; 64 * 1024];
        while left > 0 {
            match stream.read(&mut part).await {
                Ok(count @ 1..) => left -= count,
                Ok(0) | Err(_) => return,
            }
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        let _ = stream.write_all(answer).await;
        return;
    }
    let answer = match got[0] {
        1 => ANSWERED,
        b'P' => b"".as_slice(),
        _ => SWITCHED,
    };
    if stream.write_all(answer).await.is_err() {
        return;
    }
    let served = tokio::select! {
        _ = crashes.changed() => true,
        _ = stream.ready(Interest::ERROR) => false,
    };
    if served {
        crash(stream);
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Tunnel,
    Upgrade,
    Upload,
}

const KINDS: [Kind; 3] = [Kind::Tunnel, Kind::Upgrade, Kind::Upload];

impl Kind {
    fn called(self) -> SocketAddr {
        match self {
            Self::Tunnel => vip(),
            Self::Upgrade | Self::Upload => SocketAddr::from(([10, 96, 0, 81], 80)),
        }
    }
}

/// A pod whose proxy has room.
async fn pod(authority: &Authority, account: &str) -> Pod {
    let life = Duration::from_secs(3600);
    let certs = authority.leaf(account, life, SystemTime::now());
    Pod::within(Budget::new(ROOM), authority.roots(), certs, account).await
}

struct Testbed {
    client: Pod,
    _server: Pod,
    /// Connections of the application.
    open: Arc<AtomicUsize>,
    /// Makes all of them crash.
    crashes: Arc<watch::Sender<usize>>,
}

impl Testbed {
    async fn new() -> Self {
        let authority = Authority::new();
        let (client, server) = (pod(&authority, "web").await, pod(&authority, "api").await);
        let api = service("api", vip().ip(), Protocol::Opaque, Vec::new());
        client.set(api);
        let web = Kind::Upgrade.called().ip();
        client.set(service("web", web, Protocol::Http1, Vec::new()));
        let listener = TcpListener::bind((server.ip, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        for name in ["api", "web"] {
            let there = endpoint(server.ip, port, Some("api"));
            client.set(vec![endpoints(name, vec![there])]);
        }
        let open = Arc::<AtomicUsize>::default();
        let crashes = Arc::new(watch::channel(0).0);
        let (counted, crash_events) = (Arc::clone(&open), Arc::clone(&crashes));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (accepted, crashes) = (Accepted::count(&counted), crash_events.subscribe());
                tokio::spawn(async move {
                    serve(stream, crashes).await;
                    drop(accepted);
                });
            }
        });
        Self {
            client,
            _server: server,
            open,
            crashes,
        }
    }

    async fn left_open(&self, count: usize) -> bool {
        comes(|| self.open.load(Relaxed) == count).await
    }

    /// A way to the application that stands.
    async fn opened(&self, kind: Kind) -> TcpStream {
        let mut stream = self.client.call(kind.called()).await;
        match kind {
            Kind::Tunnel => {
                stream.write_all(&[1]).await.unwrap();
                assert_eq!(stream.read_u8().await.unwrap(), 7);
            }
            Kind::Upload => {
                let head = b"POST /stuck HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000\r\n\r\n";
                stream.write_all(head).await.unwrap();
            }
            Kind::Upgrade => {
                stream.write_all(UPGRADE).await.unwrap();
                let mut got = Vec::new();
                while !got.ends_with(b"\r\n\r\n") {
                    let mut more = [0; 1024];
                    let count = stream.read(&mut more).await.unwrap();
                    assert!(count > 0, "{}", String::from_utf8_lossy(&got));
                    got.extend_from_slice(&more[..count]);
                }
                assert!(got.starts_with(b"HTTP/1.1 101 "), "not switched");
            }
        }
        stream
    }

    /// Every second one is ended by its caller, and the others by the application.
    async fn crash(&self, kind: Kind, filled: usize) {
        let opening = join_all((0..AT_ONCE).map(|_| self.opened(kind)));
        let mut callers = timeout(SOON, opening).await.expect("they are not opened");
        assert!(self.left_open(AT_ONCE).await, "{:?} arrived", self.open);
        let saying = callers.iter_mut().enumerate().map(|(at, caller)| {
            let size = if at < filled { FILLING } else { UNFILLED };
            timeout(FILLED_WITHIN, caller.write_all(&ZEROS[..size]))
        });
        join_all(saying).await;
        let mut others = Vec::new();
        for (at, caller) in callers.into_iter().enumerate() {
            if at % 2 == 0 {
                crash(caller);
            } else {
                others.push(caller);
            }
        }
        let left = self.left_open(AT_ONCE - AT_ONCE / 2).await;
        assert!(left, "{:?} are left of the callers' {kind:?}", self.open);
        self.crashes.send_modify(|times| *times += 1);
        let ending = join_all(others.into_iter().map(ended));
        timeout(SOON, ending).await.expect("callers are left");
        assert!(self.left_open(0).await, "{:?} are left", self.open);
    }

    async fn upload(&self, (line, size): (&str, usize)) {
        let mut stream = self.client.call(Kind::Upgrade.called()).await;
        let head = format!("{line}HTTP/1.1\r\nHost: h\r\nContent-Length: {size}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        for _ in 0..size / MIB {
            stream.write_all(&ZEROS[..MIB]).await.unwrap();
        }
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200");
    }
}

/// Reads until the other end is gone.
async fn ended(mut caller: TcpStream) {
    let mut rest = Vec::new();
    let _ = caller.read_to_end(&mut rest).await;
}

// Claims: R2
#[tokio::test]
async fn ten_thousand_streams_that_crash_leave_nothing_behind() {
    let testbed = Testbed::new().await;
    // What is kept for good is there once all of it was done.
    for kind in KINDS {
        testbed.crash(kind, FILLED).await;
        testbed.crash(kind, 0).await;
    }
    let passed = timeout(SOON, testbed.upload(UPLOADS[0])).await;
    passed.expect("an upload does not pass");
    sleep(Duration::from_secs(1)).await;
    let before = (bytes_in_use(), resident(), open_files());
    let started = Instant::now();
    for batch in 0..BATCHES {
        let kind = KINDS[batch % KINDS.len()];
        let filled = if batch % FILLED_EVERY < KINDS.len() {
            FILLED
        } else {
            0
        };
        testbed.crash(kind, filled).await;
    }
    let took = started.elapsed();
    let started = Instant::now();
    let passed = timeout(SOON, testbed.upload(UPLOADS[0])).await;
    passed.expect("windows were lost: an upload does not pass");
    let several = join_all((0..SHARING).map(|_| testbed.upload(UPLOADS[1])));
    let passed = timeout(SOON, several).await;
    passed.expect("windows were lost: uploads beside each other do not pass");
    let uploaded = started.elapsed();
    sleep(Duration::from_secs(1)).await;
    let (more, resident) = (
        bytes_in_use().saturating_sub(before.0),
        resident().saturating_sub(before.1),
    );
    println!(
        "{} crashed within {took:?}, an upload took {uploaded:?}; {} KiB more in use, {} KiB \
         more resident, {} files open before and {} after",
        BATCHES * AT_ONCE,
        more / 1024,
        resident / 1024,
        before.2,
        open_files(),
    );
    assert!(testbed.left_open(0).await, "{:?} are left", testbed.open);
    let closed = comes(|| open_files() <= before.2 + FILES).await;
    assert!(closed, "{} before, {} after", before.2, open_files());
    assert!(more < GROWTH, "{more}");
    assert!(resident < RESIDENT_GROWTH, "{resident}");
}
