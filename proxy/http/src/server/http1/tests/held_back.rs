//! Requests that wait for memory before they begin.

use std::cell::Cell;

use runtime::occupancy::{InFlight, Reached};
use weft_proxy_net::ticket::WAIT;

use super::*;

mod closed;
mod deadline;

const LIMIT: usize = 64 << 20;
const MUCH: usize = 40 << 20;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static WAITED: Cell<u64> = const { Cell::new(0) };
    /// Requests that a handler was called for.
    static STARTED: Cell<usize> = const { Cell::new(0) };
}

/// Connections of one caller.
fn occupancy() -> Arc<Occupancy> {
    let bounds = Bounds {
        permits: 200,
        per_holder: usize::MAX,
        shared: true,
        head_within: HEAD_WITHIN,
        idle_within: Duration::MAX,
    };
    let occupancy = Occupancy::new(bounds, |reached| {
        if matches!(reached, Reached::NoMemory { .. }) {
            WAITED.set(WAITED.get() + 1);
        }
    });
    tokio::spawn(Arc::clone(&occupancy).watch());
    occupancy
}

fn enter(occupancy: &Arc<Occupancy>) -> Arc<Permit> {
    let from = Holder::from(std::net::IpAddr::from([10, 0, 0, 1]));
    occupancy.try_admit(&from).unwrap().unwrap()
}

fn count_request(request: Request<Incoming>) -> impl Future<Output = Response<Body>> + Send {
    STARTED.set(STARTED.get() + 1);
    path(request)
}

/// A connection of a caller that has a hundred requests in flight on another one.
fn saturated() -> (Served, Arc<Budget>, (Arc<Permit>, Vec<InFlight>)) {
    let occupancy = occupancy();
    let (permit, other) = (enter(&occupancy), enter(&occupancy));
    let requests = (0..100).map(|_| other.begin_request()).collect();
    let budget = Budget::measured(LIMIT, LIMIT, || USED.get());
    let served = Served::within(Arc::clone(&budget), permit, 4096, None, count_request);
    (served, budget, (other, requests))
}

#[tokio::test(start_paused = true)]
async fn head_waiting_for_memory_is_served_later_without_timeout() {
    let (mut served, budget, _held) = saturated();
    USED.set(MUCH);
    served.send(GET).await;
    // Longer than a head may take.
    sleep(HEAD_WITHIN * 2).await;
    assert!(served.rests(), "nothing was set up for it");
    USED.set(0);
    budget.settle();
    served.expect_read(&response_to("/one")).await;
    // The next one on the same connection, whose head is read as ever.
    USED.set(MUCH);
    served.send(GET).await;
    sleep(HEAD_WITHIN * 2).await;
    USED.set(0);
    budget.settle();
    served.expect_read(&response_to("/one")).await;
    assert_eq!(WAITED.get(), 2);
}

