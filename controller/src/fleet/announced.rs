//! The key of a fleet breaker (policy, Service and port), and the state of it that is sent to
//! proxies.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use model::world::ObjectKey;
use policy::breaker::FleetBreakerState;
use tokio::time::Instant;
use wire::v1;

/// The proxy that sends a breaker report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// Namespace/name of its service account.
    pub account: Arc<str>,
    /// Of its pod.
    pub uid: Arc<str>,
}

/// The calls that one policy decides about, to one port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key {
    /// The Service whose policy decides.
    pub(crate) service: ObjectKey,
    /// The Service that serves.
    pub(crate) backend: ObjectKey,
    pub(crate) port: u16,
}

impl Key {
    /// `None` for what names no port of a Service.
    pub(crate) fn read(message: &v1::Circuit) -> Option<Self> {
        let key = |text: &str| {
            let (namespace, name) = text.split_once('/')?;
            Some(ObjectKey::new(namespace, name))
        };
        Some(Self {
            service: key(&message.service)?,
            backend: key(&message.backend)?,
            port: u16::try_from(message.port).ok()?,
        })
    }

    pub(crate) fn message(&self) -> v1::Circuit {
        v1::Circuit {
            service: self.service.to_string(),
            backend: self.backend.to_string(),
            port: self.port.into(),
        }
    }
}

/// By breaker, those that are not simply closed.
pub(crate) type AnnouncedStates = Arc<BTreeMap<Key, AnnouncedState>>;

/// What is announced, and since when it holds: two are the same while no proxy needs the change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct AnnouncedState {
    fleet_state: FleetBreakerState,
    at: Instant,
    /// The account whose proxies get it; `None`: all.
    only: Option<Arc<str>>,
}

impl AnnouncedState {
    /// What was announced before, where there is no change: callers come and go, and the gap
    /// between two probes with them.
    pub(super) fn after(
        before: Option<Self>,
        fleet_state: FleetBreakerState,
        only: Option<&Arc<str>>,
        at: Instant,
    ) -> Option<Self> {
        if fleet_state == FleetBreakerState::Closed {
            return None;
        }
        let same = |before: &Self| {
            is_about(before.fleet_state, fleet_state) && before.only.as_ref() == only
        };
        let new = || Self {
            fleet_state,
            at,
            only: only.cloned(),
        };
        Some(before.filter(same).unwrap_or_else(new))
    }

    /// Whether it is announced to proxies of an account.
    pub(crate) fn is_for(&self, account: &str) -> bool {
        self.only.as_deref().is_none_or(|only| only == account)
    }

    /// As it is sent now.
    pub(crate) fn message(&self, circuit: &Key, now: Instant) -> v1::CircuitState {
        let fleet_state = match self.fleet_state {
            FleetBreakerState::Closing { since } => FleetBreakerState::Closing {
                since: since + now.duration_since(self.at),
            },
            other => other,
        };
        wire::convert::circuit_state(circuit.message(), fleet_state)
    }
}

/// Whether a proxy that got the one does nearly as with the other.
fn is_about(one: FleetBreakerState, other: FleetBreakerState) -> bool {
    match (one, other) {
        (FleetBreakerState::Closing { .. }, FleetBreakerState::Closing { .. }) => true,
        (
            FleetBreakerState::Probing { every: one },
            FleetBreakerState::Probing { every: other },
        ) => {
            let most: Duration = one.max(other);
            one.abs_diff(other) * 4 <= most
        }
        (one, other) => one == other,
    }
}

/// That a breaker is closed.
pub(crate) fn closed(circuit: &Key) -> v1::CircuitState {
    wire::convert::circuit_state(circuit.message(), FleetBreakerState::Closed)
}
