//! Breaker reports: sends the controller the results of calls to Services with a breaker and the
//! offered load of shared rate limits, and receives the state of the fleet's breakers.
//!
//! The proxy sends one report a second while there are such calls or limits. Without any, no timer
//! runs.
//!
//! Claims: calls-68

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use policy::breaker::FleetBreakerState;
use policy::limit::offered::Offered;
use tokio::time::{Instant, sleep_until};
use wire::convert::circuit_counts;
use wire::names::Name;
use wire::v1;

use crate::config::store::Store;
use crate::endpoints::circuit::{Circuits, DecidedBy};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);

/// When the next look is due.
#[derive(Debug)]
pub(super) struct BreakerReports {
    next: Instant,
    /// The offered load that this stream has reported, by limit.
    reported: HashMap<v1::ShareOf, Offered>,
}

impl BreakerReports {
    /// For a new stream. What happened while no stream was open is not reported.
    pub(super) fn begin(config: &Store) -> Self {
        drop(take(config));
        Self {
            next: Instant::now() + EVERY,
            reported: HashMap::new(),
        }
    }

    /// Returns when there is something to look at, a second after the last time. Nothing is
    /// lost if it is dropped before.
    pub(super) async fn due(&mut self, config: &Store) {
        if !config.has_shared_limits() {
            config.registry.circuits_in_use().await;
        }
        sleep_until(self.next).await;
        self.next = Instant::now() + EVERY;
    }

    /// The offered load that this stream has not reported; `None`: none.
    pub(super) fn offered(&mut self, config: &Store) -> Option<v1::OfferedLoads> {
        let all = config.offered();
        self.reported
            .retain(|of, _| all.iter().any(|(known, _)| known == of));
        let mut loads = Vec::new();
        for (of, offered) in all {
            if offered.differs_from(self.reported.get(&of).copied()) {
                loads.push(v1::OfferedLoad {
                    of: Some(of.clone()),
                    thousandths: offered.thousandths,
                    refused: offered.refused,
                });
                self.reported.insert(of, offered);
            }
        }
        (!loads.is_empty()).then_some(v1::OfferedLoads { loads })
    }
}

/// Takes over the state that the controller sends.
pub(super) fn apply_fleet_states(config: &Store, fleet_states: &v1::Steer) {
    for state in &fleet_states.states {
        let Some(circuit) = &state.circuit else {
            continue;
        };
        let (Ok(port), Some((namespace, name))) =
            (u16::try_from(circuit.port), circuit.backend.split_once('/'))
        else {
            continue;
        };
        let endpoints = wire::names::endpoints(namespace, name, port);
        if let Some(of_endpoints) = config.registry.existing_circuits(&endpoints) {
            let by = DecidedBy {
                service: circuit.service.as_str().into(),
                port,
            };
            of_endpoints.set_fleet_state(&by, FleetBreakerState::from(state));
        }
    }
}

/// The stream has ended: the last state holds for a while.
pub(super) fn lost(config: &Store) {
    let lost = |_: &str, of_endpoints: &Circuits| of_endpoints.controller_lost();
    config.registry.each_circuits(lost);
}

