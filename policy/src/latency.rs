//! Latency histograms, in one layout of buckets that Prometheus, the proxies' reports and the SMI
//! metrics API share.
//!
//! Buckets are added up over pods and intervals before anything is read from them: percentiles of
//! percentiles would mean nothing.

/// Upper bounds in seconds: 24 buckets, each about 1.6 times the one before,
/// from 0.5 ms to 30 s. What took longer has a bucket of its own.
pub const BOUNDS: [f64; 24] = [
    0.0005, 0.0008, 0.0013, 0.0021, 0.0034, 0.0054, 0.0088, 0.014, 0.023, 0.037, 0.06, 0.096,
    0.155, 0.25, 0.4, 0.65, 1.05, 1.7, 2.7, 4.4, 7.1, 11.5, 18.6, 30.0,
];
/// Buckets, with the one for everything longer than the last bound.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// The bucket of a call that took this long. A bound belongs to the bucket that
/// it ends, as in Prometheus.
#[must_use]
pub fn bucket(seconds: f64) -> usize {
    BOUNDS.partition_point(|bound| *bound < seconds)
}

/// Calls by bucket.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
}

impl Histogram {
    /// Counts one call.
    pub fn observe(&mut self, seconds: f64) {
        self.counts[bucket(seconds)] += 1;
    }

    /// Adds counts of leading buckets; those beyond the layout go into the last.
    pub fn add(&mut self, counts: impl IntoIterator<Item = u64>) {
        for (at, count) in counts.into_iter().enumerate() {
            let counter = &mut self.counts[at.min(BUCKETS - 1)];
            *counter = counter.saturating_add(count);
        }
    }

    /// Calls in every bucket, without the empty ones at the end.
    #[must_use]
    pub fn counts(&self) -> &[u64] {
        let used = self.counts.iter().rposition(|count| *count > 0);
        &self.counts[..used.map_or(0, |last| last + 1)]
    }

    /// Calls in all.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, n| sum.saturating_add(*n))
    }

    /// Seconds within which this share (0 to 1) of the calls ended; `None`
    /// without any. Calls are taken to be spread evenly over their bucket, so
    /// the answer lies in the bucket that holds the true one. In the last
    /// bucket it is the last bound.
    #[must_use]
    #[expect(
        clippy::cast_precision_loss,
        reason = "counts stay far below 2^52 in a window of minutes"
    )]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let total = self.total();
        if total == 0 {
            return None;
        }
        let rank = (share * total as f64).max(1.0);
        let mut before = 0.0;
        for (at, count) in self.counts.iter().enumerate() {
            let count = *count as f64;
            if count > 0.0 && before + count >= rank {
                let Some(upper) = BOUNDS.get(at) else { break };
                let lower = at.checked_sub(1).map_or(0.0, |below| BOUNDS[below]);
                return Some(lower + (upper - lower) * (rank - before) / count);
            }
            before += count;
        }
        Some(BOUNDS[BOUNDS.len() - 1])
    }
}

#[cfg(test)]
mod tests {
    use super::{BOUNDS, BUCKETS, Histogram, bucket};

    #[test]
    fn bound_belongs_to_the_bucket_that_it_ends() {
        for (at, bound) in BOUNDS.iter().enumerate() {
            assert_eq!(bucket(*bound), at);
            assert_eq!(bucket(bound * 1.001), at + 1);
        }
        assert_eq!(bucket(0.0), 0);
        assert_eq!(bucket(3600.0), BUCKETS - 1);
    }

    #[test]
    fn quantile_lies_in_the_bucket_of_the_true_one() {
        // Deterministic, skewed, over four powers of ten.
        let times: Vec<f64> = (1..=5000_u32)
            .map(|at| 0.0004 * (1.0 + f64::from(at * 7919 % 5000) / 500.0).powi(4))
            .collect();
        let mut histogram = Histogram::default();
        times.iter().for_each(|time| histogram.observe(*time));
        let mut sorted = times;
        sorted.sort_by(f64::total_cmp);
        for share in [0.5, 0.9, 0.99] {
            let exact = sorted[(share * 5000.0) as usize - 1];
            let read = histogram.quantile(share).unwrap();
            assert_eq!(bucket(read), bucket(exact), "{share}: {read} for {exact}");
        }
    }

    #[test]
    fn empty_histogram_has_no_quantile_slowest_last_bound() {
        assert_eq!(Histogram::default().quantile(0.5), None);
        let mut slow = Histogram::default();
        slow.observe(100.0);
        assert_eq!(slow.quantile(0.5), Some(30.0));
    }

    #[test]
    fn counts_of_a_newer_layout_are_not_lost() {
        let mut histogram = Histogram::default();
        histogram.add([1; BUCKETS + 3]);
        assert_eq!(histogram.total(), BUCKETS as u64 + 3);
        assert_eq!(histogram.counts().last(), Some(&4));
    }

    #[test]
    fn empty_buckets_at_the_end_are_left_out() {
        let mut histogram = Histogram::default();
        histogram.observe(0.001);
        assert_eq!(histogram.counts(), [0, 0, 1]);
        assert!(Histogram::default().counts().is_empty());
    }
}
