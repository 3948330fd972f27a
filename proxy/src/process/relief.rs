//! Memory relief: closes connections of the largest holder when memory runs out.
//!
//! The last resort: a caller that is bounded elsewhere does not get here. While relief works
//! nothing is read ([`Budget::poll_room`]), so nothing grows meanwhile. An identity, or an address
//! where none is proven, is one holder however many connections it has, so an honest caller beside
//! a flood is not the largest. The largest holder loses connections until another is the largest,
//! so none pays for two, and a holder of less than others loses nothing before they hold as little.
//!
//! Claims: attack-39

mod level;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime::cgroup::{ROOT, socket_memory};
use tokio::time::{Instant, sleep, timeout};

use crate::net::budget::Budget;
use crate::net::memory::{HEAVY, QUARTER, SMALL, Watermark};
use crate::process::heap;
use crate::process::permits::Permits;
use crate::process::relief::level::{Goal, HolderLoss, MemoryUse, losses};

/// What the program holds is counted anew so often: other threads allocate as well.
const COUNT_EVERY: Duration = Duration::from_millis(250);
/// What was cut off is looked for so often.
const POLL_EVERY: Duration = Duration::from_millis(1);
/// No connection is cut off while memory falls by `DRAINED` bytes in such a time, for a while:
/// slow readers take what is held for them, and nothing comes meanwhile.
const DRAINS_WITHIN: Duration = Duration::from_millis(5);
const DRAINED: usize = 32 * 1024;
const DRAINS_FOR: Duration = Duration::from_millis(20);
/// The wait for that ends after this time, whatever is still held.
const LONGEST: Duration = Duration::from_millis(60);
/// Where that did not suffice, everybody reads for so long before it is tried again.
const SPARED: Duration = Duration::from_millis(5);
/// A holder of less than this part of what the holder of most has does not wait for it.
const LIGHT: usize = 4;
/// What began by a reserved permit is measured like all else after this, or after twice as
/// long.
const RESERVED_FOR: Duration = Duration::from_secs(5);
/// What was taken so has been handed on by then.
const YIELDS_EVERY: Duration = Duration::from_secs(1);

/// How many bytes may be in use when enough was taken from holders of much, and from any.
#[derive(Clone, Copy)]
struct Until {
    of_much: usize,
    of_any: usize,
}

/// Makes room whenever there is none, and lets those look again that wait for some, for
/// ever. `permits` are those of all listeners of the process; a connection counts in the
/// metrics of the workload that loses it.
pub async fn relieve(budget: Arc<Budget>, permits: Vec<Permits>) {
    let (mut settled, mut pressed) = (Instant::now(), None::<Instant>);
    let mut released = settled;
    loop {
        let full = timeout(COUNT_EVERY, budget.filled()).await.is_ok();
        if settled.elapsed() >= COUNT_EVERY {
            settled = Instant::now();
            count(&budget);
            weigh(&budget, &permits);
            if released.elapsed() >= RESERVED_FOR {
                released = Instant::now();
                release_older(&budget, &permits);
            }
            budget.settle();
            let again = pressed.is_none_or(|last| last.elapsed() >= YIELDS_EVERY);
            let needed = if full { 0 } else { budget.pressed_for() };
            if again && needed > 0 {
                pressed = Some(Instant::now());
                yield_some(&budget, &permits, needed).await;
            }
        }
        if !full {
            continue;
        }
        make_room(&budget, &permits).await;
        let full = budget.is_full();
        budget.reopen(full);
        if full {
            sleep(SPARED).await;
            budget.reopen(false);
        }
    }
}

/// Takes from the holder of most until there is room for all, or it takes too long.
async fn make_room(budget: &Budget, permits: &[Permits]) {
    let began = Instant::now();
    // What is on its way out needs no connection to end.
    while budget.is_full() && began.elapsed() < DRAINS_FOR && drains(budget).await {}
    if !budget.is_full() {
        return;
    }
    let until = Until {
        of_much: budget.at(Watermark::Tight),
        of_any: budget.at(Watermark::Full),
    };
    while shed(budget, permits, until) > 0 && began.elapsed() < LONGEST {
        until_closed(permits, began).await;
        count(budget);
    }
}

