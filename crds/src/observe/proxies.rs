//! The proxies of the mesh: version, state and configuration of each.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer to `proxies`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyList {
    pub api_version: String,
    pub kind: String,
    pub metadata: ProxyListMetadata,
    pub items: Vec<Proxy>,
}

/// Where the list ends.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyListMetadata {
    /// Requests the rest, as parameter `continue`; absent where the list is complete.
    #[serde(rename = "continue", skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Proxies in the rest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remaining_item_count: Option<u64>,
}

/// One pod's proxy; its name is the pod's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Proxy {
    pub api_version: String,
    pub kind: String,
    pub metadata: ProxyMetadata,
    pub status: ProxyStatus,
}

/// The pod.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyMetadata {
    pub namespace: String,
    pub name: String,
    /// Of the pod.
    pub uid: String,
}

/// What is known of it. What is unknown is absent, never a guess.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ProxyStatus {
    /// Topmost owner of the pod, `Kind/name`; the pod itself without one.
    pub workload: String,
    /// SPIFFE id that it has to have.
    pub identity: String,
    /// Of the proxy, as it reports; else of the one that was put into the pod.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Whether it holds a stream to a controller.
    pub connected: bool,
    /// The Revocation that ends its pod for good, so that no controller serves it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    /// Objects that concern it and that it has acknowledged.
    pub acknowledged: u32,
    /// Objects that concern it.
    pub needed: u32,
    /// Seconds for which it has lacked one of them, as far as this controller has seen; absent
    /// where it lacks none, is not connected, or it is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub behind_seconds: Option<u64>,
    /// What it refused, last good version kept.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nacks: Vec<Nack>,
    /// Objects that it cannot be sent, because it is too old for them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub too_old_for: Vec<String>,
    /// What its controller can say and it does not understand, by capability.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub lacks: Vec<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub certificate: Option<Certificate>,
    /// The roots in use, each as `certificate.authority`; absent where the proxy is older and does
    /// not say it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub trusts: Vec<String>,
    /// Bytes that it holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub draining: Option<bool>,
    /// Milliseconds by which its clock is ahead of the controller's; negative: behind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clock_ahead_ms: Option<i64>,
    /// Addresses that it calls, `ip:port`; only of a single proxy.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub destinations: Vec<String>,
    /// Further ones, of namespaces whose graphs the reader may not read.
    #[serde(skip_serializing_if = "is_zero")]
    pub hidden_destinations: u32,
    /// What it holds, as the proxy itself reports it; only of a single proxy, and where it answers. Its
    /// `hidden` counts further `resources` of namespaces whose graphs the reader may not read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config: Option<serde_json::Value>,
}

/// A refusal by the proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Nack {
    /// Object, `Kind namespace/name`.
    pub object: String,
    pub reason: String,
}

/// The certificate that it uses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Certificate {
    pub serial: String,
    /// When it was issued, RFC 3339; absent where the proxy is older and does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub issued: Option<String>,
    /// Where that is absent, for how long a certificate lives that its controller gives out now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl_seconds: Option<u64>,
    /// When it ends, RFC 3339.
    pub not_after: String,
    /// Name of the authority that signed it, which others may have too.
    pub issuer: String,
    /// What signed it, in 32 hex digits: the first half of the SHA-256 of that authority's name and
    /// key. Absent where the proxy is older and does not say it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub authority: Option<String>,
}

fn is_zero(count: &u32) -> bool {
    *count == 0
}
