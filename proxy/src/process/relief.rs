//! Takes connections from who holds most when memory runs out.
//!
//! The last resort: whoever is bounded elsewhere does not get here. While it is at work
//! nobody reads ([`Budget::poll_room`]), so nothing grows meanwhile. An identity, or an
//! address where none is proven, is one holder however many connections it has, so an
//! honest caller beside a flood is not the heaviest.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime::cgroup::{ROOT, socket_memory};
use tokio::time::{Instant, sleep, timeout};

use crate::net::budget::{Budget, WORTH};
use crate::process::heap;
use crate::process::permits::Permits;

/// What the program holds is counted anew so often: other threads allocate as well.
const COUNT_EVERY: Duration = Duration::from_millis(250);
/// What was cut off is looked for so often.
const GOING: Duration = Duration::from_millis(1);
/// Nobody is cut off while memory falls by `DRAINED` bytes in such a time, for a while:
/// slow readers take what is held for them, and nothing comes meanwhile.
const DRAINS_WITHIN: Duration = Duration::from_millis(5);
const DRAINED: usize = 32 * 1024;
const DRAINS_FOR: Duration = Duration::from_millis(20);
/// Nobody waits longer than this, whatever is still held.
const LONGEST: Duration = Duration::from_millis(60);
/// Where that did not suffice, everybody reads for so long before it is tried again.
const SPARED: Duration = Duration::from_millis(5);
/// Part of the memory that all must hold together for somebody to lose anything who holds
/// less than [`WORTH`]: where configuration fills it, taking connections does not help.
const WORTH_TOGETHER: usize = 4;
/// In percent of the memory: beyond it somebody loses something however little is known
/// of what it holds, since the alternative is that the process is killed with all.
const LAST: usize = 85;
/// Who holds less than this part of what the holder of most does does not wait for it.
const LIGHT: usize = 4;
/// In percent of the memory: so far down that one makes room for whom it keeps waiting,
/// which is clearly below where anybody waits.
const RELAXED: usize = 50;

/// Makes room whenever there is none, and lets those look again that wait for some, for
/// ever. `permits` are those of all listeners of the process; a connection counts in the
/// metrics of the workload that loses it.
pub async fn relieve(budget: Arc<Budget>, permits: Vec<Permits>) {
    let mut settled = Instant::now();
    loop {
        let full = timeout(COUNT_EVERY, budget.filled()).await.is_ok();
        if settled.elapsed() >= COUNT_EVERY {
            settled = Instant::now();
            count(&budget);
            weigh(&budget, &permits);
            budget.settle();
            if !full && budget.is_pressed() {
                let down_to = budget.heap() / 100 * RELAXED;
                shed(&budget, &permits, down_to);
                gone(&permits, Instant::now()).await;
                count(&budget);
                budget.look_again();
            }
        }
        if !full {
            continue;
        }
        let began = Instant::now();
        let spent = || began.elapsed() >= LONGEST;
        while budget.is_full() && !spent() {
            // What is on its way out needs no connection to end.
            if began.elapsed() < DRAINS_FOR && drains(&budget).await {
                continue;
            }
            if shed(&budget, &permits, budget.tight_from()) == 0 {
                break;
            }
            gone(&permits, began).await;
            count(&budget);
        }
        let full = budget.is_full();
        budget.reopen(full);
        if full {
            sleep(SPARED).await;
            budget.reopen(false);
        }
    }
}

/// Counts anew what is held for the program, by itself and by the kernel.
fn count(budget: &Budget) {
    heap::count();
    // Some ten microseconds, so not before every read.
    if let Some(bytes) = socket_memory(Path::new(ROOT)) {
        budget.note_sockets(usize::try_from(bytes).unwrap_or(usize::MAX));
    }
}

/// Notes who holds much less than the holder of most, where anybody may wait.
fn weigh(budget: &Budget, permits: &[Permits]) {
    if budget.holds_anybody_back() {
        let heaviest = permits.iter().filter_map(|of| of.places.heaviest());
        let most = heaviest.map(|(weight, _)| weight).max().unwrap_or_default();
        permits.iter().for_each(|of| of.places.weigh(most / LIGHT));
        let callers = permits.iter().map(|of| of.places.requests_of_callers());
        budget.note_callers(callers.sum());
    }
}

