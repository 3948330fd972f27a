//! The window of a breaker: attempts and failures of the last `interval`, in ten parts, and the
//! results of the last probes.

use std::time::{Duration, Instant};

const STEPS: usize = 10;

/// Attempts, and those of them that failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub sent: u32,
    pub failed: u32,
}

impl Sum {
    /// Whether so many percent failed; never where nothing was sent.
    #[must_use]
    pub fn fails(self, percent: u8) -> bool {
        self.sent > 0 && u64::from(self.failed) * 100 >= u64::from(self.sent) * u64::from(percent)
    }

    /// Rounded down; 0 where nothing was sent.
    #[must_use]
    pub fn percent(self) -> u8 {
        let percent = u64::from(self.failed) * 100 / u64::from(self.sent.max(1));
        u8::try_from(percent).unwrap_or(100)
    }
}

/// The oldest slot is dropped as a whole, so the window is between nine and ten tenths of
/// the interval long.
#[derive(Clone, Copy, Debug)]
pub struct Window {
    /// The current slot first.
    steps: [Sum; STEPS],
    began: Instant,
}

impl Window {
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self {
            steps: [Sum { sent: 0, failed: 0 }; STEPS],
            began: now,
        }
    }

    pub fn add(&mut self, now: Instant, interval: Duration, sent: u32, failed: u32) {
        let step = step(interval);
        let passed = self.passed(now, step);
        if passed > 0 {
            self.steps.rotate_right(passed.min(STEPS));
            self.steps[..passed.min(STEPS)].fill(Sum::default());
            self.began = if passed < STEPS {
                self.began + step * passed as u32
            } else {
                now
            };
        }
        let current = &mut self.steps[0];
        current.sent = current.sent.saturating_add(sent);
        current.failed = current.failed.saturating_add(failed);
    }

    #[must_use]
    pub fn sum(&self, now: Instant, interval: Duration) -> Sum {
        let left = STEPS.saturating_sub(self.passed(now, step(interval)));
        self.steps[..left]
            .iter()
            .fold(Sum::default(), |sum, one| Sum {
                sent: sum.sent.saturating_add(one.sent),
                failed: sum.failed.saturating_add(one.failed),
            })
    }

    fn passed(&self, now: Instant, step: Duration) -> usize {
        let since = now.saturating_duration_since(self.began);
        (since.as_nanos() / step.as_nanos()) as usize
    }
}

fn step(interval: Duration) -> Duration {
    (interval / STEPS as u32).max(Duration::from_millis(1))
}

/// Most probes that are looked back on.
const MOST: u32 = 20;

/// The newest probe in the lowest bit, set where it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Probes {
    failed: u32,
    made: u32,
}

impl Probes {
    pub(super) fn add(&mut self, failed: bool) {
        self.failed = (self.failed << 1 | u32::from(failed)) & ((1 << MOST) - 1);
        self.made = (self.made + 1).min(MOST);
    }

    /// Whether there were so many, and of the last of them fewer than `percent` failed.
    pub(super) const fn are_good(self, needed: u32, percent: u8) -> bool {
        let failed = (self.failed & ((1 << needed) - 1)).count_ones();
        self.made >= needed && failed * 100 < needed * percent as u32
    }
}
