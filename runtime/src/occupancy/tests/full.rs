//! Who waits where all permits are taken.

use super::*;

/// Full of connections of one holder that rest.
fn full(occupancy: &Arc<Occupancy>) -> Vec<Arc<Permit>> {
    tokio::spawn(Arc::clone(occupancy).watch());
    let resting: Vec<_> = (0..10).map(|_| enter(occupancy, 1)).collect();
    resting.iter().for_each(|permit| permit.idle());
    assert_eq!(occupancy.taken(), 10);
    resting
}

#[tokio::test(start_paused = true)]
async fn who_fills_a_listener_and_does_not_go_when_asked_keeps_nobody_waiting_behind_its_own() {
    let (occupancy, counts) = occupancy(BOUNDS);
    let mut resting = full(&occupancy);
    let its_own = occupancy.admit(holder(1));
    // It has the time to go, and what is new of it waits as anybody's does.
    assert!(occupancy.try_admit(&holder(1)).unwrap().is_none());
    let began = Instant::now();
    assert!(its_own.await.is_err());
    assert!(began.elapsed() <= GOES_WITHIN, "{:?}", began.elapsed());
    let hoarder = count(&counts, Reached::Hoarder);
    assert!(matches!(occupancy.try_admit(&holder(1)), Err(TurnedAway)));
    assert_eq!(count(&counts, Reached::Hoarder), hoarder + 1);
    // Somebody else waits until one of them is cut off.
    let asked = Instant::now();
    while occupancy.try_admit(&holder(2)).unwrap().is_none() {
        sleep(Duration::from_millis(100)).await;
        resting.retain(|permit| !now(permit.cut()));
        assert!(asked.elapsed() < 2 * GOES_WITHIN);
    }
}

#[tokio::test(start_paused = true)]
async fn whose_connections_go_when_asked_waits_for_their_places() {
    let (occupancy, _) = occupancy(BOUNDS);
    let mut resting = full(&occupancy);
    for _ in 0..20 {
        let newcomer = occupancy.admit(holder(1));
        let goes = async {
            sleep(Duration::from_millis(500)).await;
            resting.retain(|permit| !now(permit.wanted()));
        };
        let (newcomer, ()) = tokio::join!(newcomer, goes);
        let newcomer = newcomer.unwrap();
        newcomer.idle();
        resting.push(newcomer);
    }
}
