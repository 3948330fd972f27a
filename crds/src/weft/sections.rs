//! The sections of a TrafficPolicy, as users write them.
//!
//! A policy has any of them, and each is taken as a whole: a field that is missing in it has the
//! section's own default, never another policy's value.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::SourceRef;
use super::duration::{DAY, between};
use crate::smi::without_defaults;

/// Milliseconds of a year, the longest life of a cookie.
const YEAR: u64 = 365 * DAY;

/// How long a call may take.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "!has(self.request) || !has(self.backendRequest) || duration(self.request) == duration('0s') || duration(self.backendRequest) <= duration(self.request)", "message": "backendRequest must not be longer than request" },
    ]),
    transform = without_defaults
)]
pub struct Timeouts {
    /// A whole call with all its attempts, to the last byte of the answer, from 0s to 24h. 0s,
    /// no limit, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<0, DAY>")]
    pub request: Option<String>,
    /// One attempt, to the head of its answer, from 0s to 24h; at most `request`. 0s, no limit,
    /// when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<0, DAY>")]
    pub backend_request: Option<String>,
    /// How long a stream or connection may live on which nothing moves, from 0s to 24h. 0s, no
    /// limit, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<0, DAY>")]
    pub idle: Option<String>,
    /// How much of the time that the request being served has left its own calls may take, in
    /// percent from 1 to 100. 100 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub share: Option<i64>,
}

/// Which calls are sent again, to another endpoint.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct Retry {
    /// How often after the first time, from 0 to 5. 1 when left out; 0 switches retries off.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 5))]
    pub attempts: Option<i64>,
    /// Answers that are tried again, at most 16, from 400 to 599. 503 when left out, none when
    /// empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(range(min = 400, max = 599)))]
    pub codes: Option<Vec<i64>>,
    /// Statuses of gRPC that are tried again, if no header came before: `Cancelled`, `Unknown`,
    /// `DeadlineExceeded`, `ResourceExhausted`, `Internal`, `Unavailable`. None when empty or
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 6), extend("items" = { "type": "string", "enum": [ "Cancelled", "Unknown", "DeadlineExceeded", "ResourceExhausted", "Internal", "Unavailable", ] }))]
    pub grpc_codes: Option<Vec<String>>,
    /// Methods that may be sent twice, at most 16, or `*` for all. GET, HEAD and OPTIONS when
    /// left out, none when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    pub methods: Option<Vec<String>>,
    /// Least pause before the first retry, from 0s to 10s; it doubles each time. 25ms when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<0, 10000>")]
    pub backoff: Option<String>,
    /// How many calls may be retries. When left out, as an empty one says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub budget: Option<RetryBudget>,
}

/// How many calls may be retries, per calling proxy and backend.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct RetryBudget {
    /// Retries per hundred calls that succeed, from 0 to 100. 20 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: Option<i64>,
    /// How long what is not used is saved, from 1s to 60s. 5s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<1000, 60000>")]
    pub interval: Option<String>,
    /// Retries per second besides, of the whole calling workload, from 0 to 1000. 1 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub min_per_second: Option<i64>,
}

/// When an endpoint that fails must rest.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "!has(self.baseTime) || !has(self.maxTime) || duration(self.baseTime) <= duration(self.maxTime)", "message": "baseTime must not be longer than maxTime" },
    ]),
    transform = without_defaults
)]
pub struct Ejection {
    /// Failures in a row, from 0 to 100. 5 when left out; 0 switches it off. While the others
    /// fail as well, answers make it rest after a row that chance brings less than once in a
    /// million, which is nine where they fail 20 percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub consecutive_failures: Option<i64>,
    /// Answers that are failures, at most 16, from 500 to 599. 502, 503 and 504 when left out,
    /// none when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(range(min = 500, max = 599)))]
    pub codes: Option<Vec<i64>>,
    /// The first rest, from 1s to 5m; it doubles each time. 5s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<1000, 300000>")]
    pub base_time: Option<String>,
    /// The longest rest, from 1s to 1h. 60s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<1000, 3600000>")]
    pub max_time: Option<String>,
    /// How many of the endpoints may rest at once, in percent from 0 to 100. 34 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub max_percent: Option<i64>,
}

