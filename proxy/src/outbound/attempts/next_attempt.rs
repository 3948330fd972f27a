//! The next attempt of a call that failed: whether there is one, where it goes, and the wait
//! before it.

use std::time::Duration;

use policy::retry::{self, may_retry};

use super::failed::{Doubted, Failed};
use super::{Attempts, Chosen};
use crate::endpoints::endpoint::InFlight;
use crate::endpoints::learned::{Fallback, now};
use crate::http::client::exchange::UpstreamResponse;
use crate::outbound::attempt_outcome::AttemptOutcome;
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;

impl Attempts<'_> {
    /// No response came, of which an application may have seen the request. How long to wait
    /// before another endpoint is tried.
    pub(super) fn lost(
        &mut self,
        proxy: &Proxy,
        outgoing: &Outgoing,
        outcome: Option<AttemptOutcome>,
        call: &mut Call,
    ) -> Duration {
        let Some(AttemptOutcome::Ended(ended)) = outcome else {
            return Duration::ZERO;
        };
        let wait = match &self.chosen {
            // It was abandoned for that.
            Some(Chosen::Retried { wait, .. }) => Some(*wait),
            _ => self.again(proxy, &Failed::new(outgoing, ended), call),
        };
        match wait {
            Some(wait) => {
                self.over = false;
                call.attempt_failed();
                wait
            }
            None => Duration::ZERO,
        }
    }

    /// Whether a call that failed is tried again, elsewhere and after this time.
    pub(super) fn again(
        &mut self,
        proxy: &Proxy,
        failed: &Failed<'_>,
        call: &Call,
    ) -> Option<Duration> {
        match self.decide_next(proxy, failed) {
            retry::Next::Pass => None,
            retry::Next::Denied(outcome) => {
                call.retried(outcome);
                None
            }
            retry::Next::Retry { wait } => Some(wait),
        }
    }

    /// What follows a call that failed. A retry is chosen and paid for with that, and counts once
    /// it is made.
    pub(super) fn decide_next(&mut self, proxy: &Proxy, failed: &Failed<'_>) -> retry::Next {
        let Some(set) = self.route.choice.set() else {
            return retry::Next::Pass;
        };
        let refused = matches!(failed.ended, retry::Ended::Refused(_));
        if (!self.repeatable && !refused) || self.probes() || failed.outgoing.is_left() {
            return retry::Next::Pass;
        }
        // Before anything is paid for it: no other endpoint may be left.
        let Some(to) = self.choose(proxy, Fallback::NoEndpoint, failed.doubted) else {
            return retry::Next::Pass;
        };
        let attempted = self.attempted(failed);
        let now = now();
        let random = rand::random();
        let peers = set.peers();
        let next = may_retry(self.retry(), &attempted, &set.budget, now, peers, random);
        if let retry::Next::Retry { wait } = next {
            if refused {
                self.failovers.moved();
            }
            self.chosen = Some(Chosen::Retried { to, wait });
        }
        next
    }

    /// While a retry waited, its endpoint may have left the Service, be known as meshed by now,
    /// or be ejected: then it is chosen anew, and not made where none is left. `fallback` is
    /// which takes it where none works.
    pub(super) fn confirm(&mut self, proxy: &Proxy, fallback: Fallback) {
        // What is renewed waits for nothing.
        let Some(Chosen::Retried { to, wait }) = self.chosen.take() else {
            return;
        };
        let draw = self.draw(Fallback::NoEndpoint, &self.tried);
        let to = if self.route.choice.still_works(proxy, to.endpoint(), &draw) {
            Some(to)
        } else {
            // Those that work come first: one whose ejection is over would be drawn before them.
            let works = self.choose(proxy, Fallback::NoEndpoint, Doubted::Called);
            works.or_else(|| self.choose(proxy, fallback, Doubted::Called))
        };
        self.chosen = to.map(|to| Chosen::Retried { to, wait });
    }

    /// Waits before the next attempt. A response is let go only then: when no other endpoint is
    /// left by that time, the caller gets that one.
    pub(super) async fn wait_with(
        &mut self,
        proxy: &Proxy,
        pause: impl Future<Output = ()>,
        answer: UpstreamResponse,
        to: InFlight,
    ) -> Option<(UpstreamResponse, InFlight)> {
        pause.await;
        self.confirm(proxy, Fallback::NoEndpoint);
        self.chosen.is_none().then_some((answer, to))
    }
}
