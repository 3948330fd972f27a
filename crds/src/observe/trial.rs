//! Live calls, judged by the rules that hold and by those that a change would give.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Change, Protocol};

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
