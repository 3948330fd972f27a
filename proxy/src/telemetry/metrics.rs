//! The metrics of the proxy, and their registration.
//!
//! Labels are closed sets or names of cluster objects; a path, header, address or error text never
//! becomes one. A series that was idle for ten minutes is dropped from the next scrape and
//! forgotten, so that pods and Services that no longer exist do not stay for ever. A counter that
//! comes back starts at zero, which every consumer of counters understands.

use std::fmt;
use std::sync::Arc;

use policy::breaker::own::ShownState;
use policy::fault::Effect;
use policy::health::EjectedFor;
use policy::reason::Reason;
use policy::retry::RetryOutcome;
use policy::traffic::call::Cause;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::{Registry, Unit};

use crate::settings::{self, Own};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallCounters, CellKey};
use crate::telemetry::compatibility::Compatibility;
use crate::telemetry::families::CallFamilies;
use crate::telemetry::fault_sums::FaultSums;
use crate::telemetry::labels::{
    BreakerLabels, ConnectionLabels, ContextLabels, Direction, EjectionLabels, FallbackLabels,
    FaultLabels, LimitLabels, LocalityLabels, MirrorLabels, OverloadLabels, OverrideLabels,
    RateLimitedLabels, RetryLabels, ShadowLabels, ShedLabels, SpanLabels, TelemetryDroppedLabels,
    ThrottledLabels, TlsLabels,
};
use crate::telemetry::series::{Series, Shared};
use crate::telemetry::startup::Startup;

