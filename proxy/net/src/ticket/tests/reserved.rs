//! Requests that begin by permits that are reserved for their caller, which has so much in
//! flight that there is no room for more, as where none of that ever ends.

use std::future::pending;

use super::*;

/// In MiB: a holder of a quarter of the memory finds no room any more.
const NO_ROOM: usize = 39;
/// More than anybody gets.
const TRIES: usize = 100;

/// A request of this caller; `None` where it has to wait.
fn begins(budget: &Arc<Budget>, permit: &Arc<Permit>) -> Option<InFlight> {
    let reservation = admit(budget, permit, AdmissionClass::Callers).ok()?;
    Some(permit.begin_request_by(reservation))
}

/// As many of this caller as begin at once.
fn all(budget: &Arc<Budget>, permit: &Arc<Permit>) -> Vec<InFlight> {
    let tries = (0..TRIES).map_while(|_| begins(budget, permit));
    tries.collect()
}

fn reserved(permit: &Permit) -> usize {
    permit.requests().unwrap().reserved()
}

#[tokio::test(start_paused = true)]
async fn reserved_permits_admit_few_requests_beside_endless_ones() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _still) = busy(&occupancy, 1, MANY);
    USED.set(NO_ROOM * MIB);
    for _ in 0..1000 {
        assert!(begins(&budget, &busy).is_some(), "one after the other");
    }
    let mut started = all(&budget, &busy);
    assert_eq!((started.len(), reserved(&busy)), (RESERVED, RESERVED));
    let waiting: Vec<_> = (0..3)
        .map(|_| {
            let ticket = queues(&budget, &busy);
            let permit = Arc::clone(&busy);
            tokio::spawn(async move {
                let reservation = ticket.admitted_by(None).await.unwrap();
                permit.begin_request_by(reservation)
            })
        })
        .collect();
    a_moment().await;
    for at in 0..3 {
        let done: Vec<_> = waiting.iter().map(JoinHandle::is_finished).collect();
        assert_eq!(done, [at > 0, at > 1, at > 2]);
        started.pop();
        a_moment().await;
        assert_eq!(reserved(&busy), RESERVED, "the next one took it");
    }
    drop(started);
    for one in waiting {
        drop(one.await.unwrap());
    }
    assert_eq!(reserved(&busy), 0);
}

#[test]
fn reserved_permits_leave_room_for_nearly_idle_caller() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _still) = busy(&occupancy, 1, MANY);
    let idle = enter(&occupancy, 2);
    USED.set(NO_ROOM * MIB);
    assert!(passes(&budget, &busy, AdmissionClass::Callers));
    USED.set((NO_ROOM + 1) * MIB);
    assert!(!passes(&budget, &busy, AdmissionClass::Callers));
    let idle = idle.requests().unwrap();
    assert!(budget.headroom().is_for(idle, AdmissionClass::Callers));
}

#[test]
fn heavy_caller_keeps_half_its_permits_until_reading_stops() {
    let (budget, occupancy) = (budget(), occupancy());
    let (heavy, _still) = busy(&occupancy, 1, MANY);
    let _held = heavy.reserve_bytes(LIMIT / 8);
    occupancy.weigh(0);
    for mib in [NO_ROOM + 1, NO_ROOM + 2] {
        USED.set(mib * MIB);
        let mut started = all(&budget, &heavy);
        assert_eq!(started.len(), RESERVED / 2, "{mib} MiB");
        started.pop();
        assert!(begins(&budget, &heavy).is_some(), "one after the other");
    }
    // There a holder loses something, and it is among them.
    USED.set((NO_ROOM + 3) * MIB);
    assert!(begins(&budget, &heavy).is_none());
    let (less, _still) = busy(&occupancy, 2, MANY);
    USED.set((NO_ROOM + 1) * MIB);
    assert!(begins(&budget, &less).is_none(), "it is not the heaviest");
}

#[test]
fn heavy_callers_permits_leave_room_for_nearly_idle_caller() {
    let (budget, occupancy) = (budget(), occupancy());
    let (heavy, _still) = busy(&occupancy, 1, MANY);
    let _held = heavy.reserve_bytes(LIMIT / 8);
    occupancy.weigh(0);
    USED.set((NO_ROOM + 1) * MIB);
    let mut started = Vec::new();
    while let Some(request) = begins(&budget, &heavy) {
        let mut promise = budget.promise(0);
        promise.begins();
        started.push((request, promise));
    }
    assert_eq!(started.len(), RESERVED / 2);
    let idle = enter(&occupancy, 2);
    let idle = idle.requests().unwrap();
    assert!(budget.headroom().is_for(idle, AdmissionClass::Callers));
}

