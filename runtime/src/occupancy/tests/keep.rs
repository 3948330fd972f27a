//! What is seen first: what a peer has sent, or that it was late.
//!
//! Claims: attack-29

use std::cell::Cell;

use super::*;

/// As where the process stood still: both are there when it is looked.
#[tokio::test(start_paused = true)]
async fn complete_head_is_served_even_when_polled_late() {
    for _ in 0..64 {
        let (occupancy, _) = occupancy(BOUNDS);
        let permit = enter(&occupancy, 1);
        permit.idle();
        permit.head_begins();
        sleep(BOUNDS.head_within * 2).await;
        assert!(permit.head_is_overdue(BOUNDS.head_within));
        assert!(now(permit.cut()));
        let served = Cell::new(false);
        let serving = async {
            permit.busy();
            sleep(Duration::from_secs(1)).await;
            served.set(true);
        };
        permit.keep(serving).await;
        assert!(served.get());
    }
}
