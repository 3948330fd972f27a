//! The load that an endpoint reports, and for how long a report counts.
//!
//! A server sends its load with its responses, but only when that changes by a tenth, or after half
//! the time after which callers forget it: a steady load would fade otherwise.
//!
//! An endpoint whose own limit is reached (429, gRPC 8) is fully busy for as long as it
//! reports. Without a time that is a second, and twice as long each time that it still refuses
//! after it. It goes on to get a part of the calls, or it could not show that it takes them again.

use std::time::{Duration, Instant};

/// A reported load is worth less from moment to moment, and nothing after this.
pub const FADES: Duration = Duration::from_secs(10);

/// A full load makes an endpoint so many times as expensive.
const DEAREST: f64 = 4.0;

/// How long an endpoint is busy whose limit is reached and that does not say for how long: at
/// first, and at most.
const LIMITED_FIRST: Duration = Duration::from_secs(1);
const LIMITED_MOST: Duration = Duration::from_secs(10);
/// A time that an instance reports counts for this long at most: any caller can provoke such
/// a response, and a daily quota of one caller is none of the instance.
const LIMITED_SAID_MOST: Duration = Duration::from_secs(60);

/// The load that one endpoint reported, as its callers keep it. 24 bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Load {
    /// Of the last word.
    at: Option<Instant>,
    word: Word,
    /// Waits that it gave no time for, and that followed each other.
    waits: u8,
}

/// What an endpoint said last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    /// Its load then, in percent.
    Load(u8),
    /// Its limit is reached, until then.
    Limited,
}

impl Default for Word {
    fn default() -> Self {
        Self::Load(0)
    }
}

impl Load {
    /// `percent` above 100 is 100. Until its limit is over it is busy, whatever its load.
    pub fn record(&mut self, now: Instant, percent: u8) {
        if !self.is_limited(now) {
            self.at = Some(now);
            self.word = Word::Load(percent.min(100));
        }
    }

    /// It refused a request because its own limit is reached, for this time where it said so.
    pub fn limited(&mut self, now: Instant, time: Option<Duration>) {
        let until = match time.and_then(|time| now.checked_add(time)) {
            Some(until) => until.min(now + LIMITED_SAID_MOST),
            // What was sent before, or as the part that it gets all the same.
            None if self.is_limited(now) => return,
            None => {
                let doubled = LIMITED_FIRST.saturating_mul(1 << self.waits.min(4));
                self.waits = self.waits.saturating_add(1);
                now + doubled.min(LIMITED_MOST)
            }
        };
        self.at = Some(until);
        self.word = Word::Limited;
    }

    /// It served a request. Once its limit is over the next wait is as short as the first.
    pub fn served(&mut self, now: Instant) {
        if !self.is_limited(now) {
            self.waits = 0;
        }
    }

    /// From 0 to 100.
    #[must_use]
    pub fn percent(&self, now: Instant) -> u8 {
        let Some(at) = self.at else {
            return 0;
        };
        match self.word {
            Word::Limited if now < at => 100,
            Word::Limited => 0,
            Word::Load(percent) => {
                let age = now.saturating_duration_since(at).as_secs_f64();
                let left = (1.0 - age / FADES.as_secs_f64()).max(0.0);
                (f64::from(percent) * left).round() as u8
            }
        }
    }

    fn is_limited(&self, now: Instant) -> bool {
        self.word == Word::Limited && self.at.is_some_and(|until| now < until)
    }
}

/// How many times as expensive an endpoint is by its load: from 1 to 4.
pub(super) fn factor(percent: u8) -> f64 {
    1.0 + (DEAREST - 1.0) * f64::from(percent) / 100.0
}

/// What was reported to callers last. One for each port that serves, or for each caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LoadReporter {
    last: Option<(Instant, u8)>,
}

impl LoadReporter {
    /// The value of `weft-load`, if it is a change for them.
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
