//! The latency histograms of the metrics page, in the buckets that `policy::latency` fixes, filled
//! from the counts of cells.
//!
//! Of each bucket the last request that was recorded as a span is its exemplar: from a slow
//! bucket to a trace that was slow. The library of metrics has no way to give it exemplars of a
//! histogram that is not its own, so they are added to the lines of the page once it is written.
//!
//! Claims: observe-96

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;
use policy::latency::{BOUNDS, BUCKETS, Histogram as Buckets, bucket};
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::MetricType;

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
        let took = Duration::try_from_secs_f64(seconds).unwrap_or_default();
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

/// A request that is the exemplar of its bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exemplar {
    pub trace: u128,
    pub took: Duration,
    pub at: SystemTime,
}

/// One for each bucket at most.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exemplars(Vec<(usize, Exemplar)>);

impl Exemplars {
    /// Keeps it in place of the one before it in its bucket.
    pub(crate) fn keep(&mut self, one: Exemplar) {
        let own = bucket(one.took.as_secs_f64());
        match self.0.iter_mut().find(|(bucket, _)| *bucket == own) {
            Some((_, kept)) => *kept = one,
            None => self.0.push((own, one)),
        }
    }

    /// Takes those over, which are newer.
    pub(crate) fn add(&mut self, newer: &Self) {
        for (_, one) in &newer.0 {
            self.keep(*one);
        }
    }

    pub(crate) const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn of(&self, bucket: usize) -> Option<&Exemplar> {
        let found = self.0.iter().find(|(own, _)| *own == bucket);
        found.map(|(_, one)| one)
    }
}

/// The page with exemplars at the buckets of the histogram `name`; `series` has those of
/// its series, by their labels as the page writes them.
pub(crate) fn annotate(page: String, name: &str, series: &HashMap<String, Exemplars>) -> String {
    if series.is_empty() {
        return page;
    }
    let begin = format!("{name}_bucket{{le=\"");
    let mut annotated = String::with_capacity(page.len() + series.len() * 512);
    for line in page.split_inclusive('\n') {
        let bare = line.trim_end_matches('\n');
        annotated.push_str(bare);
        if let Some(one) = bare
            .strip_prefix(begin.as_str())
            .and_then(|rest| of_line(rest, series))
        {
            write(&mut annotated, one);
        }
        if bare.len() < line.len() {
            annotated.push('\n');
        }
    }
    annotated
}

/// Of `BOUND",LABELS} COUNT`.
fn of_line<'a>(rest: &str, series: &'a HashMap<String, Exemplars>) -> Option<&'a Exemplar> {
    let (bound, rest) = rest.split_once('"')?;
    let (labels, _) = rest.strip_prefix(',')?.rsplit_once("} ")?;
    let kept = series.get(labels)?;
    let at = match bound {
        "+Inf" => BUCKETS - 1,
        bound => {
            let bound: f64 = bound.parse().ok()?;
            BOUNDS.iter().position(|one| *one == bound)?
        }
    };
    kept.of(at)
}

fn write(page: &mut String, one: &Exemplar) {
    let at = one.at.duration_since(SystemTime::UNIX_EPOCH);
    let at = at.unwrap_or_default().as_secs_f64();
    let took = one.took.as_secs_f64();
    let _ = write!(
        page,
        " # {{trace_id=\"{:032x}\"}} {took} {at:.3}",
        one.trace
    );
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use super::*;

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

    fn one(trace: u128, milliseconds: u64) -> Exemplar {
        Exemplar {
            trace,
            took: Duration::from_millis(milliseconds),
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_500),
        }
    }

    #[test]
    fn last_bucket_exemplar_annotates_only_its_line() {
        let mut kept = Exemplars::default();
        for (trace, milliseconds) in [(1, 2), (2, 2), (3, 40_000)] {
            kept.keep(one(trace, milliseconds));
        }
        let series = HashMap::from([("service=\"a\"".to_owned(), kept)]);
        let page = "# TYPE took histogram\n\
            took_sum{service=\"a\"} 1.0\n\
            took_bucket{le=\"0.0013\",service=\"a\"} 0\n\
            took_bucket{le=\"0.0021\",service=\"a\"} 2\n\
            took_bucket{le=\"+Inf\",service=\"a\"} 3\n\
            took_bucket{le=\"0.0021\",service=\"b\"} 2\n\
            other_bucket{le=\"0.0021\",service=\"a\"} 2\n\
            # EOF\n";
        let annotated = annotate(page.to_owned(), "took", &series);
        let id = |trace| format!(" # {{trace_id=\"{trace:032x}\"}}");
        let expected = page
            .replace(
                "took_bucket{le=\"0.0021\",service=\"a\"} 2",
                &format!(
                    "took_bucket{{le=\"0.0021\",service=\"a\"}} 2{} 0.002 1.500",
                    id(2)
                ),
            )
            .replace("\"} 3\n", &format!("\"}} 3{} 40 1.500\n", id(3)));
        assert_eq!(annotated, expected);
        // Without any the page is what it was.
        assert_eq!(annotate(page.to_owned(), "took", &HashMap::new()), page);
    }
}