/// Takes a little from the holder of most, for those that it keeps waiting: no more than they are
/// going to hold, since what they take from others they have to fill themselves.
async fn yield_some(budget: &Budget, permits: &[Permits], needed: usize) {
    let little = needed.min(budget.heap() / SMALL);
    let until = Until {
        of_much: budget.used().saturating_sub(little),
        of_any: usize::MAX,
    };
    shed(budget, permits, until);
    until_closed(permits, Instant::now()).await;
    count(budget);
    budget.look_again();
}

/// Counts anew what is held for the program, by itself and by the kernel.
fn count(budget: &Budget) {
    heap::count();
    // Some ten microseconds, so not before every read.
    if let Some(bytes) = socket_memory(Path::new(ROOT)) {
        budget.note_sockets(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
}

/// Notes which holders hold much less than the heaviest, where any may wait. Where none would,
/// what is reserved is free again.
fn weigh(budget: &Budget, permits: &[Permits]) {
    if budget.may_hold_back() {
        let heaviest = permits.iter().filter_map(|of| of.occupancy.heaviest());
        let most = heaviest.map(|(weight, _)| weight).max().unwrap_or_default();
        permits
            .iter()
            .for_each(|of| of.occupancy.weigh(most / LIGHT));
        let callers = permits.iter().map(|of| of.occupancy.requests_of_callers());
        budget.note_callers(callers.sum());
    }
    if budget.has_room_for_all() {
        let all = permits.iter();
        all.for_each(|of| of.occupancy.release_reserved());
    }
}

/// What is reserved is free again that was taken long ago, as far as what is in use leaves room
/// for the next that takes it.
fn release_older(budget: &Budget, permits: &[Permits]) {
    if budget.reserves_by_what_is_in_use() {
        let all = permits.iter();
        all.for_each(|of| of.occupancy.release_older_reserved());
    }
}

/// Returns when those are gone that were cut off, or when it takes too long.
async fn until_closed(permits: &[Permits], began: Instant) {
    while permits.iter().any(|of| of.occupancy.leaving() > 0) && began.elapsed() < LONGEST {
        sleep(POLL_EVERY).await;
    }
}

/// True when memory falls by itself.
async fn drains(budget: &Budget) -> bool {
    count(budget);
    let before = budget.used();
    sleep(DRAINS_WITHIN).await;
    count(budget);
    budget.used() + DRAINED < before
}

/// Cuts off the largest connections of the heaviest holder until so many bytes are in use as
/// `until` allows; returns how many.
fn shed(budget: &Budget, permits: &[Permits], until: Until) -> usize {
    let holdings = holdings(permits);
    let most = holdings.iter().map(|one| one.weight).max();
    let together: usize = holdings.iter().map(|one| one.weight).sum();
    let (used, percent) = (budget.used(), budget.heap() / 100);
    let worth = most.is_some_and(|most| most >= budget.heap() / SMALL)
        || together >= budget.heap() / QUARTER;
    if !worth && used <= budget.at(Watermark::LastResort) {
        return 0;
    }
    // What is known of a connection is less than what goes with it. So half of what there
    // is to be taken, and then it is looked at again.
    let half = |until: usize| {
        let excess = used.saturating_sub(until);
        excess.min(percent.max(excess / 2))
    };
    let goal = Goal {
        much: budget.heap() / HEAVY,
        of_much: half(until.of_much),
        of_any: half(until.of_any),
    };
    let losses = losses(holdings, goal);
    let shed = losses.iter().map(|loss| take(permits, loss)).sum();
    // One line, however many they are.
    if let Some(HolderLoss { holder, .. }) = losses.iter().max_by_key(|loss| loss.bytes) {
        let holders = losses.len();
        tracing::warn!(
            ?holder,
            holders,
            shed,
            "memory runs out: connections were cut off, most of them of this holder"
        );
    }
    shed
}

/// Cuts off what this one loses; gives how many.
fn take(permits: &[Permits], loss: &HolderLoss) -> usize {
    let of = &permits[loss.at];
    let shed = of.occupancy.shed(&loss.holder, loss.bytes);
    for _ in 0..shed {
        of.metrics.limit("memory");
    }
    shed
}

/// What all connections of these listeners have the process hold.
fn holdings(permits: &[Permits]) -> Vec<MemoryUse> {
    let of = |(at, of): (usize, &Permits)| {
        let weights = of.occupancy.weights();
        weights.into_iter().map(move |of| MemoryUse::new(at, of))
    };
    permits.iter().enumerate().flat_map(of).collect()
}

#[cfg(test)]
mod tests;
