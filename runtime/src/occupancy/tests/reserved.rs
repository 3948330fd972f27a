//! Permits that are reserved for the next requests of a holder.

use std::thread;

use super::*;

const MOST: usize = 8;

#[test]
fn concurrent_reservations_never_exceed_reserved_permit_limit() {
    let requests = Arc::<Requests>::default();
    let (seen, got) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..2000 {
                    let permits = [0; 3].map(|_| requests.reserve_permit(MOST));
                    seen.fetch_max(requests.reserved(), Relaxed);
                    got.fetch_add(permits.iter().flatten().count(), Relaxed);
                }
            });
        }
    });
    assert!(seen.load(Relaxed) <= MOST, "{seen:?}");
    assert!(got.load(Relaxed) > 0);
    assert_eq!(requests.reserved(), 0, "each came back, and once");
    let all: Vec<_> = (0..=MOST)
        .filter_map(|_| requests.reserve_permit(MOST))
        .collect();
    assert_eq!(all.len(), MOST);
}

#[test]
fn returned_reserved_permit_wakes_first_waiter() {
    let requests = Arc::<Requests>::default();
    let permit = requests.reserve_permit(1);
    let (first, second) = (requests.enter(0), requests.enter(0));
    assert_eq!(requests.look(first, Waker::noop()), Look::First);
    // As long as a part of its request has it.
    let part = permit.clone();
    drop(permit);
    assert_eq!(requests.look(first, Waker::noop()), Look::First);
    drop(part);
    assert_eq!(requests.look(second, Waker::noop()), Look::Behind);
    assert_eq!(requests.look(first, Waker::noop()), Look::Called);
}
