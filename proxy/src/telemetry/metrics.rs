//! What the proxy counts.
//!
//! Labels are closed sets or names of cluster objects; a path, header, address
//! or error text never becomes one. A series that nobody touched for ten
//! minutes is left out of the next scrape and forgotten, so that pods and
//! Services which are gone do not stay for ever. A counter that comes back
//! starts at zero, which every consumer of counters understands.

use std::collections::HashMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabelSet, EncodeLabelValue, EncodeMetric,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use crate::settings::Settings;
use crate::telemetry::memory::Memory;

pub use super::compatibility::Compatibility;
pub use super::ports::{Port, ServedPorts};

/// A series that nobody touched for this long is dropped at the next scrape.
const SERIES_IDLE: Duration = Duration::from_secs(600);
/// Series per family; beyond it a sample is counted in `weft_series_refused`.
/// 2000 series of one family are about 1 MiB.
const SERIES_LIMIT: usize = 2000;
/// The same for histograms, which are 27 lines each: 256 are about 1 MiB.
const HISTOGRAM_LIMIT: usize = 256;
/// Lines of a histogram on the page: its buckets, `+Inf`, sum and count.
const HISTOGRAM_LINES: usize = policy::latency::BOUNDS.len() + 3;
/// Bytes that the series of all families together may take on the page: a scraper
/// reads it in one piece, every few seconds, from every pod.
const PAGE_BYTES: usize = 4 * 1024 * 1024;
/// Bytes of a line beyond its labels: name and value.
const LINE_BYTES: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(
    non_camel_case_types,
    reason = "the derive makes label values from the names"
)]
pub enum Direction {
    inbound,
    outbound,
}

/// What protects a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
#[expect(
    non_camel_case_types,
    reason = "the derive makes label values from the names"
)]
pub enum Security {
    mtls,
    plaintext,
}

