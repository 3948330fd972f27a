//! One fleet breaker on this replica: the policy that configures it, the proxies that report, and
//! its phase.

use std::sync::Arc;
use std::time::SystemTime;

use model::compiled::Compiled;
use model::world::{ObjectKey, object};
use policy::breaker::fleet::Fleet as Sums;
use policy::breaker::{BreakerCounts, FleetBreakerState};
use policy::name::{Kind, ObjectRef};
use policy::origin::Origin;
use policy::traffic::endpoint::{Breaker as Settings, BreakerState};
use tokio::time::Instant;

use super::announced::{AnnouncedState, Caller, Key};

/// What a policy says of it.
#[derive(Clone, Debug)]
pub(super) struct Decision {
    settings: Settings,
    object: ObjectRef,
}

impl Decision {
    /// Whether the policy itself says that no call is sent there.
    pub(super) fn is_written_open(&self) -> bool {
        self.settings.state == BreakerState::Open
    }

    /// `None` where no policy has a breaker for it, or nothing leads there.
    pub(super) fn about(key: &Key, compiled: &Compiled) -> Option<Self> {
        let index = &compiled.model.index;
        let policies = index.policies.of(&key.service, key.port)?;
        let (Some(settings), Some(origin)) = policies.traffic.breaker.decide(None) else {
            return None;
        };
        // By a split or a route, or where requests may choose it.
        if key.backend != key.service && !policies.leads_to.contains(&key.backend) {
            let service = index.services.get(&key.service)?;
            service.leads_to(&key.backend).then_some(())?;
        }
        Some(Self {
            settings: *settings,
            object: policy_of(origin),
        })
    }
}

fn policy_of(origin: &Origin) -> ObjectRef {
    let key = ObjectKey {
        namespace: Arc::clone(origin.namespace()),
        name: Arc::clone(origin.name()),
    };
    object(Kind::TrafficPolicy, &key)
}

/// As a status names it; the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Closed,
    Probing,
    Open,
}

impl Phase {
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::Closed => "Closed",
            Self::Probing => "Probing",
            Self::Open => "Open",
        }
    }

    /// Whether calls are held back.
    pub(crate) const fn is_open(self) -> bool {
        matches!(self, Self::Open | Self::Probing)
    }
}

/// How a breaker fares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BreakerReport {
    pub(crate) state: Phase,
    /// When that began.
    pub(crate) since: SystemTime,
    pub(crate) failure_percent: u8,
    pub(crate) requests: u32,
    pub(crate) callers: usize,
}

/// What is known of one breaker.
#[derive(Debug)]
pub(super) struct KnownCircuit {
    sums: Sums<Arc<str>, Arc<str>>,
    decision: Decision,
    announced: Option<AnnouncedState>,
    phase: Phase,
    since: SystemTime,
    /// When a caller last reported.
    last_report: Instant,
}

impl KnownCircuit {
    pub(super) fn new(now: Instant, decision: Decision) -> Self {
        Self {
            sums: Sums::new(now.into_std()),
            decision,
            announced: None,
            phase: Phase::Closed,
            since: SystemTime::now(),
            last_report: now,
        }
    }

    pub(super) fn knows(&self, from: &Caller) -> bool {
        self.sums.knows(&from.uid)
    }

    /// Proxies that call it.
    pub(super) fn callers(&self) -> usize {
        self.sums.callers()
    }

    pub(super) fn add_counts(&mut self, now: Instant, from: &Caller, counts: BreakerCounts) {
        self.last_report = now;
        let (account, uid) = (&from.account, &from.uid);
        let settings = &self.decision.settings;
        self.sums
            .add_counts(now.into_std(), account, uid, counts, settings);
    }

    /// Goes on to what follows; false once there are no callers and nothing is held back.
    pub(super) fn tick(&mut self, now: Instant, clock: SystemTime, decision: Decision) -> bool {
        let at = now.into_std();
        let was = std::mem::replace(&mut self.decision, decision)
            .settings
            .state;
        let settings = &self.decision.settings;
        if was != BreakerState::Auto && settings.state == BreakerState::Auto {
            // What was seen while a state was written down is no change afterwards.
            self.sums = Sums::new(at);
        }
        self.sums.tick(at, settings);
        // A state that is written down is in the policy, where proxies read it.
        let fleet_state = match settings.state {
            BreakerState::Auto => self.sums.fleet_state(at),
            BreakerState::Open | BreakerState::Closed => FleetBreakerState::Closed,
        };
        self.announced = AnnouncedState::after(
            self.announced.take(),
            fleet_state,
            self.sums.sole_account(),
            now,
        );
        let phase = match (settings.state, fleet_state) {
            (BreakerState::Open, _) | (_, FleetBreakerState::Open) => Phase::Open,
            (_, FleetBreakerState::Probing { .. }) => Phase::Probing,
            (_, FleetBreakerState::Closed | FleetBreakerState::Closing { .. }) => Phase::Closed,
        };
        if phase != self.phase {
            (self.phase, self.since) = (phase, clock);
        }
        let is_recent = now.duration_since(self.last_report) <= settings.interval;
        is_recent || self.announced.is_some()
    }

    pub(super) const fn announced(&self) -> Option<&AnnouncedState> {
        self.announced.as_ref()
    }

    /// Whether the policy sets a state itself, and nothing is decided.
    pub(super) fn is_written(&self) -> bool {
        self.decision.settings.state != BreakerState::Auto
    }

    pub(super) const fn object(&self) -> &ObjectRef {
        &self.decision.object
    }

    pub(super) fn report(&self, now: Instant) -> BreakerReport {
        let report = self.sums.report(now.into_std(), &self.decision.settings);
        BreakerReport {
            state: self.phase,
            since: self.since,
            failure_percent: report.failure_percent,
            requests: report.requests,
            callers: report.callers,
        }
    }
}
