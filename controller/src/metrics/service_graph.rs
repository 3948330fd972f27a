//! The service graph as metrics, by the names under which Grafana and other tools look for
//! one: how often clients called servers, how often that failed, and how long it took there.
//!
//! May import nothing else of this crate.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::latency::{BOUNDS, Histogram};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric, NoLabelSet};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::Unit;

/// Pairs that are shown. Each is 29 lines of the page, so that all are about 4 MiB.
const PAIRS: usize = 1000;

/// Who called whom, as nodes of the graph.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct Pair {
    /// Id of the node that calls.
    pub client: Arc<str>,
    /// Id of the node that is called.
    pub server: Arc<str>,
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
    /// Who called whom.
    pub pair: Pair,
    /// How often.
    pub calls: Calls,
    /// Slot of the first call.
    pub since: u64,
}

#[derive(Debug)]
struct PairTotals {
    calls: Calls,
    /// Slots of the first and of the last call.
    first: u64,
    last: u64,
}

/// The pairs that are shown; none unless somebody adds them. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ServiceGraphMetrics {
    pairs: Arc<Mutex<HashMap<Pair, PairTotals>>>,
}

impl ServiceGraphMetrics {
    /// Adds the calls of a slot, and says whether there was room for them.
    pub fn add(&self, pair: Pair, calls: &Calls, slot: u64) -> bool {
        let mut pairs = self.pairs.lock();
        if pairs.len() >= PAIRS && !pairs.contains_key(&pair) {
            return false;
        }
        let totals = pairs.entry(pair).or_insert_with(|| PairTotals {
            calls: Calls::default(),
            first: slot,
            last: slot,
        });
        totals.calls.requests += calls.requests;
        totals.calls.failed += calls.failed;
        totals.calls.took.add(calls.took.counts().iter().copied());
        totals.last = totals.last.max(slot);
        true
    }

    /// All pairs that are shown.
    pub(crate) fn all(&self) -> Vec<PairCalls> {
        let pairs = self.pairs.lock();
        let all = pairs.iter().map(|(pair, totals)| PairCalls {
            pair: pair.clone(),
            calls: totals.calls.clone(),
            since: totals.first,
        });
        all.collect()
    }

    /// Forgets pairs without a call since this slot. One that comes back begins at zero,
    /// which every consumer of counters understands.
    pub(crate) fn forget_before(&self, slot: u64) {
        self.pairs.lock().retain(|_, totals| totals.last >= slot);
    }

    /// Forgets all.
    pub fn clear(&self) {
        self.pairs.lock().clear();
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
    fn a_pair_is_shown_under_the_names_that_tools_look_for_and_adds_up() {
        let metrics = ServiceGraphMetrics::default();
        assert_eq!(page(&metrics), "# EOF\n");
        for slot in [7, 8] {
            assert!(metrics.add(pair("shop/Deployment/web"), &calls(2, 1), slot));
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
    fn pairs_are_bounded_and_go_when_nobody_calls() {
        let metrics = ServiceGraphMetrics::default();
        for number in 0..PAIRS {
            assert!(metrics.add(pair(&number.to_string()), &calls(1, 0), 7));
        }
        assert!(!metrics.add(pair("one more"), &calls(1, 0), 8));
        assert!(metrics.add(pair("7"), &calls(1, 0), 8), "a known one");
        let full = page(&metrics);
        assert!(full.len() < 6 * 1024 * 1024, "{}", full.len());
        metrics.forget_before(8);
        assert!(metrics.add(pair("one more"), &calls(1, 0), 8));
        let shown = page(&metrics);
        assert_eq!(shown.matches("_request_total{").count(), 2, "{shown}");
        metrics.clear();
        assert_eq!(page(&metrics), "# EOF\n");
    }
}
