//! The service graph: which workloads called which in a window of time, how often, and with which
//! results.
//!
//! A request counts once, as its caller saw it. The called side's counts are given beside it as
//! `server`, or as `serverShared` for several edges together, and are never added.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer to `graphs/live`. On a stream the first one is whole, and each further one
/// (`metadata.changes`) holds what differs from the one before.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Graph {
    pub api_version: String,
    pub kind: String,
    pub metadata: GraphMetadata,
    pub nodes: Vec<Node>,
    pub edges: Vec<Edge>,
    /// Only on a stream: ids of nodes and edges that are no longer part of the answer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub removed: Vec<String>,
}

/// What the numbers of one answer belong to.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct GraphMetadata {
    /// End of the window, RFC 3339: what a stream is taken up from with `since`.
    pub end: String,
    /// Length of the window in seconds.
    pub window_seconds: u64,
    /// False while reports of the window may still come, or some had no room.
    pub complete: bool,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incomplete: Option<String>,
    /// The only reason is that reports of the last intervals may still come: nothing is lost, and
    /// every window that ends now has this.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unsettled: bool,
    /// Only what differs from the answer before; on streams.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub changes: bool,
    /// Set by the stream's last line: it ends here, and goes on with `since`.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
    /// RFC 3339; only where `history` requests more: minutes before this are not known, because
    /// the controller that answers began later, or had no room for them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub history_since: Option<String>,
    /// Edges and their minutes hold what the called side counted, for users that may read it. A
    /// controller of an older version returns neither that nor this.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sides: bool,
    /// Edges and nodes that had no place in the answer.
    #[serde(skip_serializing_if = "is_zero")]
    pub left_out: u64,
}

/// What a node stands for.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum NodeKind {
    CronJob,
    DaemonSet,
    Deployment,
    Job,
    Pod,
    ReplicaSet,
    ReplicationController,
    /// Of Argo.
    Rollout,
    StatefulSet,
    /// Called, and no endpoint was found.
    Service,
    /// A caller of the mesh whose pod is not known any more.
    ServiceAccount,
    /// A host or address outside the mesh that was called.
    External,
    /// Callers without an identity.
    Outside,
    /// Of a newer version.
    #[default]
    #[serde(other)]
    Unknown,
}

impl NodeKind {
    /// As JSON writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CronJob => "CronJob",
            Self::DaemonSet => "DaemonSet",
            Self::Deployment => "Deployment",
            Self::Job => "Job",
            Self::Pod => "Pod",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::Rollout => "Rollout",
            Self::StatefulSet => "StatefulSet",
            Self::Service => "Service",
            Self::ServiceAccount => "ServiceAccount",
            Self::External => "External",
            Self::Outside => "Outside",
            Self::Unknown => "Unknown",
        }
    }
}

/// One end of edges. A node of a namespace that was not requested shows its id, kind,
/// namespace, name and accounts, and nothing else.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Node {
    /// `namespace/Kind/name`; of what is in no namespace `Kind/name`.
    pub id: String,
    pub kind: NodeKind,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    /// Service accounts, as SPIFFE ids.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub accounts: Vec<String>,
    /// Pods that there are now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pods: Option<u32>,
    /// How many of them have a proxy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub meshed: Option<u32>,
    /// How many of them asked for a proxy, by label, and have none: without those of namespaces that
    /// are excluded. Controllers of a version before this one do not say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub without_proxy: Option<u32>,
    /// `open`, `audit`, `auto` or `deny`; the loosest of its pods'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub access: Option<String>,
    /// `permissive` or `strict`; the loosest of its pods'.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<String>,
    /// Services that its pods are endpoints of, `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub services: Vec<String>,
    /// It does not exist any more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// Of kind Outside: identified by an address, which proves nothing.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unproven: bool,
    /// What it served, by route; only with `routes`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSums>,
}

/// What flows over an edge.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    Http1,
    Http2,
    Grpc,
    Tcp,
    Tls,
    /// The proxy that counted does not say.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Protocol {
    /// As JSON writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Tcp => "tcp",
            Self::Tls => "tls",
            Self::Unknown => "unknown",
        }
    }
}

