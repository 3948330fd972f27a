//! Which holder connections count for that prove an identity.
//!
//! Claims: calls-60

use super::*;

const WEB: &str = "spiffe://cluster.local/ns/shop/sa/web";

#[tokio::test(start_paused = true)]
async fn a_holder_is_the_identity_that_was_proven() {
    let (occupancy, _) = occupancy(BOUNDS);
    // Five addresses, one identity: together they hold most.
    let mut hoard = Vec::new();
    for last in 1..=5 {
        let permit = enter(&occupancy, last);
        permit.prove("spiffe://cluster.local/ns/shop/sa/web");
        permit.idle();
        hoard.push(permit);
        sleep(Duration::from_secs(1)).await;
    }
    let quiet = idle(&occupancy, 9, 4).await;
    let _newcomer = enter(&occupancy, 9);
    assert_eq!((wanted(&hoard), wanted(&quiet)), (vec![0], vec![]));
}

/// Its addresses have none of them: each connection would be a first one.
#[tokio::test(start_paused = true)]
async fn proven_holder_leaves_last_tenth_to_others() {
    let bounds = Bounds {
        permits: 100,
        ..BOUNDS
    };
    let (occupancy, counts) = occupancy(bounds);
    let enters = |last: u8| {
        let permit = enter(&occupancy, last);
        permit.prove(WEB);
        permit
    };
    let mut hoard = Vec::new();
    for last in 0..200 {
        let permit = enters(last);
        if now(permit.cut()) {
            continue;
        }
        permit.busy();
        hoard.push(permit);
    }
    assert_eq!(hoard.len(), 90);
    assert_eq!(count(&counts, Reached::Hoarder), 110);
    // Others get in.
    let others: Vec<_> = (201..=205).map(|last| enter(&occupancy, last)).collect();
    others[0].prove("spiffe://cluster.local/ns/shop/sa/other");
    assert!(others.iter().all(|permit| !now(permit.cut())));
    // Where one of its own does nothing that goes instead.
    hoard[7].idle();
    let next = enters(206);
    assert!(!now(next.cut()));
    assert_eq!(wanted(&hoard), [7]);
}
