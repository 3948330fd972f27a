//! Converts breaker reports of proxies, and the state of fleet breakers that they get back.

use std::time::Duration;

use policy::breaker::{BreakerCounts, FleetBreakerState};

use crate::v1;
use crate::v1::circuit_state::State;

/// What one proxy did.
#[must_use]
pub fn circuit_counts(circuit: v1::Circuit, counts: BreakerCounts) -> v1::CircuitPulse {
    let BreakerCounts {
        sent,
        failed,
        refused,
        probes,
        failed_probes,
        sent_probes,
    } = counts;
    v1::CircuitPulse {
        circuit: Some(circuit),
        sent,
        failed,
        refused,
        probes,
        failed_probes,
        begun: sent_probes,
    }
}

impl From<&v1::CircuitPulse> for BreakerCounts {
    fn from(message: &v1::CircuitPulse) -> Self {
        Self {
            sent: message.sent,
            failed: message.failed,
            refused: message.refused,
            probes: message.probes,
            failed_probes: message.failed_probes,
            sent_probes: message.begun,
        }
    }
}

/// The state that proxies get.
#[must_use]
pub fn circuit_state(circuit: v1::Circuit, fleet_state: FleetBreakerState) -> v1::CircuitState {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (state, every, since) = match fleet_state {
        FleetBreakerState::Closed => (State::Closed, 0, 0),
        FleetBreakerState::Open => (State::Open, 0, 0),
        FleetBreakerState::Probing { every } => (State::Probing, millis(every), 0),
        FleetBreakerState::Closing { since } => (State::Closing, 0, millis(since)),
    };
    v1::CircuitState {
        circuit: Some(circuit),
        state: state.into(),
        every,
        since,
    }
}

impl From<&v1::CircuitState> for FleetBreakerState {
    fn from(message: &v1::CircuitState) -> Self {
        match message.state() {
            State::Closed => Self::Closed,
            State::Open => Self::Open,
            State::Probing => Self::Probing {
                every: Duration::from_millis(message.every),
            },
            State::Closing => Self::Closing {
                since: Duration::from_millis(message.since),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn breaker_state_survives_wire_and_unknown_is_closed() {
        let circuit = v1::Circuit::default;
        let every = Duration::from_millis(1200);
        for fleet_state in [
            FleetBreakerState::Closed,
            FleetBreakerState::Open,
            FleetBreakerState::Probing { every },
            FleetBreakerState::Closing { since: every },
        ] {
            assert_eq!(
                FleetBreakerState::from(&circuit_state(circuit(), fleet_state)),
                fleet_state
            );
        }
        let newer = v1::CircuitState {
            state: 99,
            ..v1::CircuitState::default()
        };
        assert_eq!(FleetBreakerState::from(&newer), FleetBreakerState::Closed);
        let counts = BreakerCounts {
            sent: 1,
            failed: 2,
            refused: 3,
            probes: 4,
            failed_probes: 5,
            sent_probes: 6,
        };
        assert_eq!(
            BreakerCounts::from(&circuit_counts(circuit(), counts)),
            counts
        );
    }
}
