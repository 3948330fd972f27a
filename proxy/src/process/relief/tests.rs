//! Which holders lose something when memory runs out, and which do not.

use std::cell::Cell;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use runtime::occupancy::{Occupancy, Permit};
use tokio::time::{sleep, timeout};

use super::{LONGEST, relieve};
use crate::net::budget::Budget;
use crate::process::permits;
use crate::telemetry::metrics::Metrics;

mod waiting;

const MIB: usize = 1024 * 1024;
const LIMIT: usize = 64 * MIB;

thread_local! {
    static USED: Cell<usize> = const { Cell::new(0) };
    static PEAK: Cell<usize> = const { Cell::new(0) };
}

fn hold(bytes: usize) -> impl Drop {
    struct Bytes(usize);
    impl Drop for Bytes {
        fn drop(&mut self) {
            USED.set(USED.get() - self.0);
        }
    }
    USED.set(USED.get() + bytes);
    PEAK.set(PEAK.get().max(USED.get()));
    Bytes(bytes)
}

/// A connection in use, with an answer of so many bytes that its client does not read.
fn enter(occupancy: &Arc<Occupancy>, last: u8, bytes: usize) -> tokio::task::JoinHandle<()> {
    let from = IpAddr::from([10, 0, 0, last]).into();
    let permit: Arc<Permit> = occupancy.try_admit(&from).unwrap().unwrap();
    permit.busy();
    let reserved = (permit.reserve_bytes(bytes), hold(bytes));
    tokio::spawn(async move {
        let serving = async {
            let _held = reserved;
            std::future::pending().await
        };
        permit.keep(serving).await;
    })
}

fn setting() -> (Arc<Budget>, Arc<Occupancy>, Metrics) {
    let metrics = Metrics::register(&mut Registry::default());
    let permits = permits::of(&metrics, |_| {}, true, permits::MOST);
    let budget = Budget::measured(LIMIT, LIMIT, || USED.get());
    tokio::spawn(relieve(Arc::clone(&budget), vec![permits.clone()]));
    (budget, permits.occupancy, metrics)
}

fn count(metrics: &Metrics) -> u64 {
    let limit = crate::telemetry::labels::LimitLabels { limit: "memory" };
    metrics.limits.at(&limit).get()
}

#[tokio::test(start_paused = true)]
async fn flood_costs_only_the_flooder() {
    let (budget, occupancy, metrics) = setting();
    let honest = enter(&occupancy, 1, MIB);
    let flood: Vec<_> = (0..44).map(|_| enter(&occupancy, 2, MIB)).collect();
    assert!(budget.is_full());
    poll_fn(|cx| budget.poll_room(cx)).await;
    assert!(!budget.is_full());
    let lost = flood.iter().filter(|task| task.is_finished()).count();
    assert!((9..=11).contains(&lost), "{lost} of {}", flood.len());
    assert_eq!(count(&metrics), lost as u64);
    assert!(!honest.is_finished());
}

#[tokio::test(start_paused = true)]
async fn relief_loss_counts_in_workload_that_suffers_it() {
    let workloads = [(); 2].map(|()| {
        let metrics = Metrics::register(&mut Registry::default());
        permits::of(&metrics, |_| {}, true, permits::MOST / 2)
    });
    let budget = Budget::measured(64 * MIB, 64 * MIB, || USED.get());
    tokio::spawn(relieve(Arc::clone(&budget), workloads.to_vec()));
    let [beside, flooded] = &workloads;
    // The same holder, and less of it: what one workload's caller holds at another is
    // not taken for what this one suffers.
    let honest = enter(&beside.occupancy, 2, MIB);
    let flood: Vec<_> = (0..44).map(|_| enter(&flooded.occupancy, 2, MIB)).collect();
    poll_fn(|cx| budget.poll_room(cx)).await;
    let lost = flood.iter().filter(|task| task.is_finished()).count();
    assert!(lost > 0 && !honest.is_finished(), "{lost}");
    assert_eq!(count(&flooded.metrics), lost as u64);
    assert_eq!(count(&beside.metrics), 0);
}

#[tokio::test(start_paused = true)]
async fn many_light_holders_share_loss_when_memory_fills() {
    let (budget, occupancy, metrics) = setting();
    let all: Vec<_> = (0..48).map(|at| enter(&occupancy, at, MIB)).collect();
    poll_fn(|cx| budget.poll_room(cx)).await;
    assert!(!budget.is_full());
    let lost = all.iter().filter(|task| task.is_finished()).count();
    assert_eq!(count(&metrics), lost as u64);
    assert!((6..=9).contains(&lost), "{lost}");
}

#[tokio::test(start_paused = true)]
async fn heaviest_known_connection_closes_before_process_is_killed() {
    let (budget, occupancy, metrics) = setting();
    let known = enter(&occupancy, 1, 1);
    let heavier = enter(&occupancy, 2, 1000);
    let _unknown = hold(56 * MIB);
    poll_fn(|cx| budget.poll_room(cx)).await;
    assert!(heavier.is_finished());
    assert_eq!(count(&metrics), 2, "and then the other");
    assert!(known.is_finished());
}

#[tokio::test(start_paused = true)]
async fn light_connections_survive_memory_pressure_and_reading_continues() {
    let (budget, occupancy, metrics) = setting();
    let caller = enter(&occupancy, 1, MIB);
    let _configuration = hold(50 * MIB);
    for _ in 0..20 {
        let room = poll_fn(|cx| budget.poll_room(cx));
        timeout(LONGEST, room).await.unwrap();
        sleep(Duration::from_millis(3)).await;
    }
    assert!(!caller.is_finished());
    assert_eq!(count(&metrics), 0);
}

/// A holder of somewhat more than another one does not pay for all of it.
// Claims: attack-46
#[tokio::test(start_paused = true)]
async fn two_heavy_holders_are_reduced_to_same_level() {
    let (budget, occupancy, _) = setting();
    let of = |last, many| -> Vec<_> { (0..many).map(|_| enter(&occupancy, last, MIB)).collect() };
    let (most, next, honest) = (of(1, 22), of(2, 20), of(3, 4));
    poll_fn(|cx| budget.poll_room(cx)).await;
    let left =
        |all: &[tokio::task::JoinHandle<()>]| all.iter().filter(|task| !task.is_finished()).count();
    let (most, next) = (left(&most), left(&next));
    assert!(most.abs_diff(next) <= 1, "{most} and {next}");
    assert!((15..=16).contains(&next), "{next}");
    assert_eq!(left(&honest), 4);
}
