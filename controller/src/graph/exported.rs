//! The graph as Prometheus metrics, for tools that draw a service graph from them.
//!
//! Counters only grow, so an interval is counted once: when no more reports for it or the next one
//! are expected, in which the other end of a call may have counted. Only the Lease holder exports
//! them, since every replica knows all.
//!
//! Claims: observe-87

use std::sync::Arc;
use std::time::SystemTime;

use policy::latency::Histogram;

use super::follow::Graph;
use super::history;
use super::run_blocking;
use super::window::Counted;
use crate::metrics::GraphMetrics;
use crate::metrics::service_graph::{Calls, Pair, ReportingWorkload, ServiceGraphMetrics};
use crate::observe::reports::{INTERVAL, SETTLED, interval_of};

/// Intervals without calls after which a pair is forgotten: ten minutes, as in the proxies.
const IDLE: u64 = 600 / INTERVAL;

/// Intervals by which a clock goes back without being set.
const JITTER: u64 = 2;

/// Intervals back of which the graph still knows each call.
const OLDEST: u64 = history::FINE + history::FINE_HISTORY;

/// What is shown; goes with it.
struct ExportedPairs {
    pairs: ServiceGraphMetrics,
    metrics: GraphMetrics,
    /// The first interval that is not counted yet.
    next: u64,
}

/// Shows the graph as long as it runs.
pub(crate) async fn show(graph: Graph, pairs: ServiceGraphMetrics, metrics: GraphMetrics) {
    let mut shown = ExportedPairs::new(pairs, metrics, SystemTime::now());
    let mut looks = graph.looks();
    while looks.changed().await.is_ok() {
        let intervals = shown.due(SystemTime::now());
        let graph = graph.clone();
        let calls_of_intervals = run_blocking(move || calls_of_intervals(&graph, intervals)).await;
        shown.count(calls_of_intervals, intervals.1);
    }
}

/// Calls by pair and by the workload whose proxy reported them, of each interval.
type IntervalCalls = Vec<(u64, Vec<(Pair, ReportingWorkload, Calls)>)>;

/// What was reported of these intervals.
fn calls_of_intervals(graph: &Graph, (first, end): (u64, u64)) -> IntervalCalls {
    let of = |interval| {
        let calls_of_interval = graph.calls_of(interval).into_iter();
        let calls_of_interval = calls_of_interval.map(|(edge, counted)| {
            let key = edge.key();
            let pair = Pair::new(&key.from.to_string(), &key.to.to_string());
            let by = ReportingWorkload {
                namespace: Arc::clone(&edge.by().object.namespace),
                node: edge.by().to_string().into(),
            };
            (pair, by, calls(&counted))
        });
        let mut calls_of_interval: Vec<(Pair, ReportingWorkload, Calls)> =
            calls_of_interval.collect();
        // Those that come first may find the last places: always the same ones.
        calls_of_interval.sort_by(|one, other| (&one.0, &one.1).cmp(&(&other.0, &other.1)));
        (interval, calls_of_interval)
    };
    (first..end).map(of).collect()
}

/// The interval before which the reports of each interval and the one after it are complete.
fn reported_before(now: SystemTime) -> u64 {
    interval_of(now - SETTLED).saturating_sub(1)
}

impl ExportedPairs {
    fn new(pairs: ServiceGraphMetrics, metrics: GraphMetrics, now: SystemTime) -> Self {
        let next = reported_before(now);
        Self {
            pairs,
            metrics,
            next,
        }
    }

    /// The intervals to count. A clock that was set back shows intervals again that were counted: those
    /// from now on are new, and all pairs start anew: with intervals to come in them, they would not
    /// become idle, and would seem newer than those that come now. One that was set ahead has
    /// passed intervals in which nothing was.
    fn due(&mut self, now: SystemTime) -> (u64, u64) {
        let end = reported_before(now);
        if end + JITTER < self.next {
            self.next = interval_of(now);
            self.pairs.clear();
        }
        (self.next.max(end.saturating_sub(OLDEST)), end)
    }

