//! The service graph as metrics, by the names under which Grafana and other tools look for
//! one: how often clients called servers, how often that failed, and how long it took there.
//!
//! May import nothing else of this crate.
//!
//! Claims: observe-87, observe-88

mod shares;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::latency::{BOUNDS, Histogram};
use policy::terminal::acts_upon;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

pub(crate) use self::shares::ReportingWorkload;
use self::shares::Shares;

/// Pairs that are shown. Each is 29 lines of the page, so that all are about 4 MiB, and with
/// the longest labels some 25 MiB.
const PAIRS: usize = 1000;
/// Bytes of a label: more than namespace, kind and name of an object have together.
const LABEL: usize = 384;

/// Caller and called, as nodes of the graph.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, EncodeLabelSet)]
pub struct Pair {
    /// Id of the node that calls.
    pub client: Arc<str>,
    /// Id of the node that is called.
    pub server: Arc<str>,
}

impl Pair {
    /// Of two ids, as labels hold them: cut after 384 bytes, and `?` for each character that
    /// whatever shows them might act upon.
    pub(crate) fn new(client: &str, server: &str) -> Self {
        Self {
            client: label(client),
            server: label(server),
        }
    }
}

fn label(text: &str) -> Arc<str> {
    let letters = text[..text.floor_char_boundary(LABEL)].chars();
    let label: String = letters
        .map(|letter| if acts_upon(letter) { '?' } else { letter })
        .collect();
    label.into()
}

/// What was counted of a pair.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// All calls.
    pub requests: u64,
    /// Those that failed.
    pub failed: u64,
    /// HTTP requests by the time that they took.
    pub took: Histogram,
}

impl Calls {
    /// Seconds that the requests took in all. Proxies report how many ended in which bucket
    /// and no times, so the middle of the bucket stands for the time.
    #[expect(
        clippy::cast_precision_loss,
        reason = "2^52 requests are more than a mesh sees"
    )]
    pub(crate) fn seconds(&self) -> f64 {
        let last = BOUNDS.len() - 1;
        let bounds = self.took.counts().iter().enumerate().map(|(at, count)| {
            let lower = at.checked_sub(1).map_or(0.0, |below| BOUNDS[below]);
            let upper = BOUNDS[at.min(last)];
            f64::midpoint(lower, upper) * *count as f64
        });
        bounds.sum()
    }
}

/// What was counted of a pair since it is shown.
#[derive(Clone, Debug)]
pub(crate) struct PairCalls {
    /// Caller and called.
    pub pair: Pair,
    /// How often.
    pub calls: Calls,
    /// Interval of the first call.
    pub since: u64,
}

#[derive(Debug)]
struct PairTotals {
    calls: Calls,
    /// Whose place it takes.
    by: ReportingWorkload,
    /// Intervals of the first and of the last call.
    first: u64,
    last: u64,
}

/// The pairs, and whose they are.
#[derive(Debug, Default)]
struct Pairs {
    totals: HashMap<Pair, PairTotals>,
    shares: Shares,
}

impl Pairs {
    /// Whether there is a place for one more pair of this workload, which another one may have
    /// to give up. That is its newest, so that what stands on a board stays there.
    fn make_room(&mut self, by: &ReportingWorkload) -> bool {
        if self.totals.len() < PAIRS {
            return true;
        }
        let Some(loser) = self.shares.loser(by) else {
            return false;
        };
        let lost = self.totals.iter().filter(|(_, one)| one.by == loser);
        let lost = lost.max_by_key(|(pair, one)| (one.first, *pair));
        let Some(pair) = lost.map(|(pair, _)| pair.clone()) else {
            return false;
        };
        self.totals.remove(&pair);
        self.shares.give_back(&loser);
        true
    }
}

/// The pairs that are shown; none unless a caller adds them. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ServiceGraphMetrics {
    pairs: Arc<Mutex<Pairs>>,
}

impl ServiceGraphMetrics {
    /// Adds the calls of an interval, which `by` reported, and returns whether there was room for
    /// them. Where all places are taken, a namespace that has more than others loses one, and
    /// within it the workload that has most.
    pub fn add(&self, pair: Pair, by: &ReportingWorkload, calls: &Calls, interval: u64) -> bool {
        let mut pairs = self.pairs.lock();
        if !pairs.totals.contains_key(&pair) {
            if !pairs.make_room(by) {
                return false;
            }
            pairs.shares.take(by);
        }
        let totals = pairs.totals.entry(pair).or_insert_with(|| PairTotals {
            calls: Calls::default(),
            by: by.clone(),
            first: interval,
            last: interval,
        });
        totals.calls.requests += calls.requests;
        totals.calls.failed += calls.failed;
        totals.calls.took.add(calls.took.counts().iter().copied());
        totals.last = totals.last.max(interval);
        true
    }