/// When calls to the Service stop for a while.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct Breaker {
    /// `Auto` goes by what callers see; `Open` and `Closed` are obeyed at once by all. Auto
    /// when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Auto", "Open", "Closed"]))]
    pub state: Option<String>,
    /// Failures at which it opens, in percent from 1 to 100, as the median calling account sees
    /// them. 50 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_percent: Option<i64>,
    /// Over which time, from 5s to 60s. 10s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<5000, 60000>")]
    pub interval: Option<String>,
    /// Requests of all callers in that time, below which it stays closed, from 1 to 100000. 50
    /// when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100000))]
    pub min_requests: Option<i64>,
    /// How long it is open before it is probed, from 1s to 5m. 5s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<1000, 300000>")]
    pub open_time: Option<String>,
}

/// What answers when the Service cannot.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "has(self.service) != has(self.response)", "message": "must hold service or response, and not both" },
    ]),
    transform = without_defaults
)]
pub struct Fallback {
    /// A Service of the same namespace, on the same port. Left out where `response` says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub service: Option<String>,
    /// An answer of the proxy itself. Left out where `service` says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub response: Option<FallbackResponse>,
    /// In which cases: `Unreachable`, `CircuitOpen`, `Overload`, `Timeout`, `5xx`. All of them when left
    /// out, never when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 5), extend("items" = { "type": "string", "enum": ["Unreachable", "CircuitOpen", "Overload", "Timeout", "5xx"] }))]
    pub when: Option<Vec<String>>,
}

/// An answer of the proxy itself.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["status"]),
    transform = without_defaults
)]
pub struct FallbackResponse {
    /// Its status, from 200 to 599.
    #[schemars(range(min = 200, max = 599))]
    pub status: i64,
    /// Its headers, at most 16. None when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub headers: Option<Vec<FallbackHeader>>,
    /// Its body, at most 4 KiB. Empty when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub body: Option<String>,
}

/// One header.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["name", "value"]),
    transform = without_defaults
)]
pub struct FallbackHeader {
    /// Its name.
    #[schemars(
        length(min = 1, max = 256),
        regex(pattern = r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")
    )]
    pub name: String,
    /// Its value.
    #[schemars(length(max = 4096))]
    pub value: String,
}

/// How many requests are served.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["name", "requests"]),
    transform = without_defaults
)]
pub struct RateLimit {
    /// A name for metrics, once in a policy.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// How many, from 1 to 1000000.
    #[schemars(range(min = 1, max = 1000000))]
    pub requests: i64,
    /// In which time, from 1s to 1h. 1s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<1000, 3600000>")]
    pub per: Option<String>,
    /// How many may come at once, from 1 to 1000000. What one second brings when left out, and
    /// 1 at least.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000000))]
    pub burst: Option<i64>,
    /// What is counted apart. Everything together when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<LimitKey>,
    /// Whether the limit is the Service's (`Service`) or each pod's (`Instance`). Service when
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Service", "Instance"]))]
    pub scope: Option<String>,
    /// `Audit` counts what `Enforce` would refuse. Enforce when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Enforce", "Audit"]))]
    pub mode: Option<String>,
}

/// What is counted apart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["type"]),
    extend("x-kubernetes-validations" = [
        { "rule": "(self.type == 'Header') == has(self.name)", "message": "name must name the header if type is Header, and be left out otherwise" },
    ]),
    transform = without_defaults
)]
pub struct LimitKey {
    /// `None`: everything together. `Caller`: each identity. `Header`: each value of a header
    /// of each identity. `ClientAddress`: each address from which clients call a Gateway.
    #[schemars(extend("enum" = ["None", "Caller", "Header", "ClientAddress"]))]
    pub r#type: String,
    /// Name of the header. Left out for the others.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
}

