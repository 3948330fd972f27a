//! What the differences of many rounds say, and how sure that is.

/// Fewer rounds give an interval that is too wide to say anything.
pub(crate) const LEAST_ROUNDS: usize = 6;

/// The middle difference of all rounds, and what it lies between with 95 %.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Interval {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Interval {
    /// `None` for fewer than [`LEAST_ROUNDS`] differences.
    ///
    /// The interval of a median by order statistics: it requires nothing of how the
    /// differences are spread but that the rounds do not depend on each other.
    pub(crate) fn of(differences: &[f64]) -> Option<Self> {
        let count = differences.len();
        if count < LEAST_ROUNDS {
            return None;
        }
        let mut sorted = differences.to_vec();
        sorted.sort_by(f64::total_cmp);
        let cut = outside(count);
        let middle = f64::midpoint(*sorted.get((count - 1) / 2)?, *sorted.get(count / 2)?);
        Some(Self {
            low: *sorted.get(cut)?,
            median: middle,
            high: *sorted.get(count - 1 - cut)?,
        })
    }

    /// Only with its whole length above the bound: noise alone misses nothing.
    pub(crate) fn misses(self, bound: f64) -> bool {
        self.low > bound
    }

    /// As a table shows it. What lies on both sides of its bound is neither met nor missed.
    pub(crate) fn verdict(self, bound: f64) -> &'static str {
        if self.misses(bound) {
            "**missed**"
        } else if self.high <= bound {
            "met"
        } else {
            "within the noise"
        }
    }
}

/// How many of `count` sorted differences may be left out on each side so that the rest
/// holds the true median with at least 95 %: of as many fair coins no more heads than
/// that, with at most 2.5 %.
fn outside(count: usize) -> usize {
    const TAIL: f64 = 0.025;
    // The probability of `heads` heads, from none upwards.
    let mut exactly = 0.5_f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let mut at_most = exactly;
    let mut cut = 0;
    while at_most <= TAIL {
        cut += 1;
        exactly *= (count - cut + 1) as f64 / cut as f64;
        at_most += exactly;
    }
    cut.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::{Interval, outside};

    #[test]
    fn interval_of_twenty_rounds_drops_five_per_side() {
        // What tables of the binomial distribution say.
        for (rounds, cut) in [(6, 0), (9, 1), (12, 2), (20, 5), (40, 13)] {
            assert_eq!(outside(rounds), cut, "{rounds}");
        }
        let differences: Vec<f64> = (0..20).map(f64::from).collect();
        let expected = Interval {
            low: 5.0,
            median: 9.5,
            high: 14.0,
        };
        assert_eq!(Interval::of(&differences), Some(expected));
        assert_eq!(Interval::of(&differences[..5]), None);
    }

    #[test]
    fn only_complete_interval_misses_or_meets_bound() {
        let interval = Interval {
            low: 0.9,
            median: 1.2,
            high: 2.0,
        };
        let verdicts = [0.8, 0.9, 1.0, 2.0].map(|bound| interval.verdict(bound));
        assert_eq!(
            verdicts,
            ["**missed**", "within the noise", "within the noise", "met"]
        );
        assert!(interval.misses(0.8) && !interval.misses(0.9));
    }
}
