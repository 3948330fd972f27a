//! The rate at which the buckets of a limit fill at one pod, and how much they hold.
//!
//! Invariant: a token is worth the same whatever the share, so that another share changes no
//! bucket.

use std::time::Duration;

use crate::traffic::guard::RateLimit;

/// Of a part of a limit a pod keeps as many tokens as it lets through in a fifth of the limit's
/// time, up to these, whatever the part of the burst: the calls of a Service come to its pods by
/// chance, so two or three in a row come to one that has had none for as long.
const SPREAD: u64 = 3;

/// Shares change within seconds, so no wait that is reckoned by one holds for longer.
const LONGEST_OF_SHARE: Duration = Duration::from_secs(60);

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds of the clock per token: of the whole limit, whatever the share.
    pub(super) token: u64,
    /// Nanoseconds of it that a full bucket is worth; 0: nothing is let through.
    pub(super) whole: u64,
    /// So many nanoseconds of the clock pass in `of` of the world.
    speed: u64,
    of: u64,
    /// The longest wait that is reported, in nanoseconds.
    longest: u64,
}

impl Rate {
    /// All of a limit.
    #[must_use]
    pub fn of(limit: &RateLimit) -> Self {
        let whole = u64::from(limit.requests) * 1000;
        Self {
            longest: u64::MAX,
            ..Self::new(limit, whole, limit.burst.into())
        }
    }

    /// Of a pod that has no share yet: one request, lest a new pod responds 429 to the
    /// first that comes.
    #[must_use]
    pub fn unshared(limit: &RateLimit) -> Self {
        let rate = Self::new(limit, 1, 1);
        Self { speed: 0, ..rate }
    }

    /// A pod's share, in thousandths of a request per `limit.per`, as [`super::shares`] gives it.
    /// Its burst is the same part of the whole burst, and one request at least.
    #[must_use]
    pub fn share(limit: &RateLimit, thousandths: u64) -> Self {
        let whole = u64::from(limit.requests.max(1)) * 1000;
        let burst = u64::from(limit.burst) * thousandths.min(whole) / whole;
        let spread = if thousandths < whole {
            SPREAD.min(thousandths / 5000)
        } else {
            0
        };
        let rate = Self::new(limit, thousandths, burst.max(spread));
        if thousandths < whole && rate.whole > 0 {
            // What is left of a token when another one comes.
            return Self {
                whole: rate.whole.saturating_add(rate.token.saturating_sub(1)),
                ..rate
            };
        }
        rate
    }

    /// Nanoseconds of the clock that its burst is worth.
    pub(super) const fn burst(self) -> u64 {
        self.whole - self.whole % self.token
    }

    pub(super) const fn is_unshared(self) -> bool {
        self.speed == 0 && self.whole > 0
    }

    fn new(limit: &RateLimit, thousandths: u64, burst: u64) -> Self {
        let per = nanos(limit.per);
        let token = (per / u64::from(limit.requests.max(1))).max(1);
        let longest = nanos(limit.per.min(LONGEST_OF_SHARE));
        let whole = if thousandths == 0 {
            0
        } else {
            token.saturating_mul(burst.max(1))
        };
        Self {
            token,
            whole,
            speed: thousandths,
            of: u64::from(limit.requests.max(1)) * 1000,
            longest,
        }
    }

    /// Nanoseconds of the clock in so many of the world's.
    pub(super) fn passed(self, nanos: u64) -> u64 {
        let passed = u128::from(nanos) * u128::from(self.speed) / u128::from(self.of.max(1));
        u64::try_from(passed).unwrap_or(u64::MAX)
    }

    /// Nanoseconds of the world until so many of the clock have passed.
    pub(super) fn until(self, clock: u64) -> u64 {
        let nanos = u128::from(clock) * u128::from(self.of);
        let nanos = match self.speed {
            0 => u64::MAX,
            speed => u64::try_from(nanos.div_ceil(speed.into())).unwrap_or(u64::MAX),
        };
        nanos.min(self.longest)
    }
}

/// Whole nanoseconds.
pub(super) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
