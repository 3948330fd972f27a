//! Delays and loads as the page needs them.
//!
//! Kept as values and not as buckets: there are some thousands, and a percentile that falls
//! between two bounds shows little of two runs that differ by a tenth.

use std::fmt;
use std::time::Duration;

/// Values of one kind in milliseconds.
#[derive(Clone, Default)]
pub(crate) struct Delays(Vec<f64>);

/// For the log of a run: not the thousands of values.
impl fmt::Debug for Delays {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (count, p50, p99, most) = (self.len(), self.p50(), self.p99(), self.most());
        write!(f, "{count} from p50 {p50:.1} and p99 {p99:.1} to {most:.1}")
    }
}

impl Delays {
    pub(crate) fn of_seconds(seconds: impl IntoIterator<Item = f64>) -> Self {
        let mut all: Vec<f64> = seconds.into_iter().map(|one| one * 1000.0).collect();
        all.sort_by(f64::total_cmp);
        Self(all)
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The value below which this share lies; 0 when there is none.
    pub(crate) fn at(&self, share: f64) -> f64 {
        let rank = (self.0.len() as f64 * share).ceil() as usize;
        let index = rank.clamp(1, self.0.len().max(1)) - 1;
        self.0.get(index).copied().unwrap_or_default()
    }

    pub(crate) fn p50(&self) -> f64 {
        self.at(0.5)
    }

    pub(crate) fn p99(&self) -> f64 {
        self.at(0.99)
    }

    pub(crate) fn most(&self) -> f64 {
        self.at(1.0)
    }
}

/// Load average of the last minute.
pub(crate) fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace()
        .next()
        .and_then(|load| load.parse().ok())
        .unwrap_or_default()
}

pub(crate) fn seconds(time: Duration) -> f64 {
    time.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::Delays;

    #[test]
    fn the_99th_of_100_is_the_second_largest() {
        let delays = Delays::of_seconds((1..=100).map(|n| f64::from(n) / 1000.0));
        let around = |value: f64, expected: f64| (value - expected).abs() < 1e-6;
        assert!(around(delays.p99(), 99.0) && around(delays.p50(), 50.0));
        assert!(around(delays.most(), 100.0));
    }
}
