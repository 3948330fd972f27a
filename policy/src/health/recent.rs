//! What an endpoint answered in the last ten seconds, in 40 bytes.

use std::time::{Duration, Instant};

const SLOTS: usize = 5;
const SLOT: Duration = Duration::from_secs(2);

/// Answers, and those of them that were failures.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recent {
    pub answers: u32,
    pub failures: u32,
}

impl Recent {
    /// From 0 to 1; 0 without answers.
    #[must_use]
    pub fn rate(self) -> f64 {
        f64::from(self.failures) / f64::from(self.answers.max(1))
    }

    /// The rate that so few answers make likely: of none it is a half.
    #[must_use]
    pub fn likely_rate(self) -> f64 {
        (f64::from(self.failures) + 1.0) / (f64::from(self.answers) + 2.0)
    }
}

impl std::ops::Add for Recent {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            answers: self.answers.saturating_add(other.answers),
            failures: self.failures.saturating_add(other.failures),
        }
    }
}

/// Counts by slots of two seconds; the oldest is dropped as a whole, so the window is
/// between eight and ten seconds long.
#[derive(Clone, Copy, Debug)]
pub(super) struct Window {
    /// Answers and failures, the current slot first.
    slots: [(u16, u16); SLOTS],
    /// When the current slot began.
    began: Instant,
}

impl Window {
    pub(super) const fn new(now: Instant) -> Self {
        Self {
            slots: [(0, 0); SLOTS],
            began: now,
        }
    }

    pub(super) fn add(&mut self, now: Instant, failed: bool) {
        let passed = self.passed(now);
        if passed > 0 {
            self.slots.rotate_right(passed.min(SLOTS));
            self.slots[..passed.min(SLOTS)].fill((0, 0));
            self.began = if passed < SLOTS {
                self.began + SLOT * passed as u32
            } else {
                now
            };
        }
        let (answers, failures) = &mut self.slots[0];
        // What a slot cannot hold is left out of both, so that the rate stays.
        if *answers < u16::MAX {
            *answers += 1;
            *failures += u16::from(failed);
        }
    }

    pub(super) fn sum(&self, now: Instant) -> Recent {
        let left = SLOTS.saturating_sub(self.passed(now));
        let slots = self.slots[..left].iter();
        slots.fold(Recent::default(), |sum, (answers, failures)| {
            sum + Recent {
                answers: (*answers).into(),
                failures: (*failures).into(),
            }
        })
    }

    /// Slots that ended since the current one began.
    fn passed(&self, now: Instant) -> usize {
        let since = now.saturating_duration_since(self.began);
        (since.as_millis() / SLOT.as_millis()) as usize
    }
}