/// One node's calls to another by one way.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Edge {
    /// The same in every answer of every replica, as long as it is the same edge.
    pub id: String,
    /// Id of the node that calls.
    pub from: String,
    /// Id of the node that is called.
    pub to: String,
    /// Service that was called, `namespace/name`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Its port.
    #[serde(skip_serializing_if = "is_zero_port")]
    pub port: u16,
    /// Service whose endpoints served.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// TrafficSplit that chose it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub split: String,
    /// Route of the Gateway API that chose it, such as `HTTPRoute shop/web`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub rule: String,
    pub protocol: Protocol,
    /// `success + failure + cancelled`.
    pub requests: u64,
    pub success: u64,
    pub failure: u64,
    /// The caller left before the head of the answer.
    pub cancelled: u64,
    /// What this backend was chosen for, retries too, also where it had no endpoint to send to.
    pub attempts: u64,
    pub attempt_failures: u64,
    /// Answers of the application with a 4xx status; part of `success`.
    pub client_errors: u64,
    /// By reason; part of `failure`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// Passed, and `deny` would have refused it. Beside `serverShared` of all edges that share it.
    pub audit: u64,
    /// Requests and connections that are open at the window's end.
    pub open: u64,
    /// Connections that were opened in the window; of bytes.
    pub opened: u64,
    /// Bytes from the caller.
    pub sent: u64,
    /// Bytes to the caller.
    pub received: u64,
    /// Share of the calls that went over mutual TLS, 0 to 1; absent where it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<f64>,
    /// Time to the head of the answer; HTTP only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<Latency>,
    /// What the called side counted of the same calls; only for requests of its namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<ServerSums>,
    /// Instead of `server` where the called side cannot tell by which of several edges the calls
    /// came.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server_shared: Option<SharedServerSums>,
    /// Only the called side reported these calls: the numbers are its own, and there is no
    /// `server`. Without these three, callers alone reported them, if the answer is of the
    /// namespace of `to` or of all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub caller_silent: bool,
    /// The SPIFFE id that the caller's certificate named; where that is unknown, those of the
    /// pods that the caller has now.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub identities: Vec<String>,
    /// Objects that allowed the calls, `namespace/name`. Beside `serverShared` those of all edges
    /// that share it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_by: Vec<String>,
    /// RFC 3339.
    pub first_seen: String,
    /// RFC 3339, to the hour once the edge is quiet.
    pub last_seen: String,
    /// No calls in the window.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub quiet: bool,
    /// By minute, the oldest first; only with `history`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<Minute>,
    /// There are minutes of it, and they had no room in the answer.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub history_left_out: bool,
    /// By route of the called workload, requests only; only with `routes`. Beside `serverShared`
    /// those of all edges that share it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<RouteSums>,
}

/// Milliseconds within which that share of the requests had the head of their answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct Latency {
    pub p50: f64,
    pub p95: f64,
    pub p99: f64,
}

/// What the called side counted.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerSums {
    pub requests: u64,
    pub failure: u64,
    /// Cancelled by their callers.
    #[serde(skip_serializing_if = "is_zero")]
    pub cancelled: u64,
    /// By reason; part of `failure`.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// Requests and connections that are open at the window's end.
    #[serde(skip_serializing_if = "is_zero")]
    pub open: u64,
    /// Share of the calls that came over mutual TLS, 0 to 1; absent where it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<f64>,
    /// No Service that is known to lead to the called pods shows that these calls came by the
    /// edge's port.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub port_unknown: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<Latency>,
}

/// What the called side counted of the calls of several edges: one caller came to one port of the
/// pods by several Services, Service ports, splits or the pods' own addresses. It is the same on
/// each of these edges, and is of all of them together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct SharedServerSums {
    /// The least of the ids of these edges, which identifies them.
    pub group: String,
    /// How many they are, also where not all of them had a place in the answer.
    pub edges: u64,
    pub sums: ServerSums,
}

/// One minute of an edge.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Minute {
    /// When it began, RFC 3339.
    pub start: String,
    /// Those that went well, failed or were cancelled.
    pub requests: u64,
    pub failure: u64,
    /// Cancelled by their callers.
    #[serde(skip_serializing_if = "is_zero")]
    pub cancelled: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub p95: Option<f64>,
    /// Share of the calls that went over mutual TLS, 0 to 1; absent where it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtls: Option<f64>,
    /// The called side reports that it served calls on the edge's port, of callers that mutual TLS
    /// proved, by this edge or by one that shares its report.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub proven: bool,
    /// Calls were refused that no rule allows, by this edge or by one that shares the called side's
    /// word.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refused: bool,
}

impl Minute {
    /// Whether a call went well.
    #[must_use]
    pub const fn served(&self) -> bool {
        self.requests > self.failure.saturating_add(self.cancelled)
    }
}

/// One route of an edge; the route without a name is what no group describes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteSums {
    pub route: String,
    /// Those that went well, failed or were cancelled.
    pub requests: u64,
    pub failure: u64,
    /// Cancelled by their callers.
    #[serde(skip_serializing_if = "is_zero")]
    pub cancelled: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ms: Option<Latency>,
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_zero_port(port: &u16) -> bool {
    *port == 0
}