/// Every metric of the proxy.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// What is made of cells.
    pub calls: CallFamilies,
    pub connections: Series<ConnectionLabels, Counter>,
    pub tls_failures: Series<TlsLabels, Counter>,
    pub revoked_refusals: Counter,
    pub limits: Series<LimitLabels, Counter>,
    pub retries: Series<RetryLabels, Counter>,
    pub ejections: Series<EjectionLabels, Counter>,
    /// 0: closed, 1: part of the calls pass, 2: open.
    pub breaker_state: Series<BreakerLabels, Gauge>,
    pub fallbacks: Series<FallbackLabels, Counter>,
    pub locality: Series<LocalityLabels, Counter>,
    pub mirrored: Series<MirrorLabels, Counter>,
    /// What FaultExperiments did to attempts.
    pub faults: Series<FaultLabels, Counter>,
    /// The same by run, for reports.
    pub fault_sums: FaultSums,
    pub contexts: Series<ContextLabels, Counter>,
    pub overrides: Series<OverrideLabels, Counter>,
    pub rate_limited: Series<RateLimitedLabels, Counter>,
    /// Which a peer marks as having to do with copies.
    pub shadow_requests: Series<ShadowLabels, Counter>,
    pub shed: Series<ShedLabels, Counter>,
    /// Calls of the application that were not sent, since their backend sheds most of them.
    pub throttled: Series<ThrottledLabels, Counter>,
    /// Requests that may be in flight; 0: any number, and no caller holds back.
    pub overload_limit: Series<OverloadLabels, Gauge>,
    pub spans: Series<SpanLabels, Counter>,
    pub telemetry_dropped: Series<TelemetryDroppedLabels, Counter>,
    /// Ejected endpoints.
    pub ejected: Gauge,
    pub open_connections: Gauge,
    pub unknown_destinations: Counter,
    /// Calls outside the mesh that `weft.dev/egress: deny` would refuse.
    pub audit_egress: Counter,
    /// Times in headers that were none.
    pub unreadable_times: Counter,
    /// Loads in headers that were none.
    pub unreadable_loads: Counter,
    pub certificate_expiry: Gauge,
    pub certificate_failures: Counter,
    pub control_connected: Gauge,
    /// Queries of the controller that are being answered.
    pub live_queries: Gauge,
    pub batches: Counter,
    pub nacks: Counter,
    pub destinations: Gauge,
    pub startup: Startup,
    /// Bounds that all families share.
    pub shared: Shared,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let metrics = Self::new(Shared::default());
        registry.register_collector(Box::new(Memory));
        runtime::metrics::register(registry);
        for (name, help, counter) in metrics.counters() {
            registry.register(name, help, counter.clone());
        }
        for (name, help, gauge) in metrics.gauges() {
            registry.register(name, help, gauge.clone());
        }
        registry.register_collector(Box::new(metrics.calls.clone()));
        registry.register_collector(Box::new(metrics.connections.clone()));
        registry.register_collector(Box::new(metrics.tls_failures.clone()));
        registry.register_collector(Box::new(metrics.limits.clone()));
        registry.register_collector(Box::new(metrics.retries.clone()));
        registry.register_collector(Box::new(metrics.ejections.clone()));
        registry.register_collector(Box::new(metrics.breaker_state.clone()));
        registry.register_collector(Box::new(metrics.fallbacks.clone()));
        registry.register_collector(Box::new(metrics.locality.clone()));
        registry.register_collector(Box::new(metrics.mirrored.clone()));
        registry.register_collector(Box::new(metrics.faults.clone()));
        registry.register_collector(Box::new(metrics.contexts.clone()));
        registry.register_collector(Box::new(metrics.overrides.clone()));
        registry.register_collector(Box::new(metrics.rate_limited.clone()));
        registry.register_collector(Box::new(metrics.shadow_requests.clone()));
        registry.register_collector(Box::new(metrics.shed.clone()));
        registry.register_collector(Box::new(metrics.throttled.clone()));
        registry.register_collector(Box::new(metrics.overload_limit.clone()));
        registry.register_collector(Box::new(metrics.spans.clone()));
        registry.register_collector(Box::new(metrics.telemetry_dropped.clone()));
        registry.register_collector(Box::new(metrics.startup.clone()));
        metrics
    }

    fn new(shared: Shared) -> Self {
        let limits = shared.counters("weft_limit_reached", "Times that a bound was reached");
        Self {
            calls: CallFamilies::new(&shared, &limits),
            connections: shared.counters("weft_connections", "Connections accepted"),
            tls_failures: shared.counters(
                "weft_tls_failures",
                "Mesh connections whose TLS handshake did not succeed",
            ),
            limits,
            retries: shared.counters(
                "weft_retries",
                "Requests that were tried again, and those that were not for want of something",
            ),
            ejections: shared.counters("weft_ejections", "Times that an endpoint began to rest"),
            breaker_state: shared.gauges(
                "weft_breaker_state",
                "Whether calls are sent: 0 all, 1 a part that grows, 2 none but probes",
            ),
            fallbacks: shared.counters(
                "weft_fallbacks",
                "Calls that failed and that something else was to answer",
            ),
            locality: shared.counters(
                "weft_locality_requests",
                "Requests and connections sent to Services that are to be called near by",
            ),
            mirrored: shared.counters(
                "weft_mirrored",
                "Copies of requests that a TrafficPolicy asked for",
            ),
            faults: shared.counters(
                "weft_faults",
                "Attempts of calls that a FaultExperiment harmed",
            ),
            fault_sums: FaultSums::default(),
            contexts: shared.counters(
                "weft_context",
                "Calls of the application, by how it is known what they are made for",
            ),
            overrides: shared.counters(
                "weft_overrides",
                "Calls that a request wished to go to another Service",
            ),
            rate_limited: shared.counters(
                "weft_rate_limited",
                "Requests and connections to the pod beyond a limit of a TrafficPolicy",
            ),
            shadow_requests: shared.counters(
                "weft_shadow_requests",
                "Requests to the pod that their callers' proxies call copies, or made for one",
            ),
            shed: shared.counters(
                "weft_shed",
                "Requests to the pod that its application had no room for",
            ),
            throttled: shared.counters(
                "weft_throttled",
                "Calls held back because their backend sheds most of such calls",
            ),
            overload_limit: shared.gauges(
                "weft_overload_limit",
                "Requests that the application may have at once while some are shed or held back; 0: any number",
            ),
            spans: shared.counters("weft_spans", "Spans of traces, by what became of them"),
            telemetry_dropped: shared.counters(
                "weft_telemetry_dropped",
                "What was to be sent to a collector and was not",
            ),
            revoked_refusals: Counter::default(),
            ejected: Gauge::default(),
            open_connections: Gauge::default(),
            unknown_destinations: Counter::default(),
            audit_egress: Counter::default(),
            unreadable_times: Counter::default(),
            unreadable_loads: Counter::default(),
            certificate_expiry: Gauge::default(),
            certificate_failures: Counter::default(),
            control_connected: Gauge::default(),
            live_queries: Gauge::default(),
            batches: Counter::default(),
            nacks: Counter::default(),
            destinations: Gauge::default(),
            startup: Startup::default(),
            shared,
        }
    }

    const fn counters(&self) -> [(&'static str, &'static str, &Counter); 9] {
        [
            (
                "weft_series_refused",
                "Samples of series beyond the bound",
                &self.shared.refused,
            ),
            (
                "weft_revoked_refusals",
                "Handshakes, requests and connections refused because a certificate is revoked",
                &self.revoked_refusals,
            ),
            (
                "weft_unknown_destinations",
                "Calls to an address that the controller had not sent in time",
                &self.unknown_destinations,
            ),
            (
                "weft_audit_egress",
                "Calls outside the mesh that no ExternalService gives, let through by audit",
                &self.audit_egress,
            ),
            (
                "weft_unreadable_times",
                "Requests with a grpc-timeout or weft-timeout that is no time, and was ignored",
                &self.unreadable_times,
            ),
            (
                "weft_unreadable_loads",
                "Answers of an application or a peer with a load that is none, and was ignored",
                &self.unreadable_loads,
            ),
            (
                "weft_certificate_failures",
                "Failed attempts to get a certificate",
                &self.certificate_failures,
            ),
            (
                "weft_config_batches",
                "Batches of configuration applied",
                &self.batches,
            ),
            (
                "weft_config_nacks",
                "Resources that could not be used",
                &self.nacks,
            ),
        ]
    }

    const fn gauges(&self) -> [(&'static str, &'static str, &Gauge); 6] {
        [
            (
                "weft_open_connections",
                "Connections being served",
                &self.open_connections,
            ),
            (
                "weft_certificate_expiry_timestamp_seconds",
                "When the certificate ends, Unix time",
                &self.certificate_expiry,
            ),
            (
                "weft_control_connected",
                "1 while a controller serves this proxy",
                &self.control_connected,
            ),
            (
                "weft_live_queries",
                "Live queries about this proxy that it answers",
                &self.live_queries,
            ),
            ("weft_destinations", "Destinations held", &self.destinations),
            (
                "weft_ejected_endpoints",
                "Endpoints that get no requests, or one probe, because others failed there",
                &self.ejected,
            ),
        ]
    }

    /// The cell in which calls of this way are counted.
    pub(crate) fn cell(&self, key: CellKey) -> Arc<CallCounters> {
        let (cell, placed) = self.calls.cells.find(key);
        if !placed {
            self.limit("cells");
        }
        cell
    }

    /// Adds the series that are configured beyond Weft's own.
    #[must_use]
    pub(crate) fn compatible(
        self,
        registry: &mut Registry,
        wanted: Option<&settings::Compatibility>,
        own: &Own,
    ) -> Self {
        if let Some(wanted) = wanted {
            self.calls.compatibility.get_or_init(|| {
                Compatibility::register(registry, wanted, &own.namespace, &own.pod, &self.shared)
            });
        }
        self
    }

    /// Counts that a call between these was tried again, or was not for this reason.
    pub(crate) fn retried(&self, call_ends: &CallEnds, outcome: RetryOutcome) {
        let labels = RetryLabels {
            service: call_ends.service(),
            backend: call_ends.backend(),
            outcome: outcome.as_str(),
        };
        self.retries.at(&labels).inc();
    }

    /// Counts that an endpoint of calls between these is ejected from now on.
    pub(crate) fn ejected(&self, call_ends: &CallEnds, cause: EjectedFor) {
        let labels = EjectionLabels {
            service: call_ends.service(),
            backend: call_ends.backend(),
            cause: cause.as_str(),
        };
        self.ejections.at(&labels).inc();
    }

    /// Counts that something else was to answer a call of the Service.
    pub(crate) fn fell_back(
        &self,
        service: Arc<str>,
        to: &str,
        when: Cause,
        outcome: &'static str,
    ) {
        let labels = FallbackLabels {
            service,
            fallback: to.into(),
            when: when.as_str(),
            outcome,
        };
        self.fallbacks.at(&labels).inc();
    }

    /// Counts what this experiment does to an attempt.
    pub(crate) fn harmed(&self, experiment: &Arc<str>, effect: Effect) {
        let (experiment, effect) = (Arc::clone(experiment), effect.as_str());
        self.faults.at(&FaultLabels { experiment, effect }).inc();
    }

    /// Shows what the breaker is now by which the policy of `service` decides.
    pub(crate) fn circuit(&self, service: &Arc<str>, backend: &Arc<str>, state: ShownState) {
        let (service, backend) = (Arc::clone(service), Arc::clone(backend));
        let labels = BreakerLabels { service, backend };
        let state = match state {
            ShownState::Closed => 0,
            ShownState::Closing => 1,
            ShownState::Open => 2,
        };
        self.breaker_state.at(&labels).set(state);
    }

    /// Counts a mesh connection that TLS refused.
    pub(crate) fn tls_failed(&self, direction: Direction, reason: &'static str) {
        self.tls_failures.at(&TlsLabels { direction, reason }).inc();
        if reason == Reason::Revoked.as_str() {
            self.revoked_refusals.inc();
        }
    }

    /// Counts a request whose time could not be read.
    pub(crate) fn read_time(&self, unreadable: bool) {
        if unreadable {
            self.unreadable_times.inc();
        }
    }

    /// Counts an answer with a load that is none.
    pub(crate) fn unreadable_load(&self) {
        self.unreadable_loads.inc();
    }

    /// Counts spans that the collector has.
    pub(crate) fn spans_exported(&self, count: usize) {
        self.count_spans("exported", count);
    }

    /// Counts what it will not have of `spans` or `logs`, and why.
    pub(crate) fn telemetry_dropped(
        &self,
        reason: &'static str,
        signal: &'static str,
        count: usize,
    ) {
        if count > 0 {
            let labels = TelemetryDroppedLabels { signal, reason };
            self.telemetry_dropped.at(&labels).inc_by(count as u64);
        }
        if signal == "spans" {
            self.count_spans("dropped", count);
        }
    }

    fn count_spans(&self, outcome: &'static str, count: usize) {
        if count > 0 {
            self.spans.at(&SpanLabels { outcome }).inc_by(count as u64);
        }
    }

    /// Counts that a named bound was reached.
    pub fn limit(&self, limit: &'static str) {
        self.limits.at(&LimitLabels { limit }).inc();
    }
}

