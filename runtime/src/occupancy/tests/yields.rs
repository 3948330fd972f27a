//! What is in use at the pace of its peer goes where others need its permit, and else stays.
//!
//! Claims: attack-71

use super::*;

fn gone(permits: &[Arc<Permit>]) -> usize {
    permits.iter().filter(|permit| now(permit.cut())).count()
}

#[tokio::test(start_paused = true)]
async fn newcomer_evicts_yielding_connection_of_largest_holder_only() {
    let (occupancy, counts) = occupancy(BOUNDS);
    tokio::spawn(Arc::clone(&occupancy).watch());
    let hoard: Vec<_> = (0..8).map(|_| enter(&occupancy, 1)).collect();
    let honest = enter(&occupancy, 2);
    hoard[0].busy();
    for permit in hoard[1..].iter().chain([&honest]) {
        permit.yields();
    }
    // As long as there is room it is in use as any other.
    sleep(BOUNDS.idle_within * 2).await;
    assert_eq!((gone(&hoard), wanted(&hoard)), (0, vec![]));
    let _newcomer = enter(&occupancy, 3);
    assert_eq!(gone(&hoard), 1);
    assert!(!now(hoard[0].cut()), "it must stay");
    assert!(!now(honest.cut()), "others hold more");
    assert_eq!(count(&counts, Reached::Hoarder), 1);
}

#[tokio::test(start_paused = true)]
async fn yielding_connection_closes_for_others_before_own_holder() {
    let (occupancy, _) = occupancy(BOUNDS);
    let hoard: Vec<_> = (0..9).map(|_| enter(&occupancy, 1)).collect();
    hoard.iter().for_each(|permit| permit.yields());
    assert!(occupancy.try_admit(&holder(1)).is_err());
    assert_eq!(gone(&hoard), 0);
    let _other = enter(&occupancy, 2);
    assert_eq!(gone(&hoard), 1);
    sleep(GRACE).await;
    let _own = occupancy.try_admit(&holder(1)).unwrap();
    assert_eq!(gone(&hoard), 2);
}

#[tokio::test(start_paused = true)]
async fn evicted_busy_connection_closes_once_it_yields() {
    let (occupancy, _) = occupancy(BOUNDS);
    let permit = enter(&occupancy, 1);
    permit.idle();
    permit.head_begins();
    sleep(BOUNDS.head_within).await;
    assert!(permit.head_is_overdue(BOUNDS.head_within));
    permit.busy();
    let waits = Arc::clone(&permit);
    let cut = tokio::spawn(async move { waits.cut().await });
    sleep(Duration::from_secs(60)).await;
    assert!(!cut.is_finished());
    permit.yields();
    let cut = timeout(Duration::from_millis(2), cut).await;
    assert!(cut.is_ok(), "it is asked to go");
}
