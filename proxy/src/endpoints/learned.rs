//! What this proxy has learned of an endpoint from what it sent there: how long its answers
//! take, and whether it may be sent anything at all.
//!
//! Both stand under one lock, which is taken when an endpoint is looked at and when an
//! attempt ended.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use policy::balance::{Candidate, Cost};
use policy::health::{Health, Seen, Stance, Told};
use policy::traffic::endpoint::Ejection;
use policy::traffic::without_object;

/// The clock of everything that is learned. Tests stop and move it.
pub(super) fn now() -> Instant {
    tokio::time::Instant::now().into_std()
}

/// What one pick goes by.
#[derive(Clone, Copy, Debug)]
pub struct Draw<'a> {
    /// Endpoints that failed the call already.
    pub tried: &'a [SocketAddr],
    /// The call may be tried again elsewhere if the endpoint fails it.
    pub may_retry: bool,
    pub ejection: &'a Ejection,
    /// How long a new or returning endpoint takes to its full share.
    pub warmup: Duration,
}

impl Draw<'static> {
    /// Of a call of which no policy says anything.
    pub const DEFAULT: Self = Self {
        tried: &[],
        may_retry: false,
        ejection: &without_object::EJECTION,
        warmup: without_object::BALANCE.warmup,
    };
}

impl Draw<'_> {
    /// Whether endpoints rest at all.
    const fn ejects(&self) -> bool {
        self.ejection.consecutive_failures > 0
    }
}

/// What an attempt says of how fast its endpoint answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Latency {
    /// The head of the answer came after this time.
    Head(Duration),
    /// The same of an answer that failed; `elsewhere` is what a good one of another endpoint
    /// would have taken.
    FailedHead {
        took: Duration,
        elsewhere: Option<Duration>,
    },
    /// It was not reached, or had no answer.
    Failed,
    /// It was told before.
    Told,
}

/// What was learned of one endpoint.
#[derive(Debug)]
pub(super) struct Learned {
    pub(super) cost: Cost,
    pub(super) health: Health,
}

impl Learned {
    pub(super) fn new() -> Self {
        Self {
            cost: Cost::new(),
            health: Health::new(now(), None),
        }
    }

    /// What the endpoint is to a call that goes by `draw`. `forgiven` is told when it
    /// rested and need not any more.
    pub(super) fn look(
        &mut self,
        now: Instant,
        in_flight: usize,
        draw: &Draw<'_>,
        forgiven: impl FnOnce(),
    ) -> Candidate {
        if !draw.ejects() && self.health.rests() {
            self.health.forgive();
            forgiven();
        }
        match self.health.stance(now, draw.may_retry, draw.warmup) {
            Stance::Works(share) => Candidate::Works {
                score: self.cost.score(now, in_flight),
                share,
                load: 0,
            },
            Stance::ProbeDue => Candidate::Probe,
            Stance::Rests => Candidate::Rests,
        }
    }

    /// An attempt ended. `seen` is `None` where that says nothing of the endpoint.
    pub(super) fn record(
        &mut self,
        now: Instant,
        latency: Latency,
        seen: Option<Seen>,
        probe: bool,
        ejection: &Ejection,
    ) -> Told {
        match latency {
            Latency::Head(took) => self.cost.observe(now, took),
            Latency::FailedHead { took, elsewhere } => {
                self.cost.observe_failure(now, took, elsewhere);
            }
            Latency::Failed => self.cost.penalise(now),
            Latency::Told => {}
        }
        match seen {
            Some(seen) => self
                .health
                .record(now, seen, probe, ejection, rand::random()),
            None => Told::Nothing,
        }
    }
}
