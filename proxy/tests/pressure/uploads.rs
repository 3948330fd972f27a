//! HTTP/2 uploads that an application does not read: they stall, and their caller's other requests
//! go on.

use std::future::poll_fn;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};
use weft_proxy::heap_count;

use super::downloads::{calls_beside, percentiles};
use super::support::raw;
use super::{FULL, LIMIT, MIB, ONE_AT_A_TIME, PEAK, Testbed, used};

/// Of one caller, and uploads of each.
const CONNECTIONS: usize = 3;
const UPLOADS: usize = 100;
/// Uploads have taken by then what they get.
const STANDS: Duration = Duration::from_secs(2);
/// So are those that came before.
const APART: Duration = Duration::from_millis(1500);
/// In percent of the limit: what is in use then, with what others hold.
const AT_REST: usize = 64;
/// Up to here requests begin by all permits that are reserved for their caller.
const RESERVED: usize = 62;
/// Calls beside them, one after the other.
const CALLS: usize = 20;
/// Each of those is answered by then, in a test that is not optimised.
const SOON: Duration = Duration::from_secs(2);

/// A connection of that caller with uploads that take what they get.
async fn uploads(testbed: &Testbed) -> JoinSet<()> {
    static ZEROS: [u8; 16 * 1024] = [0; 16 * 1024];
    let stream = testbed.open(2).await;
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    let mut all = JoinSet::new();
    all.spawn(async move {
        let _ = connection.await;
    });
    for _ in 0..UPLOADS {
        let mut sender = sender.clone().ready().await.unwrap();
        let request = Request::post("http://app/wait").body(()).unwrap();
        let (answer, mut body) = sender.send_request(request, false).unwrap();
        all.spawn(async move {
            let _answer = answer;
            loop {
                body.reserve_capacity(ZEROS.len());
                let Some(Ok(room)) = poll_fn(|cx| body.poll_capacity(cx)).await else {
                    return;
                };
                let part = Bytes::from_static(&ZEROS[..room.min(ZEROS.len())]);
                if body.send_data(part, false).is_err() {
                    return;
                }
            }
        });
    }
    all
}

/// A call of the caller with so many uploads in flight: its duration if it was served.
async fn call(testbed: &Testbed) -> Option<Duration> {
    let started = Instant::now();
    let ask = b"GET /echo HTTP/1.1\r\nHost: app\r\nConnection: close\r\n\r\n";
    let asking = async {
        let mut stream = testbed.open(2).await;
        raw(&mut stream, ask, SOON).await
    };
    let answer = timeout(SOON, asking).await.ok()?;
    answer
        .starts_with("HTTP/1.1 200")
        .then(|| started.elapsed())
}

async fn until_all_stands() {
    sleep(STANDS).await;
    heap_count();
}

/// Uploads on one connection after the other, so long apart.
async fn goes_on(apart: Duration) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let testbed = Testbed::of(LIMIT).await;
    let mut still = Vec::new();
    for _ in 0..CONNECTIONS {
        still.push(uploads(&testbed).await);
        sleep(apart).await;
    }
    // Memory of others, without a known owner: the level at which uploads alone stall depends on
    // when each of them arrived. One may be cut off for it, a while after.
    let (mut rest, mut cut_off) = (Vec::new(), None);
    until_all_stands().await;
    while rest.len() < 2 || cut_off != Some(testbed.cut_off()) {
        cut_off = Some(testbed.cut_off());
        rest.push(vec![1_u8; (LIMIT / 100 * AT_REST).saturating_sub(used())]);
        until_all_stands().await;
    }
    let (cut_off, weight) = (testbed.cut_off(), testbed.occupancy.heaviest().unwrap().0);
    let (mut took, mut beside) = (Vec::new(), Vec::new());
    let calls = async {
        for _ in 0..CALLS {
            took.push(call(&testbed).await);
        }
    };
    tokio::select! {
        () = calls => {}
        () = calls_beside(&testbed, &mut beside) => {}
    }
    heap_count();
    let (stands, peak) = (used(), PEAK.load(Relaxed));
    println!(
        "{} of {CALLS} served, at the latest within {:?}; the uploads hold {} MiB, {} KiB in use, \
         {} MiB at most, {cut_off} cut off before; {}",
        took.iter().flatten().count(),
        took.iter().flatten().max(),
        weight / MIB,
        stands / 1024,
        peak / MIB,
        percentiles(beside),
    );
    assert!(took.iter().all(Option::is_some), "{took:?}");
    assert_eq!(
        testbed.cut_off(),
        cut_off,
        "a connection was cut off for them"
    );
    assert!(peak <= testbed.most, "{} MiB", peak / MIB);
    // Or this would say nothing.
    let at_rest = LIMIT / 100 * RESERVED..=LIMIT / 100 * FULL;
    assert!(at_rest.contains(&stands), "{} KiB in use", stands / 1024);
    assert!(weight >= LIMIT / 8, "{weight}");
    drop((rest, still));
}

#[tokio::test]
async fn small_calls_proceed_beside_callers_300_stalled_uploads() {
    goes_on(Duration::ZERO).await;
}

/// The last of them begin by what is reserved for their caller, and memory falls afterwards.
#[tokio::test]
async fn stalled_uploads_release_reserved_permits_once_memory_falls() {
    goes_on(APART).await;
}