#[tokio::test(start_paused = true)]
async fn request_without_memory_in_time_gets_refusal() {
    for after_first in [false, true] {
        let (mut served, _, _held) = saturated();
        USED.set(0);
        if after_first {
            served.send(GET).await;
            served.expect_read(&response_to("/one")).await;
        }
        USED.set(MUCH);
        served.send(GET).await;
        sleep(WAIT + Duration::from_secs(1)).await;
        let mut answer = vec![0; 16 * 1024];
        let count = served.client.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]);
        assert!(
            answer.starts_with("HTTP/1.1 503 "),
            "{after_first}: {answer}"
        );
        assert!(answer.contains("weft-reason: overload"), "{answer}");
        assert!(answer.contains("no memory"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_flight_goes_on_while_others_wait() {
    let (mut served, _, _held) = saturated();
    USED.set(0);
    served.send(b"GET /on").await;
    sleep(Duration::from_millis(1)).await;
    USED.set(MUCH);
    served.send(&GET[7..]).await;
    served.expect_read(&response_to("/one")).await;
}

#[tokio::test(start_paused = true)]
async fn waiting_request_on_used_connection_holds_no_memory() {
    let (mut served, budget, _held) = saturated();
    USED.set(0);
    served.send(GET).await;
    served.expect_read(&response_to("/one")).await;
    assert!(!served.rests());
    USED.set(MUCH);
    served.send(GET).await;
    sleep(LONG).await;
    assert!(served.rests(), "its buffers were given back");
    assert_eq!(budget.holders(), 0);
    USED.set(0);
    budget.settle();
    served.expect_read(&response_to("/one")).await;
    assert_eq!(WAITED.get(), 1);
}

/// The second of them was read with the first one.
#[tokio::test(start_paused = true)]
async fn nothing_is_done_for_request_waiting_behind_another() {
    let (mut served, budget, _held) = saturated();
    USED.set(0);
    served.send(&GET[..GET.len() - 2]).await;
    sleep(Duration::from_millis(1)).await;
    USED.set(MUCH);
    served.send(&[b"\r\n", GET].concat()).await;
    served.expect_read(&response_to("/one")).await;
    sleep(LONG).await;
    assert_eq!(budget.holders(), 0);
    USED.set(0);
    budget.settle();
    served.expect_read(&response_to("/one")).await;
}

#[tokio::test(start_paused = true)]
async fn half_head_has_usual_timeout_while_waiting_for_memory() {
    let (mut served, _, _held) = saturated();
    USED.set(MUCH);
    served.send(&GET[..10]).await;
    let start = Instant::now();
    assert_eq!(served.client.read(&mut [0; 100]).await.unwrap(), 0);
    assert!(start.elapsed() < HEAD_WITHIN * 2);
}

#[tokio::test(start_paused = true)]
async fn peer_proxy_learns_that_waiting_request_was_unsent() {
    for piped in [false, true] {
        let (mut served, _, _held) = saturated();
        USED.set(0);
        if piped {
            served.send(&GET[..GET.len() - 2]).await;
            sleep(Duration::from_millis(1)).await;
        }
        USED.set(MUCH);
        let last: &[u8] = if piped { b"\r\n" } else { b"" };
        served.send(&[last, GET].concat()).await;
        if piped {
            served.expect_read(&response_to("/one")).await;
        }
        sleep(WAIT + Duration::from_secs(1)).await;
        let mut answer = vec![0; 16 * 1024];
        let count = served.client.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]);
        assert!(answer.starts_with("HTTP/1.1 503 "), "{piped}: {answer}");
        assert!(answer.contains("weft-unsent: 1\r\n"), "{piped}: {answer}");
    }
}

/// The client has cancelled, and may have sent the request elsewhere by now.
#[tokio::test(start_paused = true)]
async fn nothing_is_done_for_who_leaves_while_it_waits() {
    const POST: &[u8] = b"POST /one HTTP/1.1\r\nHost: s\r\nContent-Length: 5\r\n\r\nhello";
    for (piped, request) in [(false, GET), (false, POST), (true, GET), (true, POST)] {
        let (mut served, budget, (other, requests)) = saturated();
        USED.set(0);
        if piped {
            served.send(&GET[..GET.len() - 2]).await;
            sleep(Duration::from_millis(1)).await;
        }
        USED.set(MUCH);
        let last: &[u8] = if piped { b"\r\n" } else { b"" };
        served.send(&[last, request].concat()).await;
        if piped {
            served.expect_read(&response_to("/one")).await;
        }
        sleep(LONG).await;
        let waiting = || other.requests().unwrap().waiting();
        assert_eq!(waiting(), 1);
        let before = STARTED.get();
        served.client.shutdown().await.unwrap();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(waiting(), 0, "{piped}: its ticket is given up");
        // A client that only finishes sending gets the answer.
        let mut answer = vec![0; 16 * 1024];
        let count = served.client.read(&mut answer).await.unwrap();
        assert!(answer[..count].starts_with(b"HTTP/1.1 503 "), "{piped}");
        USED.set(0);
        drop(requests);
        budget.settle();
        sleep(LONG).await;
        assert_eq!(STARTED.get(), before, "{piped}");
    }
}

/// As it is with cookies: the head is larger than what is read behind one.
#[tokio::test(start_paused = true)]
async fn waiting_client_with_large_head_is_noticed_leaving() {
    let (mut served, _, (other, _requests)) = saturated();
    USED.set(MUCH);
    let head = format!(
        "GET /one HTTP/1.1\r\nHost: s\r\nCookie: {}\r\n\r\n",
        "c".repeat(6000)
    );
    served.send(head.as_bytes()).await;
    sleep(LONG).await;
    let waiting = || other.requests().unwrap().waiting();
    assert_eq!(waiting(), 1);
    served.client.shutdown().await.unwrap();
    sleep(Duration::from_millis(1)).await;
    assert_eq!(waiting(), 0);
}