#[test]
fn reserved_permits_are_divided_but_never_below_one() {
    USED.set(NO_ROOM * MIB);
    for (callers, each) in [(1, 8), (2, 4), (3, 2), (8, 1), (20, 1)] {
        let (budget, occupancy) = (budget(), occupancy());
        let callers = (0..callers).map(|last| busy(&occupancy, last, MANY));
        let callers: Vec<_> = callers.collect();
        let started = callers.iter().map(|(permit, _)| all(&budget, permit));
        let started: Vec<_> = started.collect();
        assert!(started.iter().all(|one| one.len() == each), "{each}");
    }
}

#[test]
fn incomplete_head_takes_no_reserved_permit() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _still) = busy(&occupancy, 1, MANY);
    USED.set(NO_ROOM * MIB);
    assert!(!budget.lets_in(&busy, AdmissionClass::Callers));
    assert_eq!(reserved(&busy), 0);
    assert!(!budget.holds_back(&busy, AdmissionClass::Callers));
    assert!(passes(&budget, &busy, AdmissionClass::Callers), "all of it");
}

#[test]
fn requests_outlasting_shortage_release_reserved_permits_to_next() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _still) = busy(&occupancy, 1, MANY);
    USED.set(NO_ROOM * MIB);
    let stuck = all(&budget, &busy);
    assert_eq!((stuck.len(), reserved(&busy)), (RESERVED, RESERVED));
    occupancy.release_reserved();
    assert_eq!(reserved(&busy), 0);
    let next = all(&budget, &busy);
    assert_eq!(next.len(), RESERVED);
    drop(stuck);
    assert_eq!(reserved(&busy), RESERVED, "not given back twice");
    drop(next);
    assert_eq!(reserved(&busy), 0);
}

#[tokio::test(start_paused = true)]
async fn endless_requests_free_reserved_permits_after_two_rounds() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _still) = busy(&occupancy, 1, MANY);
    USED.set(NO_ROOM * MIB);
    let mut stuck = all(&budget, &busy);
    let waiting = waits(&budget, &busy);
    occupancy.release_older_reserved();
    a_moment().await;
    assert!(!waiting.is_finished(), "they may end yet");
    assert_eq!(reserved(&busy), RESERVED);
    // One that ends gives back its own.
    stuck.pop();
    a_moment().await;
    assert!(waiting.is_finished());
    let mut stuck_too = all(&budget, &busy);
    assert_eq!((stuck_too.len(), reserved(&busy)), (1, RESERVED));
    let waiting = waits(&budget, &busy);
    a_moment().await;
    occupancy.release_older_reserved();
    a_moment().await;
    assert!(waiting.is_finished(), "who waits is called");
    assert_eq!(reserved(&busy), 1, "of this round");
    drop(stuck);
    assert_eq!(reserved(&busy), 1, "not given back twice");
    stuck_too.pop();
    assert_eq!(reserved(&busy), 0);
}

#[tokio::test(start_paused = true)]
async fn reserved_permit_returns_once_however_request_ends() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _still) = busy(&occupancy, 1, MANY);
    USED.set(NO_ROOM * MIB);
    let begin = || begins(&budget, &busy).unwrap();
    let (aborted, fails) = (begin(), begin());
    let aborted = tokio::spawn(async move {
        let _request = aborted;
        pending::<()>().await;
    });
    let fails: JoinHandle<()> = tokio::spawn(async move {
        let _request = fails;
        panic!("as a bug would");
    });
    assert_eq!(reserved(&busy), 2);
    a_moment().await;
    aborted.abort();
    assert!(aborted.await.is_err() && fails.await.is_err());
    assert_eq!(reserved(&busy), 0);
    // Its answer is on its way, and its body as well.
    let answer = Arc::new(begin());
    let body = Arc::clone(&answer);
    drop(answer);
    assert_eq!(reserved(&busy), 1);
    drop(body);
    // It was admitted, and its caller left.
    drop(admit(&budget, &busy, AdmissionClass::Callers));
    assert_eq!(reserved(&busy), 0);
    let in_flight = busy.requests().unwrap().in_flight();
    assert_eq!(in_flight, MANY);
}