/// How much memory the process holds, under the name that every Prometheus client library uses,
/// so that dashboards and tests find it. Reads the kernel's figure at every scrape.
#[derive(Clone, Copy, Debug, Default)]
struct Memory;

impl Collector for Memory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        // Without a figure of the kernel the metric is left out; zero would be a lie.
        let Some(bytes) = resident() else {
            return Ok(());
        };
        let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        gauge.encode(encoder.encode_descriptor(
            "process_resident_memory",
            "Memory that the process holds",
            Some(&Unit::Bytes),
            MetricType::Gauge,
        )?)
    }
}

/// Bytes that are in memory now, not swapped out.
pub(crate) fn resident() -> Option<u64> {
    of_status(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// Linux writes `VmRSS:   12345 kB` and means KiB.
fn of_status(status: &str) -> Option<u64> {
    let mut lines = status.lines();
    let line = lines.find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kibibytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kibibytes.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::{of_status, resident};

    #[test]
    fn resident_memory_is_read_in_bytes() {
        let status = "Name:\tweft-proxy\nVmHWM:\t  9000 kB\nVmRSS:\t  8040 kB\nThreads:\t2\n";
        assert_eq!(of_status(status), Some(8040 * 1024));
        assert_eq!(of_status("Name:\tkthread\n"), None);
    }

    #[test]
    fn a_running_process_holds_memory() {
        assert!(resident().is_some_and(|bytes| bytes > 1024 * 1024));
    }
}
