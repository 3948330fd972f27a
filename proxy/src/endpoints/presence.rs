//! Presence checks: whether the proxy of an endpoint that does not respond is still there.
//!
//! An endpoint that does not respond may be slow, or may have disappeared with its node, and the
//! next call there waits to find out which. So after one such call a check runs beside the calls,
//! which go to others meanwhile: [`super::endpoint::Endpoint::begin_presence_check`]. Whether the
//! endpoint fails is another matter, which `policy::health` decides (docs/decisions/0033).
//!
//! Claims: calls-62

use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use policy::health::HealthSignal;

use crate::endpoints::learned::Latency;

/// It has answered, or nothing else is known.
const ASSUMED: u8 = 0;
/// Nothing arrived where something was due.
const SUSPECTED: u8 = 1;
/// The same, or its ejection is over, and a task checks it.
const CHECKING: u8 = 2;
/// It gave a sign of life, and no call went there since.
const VOUCHED: u8 = 3;

#[derive(Debug, Default)]
pub(super) struct Presence(AtomicU8);

impl Presence {
    /// An attempt ended, or the head of its response came. One that failed with a response, or
    /// behind its head, shows neither, but a call was there.
    pub(super) fn learn(&self, latency: Latency, signal: Option<HealthSignal>) {
        match (latency, signal) {
            // Without anything seen it was this side's own failure, or a bound of the other's.
            (Latency::Failed, Some(_)) => self.suspect(),
            (Latency::Head(_), _) | (_, Some(HealthSignal::Good | HealthSignal::Reached)) => {
                self.alive()
            }
            (Latency::FailedHead { .. }, _) => {
                let _ = self.0.compare_exchange(VOUCHED, ASSUMED, Relaxed, Relaxed);
            }
            _ => {}
        }
    }

    fn alive(&self) {
        if self.0.load(Relaxed) != ASSUMED {
            self.0.store(ASSUMED, Relaxed);
        }
    }

    /// Nothing arrived. The next caller checks it.
    pub(super) fn suspect(&self) {
        if self.0.load(Relaxed) != CHECKING {
            self.0.store(SUSPECTED, Relaxed);
        }
    }

    pub(super) fn is_suspected(&self) -> bool {
        matches!(self.0.load(Relaxed), SUSPECTED | CHECKING)
    }

    /// The next call goes there, whatever became of the connection since: callers that seldom
    /// call would check for ever.
    pub(super) fn is_vouched(&self) -> bool {
        self.0.load(Relaxed) == VOUCHED
    }

    /// False: a check runs already.
    pub(super) fn begin_check(&self) -> bool {
        self.0.swap(CHECKING, Relaxed) != CHECKING
    }

    pub(super) fn vouch(&self) {
        self.0.store(VOUCHED, Relaxed);
    }

    /// No check runs any more. It is doubted unless something arrived.
    pub(super) fn end_check(&self) {
        let _ = self
            .0
            .compare_exchange(CHECKING, SUSPECTED, Relaxed, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn presence_check_runs_alone_until_sign_of_life() {
        let presence = Presence::default();
        assert!(!presence.is_suspected());
        presence.suspect();
        for _ in 0..2 {
            assert!(presence.is_suspected());
            assert!(presence.begin_check());
            presence.suspect();
            assert!(!presence.begin_check());
            assert!(presence.is_suspected());
            presence.end_check();
        }
        for alive in [Presence::alive, Presence::vouch] {
            assert!(presence.begin_check());
            alive(&presence);
            presence.end_check();
            assert!(!presence.is_suspected());
        }
        assert!(presence.is_vouched());
        presence.learn(Latency::Failed, None);
        assert!(presence.is_vouched());
        presence.learn(
            Latency::of_head(Duration::ZERO, false),
            Some(HealthSignal::Failed),
        );
        assert!(!presence.is_vouched() && !presence.is_suspected());
        presence.learn(Latency::Failed, Some(HealthSignal::Unreachable));
        assert!(presence.is_suspected() && !presence.is_vouched());
        presence.learn(Latency::Recorded, Some(HealthSignal::Good));
        assert!(!presence.is_suspected());
    }
}
