//! The controller's metrics. Labels are closed sets, or names of namespaces that lose their series
//! when there is nothing to report about them.
//!
//! May import nothing else of this crate.

pub(crate) mod automation;
pub(crate) mod certificates;
mod certify;
mod register;
pub(crate) mod service_graph;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use runtime::limit::Reached;

use self::automation::AutomationMetrics;
use self::certificates::CertificateMetrics;
pub(crate) use self::certify::CertifyMetrics;
pub use self::certify::CertifyResult;
use self::service_graph::ServiceGraphMetrics;

/// Everything, handed to the parts that count.
#[derive(Clone, Debug, Default)]
pub struct Metrics {
    /// Answers to Certify.
    pub certify: CertifyMetrics,
    /// Streams to proxies.
    pub stream: StreamMetrics,
    /// The authority.
    pub authority: AuthorityMetrics,
    /// Connections to the gRPC port.
    pub connections: ConnectionMetrics,
    /// What was seen of the cluster.
    pub world: WorldMetrics,
    /// Objects brought into the storage version.
    pub storage: StorageMetrics,
    /// What is known about proxies.
    pub observed: ObservedMetrics,
    /// Statuses written.
    pub statuses: Counter,
    /// Trust bundles written.
    pub bundles: Counter,
    /// NetworkPolicies written and withdrawn.
    pub network_policies: Counter,
    /// Objects of Gateways written.
    pub gateway_objects: Counter,
    /// Certificates that Gateways serve.
    pub certificates: CertificateMetrics,
    /// Events that were lost: no room in the queue, refused, or not taken in time.
    pub events_dropped: Counter,
    /// 1 while this replica holds the lease.
    pub leader: Gauge,
    /// Other replicas that this one receives reports from.
    pub peers: Gauge,
    /// What proxies report.
    pub reports: ReportMetrics,
    /// The metrics API.
    pub api: ApiMetrics,
    /// The service graph.
    pub graph: GraphMetrics,
    /// The same for tools that draw one.
    pub service_graph: ServiceGraphMetrics,
    /// The read API.
    pub observe: ObserveMetrics,
    /// Queries to live proxies.
    pub live_queries: LiveQueryMetrics,
    /// Releases.
    pub automation: AutomationMetrics,
    /// Hosts outside the mesh.
    pub names: NameMetrics,
    /// Bounds that were reached.
    pub limits: Reached,
}

/// Hosts outside the mesh.
#[derive(Clone, Debug, Default)]
pub struct NameMetrics {
    /// Hosts that are looked up.
    pub hosts: Gauge,
    /// Lookups.
    pub lookups: Counter,
    /// Those that failed.
    pub failed: Counter,
}

/// The service graph.
#[derive(Clone, Debug, Default)]
pub struct GraphMetrics {
    /// Edges that are known.
    pub edges: Gauge,
    /// Edges that are persisted.
    pub persisted: Gauge,
    /// Bytes of what was counted.
    pub bytes: Gauge,
    /// Seconds of computing that folding took.
    pub fold_seconds: Counter<f64, AtomicU64>,
    /// Times that this node's clock was set.
    pub clock_sets: Counter,
    dropped: Family<DroppedLabel, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabel {
    what: &'static str,
}

impl GraphMetrics {
    /// Counts what went for want of room: `edge`, `minute`, `persisted`, `unwritten` or
    /// `exported`.
    pub fn dropped(&self, what: &'static str, count: u64) {
        if count > 0 {
            self.dropped
                .get_or_create(&DroppedLabel { what })
                .inc_by(count);
        }
    }

    /// How much of that went so far.
    #[cfg(test)]
    pub(crate) fn times_dropped(&self, what: &'static str) -> u64 {
        self.dropped.get_or_create(&DroppedLabel { what }).get()
    }
}

/// The read API.
#[derive(Clone, Debug, Default)]
pub struct ObserveMetrics {
    answers: Family<ResourceLabel, Counter>,
    /// Lists that did not fit into one answer.
    pub lists_cut: Counter,
    /// Streams that are open.
    pub streams: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResourceLabel {
    resource: &'static str,
    status: u16,
}

impl ObserveMetrics {
    /// Counts one answer.
    pub fn answered(&self, resource: &'static str, status: u16) {
        let label = ResourceLabel { resource, status };
        self.answers.get_or_create(&label).inc();
    }

