//! Requests that wait for memory before they begin.
//!
//! Claims: attack-17, attack-29

use std::cell::Cell;
use std::net::IpAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::task::Poll;

use runtime::occupancy::{Bounds, InFlight, Occupancy, Reached};
use weft_proxy_net::ticket::{NotAdmitted, WAIT};

use super::floods::{GET, PREFACE, WHOLE, frame};
use super::*;
use crate::http2::flood::MOST;

const LIMIT: usize = 64 << 20;
const MUCH: usize = 40 << 20;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static WAITED: Cell<u64> = const { Cell::new(0) };
    /// Requests that were taken back while they waited.
    static LEFT: Cell<usize> = const { Cell::new(0) };
}

struct Saturated {
    sender: h2::client::SendRequest<Bytes>,
    budget: Arc<Budget>,
    started: Arc<AtomicUsize>,
    occupancy: Arc<Occupancy>,
    _requests: (Arc<Permit>, Vec<InFlight>),
}

/// A connection of a caller that has a hundred requests in flight on another one.
async fn saturated() -> Saturated {
    let (saturated, serving) = stopped().await;
    tokio::spawn(serving);
    saturated
}

/// The same, and what serves it when it is polled.
async fn stopped() -> (Saturated, Pin<Box<dyn Future<Output = ()> + Send>>) {
    let Served {
        client,
        serving,
        budget,
        started,
        occupancy,
        requests,
    } = served();
    let (sender, connection) = h2::client::handshake(client).await.unwrap();
    tokio::spawn(connection);
    let saturated = Saturated {
        sender,
        budget,
        started,
        occupancy,
        _requests: requests,
    };
    (saturated, serving)
}

/// The same before its client has sent anything.
struct Served {
    client: DuplexStream,
    serving: Pin<Box<dyn Future<Output = ()> + Send>>,
    budget: Arc<Budget>,
    started: Arc<AtomicUsize>,
    occupancy: Arc<Occupancy>,
    requests: (Arc<Permit>, Vec<InFlight>),
}

fn served() -> Served {
    let bounds = Bounds {
        permits: 10,
        per_holder: usize::MAX,
        shared: true,
        head_within: Duration::MAX,
        idle_within: Duration::MAX,
    };
    let occupancy = Occupancy::new(bounds, |reached| {
        if matches!(reached, Reached::NoMemory { .. }) {
            WAITED.set(WAITED.get() + 1);
        }
    });
    let enter = || {
        let from = IpAddr::from([10, 0, 0, 1]).into();
        occupancy.try_admit(&from).unwrap().unwrap()
    };
    let (permit, other) = (enter(), enter());
    let requests = (0..100).map(|_| other.begin_request()).collect();
    let budget = Budget::measured(LIMIT, LIMIT, || USED.get());
    let mut limits = limits(PLAIN, permit);
    limits.budget = Arc::clone(&budget);
    let (client, far) = duplex(1 << 20);
    let started = Arc::<AtomicUsize>::default();
    let counted = Arc::clone(&started);
    let serving: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(async move {
        let close = pin!(pending::<()>());
        let handler = move |request: Request<super::super::recv::RecvBody>| {
            let not_admitted = request.extensions().get::<NotAdmitted>().copied();
            match not_admitted {
                Some(NotAdmitted::Left) => LEFT.set(LEFT.get() + 1),
                _ => _ = counted.fetch_add(1, Relaxed),
            }
            let late = not_admitted.is_some();
            let slow = request.uri().path() == "/slow";
            async move {
                if slow {
                    tokio::time::sleep(Duration::from_secs(5)).await;
                }
                Response::new(body::text(if late { "late" } else { "ok" }))
            }
        };
        let _ = server::serve(far, limits, close, handler).await;
    });
    Served {
        client,
        serving,
        budget,
        started,
        occupancy,
        requests: (other, requests),
    }
}

impl Saturated {
    fn ask(&mut self, path: &str) -> h2::client::ResponseFuture {
        let request = Request::get(format!("http://s{path}")).body(()).unwrap();
        self.sender.send_request(request, true).unwrap().0
    }

    fn started(&self) -> usize {
        self.started.load(Relaxed)
    }
}

async fn body_of(answer: h2::client::ResponseFuture) -> Bytes {
    answer
        .await
        .unwrap()
        .into_body()
        .data()
        .await
        .unwrap()
        .unwrap()
}

