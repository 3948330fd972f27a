//! Builds the status of a Gateway and of its class: the entries of Weft, beside those of other
//! controllers.
//!
//! Conditions are found by their type: ours are replaced, those of others stay. Each of ours has
//! the generation that was looked at, also where nothing else has changed, because clients wait for
//! it. The time of a condition changes with its status alone.

use std::collections::BTreeMap;
use std::time::SystemTime;

use gateway_api::GROUP;
use gateway_api::conditions::CERTIFICATE_ENDS;
use gateway_api::route::RouteKind;
use model::problem::{Condition, ListenerReport};
use serde_json::{Map, Value, json};

use crate::status::conditions::rfc3339;

const ACCEPTED: &str = "Accepted";
const PROGRAMMED: &str = "Programmed";
const RESOLVED_REFS: &str = "ResolvedRefs";
const CONFLICTED: &str = "Conflicted";
const SUPPORTED_VERSION: &str = "SupportedVersion";
/// Addresses of one Gateway that the API takes.
const MAX_ADDRESSES: usize = 16;

/// Conditions that the API lets a Gateway, or a listener, have.
const MOST_CONDITIONS: usize = 8;
/// Characters of one message. The API takes eight times as many, and no object that has them in four
/// conditions of 64 listeners.
const LONGEST_MESSAGE: usize = 4096;

/// Versions of the Gateway API with which this one was tested, as `(major, minor)`: the first and
/// the last.
const TESTED: [(u32, u32); 2] = [(1, 2), (1, 6)];

/// What the official suite is run for, sorted, as the API wants it.
const FEATURES: [&str; 38] = [
    "GRPCRoute",
    "GRPCRouteNamedRouteRule",
    "Gateway",
    "GatewayAddressEmpty",
    "GatewayHTTPListenerIsolation",
    "GatewayHTTPSListenerDetectMisdirectedRequests",
    "GatewayInfrastructure",
    "GatewayPort8080",
    "HTTPRoute",
    "HTTPRoute303RedirectStatusCode",
    "HTTPRoute307RedirectStatusCode",
    "HTTPRoute308RedirectStatusCode",
    "HTTPRouteBackendProtocolH2C",
    "HTTPRouteBackendProtocolWebSocket",
    "HTTPRouteBackendRequestHeaderModification",
    "HTTPRouteBackendTimeout",
    "HTTPRouteCORS",
    "HTTPRouteDestinationPortMatching",
    "HTTPRouteHostRewrite",
    "HTTPRouteMethodMatching",
    "HTTPRouteNamedRouteRule",
    "HTTPRouteParentRefPort",
    "HTTPRoutePathRedirect",
    "HTTPRoutePathRewrite",
    "HTTPRoutePortRedirect",
    "HTTPRouteQueryParamMatching",
    "HTTPRouteRequestMirror",
    "HTTPRouteRequestMultipleMirrors",
    "HTTPRouteRequestPercentageMirror",
    "HTTPRouteRequestTimeout",
    "HTTPRouteResponseHeaderModification",
    "HTTPRouteRetry",
    "HTTPRouteRetryBackendTimeout",
    "HTTPRouteRetryConnectionError",
    "HTTPRouteSchemeRedirect",
    "ReferenceGrant",
    "TCPRoute",
    "TLSRoute",
];

/// What is reported of a Gateway.
#[derive(Clone, Debug)]
pub(super) struct GatewayStatus<'a> {
    pub(super) generation: i64,
    pub(super) accepted: Condition,
    pub(super) programmed: Condition,
    pub(super) listeners: &'a [ListenerReport],
    /// What is to be said of certificates that end soon.
    pub(super) ending: &'a [String],
    /// Where it can be reached; none: as it was, because it is not known.
    pub(super) addresses: Option<Vec<Address>>,
}

/// Where a Gateway can be reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Address {
    Ip(String),
    Hostname(String),
}

/// The time, as it is written.
pub(super) fn now() -> String {
    rfc3339(SystemTime::now())
}

