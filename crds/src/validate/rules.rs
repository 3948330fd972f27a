//! Tests that validation refuses what the API server refuses by the rules of a schema: rules
//! between fields, and keys of lists.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{SERVED, as_written, by_schema, object, structural::refused_field};
use crate::smi::validation::{Cluster, Severity};

/// A rule of TrafficPolicies, fields of a spec that it refuses, and the same as it takes them.
const POLICIES: &str = r#"
spec: enforce is for policies about the Mesh only | {"enforce": true} | {"enforce": null}
spec: routes and sources limit timeouts, retry, fallback, mirror, rateLimits and priority only; put the other sections into a policy of their own | {"routes": [{"kind": "HTTPRouteGroup", "name": "a"}], "breaker": {}} | {"routes": [{"kind": "HTTPRouteGroup", "name": "a"}], "breaker": null}
spec: routes and sources limit timeouts, retry, fallback, mirror, rateLimits and priority only; put the other sections into a policy of their own | {"sources": [{"kind": "ServiceAccount", "name": "a"}], "sticky": {"type": "Caller"}} | {"sources": [], "sticky": {"type": "Caller"}}
spec: a Service cannot be its own mirror | {"mirror": [{"service": "cart", "percent": 1}]} | {"mirror": [{"service": "copy", "percent": 1}]}
spec: a Service cannot be its own fallback | {"fallback": {"service": "cart"}} | {"fallback": {"service": "other"}}
spec.ejection: baseTime must not be longer than maxTime | {"ejection": {"baseTime": "20s", "maxTime": "10s"}} | {"ejection": {"baseTime": "10s", "maxTime": "20s"}}
spec.fallback: must hold service or response, and not both | {"fallback": {"service": "other", "response": {"status": 200}}} | {"fallback": {"service": "other", "response": null}}
spec.fallback: must hold service or response, and not both | {"fallback": {}} | {"fallback": {"response": {"status": 200}}}
spec.mirror: each service once | {"mirror": [{"service": "a", "percent": 1}, {"service": "a", "percent": 2}]} | {"mirror": [{"service": "a", "percent": 1}, {"service": "b", "percent": 1}]}
spec.rateLimits: each name once | {"rateLimits": [{"name": "a", "requests": 1}, {"name": "a", "requests": 2}]} | {"rateLimits": [{"name": "a", "requests": 1}, {"name": "b", "requests": 1}]}
spec.rateLimits[].key: name must name the header if type is Header, and be left out otherwise | {"rateLimits": [{"name": "a", "requests": 1, "key": {"type": "Header"}}]} | {"rateLimits": [{"name": "a", "requests": 1, "key": {"type": "Header", "name": "x-a"}}]}
spec.rateLimits[].key: name must name the header if type is Header, and be left out otherwise | {"rateLimits": [{"name": "a", "requests": 1, "key": {"type": "Caller", "name": "x-a"}}]} | {"rateLimits": [{"name": "a", "requests": 1, "key": {"type": "Caller", "name": null}}]}
spec.sticky: name must name the header or cookie, and be left out for Caller | {"sticky": {"type": "Cookie", "name": null}} | {"sticky": {"type": "Cookie", "name": "a"}}
spec.sticky: name must name the header or cookie, and be left out for Caller | {"sticky": {"type": "Caller", "name": "x-a"}} | {"sticky": {"type": "Caller", "name": null}}
spec.targetRef: name must say which Service | {"targetRef": {"kind": "Service"}} | {"targetRef": {"kind": "Service", "name": "a"}}
spec.targetRef: name and port are for a Service only | {"targetRef": {"kind": "Namespace", "name": "cart"}} | {"targetRef": {"kind": "Namespace", "name": null}}
spec.targetRef: name and port are for a Service only | {"targetRef": {"kind": "Namespace", "port": 80}} | {"targetRef": {"kind": "Namespace", "port": null}}
spec.timeouts: backendRequest must not be longer than request | {"timeouts": {"request": "1s", "backendRequest": "2s"}} | {"timeouts": {"request": "0s", "backendRequest": "2s"}}
"#;

