//! Bounds of a replica that depend on its memory limit and its limit of open files.
//!
//! A bound that fits the default limit is too high for a smaller one, and then the kernel ends the
//! process instead of the bound rejecting one caller. So the bounds that decide over memory are
//! shares of the limit. A counter shows when one is reached.
//!
//! Claims: attack-63

/// The default limit of the chart, for which the shares were measured. It stands in
/// where there is no limit.
const DEFAULT_LIMIT: u64 = 512 * 1024 * 1024;
/// Percent of the limit for streams. The World, reports, what is remembered and the peak
/// while everything is listed at the start need the rest.
const STREAMS: u64 = 60;
/// Bytes of one proxy's connection with its stream: 120 KiB were measured.
const OF_A_STREAM: u64 = 128 * 1024;
/// No replica serves more, whatever its memory: its one thread would not keep up.
const MOST_STREAMS: u64 = 8192;
/// Open files that are kept for what is no proxy's connection: callers that have proven
/// nothing, the metrics API, the admin port, the API server, other replicas.
const OTHER_FILES: u64 = 1024;
/// Percent of the limit for what proxies report.
const REPORTS: u64 = 9;
/// Bytes of one edge of a report.
const OF_AN_EDGE: u64 = 160;
/// An answer reads all of them.
const MOST_EDGES: u64 = 1_200_000;
/// Percent of the limit for destinations that workloads used.
const RETAINED_SHARE: u64 = 8;
/// Bytes of one of them, in the two maps that hold it.
const OF_A_DESTINATION: u64 = 256;
/// Twice 10 000 workloads with a hundred destinations each.
const MOST_DESTINATIONS: u64 = 2_000_000;

/// The bounds of one replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Caps {
    /// Connections to the gRPC port.
    pub connections: usize,
    /// Edges of reports.
    pub report_edges: usize,
    /// Destinations that are remembered for all workloads together.
    pub destinations: usize,
}

impl Caps {
    /// The bounds for a memory limit in bytes and one of open files.
    pub fn of(memory: Option<u64>, files: Option<u64>) -> Self {
        let limit = memory.unwrap_or(DEFAULT_LIMIT);
        // Where there are few, half of them.
        let files = files.map_or(MOST_STREAMS, |files| files - OTHER_FILES.min(files / 2));
        let share = |percent: u64, of_one: u64, most: u64| {
            let room = limit / 100 * percent / of_one;
            usize::try_from(room.clamp(1, most)).unwrap_or(usize::MAX)
        };
        Self {
            connections: share(STREAMS, OF_A_STREAM, MOST_STREAMS.min(files).max(1)),
            report_edges: share(REPORTS, OF_AN_EDGE, MOST_EDGES),
            destinations: share(RETAINED_SHARE, OF_A_DESTINATION, MOST_DESTINATIONS),
        }
    }
}

impl Default for Caps {
    fn default() -> Self {
        Self::of(None, None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    // Claims: B8
    #[test]
    fn bounds_follow_the_memory_limit_and_fit_into_it() {
        for limit in [64, 128, 512, 1024, 4096] {
            let caps = Caps::of(Some(limit * MIB), None);
            let bytes = caps.connections as u64 * OF_A_STREAM
                + caps.report_edges as u64 * OF_AN_EDGE
                + caps.destinations as u64 * OF_A_DESTINATION;
            assert!(bytes <= limit * MIB / 100 * 77, "{limit} MiB: {caps:?}");
        }
        let (small, large) = (
            Caps::of(Some(128 * MIB), None),
            Caps::of(Some(1024 * MIB), None),
        );
        assert!(small.connections < large.connections);
        assert!(small.report_edges < large.report_edges);
        assert!(small.destinations < large.destinations);
    }

    // Claims: B8
    #[test]
    fn default_limit_serves_the_documented_size() {
        let caps = Caps::of(Some(512 * MIB), None);
        assert_eq!(caps, Caps::default(), "also where there is no limit");
        assert!(caps.connections >= 2000, "{caps:?}");
        assert!(caps.report_edges >= 300_000, "{caps:?}");
    }

    #[test]
    fn every_admitted_proxy_has_file_descriptor_for_connection() {
        let memory = Some(4096 * MIB);
        let connections = |files| Caps::of(memory, Some(files)).connections;
        assert_eq!(connections(1024), 512);
        assert_eq!(connections(4096), 3072);
        assert_eq!(connections(524_288), Caps::of(memory, None).connections);
        assert_eq!(connections(0), 1);
        let small = Some(64 * MIB);
        let by_memory = Caps::of(small, None);
        assert_eq!(Caps::of(small, Some(4096)), by_memory, "memory binds first");
    }
}