async fn a_moment() {
    tokio::time::sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn new_requests_wait_for_memory_but_in_flight_continue() {
    let mut saturated = saturated().await;
    USED.set(0);
    let slow = saturated.ask("/slow");
    a_moment().await;
    USED.set(MUCH);
    let waiting: Vec<_> = (0..20).map(|_| saturated.ask("/")).collect();
    assert_eq!(body_of(slow).await, "ok");
    assert_eq!(saturated.started(), 1);
    USED.set(0);
    saturated.budget.settle();
    for answer in waiting {
        assert_eq!(body_of(answer).await, "ok");
    }
    assert_eq!(saturated.started(), 21);
    assert!(WAITED.get() > 0);
}

#[tokio::test(start_paused = true)]
async fn request_waiting_in_vain_is_handed_over_for_refusal() {
    let mut saturated = saturated().await;
    USED.set(MUCH);
    let answer = saturated.ask("/");
    tokio::time::sleep(WAIT - Duration::from_secs(1)).await;
    saturated.budget.settle();
    a_moment().await;
    assert_eq!(saturated.started(), 0);
    tokio::time::sleep(Duration::from_secs(2)).await;
    saturated.budget.settle();
    assert_eq!(body_of(answer).await, "late");
}

/// As where the process stalled meanwhile.
#[tokio::test(start_paused = true)]
async fn request_with_room_starts_even_if_noticed_late() {
    let (mut saturated, mut serving) = stopped().await;
    USED.set(MUCH);
    let answer = saturated.ask("/");
    for _ in 0..5 {
        a_moment().await;
        let looked = poll_fn(|cx| Poll::Ready(serving.as_mut().poll(cx)));
        assert!(looked.await.is_pending());
    }
    assert!(WAITED.get() > 0);
    tokio::time::sleep(WAIT + Duration::from_secs(1)).await;
    USED.set(0);
    saturated.budget.settle();
    tokio::spawn(serving);
    assert_eq!(body_of(answer).await, "ok");
}

/// A caller that holds much of what never ends goes on beside it.
#[tokio::test(start_paused = true)]
async fn reserved_permit_is_returned_after_response_or_reset() {
    const RESERVED: usize = 8;
    let mut saturated = saturated().await;
    let _held = saturated._requests.0.reserve_bytes(LIMIT / 4);
    saturated.occupancy.weigh(0);
    let requests = Arc::clone(saturated._requests.0.requests().unwrap());
    USED.set(39 << 20);
    let mut slow: Vec<_> = (0..=RESERVED).map(|_| saturated.ask("/slow")).collect();
    a_moment().await;
    let now = (saturated.started(), requests.reserved());
    assert_eq!(now, (RESERVED, RESERVED));
    drop(slow.remove(0));
    a_moment().await;
    let now = (saturated.started(), requests.reserved());
    assert_eq!(now, (RESERVED + 1, RESERVED), "the one that waited has it");
    for answer in slow {
        assert_eq!(body_of(answer).await, "ok");
    }
    a_moment().await;
    assert_eq!((requests.reserved(), requests.in_flight()), (0, 100));
}

#[tokio::test(start_paused = true)]
async fn waiting_request_is_not_started_on_flooding_connection() {
    for (resets, begins) in [(100, 1), (MOST as usize + 100, 0)] {
        let mut served = served();
        USED.set(MUCH);
        tokio::spawn(served.serving);
        let asked = [PREFACE, &frame(HEADERS, WHOLE, 5, &GET)].concat();
        served.client.write_all(&asked).await.unwrap();
        a_moment().await;
        assert_eq!(served.started.load(Relaxed), 0);
        // There is room for it as the flood is read, which is all of a stream that has ended.
        USED.set(0);
        served.budget.settle();
        let flood = frame(RESET, 0, 3, &[0, 0, 0, 8]).repeat(resets);
        served.client.write_all(&flood).await.unwrap();
        a_moment().await;
        assert_eq!(served.started.load(Relaxed), begins, "{resets}");
    }
}

/// Streams that a client takes back count no more as open, so it may begin others.
#[tokio::test(start_paused = true)]
async fn withdrawn_requests_neither_accumulate_nor_block_others() {
    let mut saturated = saturated().await;
    USED.set(MUCH);
    for _ in 0..20 {
        let pending: Vec<_> = (0..50).map(|_| saturated.ask("/")).collect();
        a_moment().await;
        drop(pending);
        a_moment().await;
    }
    let in_flight = saturated._requests.0.requests().unwrap().in_flight();
    assert_eq!(in_flight, 100, "those that wait are not in flight");
    USED.set(0);
    saturated.budget.settle();
    assert_eq!(body_of(saturated.ask("/")).await, "ok");
    assert_eq!(saturated.started(), 1, "nothing was done for the others");
    assert_eq!(LEFT.get(), 1000, "but each is reported");
}

/// A client may send as much of each body as its window allows.
#[tokio::test(start_paused = true)]
async fn bodies_of_waiting_requests_count_for_their_sender() {
    const WINDOW: usize = 64 * 1024;
    let mut saturated = saturated().await;
    // Its window was announced before memory was short.
    a_moment().await;
    USED.set(MUCH);
    let occupancy = Arc::clone(&saturated.occupancy);
    let weight = || occupancy.weight();
    let mut streams = Vec::new();
    for (length, least, most) in [
        (None, WINDOW, WINDOW + 4096),
        (Some("100000"), WINDOW, WINDOW + 4096),
        (Some("100"), 100, 100 + 4096),
    ] {
        a_moment().await;
        let before = weight();
        for _ in 0..20 {
            let mut request = Request::post("http://s/");
            if let Some(length) = length {
                request = request.header("content-length", length);
            }
            let request = request.body(()).unwrap();
            streams.push(saturated.sender.send_request(request, false).unwrap());
        }
        a_moment().await;
        let each = (weight() - before) / 20;
        assert!((least..=most).contains(&each), "{length:?}: {each}");
    }
    assert_eq!(saturated.started(), 0);
    drop(streams);
    let waiting = weight();
    USED.set(0);
    saturated.budget.settle();
    a_moment().await;
    assert!(weight() + 40 * WINDOW < waiting);
}
