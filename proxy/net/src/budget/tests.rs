//! What each holder may hold, and when nothing is read any more.
//!
//! Claims: attack-35, attack-39

use std::cell::Cell;
use std::future::poll_fn;
use std::sync::Arc;
use std::task::{Context, Waker};

use super::{Budget, Holder, LARGEST_CHUNK, LEAST_CHUNK};

const LIMIT: usize = 64 * 1024 * 1024;
const MIB: usize = 1024 * 1024;

thread_local! {
    /// What the program of a test holds.
    static USED: Cell<usize> = const { Cell::new(0) };
}

fn measured() -> Arc<Budget> {
    Budget::measured(LIMIT, LIMIT, || USED.get())
}

fn may_read(budget: &Budget) -> bool {
    budget
        .poll_room(&Context::from_waker(Waker::noop()))
        .is_ready()
}
/// Places of a stream that hold a chunk each.
const PLACES: usize = 5;

#[test]
fn thousand_sequential_connections_fit_in_memory() {
    let budget = Budget::new(LIMIT);
    assert_eq!(budget.chunk_size(), LARGEST_CHUNK);
    let (mut holders, mut all): (Vec<Holder>, _) = (Vec::new(), 0);
    for _ in 0..1000 {
        holders.push(budget.enter());
        all += PLACES * budget.chunk_size() + budget.window().min(64 * 1024);
    }
    assert!(all <= LIMIT * 7 / 8, "{all}");
    assert_eq!(budget.chunk_size(), LEAST_CHUNK);
    holders.clear();
    assert_eq!((budget.holders(), budget.chunk_size()), (0, LARGEST_CHUNK));
}

#[test]
fn chunks_and_windows_are_smallest_when_memory_is_tight() {
    let budget = measured();
    USED.set(35 * MIB);
    assert_eq!(budget.chunk_size(), LARGEST_CHUNK);
    assert!(budget.window() > 0 && may_read(&budget));
    USED.set(36 * MIB);
    assert_eq!((budget.chunk_size(), budget.window()), (LEAST_CHUNK, 0));
    assert!(may_read(&budget), "there is room");
}

#[tokio::test]
async fn reading_stops_at_full_memory_until_room_is_made() {
    let budget = measured();
    USED.set(45 * MIB);
    assert!(!may_read(&budget));
    budget.filled().await;
    // Less is held, but making room is not done.
    USED.set(40 * MIB);
    assert!(!may_read(&budget));
    let waiting = Arc::clone(&budget);
    let reader = tokio::spawn(async move { poll_fn(|cx| waiting.poll_room(cx)).await });
    tokio::task::yield_now().await;
    assert!(!reader.is_finished());
    budget.reopen(false);
    reader.await.unwrap();
    assert!(may_read(&budget));
}

#[test]
fn what_the_kernel_holds_for_sockets_counts() {
    let budget = measured();
    USED.set(20 * MIB);
    budget.note_sockets(10 * MIB);
    assert!(!budget.is_tight());
    budget.note_sockets(25 * MIB);
    assert!(budget.is_full());
}

#[test]
fn received_heads_count_for_their_forwarding_cost() {
    let budget = measured();
    USED.set(40 * MIB);
    let small = budget.promise(8000);
    assert_eq!(budget.used(), 40 * MIB, "no more than a request");
    let heads: Vec<_> = (0..50).map(|_| budget.promise(60_000)).collect();
    assert!(!may_read(&budget), "{}", budget.used());
    drop((heads, small));
    assert_eq!(budget.used(), 40 * MIB);
    budget.reopen(false);
    assert!(may_read(&budget));
}
