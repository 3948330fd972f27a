//! What the proxy counts.
//!
//! Labels are closed sets or names of cluster objects; a path, header, address
//! or error text never becomes one. A series that nobody touched for ten
//! minutes is left out of the next scrape and forgotten, so that pods and
//! Services which are gone do not stay for ever. A counter that comes back
//! starts at zero, which every consumer of counters understands.

use std::fmt::Debug;
use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::settings::Settings;
use crate::telemetry::compatibility::Compatibility;
use crate::telemetry::labels::{
    AuditLabels, ByteLabels, CancelledLabels, ConnectionLabels, Direction, LatencyLabels,
    LimitLabels, RequestLabels, TcpLabels, TlsLabels,
};
use crate::telemetry::memory::Memory;
use crate::telemetry::series::{Series, Shared};

/// Every metric of the proxy.
#[derive(Clone, Debug)]
pub struct Metrics {
    pub requests: Series<RequestLabels, Counter>,
    pub cancelled: Series<CancelledLabels, Counter>,
    pub latency: Series<LatencyLabels, Histogram>,
    pub connections: Series<ConnectionLabels, Counter>,
    pub tcp: Series<TcpLabels, Counter>,
    pub bytes: Series<ByteLabels, Counter>,
    pub audit: Series<AuditLabels, Counter>,
    pub tls_failures: Series<TlsLabels, Counter>,
    pub limits: Series<LimitLabels, Counter>,
    pub open_connections: Gauge,
    pub unknown_destinations: Counter,
    pub certificate_expiry: Gauge,
    pub certificate_failures: Counter,
    pub control_connected: Gauge,
    pub batches: Counter,
    pub nacks: Counter,
    pub destinations: Gauge,
    /// Series under other meshes' names, off unless asked for.
    pub compatibility: Option<Compatibility>,
    /// Bounds that all families share.
    pub shared: Shared,
}

impl Metrics {
    pub fn register(registry: &mut Registry) -> Self {
        let began = Instant::now();
        let shared = Shared::default();
        macro_rules! series {
            ($name:literal, $help:literal, $unit:expr, $make:expr) => {{
                let series = Series::new($name, $help, $unit, began, $make, &shared);
                registry.register_collector(Box::new(series.clone()));
                series
            }};
        }
        let metrics = Self {
            // Counted when the caller has its answer in full, so attempts at
            // several endpoints do not inflate it.
            requests: series!(
                "weft_requests",
                "Requests by final outcome",
                None,
                Counter::default
            ),
            // Counted in no other family: nobody got an answer that could be judged.
            cancelled: series!(
                "weft_requests_cancelled",
                "Requests whose caller left before the head of an answer",
                None,
                Counter::default
            ),
            latency: series!(
                "weft_request_duration",
                "Time from request to the head of the answer",
                Some(Unit::Seconds),
                || Histogram::new(policy::latency::BOUNDS)
            ),
            connections: series!(
                "weft_connections",
                "Connections accepted",
                None,
                Counter::default
            ),
            tcp: series!(
                "weft_tcp_connections",
                "Opaque connections by outcome",
                None,
                Counter::default
            ),
            bytes: series!(
                "weft_tcp_bytes",
                "Bytes of opaque connections",
                None,
                Counter::default
            ),
            audit: series!(
                "weft_audit_refusals",
                "Calls that deny would have refused, let through by audit",
                None,
                Counter::default
            ),
            tls_failures: series!(
                "weft_tls_failures",
                "Mesh connections whose TLS handshake did not succeed",
                None,
                Counter::default
            ),
            limits: series!(
                "weft_limit_reached",
                "Times that a bound was reached",
                None,
                Counter::default
            ),
            open_connections: Gauge::default(),
            unknown_destinations: Counter::default(),
            certificate_expiry: Gauge::default(),
            certificate_failures: Counter::default(),
            control_connected: Gauge::default(),
            batches: Counter::default(),
            nacks: Counter::default(),
            destinations: Gauge::default(),
            compatibility: None,
            shared: shared.clone(),
        };
        registry.register_collector(Box::new(Memory));
        runtime::metrics::register(registry);
        registry.register(
            "weft_series_refused",
            "Samples of series beyond the bound",
            shared.refused,
        );
        registry.register(
            "weft_open_connections",
            "Connections being served",
            metrics.open_connections.clone(),
        );
        registry.register(
            "weft_unknown_destinations",
            "Calls to an address of which the controller had not told in time",
            metrics.unknown_destinations.clone(),
        );
        registry.register(
            "weft_certificate_expiry_timestamp_seconds",
            "When the certificate ends, Unix time",
            metrics.certificate_expiry.clone(),
        );
        registry.register(
            "weft_certificate_failures",
            "Failed attempts to get a certificate",
            metrics.certificate_failures.clone(),
        );
        registry.register(
            "weft_control_connected",
            "1 while a controller serves this proxy",
            metrics.control_connected.clone(),
        );
        registry.register(
            "weft_config_batches",
            "Batches of configuration applied",
            metrics.batches.clone(),
        );
        registry.register(
            "weft_config_nacks",
            "Resources that could not be used",
            metrics.nacks.clone(),
        );
        registry.register(
            "weft_destinations",
            "Destinations held",
            metrics.destinations.clone(),
        );
        metrics
    }

    /// Adds the series that the settings ask for beyond Weft's own.
    #[must_use]
    pub fn compatible(mut self, registry: &mut Registry, settings: &Settings) -> Self {
        self.compatibility = settings.compatibility.as_ref().map(|asked| {
            let (namespace, pod) = (&settings.namespace, &settings.pod);
            Compatibility::register(registry, asked, namespace, pod, &self.shared)
        });
        self
    }

    /// Counts a mesh connection that TLS refused.
    pub fn tls_failed(&self, direction: Direction, reason: &'static str) {
        self.tls_failures.at(&TlsLabels { direction, reason }).inc();
    }

    /// Counts that a named bound was reached.
    pub fn limit(&self, limit: &'static str) {
        self.limits(limit, 1);
    }

    /// The same for so many at once.
    pub fn limits(&self, limit: &'static str, times: u64) {
        if times > 0 {
            self.limits.at(&LimitLabels { limit }).inc_by(times);
        }
    }
}
