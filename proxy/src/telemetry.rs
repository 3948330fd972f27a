//! Telemetry of the proxy's calls: metrics, reports to the controller, the access log, spans of
//! traces.
//!
//! Imports `failure`, `http`, `net` and `settings`.

pub(crate) mod access_log;
pub(crate) mod call;
pub(crate) mod call_ends;
pub(crate) mod cell;
pub(crate) mod cells;
pub(crate) mod compatibility;
pub(crate) mod early;
pub(crate) mod families;
pub(crate) mod fault_sums;
pub(crate) mod histogram;
pub(crate) mod label_limits;
pub(crate) mod labels;
pub(crate) mod metrics;
pub(crate) mod report;
pub(crate) mod series;
pub(crate) mod served;
pub(crate) mod startup;
pub(crate) mod tap;
pub(crate) mod trace;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

use arc_swap::ArcSwap;
use policy::access_log::AccessLog;
use policy::protocol::Protocol;

use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallCounters, CallGroup, CellKey};
use crate::telemetry::early::EarlyReports;
use crate::telemetry::label_limits::{LackedPorts, Remotes, ServedPorts};
use crate::telemetry::labels::{Direction, Port};
use crate::telemetry::metrics::Metrics;
use crate::telemetry::report::Reports;
use crate::telemetry::tap::Taps;
use crate::telemetry::trace::Tracer;

/// Where a call is reported when it ends.
#[derive(Debug)]
pub struct Telemetry {
    pub metrics: Metrics,
    pub reports: Reports,
    pub early: EarlyReports,
    /// What the proxy was started with for its access log.
    started: AccessLog,
    /// What holds now: bits of an [`AccessLog`].
    access_log: AtomicU8,
    /// Which requests are recorded as spans, and where those wait.
    pub(crate) tracer: Tracer,
    /// What is outside the mesh, by name or address.
    pub(crate) remotes: Remotes,
    /// Requests that a client watches.
    pub(crate) taps: Arc<Taps>,
    served: ServedPorts,
    /// Ports that Services lack.
    pub(crate) lacked: LackedPorts,
    /// Ports of the own pod that are declared.
    declared: ArcSwap<BTreeSet<u16>>,
}

impl Telemetry {
    #[must_use]
    pub fn new(metrics: Metrics, access_log: AccessLog) -> Self {
        Self {
            reports: Reports::new(metrics.clone()),
            early: EarlyReports::new(metrics.clone()),
            started: access_log,
            access_log: access_log.bits().into(),
            tracer: Tracer::default(),
            remotes: Remotes::default(),
            taps: Arc::default(),
            served: ServedPorts::default(),
            lacked: LackedPorts::default(),
            declared: ArcSwap::default(),
            metrics,
        }
    }

    /// The same of a Gateway.
    #[must_use]
    pub(crate) fn of_gateway(self) -> Self {
        Self {
            reports: self.reports.of_gateway(),
            ..self
        }
    }

    /// Which requests are written down.
    pub(crate) fn access_log(&self) -> AccessLog {
        AccessLog::from_bits(self.access_log.load(Relaxed))
    }

    /// What of them holds from now on; `None`: what the proxy was started with.
    pub(crate) fn log_as(&self, configured: Option<AccessLog>) {
        let bits = configured.unwrap_or(self.started).bits();
        self.access_log.store(bits, Relaxed);
    }

    /// Takes over which ports of the own pod are declared.
    pub fn declare(&self, ports: Arc<BTreeSet<u16>>) {
        self.declared.store(ports);
    }

    /// The cell of calls between these ends.
    pub(crate) fn cell(&self, call_ends: CallEnds, protocol: Protocol) -> Arc<CallCounters> {
        self.cell_of(CellKey {
            call_ends,
            protocol,
            route: None,
            group: CallGroup::None,
        })
    }

    /// The cell of a way to the port that was called.
    pub(crate) fn cell_of(&self, key: CellKey) -> Arc<CallCounters> {
        let CellKey {
            call_ends,
            protocol,
            route,
            group,
        } = key;
        let port = self.port_label(
            call_ends.direction(),
            call_ends.service_name(),
            call_ends.port(),
            false,
        );
        self.metrics.cell(CellKey {
            call_ends: call_ends.at_port(port.number()),
            protocol,
            route,
            group,
        })
    }

    /// How `port` is counted: by its number where it is declared or was ever served, `served`
    /// being the change. `service` is empty inbound and for what is called by its own address.
    #[must_use]
    pub(crate) fn port_label(
        &self,
        direction: Direction,
        service: &str,
        port: u16,
        served: bool,
    ) -> Port {
        let declared = match direction {
            Direction::inbound => self.declared.load().contains(&port),
            Direction::outbound => !service.is_empty(),
        };
        if declared {
            return Port::Number(port);
        }
        match self.served.note(direction, port, served) {
            Some(true) => Port::Number(port),
            Some(false) => Port::Other,
            None => {
                self.metrics.limit("served-ports");
                Port::Other
            }
        }
    }
}
