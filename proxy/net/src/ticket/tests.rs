//! Which requests wait for memory, for how long, and in which order.
//!
//! Claims: attack-28, attack-40, calls-48

use std::cell::Cell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

use parking_lot::Mutex;
use runtime::occupancy::{Bounds, InFlight, Occupancy, Reached};
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::*;
use crate::budget::Promise;

mod reserved;

const MIB: usize = 1024 * 1024;
const LIMIT: usize = 64 * MIB;
/// What a caller may have in flight whatever room there is, when it is the only one.
const LEAST: usize = 64;
/// With so many in flight a caller's memory decides from which part of all memory it waits.
const MANY: usize = 512;
/// What is reserved for a caller that is the only one.
const RESERVED: usize = 8;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    /// For memory in use, and for what was only expected.
    static WAITED: Cell<u64> = const { Cell::new(0) };
    static EXPECTED: Cell<u64> = const { Cell::new(0) };
}

fn budget() -> Arc<Budget> {
    Budget::measured(LIMIT, LIMIT, || USED.get())
}

/// A connection of caller `last`.
fn enter(occupancy: &Arc<Occupancy>, last: u8) -> Arc<Permit> {
    let from = IpAddr::from([10, 0, 0, last]).into();
    occupancy.try_admit(&from).unwrap().unwrap()
}

fn occupancy() -> Arc<Occupancy> {
    let bounds = Bounds {
        permits: 1000,
        per_holder: usize::MAX,
        shared: true,
        head_within: Duration::MAX,
        idle_within: Duration::MAX,
    };
    Occupancy::new(bounds, |reached| {
        if let Reached::NoMemory { in_use } = reached {
            let counter = if in_use { &WAITED } else { &EXPECTED };
            counter.set(counter.get() + 1);
        }
    })
}

/// A caller that has so many requests in flight.
fn busy(occupancy: &Arc<Occupancy>, last: u8, many: usize) -> (Arc<Permit>, Vec<InFlight>) {
    let permit = enter(occupancy, last);
    let requests = (0..many).map(|_| permit.begin_request()).collect();
    (permit, requests)
}

/// All that is reserved for this caller is taken.
fn take_reserved(permit: &Permit) -> Vec<Arc<ReservedPermit>> {
    let requests = permit.requests().unwrap();
    std::iter::from_fn(|| requests.reserve_permit(RESERVED)).collect()
}

fn passes(budget: &Arc<Budget>, permit: &Arc<Permit>, class: AdmissionClass) -> bool {
    admit(budget, permit, class).is_ok()
}

/// Whether the request was admitted, once that is known.
fn waits(budget: &Arc<Budget>, permit: &Arc<Permit>) -> JoinHandle<bool> {
    let admitted = admit(budget, permit, AdmissionClass::Callers);
    let ticket = admitted.expect_err("it waits");
    tokio::spawn(async move { ticket.admitted_by(None).await.is_ok() })
}

/// The ticket of a request that has to wait.
fn queues(budget: &Arc<Budget>, permit: &Arc<Permit>) -> AdmissionTicket {
    let admitted = admit(budget, permit, AdmissionClass::Callers);
    admitted.err().unwrap()
}

async fn a_moment() {
    sleep(Duration::from_millis(1)).await;
}

#[tokio::test(start_paused = true)]
async fn wait_for_what_is_only_expected_counts_apart() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _requests) = busy(&occupancy, 1, MANY);
    let _reserved = take_reserved(&busy);
    USED.set(15 * MIB);
    let mut started: Vec<_> = (0..500).map(|_| budget.promise(0)).collect();
    started.iter_mut().for_each(Promise::begins);
    let ticket = waits(&budget, &busy);
    budget.settle();
    budget.settle();
    assert!(ticket.await.unwrap());
    assert_eq!((WAITED.get(), EXPECTED.get()), (0, 1));
}

#[tokio::test(start_paused = true)]
async fn busy_caller_waits_for_memory_while_idle_passes() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _requests) = busy(&occupancy, 1, MANY);
    let _reserved = take_reserved(&busy);
    let idle = enter(&occupancy, 2);
    USED.set(37 * MIB);
    assert!(
        passes(&budget, &busy, AdmissionClass::Callers),
        "there is room"
    );
    USED.set(38 * MIB);
    let ticket = waits(&budget, &busy);
    for _ in 0..LEAST {
        assert!(passes(&budget, &idle, AdmissionClass::Callers));
    }
    // Less is held, and the next look notices.
    a_moment().await;
    USED.set(20 * MIB);
    assert!(!ticket.is_finished());
    drop(budget.enter());
    a_moment().await;
    assert!(ticket.is_finished() && ticket.await.unwrap());
    assert_eq!(WAITED.get(), 1);
}

