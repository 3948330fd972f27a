//! How long calls took, as the metrics page shows it: in the buckets that
//! `policy::latency` fixes, filled from what cells have counted.

use std::sync::Arc;

use parking_lot::Mutex;
use policy::latency::{BOUNDS, Histogram as Buckets};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

use crate::telemetry::exemplar::Exemplars;
use crate::telemetry::series::Typed;

/// Calls by time, and these times together.
#[derive(Clone, Debug)]
pub struct Histogram {
    /// How many of its units a second has.
    unit: f64,
    data: Arc<Mutex<HistogramData>>,
}

#[derive(Debug, Default)]
struct HistogramData {
    buckets: Buckets,
    nanoseconds: u64,
    exemplars: Exemplars,
}

impl Histogram {
    pub(crate) fn of_seconds() -> Self {
        Self::of_unit(1.0)
    }

    pub(crate) fn of_milliseconds() -> Self {
        Self::of_unit(1e3)
    }

    fn of_unit(unit: f64) -> Self {
        Self {
            unit,
            data: Arc::default(),
        }
    }

    /// Adds calls, and the time that they took together.
    pub(crate) fn add(&self, calls: &Buckets, nanoseconds: u64) {
        let mut data = self.data.lock();
        data.buckets.add(calls.counts().iter().copied());
        data.nanoseconds = data.nanoseconds.saturating_add(nanoseconds);
    }

    /// Keeps the newest of each bucket.
    pub(crate) fn exemplify(&self, newer: &Exemplars) {
        if !newer.is_empty() {
            self.data.lock().exemplars.add(newer);
        }
    }

    pub(crate) fn exemplars(&self) -> Exemplars {
        self.data.lock().exemplars.clone()
    }

    /// Counts one call that took so many seconds.
    pub fn observe(&self, seconds: f64) {
        let mut calls = Buckets::default();
        calls.observe(seconds);
        let took = std::time::Duration::try_from_secs_f64(seconds).unwrap_or_default();
        self.add(&calls, u64::try_from(took.as_nanos()).unwrap_or(u64::MAX));
    }
}

impl Typed for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl EncodeMetric for Histogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let data = self.data.lock();
        let mut counts = data.buckets.counts().iter().copied();
        let bounds = BOUNDS.map(|bound| bound * self.unit).into_iter();
        let buckets: Vec<(f64, u64)> = bounds
            .chain([f64::INFINITY])
            .map(|bound| (bound, counts.next().unwrap_or(0)))
            .collect();
        #[expect(
            clippy::cast_precision_loss,
            reason = "2^53 nanoseconds are a hundred days of waiting, and then it is rounded"
        )]
        let sum = data.nanoseconds as f64 / 1e9 * self.unit;
        encoder.encode_histogram::<NoLabelSet>(sum, data.buckets.total(), &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::Histogram;

    #[test]
    fn histogram_page_has_buckets_sum_count_and_unit() {
        let mut registry = Registry::default();
        let histogram = Histogram::of_milliseconds();
        registry.register("took", "Time", histogram.clone());
        for seconds in [0.002, 0.002, 100.0] {
            histogram.observe(seconds);
        }
        let mut page = String::new();
        encode(&mut page, &registry).unwrap();
        for line in [
            "took_sum 100004.0",
            "took_count 3",
            "took_bucket{le=\"1.3\"} 0",
            "took_bucket{le=\"2.1\"} 2",
            "took_bucket{le=\"30000.0\"} 2",
            "took_bucket{le=\"+Inf\"} 3",
        ] {
            assert!(page.contains(line), "{line} is not in\n{page}");
        }
    }
}
