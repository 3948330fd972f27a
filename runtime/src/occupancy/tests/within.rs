//! When a connection is idle by what is served within it.
//!
//! Claims: attack-70

use super::*;

/// Whether a newcomer takes the place of `permit` where nearly all are taken.
async fn loses(occupancy: &Arc<Occupancy>, permit: &Permit) -> bool {
    // A holder with nothing to lose is not asked again at once.
    sleep(EVICTION_PAUSE).await;
    drop(enter(occupancy, 200));
    now(permit.wanted())
}

#[tokio::test(start_paused = true)]
async fn connection_with_only_idle_streams_may_be_evicted() {
    let (occupancy, counts) = occupancy(BOUNDS);
    let permit = enter(&occupancy, 1);
    let _others: Vec<_> = (2..10).map(|last| enter(&occupancy, last)).collect();
    permit.busy();
    permit.carries(2);
    let (silent, spoken) = (permit.within(), permit.within());
    silent.silent();
    assert!(!loses(&occupancy, &permit).await, "the other is in use");
    spoken.idle();
    permit.carries(3);
    assert!(!loses(&occupancy, &permit).await, "so is a third one");
    permit.carries(2);
    spoken.busy();
    assert!(!loses(&occupancy, &permit).await, "it was asked again");
    assert_eq!(count(&counts, Reached::Hoarder), 0);
    spoken.idle();
    assert!(loses(&occupancy, &permit).await);
    assert_eq!(count(&counts, Reached::Hoarder), 1);
}

#[tokio::test(start_paused = true)]
async fn connection_ignoring_close_request_is_aborted_when_streams_idle() {
    let (occupancy, _) = occupancy(BOUNDS);
    tokio::spawn(Arc::clone(&occupancy).watch());
    let permit = enter(&occupancy, 1);
    let _others: Vec<_> = (2..10).map(|last| enter(&occupancy, last)).collect();
    permit.busy();
    permit.carries(2);
    let (silent, spoken) = (permit.within(), permit.within());
    silent.silent();
    spoken.idle();
    assert!(loses(&occupancy, &permit).await);
    spoken.busy();
    sleep(CLOSE_WITHIN * 3).await;
    assert!(!now(permit.cut()), "a request is in flight");
    // What is gone is not idle any more.
    drop(silent);
    permit.carries(1);
    sleep(CLOSE_WITHIN * 3).await;
    assert!(!now(permit.cut()), "it is the only one now");
    spoken.idle();
    sleep(CLOSE_WITHIN * 3).await;
    assert!(now(permit.cut()));
}

/// Else a holder with tunnels in all its connections counted as leaving, and took the permits that
/// are kept for others.
#[tokio::test(start_paused = true)]
async fn connection_active_after_close_request_counts_as_staying() {
    let (occupancy, _) = occupancy(BOUNDS);
    tokio::spawn(Arc::clone(&occupancy).watch());
    let permit = enter(&occupancy, 1);
    let others: Vec<_> = (2..10).map(|last| enter(&occupancy, last)).collect();
    permit.busy();
    permit.carries(1);
    let spoken = permit.within();
    spoken.idle();
    assert!(loses(&occupancy, &permit).await);
    others[0].idle();
    assert!(
        !loses(&occupancy, &others[0]).await,
        "control: the first one makes room"
    );
    spoken.busy();
    sleep(CLOSE_WITHIN * 3).await;
    assert!(!now(permit.cut()), "a request is in flight");
    assert!(loses(&occupancy, &others[0]).await);
}
