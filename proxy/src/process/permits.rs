//! How many connections each listener serves, and how one of them is served.
//!
//! The pod's own calls, calls in plaintext and calls of peers never wait for each
//! other: whoever fills one listener leaves the other two as they are.

use std::future::Future;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime::cgroup::{ROOT, memory_limit};
use runtime::occupancy::{Bounds, Occupancy, Permit, Reached};

use crate::net::tuning::HEAD_WITHIN;
use crate::telemetry::metrics::Metrics;

/// Connections that one listener serves at once; more wait in the kernel's queue.
pub(crate) const MOST: usize = 10_000;
/// A small container has fewer permits, but never fewer than this.
const FEWEST: usize = 500;
/// Half a head costs about 7 KiB, a request in flight three times that; the three
/// listeners together must not need all that the container may have.
const BYTES_PER_PERMIT: u64 = 32 * 1024;

/// The permits of one listener, and whose metrics tell what they cost.
#[derive(Clone, Debug)]
pub struct Permits {
    pub occupancy: Arc<Occupancy>,
    pub metrics: Metrics,
}

/// Permits of one listener, in a container with this much memory that serves so
/// many workloads.
fn permits(memory: Option<u64>, workloads: usize) -> usize {
    let all = memory.and_then(|bytes| usize::try_from(bytes / BYTES_PER_PERMIT).ok());
    let permits = all.unwrap_or(MOST).min(MOST * workloads) / workloads.max(1);
    permits.clamp(FEWEST, MOST)
}

/// The permits of one listener, in a process that serves so many workloads. `full`
/// counts that all are taken.
#[must_use]
pub fn of_listener(
    metrics: &Metrics,
    full: fn(&Metrics),
    shared: bool,
    workloads: usize,
) -> Permits {
    let bounds = Bounds {
        permits: permits(memory_limit(Path::new(ROOT)), workloads),
        per_holder: usize::MAX,
        shared,
        head_within: HEAD_WITHIN,
        // Every server has a patience of its own.
        idle_within: Duration::MAX,
    };
    let counting = metrics.clone();
    let occupancy = Occupancy::new(bounds, move |reached| match reached {
        Reached::Full => full(&counting),
        Reached::Hoarder => counting.limit("hoarder"),
        Reached::SlowHead => counting.limit("slow-head"),
        Reached::NoMemory => counting.limit("memory-wait"),
    });
    Permits {
        occupancy,
        metrics: metrics.clone(),
    }
}

/// Serves a connection for as long as it may keep its permit.
pub async fn keep(permit: &Permit, conversation: impl Future<Output = ()>) {
    tokio::select! {
        () = conversation => {}
        () = permit.cut() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::{FEWEST, MOST, permits};

    #[test]
    fn a_small_container_has_places_by_its_memory_and_a_large_one_all_of_them() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(permits(None, 1), MOST);
        assert_eq!(permits(Some(1024 * MIB), 1), MOST);
        assert_eq!(permits(Some(64 * MIB), 1), 2048);
        assert_eq!(permits(Some(MIB), 1), FEWEST);
    }

    #[test]
    fn workloads_of_one_process_share_the_places_of_its_memory() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(permits(Some(64 * MIB), 2), 1024);
        assert_eq!(permits(None, 4), MOST / 4);
        assert_eq!(permits(Some(64 * MIB), 1000), FEWEST);
    }
}
