//! The lines of a tap: requests as they end, one by one.
//!
//! A stream of lines: each holds either a request, or the number of requests so far.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Header;

/// A line of `taps/live`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TapLine {
    /// How many there were so far; first, each second in which it changes, and last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metadata: Option<TapMetadata>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub request: Option<TapRequest>,
}

/// What was seen since the stream began.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TapMetadata {
    /// Proxies of what is watched.
    pub proxies: u32,
    /// Those that take part. Others are away, too old, or have no room for another tap.
    pub taking_part: u32,
    /// Of the others those that said so: they have no room for another tap, or are too old. Older
    /// controllers leave it out.
    #[serde(skip_serializing_if = "is_zero")]
    pub refused: u32,
    /// Requests that fit.
    pub matched: u64,
    /// Those that are shown.
    pub shown: u64,
    /// Those that found no room on their way. What is neither was beyond the rate.
    pub dropped: u64,
    /// The stream ends with this line; a client that requests it again goes on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub last: bool,
}

/// Which way a request goes, seen from the pod whose proxy reports it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// It served it.
    #[default]
    Inbound,
    /// It made it.
    Outbound,
}

/// One request. Never a body, never a query.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TapRequest {
    /// When it came, RFC 3339.
    pub time: String,
    pub direction: Direction,
    /// `namespace/name` of the pod whose proxy reports it.
    pub pod: String,
    /// The other end: outbound the pod that was called, inbound the pod that called, each
    /// `namespace/name`, or an address or host outside the mesh. Empty: not known.
    pub peer: String,
    /// Inbound: `namespace/service-account` that the caller proved.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identity: String,
    /// Outbound: `namespace/name` of the Service that was called.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    pub port: u16,
    /// Outbound: of the Service whose endpoint got it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub backend: String,
    /// By mutual TLS between the two pods.
    pub mtls: bool,
    /// Its proxy refused it before it had chosen an endpoint, so nothing carried it. Proxies
    /// and controllers of a version before this one do not set it.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub unsent: bool,
    pub protocol: String,
    /// Empty where the head was refused before that could be read.
    pub method: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// Without its query. Of a head that was refused as much as could be read, or empty.
    pub path: String,
    /// Inbound: the route of the pod that describes it; empty where none does.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub route: String,
    /// 499: the caller left before there was an answer.
    pub status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grpc_status: Option<u16>,
    /// Why the mesh answered instead of the application.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Milliseconds to the head of the answer.
    pub ms: f64,
    /// Of the answer's body.
    pub bytes: u64,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub trace: String,
    /// Those that were requested and may be shown.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}