#[tokio::test(start_paused = true)]
async fn each_caller_has_some_requests_at_full_memory() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, mut requests) = busy(&occupancy, 1, LEAST);
    USED.set(63 * MIB);
    let ticket = waits(&budget, &busy);
    a_moment().await;
    requests.pop();
    a_moment().await;
    assert!(ticket.is_finished() && ticket.await.unwrap());
    // No holder is charged for what is done on it.
    assert!(passes(
        &budget,
        &Permit::unlisted(),
        AdmissionClass::Callers
    ));
}

#[tokio::test(start_paused = true)]
async fn ticket_fails_after_half_minute_without_blocking_later_ones() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _requests) = busy(&occupancy, 1, LEAST);
    USED.set(40 * MIB);
    let first = waits(&budget, &busy);
    sleep(WAIT - Duration::from_secs(1)).await;
    let (second, third) = (waits(&budget, &busy), waits(&budget, &busy));
    a_moment().await;
    assert!(!first.is_finished());
    sleep(Duration::from_secs(2)).await;
    assert!(!first.await.unwrap());
    // One that left as well.
    second.abort();
    USED.set(20 * MIB);
    budget.settle();
    assert!(third.await.unwrap());
    assert!(passes(&budget, &busy, AdmissionClass::Callers));
}

#[tokio::test(start_paused = true)]
async fn turns_come_in_order_and_newcomers_go_behind() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _requests) = busy(&occupancy, 1, LEAST);
    USED.set(40 * MIB);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut all = Vec::new();
    for at in 0..3 {
        let ticket = queues(&budget, &busy);
        let order = Arc::clone(&order);
        all.push(tokio::spawn(async move {
            assert!(ticket.admitted_by(None).await.is_ok());
            order.lock().push(at);
        }));
        a_moment().await;
    }
    USED.set(20 * MIB);
    assert!(
        !passes(&budget, &busy, AdmissionClass::Callers),
        "others were first"
    );
    drop(budget.enter());
    for ticket in all {
        ticket.await.unwrap();
    }
    assert_eq!(*order.lock(), [0, 1, 2]);
    assert!(passes(&budget, &busy, AdmissionClass::Callers));
}

#[tokio::test(start_paused = true)]
async fn callers_wait_behind_their_own_requests_only() {
    let (budget, occupancy) = (budget(), occupancy());
    let (first, _requests) = busy(&occupancy, 1, LEAST / 2);
    let (second, mut requests) = busy(&occupancy, 2, LEAST / 2);
    USED.set(41 * MIB);
    let ahead = waits(&budget, &first);
    a_moment().await;
    let own = (0..3).map(|_| {
        let ticket = queues(&budget, &second);
        let permit = Arc::clone(&second);
        tokio::spawn(async move {
            assert!(ticket.admitted_by(None).await.is_ok());
            permit.begin_request()
        })
    });
    let own: Vec<_> = own.collect();
    a_moment().await;
    for at in 0..3 {
        requests.remove(0);
        let overtakes = passes(&budget, &second, AdmissionClass::Callers);
        assert!(!overtakes, "requests of its own were first");
        a_moment().await;
        let done: Vec<_> = own.iter().map(JoinHandle::is_finished).collect();
        assert_eq!(done, [true, at > 0, at > 1]);
    }
    assert!(!ahead.is_finished());
}

#[tokio::test(start_paused = true)]
async fn freed_room_goes_to_least_busy_caller_first() {
    let (budget, occupancy) = (budget(), occupancy());
    let (many, _requests) = busy(&occupancy, 1, LEAST + 1);
    let (few, _others) = busy(&occupancy, 2, LEAST);
    USED.set(40 * MIB);
    let order = Arc::new(Mutex::new(Vec::new()));
    let mut all = Vec::new();
    for (name, permit) in [("many", &many), ("few", &few)] {
        let ticket = queues(&budget, permit);
        let order = Arc::clone(&order);
        all.push(tokio::spawn(async move {
            assert!(ticket.admitted_by(None).await.is_ok());
            order.lock().push(name);
        }));
        a_moment().await;
    }
    USED.set(20 * MIB);
    budget.settle();
    for ticket in all {
        ticket.await.unwrap();
    }
    assert_eq!(*order.lock(), ["few", "many"]);
}