/// As a client that offers another protocol with its first request, and goes on without. Such a
/// connection is never idle, so nothing would look again at what is left unread there.
#[tokio::test(start_paused = true)]
async fn connection_offering_other_protocol_waits_and_continues() {
    const OFFER: &[u8] =
        b"GET /one HTTP/1.1\r\nhost: a\r\nconnection: upgrade\r\nupgrade: h2c\r\n\r\n";
    let (mut served, budget, (other, _requests)) = saturated();
    USED.set(0);
    served.send(OFFER).await;
    served.expect_read(&response_to("/one")).await;
    sleep(LONG).await;
    USED.set(MUCH);
    let before = STARTED.get();
    served.send(GET).await;
    sleep(LONG).await;
    assert_eq!(STARTED.get(), before, "it waits as any other");
    assert_eq!(other.requests().unwrap().waiting(), 1);
    USED.set(0);
    budget.settle();
    served.expect_read(&response_to("/one")).await;
    // And without a want of memory.
    served.send(GET).await;
    served.expect_read(&response_to("/one")).await;
}

/// They are no head that was let in, for whatever comes behind them.
#[tokio::test(start_paused = true)]
async fn empty_lines_before_a_head_let_nothing_in() {
    for memory in [true, false] {
        let (mut served, budget, _held) = saturated();
        let (started, waited) = (STARTED.get(), WAITED.get());
        USED.set(0);
        served.send(b"\r\n\r\n").await;
        sleep(LONG).await;
        USED.set(if memory { 0 } else { MUCH });
        served.send(GET).await;
        if !memory {
            sleep(LONG).await;
            assert_eq!((STARTED.get(), WAITED.get()), (started, waited + 1));
            USED.set(0);
            budget.settle();
        }
        served.expect_read(&response_to("/one")).await;
        assert_eq!(STARTED.get(), started + 1);
    }
}

/// A client that waits with a large body is not seen to leave behind it, and holds little of it.
#[tokio::test(start_paused = true)]
async fn little_is_read_of_body_behind_waiting_head() {
    let (mut served, _, _held) = saturated();
    USED.set(MUCH);
    let head = b"POST /one HTTP/1.1\r\nHost: s\r\nContent-Length: 100000\r\n\r\n";
    served.send(head).await;
    let written = timeout(LONG, served.send(&[b'x'; 100_000])).await;
    assert!(written.is_err(), "all of it was read");
}

/// As many as may be in flight, however they begin.
#[tokio::test(start_paused = true)]
async fn partial_heads_count_as_requests_they_become() {
    const SHARE: usize = 64;
    let (occupancy, budget) = (occupancy(), Budget::measured(LIMIT, LIMIT, || USED.get()));
    USED.set(MUCH);
    let never = |request: Request<Incoming>| {
        STARTED.set(STARTED.get() + 1);
        drop(request);
        pending::<Response<Body>>()
    };
    let of = |_| Served::within(Arc::clone(&budget), enter(&occupancy), 4096, None, never);
    let mut all: Vec<_> = (0..2 * SHARE).map(of).collect();
    for served in &mut all {
        served.send(&GET[..1]).await;
    }
    sleep(Duration::from_millis(1)).await;
    for served in &mut all {
        served.send(&GET[1..]).await;
    }
    sleep(Duration::from_millis(1)).await;
    assert_eq!(STARTED.get(), SHARE);
    assert_eq!(WAITED.get(), SHARE as u64);
}

#[tokio::test(start_paused = true)]
async fn early_admitted_half_head_is_checked_again_later() {
    let (mut served, budget, _held) = saturated();
    USED.set(0);
    served.send(&GET[..1]).await;
    sleep(Duration::from_secs(1)).await;
    USED.set(MUCH);
    served.send(&GET[1..]).await;
    sleep(LONG).await;
    assert_eq!((STARTED.get(), WAITED.get()), (0, 1));
    USED.set(0);
    budget.settle();
    served.expect_read(&response_to("/one")).await;
}

#[tokio::test(start_paused = true)]
async fn request_carries_time_it_waited() {
    use weft_proxy_net::ticket::Waited;
    let (occupancy, budget) = (occupancy(), Budget::measured(LIMIT, LIMIT, || USED.get()));
    let (permit, other) = (enter(&occupancy), enter(&occupancy));
    let _requests: Vec<_> = (0..100).map(|_| other.begin_request()).collect();
    let handler = |request: Request<Incoming>| {
        let waited = request.extensions().get::<Waited>();
        let waited = waited.map_or(0, |waited| waited.0.as_secs());
        async move { Response::new(body::text(format!("{waited}"))) }
    };
    let mut served = Served::within(Arc::clone(&budget), permit, 4096, None, handler);
    // The third one has its head read by hyper, behind another.
    for (piped, waits) in [(false, true), (false, false), (true, true)] {
        USED.set(if waits && !piped { MUCH } else { 0 });
        if piped {
            sleep(LONG).await;
            served.send(&GET[..GET.len() - 2]).await;
            sleep(Duration::from_millis(1)).await;
            USED.set(MUCH);
            served.send(&[b"\r\n", GET].concat()).await;
            served.expect_read(&response_to("0")).await;
        } else {
            served.send(GET).await;
        }
        sleep(Duration::from_secs(7)).await;
        USED.set(0);
        budget.settle();
        served
            .expect_read(&response_to(if waits { "7" } else { "0" }))
            .await;
    }
}

