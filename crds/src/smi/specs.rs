//! HTTPRouteGroup, TCPRoute and UDPRoute: named matches of traffic, to which other objects refer.

use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::{kinds::smi_kind, without_defaults};

smi_kind! {
    /// Names sets of HTTP requests, for TrafficTargets and TrafficSplits to refer to.
    HTTPRouteGroup, spec HttpRouteGroupSpec, kind HttpRouteGroup
}

smi_kind! {
    /// Names TCP ports, for TrafficTargets to refer to.
    TCPRoute, spec TcpRouteSpec, kind TcpRoute
}

smi_kind! {
    /// Names UDP ports, for TrafficTargets to refer to.
    UDPRoute, spec UdpRouteSpec, kind UdpRoute
}

/// What an HTTPRouteGroup describes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct HttpRouteGroupSpec {
    /// The matches of this group, at most 64; a request belongs to the group when one of
    /// them fits. No request does when the list is empty or left out.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub matches: Vec<RouteMatch>,
}

/// One set of requests: path, method and every header must fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("required" = ["name"]), transform = without_defaults)]
pub struct RouteMatch {
    /// Name of this match, which the rules of a TrafficTarget refer to.
    #[serde(default)]
    #[schemars(length(max = 253))]
    pub name: String,
    /// Regular expression for the path without its query, at most 1024 bytes. It must fit
    /// from the first character and may end early, so `/api` also fits `/api/v2`; end it
    /// with `$` to fit the whole path. Any path when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub path_regex: Option<String>,
    /// Methods in capitals, or `*` for any. Any method when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub methods: Option<Vec<String>>,
    /// Header names, at most 32, each with a regular expression that the whole value must
    /// fit; every header must be there. Either a map, or a list of maps with one entry
    /// each, and given back as it was written. Any headers when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "headers_schema")]
    pub headers: Option<serde_json::Value>,
}

/// Published CRDs disagree on map or list (and clients write both), so the schema
/// takes either and hands back what was written.
fn headers_schema(_: &mut SchemaGenerator) -> schemars::Schema {
    json_schema!({ "x-kubernetes-preserve-unknown-fields": true })
}

/// What a TCPRoute describes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct TcpRouteSpec {
    /// Which TCP traffic; all of it when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<TcpMatch>,
}

/// TCP traffic by port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct TcpMatch {
    /// A name for the reader; nothing refers to it. May be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Ports of the destination's containers, from 1 to 65535, at most 128; every port
    /// when empty or left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), inner(range(min = 1, max = 65535)))]
    pub ports: Option<Vec<i64>>,
}

/// What a UDPRoute describes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct UdpRouteSpec {
    /// Which UDP traffic; all of it when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub matches: Option<UdpMatch>,
}

/// UDP traffic by port.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = without_defaults)]
pub struct UdpMatch {
    /// A name for the reader; nothing refers to it. May be left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub name: Option<String>,
    /// Ports of the destination's containers, from 1 to 65535, at most 128; every port
    /// when empty or left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), inner(range(min = 1, max = 65535)))]
    pub ports: Option<Vec<i64>>,
}
