//! Load balancing by latency: the endpoint of a Service that takes the next request.
//!
//! Two endpoints are drawn at random and the one with the lower score takes the request. The score
//! is an estimate of latency times the requests that would wait there. The estimate rises at once
//! with a slow response and sinks slowly, so an endpoint that turned slow is avoided from its first
//! slow response on.
//!
//! How slowly it sinks depends on how long the endpoint has responded like that. One slow response
//! is often the first of a new pod, or a moment in which its machine was busy: it is forgotten
//! within seconds, or the endpoint would get nothing for most of a minute, since an endpoint
//! without requests shows nothing new. Repeated slow responses keep the estimate high for longer
//! each time.
//!
//! An endpoint without a measurement counts as the cheapest, but only until its
//! first request is on the way: a new endpoint that never answers would draw
//! everything otherwise. For the same reason an abandoned call is a measurement
//! ([`Cost::observe_at_least`]): the response would have taken longer. The estimate also sinks
//! while nothing is sent, so a recovered endpoint is tried again.
//!
//! Responses faster than [`INDIFFERENT`] count as equally fast: the queue decides among
//! them. Without that one response of 8 ms among many of 2 ms would take an endpoint out
//! for seconds, which helps no caller and looks as if the endpoint were not in use.
//!
//! [`choose`] is the same draw among endpoints that are ejected, warm up or lie in another zone.
//!
//! Fast failures look attractive to a latency estimate, so an answer that failed counts
//! as a little slower than a good one of the best other endpoint would have been
//! ([`Cost::observe_failure`]). [`Cost::penalise`] is for an endpoint that could not be
//! reached at all.

use std::time::{Duration, Instant};

mod choose;
mod load;

pub use choose::{Candidate, Picked, choose};
pub use load::{FADES, Load, LoadReporter};

/// Longest time in which an estimate sinks to 1/e: of an endpoint that has answered alike
/// for so long. The value that peers with the same algorithm use for all.
pub(crate) const DECAY: Duration = Duration::from_secs(10);

/// The same of an endpoint that only just began to answer like that.
pub(crate) const FIRST_DECAY: Duration = Duration::from_secs(1);

/// Answers of which one took up to so many times as long as the other are alike.
const ALIKE: f64 = 4.0;

/// Below this, a difference in latency is the noise of a busy machine rather than
/// an endpoint that is slower.
pub(crate) const INDIFFERENT: Duration = Duration::from_millis(10);

/// What an endpoint counts as while its first requests are on the way: the
/// usual start value of peers with the same algorithm.
pub(crate) const ASSUMED_LATENCY: Duration = Duration::from_millis(30);

/// What a failure to reach an endpoint counts as: the time after which a connection attempt
/// would have been abandoned.
pub(crate) const PENALTY: Duration = Duration::from_secs(5);

/// What an answer that failed counts as, in times that a good one of another endpoint would
/// have taken. Few enough that the endpoint goes on to be asked, and a row of failures shows.
const A_LITTLE_SLOWER: f64 = 1.02;