    /// How many there were.
    #[cfg(test)]
    pub(crate) fn times_answered(&self, resource: &'static str, status: u16) -> u64 {
        let label = ResourceLabel { resource, status };
        self.answers.get_or_create(&label).get()
    }
}

/// Queries to live proxies.
#[derive(Clone, Debug, Default)]
pub struct LiveQueryMetrics {
    /// Queries that are open, with those of other replicas.
    pub open: Gauge,
    /// Answers that found no room where they wait for their reader.
    pub answers_dropped: Counter,
    /// Queries, and ends of queries, that found no room on their way to a proxy or another replica.
    pub orders_dropped: Counter,
}

/// What proxies report.
#[derive(Clone, Debug, Default)]
pub struct ReportMetrics {
    taken: Family<ReportLabel, Counter>,
    /// Edges that are held.
    pub edges: Gauge,
    /// Bytes that they take at most.
    pub bytes: Gauge,
    /// Intervals of a pod that went early because it, or all, held too much.
    pub intervals_dropped: Counter,
}

/// What became of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportOutcome {
    /// It counts.
    Taken,
    /// It was held already.
    Known,
    /// Its interval is too old, lies ahead, or is none.
    OutOfTime,
    /// It has more edges or longer names than a proxy of ours sends.
    TooLarge,
    /// A name in it is none of Kubernetes.
    Malformed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReportLabel {
    outcome: &'static str,
}

impl ReportMetrics {
    /// Counts one report.
    pub fn count(&self, outcome: ReportOutcome) {
        self.taken.get_or_create(&report_label(outcome)).inc();
    }

    /// Reports with this outcome so far.
    pub fn reports(&self, outcome: ReportOutcome) -> u64 {
        self.taken.get_or_create(&report_label(outcome)).get()
    }
}

fn report_label(outcome: ReportOutcome) -> ReportLabel {
    let outcome = match outcome {
        ReportOutcome::Taken => "taken",
        ReportOutcome::Known => "known",
        ReportOutcome::OutOfTime => "out-of-time",
        ReportOutcome::TooLarge => "too-large",
        ReportOutcome::Malformed => "malformed",
    };
    ReportLabel { outcome }
}

/// The metrics API.
#[derive(Clone, Debug, Default)]
pub struct ApiMetrics {
    answers: Family<StatusLabel, Counter>,
    /// Connections that were closed or rejected because too many were open.
    pub turned_away: Counter,
    /// Kinds of objects whose first list is not there yet.
    pub unlisted: Gauge,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StatusLabel {
    status: u16,
}

impl ApiMetrics {
    /// Counts one answer with this HTTP status.
    pub fn answered(&self, status: u16) {
        self.answers.get_or_create(&StatusLabel { status }).inc();
    }