/// The same of kinds whose other fields are those of the examples with every field.
const OTHERS: &str = r#"
CanaryRelease spec: weights of steps never fall, but by matches | {"steps": [{"weight": 20}, {"weight": 10}]} | {"steps": [{"weight": 10}, {"weight": 20}]}
CanaryRelease spec.steps[]: must hold one of mirror and weight | {"steps": [{"duration": "1m"}]} | {"steps": [{"weight": 5, "duration": "1m"}]}
CanaryRelease spec.steps[]: matches limits weight only, not mirror | {"steps": [{"mirror": 10, "matches": [{"kind": "HTTPRouteGroup", "name": "beta"}]}]} | {"steps": [{"weight": 10, "matches": [{"kind": "HTTPRouteGroup", "name": "beta"}]}]}
CanaryRelease spec.checks.errorRate.max: must be from 0.01% to 90% | {"checks": {"errorRate": {"max": "95%"}}} | {"checks": {"errorRate": {"max": "90%"}}}
CanaryRelease spec.checks.errorRate.tolerance: must be from 0.01% to 90% | {"checks": {"errorRate": {"tolerance": "95%"}}} | {"checks": {"errorRate": {"tolerance": "90%"}}}
CanaryRelease spec.checks.latency.tolerance: must be from 1% to 900% | {"checks": {"latency": {"tolerance": "950%"}}} | {"checks": {"latency": {"tolerance": "900%"}}}
FaultExperiment spec: share must be at most 50% beside a check with a tolerance | {"share": "60%"} | {"share": "60%", "checks": [{"service": "checkout", "errorRate": {"max": "2%"}}]}
FaultExperiment spec.share: must be from 0.01% to 100% | {"share": "120%", "checks": [{"service": "checkout", "errorRate": {"max": "2%"}}]} | {"share": "50%"}
FaultExperiment spec.fault: must hold at most one of abort, refuse and reset | {"fault": {"abort": {"httpStatus": 503}, "reset": {}}} | {"fault": {"reset": {}}}
FaultExperiment spec.fault: must hold delay, abort, refuse or reset | {"fault": {}} | {"fault": {"delay": "300ms"}}
FaultExperiment spec.checks: each service once | {"checks": [{"service": "a", "errorRate": {"max": "2%"}}, {"service": "a", "errorRate": {"max": "3%"}}]} | {"checks": [{"service": "a", "errorRate": {"max": "2%"}}, {"service": "b", "errorRate": {"max": "3%"}}]}
FaultExperiment spec.checks[].errorRate: must hold max, tolerance or both | {"checks": [{"service": "a", "errorRate": {}}]} | {"checks": [{"service": "a", "errorRate": {"max": "2%"}}]}
FaultExperiment spec.checks[].errorRate.max: must be from 0.01% to 90% | {"checks": [{"service": "a", "errorRate": {"max": "95%"}}]} | {"checks": [{"service": "a", "errorRate": {"max": "90%"}}]}
Revocation spec.subjects[]: must hold one of serviceAccount, pod, node, certificate and issuer | {"subjects": [{"node": {"name": "a"}, "certificate": {"serial": "5f3a90"}}]} | {"subjects": [{"node": {"name": "a"}}, {"certificate": {"serial": "5f3a90"}}]}
FaultExperiment spec.checks[].errorRate.tolerance: must be from 0.01% to 90% | {"checks": [{"service": "a", "errorRate": {"tolerance": "95%"}}]} | {"checks": [{"service": "a", "errorRate": {"tolerance": "90%"}}]}
ExternalService spec: must hold hosts, addresses or both | {"hosts": null, "addresses": []} | {"hosts": null}
ExternalService spec: tls needs a serverName beside addresses | {"ports": [{"port": 80, "protocol": "HTTP", "tls": {}}]} | {"ports": [{"port": 80, "protocol": "HTTP", "tls": {}}], "addresses": []}
ExternalService spec.ports: each port once | {"ports": [{"port": 80, "protocol": "HTTP"}, {"port": 80, "protocol": "TLS"}]} | {"ports": [{"port": 80, "protocol": "HTTP"}, {"port": 443, "protocol": "TLS"}]}
ExternalService spec.ports[]: tls is for protocol HTTP only | {"ports": [{"port": 443, "protocol": "TLS", "tls": {"serverName": "a.example"}}]} | {"ports": [{"port": 443, "protocol": "TLS"}]}
"#;

/// An object that no check refuses, with these fields.
fn own(kind: &str, fields: &str) -> Value {
    let fields: Value = serde_json::from_str(fields).unwrap();
    let yaml = |text: &str| -> Value { serde_yaml_ng::from_str(text).unwrap() };
    let mut spec: Value = match kind {
        "CanaryRelease" => yaml(include_str!("../weft/release.yaml")),
        "FaultExperiment" => yaml(include_str!("../weft/experiment.yaml")),
        "ExternalService" => yaml(include_str!("../weft/external.yaml")),
        "Revocation" => yaml(include_str!("../weft/revocation.yaml")),
        _ => json!({"targetRef": {"kind": "Service", "name": "cart"}, "timeouts": {"idle": "1m"}}),
    };
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    json!({"apiVersion": "weft.dev/v1alpha1", "kind": kind, "metadata": {"name": "cart"},
        "spec": spec})
}

fn binding(schemes: &Value) -> Value {
    json!({"apiVersion": "access.smi-spec.io/v1alpha4", "kind": "IdentityBinding",
        "metadata": {"name": "web"}, "spec": {"schemes": schemes}})
}

