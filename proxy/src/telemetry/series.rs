//! Metric families that are bounded and forget idle series.
//!
//! A series that was idle for ten minutes is dropped from the next scrape and forgotten, so that
//! pods and Services that no longer exist do not stay for ever. A counter that comes back starts at
//! zero, which every consumer of counters understands.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

/// A series that was idle for this long is dropped at the next scrape.
const SERIES_IDLE: Duration = Duration::from_secs(600);
/// Series per family; beyond it a sample is counted in `weft_series_refused`.
/// 2000 series of one family are about 1 MiB.
const SERIES_LIMIT: usize = 2000;
/// The same for histograms, which are 27 lines each: 256 are about 1 MiB.
const HISTOGRAM_LIMIT: usize = 256;
/// Lines of a histogram on the page: its buckets, `+Inf`, sum and count.
const HISTOGRAM_LINES: usize = policy::latency::BOUNDS.len() + 3;
/// Bytes that the series of all families together may take on the page: a scraper reads it
/// at once, every few seconds, from every pod. Exemplars come on top: half a MiB where
/// every bucket of every histogram of requests has one.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a line beyond its labels: name and value.
const LINE_BYTES: usize = 64;

struct Timed<M> {
    metric: M,
    /// Bytes on the page.
    width: usize,
    /// Seconds since the family began.
    touched: AtomicU64,
}

/// A family whose idle series are forgotten.
pub struct Series<L, M> {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    began: Instant,
    make: fn() -> M,
    limit: usize,
    /// Lines of one series on the page.
    lines: usize,
    shared: Shared,
    map: Arc<RwLock<HashMap<L, Arc<Timed<M>>>>>,
}

/// What all families share.
#[derive(Clone, Debug)]
pub struct Shared {
    began: Instant,
    /// Samples beyond the bounds.
    pub(super) refused: Counter,
    /// Bytes that their series take on the page, within [`PAGE_BYTES`].
    page: Arc<AtomicUsize>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            began: Instant::now(),
            refused: Counter::default(),
            page: Arc::default(),
        }
    }
}

impl Shared {
    /// A family of counters.
    pub(super) fn counters<L: Clone + Hash + Eq + Debug>(
        &self,
        name: &'static str,
        help: &'static str,
    ) -> Series<L, Counter> {
        Series::new(name, help, None, Counter::default, self)
    }

    /// A family of gauges.
    pub(super) fn gauges<L: Clone + Hash + Eq + Debug>(
        &self,
        name: &'static str,
        help: &'static str,
    ) -> Series<L, Gauge> {
        Series::new(name, help, None, Gauge::default, self)
    }
}

impl<L, M> Clone for Series<L, M> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            help: self.help,
            unit: self.unit.clone(),
            began: self.began,
            make: self.make,
            limit: self.limit,
            lines: self.lines,
            shared: self.shared.clone(),
            map: Arc::clone(&self.map),
        }
    }
}

impl<L, M> Debug for Series<L, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Series")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<L: Clone + Hash + Eq + Debug, M: Clone + Typed> Series<L, M> {
    pub(super) fn new(
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        make: fn() -> M,
        shared: &Shared,
    ) -> Self {
        let histogram = matches!(M::TYPE, MetricType::Histogram);
        Self {
            name,
            help,
            unit,
            began: shared.began,
            make,
            limit: if histogram {
                HISTOGRAM_LIMIT
            } else {
                SERIES_LIMIT
            },
            lines: if histogram { HISTOGRAM_LINES } else { 1 },
            shared: shared.clone(),
            map: Arc::default(),
        }
    }

    /// The metric for these labels, made at first use.
    pub fn at(&self, labels: &L) -> M {
        self.find(labels).unwrap_or_else(|| {
            self.shared.refused.inc();
            (self.make)()
        })
    }

    /// What all series hold now.
    pub(super) fn each(&self, mut show: impl FnMut(&L, &M)) {
        for (labels, timed) in self.map.read().iter() {
            show(labels, &timed.metric);
        }
    }

    /// `None` beyond the bounds.
    fn find(&self, labels: &L) -> Option<M> {
        let now = self.began.elapsed().as_secs();
        if let Some(timed) = self.map.read().get(labels) {
            timed.touched.store(now, Ordering::Relaxed);
            return Some(timed.metric.clone());
        }
        let mut map = self.map.write();
        if let Some(timed) = map.get(labels) {
            return Some(timed.metric.clone());
        }
        // As good as what a scrape will write, and known without a scrape.
        let width = self.lines * (LINE_BYTES + format!("{labels:?}").len());
        let page = &self.shared.page;
        if map.len() >= self.limit || page.load(Ordering::Relaxed) + width > PAGE_BYTES {
            return None;
        }
        page.fetch_add(width, Ordering::Relaxed);
        let timed = Arc::new(Timed {
            metric: (self.make)(),
            width,
            touched: AtomicU64::new(now),
        });
        let metric = timed.metric.clone();
        map.insert(labels.clone(), timed);
        Some(metric)
    }

    /// Whether these labels have a series, or room for one of more detail than is needed: such
    /// take half of the places, so that none of the others is without one.
    pub(super) fn has_room_for_detail(&self, labels: &L) -> bool {
        let map = self.map.read();
        map.contains_key(labels)
            || (map.len() < self.limit / 2
                && self.shared.page.load(Ordering::Relaxed) < PAGE_BYTES / 2)
    }

    fn forget_idle(&self) {
        let now = self.began.elapsed().as_secs();
        self.map.write().retain(|_, timed| {
            let idle = now.saturating_sub(timed.touched.load(Ordering::Relaxed));
            let keep = idle < SERIES_IDLE.as_secs();
            if !keep {
                self.shared.page.fetch_sub(timed.width, Ordering::Relaxed);
            }
            keep
        });
    }
}