impl Security {
    #[must_use]
    pub const fn of(meshed: bool) -> Self {
        if meshed { Self::mtls } else { Self::plaintext }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RequestLabels {
    pub direction: Direction,
    /// Outbound: `namespace/name` of the Service called. Inbound: empty.
    pub service: Arc<str>,
    pub port: Port,
    /// Outbound: Service that a split chose, else the Service itself.
    pub backend: Arc<str>,
    /// Outbound: pod that answered. Inbound: `namespace/service-account` of the caller.
    pub peer: Arc<str>,
    pub security: Security,
    /// HTTP status, 0 when none was received.
    pub status: u16,
    pub success: bool,
    /// Why the mesh answered itself; empty when the application answered.
    pub reason: &'static str,
}

/// The same before there was an answer.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CancelledLabels {
    pub direction: Direction,
    pub service: Arc<str>,
    pub port: Port,
    pub backend: Arc<str>,
    pub peer: Arc<str>,
    pub security: Security,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LatencyLabels {
    pub direction: Direction,
    pub service: Arc<str>,
    pub port: Port,
    pub backend: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ConnectionLabels {
    pub direction: Direction,
    /// `http1`, `http2` or `opaque`.
    pub protocol: &'static str,
    pub security: Security,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TcpLabels {
    pub direction: Direction,
    pub service: Arc<str>,
    pub port: Port,
    pub backend: Arc<str>,
    pub peer: Arc<str>,
    pub security: Security,
    /// Empty when the connection was served.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ByteLabels {
    pub direction: Direction,
    /// `sent` from the caller, `received` by the caller.
    pub flow: &'static str,
    pub security: Security,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct AuditLabels {
    pub direction: Direction,
    pub peer: Arc<str>,
    pub port: Port,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TlsLabels {
    pub direction: Direction,
    /// What was wrong with the peer's certificate, as `IdentityError::label` names it;
    /// else `timeout`, or `handshake` when there was no handshake.
    pub reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct LimitLabels {
    /// Name of the bound that was reached.
    pub limit: &'static str,
}

struct Timed<M> {
    metric: M,
    /// Bytes on the page.
    width: usize,
    /// Seconds since the family began.
    touched: AtomicU64,
}

/// A family whose idle series are forgotten.
pub struct Series<L, M> {
    name: &'static str,
    help: &'static str,
    unit: Option<Unit>,
    began: Instant,
    make: fn() -> M,
    limit: usize,
    /// Lines of one series on the page.
    lines: usize,
    shared: Shared,
    map: Arc<RwLock<HashMap<L, Arc<Timed<M>>>>>,
}

/// What all families share.
#[derive(Clone, Debug, Default)]
pub struct Shared {
    /// Samples beyond the bounds.
    refused: Counter,
    /// Bytes that their series take on the page, within [`PAGE_BYTES`].
    page: Arc<AtomicUsize>,
}

impl<L, M> Clone for Series<L, M> {
    fn clone(&self) -> Self {
        Self {
            name: self.name,
            help: self.help,
            unit: self.unit.clone(),
            began: self.began,
            make: self.make,
            limit: self.limit,
            lines: self.lines,
            shared: self.shared.clone(),
            map: Arc::clone(&self.map),
        }
    }
}

impl<L, M> Debug for Series<L, M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Series")
            .field("name", &self.name)
            .finish_non_exhaustive()
    }
}

impl<L: Clone + Hash + Eq + Debug, M: Clone + Typed> Series<L, M> {
    pub(super) fn new(
        name: &'static str,
        help: &'static str,
        unit: Option<Unit>,
        began: Instant,
        make: fn() -> M,
        shared: &Shared,
    ) -> Self {
        let histogram = matches!(M::TYPE, MetricType::Histogram);
        Self {
            name,
            help,
            unit,
            began,
            make,
            limit: if histogram {
                HISTOGRAM_LIMIT
            } else {
                SERIES_LIMIT
            },
            lines: if histogram { HISTOGRAM_LINES } else { 1 },
            shared: shared.clone(),
            map: Arc::default(),
        }
    }

    /// The metric for these labels, made at first use.
    pub fn at(&self, labels: &L) -> M {
        let now = self.began.elapsed().as_secs();
        if let Some(timed) = self.map.read().get(labels) {
            timed.touched.store(now, Ordering::Relaxed);
            return timed.metric.clone();
        }
        let mut map = self.map.write();
        if let Some(timed) = map.get(labels) {
            return timed.metric.clone();
        }
        // As good as what a scrape will write, and known without a scrape.
        let width = self.lines * (LINE_BYTES + format!("{labels:?}").len());
        let page = &self.shared.page;
        if map.len() >= self.limit || page.load(Ordering::Relaxed) + width > PAGE_BYTES {
            self.shared.refused.inc();
            return (self.make)();
        }
        page.fetch_add(width, Ordering::Relaxed);
        let timed = Arc::new(Timed {
            metric: (self.make)(),
            width,
            touched: AtomicU64::new(now),
        });
        let metric = timed.metric.clone();
        map.insert(labels.clone(), timed);
        metric
    }

    fn forget_idle(&self) {
        let now = self.began.elapsed().as_secs();
        self.map.write().retain(|_, timed| {
            let idle = now.saturating_sub(timed.touched.load(Ordering::Relaxed));
            let keep = idle < SERIES_IDLE.as_secs();
            if !keep {
                self.shared.page.fetch_sub(timed.width, Ordering::Relaxed);
            }
            keep
        });
    }
}

/// The kind of metric that a family holds.
pub trait Typed {
    const TYPE: MetricType;
}

impl Typed for Counter {
    const TYPE: MetricType = MetricType::Counter;
}

impl Typed for Histogram {
    const TYPE: MetricType = MetricType::Histogram;
}

impl<L, M> Collector for Series<L, M>
where
    L: Clone + Hash + Eq + EncodeLabelSet + Debug + Send + Sync + 'static,
    M: Clone + EncodeMetric + Typed + Debug + Send + Sync + 'static,
{
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        self.forget_idle();
        let map = self.map.read();
        if map.is_empty() {
            return Ok(());
        }
        let mut family =
            encoder.encode_descriptor(self.name, self.help, self.unit.as_ref(), M::TYPE)?;
        for (labels, timed) in map.iter() {
            timed.metric.encode(family.encode_family(labels)?)?;
        }
        Ok(())
    }
}

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
        self.limits.at(&LimitLabels { limit }).inc();
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::registry::Registry;

    use std::sync::Arc;
    use std::sync::atomic::Ordering;

    use super::{
        Direction, HISTOGRAM_LIMIT, LatencyLabels, LimitLabels, Metrics, PAGE_BYTES, Port,
        RequestLabels, SERIES_IDLE, SERIES_LIMIT, Security,
    };

    fn scrape(registry: &Registry) -> String {
        let mut text = String::new();
        encode(&mut text, registry).unwrap();
        text
    }

    #[test]
    fn a_series_shows_its_labels_and_value() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.limit("connections");
        metrics.limit("connections");
        assert!(scrape(&registry).contains("weft_limit_reached_total{limit=\"connections\"} 2"));
    }

    #[test]
    fn page_is_bounded_however_many_series_and_however_long_their_names() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        let long = "n".repeat(120);
        for at in 0..SERIES_LIMIT + 100 {
            let service: Arc<str> = format!("{long}/{at}").into();
            let direction = Direction::outbound;
            let port = Port::Number(80);
            let labels = LatencyLabels {
                direction,
                service: Arc::clone(&service),
                port,
                backend: Arc::clone(&service),
            };
            metrics.latency.at(&labels).observe(0.001);
            let labels = RequestLabels {
                direction,
                service: Arc::clone(&service),
                port,
                backend: Arc::clone(&service),
                peer: service,
                security: Security::plaintext,
                status: 200,
                success: true,
                reason: "unknown-destination",
            };
            metrics.requests.at(&labels).inc();
        }
        let page = scrape(&registry);
        assert!(page.len() < PAGE_BYTES, "{}", page.len());
        let held = |name: &str| page.matches(name).count();
        assert_eq!(
            held("weft_request_duration_seconds_count{"),
            HISTOGRAM_LIMIT
        );
        assert!(held("weft_requests_total{") > 1000, "most are counted");
        // What is forgotten makes room.
        let mut later = metrics.latency.clone();
        later.began -= SERIES_IDLE * 2;
        let before = metrics.shared.page.load(Ordering::Relaxed);
        later.forget_idle();
        assert!(metrics.shared.page.load(Ordering::Relaxed) < before / 2);
    }

    #[test]
    fn a_series_that_nobody_touched_for_ten_minutes_is_forgotten() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        metrics.limit("old");
        let mut later = metrics.limits.clone();
        later.began -= SERIES_IDLE - std::time::Duration::from_secs(5);
        later.at(&LimitLabels { limit: "young" }).inc();
        later.forget_idle();
        assert_eq!(
            scrape(&registry)
                .matches("weft_limit_reached_total{")
                .count(),
            2
        );
        later.began -= std::time::Duration::from_secs(10);
        later.forget_idle();
        let text = scrape(&registry);
        assert!(
            text.contains("limit=\"young\"") && !text.contains("limit=\"old\""),
            "{text}"
        );
    }

    #[test]
    fn series_beyond_the_bound_are_refused_and_counted() {
        let mut registry = Registry::default();
        let metrics = Metrics::register(&mut registry);
        for at in 0..SERIES_LIMIT + 5 {
            let name: &'static str = Box::leak(format!("l{at}").into_boxed_str());
            metrics.limits.at(&LimitLabels { limit: name }).inc();
        }
        let text = scrape(&registry);
        assert_eq!(
            text.matches("weft_limit_reached_total{").count(),
            SERIES_LIMIT
        );
        assert!(text.contains("weft_series_refused_total 5"));
    }
}