    /// All pairs that are shown.
    pub(crate) fn all(&self) -> Vec<PairCalls> {
        let pairs = self.pairs.lock();
        let all = pairs.totals.iter().map(|(pair, totals)| PairCalls {
            pair: pair.clone(),
            calls: totals.calls.clone(),
            since: totals.first,
        });
        all.collect()
    }

    /// Forgets pairs without a call since this interval. One that comes back begins at zero,
    /// which every consumer of counters understands.
    pub(crate) fn forget_before(&self, interval: u64) {
        let mut pairs = self.pairs.lock();
        let Pairs { totals, shares } = &mut *pairs;
        totals.retain(|_, one| {
            let is_kept = one.last >= interval;
            if !is_kept {
                shares.give_back(&one.by);
            }
            is_kept
        });
    }

    /// Forgets all.
    pub fn clear(&self) {
        *self.pairs.lock() = Pairs::default();
    }
}

fn buckets(took: &Histogram) -> Vec<(f64, u64)> {
    let mut counts = took.counts().iter().copied();
    let bounds = BOUNDS.into_iter().chain([f64::INFINITY]);
    bounds
        .map(|bound| (bound, counts.next().unwrap_or(0)))
        .collect()
}

/// What of the calls between two parties a family counts.
type Count = fn(&Calls) -> u64;

impl Collector for ServiceGraphMetrics {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let pairs = self.pairs.lock();
        let pairs = &pairs.totals;
        if pairs.is_empty() {
            return Ok(());
        }
        let counters: [(_, _, Count); 2] = [
            (
                "traces_service_graph_request",
                "Calls of a client to a server",
                |calls| calls.requests,
            ),
            (
                "traces_service_graph_request_failed",
                "Calls of a client to a server that failed",
                |calls| calls.failed,
            ),
        ];
        for (name, help, count) in counters {
            let mut family = encoder.encode_descriptor(name, help, None, MetricType::Counter)?;
            for (pair, totals) in pairs.iter() {
                ConstCounter::new(count(&totals.calls)).encode(family.encode_family(pair)?)?;
            }
        }
        let unit = Unit::Seconds;
        let mut family = encoder.encode_descriptor(
            "traces_service_graph_request_server",
            "Time that requests took at the server",
            Some(&unit),
            MetricType::Histogram,
        )?;
        for (pair, totals) in pairs.iter() {
            let took = &totals.calls.took;
            let mut series = family.encode_family(pair)?;
            let (sum, count) = (totals.calls.seconds(), took.total());
            series.encode_histogram::<NoLabelSet>(sum, count, &buckets(took), None)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

    fn page(metrics: &ServiceGraphMetrics) -> String {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(metrics.clone()));
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        page
    }

    fn pair(client: &str) -> Pair {
        Pair {
            client: client.into(),
            server: "shop/Deployment/cart".into(),
        }
    }

    fn by(namespace: &str, name: &str) -> ReportingWorkload {
        ReportingWorkload {
            namespace: namespace.into(),
            node: format!("{namespace}/Deployment/{name}").into(),
        }
    }

    /// Adds a call from each of these callers; how many had no room.
    fn left_out(
        metrics: &ServiceGraphMetrics,
        by: &ReportingWorkload,
        callers: std::ops::Range<usize>,
        interval: u64,
    ) -> usize {
        let left_out = callers.filter(|number| {
            let client = format!("{}/{number:04}", by.node);
            !metrics.add(pair(&client), by, &calls(1, 0), interval)
        });
        left_out.count()
    }

    /// Callers that are shown.
    fn clients(metrics: &ServiceGraphMetrics) -> BTreeSet<String> {
        let all = metrics.all().into_iter();
        all.map(|one| one.pair.client.to_string()).collect()
    }

    fn calls(requests: u64, failed: u64) -> Calls {
        let mut took = Histogram::default();
        (0..requests).for_each(|_| took.observe(0.001));
        Calls {
            requests,
            failed,
            took,
        }
    }

    #[test]
    fn service_graph_pair_uses_standard_metric_names_and_accumulates() {
        let metrics = ServiceGraphMetrics::default();
        assert_eq!(page(&metrics), "# EOF\n");
        for interval in [7, 8] {
            let by = by("shop", "web");
            assert!(metrics.add(pair("shop/Deployment/web"), &by, &calls(2, 1), interval));
        }
        let page = page(&metrics);
        let labels = "client=\"shop/Deployment/web\",server=\"shop/Deployment/cart\"";
        for line in [
            format!("traces_service_graph_request_total{{{labels}}} 4"),
            format!("traces_service_graph_request_failed_total{{{labels}}} 2"),
            format!("traces_service_graph_request_server_seconds_count{{{labels}}} 4"),
            format!(
                "traces_service_graph_request_server_seconds_bucket{{le=\"0.0008\",{labels}}} 0"
            ),
            format!(
                "traces_service_graph_request_server_seconds_bucket{{le=\"0.0013\",{labels}}} 4"
            ),
        ] {
            assert!(page.contains(&line), "{line} is not in\n{page}");
        }
        let sum = page
            .lines()
            .find(|line| line.contains("_seconds_sum{"))
            .unwrap();
        let sum: f64 = sum.rsplit(' ').next().unwrap().parse().unwrap();
        assert!(
            (sum - 4.0 * 0.00105).abs() < 1e-9,
            "0.8 ms to 1.3 ms: {sum}"
        );
    }

