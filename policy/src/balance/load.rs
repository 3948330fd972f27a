//! How busy an endpoint said it is.
//!
//! A server tells its load with its answers, but only when that changes by a tenth, or
//! after half the time in which callers forget it: a steady load would fade otherwise.

use std::time::{Duration, Instant};

/// What was told is worth less from moment to moment, and nothing after this.
pub const FADES: Duration = Duration::from_secs(10);

/// A full load makes an endpoint so many times as expensive.
const DEAREST: f64 = 4.0;

/// The load that one endpoint told, as its callers keep it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    reported: Option<(Instant, u8)>,
}

impl Load {
    /// `percent` above 100 is 100.
    pub fn record(&mut self, now: Instant, percent: u8) {
        self.reported = Some((now, percent.min(100)));
    }

    /// From 0 to 100.
    #[must_use]
    pub fn percent(&self, now: Instant) -> u8 {
        let Some((at, percent)) = self.reported else {
            return 0;
        };
        let age = now.saturating_duration_since(at).as_secs_f64();
        let left = (1.0 - age / FADES.as_secs_f64()).max(0.0);
        (f64::from(percent) * left).round() as u8
    }
}

/// How many times as expensive an endpoint is by its load: from 1 to 4.
pub(super) fn factor(percent: u8) -> f64 {
    1.0 + (DEAREST - 1.0) * f64::from(percent) / 100.0
}

/// What callers were told last. One for each port that serves, or for each caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReporter {
    last: Option<(Instant, u8)>,
}

impl LoadReporter {
    /// The value of `weft-load`, if it is news to them.
    pub fn report(&mut self, now: Instant, percent: u8) -> Option<u8> {
        let percent = percent.min(100);
        let news = match self.last {
            None => percent >= 10,
            Some((at, last)) => {
                let fading = now.saturating_duration_since(at) >= FADES / 2;
                last / 10 != percent / 10 || fading && percent >= 10
            }
        };
        if news {
            self.last = Some((now, percent));
        }
        news.then_some(percent)
    }
}