/// An application that answers at once may be sent a body for as long as its caller likes.
#[tokio::test(start_paused = true)]
async fn request_is_in_flight_until_its_body_arrives() {
    let permit = enter(&occupancy());
    let in_flight = || permit.requests().unwrap().in_flight();
    let mut served = Served::at(Arc::clone(&permit), 4096, None, |request| {
        let path = request.uri().path().to_owned();
        tokio::spawn(request.into_body().collect());
        async move { Response::new(body::text(path)) }
    });
    for whole in [true, false] {
        served
            .send(b"POST /post HTTP/1.1\r\nhost: a\r\ncontent-length: 4\r\n\r\nbo")
            .await;
        served.expect_read(&response_to("/post")).await;
        sleep(LONG).await;
        assert_eq!(in_flight(), 1);
        if whole {
            served.send(b"dy").await;
            sleep(LONG).await;
            assert_eq!(in_flight(), 0);
        }
    }
    drop(served.client);
    sleep(LONG).await;
    assert_eq!(in_flight(), 0);
}

/// In bytes: there is no room for a caller that holds a quarter of the memory, but for what
/// is reserved for it.
const RESERVED: usize = 39 << 20;
/// Requests in flight that hold a quarter of the memory.
const MANY: usize = 512;

#[tokio::test(start_paused = true)]
async fn requests_beside_endless_ones_use_and_return_reserved_permits() {
    let (mut served, _budget, (other, _requests)) = saturated();
    let _more: Vec<_> = (100..MANY).map(|_| other.begin_request()).collect();
    let requests = Arc::clone(other.requests().unwrap());
    USED.set(RESERVED);
    let large = format!(
        "GET /one HTTP/1.1\r\nHost: s\r\nCookie: {}\r\n\r\n",
        "c".repeat(20_000)
    );
    // Whole, in two parts, and too large to be waited for before it is read; on a connection
    // that was used a moment ago, and on an idle one.
    let requests_in_parts: [&[&[u8]]; 3] = [&[GET], &[&GET[..10], &GET[10..]], &[large.as_bytes()]];
    for rest in [Duration::from_millis(1), LONG] {
        for parts in requests_in_parts {
            for part in parts {
                served.send(part).await;
                sleep(Duration::from_millis(1)).await;
            }
            served.expect_read(&response_to("/one")).await;
            sleep(rest).await;
            assert_eq!((requests.reserved(), requests.in_flight()), (0, MANY));
        }
    }
    assert_eq!(WAITED.get(), 0);
    // Others have all of them, and give one back.
    let mut taken: Vec<_> = (0..10).filter_map(|_| requests.reserve_permit(8)).collect();
    assert_eq!(taken.len(), 8);
    served.send(GET).await;
    sleep(LONG).await;
    assert_eq!(WAITED.get(), 1);
    taken.pop();
    served.expect_read(&response_to("/one")).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(requests.reserved(), taken.len());
}

/// As with what else counts of a request in flight.
#[tokio::test(start_paused = true)]
async fn switched_connection_returns_its_reserved_permit() {
    let (occupancy, budget) = (occupancy(), Budget::measured(LIMIT, LIMIT, || USED.get()));
    let (permit, other) = (enter(&occupancy), enter(&occupancy));
    let _requests: Vec<_> = (0..MANY).map(|_| other.begin_request()).collect();
    let requests = Arc::clone(other.requests().unwrap());
    USED.set(RESERVED);
    let handler = |mut request: Request<Incoming>| async move {
        let upgraded = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let _stream = upgraded.await.unwrap();
            pending::<()>().await;
        });
        sleep(LONG).await;
        switched()
    };
    let mut served = Served::within(budget, permit, 4096, None, handler);
    served.send(SWITCH).await;
    sleep(LONG / 2).await;
    assert_eq!(requests.reserved(), 1);
    served.expect_read(SWITCHED).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!((requests.reserved(), requests.in_flight()), (0, MANY));
}
