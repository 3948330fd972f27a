//! How long calls take, now and in calm times.
//!
//! Two measures, because two questions are asked. Whether calls *wait* is asked of the
//! typical call, a median: a few long polls among them say nothing. How many are *in
//! flight* is asked of the mean, where each long poll counts as long as it stays.

use std::time::Duration;

/// A step of the running median: 25 calls lead from 10 ms to 110 ms.
const STEP: f64 = 1.1;
/// Nothing is faster, so that steps stay steps.
const FASTEST: f64 = 1e-5;

/// Part of the way that the baseline goes towards the values of a slot. The typical call's
/// in ten minutes up, or a load that lasts would pass for calm, and in a second down,
/// because nothing makes calls faster than calm. The mean in half a minute.
const UP: f64 = 1.0 / 24_000.0;
const DOWN: f64 = 1.0 / 40.0;
const MEAN: f64 = 1.0 / 1200.0;

/// Slots in which calls waited although nothing fell behind: after a minute that is what
/// they take.
const PATIENCE: u32 = 2400;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Baseline {
    /// Running median of what was seen, in seconds; 0 before the first call.
    typical: f64,
    baseline_typical: f64,
    baseline_mean: f64,
    waited: u32,
}

impl Baseline {
    pub(super) fn saw(&mut self, took: Duration) {
        let took = took.as_secs_f64().max(FASTEST);
        if self.typical == 0.0 {
            self.typical = took;
        } else if took > self.typical {
            self.typical = (self.typical * STEP).min(took);
        } else {
            self.typical = (self.typical / STEP).max(took);
        }
    }

    /// Whether the typical call takes so much longer than in calm times.
    pub(super) fn waits_longer_by(&self, queue_time: Duration) -> bool {
        self.baseline_typical > 0.0
            && self.typical > self.baseline_typical + queue_time.as_secs_f64()
    }

    /// A slot in which nothing was shed ended; `mean` of its calls, if there were any.
    pub(super) fn learn(&mut self, mean: Option<f64>, waits: bool) {
        let Some(mean) = mean else { return };
        if self.baseline_typical == 0.0 {
            self.baseline_typical = self.typical;
            self.baseline_mean = mean;
            return;
        }
        if waits {
            self.waited += 1;
            if self.waited >= PATIENCE {
                self.adopt();
            }
            return;
        }
        self.waited = 0;
        let part = if self.typical < self.baseline_typical {
            DOWN
        } else {
            UP
        };
        self.baseline_typical += (self.typical - self.baseline_typical) * part;
        self.baseline_mean += (mean - self.baseline_mean) * MEAN;
    }

    /// What is typical now is the baseline. The mean moves along.
    pub(super) fn adopt(&mut self) {
        if self.baseline_typical > 0.0 && self.typical > 0.0 {
            self.baseline_mean *= self.typical / self.baseline_typical;
            self.baseline_typical = self.typical;
        }
        self.waited = 0;
    }

    /// In seconds.
    pub(super) fn mean(&self) -> f64 {
        self.baseline_mean.max(self.baseline_typical)
    }

    /// Half where the typical call waits `queue_time`, and never quite all: how much longer
    /// somebody waits must show however long it is.
    pub(super) fn waiting_percent(&self, queue_time: Duration) -> u8 {
        if self.baseline_typical == 0.0 {
            // There is no baseline yet.
            return 0;
        }
        let waits = (self.typical - self.baseline_typical).max(0.0);
        let share = waits / (waits + queue_time.as_secs_f64());
        (share * 100.0) as u8
    }
}