    /// How many there were.
    #[cfg(test)]
    pub(crate) fn times_answered(&self, status: u16) -> u64 {
        self.answers.get_or_create(&StatusLabel { status }).get()
    }
}

/// Objects that were stored in an older version.
#[derive(Clone, Debug, Default)]
pub struct StorageMetrics {
    /// Objects written anew.
    pub rewritten: Counter,
    /// Objects that could not be written.
    pub failed: Counter,
}

/// What is known about proxies.
#[derive(Clone, Debug, Default)]
pub struct ObservedMetrics {
    /// Proxies without a stream whose last state is kept.
    pub away: Gauge,
    /// Such proxies that did not fit.
    pub away_forgotten: Counter,
    /// Destinations that are remembered.
    pub destinations: Gauge,
    /// Remembered destinations that went because there were too many.
    pub destinations_forgotten: Counter,
}

/// Streams to proxies.
#[derive(Clone, Debug)]
pub struct StreamMetrics {
    /// Open streams.
    pub open: Gauge,
    /// Batches sent.
    pub batches: Counter,
    /// Resources sent.
    pub resources: Counter,
    /// Resources that a proxy could not use.
    pub nacks: Counter,
    /// Destinations skipped because a proxy requested too many.
    pub left_out: Counter,
    /// From sending a batch to its answer, seconds.
    pub answer_seconds: Histogram,
}

impl Default for StreamMetrics {
    fn default() -> Self {
        let buckets = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 30.0];
        Self {
            open: Gauge::default(),
            batches: Counter::default(),
            resources: Counter::default(),
            nacks: Counter::default(),
            left_out: Counter::default(),
            answer_seconds: Histogram::new(buckets),
        }
    }
}

/// The authority's remaining life, seconds, negative once it has ended; and what was put over it.
#[derive(Clone, Debug, Default)]
pub struct AuthorityMetrics {
    /// Of the root that ends first.
    pub root_seconds: Gauge,
    /// Of the issuer; 0 while none can be used.
    pub issuer_seconds: Gauge,
    /// Of this replica's own certificate.
    pub serving_seconds: Gauge,
    /// Contents of the Secret that were not taken: without a root in use, of an earlier step, or
    /// unusable.
    pub reverts: Counter,
    /// Phase of the rotation, by the holder of the Lease: 0 none, then in their order.
    pub rotation_phase: Gauge,
    /// Proxies that trust the first root, by the holder of the Lease.
    pub proxies_trust: Gauge,
}

/// Connections to the gRPC port.
#[derive(Clone, Debug, Default)]
pub struct ConnectionMetrics {
    /// Open connections, with those in their handshake.
    pub open: Gauge,
    /// Handshakes that failed or took too long.
    pub handshakes_failed: Counter,
    /// Connections that were rejected or closed because too many were open or came.
    pub turned_away: Counter,
}

/// What was seen of the cluster.
#[derive(Clone, Debug, Default)]
pub struct WorldMetrics {
    unreadable: Family<KindLabel, Counter>,
    failing: Family<KindLabel, Gauge>,
    skipped_ports: Family<NamespaceLabel, Gauge>,
}

/// A kind that the controller watches.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: String,
}

/// One of the cluster's namespaces.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct NamespaceLabel {
    namespace: String,
}

impl WorldMetrics {
    /// Counts an object of this kind that could not be read and was skipped.
    pub fn left_out(&self, kind: &str) {
        self.unreadable.get_or_create(&of_kind(kind)).inc();
    }

    /// How often an object of this kind was skipped.
    #[cfg(test)]
    pub(crate) fn times_left_out(&self, kind: &str) -> u64 {
        self.unreadable.get_or_create(&of_kind(kind)).get()
    }

    /// Sets for how long lists and watches of this kind have kept failing.
    pub fn set_failing(&self, kind: &str, lasts: Duration) {
        let seconds = i64::try_from(lasts.as_secs()).unwrap_or(i64::MAX);
        self.failing.get_or_create(&of_kind(kind)).set(seconds);
    }

    /// For how many seconds they have.
    #[cfg(test)]
    pub(crate) fn failing_seconds(&self, kind: &str) -> i64 {
        self.failing.get_or_create(&of_kind(kind)).get()
    }

    /// Sets the number of skipped ports per namespace. Namespaces that are not
    /// named lose their series, so there are never more than namespaces with
    /// such pods.
    pub fn set_skipped_ports(
        &self,
        before: &BTreeMap<Arc<str>, u64>,
        now: &BTreeMap<Arc<str>, u64>,
    ) {
        let label = |namespace: &Arc<str>| NamespaceLabel {
            namespace: namespace.to_string(),
        };
        for namespace in before.keys().filter(|name| !now.contains_key(*name)) {
            self.skipped_ports.remove(&label(namespace));
        }
        for (namespace, ports) in now {
            let ports = i64::try_from(*ports).unwrap_or(i64::MAX);
            self.skipped_ports
                .get_or_create(&label(namespace))
                .set(ports);
        }
    }
}

fn of_kind(kind: &str) -> KindLabel {
    KindLabel {
        kind: kind.to_owned(),
    }
}