/// The addresses that a Service has got.
pub(super) fn addresses(service: &Value) -> Vec<Address> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let found: Vec<Address> = if service["spec"]["type"] == "LoadBalancer" {
        let ingress = service["status"]["loadBalancer"]["ingress"].as_array();
        let each = ingress.into_iter().flatten();
        each.filter_map(|one| {
            let ip = text(&one["ip"]).map(Address::Ip);
            ip.or_else(|| text(&one["hostname"]).map(Address::Hostname))
        })
        .collect()
    } else {
        let ips = service["spec"]["clusterIPs"].as_array();
        let ips = ips.into_iter().flatten().filter(|ip| *ip != "None");
        ips.filter_map(text).map(Address::Ip).collect()
    };
    found.into_iter().take(MAX_ADDRESSES).collect()
}

/// The status of a Gateway as it should be, beside what stands there; none if it is that already.
pub(super) fn of_gateway(live: &Value, status: &GatewayStatus<'_>, now: &str) -> Option<Value> {
    let before = &live["status"];
    let generation = status.generation;
    let ending = Condition {
        status: true,
        reason: "EndsSoon",
        message: status.ending.join("; "),
    };
    let mut own = vec![
        (ACCEPTED, &status.accepted),
        (PROGRAMMED, &status.programmed),
    ];
    if !status.ending.is_empty() {
        own.push((CERTIFICATE_ENDS, &ending));
    }
    let addresses: Value = match &status.addresses {
        Some(addresses) => addresses.iter().map(address).collect(),
        None => before["addresses"].clone(),
    };
    let mut known: BTreeMap<&str, &Value> = BTreeMap::new();
    for one in before["listeners"].as_array().into_iter().flatten() {
        known.insert(one["name"].as_str().unwrap_or_default(), one);
    }
    let listeners = status.listeners.iter().map(|listener| {
        let before = known.get(&*listener.name).copied();
        of_listener(listener, before, status, now)
    });
    let mut wanted = json!({
        "conditions": conditions(&before["conditions"], &own, generation, now),
        "listeners": listeners.collect::<Vec<Value>>(),
    });
    if !addresses.is_null() {
        wanted["addresses"] = addresses;
    }
    changed(before, wanted)
}

/// The same of a GatewayClass. `installed`: the version of the Gateway API in the cluster, where
/// that is known.
pub(super) fn of_class(
    live: &Value,
    generation: i64,
    accepted: &Condition,
    installed: Option<&str>,
    now: &str,
) -> Option<Value> {
    let version = supported_version(installed);
    let own = [(ACCEPTED, accepted), (SUPPORTED_VERSION, &version)];
    let before = &live["status"];
    let features = FEATURES.iter().filter(|_| accepted.status);
    let features: Vec<Value> = features.map(|name| json!({"name": name})).collect();
    let wanted = json!({
        "conditions": conditions(&before["conditions"], &own, generation, now),
        "supportedFeatures": features,
    });
    changed(before, wanted)
}

/// What the class says of the version of the API.
fn supported_version(installed: Option<&str>) -> Condition {
    let number = |installed: &str| -> Option<(u32, u32)> {
        let mut parts = installed.strip_prefix('v')?.split('.');
        Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
    };
    let [first, last] = TESTED;
    let is_tested = |version| (first..=last).contains(&version);
    let status = installed.and_then(number).is_some_and(is_tested);
    let tested = format!("v{}.{} to v{}.{}", first.0, first.1, last.0, last.1);
    let reason = if status {
        "SupportedVersion"
    } else {
        "UnsupportedVersion"
    };
    let message = match installed {
        Some(installed) if status => format!("the definitions are those of {installed}"),
        Some(installed) => format!(
            "the definitions are those of {installed}, and this version was tested with {tested}: \
             what it knows of them holds"
        ),
        None => format!(
            "the definition of GatewayClass names no version in its annotation \
             gateway.networking.k8s.io/bundle-version; this version was tested with {tested}"
        ),
    };
    Condition {
        status,
        reason,
        message,
    }
}