/// With thousands that wait, each of them every quarter of a second would be a load.
#[tokio::test(start_paused = true)]
async fn no_waiter_is_woken_without_room() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _requests) = busy(&occupancy, 1, LEAST);
    USED.set(40 * MIB);
    let woken = Arc::<AtomicUsize>::default();
    for _ in 0..100 {
        let mut ticket = Box::pin(queues(&budget, &busy));
        let woken = Arc::clone(&woken);
        tokio::spawn(poll_fn(move |cx| {
            woken.fetch_add(1, Relaxed);
            ticket.as_mut().poll(cx)
        }));
    }
    a_moment().await;
    woken.store(0, Relaxed);
    for _ in 0..10 {
        budget.settle();
        a_moment().await;
    }
    drop(budget.enter());
    a_moment().await;
    assert_eq!(woken.load(Relaxed), 0);
}

#[test]
fn started_request_counts_until_finished_or_measured() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _requests) = busy(&occupancy, 1, MANY);
    let _reserved = take_reserved(&busy);
    USED.set(30 * MIB);
    let begin = || {
        let mut promise = budget.promise(0);
        promise.begins();
        promise
    };
    let mut started = Vec::new();
    while started.len() < 1000 && passes(&budget, &busy, AdmissionClass::Callers) {
        started.push(begin());
    }
    // From 30 to 37 MiB.
    assert!((112..116).contains(&started.len()), "{}", started.len());
    started.pop();
    assert!(
        passes(&budget, &busy, AdmissionClass::Callers),
        "one has ended"
    );
    started.push(begin());
    assert_eq!(budget.used(), 30 * MIB, "no request is cut off for it");
    budget.settle();
    assert!(
        !passes(&budget, &busy, AdmissionClass::Callers),
        "maybe not measured"
    );
    budget.settle();
    assert!(passes(&budget, &busy, AdmissionClass::Callers));
    // And they are not taken away a second time.
    let later = begin();
    drop(started);
    drop(later);
    assert_eq!(budget.admission.expected(), 0);
}

#[test]
fn the_own_application_still_calls_where_callers_wait() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _requests) = busy(&occupancy, 1, MANY);
    let _reserved = take_reserved(&busy);
    USED.set(38 * MIB);
    assert!(!passes(&budget, &busy, AdmissionClass::Callers));
    assert!(passes(&budget, &busy, AdmissionClass::Own));
    USED.set(39 * MIB);
    assert!(!passes(&budget, &busy, AdmissionClass::Own));
}

#[test]
fn caller_holding_more_memory_waits_at_lower_usage() {
    let (budget, occupancy) = (budget(), occupancy());
    // In MiB: what it holds beside its requests, and up to where it finds room.
    for (holds, room) in [(0, 39), (5, 39), (8, 38), (12, 37), (16, 37), (40, 37)] {
        let (busy, requests) = busy(&occupancy, 1, LEAST);
        let reservation = (busy.reserve_bytes(holds * MIB), take_reserved(&busy));
        occupancy.weigh(0);
        USED.set(room * MIB);
        assert!(passes(&budget, &busy, AdmissionClass::Callers), "{holds}");
        USED.set((room + 1) * MIB);
        assert!(!passes(&budget, &busy, AdmissionClass::Callers), "{holds}");
        drop((reservation, requests));
    }
}

/// Beyond what there is room for; each of them may be what another one ends after.
#[test]
fn more_callers_mean_fewer_requests_each_without_room() {
    let (budget, occupancy) = (budget(), occupancy());
    USED.set(41 * MIB);
    let mut all = Vec::new();
    for (callers, each) in [(1, 64), (2, 32), (10, 6), (100, 1), (200, 1)] {
        while all.len() < callers {
            let last = u8::try_from(all.len()).unwrap();
            all.push(busy(&occupancy, last, 1));
        }
        let (permit, _) = &all[0];
        let more: Vec<_> = (1..each)
            .map(|_| {
                assert!(
                    passes(&budget, permit, AdmissionClass::Callers),
                    "{callers}"
                );
                permit.begin_request()
            })
            .collect();
        assert!(
            !passes(&budget, permit, AdmissionClass::Callers),
            "{callers}"
        );
        drop(more);
    }
    let last = enter(&occupancy, 255);
    assert!(passes(&budget, &last, AdmissionClass::Callers));
    USED.set(45 * MIB);
    let started: Vec<_> = (0..20)
        .map_while(|_| {
            passes(&budget, &last, AdmissionClass::Callers).then(|| {
                let mut promise = budget.promise(0);
                promise.begins();
                promise
            })
        })
        .collect();
    assert_eq!(started.len(), 8, "a part of the memory");
}

