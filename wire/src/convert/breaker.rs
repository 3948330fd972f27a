//! Breaker reports of proxies about calls to a Service, and the state that they get back.

use std::time::Duration;

use policy::breaker::{Pulse, Steer};

use crate::v1;
use crate::v1::circuit_state::State;

/// What one proxy did.
#[must_use]
pub fn circuit_pulse(circuit: v1::Circuit, pulse: Pulse) -> v1::CircuitPulse {
    let Pulse {
        sent,
        failed,
        refused,
        probes,
        failed_probes,
        sent_probes,
    } = pulse;
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

impl From<&v1::CircuitPulse> for Pulse {
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
pub fn circuit_state(circuit: v1::Circuit, steer: Steer) -> v1::CircuitState {
    let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
    let (state, every, since) = match steer {
        Steer::Closed => (State::Closed, 0, 0),
        Steer::Open => (State::Open, 0, 0),
        Steer::Probing { every } => (State::Probing, millis(every), 0),
        Steer::Closing { since } => (State::Closing, 0, millis(since)),
    };
    v1::CircuitState {
        circuit: Some(circuit),
        state: state.into(),
        every,
        since,
    }
}

impl From<&v1::CircuitState> for Steer {
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
        for steer in [
            Steer::Closed,
            Steer::Open,
            Steer::Probing { every },
            Steer::Closing { since: every },
        ] {
            assert_eq!(Steer::from(&circuit_state(circuit(), steer)), steer);
        }
        let newer = v1::CircuitState {
            state: 99,
            ..v1::CircuitState::default()
        };
        assert_eq!(Steer::from(&newer), Steer::Closed);
        let pulse = Pulse {
            sent: 1,
            failed: 2,
            refused: 3,
            probes: 4,
            failed_probes: 5,
            sent_probes: 6,
        };
        assert_eq!(Pulse::from(&circuit_pulse(circuit(), pulse)), pulse);
    }
}
