//! Which connection loses its permit on the mesh port when nearly all permits are taken.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use runtime::occupancy::{Bounds, Holder, Occupancy, Permit, Reached};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};
use wire::v1::{Enforcement, Protocol};

use super::two_pods::{EntryPoint, TwoPods, serving};

const SOON: Duration = Duration::from_secs(5);
/// A connection that had nothing to lose is checked again by then.
const AGAIN: Duration = Duration::from_millis(100);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// Ten permits, and how often a connection lost one.
fn permits() -> (Arc<Occupancy>, Arc<AtomicUsize>) {
    let bounds = Bounds {
        permits: 10,
        per_holder: usize::MAX,
        shared: true,
        head_within: SOON,
        idle_within: Duration::MAX,
    };
    let lost = Arc::<AtomicUsize>::default();
    let counts = Arc::clone(&lost);
    let occupancy = Occupancy::new(bounds, move |reached| {
        counts.fetch_add(usize::from(reached == Reached::Hoarder), Relaxed);
    });
    (occupancy, lost)
}

/// A caller with an address of its own.
fn enter(occupancy: &Arc<Occupancy>, last: u8) -> Arc<Permit> {
    let holder = Holder::from(IpAddr::from([10, 0, 0, last]));
    occupancy.try_admit(&holder).unwrap().unwrap()
}

/// Answers requests for `/wait` once it may, and others at once.
async fn application(mut stream: TcpStream, came: Arc<AtomicUsize>, may: Arc<Notify>) {
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if !head.ends_with(b"\r\n\r\n") {
            continue;
        }
        came.fetch_add(1, Relaxed);
        if head.starts_with(b"GET /wait ") {
            may.notified().await;
        }
        head.clear();
        let _ = stream.write_all(OK).await;
    }
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < SOON, "{what}");
        sleep(AGAIN).await;
    }
}

/// The answer to one request that was sent.
async fn is_answered(stream: &mut TcpStream) {
    let mut answer = Vec::new();
    let read = async {
        while !answer.ends_with(b"ok") {
            answer.push(stream.read_u8().await.unwrap());
        }
    };
    timeout(SOON, read).await.unwrap();
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}

/// A peer may open tunnels into a port of HTTP that no rule lets it ask anything, and say
/// nothing there, or nothing more.
// Claims: attack-70
#[tokio::test]
async fn http_tunnel_keeps_permit_only_during_request() {
    let mut pods = TwoPods::new(Protocol::Opaque).await;
    let (came, may) = (Arc::<AtomicUsize>::default(), Arc::<Notify>::default());
    let (counts, waits) = (Arc::clone(&came), Arc::clone(&may));
    pods.port = serving(&pods.server, move |stream| {
        application(stream, Arc::clone(&counts), Arc::clone(&waits))
    })
    .await;
    pods.deliver_to(pods.port);
    pods.workload(Protocol::Http1, Enforcement::Open);
    let (occupancy, lost) = permits();
    let _ = pods.server.peers.set(Arc::clone(&occupancy));

    let _silent = pods.open(EntryPoint::Outbound).await;
    let mut spoken = pods.open(EntryPoint::Outbound).await;
    let ask = b"GET /wait HTTP/1.1\r\nHost: s\r\n\r\n";
    spoken.write_all(ask).await.unwrap();
    until("it never came", || came.load(Relaxed) == 1).await;
    assert_eq!(occupancy.taken(), 1, "both by one connection");
    let _others: Vec<_> = (1..=8).map(|last| enter(&occupancy, last)).collect();
    for last in 100..103 {
        drop(enter(&occupancy, last));
        sleep(AGAIN).await;
    }
    assert_eq!(lost.load(Relaxed), 0, "a request was in flight");

    may.notify_one();
    is_answered(&mut spoken).await;
    let newcomer_takes = || {
        drop(enter(&occupancy, 200));
        lost.load(Relaxed) == 1
    };
    until("resting tunnels keep their permits", newcomer_takes).await;
}