#[tokio::test(start_paused = true)]
async fn busier_caller_takes_no_room_from_waiting_one() {
    let (budget, occupancy) = (budget(), occupancy());
    let (few, _requests) = busy(&occupancy, 1, LEAST);
    let (many, _others) = busy(&occupancy, 2, LEAST + 1);
    let (fewer, _one) = busy(&occupancy, 3, LEAST - 1);
    USED.set(40 * MIB);
    let first = waits(&budget, &few);
    a_moment().await;
    USED.set(30 * MIB);
    assert!(!passes(&budget, &many, AdmissionClass::Callers));
    assert!(passes(&budget, &fewer, AdmissionClass::Callers));
    budget.settle();
    a_moment().await;
    assert!(first.is_finished() && first.await.unwrap());
    assert!(passes(&budget, &many, AdmissionClass::Callers));
}

#[tokio::test(start_paused = true)]
async fn ticket_wait_ends_at_deadline_or_common_maximum() {
    let (budget, occupancy) = (budget(), occupancy());
    let (busy, _requests) = busy(&occupancy, 1, LEAST);
    USED.set(63 * MIB);
    for (own, waits, why) in [
        (Duration::from_secs(2), 2, NotAdmitted::Deadline),
        (WAIT * 2, WAIT.as_secs(), NotAdmitted::Late),
    ] {
        let ticket = admit(&budget, &busy, AdmissionClass::Callers).expect_err("it waits");
        let started = Instant::now();
        let admitted = ticket.admitted_by(Some(started + own)).await;
        assert_eq!(admitted.unwrap_err(), why);
        assert_eq!(started.elapsed().as_secs(), waits);
        assert_eq!(busy.requests().unwrap().waiting(), 0);
    }
}

/// A hundred requests of callers, each of which calls back until it comes to them again.
#[tokio::test(start_paused = true)]
async fn own_calls_skip_wait_for_dependent_requests() {
    let (budget, occupancy) = (budget(), occupancy());
    let (own, _calls) = busy(&occupancy, 1, LEAST);
    USED.set(41 * MIB);
    let first = {
        let ticket = admit(&budget, &own, AdmissionClass::Own).expect_err("it waits");
        tokio::spawn(async move { ticket.admitted_by(None).await.is_ok() })
    };
    a_moment().await;
    assert!(!first.is_finished());
    budget.note_callers(100);
    budget.settle();
    a_moment().await;
    assert!(first.is_finished() && first.await.unwrap());
    let calls: Vec<_> = (0..100).map(|_| own.begin_request()).collect();
    assert!(!passes(&budget, &own, AdmissionClass::Own), "one for each");
    drop(calls);
    assert!(!passes(
        &budget,
        &enter(&occupancy, 1),
        AdmissionClass::Callers
    ));
}

/// No request ends, and each that begins is measured before the next ones.
#[tokio::test(start_paused = true)]
async fn full_memory_bounds_admissions_per_round_and_caller() {
    const AT_A_TIME: usize = 8;
    let (budget, occupancy) = (budget(), occupancy());
    USED.set(63 * MIB);
    let callers: Vec<_> = (1..=10).map(|last| enter(&occupancy, last)).collect();
    let (mut in_flight, mut before) = (Vec::new(), 0);
    for _ in 0..100 {
        let mut started = 0;
        for caller in &callers {
            while passes(&budget, caller, AdmissionClass::Callers) {
                let mut promise = budget.promise(0);
                promise.begins();
                in_flight.push((promise, caller.begin_request()));
                started += 1;
                assert!(before + started <= AT_A_TIME, "{before} and {started}");
            }
        }
        before = started;
        budget.settle();
    }
    // Each has the part that was its own when it came.
    let all: usize = (1..=callers.len()).map(|nth| LEAST / nth).sum();
    assert_eq!(in_flight.len(), all);
}
