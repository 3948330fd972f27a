//! What samples say: how many calls were good, how long they took, second by second.

use std::time::Duration;

use super::application::BIN;
use super::generator::{CallEnd, Sample};

/// A user that waited longer has gone.
pub(super) const GOOD_WITHIN: Duration = Duration::from_secs(1);

pub(super) fn is_good(sample: &Sample) -> bool {
    sample.end == CallEnd::Good && sample.took <= GOOD_WITHIN
}

/// Of all callers together.
pub(super) fn all(callers: &[Vec<Sample>]) -> Vec<Sample> {
    callers.iter().flatten().copied().collect()
}

/// Those that were due from `from` until before `to`.
pub(super) fn between(samples: &[Sample], from: Duration, to: Duration) -> Vec<Sample> {
    let within = |sample: &&Sample| sample.due >= from && sample.due < to;
    samples.iter().filter(within).copied().collect()
}

/// The share of good ones; 0 where there are none.
pub(super) fn good(samples: &[Sample]) -> f64 {
    let good = samples.iter().filter(|sample| is_good(sample)).count();
    good as f64 / samples.len().max(1) as f64
}

pub(super) fn count(samples: &[Sample], end: CallEnd) -> usize {
    samples.iter().filter(|sample| sample.end == end).count()
}

/// The nearest rank of how long they took.
pub(super) fn quantile(samples: &[Sample], share: f64) -> Duration {
    let mut took: Vec<_> = samples.iter().map(|sample| sample.took).collect();
    took.sort_unstable();
    let rank = (share * took.len() as f64).ceil() as usize;
    let at = rank.clamp(1, took.len().max(1)) - 1;
    took.get(at).copied().unwrap_or_default()
}

/// A figure of the calls that were due in each second.
pub(super) fn each_second(
    samples: &[Sample],
    time: Duration,
    of: impl Fn(&[Sample]) -> f64,
) -> Vec<f64> {
    let seconds = (0..time.as_secs()).map(Duration::from_secs);
    seconds
        .map(|from| of(&between(samples, from, from + Duration::from_secs(1))))
        .collect()
}

/// Requests in each second, of bins of several applications.
pub(super) fn per_second(logs: &[Vec<u32>], time: Duration) -> Vec<f64> {
    let seconds = 0..time.as_secs();
    let of = |second| {
        requests(
            logs,
            Duration::from_secs(second),
            Duration::from_secs(second + 1),
        )
    };
    seconds.map(of).collect()
}

/// Requests of these applications from `from` until before `to`.
pub(super) fn requests(logs: &[Vec<u32>], from: Duration, to: Duration) -> f64 {
    let bin = |time: Duration| (time.as_millis() / BIN.as_millis()) as usize;
    let of = |log: &Vec<u32>| -> u32 {
        let end = bin(to).min(log.len());
        log.get(bin(from)..end).unwrap_or_default().iter().sum()
    };
    logs.iter().map(of).map(f64::from).sum()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{CallEnd, Sample, between, each_second, good, quantile, requests};

    fn sample(due: u64, took: u64, end: CallEnd) -> Sample {
        Sample {
            due: Duration::from_millis(due),
            took: Duration::from_millis(took),
            end,
        }
    }

    #[test]
    fn an_answer_that_comes_too_late_is_not_good() {
        let samples = [
            sample(0, 10, CallEnd::Good),
            sample(100, 1001, CallEnd::Good),
            sample(1200, 5, CallEnd::Refused),
            sample(1300, 20, CallEnd::Good),
        ];
        assert_eq!(good(&samples), 0.5);
        assert_eq!(good(&[]), 0.0);
        assert_eq!(quantile(&samples, 0.5), Duration::from_millis(10));
        assert_eq!(quantile(&samples, 1.0), Duration::from_millis(1001));
        let second = between(&samples, Duration::from_secs(1), Duration::from_secs(2));
        assert_eq!(second.len(), 2);
        let shares = each_second(&samples, Duration::from_secs(2), good);
        assert_eq!(shares, [0.5, 0.5]);
    }

    #[test]
    fn requests_are_counted_by_bins_of_all_applications() {
        let logs = [vec![1; 30], vec![2; 12]];
        let from = |second| Duration::from_secs(second);
        assert_eq!(requests(&logs, from(0), from(1)), 30.0);
        assert_eq!(requests(&logs, from(1), from(2)), 14.0);
        assert_eq!(requests(&logs, from(3), from(4)), 0.0);
    }
}