/// Each rule of [`POLICIES`], [`OTHERS`] and of the other kinds, an object that it refuses, and
/// one that it takes.
fn examples() -> Vec<(String, Value, Value)> {
    let mut examples = Vec::new();
    let policies = POLICIES.trim().lines();
    let policies = policies.map(|row| format!("TrafficPolicy {row}"));
    for row in policies.chain(OTHERS.trim().lines().map(str::to_owned)) {
        let [rule, refused, taken] = row.split(" | ").collect::<Vec<_>>()[..] else {
            panic!("{row}");
        };
        let (kind, _) = rule.split_once(' ').unwrap();
        examples.push((rule.to_owned(), own(kind, refused), own(kind, taken)));
    }
    let rule = "IdentityBinding spec.schemes: podLabelSelector and serviceAccount exclude each \
                other";
    let labels = json!({"matchLabels": {"app": "web"}});
    let both = json!({"podLabelSelector": labels, "serviceAccount": "web"});
    let one = json!({"podLabelSelector": labels, "serviceAccount": null});
    examples.push((rule.to_owned(), binding(&both), binding(&one)));
    examples
}

/// The rules of a schema that look at more than one field, and the keys of its lists. Bounds of
/// one time stand in the documentation, and are held to it there.
fn rules(kind: &str, at: &str, schema: &Value, found: &mut BTreeSet<String>) {
    let listed = |name: &str| schema[name].as_array().cloned().unwrap_or_default();
    for rule in listed("x-kubernetes-validations") {
        let text = rule["rule"].as_str().unwrap();
        if refused_field(text).is_none() && !text.starts_with("duration(self)") {
            let message = rule["message"].as_str().unwrap();
            found.insert(format!("{kind} {at}: {message}"));
        }
    }
    for key in listed("x-kubernetes-list-map-keys") {
        found.insert(format!("{kind} {at}: each {} once", key.as_str().unwrap()));
    }
    for (name, schema) in schema["properties"].as_object().into_iter().flatten() {
        let below = format!("{at}.{name}");
        rules(kind, below.trim_start_matches('.'), schema, found);
    }
    if schema["items"].is_object() {
        rules(kind, &format!("{at}[]"), &schema["items"], found);
    }
}

/// What the judgement of an object refuses in it.
fn refused(written: &Value) -> Vec<String> {
    let cluster = Cluster::default();
    let group = written["apiVersion"].as_str().unwrap().split('/').next();
    let kind = written["kind"].as_str().unwrap();
    let around = cluster.around("shop");
    let mistakes = object(group.unwrap(), kind, written.get("spec"), &around).unwrap();
    let refused = mistakes.into_iter();
    let refused = refused.filter(|one| one.severity == Severity::Refuse);
    refused
        .map(|one| format!("{}: {}", one.field, one.text))
        .collect()
}

#[test]
fn validation_matches_schema_rules_and_list_keys() {
    let mut shown = BTreeSet::new();
    for (rule, wrong, right) in examples() {
        assert_ne!(refused(&wrong), Vec::<String>::new(), "{rule}: {wrong}");
        // The control, by its schema too, so that the rule is what the first one breaks.
        assert_eq!(refused(&right), Vec::<String>::new(), "{rule}: {right}");
        for one in [&wrong, &right] {
            assert_eq!(by_schema(one), [], "{rule}: {one}");
            assert_eq!(as_written(one), [], "{rule}: {one}");
        }
        shown.insert(rule);
    }
    let mut all = BTreeSet::new();
    for one in SERVED.iter() {
        rules(&one.kind, "", &one.schema, &mut all);
    }
    assert_eq!(shown, all);
}

#[test]
fn unsupported_time_format_is_refused_by_schema() {
    let of = |expires: &str| {
        let token = json!({"sha256": "0".repeat(64), "expires": expires});
        let overrides = json!([{"to": ["other"], "tokens": [token]}]);
        let found = by_schema(&own(
            "TrafficPolicy",
            &json!({"overrides": overrides}).to_string(),
        ));
        found.into_iter().map(|one| one.field).collect::<Vec<_>>()
    };
    for taken in [
        "2027-01-31T00:00:00Z",
        "2027-01-31t23:59:59.5z",
        "2027-01-31T00:00:00+02:00",
    ] {
        assert_eq!(of(taken), [""; 0], "{taken}");
    }
    for refused in [
        "2027-01-31 00:00:00Z",
        "2027-01-31T00:00Z",
        "2027-01-31T23:59:60Z",
        "2027-01-31T00:00:00+02",
    ] {
        let field = "spec.overrides[0].tokens[0].expires";
        assert_eq!(of(refused), [field], "{refused}");
    }
}