fn of_listener(
    listener: &ListenerReport,
    before: Option<&Value>,
    status: &GatewayStatus<'_>,
    now: &str,
) -> Value {
    let programmed = if !listener.is_served {
        Condition {
            status: false,
            reason: "Invalid",
            message: "it is not served: its other conditions say why".to_owned(),
        }
    } else if status.programmed.status {
        Condition {
            status: true,
            reason: PROGRAMMED,
            message: String::new(),
        }
    } else {
        Condition {
            status: false,
            reason: "Pending",
            message: status.programmed.message.clone(),
        }
    };
    let own = [
        (ACCEPTED, &listener.accepted),
        (RESOLVED_REFS, &listener.resolved_refs),
        (CONFLICTED, &listener.conflicted),
        (PROGRAMMED, &programmed),
    ];
    let none = Value::Null;
    let before = before.map_or(&none, |before| &before["conditions"]);
    let kinds = listener.supported_kinds.iter();
    let kinds = kinds.map(|kind: &RouteKind| json!({"group": GROUP, "kind": kind.word()}));
    json!({
        "name": &*listener.name,
        "supportedKinds": kinds.collect::<Vec<Value>>(),
        "attachedRoutes": listener.attached_routes,
        "conditions": conditions(before, &own, status.generation, now),
    })
}

/// Our conditions beside those of other types.
fn conditions(
    before: &Value,
    own: &[(&str, &Condition)],
    generation: i64,
    now: &str,
) -> Vec<Value> {
    let before = before.as_array().map_or(&[][..], Vec::as_slice);
    let is_own = |one: &&Value| {
        let mut kinds = own.iter().map(|(kind, _)| *kind).chain([CERTIFICATE_ENDS]);
        kinds.any(|kind| one["type"] == kind)
    };
    let mut all: Vec<Value> = own
        .iter()
        .map(|(kind, condition)| {
            let status = if condition.status { "True" } else { "False" };
            let same = before
                .iter()
                .find(|one| one["type"] == *kind && one["status"] == status);
            let since = same.and_then(|one| one["lastTransitionTime"].as_str());
            json!({
                "type": kind,
                "status": status,
                "reason": condition.reason,
                "message": cut(&condition.message),
                "observedGeneration": generation,
                "lastTransitionTime": since.unwrap_or(now),
            })
        })
        .collect();
    all.extend(before.iter().filter(|one| !is_own(one)).cloned());
    // The API server would refuse the whole status, also where another writer made it too long.
    all.truncate(MOST_CONDITIONS);
    all
}

/// A message that the API server takes: users' words are in some, and lists of what they named.
fn cut(message: &str) -> String {
    let mut letters = message.chars();
    let mut begin: String = letters.by_ref().take(LONGEST_MESSAGE).collect();
    if letters.next().is_some() {
        begin.push('…');
    }
    begin
}

fn address(address: &Address) -> Value {
    match address {
        Address::Ip(ip) => json!({"type": "IPAddress", "value": ip}),
        Address::Hostname(name) => json!({"type": "Hostname", "value": name}),
    }
}

/// What is wanted, if anything of it is not there yet. Lists are compared as sets of what they
/// name: the API server may keep another order.
fn changed(before: &Value, wanted: Value) -> Option<Value> {
    let empty = Map::new();
    let members = wanted.as_object().unwrap_or(&empty);
    let is_there = members
        .iter()
        .all(|(name, value)| is_same(&before[name.as_str()], value));
    (!is_there).then_some(wanted)
}

fn is_same(before: &Value, wanted: &Value) -> bool {
    match (before, wanted) {
        (Value::Array(before), Value::Array(wanted)) => {
            let found = |one: &Value| before.iter().any(|other| is_same(other, one));
            before.len() == wanted.len() && wanted.iter().all(found)
        }
        (Value::Object(before), Value::Object(wanted)) => {
            before.len() == wanted.len()
                && wanted.iter().all(|(name, value)| {
                    let other = before.get(name);
                    other.is_some_and(|other| is_same(other, value))
                })
        }
        // The API server leaves empty lists out.
        (Value::Null, Value::Array(wanted)) => wanted.is_empty(),
        (before, wanted) => before == wanted,
    }
}

#[cfg(test)]
mod tests;
