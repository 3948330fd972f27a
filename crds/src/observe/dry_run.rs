//! The request and result of a dry run: a change, and what it would mean for recorded calls.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Protocol;

/// Created with `spec`; the answer to the create holds `status`. Nothing is stored, and
/// nothing is changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DryRun {
    pub api_version: String,
    pub kind: String,
    pub spec: DryRunSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<DryRunStatus>,
}

/// The change, all of it at once. Its sender must be allowed to make it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct DryRunSpec {
    /// Objects of SMI, in any version, and TrafficPolicies, as they would be applied: each
    /// with its name and namespace.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub delete: Vec<Deleted>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub access: Vec<AccessChange>,
    /// For so many seconds, 1 to 50, proxies evaluate live calls by the change as well, and
    /// enforce nothing of it. The answer is a stream then, of what `status.trial` holds: a
    /// JSON object on each line. 0: calls that are remembered are compared, at once.
    #[serde(skip_serializing_if = "is_zero")]
    pub watch_seconds: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An object that would be deleted.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Deleted {
    /// Such as `TrafficTarget`.
    pub kind: String,
    pub namespace: String,
    pub name: String,
}

/// Annotation `weft.dev/access` of a Namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct AccessChange {
    pub namespace: String,
    /// `deny`, `auto`, `open` or `audit`.
    pub mode: String,
}

/// What the change would mean for the calls that are remembered.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct DryRunStatus {
    /// Whose calls would be refused, allowed or take another way, the worst first; last those
    /// whose result is unknown, because no pod of one end runs now.
    pub changed: Vec<ChangedEdge>,
    /// Edges of which nothing would change.
    pub kept: u64,
    /// Edges of which something would, and neither end is in a namespace whose graph the
    /// caller may read; of these so many would be refused.
    pub hidden: u64,
    pub hidden_refused: u64,
    /// Of so many of these it depends on each request. Absent from controllers that do not count
    /// them: then it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hidden_depends: Option<u64>,
    /// Edges whose result is unknown, because one of their ends is gone, has no pods or
    /// lies outside the cluster.
    pub unknown: u64,
    /// Edges that were not compared in the time that there is.
    pub uncompared: u64,
    /// Ids of the graph's nodes of which some pod refuses calls now and would refuse none.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub opened: Vec<String>,
    /// How many more there are in namespaces whose graphs the caller may not read.
    pub hidden_opened: u64,
    /// There are more than are listed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Warnings about the objects from the webhooks that would admit them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
    /// Live calls that were evaluated by the change: put together from its lines by the client
    /// that watched.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trial: Option<Trial>,
}

/// One edge of the graph whose calls would be treated otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ChangedEdge {
    pub change: Change,
    /// Ids of the graph's nodes.
    pub from: String,
    pub to: String,
    /// `namespace/name` of the Service that was called.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    pub port: u16,
    /// Of the called pods, behind that port: what live calls are identified by. None where it is
    /// not set, or where the graph of their namespace may not be read.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pod_ports: Vec<u16>,
    pub protocol: Protocol,
    /// Why they would be refused, as in `weft-reason`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Where calls go that no condition describes, now and then.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub before: Vec<BackendShare>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<BackendShare>,
    /// RFC 3339.
    pub last_seen: String,
}

/// A Service's share of calls.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendShare {
    /// `namespace/name`.
    pub service: String,
    /// Of all calls, 0 to 1.
    pub share: f64,
}

/// What was seen since the stream began: a line of a dry run that watches. First, each second
/// in which it changes, and last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Trial {
    /// Proxies that the change would give other rules.
    pub proxies: u32,
    /// Those that take part. Others are away, too old, or refuse.
    pub taking_part: u32,
    /// Calls that were judged by both: requests, and connections of opaque bytes that began.
    pub judged: u64,
    /// Of these, calls that pass and would not.
    pub refused: u64,
    /// Calls that do not pass and would.
    pub allowed: u64,
    /// Calls that proxies had no time to judge by the change, or that are too long for it.
    pub skipped: u64,
    /// Of those that were judged, calls of which neither end is in a namespace whose graph
    /// the caller may read.
    pub hidden: u64,
    /// All other calls by edge and route, those first that are judged otherwise.
    pub edges: Vec<TriedEdge>,
    /// There are more edges than are listed.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Requests that are judged otherwise, of namespaces that the caller may tap.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub examples: Vec<TriedRequest>,
    /// Why some proxies do not take part.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<String>,
    /// The stream ends with this line; a client that requests it again begins anew.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

/// Calls over one edge that one route of the called workload describes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TriedEdge {
    /// Ids of the graph's nodes.
    pub from: String,
    pub to: String,
    /// Of the called pod. 0: the graph of its namespace may not be read, and the caller is not
    /// remembered to have called this port by address.
    pub port: u16,
    pub protocol: Protocol,
    /// Empty: no route describes them.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// Calls that pass, or do not, as they would.
    pub kept: u64,
    /// Calls that pass and would not.
    pub refused: u64,
    /// Calls that do not pass and would.
    pub allowed: u64,
}

/// One request that would be judged otherwise. Never a body, never a query, no header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TriedRequest {
    /// When it came, RFC 3339.
    pub time: String,
    /// `refused` or `allowed`.
    pub change: Change,
    pub from: String,
    pub to: String,
    pub port: u16,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    pub method: String,
    /// As rules see it, without its query.
    pub path: String,
}

/// What becomes of the calls of one edge.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// None passes any longer, of one caller or to one pod at least.
    Refused,
    /// Some are judged otherwise than before: it depends on the request.
    Depends,
    /// They take another way.
    Rerouted,
    /// Calls pass that did not.
    #[default]
    Allowed,
    /// The result is unknown.
    Unknown,
}

impl Change {
    /// As JSON writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Depends => "depends",
            Self::Rerouted => "rerouted",
            Self::Allowed => "allowed",
            Self::Unknown => "unknown",
        }
    }
}
