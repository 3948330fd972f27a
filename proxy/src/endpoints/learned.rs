//! What this proxy has measured of an endpoint by sending to it: latency, reported load, and
//! health, which decides whether it gets calls at all.
//!
//! All of it is under one lock, which is taken when an endpoint is considered for a call and when
//! an attempt has ended.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use policy::balance::{Candidate, Cost, Load};
use policy::health::{Health, HealthChange, HealthSignal, Probe, Status};
use policy::traffic::endpoint::{Balance, Ejection};
use policy::traffic::without_object;

/// The clock of everything that is learned. Tests stop and move it.
pub(crate) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// The load of an endpoint that fails all that it is sent, in percent: callers look elsewhere,
/// and so learn whether others do better.
const FAILING: u8 = 100;

/// What one pick goes by.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// Endpoints that failed the call already.
    pub tried: &'a [SocketAddr],
    /// It has not been tried anywhere: those of `tried` were passed over. Its route knows which
    /// endpoints there are.
    pub first: bool,
    /// The call may be tried again elsewhere if the endpoint fails it.
    pub may_retry: bool,
    pub ejection: &'a Ejection,
    pub balance: &'a Balance,
    pub fallback: Fallback,
}

/// Which endpoint takes a call where no untried one works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fallback {
    /// An ejected one: this proxy may be wrong about it.
    Ejected,
    /// None, nor is it a probe: the call has a response, which would be lost with it.
    NoEndpoint,
}

impl Draw<'static> {
    /// Of a call without a policy.
    pub const DEFAULT: Self = Self {
        tried: &[],
        first: true,
        may_retry: false,
        ejection: &without_object::EJECTION,
        balance: &without_object::BALANCE,
        fallback: Fallback::Ejected,
    };
}

impl Draw<'_> {
    /// Whether endpoints are ejected at all.
    const fn ejects(&self) -> bool {
        self.ejection.consecutive_failures > 0
    }
}

/// What an attempt shows of how fast its endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// The head of the answer came after this time.
    Head(Duration),
    /// The same of a response that was not good, whichever endpoint gave it; `elsewhere` is what
    /// a good one of another endpoint would have taken, which the set of endpoints finds out.
    FailedHead {
        took: Duration,
        elsewhere: Option<Duration>,
    },
    /// None came within this time, of which the endpoint had all.
    AtLeast(Duration),
    /// It was not reached, or had no answer.
    Failed,
    /// It was reported before.
    Recorded,
}

impl Latency {
    /// Of an answer whose head came after `took`. `good`: of the application, and no failure
    /// of its server. By anything else an endpoint must not seem fast.
    pub(crate) const fn of_head(took: Duration, good: bool) -> Self {
        if good {
            Self::Head(took)
        } else {
            Self::FailedHead {
                took,
                elsewhere: None,
            }
        }
    }
}

/// What was learned of one endpoint.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) cost: Cost,
    pub(super) health: Health,
    pub(super) load: Load,
}

impl Learned {
    pub(super) fn new() -> Self {
        Self {
            cost: Cost::new(),
            health: Health::new(now(), None),
            load: Load::default(),
        }
    }

    /// What the endpoint is to a call that goes by `draw`. Where that ejects no endpoint, it
    /// stays ejected for calls to other Services that have the same endpoint.
    pub(super) fn look(&self, now: Instant, in_flight: usize, draw: &Draw<'_>) -> Candidate {
        let status = if draw.ejects() {
            self.health.status(now, draw.may_retry, draw.balance.warmup)
        } else {
            Status::Works(self.health.share(now, draw.balance.warmup))
        };
        match status {
            Status::Works(share) => Candidate::Works {
                score: self.cost.score(now, in_flight),
                share,
                load: if self.health.is_failing(now, draw.ejection) {
                    FAILING
                } else {
                    self.load.percent(now)
                },
            },
            Status::ProbeDue | Status::Ejected if draw.fallback == Fallback::NoEndpoint => {
                Candidate::Out
            }
            Status::ProbeDue => Candidate::Probe,
            Status::Ejected => Candidate::Ejected,
        }
    }

    /// An attempt ended. `signal` is `None` where that shows nothing of the endpoint.
    pub(super) fn record(
        &mut self,
        now: Instant,
        latency: Latency,
        signal: Option<HealthSignal>,
        probe: Option<Probe>,
        ejection: &Ejection,
    ) -> HealthChange {
        match latency {
            Latency::Head(took) => self.cost.observe(now, took),
            Latency::FailedHead { took, elsewhere } => {
                self.cost.observe_failure(now, took, elsewhere);
            }
            Latency::AtLeast(waited) => self.cost.observe_at_least(now, waited),
            Latency::Failed => self.cost.penalise(now),
            Latency::Recorded => {}
        }
        if signal == Some(HealthSignal::Good) {
            self.load.served(now);
        }
        match signal {
            Some(signal) => self
                .health
                .record(now, signal, probe, ejection, rand::random()),
            None => HealthChange::Nothing,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There is one for each endpoint of each Service that was called: decision 0017.
    #[test]
    fn learned_endpoint_state_fits_in_192_bytes() {
        assert!(size_of::<Learned>() <= 192, "{}", size_of::<Learned>());
    }
}
