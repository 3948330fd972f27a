//! Requests that are admitted while nobody reads, because room is being made.

use super::*;

/// In bytes: somebody has to lose something.
const FULL: usize = 45 << 20;
/// There is room for fewer than ask.
const SOME: usize = 36 << 20;
const ASK: usize = 150;
/// What there is room for then, each as large as it may be, and none larger than 64 KiB.
const FIT: usize = ((LIMIT / 100 * 63) - SOME) / (64 << 10);

#[tokio::test(start_paused = true)]
async fn requests_that_are_admitted_while_nobody_reads_are_no_more_than_there_is_room_for() {
    for (request, early) in [(GET, 0), (GET, 1), (SWITCH, 0)] {
        let (occupancy, budget) = (occupancy(), Budget::measured(LIMIT, LIMIT, || USED.get()));
        BEGUN.set(0);
        let never = |_| {
            BEGUN.set(BEGUN.get() + 1);
            pending::<Response<Body>>()
        };
        let of = |_| Served::within(Arc::clone(&budget), enter(&occupancy), 4096, None, never);
        let mut all: Vec<_> = (0..ASK).map(of).collect();
        // Heads as they come where there is room for their beginnings, and where there is none.
        USED.set(if early > 0 { SOME } else { FULL });
        for served in &mut all {
            served.say(&request[..early]).await;
        }
        sleep(Duration::from_millis(1)).await;
        USED.set(FULL);
        assert!(
            poll_fn(|cx| Poll::Ready(budget.poll_room(cx)))
                .await
                .is_pending()
        );
        for served in &mut all {
            served.say(&request[early..]).await;
        }
        sleep(Duration::from_millis(1)).await;
        // Something was cut off, and who makes room looks whether that suffices.
        USED.set(SOME);
        budget.look_again();
        sleep(Duration::from_millis(1)).await;
        assert_eq!(BEGUN.get(), 0, "nobody reads");
        budget.reopen(false);
        sleep(Duration::from_millis(1)).await;
        let begun = BEGUN.get();
        assert!((FIT / 2..=FIT).contains(&begun), "{begun} of {FIT}");
    }
}
