//! One caller with many users behind it: its long requests hold up none of its other requests, as
//! long as there is memory.
//!
//! Claims: attack-43

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use weft_proxy::{heap_count, serve_outbound};
use wire::v1::Protocol;

use super::downloads::{calls_beside, percentiles};
use super::support::{endpoint, endpoints, raw, service, vip};
use super::{FULL, LIMIT, MIB, ONE_AT_A_TIME, PATIENCE, PEAK, Testbed, requests, used};

/// As many long polls as were to be all that one caller has in flight.
const POLLS: usize = 64;
const AT_ONCE: usize = 20;
const EACH: usize = 30;
#[derive(Clone, Copy, Debug)]
enum EntryPoint {
    /// From outside the pod, each on a connection of its own.
    Http1,
    /// All long polls on one connection.
    Http2,
    /// Of the pod's own application.
    Own,
}

impl EntryPoint {
    /// In percent of the limit: what is in use meanwhile.
    const fn stands_at(self) -> usize {
        match self {
            Self::Http1 | Self::Http2 => 58,
            Self::Own => 61,
        }
    }
}

/// A connection of the gateway.
async fn open(testbed: &Testbed, route: EntryPoint) -> TcpStream {
    match route {
        EntryPoint::Http1 | EntryPoint::Http2 => testbed.open(2).await,
        EntryPoint::Own => {
            let permit = testbed
                .own
                .try_admit(&testbed.pod.ip.into())
                .unwrap()
                .unwrap();
            let (client, stream) = testbed.pod.accepted().await;
            let proxy = Arc::clone(&testbed.pod.proxy);
            tokio::spawn(async move {
                let serving = serve_outbound(proxy, stream, vip(), Arc::clone(&permit));
                permit.keep(serving).await;
            });
            client
        }
    }
}

async fn polls(testbed: &Testbed, route: EntryPoint) -> Vec<TcpStream> {
    if let EntryPoint::Http2 = route {
        let mut stream = open(testbed, route).await;
        let many = u32::try_from(POLLS).unwrap();
        let asks = requests(65_535, "/wait", many);
        stream.write_all(&asks).await.unwrap();
        return vec![stream];
    }
    let mut all = Vec::new();
    for _ in 0..POLLS {
        let mut stream = open(testbed, route).await;
        let asks = b"GET /wait HTTP/1.1\r\nHost: api.shop\r\n\r\n";
        stream.write_all(asks).await.unwrap();
        all.push(stream);
    }
    all
}

/// Calls in a row; how many were served.
async fn calls(testbed: Arc<Testbed>, route: EntryPoint) -> usize {
    let request = "POST /echo HTTP/1.1\r\nHost: api.shop\r\nConnection: close\r\n\
                   Content-Length: 5\r\n\r\nhello";
    let mut served = 0;
    for _ in 0..EACH {
        let mut stream = open(&testbed, route).await;
        let answer = raw(&mut stream, request.as_bytes(), PATIENCE).await;
        served += usize::from(answer.starts_with("HTTP/1.1 200") && answer.ends_with("hello"));
    }
    served
}

async fn goes_on(route: EntryPoint) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Arc::new(Testbed::of(LIMIT).await);
    testbed
        .pod
        .set(service("api", vip().ip(), Protocol::Http1, Vec::new()));
    let there = endpoint(testbed.pod.ip, testbed.port, None);
    testbed.pod.set(vec![endpoints("api", vec![there])]);
    let polls = polls(&testbed, route).await;
    sleep(Duration::from_millis(500)).await;
    heap_count();
    // Memory of others, without a known owner.
    let rest = vec![1_u8; (LIMIT / 100 * route.stands_at()).saturating_sub(used())];
    sleep(Duration::from_millis(500)).await;
    let mut all = JoinSet::new();
    for _ in 0..AT_ONCE {
        all.spawn(calls(Arc::clone(&testbed), route));
    }
    let (mut served, mut took) = (0, Vec::new());
    let ended = timeout(Duration::from_secs(20), async {
        tokio::select! {
            () = async {
                while let Some(calls) = all.join_next().await {
                    served += calls.unwrap();
                }
            } => {}
            () = calls_beside(&testbed, &mut took) => {}
        }
    })
    .await;
    let (peak, cut_off) = (PEAK.load(Relaxed), testbed.cut_off());
    println!(
        "{route:?}: {served} served, {} MiB at most; {}",
        peak / MIB,
        percentiles(took)
    );
    assert!(ended.is_ok(), "{route:?}: {served} served");
    assert_eq!((served, cut_off), (AT_ONCE * EACH, 0), "{route:?}");
    assert!(peak <= LIMIT / 100 * FULL, "{route:?}: {} MiB", peak / MIB);
    assert!(
        rest.len() > LIMIT / 4,
        "{route:?}: it stands at something else"
    );
    drop(polls);
}

#[tokio::test]
async fn a_gateway_with_long_polls_over_http1_goes_on() {
    goes_on(EntryPoint::Http1).await;
}

#[tokio::test]
async fn a_gateway_with_long_polls_over_http2_goes_on() {
    goes_on(EntryPoint::Http2).await;
}

#[tokio::test]
async fn application_with_its_own_long_polls_proceeds() {
    goes_on(EntryPoint::Own).await;
}