/// What has happened since the last time; `None`: nothing. Shows the breakers as they are.
pub(super) fn take(config: &Store) -> Option<v1::Pulse> {
    let mut circuits = Vec::new();
    config.registry.each_circuits(|name, of_endpoints| {
        let Some(Name::Endpoints {
            namespace,
            name,
            port,
        }) = wire::names::parse(name)
        else {
            return;
        };
        let backend: Arc<str> = format!("{namespace}/{name}").into();
        of_endpoints.report(|reading| {
            let metrics = &config.telemetry.metrics;
            metrics.circuit(&reading.by.service, &backend, reading.state);
            let Some(counts) = reading.counts else { return };
            // A message names one port of both Services: with another one it would be about
            // another policy. Such a breaker is this proxy's own.
            if reading.by.port != port {
                return;
            }
            let circuit = v1::Circuit {
                service: reading.by.service.to_string(),
                backend: backend.to_string(),
                port: port.into(),
            };
            circuits.push(circuit_counts(circuit, counts));
        });
    });
    (!circuits.is_empty()).then_some(v1::Pulse { circuits })
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use policy::access_log::AccessLog;
    use policy::breaker::own::Admit;
    use policy::traffic::endpoint::Breaker;
    use prometheus_client::registry::Registry;
    use tokio::time::timeout;

    use super::*;
    use crate::endpoints::learned::now;
    use crate::telemetry::Telemetry;
    use crate::telemetry::metrics::Metrics;

    const NAME: &str = "endpoints/shop/api:80";

    fn config() -> Store {
        let metrics = Metrics::register(&mut Registry::default());
        Store::new(Arc::new(Telemetry::new(metrics, AccessLog::OFF)))
    }

    fn by() -> DecidedBy {
        DecidedBy {
            service: "shop/root".into(),
            port: 80,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_reporter_runs_every_second_after_first_call() {
        let config = config();
        let circuits = config.registry.circuits(NAME);
        let mut breaker_reports = BreakerReports::begin(&config);
        let hour = Duration::from_secs(3600);
        assert!(timeout(hour, breaker_reports.due(&config)).await.is_err());
        circuits.admit(&by(), &Breaker::DEFAULT);
        let started = Instant::now();
        for second in 0..3 {
            breaker_reports.due(&config).await;
            assert_eq!(started.elapsed(), EVERY * second);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn events_without_a_stream_are_not_reported() {
        let config = config();
        let circuits = config.registry.circuits(NAME);
        circuits.record(&by(), &Breaker::DEFAULT, now(), true);
        let _breaker_reports = BreakerReports::begin(&config);
        assert_eq!(take(&config), None);
        circuits.record(&by(), &Breaker::DEFAULT, now(), false);
        let taken = take(&config).unwrap().circuits;
        assert_eq!((taken[0].sent, taken[0].failed), (1, 0));
        let circuit = taken[0].circuit.as_ref().unwrap();
        assert_eq!(
            (&*circuit.service, &*circuit.backend),
            ("shop/root", "shop/api")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn breaker_decided_by_another_port_is_not_shared() {
        let config = config();
        let circuits = config.registry.circuits(NAME);
        let by = DecidedBy { port: 8080, ..by() };
        circuits.record(&by, &Breaker::DEFAULT, now(), true);
        let _breaker_reports = BreakerReports::begin(&config);
        circuits.record(&by, &Breaker::DEFAULT, now(), true);
        assert_eq!(take(&config), None);
    }

    /// The own breaker acts on it as on any failure.
    #[tokio::test(start_paused = true)]
    async fn attempts_harmed_by_experiments_are_not_reported() {
        let config = config();
        let circuits = config.registry.circuits(NAME);
        let settings = Breaker::DEFAULT;
        for _ in 0..settings.min_requests {
            circuits.record_injected(&by(), &settings, now(), true);
        }
        assert_eq!(take(&config), None);
        let refused = circuits.admit(&by(), &settings).0;
        assert_eq!(refused, Admit::Refuse);
        circuits.record(&by(), &settings, now(), true);
        let taken = take(&config).unwrap().circuits;
        assert_eq!((taken[0].sent, taken[0].failed), (1, 1));
    }

    #[tokio::test(start_paused = true)]
    async fn fleet_state_applies_to_named_calls_and_skips_unknown() {
        let config = config();
        let circuits = config.registry.circuits(NAME);
        let open = |service: &str, backend: &str, port| v1::CircuitState {
            circuit: Some(v1::Circuit {
                service: service.to_owned(),
                backend: backend.to_owned(),
                port,
            }),
            state: v1::circuit_state::State::Open.into(),
            ..v1::CircuitState::default()
        };
        let states = vec![
            open("shop/root", "shop/other", 80),
            open("shop/root", "nonsense", 80),
            open("shop/root", "shop/api", 80 + (1 << 16)),
            open("shop/api", "shop/api", 80),
            v1::CircuitState::default(),
        ];
        apply_fleet_states(&config, &v1::Steer { states });
        let admit = || circuits.admit(&by(), &Breaker::DEFAULT).0;
        assert_eq!(admit(), Admit::Pass);
        let states = vec![open("shop/root", "shop/api", 80)];
        apply_fleet_states(&config, &v1::Steer { states });
        assert_eq!(admit(), Admit::Refuse);
        lost(&config);
        tokio::time::advance(Duration::from_secs(15)).await;
        assert_eq!(admit(), Admit::Pass);
    }
}