/// Returns when those are gone that were cut off, or when it takes too long.
async fn gone(permits: &[Permits], began: Instant) {
    while permits.iter().any(|of| of.places.leaving() > 0) && began.elapsed() < LONGEST {
        sleep(GOING).await;
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

/// Cuts off the largest connections of the heaviest holder of all listeners until so many
/// bytes are in use; gives how many.
fn shed(budget: &Budget, permits: &[Permits], down_to: usize) -> usize {
    let heaviest = permits
        .iter()
        .filter_map(|of| Some((of.places.heaviest()?, of)))
        .max_by_key(|((weight, _), _)| *weight);
    let Some(((weight, holder), of)) = heaviest else {
        return 0;
    };
    let together = || permits.iter().map(|of| of.places.weight()).sum::<usize>();
    let last = budget.used() > budget.heap() / 100 * LAST;
    if !last && weight < budget.heap() / WORTH && together() < budget.heap() / WORTH_TOGETHER {
        return 0;
    }
    let excess = budget.used().saturating_sub(down_to);
    let shed = of.places.shed(&holder, excess);
    for _ in 0..shed {
        of.metrics.limit("memory");
    }
    tracing::warn!(?holder, shed, "memory runs out: connections were cut off");
    shed
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::future::poll_fn;
    use std::net::IpAddr;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
    use std::time::Duration;

    use futures::FutureExt as _;
    use prometheus_client::registry::Registry;
    use runtime::occupancy::{Occupancy, Place};
    use tokio::time::{sleep, timeout};

    use super::{LONGEST, relieve};
    use crate::net::admission::Line;
    use crate::net::budget::Budget;
    use crate::net::turn::WAIT;
    use crate::process::permits;
    use crate::telemetry::metrics::Metrics;

    const MIB: usize = 1024 * 1024;
    const LIMIT: usize = 64 * MIB;

    thread_local! {
        static USED: Cell<usize> = const { Cell::new(0) };
    }

    fn hold(bytes: usize) -> impl Drop {
        struct Bytes(usize);
        impl Drop for Bytes {
            fn drop(&mut self) {
                USED.set(USED.get() - self.0);
            }
        }
        USED.set(USED.get() + bytes);
        Bytes(bytes)
    }

    /// A connection in use, with an answer of so many bytes that nobody takes.
    fn enter(places: &Arc<Occupancy>, last: u8, bytes: usize) -> tokio::task::JoinHandle<()> {
        let from = IpAddr::from([10, 0, 0, last]).into();
        let place: Arc<Place> = places.try_admit(&from).unwrap().unwrap();
        place.busy();
        let held = (place.hold(bytes), hold(bytes));
        tokio::spawn(async move {
            let conversation = async {
                let _held = held;
                std::future::pending().await
            };
            permits::keep(&place, conversation).await;
        })
    }

    fn setting() -> (Arc<Budget>, Arc<Occupancy>, Metrics) {
        let metrics = Metrics::register(&mut Registry::default());
        let permits = permits::of_listener(&metrics, |_| {}, true, 1);
        let budget = Budget::measured(LIMIT, LIMIT, || USED.get());
        tokio::spawn(relieve(Arc::clone(&budget), vec![permits.clone()]));
        (budget, permits.places, metrics)
    }

    fn count(metrics: &Metrics) -> u64 {
        let limit = crate::telemetry::labels::LimitLabels { limit: "memory" };
        metrics.limits.at(&limit).get()
    }

    #[tokio::test(start_paused = true)]
    async fn a_flood_costs_the_flooder_and_nobody_beside_it() {
        let (budget, places, metrics) = setting();
        let honest = enter(&places, 1, MIB);
        let flood: Vec<_> = (0..44).map(|_| enter(&places, 2, MIB)).collect();
        assert!(budget.is_full());
        poll_fn(|cx| budget.poll_room(cx)).await;
        assert!(!budget.is_full());
        let lost = flood.iter().filter(|task| task.is_finished()).count();
        assert!((9..=11).contains(&lost), "{lost} of {}", flood.len());
        assert_eq!(count(&metrics), lost as u64);
        assert!(!honest.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn what_memory_costs_counts_in_the_workload_that_loses_it() {
        let workloads = [(); 2].map(|()| {
            let metrics = Metrics::register(&mut Registry::default());
            permits::of_listener(&metrics, |_| {}, true, 2)
        });
        let budget = Budget::measured(64 * MIB, 64 * MIB, || USED.get());
        tokio::spawn(relieve(Arc::clone(&budget), workloads.to_vec()));
        let [beside, flooded] = &workloads;
        // The same holder, and less of it: what one workload's caller holds at another is
        // not taken for what this one suffers.
        let honest = enter(&beside.places, 2, MIB);
        let flood: Vec<_> = (0..44).map(|_| enter(&flooded.places, 2, MIB)).collect();
        poll_fn(|cx| budget.poll_room(cx)).await;
        let lost = flood.iter().filter(|task| task.is_finished()).count();
        assert!(lost > 0 && !honest.is_finished(), "{lost}");
        assert_eq!(count(&flooded.metrics), lost as u64);
        assert_eq!(count(&beside.metrics), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_hold_little_each_lose_some_when_together_they_fill_the_memory() {
        let (budget, places, metrics) = setting();
        let all: Vec<_> = (0..48).map(|at| enter(&places, at, MIB)).collect();
        poll_fn(|cx| budget.poll_room(cx)).await;
        assert!(!budget.is_full());
        let lost = all.iter().filter(|task| task.is_finished()).count();
        assert_eq!(count(&metrics), lost as u64);
        assert!((6..=9).contains(&lost), "{lost}");
    }

    #[tokio::test(start_paused = true)]
    async fn before_the_process_is_killed_the_heaviest_goes_however_little_is_known_of_it() {
        let (budget, places, metrics) = setting();
        let known = enter(&places, 1, 1);
        let heavier = enter(&places, 2, 1000);
        let _unknown = hold(56 * MIB);
        poll_fn(|cx| budget.poll_room(cx)).await;
        assert!(heavier.is_finished());
        assert_eq!(count(&metrics), 2, "and then the other");
        assert!(known.is_finished());
    }

    #[tokio::test(start_paused = true)]
    async fn where_connections_hold_little_none_is_cut_off_and_reading_goes_on() {
        let (budget, places, metrics) = setting();
        let caller = enter(&places, 1, MIB);
        let _configuration = hold(50 * MIB);
        for _ in 0..20 {
            let room = poll_fn(|cx| budget.poll_room(cx));
            timeout(LONGEST, room).await.unwrap();
            sleep(Duration::from_millis(3)).await;
        }
        assert!(!caller.is_finished());
        assert_eq!(count(&metrics), 0);
    }

    /// Begins so many requests of one caller that take long; says how many of them were let
    /// in and not cut off.
    async fn long_requests(budget: &Arc<Budget>, places: &Arc<Occupancy>, many: usize) -> usize {
        let begun = Arc::<AtomicUsize>::default();
        for _ in 0..many {
            let from = IpAddr::from([10, 0, 0, 2]).into();
            let place: Arc<Place> = places.try_admit(&from).unwrap().unwrap();
            place.busy();
            let (budget, begun) = (Arc::clone(budget), Arc::clone(&begun));
            tokio::spawn(async move {
                if let Err(turn) = budget.admit(&place, Line::Callers)
                    && !turn.comes().await
                {
                    return;
                }
                let _held = (place.hold(16 * 1024), hold(40 * 1024));
                let _in_flight = place.begin_request();
                begun.fetch_add(1, Relaxed);
                permits::keep(&place, sleep(Duration::from_secs(25))).await;
                begun.fetch_sub(usize::from(place.cut().now_or_never().is_some()), Relaxed);
            });
        }
        sleep(WAIT).await;
        begun.load(Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn who_fills_the_memory_and_asks_for_nothing_does_not_make_others_wait() {
        for filled in [56, 58, 60, 62, 64] {
            let (budget, places, metrics) = setting();
            let stranger = (0..filled).map(|_| enter(&places, 1, LIMIT / 100));
            let stranger: Vec<_> = stranger.collect();
            let begun = long_requests(&budget, &places, 200).await;
            let lost = stranger.iter().filter(|task| task.is_finished()).count();
            println!("{filled} %: {begun} of 200, the stranger lost {lost}");
            assert_eq!(begun, 200, "{filled} %");
            assert_eq!(count(&metrics), lost as u64);
            assert!(lost > 0);
            stranger.iter().for_each(tokio::task::JoinHandle::abort);
            sleep(Duration::from_secs(60)).await;
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_its_own_requests_takes_nothing_from_anybody() {
        let (budget, places, metrics) = setting();
        let other = enter(&places, 1, MIB);
        let _configuration = hold(34 * MIB);
        let begun = long_requests(&budget, &places, 200).await;
        assert!((64..200).contains(&begun), "{begun}");
        assert_eq!(count(&metrics), 0);
        assert!(!other.is_finished());
    }
}