/// How pods are kept from more than they can do.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct Overload {
    /// `Adaptive` refuses what the pod cannot do in time, `Audit` counts it,
    /// `Disabled` does neither. Adaptive when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Adaptive", "Audit", "Disabled"]))]
    pub mode: Option<String>,
    /// How much longer than when calm calls may wait before any is refused, from 5ms to 10s.
    /// 100ms when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<5, 10000>")]
    pub queue_time: Option<String>,
    /// Requests in flight at most, from 0 to 1000000, of which lower priorities leave a part to
    /// higher ones that come. 0, no limit, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000000))]
    pub max_concurrency: Option<i64>,
}

/// A Service that gets copies of requests.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["service", "percent"]),
    transform = without_defaults
)]
pub struct Mirror {
    /// Which Service, in the same namespace, on the same port.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// Of how many requests, in percent from 0 to 100.
    #[schemars(range(min = 0, max = 100))]
    pub percent: i64,
    /// Of requests with these methods, at most 16, or `*` for all. GET, HEAD and OPTIONS when
    /// left out, none when empty.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 32)))]
    pub methods: Option<Vec<String>>,
    /// `ReadOnly`: only pods that receive nothing but copies, and their own writes are refused.
    /// `Any`: no restriction. ReadOnly when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["ReadOnly", "Any"]))]
    pub downstream: Option<String>,
    /// What ReadOnly pods may connect to besides HTTP, at most 16, each a host and port such as
    /// `catalog-db:5432`. Nothing when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        inner(length(max = 320), regex(pattern = "^[a-z0-9.-]+:[0-9]{1,5}$"))
    )]
    pub allow_tcp: Option<Vec<String>>,
}

/// Which endpoints are preferred.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct Balance {
    /// `None`, `PreferSameZone` or `PreferSameNode`, as long as there is room. What the
    /// Service's trafficDistribution says when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["None", "PreferSameZone", "PreferSameNode"]))]
    pub locality: Option<String>,
    /// How many endpoints one caller uses, from -1 to 10000; 0 is all of them, -1 as many as
    /// their number asks for. 0 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = -1, max = 10000))]
    pub subset: Option<i64>,
    /// How long a new endpoint takes to get its whole share, from 0s to 5m. 10s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<0, 300000>")]
    pub warmup: Option<String>,
}

/// Which requests go to the same place.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["type"]),
    extend("x-kubernetes-validations" = [
        { "rule": "(self.type != 'Caller') == has(self.name)", "message": "name must name the header or cookie, and be left out for Caller" },
    ]),
    transform = without_defaults
)]
pub struct Sticky {
    /// By what: `Header`, `Cookie` or `Caller`.
    #[schemars(extend("enum" = ["Header", "Cookie", "Caller"]))]
    pub r#type: String,
    /// Name of the header or cookie. Left out for Caller.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// To the same `Endpoint`, or only to the same `Backend` of a split. Endpoint when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Endpoint", "Backend"]))]
    pub scope: Option<String>,
    /// Life of the cookie, from 0s to 8760h; 0s is the browser's session. 0s when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<0, YEAR>")]
    pub ttl: Option<String>,
}

/// Callers that may send requests to another Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["to"]),
    transform = without_defaults
)]
pub struct Override {
    /// The Services that may be chosen, of the same namespace, at most 64.
    #[schemars(length(min = 1, max = 64), inner(length(min = 1, max = 63)))]
    pub to: Vec<String>,
    /// Callers that may choose, at most 64. None when empty or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sources: Option<Vec<SourceRef>>,
    /// Workloads that pass a choice on to further hops, at most 64. Besides `sources`, none
    /// when empty or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub forwarders: Option<Vec<SourceRef>>,
    /// Secrets that let anybody choose who shows one, at most 64. None when empty or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub tokens: Option<Vec<OverrideToken>>,
}

/// A secret, by its hash.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["sha256", "expires"]),
    transform = without_defaults
)]
pub struct OverrideToken {
    /// SHA-256 of the secret, as 64 lower-case hex digits.
    #[schemars(regex(pattern = "^[0-9a-f]{64}$"))]
    pub sha256: String,
    /// Until when it counts, RFC 3339.
    #[schemars(length(max = 64), extend("format" = "date-time"))]
    pub expires: String,
}