    /// Counts what was reported of the intervals up to `end`, which are over.
    fn count(&mut self, calls_of_intervals: IntervalCalls, end: u64) {
        for (interval, calls_of_intervals) in calls_of_intervals {
            let mut left_out = 0;
            for (pair, by, calls) in calls_of_intervals {
                if !self.pairs.add(pair, &by, &calls, interval) {
                    left_out += calls.requests;
                }
            }
            self.metrics.dropped("exported", left_out);
        }
        self.next = self.next.max(end);
        self.pairs.forget_before(end.saturating_sub(IDLE));
    }
}

impl Drop for ExportedPairs {
    fn drop(&mut self) {
        self.pairs.clear();
    }
}

/// Times are the called side's, and its callers' where it has no proxy. Of edges that share what
/// the called side counted, which are of one pair, one carries the times of all.
fn calls(counted: &Counted) -> Calls {
    let sums = &counted.sums;
    let took = match (&counted.server, &counted.shared) {
        (Some(served), _) => served.histogram(),
        (None, Some(_)) => Histogram::default(),
        (None, None) => sums.histogram(),
    };
    Calls {
        requests: sums.requests(),
        failed: sums.failure.into(),
        took,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use parking_lot::RwLock;
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;
    use tokio::sync::watch;

    use super::*;
    use crate::observe::reports::Reports;
    use crate::testing::topology::{self, call, inventory, now, reports};

    fn graph(reports: &Reports) -> Graph {
        Graph::new(
            reports.clone(),
            Arc::new(RwLock::new(inventory())),
            watch::channel(None).1,
            Duration::from_secs(3600),
            GraphMetrics::default(),
        )
    }

    fn shown() -> ExportedPairs {
        let pairs = ServiceGraphMetrics::default();
        ExportedPairs::new(
            pairs,
            GraphMetrics::default(),
            now() - Duration::from_secs(60),
        )
    }

    fn page(pairs: &ServiceGraphMetrics) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(pairs.clone()));
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        page
    }

    fn total(page: &str, name: &str) -> u64 {
        let lines = page.lines().filter(|line| line.starts_with(name));
        lines
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok())
            .sum()
    }

    /// Counts the intervals that are over by now.
    fn count(shown: &mut ExportedPairs, graph: &Graph, now: SystemTime) {
        let intervals = shown.due(now);
        shown.count(calls_of_intervals(graph, intervals), intervals.1);
    }

    const REQUESTS: &str = "traces_service_graph_request_total{";
    const FAILED: &str = "traces_service_graph_request_failed_total{";

    #[tokio::test]
    async fn interval_is_counted_once_after_it_is_final() {
        let reports = reports();
        let (graph, mut shown) = (graph(&reports), shown());
        call(&reports, "shop/web", "shop/api", 5, 1);
        graph.look(now(), true).await;
        count(&mut shown, &graph, now());
        assert_eq!(page(&shown.pairs), "# EOF\n", "more may come");
        let later = now() + Duration::from_secs(20);
        for _ in 0..3 {
            graph.look(later, true).await;
            count(&mut shown, &graph, later);
            let page = page(&shown.pairs);
            let labels = "client=\"shop/Deployment/web\",server=\"shop/Deployment/api\"";
            assert!(page.contains(&format!("{REQUESTS}{labels}}} ")), "{page}");
            assert_eq!(
                (total(&page, REQUESTS), total(&page, FAILED)),
                (6, 1),
                "{page}"
            );
        }
        // A replica without the Lease shows nothing.
        let pairs = shown.pairs.clone();
        drop(shown);
        assert_eq!(page(&pairs), "# EOF\n");
    }

    #[test]
    fn clock_change_requests_few_intervals_and_none_twice() {
        let steady = reported_before(now());
        for (step, expected) in [
            (0, (steady - 12, steady)),
            (-3600, (interval_of(now()) - 720, steady - 720)),
            (
                3600 * 24 * 365,
                (steady + 6_307_200 - OLDEST, steady + 6_307_200),
            ),
        ] {
            let mut shown = shown();
            let set = topology::INTERVAL_NOW * INTERVAL + 2 * INTERVAL;
            let set = Duration::from_secs(set.saturating_add_signed(step));
            let due = shown.due(SystemTime::UNIX_EPOCH + set);
            assert_eq!(due, expected, "{step} s");
        }
    }

    #[test]
    fn clock_set_back_drops_later_pairs_jitter_drops_none() {
        let by = ReportingWorkload {
            namespace: "shop".into(),
            node: "shop/Deployment/web".into(),
        };
        let calls = Calls {
            requests: 1,
            ..Calls::default()
        };
        for (back, kept) in [(0, 1), (JITTER * INTERVAL, 1), (3600, 0)] {
            let mut shown = shown();
            let (_, end) = shown.due(now());
            let pair = Pair::new("shop/Deployment/web", "shop/Deployment/api");
            let counted = vec![(pair, by.clone(), calls.clone())];
            shown.count(vec![(end - 1, counted)], end);
            assert_eq!(shown.pairs.all().len(), 1);
            let set = now() - Duration::from_secs(back);
            shown.due(set);
            let pairs = shown.pairs.all();
            assert_eq!(pairs.len(), kept, "{back} s back");
            let started = pairs.iter().map(|one| one.since);
            assert!(started.max() <= Some(interval_of(set)), "{back} s back");
        }
    }

    #[tokio::test]
    async fn call_reported_in_neighbouring_intervals_counts_once() {
        let reports = reports();
        let (graph, mut shown) = (graph(&reports), shown());
        let served = vec![topology::seen_by_server("shop/web", 1, 0)];
        topology::report(&reports, "shop/api", served);
        let called = vec![topology::seen_by_client("shop/api", 1, 0)];
        topology::report_in(&reports, topology::INTERVAL_NOW + 1, "shop/web", called);
        let later = now() + Duration::from_secs(30);
        graph.look(later, true).await;
        count(&mut shown, &graph, later);
        let page = page(&shown.pairs);
        assert_eq!(total(&page, REQUESTS), 1, "{page}");
    }

    #[tokio::test]
    async fn latencies_shared_by_several_edges_are_counted_once() {
        let reports = reports();
        let graph = graph(&reports);
        let by = |port, good| wire::v1::Edge {
            port,
            ..topology::seen_by_client("shop/api", good, 0)
        };
        topology::report(&reports, "shop/web", vec![by(80, 3), by(81, 2)]);
        let served = vec![topology::seen_by_server("shop/web", 5, 0)];
        topology::report(&reports, "shop/api", served);
        graph.look(now() + Duration::from_secs(20), true).await;
        let intervals =
            calls_of_intervals(&graph, (topology::INTERVAL_NOW, topology::INTERVAL_NOW + 1));
        let counted = intervals.iter().flat_map(|(_, calls)| calls);
        let counted = counted.fold((0_u64, 0_u64), |sum, (_, _, calls)| {
            (sum.0 + calls.requests, sum.1 + calls.took.total())
        });
        assert_eq!(counted, (5, 5));
    }

    #[tokio::test]
    async fn pair_counts_against_workload_that_reported_it() {
        let reports = reports();
        let graph = graph(&reports);
        let served = vec![topology::seen_by_server("shop/web", 1, 0)];
        topology::report(&reports, "shop/api", served);
        let called = vec![topology::seen_by_client("shop/web", 1, 0)];
        topology::report(&reports, "bank/web", called);
        graph.look(now() + Duration::from_secs(20), true).await;
        let intervals =
            calls_of_intervals(&graph, (topology::INTERVAL_NOW, topology::INTERVAL_NOW + 1));
        let counted = intervals.iter().flat_map(|(_, calls)| calls);
        let counted: Vec<[&str; 3]> = counted
            .map(|(pair, by, _)| [&*pair.client, &*by.namespace, &*by.node])
            .collect();
        assert_eq!(
            counted,
            [
                ["bank/Deployment/web", "bank", "bank/Deployment/web"],
                ["shop/Deployment/web", "shop", "shop/Deployment/api"],
            ]
        );
    }
}