impl<L: Clone + Hash + Eq + Debug> Series<L, Counter> {
    /// Adds so many samples.
    pub(super) fn count(&self, labels: &L, samples: u64) {
        match self.find(labels) {
            Some(counter) => counter.inc_by(samples),
            None => self.shared.refused.inc_by(samples),
        };
    }
}

/// The kind of metric that a family holds.
pub trait Typed {
    const TYPE: MetricType;
}

impl Typed for Gauge {
    const TYPE: MetricType = MetricType::Gauge;
}

impl Typed for Counter {
    const TYPE: MetricType = MetricType::Counter;
}

impl<L, M> Series<L, M>
where
    L: Clone + Hash + Eq + EncodeLabelSet + Debug,
    M: Clone + EncodeMetric + Typed,
{
    /// Writes the family on the page, without the series that are forgotten by now.
    pub(super) fn show(&self, encoder: &mut DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.forget_idle();
        let map = self.map.read();
        if map.is_empty() {
            return Ok(());
        }
        let mut family =
            encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), M::TYPE)?;
        for (labels, timed) in map.iter() {
            timed.metric.encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

impl<L, M> Collector for Series<L, M>
where
    L: Clone + Hash + Eq + EncodeLabelSet + Debug + Send + Sync + 'static,
    M: Clone + EncodeMetric + Typed + Debug + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.show(&mut encoder)
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::{HISTOGRAM_LIMIT, PAGE_BYTES, SERIES_IDLE, SERIES_LIMIT};
    use crate::telemetry::labels::{
        Direction, LatencyLabels, LimitLabels, Port, RequestLabels, RouteLabel, Security,
    };
    use crate::telemetry::metrics::Metrics;

    fn scrape(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_series_shows_its_labels_and_value() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.limit("connections");
        metrics.limit("connections");
        assert!(scrape(&registry).contains("weft_limit_reached_total{limit=\"connections\"} 2"));
    }

    #[test]
    fn metrics_page_is_bounded_despite_many_long_series() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let long = "n".repeat(120);
        for at in 0..SERIES_LIMIT + 100 {
            let service: Arc<str> = format!("{long}/{at}").into();
            let direction = Direction::outbound;
            let port = Port::Number(80);
            let labels = LatencyLabels {
                direction,
                service: Arc::clone(&service),
                port,
                backend: Arc::clone(&service),
                route: RouteLabel::default(),
            };
            metrics.calls.latency.at(&labels).observe(0.001);
            let labels = RequestLabels {
                direction,
                service: Arc::clone(&service),
                port,
                backend: Arc::clone(&service),
                peer: service,
                security: Security::plaintext,
                status: 200,
                success: true,
                reason: "unknown-destination",
                route: RouteLabel::default(),
            };
            metrics.calls.requests.at(&labels).inc();
        }
        let page = scrape(&registry);
        assert!(page.len() < PAGE_BYTES, "{}", page.len());
        let count = |name: &str| page.matches(name).count();
        assert_eq!(
            count("weft_request_duration_seconds_count{"),
            HISTOGRAM_LIMIT
        );
        assert!(count("weft_requests_total{") > 1000, "most are counted");
        // What is forgotten makes room.
        let mut later = metrics.calls.latency.clone();
        later.began -= SERIES_IDLE * 2;
        let before = metrics.shared.page.load(Ordering::Relaxed);
        later.forget_idle();
        assert!(metrics.shared.page.load(Ordering::Relaxed) < before / 2);
    }

    #[test]
    fn series_untouched_for_ten_minutes_is_dropped() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.limit("old");
        let mut later = metrics.limits.clone();
        later.began -= SERIES_IDLE - std::time::Duration::from_secs(5);
        later.at(&LimitLabels { limit: "young" }).inc();
        later.forget_idle();
        assert_eq!(
            scrape(&registry)
                .matches("weft_limit_reached_total{")
                .count(),
            2
        );
        later.began -= std::time::Duration::from_secs(10);
        later.forget_idle();
        let text = scrape(&registry);
        assert!(
            text.contains("limit=\"young\"") && !text.contains("limit=\"old\""),
            "{text}"
        );
    }

    #[test]
    fn series_beyond_the_bound_are_refused_and_counted() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        for at in 0..SERIES_LIMIT + 5 {
            let name: &'static str = Box::leak(format!("l{at}").into_boxed_str());
            metrics.limits.at(&LimitLabels { limit: name }).inc();
        }
        let text = scrape(&registry);
        assert_eq!(
            text.matches("weft_limit_reached_total{").count(),
            SERIES_LIMIT
        );
        assert!(text.contains("weft_series_refused_total 5"));
    }
}
