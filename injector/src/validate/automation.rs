//! Tests of refused releases and experiments.

use serde_json::{Value, json};

use super::*;

const RELEASE: &str = include_str!("../../../crds/src/weft/release.yaml");
const EXPERIMENT: &str = include_str!("../../../crds/src/weft/experiment.yaml");

fn read(text: &str) -> Value {
    serde_yaml_ng::from_str(text).unwrap()
}

/// The answer to an update, or to a creation where there is no old object.
fn answer(kind: &str, object: &Value, old: &Value) -> AdmissionResponse {
    let operation = if old.is_null() { "CREATE" } else { "UPDATE" };
    let request = json!({
        "uid": "u", "kind": {"group": "weft.dev", "version": "v1alpha1", "kind": kind},
        "namespace": "shop", "name": "x", "operation": operation,
        "object": object, "oldObject": old,
    });
    validate(
        &serde_json::from_value(request).unwrap(),
        &Cluster::default(),
    )
}

fn created(kind: &str, spec: &Value) -> AdmissionResponse {
    answer(kind, &json!({"metadata": {}, "spec": spec}), &json!(null))
}

#[test]
fn invalid_release_or_experiment_is_refused_with_advice() {
    let release = read(RELEASE);
    assert_eq!(
        created("CanaryRelease", &release),
        AdmissionResponse::allow()
    );
    let mut falling = release.clone();
    falling["steps"][3]["weight"] = json!(10);
    let refusal = created("CanaryRelease", &falling).refusal.unwrap();
    assert_eq!(
        refusal,
        "CanaryRelease shop/x is invalid: spec.steps[3].weight: brings the new revision from 20 \
         to 10 percent of the calls; weights never fall, but by matches; the release has no effect"
    );
    let experiment = read(EXPERIMENT);
    let kind = "FaultExperiment";
    assert_eq!(created(kind, &experiment), AdmissionResponse::allow());
    let mut harmless = experiment.clone();
    harmless["fault"] = json!({});
    let refusal = created(kind, &harmless).refusal.unwrap();
    assert!(refusal.contains("spec.fault: holds none of"), "{refusal}");
    let mut misspelt = experiment;
    misspelt["fault"]["abort"]["httpstatus"] = json!(500);
    let warnings = created(kind, &misspelt).warnings;
    assert!(warnings[0].ends_with("httpStatus is one"), "{warnings:?}");
}

#[test]
fn running_experiment_takes_no_change_but_suspend() {
    let kind = "FaultExperiment";
    let object = |spec: &Value, phase: &str| json!({"metadata": {}, "spec": spec, "status": {"phase": phase}});
    let before = read(EXPERIMENT);
    let mut wider = before.clone();
    wider["share"] = json!("20%");
    let mut suspended = before.clone();
    suspended["suspend"] = json!(true);
    let running = object(&before, "Running");
    let refusal = answer(kind, &object(&wider, "Running"), &running).refusal;
    assert!(refusal.unwrap().contains("only suspend may change"));
    let stopped = answer(kind, &object(&suspended, "Running"), &running);
    assert_eq!(stopped, AdmissionResponse::allow());
    // Control: what does not run is changed at will.
    let finished = answer(
        kind,
        &object(&wider, "Finished"),
        &object(&before, "Finished"),
    );
    assert_eq!(finished, AdmissionResponse::allow());
}

#[test]
fn update_during_release_run_warns_of_another_deployment() {
    let kind = "CanaryRelease";
    let object = |spec: &Value, phase: &str| json!({"metadata": {}, "spec": spec, "status": {"phase": phase}});
    let before = read(RELEASE);
    for field in ["deployment", "service"] {
        let mut misspelt = before.clone();
        misspelt[field] = json!("webb");
        for phase in ["Progressing", "RolledBack"] {
            let answer = answer(kind, &object(&misspelt, phase), &object(&before, phase));
            assert_eq!(answer.refusal, None, "GitOps is not held up");
            let [warning] = answer.warnings.as_slice() else {
                panic!("{:?}", answer.warnings);
            };
            let start = format!("spec.{field}: changes from ");
            assert!(warning.starts_with(&start), "{warning}");
            assert!(warning.contains(&format!("to webb while the release is {phase}")));
        }
        let idle = answer(kind, &object(&misspelt, "Idle"), &object(&before, "Idle"));
        assert_eq!(idle, AdmissionResponse::allow());
    }
}
