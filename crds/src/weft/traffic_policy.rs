//! TrafficPolicy: timeouts, retries, limits and other settings of calls to a Service.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Balance, Breaker, Ejection, Fallback, GROUP, Mirror, Overload, Override, RateLimit, Retry,
    RouteRef, SourceRef, Sticky, TRAFFIC_POLICIES, TargetRef, Timeouts, VERSION,
};
use crate::{
    kind::kind,
    smi::{conditions_schema, without_defaults},
};

kind! {
    /// Says how calls to Services are made and served: timeouts, retries, limits and more.
    TrafficPolicy, spec TrafficPolicySpec, status TrafficPolicyStatus,
    group GROUP, version VERSION, plural TRAFFIC_POLICIES
}

/// What a TrafficPolicy asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["targetRef"]),
    extend("x-kubernetes-validations" = rules()),
    transform = without_defaults
)]
pub struct TrafficPolicySpec {
    /// What the policy is about. For each request and each section the policy with the
    /// closest target decides: a port before its Service, that before its namespace, that
    /// before the mesh.
    pub target_ref: TargetRef,
    /// Makes the sections of a policy about the Mesh beat those of all other policies. False
    /// when left out, and false for every other target.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub enforce: Option<bool>,
    /// Limits the policy to requests that fit one of these HTTPRouteGroups of its
    /// namespace, at most 16. All requests and connections when empty or left out. Only
    /// for timeouts, retry, fallback, mirror, rateLimits and priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub routes: Option<Vec<RouteRef>>,
    /// Limits the policy to these callers, at most 64, as in a TrafficTarget. All callers
    /// when empty or left out. Only for timeouts, retry, fallback, mirror, rateLimits and
    /// priority.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub sources: Option<Vec<SourceRef>>,
    /// How long a call may take. When left out, another policy's; without any, no limit but
    /// the caller's own `grpc-timeout`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeouts: Option<Timeouts>,
    /// Which calls are sent again. When left out, another policy's; without any, 1 retry of
    /// GET, HEAD and OPTIONS that were answered 503.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry: Option<Retry>,
    /// When an endpoint that fails must rest. When left out, another policy's; without any,
    /// as an empty section says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ejection: Option<Ejection>,
    /// When calls to the Service stop for a while. When left out, another policy's; without
    /// any, no breaker.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<Breaker>,
    /// What answers when the Service cannot. When left out, another policy's; without any,
    /// nothing does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fallback: Option<Fallback>,
    /// How many requests are served, at most 16 limits. They add up over all policies, and
    /// a request must fit all of them. Without any, no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 16),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"])
    )]
    pub rate_limits: Option<Vec<RateLimit>>,
    /// Who goes first under overload: `Critical`, `Normal` or `Sheddable`. A caller can
    /// only lower it. When left out, another policy's; without any, Normal.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["Critical", "Normal", "Sheddable"]))]
    pub priority: Option<String>,
    /// How the pods of the Service are kept from more than they can do. When left out,
    /// another policy's; without any, they are not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub overload: Option<Overload>,
    /// Services that get a copy of requests, at most 4, each named once; answers to copies are
    /// thrown away. None when empty. When left out, another policy's; without any, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 4),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["service"])
    )]
    pub mirror: Option<Vec<Mirror>>,
    /// Which endpoints are preferred. When left out, another policy's; without any, as an
    /// empty section says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub balance: Option<Balance>,
    /// Which requests always go to the same endpoint. When left out, another policy's;
    /// without any, what the Service's sessionAffinity says.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky: Option<Sticky>,
    /// Callers that may send requests to another Service with the header `weft-route`, at most 8.
    /// None when empty. When left out, another policy's; without any, none.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 8))]
    pub overrides: Option<Vec<Override>>,
}

/// What the API server itself refuses, though the webhook be away.
fn rules() -> serde_json::Value {
    let limited = "(has(self.routes) && self.routes.size() > 0 || has(self.sources) && \
                   self.sources.size() > 0)";
    let unlimited = [
        "ejection",
        "breaker",
        "overload",
        "balance",
        "sticky",
        "overrides",
    ];
    let any = unlimited
        .map(|section| format!("has(self.{section})"))
        .join(" || ");
    let own = |there: &str| format!("!(self.targetRef.kind == 'Service' && {there})");
    let name = "self.targetRef.name";
    serde_json::json!([
        {
            "rule": "!has(self.enforce) || !self.enforce || self.targetRef.kind == 'Mesh'",
            "message": "enforce is for policies about the Mesh only",
        },
        {
            "rule": format!("!({limited} && ({any}))"),
            "message": "routes and sources limit timeouts, retry, fallback, mirror, rateLimits \
                        and priority only; put the other sections into a policy of their own",
        },
        {
            "rule": own(&format!("has({name}) && has(self.mirror) && \
                                  self.mirror.exists(copy, copy.service == {name})")),
            "message": "a Service cannot be its own mirror",
        },
        {
            "rule": own(&format!("has({name}) && has(self.fallback) && \
                                  has(self.fallback.service) && self.fallback.service == {name}")),
            "message": "a Service cannot be its own fallback",
        },
    ])
}

/// What the mesh says about a TrafficPolicy.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-preserve-unknown-fields" = true),
    transform = without_defaults
)]
pub struct TrafficPolicyStatus {
    /// What the policy is about, for the columns of `kubectl get`. Left out until Weft has
    /// seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The sections that it holds, for the columns of `kubectl get`. Left out when there
    /// are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// `Accepted`, `ResolvedRefs` and `Programmed`, each with its reason. Empty until Weft
    /// has seen the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
    /// What the breaker does. Left out while there is none, or without calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerStatus>,
}

/// What a breaker does.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct BreakerStatus {
    /// `Closed`, `Open` or `Probing`. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<String>,
    /// When that began, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
    /// Share of calls that fail, as the median calling account sees it. Left out without
    /// calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 100))]
    pub failure_percent: Option<i64>,
    /// Calls that this was worked out from. Left out without calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub requests: Option<i64>,
    /// Proxies that made them. Left out without calls.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub callers: Option<i64>,
}
