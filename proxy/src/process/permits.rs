//! The connection permits of each listener, and how one connection is served with a permit.
//!
//! The pod's own calls, calls in plaintext and calls of peers never wait for each other: a caller
//! that fills one listener leaves the other two as they are.
//!
//! Claims: attack-63

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use runtime::cgroup::{ROOT, memory_limit};
use runtime::occupancy::{Bounds, Occupancy, Reached};

use crate::net::prefixed::HEAD_WITHIN;
use crate::telemetry::metrics::Metrics;

/// Connections that one listener serves at once; more wait in the kernel's queue.
pub(crate) const MOST: usize = 10_000;
/// A small container has fewer permits, but never fewer than this.
const FEWEST: usize = 500;
/// Half a head costs about 7 KiB, a request in flight three times that; the three
/// listeners together must not need all that the container may have.
const BYTES_PER_PERMIT: u64 = 32 * 1024;
/// Open files that the process may have for each permit of one listener. A connection needs
/// two, its own and one towards where it goes, so the three listeners take six of eight. The
/// others are for what has no permit: what one connection of a peer opens to the application
/// for each of its streams, kept connections, the admin port and the controller.
const FILES_PER_PERMIT: u64 = 8;

/// The permits of one listener, and the metrics that count their use.
#[derive(Clone, Debug)]
pub struct Permits {
    pub occupancy: Arc<Occupancy>,
    pub metrics: Metrics,
}

/// Permits of one listener, in a process that serves so many workloads and may have so
/// much memory and so many open files; `None` without a limit.
fn permits(memory: Option<u64>, files: Option<u64>, workloads: usize) -> usize {
    by_memory(memory, workloads).min(by_files(files, workloads))
}

fn by_memory(memory: Option<u64>, workloads: usize) -> usize {
    let all = memory.and_then(|bytes| usize::try_from(bytes / BYTES_PER_PERMIT).ok());
    let permits = all.unwrap_or(MOST).min(MOST * workloads) / workloads.max(1);
    permits.clamp(FEWEST, MOST)
}

/// Has no floor as memory has: the file that is missing may be the one towards the
/// application, and then the permit is worth nothing.
fn by_files(files: Option<u64>, workloads: usize) -> usize {
    let all = files.and_then(|files| usize::try_from(files / FILES_PER_PERMIT).ok());
    all.map_or(MOST, |all| (all / workloads.max(1)).clamp(1, MOST))
}

/// Warns where fewer connections are served than there is memory for.
pub fn warn_of_few_files(workloads: usize) {
    let (memory, files) = (memory_limit(Path::new(ROOT)), runtime::files::limit());
    let served = permits(memory, files, workloads);
    let by_memory = by_memory(memory, workloads);
    if served < by_memory {
        let needed = FILES_PER_PERMIT * workloads as u64 * by_memory as u64;
        tracing::warn!(
            files,
            needed,
            served,
            by_memory,
            "the limit of open files (RLIMIT_NOFILE), not memory, bounds how many connections \
             each listener serves; raise the hard limit that the container runtime sets \
             (LimitNOFILE of its systemd unit) to what is needed"
        );
    }
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
    let (memory, files) = (memory_limit(Path::new(ROOT)), runtime::files::limit());
    of(metrics, full, shared, permits(memory, files, workloads))
}

/// So many of them.
pub(super) fn of(metrics: &Metrics, full: fn(&Metrics), shared: bool, permits: usize) -> Permits {
    let bounds = Bounds {
        permits,
        per_holder: usize::MAX,
        shared,
        head_within: HEAD_WITHIN,
        // Every server has a patience of its own.
        idle_within: Duration::MAX,
    };
    let counting = metrics.clone();
    let occupancy = Occupancy::new(bounds, move |reached| match reached {
        Reached::Full => full(&counting),
        Reached::Hoarder => counting.limit("largest-holder"),
        Reached::SlowHead => counting.limit("slow-head"),
        Reached::NoMemory { in_use: true } => counting.limit("memory-wait"),
        Reached::NoMemory { in_use: false } => counting.limit("memory-expected"),
        Reached::Flood => counting.limit("http2-flood"),
    });
    Permits {
        occupancy,
        metrics: metrics.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::{FEWEST, MOST, permits};

    #[test]
    fn permits_scale_with_container_memory_up_to_maximum() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(permits(None, None, 1), MOST);
        assert_eq!(permits(Some(1024 * MIB), None, 1), MOST);
        assert_eq!(permits(Some(64 * MIB), None, 1), 2048);
        assert_eq!(permits(Some(MIB), None, 1), FEWEST);
    }

    #[test]
    fn three_full_listeners_leave_quarter_of_files_free() {
        const MIB: u64 = 1024 * 1024;
        for (files, expected) in [(1024, 128), (4096, 512), (20_000, 2500)] {
            assert_eq!(permits(None, Some(files), 1), expected);
            assert!(files - 3 * 2 * expected as u64 >= files / 4);
        }
        // As containerd 2 leaves it, once the soft limit is the hard one.
        assert_eq!(permits(None, Some(524_288), 1), MOST);
        assert_eq!(permits(Some(64 * MIB), Some(20_000), 1), 2048);
        assert_eq!(permits(Some(64 * MIB), Some(1024), 1), 128);
        assert_eq!(permits(None, Some(20_000), 4), 625);
        assert_eq!(permits(None, Some(3), 2), 1);
    }

    #[test]
    fn workloads_of_one_process_share_memory_permits() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(permits(Some(64 * MIB), None, 2), 1024);
        assert_eq!(permits(None, None, 4), MOST / 4);
        assert_eq!(permits(Some(64 * MIB), None, 1000), FEWEST);
    }
}
