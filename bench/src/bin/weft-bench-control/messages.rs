//! Messages of the simulated proxies: reports of calls, and breaker reports.

use wire::v1;
use wire::v1::circuit_state::State;

use crate::cluster;

/// Calls of one proxy to one Service in a second.
const CALLS: u32 = 20;

/// Calls of a slot to one pod.
pub(crate) fn edge(service: usize, replica: usize) -> v1::Edge {
    let namespace = cluster::namespace_of(service);
    let name = full_name(service);
    v1::Edge {
        side: v1::Side::Client.into(),
        pod: format!("{namespace}/{}", cluster::pod_name(service, replica)),
        service: name.clone(),
        backend: name,
        port: cluster::PORT.into(),
        success: 9,
        failure: 1,
        attempts: Some(10),
        latency: vec![0, 0, 0, 4, 4, 2],
        sent: 4_000,
        received: 80_000,
        security: v1::Security::Mtls.into(),
        protocol: v1::Protocol::Http1.into(),
        ..v1::Edge::default()
    }
}

/// The breaker report of a proxy for one Service. `held_back`: its breaker is open there, so
/// that only a probe is sent.
pub(crate) fn of_service(service: usize, fails: bool, held_back: bool) -> v1::CircuitPulse {
    let name = full_name(service);
    let circuit = v1::Circuit {
        service: name.clone(),
        backend: name,
        port: cluster::PORT.into(),
    };
    let calls = if fails && held_back {
        v1::CircuitPulse {
            refused: CALLS,
            probes: 1,
            failed_probes: 1,
            begun: 1,
            ..v1::CircuitPulse::default()
        }
    } else {
        v1::CircuitPulse {
            sent: CALLS,
            failed: if fails { CALLS } else { 0 },
            ..v1::CircuitPulse::default()
        }
    };
    v1::CircuitPulse {
        circuit: Some(circuit),
        ..calls
    }
}

/// Whether calls are held back, if this is about any Service: calls to one alone fail.
pub(crate) fn holds_back(fleet_states: &v1::Steer) -> Option<bool> {
    let last = fleet_states.states.last()?;
    Some(last.state() != State::Closed)
}

fn full_name(service: usize) -> String {
    format!(
        "{}/{}",
        cluster::namespace_of(service),
        cluster::service_name(service)
    )
}
