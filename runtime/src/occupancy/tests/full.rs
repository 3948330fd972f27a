//! Which newcomers wait where all permits are taken.

use super::*;

fn enter_at_rest(occupancy: &Arc<Occupancy>, many: usize) -> Vec<Arc<Permit>> {
    let enter = |_| {
        let permit = enter(occupancy, 1);
        permit.idle();
        permit
    };
    (0..many).map(enter).collect()
}

#[tokio::test(start_paused = true)]
async fn unresponsive_hoarder_delays_other_holders_only_briefly() {
    let (occupancy, counts) = occupancy(BOUNDS);
    tokio::spawn(Arc::clone(&occupancy).watch());
    let mut resting = enter_at_rest(&occupancy, 10);
    assert_eq!(occupancy.taken(), 10);
    let hoarder = count(&counts, Reached::Hoarder);
    for _ in 0..1000 {
        assert!(occupancy.try_admit(&holder(1)).is_err());
    }
    assert!(count(&counts, Reached::Hoarder) >= hoarder + 1000);
    // Another holder waits until one of them is cut off.
    let began = Instant::now();
    while occupancy.try_admit(&holder(2)).unwrap().is_none() {
        sleep(Duration::from_millis(50)).await;
        resting.retain(|permit| !now(permit.cut()));
        let waits = began.elapsed();
        assert!(waits < Duration::from_millis(1200), "{waits:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn whose_connections_go_when_asked_loses_no_newcomer() {
    let (occupancy, _) = occupancy(BOUNDS);
    tokio::spawn(Arc::clone(&occupancy).watch());
    let mut resting = enter_at_rest(&occupancy, 9);
    for _ in 0..20 {
        let newcomer = enter(&occupancy, 1);
        newcomer.idle();
        resting.push(newcomer);
        sleep(Duration::from_millis(500)).await;
        resting.retain(|permit| !now(permit.wanted()));
    }
}