    #[test]
    fn idle_pairs_are_removed_and_all_are_bounded() {
        let (metrics, by) = (ServiceGraphMetrics::default(), by("shop", "web"));
        for number in 0..PAIRS {
            assert!(metrics.add(pair(&number.to_string()), &by, &calls(1, 0), 7));
        }
        assert!(!metrics.add(pair("one more"), &by, &calls(1, 0), 8));
        assert!(metrics.add(pair("7"), &by, &calls(1, 0), 8), "a known one");
        let full = page(&metrics);
        assert!(full.len() < 6 * 1024 * 1024, "{}", full.len());
        metrics.forget_before(8);
        assert!(metrics.add(pair("one more"), &by, &calls(1, 0), 8));
        let shown = page(&metrics);
        assert_eq!(shown.matches("_request_total{").count(), 2, "{shown}");
        metrics.clear();
        assert_eq!(page(&metrics), "# EOF\n");
    }

    #[test]
    fn overfull_namespace_loses_newest_service_graph_pairs_first() {
        let metrics = ServiceGraphMetrics::default();
        let (flooding, honest) = (by("flood", "web"), by("shop", "web"));
        assert_eq!(left_out(&metrics, &flooding, 0..PAIRS, 7), 0);
        let before = clients(&metrics);
        assert_eq!(left_out(&metrics, &honest, 0..100, 8), 0);
        // Names alone decide among those of one interval.
        let mut expected: BTreeSet<String> = before.into_iter().take(PAIRS - 100).collect();
        expected.extend((0..100).map(|number| format!("{}/{number:04}", honest.node)));
        assert_eq!(clients(&metrics), expected);
        // What goes on calling and what is made up anew change nothing of that.
        for interval in 9..12 {
            assert_eq!(
                left_out(&metrics, &flooding, 0..2 * PAIRS, interval),
                PAIRS + 100
            );
            assert_eq!(left_out(&metrics, &honest, 0..100, interval), 0);
            assert_eq!(clients(&metrics), expected);
        }
        // No workload takes more than the others have.
        assert_eq!(left_out(&metrics, &honest, 0..PAIRS, 12), PAIRS / 2);
        assert_eq!(left_out(&metrics, &flooding, 0..PAIRS, 12), PAIRS / 2);
    }

    #[test]
    fn largest_workload_in_namespace_loses_service_graph_pairs() {
        let metrics = ServiceGraphMetrics::default();
        let (flooding, honest) = (by("shop", "web"), by("shop", "cart"));
        assert_eq!(left_out(&metrics, &flooding, 0..PAIRS, 7), 0);
        assert_eq!(left_out(&metrics, &honest, 0..10, 8), 0);
        assert_eq!(left_out(&metrics, &flooding, 0..PAIRS, 9), 10);
        // Free places are taken by the next pairs.
        metrics.forget_before(9);
        assert_eq!(left_out(&metrics, &flooding, 0..PAIRS, 9), 0);
    }

    #[test]
    fn service_graph_labels_are_bounded_and_sanitized() {
        let ordinary = "shop/Deployment/web";
        let pair = Pair::new(ordinary, "external/caf\u{e9}.example.com:443");
        assert_eq!(&*pair.client, ordinary);
        assert_eq!(&*pair.server, "external/caf\u{e9}.example.com:443");
        let acting = "a\u{1b}[2J\r\n\u{9b}b\u{85}\u{2028}\u{202e}c\u{2066}\u{e0041}";
        assert_eq!(&*Pair::new(acting, "").client, "a?[2J???b???c??");
        let long = format!("a{}", "\u{e9}".repeat(LABEL));
        let cut = Pair::new(&long, "").client;
        assert_eq!(cut.len(), LABEL - 1, "no character is cut in two");
        assert!(long.starts_with(&*cut));

        let metrics = ServiceGraphMetrics::default();
        let evil = Pair::new("a\"} 1\nb{c=\"", "d\\");
        assert!(metrics.add(evil, &by("shop", "web"), &calls(1, 0), 7));
        let page = page(&metrics);
        let line =
            "traces_service_graph_request_total{client=\"a\\\"} 1?b{c=\\\"\",server=\"d\\\\\"} 1";
        assert!(page.lines().any(|one| one == line), "{line}\n{page}");
    }
}
