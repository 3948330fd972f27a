//! Who waits, for how long, and in which order.

use std::cell::Cell;
use std::net::IpAddr;

use parking_lot::Mutex;
use runtime::occupancy::{Bounds, InFlight, Occupancy, Reached};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;

const MIB: usize = 1024 * 1024;
const LIMIT: usize = 64 * MIB;
/// What a caller may always have in flight.
const SHARE: usize = LIMIT / WORTH / REQUEST;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static WAITED: Cell<u64> = const { Cell::new(0) };
}

fn budget() -> Arc<Budget> {
    Budget::measured(LIMIT, LIMIT, || USED.get())
}

/// A connection of caller `last`.
fn enter(places: &Arc<Occupancy>, last: u8) -> Arc<Place> {
    let from = IpAddr::from([10, 0, 0, last]).into();
    places.try_admit(&from).unwrap().unwrap()
}

fn places() -> Arc<Occupancy> {
    let bounds = Bounds {
        places: 1000,
        per_holder: usize::MAX,
        shared: true,
        head_within: Duration::MAX,
        idle_within: Duration::MAX,
    };
    Occupancy::new(bounds, |reached| {
        if reached == Reached::NoMemory {
            WAITED.set(WAITED.get() + 1);
        }
    })
}

/// A caller that has its share of requests in flight.
fn crowd(places: &Arc<Occupancy>, last: u8) -> (Arc<Place>, Vec<InFlight>) {
    let place = enter(places, last);
    let requests = (0..SHARE).map(|_| place.begin_request()).collect();
    (place, requests)
}

fn passes(budget: &Arc<Budget>, place: &Arc<Place>, line: Line) -> bool {
    budget.admit(place, line).is_ok()
}

/// Whether the turn came, once that is known.
fn waits(budget: &Arc<Budget>, place: &Arc<Place>) -> JoinHandle<bool> {
    let turn = budget.admit(place, Line::Callers).expect_err("it waits");
    tokio::spawn(turn.comes())
}

async fn a_moment() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn a_caller_with_its_share_waits_until_memory_falls_and_one_with_less_does_not() {
    let (budget, places) = (budget(), places());
    let (crowd, _requests) = crowd(&places, 1);
    let quiet = enter(&places, 2);
    USED.set(35 * MIB);
    assert!(passes(&budget, &crowd, Line::Callers), "there is room");
    USED.set(36 * MIB);
    let turn = waits(&budget, &crowd);
    for _ in 0..SHARE {
        assert!(passes(&budget, &quiet, Line::Callers));
    }
    // Less is held, and somebody notices.
    a_moment().await;
    USED.set(20 * MIB);
    assert!(!turn.is_finished());
    drop(budget.hold());
    a_moment().await;
    assert!(turn.is_finished() && turn.await.unwrap());
    assert_eq!(WAITED.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn whatever_fills_the_memory_everybody_has_its_share() {
    let (budget, places) = (budget(), places());
    let (crowd, mut requests) = crowd(&places, 1);
    USED.set(63 * MIB);
    let turn = waits(&budget, &crowd);
    a_moment().await;
    requests.pop();
    budget.settle();
    a_moment().await;
    assert!(turn.is_finished() && turn.await.unwrap());
    // Whose connections nobody counts is the pod itself.
    assert!(passes(&budget, &Place::unlisted(), Line::Callers));
}

#[tokio::test(start_paused = true)]
async fn who_waits_in_vain_is_told_after_half_a_minute_and_nobody_waits_behind_it() {
    let (budget, places) = (budget(), places());
    let (crowd, _requests) = crowd(&places, 1);
    USED.set(40 * MIB);
    let first = waits(&budget, &crowd);
    sleep(WAIT - Duration::from_secs(1)).await;
    let (second, third) = (waits(&budget, &crowd), waits(&budget, &crowd));
    a_moment().await;
    assert!(!first.is_finished());
    sleep(Duration::from_secs(2)).await;
    assert!(!first.await.unwrap());
    // One that left as well.
    second.abort();
    USED.set(20 * MIB);
    budget.settle();
    assert!(third.await.unwrap());
    assert!(passes(&budget, &crowd, Line::Callers));
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_order_and_newcomers_go_behind() {
    let (budget, places) = (budget(), places());
    let (crowd, _requests) = crowd(&places, 1);
    USED.set(40 * MIB);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut all = Vec::new();
    for at in 0..3 {
        let turn = budget.admit(&crowd, Line::Callers).err().unwrap();
        let order = Arc::clone(&order);
        all.push(tokio::spawn(async move {
            assert!(turn.comes().await);
            order.lock().push(at);
        }));
        a_moment().await;
    }
    USED.set(20 * MIB);
    assert!(!passes(&budget, &crowd, Line::Callers), "others were first");
    drop(budget.hold());
    for turn in all {
        turn.await.unwrap();
    }
    assert_eq!(*order.lock(), [0, 1, 2]);
    assert!(passes(&budget, &crowd, Line::Callers));
}

#[test]
fn what_has_begun_counts_until_it_is_answered_or_measured() {
    let (budget, places) = (budget(), places());
    let (crowd, _requests) = crowd(&places, 1);
    USED.set(30 * MIB);
    let begin = || {
        let mut promise = budget.promise(0);
        promise.begins();
        promise
    };
    let mut begun = Vec::new();
    while begun.len() < 1000 && passes(&budget, &crowd, Line::Callers) {
        begun.push(begin());
    }
    // From 30 to 35 MiB.
    assert!((160..175).contains(&begun.len()), "{}", begun.len());
    begun.pop();
    assert!(passes(&budget, &crowd, Line::Callers), "one has its answer");
    begun.push(begin());
    assert_eq!(budget.used(), 30 * MIB, "nobody is cut off for it");
    budget.settle();
    assert!(
        !passes(&budget, &crowd, Line::Callers),
        "maybe not measured"
    );
    budget.settle();
    assert!(passes(&budget, &crowd, Line::Callers));
    // And they are not taken away a second time.
    let later = begin();
    drop(begun);
    drop(later);
    assert_eq!(budget.admission.expected(), 0);
}

#[test]
fn the_own_application_still_calls_where_callers_wait() {
    let (budget, places) = (budget(), places());
    let (crowd, _requests) = crowd(&places, 1);
    USED.set(36 * MIB);
    assert!(!passes(&budget, &crowd, Line::Callers));
    assert!(passes(&budget, &crowd, Line::Own));
    USED.set(39 * MIB);
    assert!(!passes(&budget, &crowd, Line::Own));
}
