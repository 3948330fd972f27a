//! Requests that are admitted while nothing is read, because room is being made.

use super::*;

/// In bytes: some connection has to lose something.
const FULL: usize = 45 << 20;
/// There is room for fewer than there are.
const SOME: usize = 36 << 20;
const ASK: usize = 150;
/// What there is room for then, each as large as it may be, and none larger than 64 KiB.
const FIT: usize = ((LIMIT / 100 * 63) - SOME) / (64 << 10);

#[tokio::test(start_paused = true)]
async fn requests_admitted_while_reading_is_paused_fit_room() {
    for (request, early) in [(GET, 0), (GET, 1), (SWITCH, 0)] {
        let (occupancy, budget) = (occupancy(), Budget::measured(LIMIT, LIMIT, || USED.get()));
        STARTED.set(0);
        let never = |_| {
            STARTED.set(STARTED.get() + 1);
            pending::<Response<Body>>()
        };
        let of = |_| Served::within(Arc::clone(&budget), enter(&occupancy), 4096, None, never);
        let mut all: Vec<_> = (0..ASK).map(of).collect();
        // Heads as they come where there is room for their beginnings, and where there is none.
        USED.set(if early > 0 { SOME } else { FULL });
        for served in &mut all {
            served.send(&request[..early]).await;
        }
        sleep(Duration::from_millis(1)).await;
        USED.set(FULL);
        assert!(
            poll_fn(|cx| Poll::Ready(budget.poll_room(cx)))
                .await
                .is_pending()
        );
        for served in &mut all {
            served.send(&request[early..]).await;
        }
        sleep(Duration::from_millis(1)).await;
        // Something was cut off, and the part that makes room checks whether that suffices.
        USED.set(SOME);
        budget.look_again();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(STARTED.get(), 0, "nothing is read");
        budget.reopen(false);
        sleep(Duration::from_millis(1)).await;
        let started = STARTED.get();
        assert!((FIT / 2..=FIT).contains(&started), "{started} of {FIT}");
    }
}

fn large(bytes: usize) -> String {
    let cookie = "c".repeat(bytes);
    format!("GET /one HTTP/1.1\r\nHost: s\r\nCookie: {cookie}\r\n\r\n")
}

/// As cookies are that come in two parts: of each no more than the beginning may be read.
#[tokio::test(start_paused = true)]
async fn oversized_heads_are_read_only_within_available_room() {
    let (occupancy, budget) = (occupancy(), Budget::measured(LIMIT, LIMIT, || USED.get()));
    USED.set(SOME);
    let never = |_| pending::<Response<Body>>();
    let of = |_| Served::within(Arc::clone(&budget), enter(&occupancy), 4096, None, never);
    let mut all: Vec<_> = (0..ASK).map(of).collect();
    let head = large(60_000);
    let (first, rest) = head.split_at(20_000);
    let moment = Duration::from_millis(1);
    for served in &mut all {
        let _ = timeout(moment, served.send(first.as_bytes())).await;
    }
    let mut read = 0;
    for served in &mut all {
        read += usize::from(timeout(moment, served.send(rest.as_bytes())).await.is_ok());
    }
    assert!((FIT / 2..=FIT).contains(&read), "{read} of {FIT}");
}

/// What a head costs once more is there when it is sent on.
#[tokio::test(start_paused = true)]
async fn waiting_large_heads_count_only_what_they_hold() {
    let (mut served, budget, (other, _requests)) = saturated();
    USED.set(0);
    served.send(GET).await;
    served.expect_read(&response_to("/one")).await;
    // hyper has its beginning, so it reads the rest, and the request waits then.
    let head = large(20_000);
    let (first, rest) = head.split_at(10);
    served.send(first.as_bytes()).await;
    sleep(Duration::from_millis(1)).await;
    USED.set(MUCH);
    served.send(rest.as_bytes()).await;
    sleep(Duration::from_millis(1)).await;
    assert_eq!(other.requests().unwrap().waiting(), 1);
    assert_eq!(budget.used(), MUCH);
    USED.set(0);
    budget.settle();
    served.expect_read(&response_to("/one")).await;
}