/// Estimated latency of one endpoint (peak-sensitive moving average).
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cost {
    measured: Option<Measured>,
    /// Of good answers alone.
    good: Option<Measured>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Measured {
    seconds: f64,
    at: Instant,
    /// For how long answers had been alike then.
    known_for: Duration,
}

impl Measured {
    /// `before`, now that something has taken so long.
    fn after(before: Option<Self>, now: Instant, took: Duration) -> Self {
        let seen = took.as_secs_f64();
        let seconds = match before {
            Some(old) if seen < old.seconds => {
                let left = old.left(now);
                old.seconds * left + seen * (1.0 - left)
            }
            Some(_) | None => seen,
        };
        let alike = before.filter(|old| old.is_like(seen));
        Self {
            seconds,
            at: now,
            known_for: alike.map_or(Duration::ZERO, |old| old.known_until(now)),
        }
    }

    /// Whether an answer that took `seen` is one more of those that were seen last.
    fn is_like(&self, seen: f64) -> bool {
        let (least, most) = (seen.min(self.seconds), seen.max(self.seconds));
        most <= INDIFFERENT.as_secs_f64() || most <= least * ALIKE
    }

    fn known_until(&self, now: Instant) -> Duration {
        self.known_for + now.saturating_duration_since(self.at)
    }

    /// The part of an estimate that is left after the time since its last change.
    fn left(&self, now: Instant) -> f64 {
        let decay = self.known_for.clamp(FIRST_DECAY, DECAY);
        (-now.saturating_duration_since(self.at).as_secs_f64() / decay.as_secs_f64()).exp()
    }
}

impl Cost {
    pub fn new() -> Self {
        Self::default()
    }

    /// Records that the first byte of a good answer took `latency`.
    pub fn observe(&mut self, now: Instant, latency: Duration) {
        self.measured = Some(Measured::after(self.measured, now, latency));
        self.good = Some(Measured::after(self.good, now, latency));
    }

    /// Records that an answer came after `took` and was a failure. `elsewhere` is the least
    /// [`Cost::good_answer`] of other endpoints.
    pub fn observe_failure(&mut self, now: Instant, took: Duration, elsewhere: Option<Duration>) {
        let elsewhere = elsewhere.map_or(ASSUMED_LATENCY, |good| {
            good.mul_f64(A_LITTLE_SLOWER).min(PENALTY)
        });
        self.measured = Some(Measured::after(self.measured, now, took.max(elsewhere)));
    }

    /// Records that a request whose response had not started was abandoned after `waited`.
    /// That never lowers an estimate: a request that ends early measures no latency.
    pub fn observe_at_least(&mut self, now: Instant, waited: Duration) {
        let waited = waited.as_secs_f64();
        let measured = self.measured;
        let known = measured.map(|measured| measured.seconds * measured.left(now));
        if known.is_none_or(|known| waited > known) {
            // A caller that waits for less time than a measured response has seen nothing new.
            let alike = measured.filter(|old| waited <= old.seconds * ALIKE);
            self.measured = Some(Measured {
                seconds: waited,
                at: now,
                known_for: alike.map_or(Duration::ZERO, |old| old.known_until(now)),
            });
        }
    }

    /// Records that the endpoint could not be reached.
    pub fn penalise(&mut self, now: Instant) {
        self.measured = Some(Measured::after(self.measured, now, PENALTY));
    }

    /// How long a good answer would take, behind those that wait.
    #[must_use]
    pub fn good_answer(&self, now: Instant, in_flight: usize) -> Duration {
        let alone = self.good.map_or(ASSUMED_LATENCY.as_secs_f64(), |good| {
            good.seconds * good.left(now)
        });
        let seconds = alone * (in_flight as f64 + 1.0);
        Duration::from_secs_f64(seconds.min(PENALTY.as_secs_f64()))
    }

    /// Lower is better. `in_flight` counts requests without an answer so far.
    pub fn score(&self, now: Instant, in_flight: usize) -> f64 {
        let waiting = in_flight as f64 + 1.0;
        match self.measured {
            Some(measured) => {
                let seconds = measured.seconds * measured.left(now);
                seconds.max(INDIFFERENT.as_secs_f64()) * waiting
            }
            None if in_flight == 0 => 0.0,
            None => ASSUMED_LATENCY.as_secs_f64() * waiting,
        }
    }
}

/// The better of two different indices below `len`, drawn with `random` (both
/// uniform over all of `u64`). Equal scores leave it to the draw. `None` when
/// there is nothing to pick from.
pub fn pick(scores: impl Fn(usize) -> f64, len: usize, random: (u64, u64)) -> Option<usize> {
    match len {
        0 => None,
        1 => Some(0),
        _ => {
            let first = below(len, random.0);
            let second = below(len - 1, random.1);
            // Skips the first, so that both are different.
            let second = if second >= first { second + 1 } else { second };
            Some(if scores(second) < scores(first) {
                second
            } else {
                first
            })
        }
    }
}

/// A uniform number as one from 0 to 1, without 1.
#[must_use]
pub fn unit(random: u64) -> f64 {
    // As many bits as an f64 holds.
    (random >> 11) as f64 / (1u64 << 53) as f64
}

/// Scales a uniform number to 0..len.
fn below(len: usize, random: u64) -> usize {
    ((u128::from(random) * len as u128) >> 64) as usize
}

#[cfg(test)]
mod tests;
