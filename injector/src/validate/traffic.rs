//! Tests of refused TrafficPolicies: every message names the field, the reason and the way out.
//!
//! Claims: calls-27

use oracle::{random::Random, seeds::seeds};
use serde_json::{Value, json};

use super::{agreement, *};

/// A spec that says everything.
pub(super) const EVERYTHING: &str = include_str!("../../../crds/src/weft/everything.yaml");
/// Policies that both ways judge.
const POLICIES: u64 = 1_500;

fn request(namespace: &str, spec: &Value) -> Request {
    serde_json::from_value(json!({
        "uid": "u",
        "kind": { "group": "weft.dev", "version": "v1alpha1", "kind": "TrafficPolicy" },
        "namespace": namespace,
        "name": "catalog",
        "operation": "CREATE",
        "object": { "metadata": { "name": "catalog" }, "spec": spec },
        "oldObject": null,
    }))
    .unwrap()
}

/// About Service `catalog`, with these fields.
fn about(fields: &Value) -> Value {
    let mut spec = json!({"targetRef": {"kind": "Service", "name": "catalog"}});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

fn response_to(namespace: &str, spec: &Value) -> AdmissionResponse {
    validate(&request(namespace, spec), &Cluster::default())
}

#[test]
fn meaningless_policy_is_refused_with_field_reason_and_advice() {
    let limited = json!([{"kind": "ServiceAccount", "name": "web"}]);
    let twice = json!([{"name": "a", "requests": 1}, {"name": "a", "requests": 2}]);
    for (fields, field, reason) in [
        // Range.
        (
            json!({"retry": {"attempts": 6}}),
            "spec.retry.attempts",
            "must be from 0 to 5",
        ),
        (
            json!({"breaker": {"interval": "1s"}}),
            "spec.breaker.interval",
            "from 5s to 1m",
        ),
        // Unknown enum.
        (
            json!({"priority": "critical"}),
            "spec.priority",
            "you may mean Critical",
        ),
        (
            json!({"retry": {"grpcCodes": ["Unavailabel"]}}),
            "spec.retry.grpcCodes[0]",
            "Unavailable",
        ),
        // Both or none of fallback's forms.
        (json!({"fallback": {}}), "spec.fallback", "holds neither"),
        (
            json!({"fallback": {"service": "a", "response": {"status": 200}}}),
            "spec.fallback",
            "holds both",
        ),
        (
            json!({"timeouts": {"request": "1s", "backendRequest": "2s"}}),
            "spec.timeouts.backendRequest",
            "is longer than request",
        ),
        // Duplicate limit names.
        (
            json!({"rateLimits": twice}),
            "spec.rateLimits[1].name",
            "give this one another",
        ),
        // Sections that routes cannot limit.
        (
            json!({"sources": limited, "breaker": {}}),
            "spec.breaker",
            "a policy of its own",
        ),
        // A Service as its own mirror or fallback.
        (
            json!({"mirror": [{"service": "catalog", "percent": 1}]}),
            "spec.mirror[0].service",
            "cannot be its own mirror; name another",
        ),
        (
            json!({"fallback": {"service": "catalog"}}),
            "spec.fallback.service",
            "own fallback",
        ),
    ] {
        let refusal = response_to("shop", &about(&fields))
            .refusal
            .expect("must be refused");
        assert!(
            refusal.starts_with("TrafficPolicy shop/catalog is invalid: "),
            "{refusal}"
        );
        assert!(refusal.contains(&format!("{field}: ")), "{refusal}");
        assert!(refusal.contains(reason), "{refusal}");
    }
}

#[test]
fn mesh_policy_is_accepted_only_in_mesh_namespace() {
    let mesh = json!({"targetRef": {"kind": "Mesh"}, "enforce": true, "retry": {"attempts": 0}});
    assert_eq!(
        response_to("weft-system", &mesh),
        AdmissionResponse::allow()
    );
    let refusal = response_to("shop", &mesh).refusal.unwrap();
    assert!(
        refusal.contains("spec.targetRef.kind: is Mesh"),
        "{refusal}"
    );
    assert!(
        refusal.contains("\"weft-system\"; create it there"),
        "{refusal}"
    );
}

#[test]
fn mistyped_field_gets_warning_suggesting_correct_one() {
    let spec = about(&json!({"retry": {"attempt": 2}}));
    let answer = response_to("shop", &spec);
    assert_eq!(answer.refusal, None);
    assert_eq!(answer.warnings.len(), 1);
    let warning = &answer.warnings[0];
    assert!(warning.starts_with("spec.retry.attempt: "), "{warning}");
    assert!(warning.ends_with("attempts is one"), "{warning}");
    let unusual = about(&json!({"retry": {"methods": ["GTE"]}}));
    let warning = &response_to("shop", &unusual).warnings[0];
    assert!(warning.ends_with("; GET is one"), "{warning}");
}

#[test]
fn invalid_stored_policy_can_still_be_labelled() {
    let bad = about(&json!({"retry": {"attempts": 9}}));
    let mut request = request("shop", &bad);
    request.operation = "UPDATE".to_owned();
    request.old_object = request.object.clone();
    request.object["metadata"]["labels"] = json!({"team": "catalog"});
    assert_eq!(
        validate(&request, &Cluster::default()),
        AdmissionResponse::allow()
    );
}

#[test]
fn webhook_refuses_exactly_policies_that_controller_rejects() {
    let spec: Value = serde_yaml_ng::from_str(EVERYTHING).unwrap();
    let (mut refused, mut taken) = (0, 0);
    for seed in seeds(POLICIES) {
        let mut object = json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": "x", "namespace": "shop", "generation": 1}, "spec": spec,
        });
        agreement::alter(&mut Random::new(seed), &mut object);
        if let Some(difference) = agreement::difference(&object) {
            panic!("seed {seed}: {difference}\n{object}");
        }
        match agreement::reviewed(&object).refusal {
            Some(_) => refused += 1,
            None => taken += 1,
        }
    }
    assert!(
        refused > 300 && taken > 300,
        "{refused} refused, {taken} taken"
    );
}
