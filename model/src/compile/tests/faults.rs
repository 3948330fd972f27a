//! FaultExperiments become rules while a run is under way and their namespace allows it.

use policy::fault::Selection;
use serde_json::{Value, json};

use super::{failures, report};
use crate::{
    fixtures::{Cluster, Resolved, annotate, created, namespace, pod, resolve_newest, set, shop},
    model::faults::seed,
    problem::{ConditionType, Reason},
};

const API: &str = "shop/api:80";

/// About a tenth of the calls to `api`, checked at `api`, with a status of this phase.
fn experiment(name: &str, phase: &str) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "FaultExperiment",
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"), "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "targetRef": {"kind": "Service", "name": "api"}, "share": "10%",
            "fault": {"abort": {}}, "duration": "1m",
            "checks": [{"service": "api", "errorRate": {"max": "2%"}}],
        },
        "status": {"phase": phase, "run": {"number": 3, "endsAt": "2030-01-01T00:00:00Z"}},
    })
}

fn allowing(value: &str) -> Value {
    annotate(namespace("shop"), "weft.dev/faults", value)
}

fn caller(cluster: &Cluster) -> Resolved {
    resolve_newest(&cluster.compile().0, "client", &["10.96.0.1:80"])
}

fn harms(cluster: &Cluster) -> bool {
    let got = caller(cluster);
    let name = format!("policy/{API}");
    got.names().contains(&name.as_str()) && !got.policy(API).fault.rules.is_empty()
}

#[test]
fn run_harms_callers_and_counts_at_checked_pods() {
    let cluster = shop().with(allowing("allowed"));
    let cluster = cluster.with(experiment("slow", "Running"));
    let policy = caller(&cluster).policy(API);
    let rule = &policy.fault.rules[0];
    assert_eq!(&**rule.origin.label(), "shop/slow");
    let section = &rule.then.as_ref().unwrap().section;
    let selection: Selection = section.selection;
    assert_eq!(selection.seed, seed("uid-slow", 3));
    assert_eq!(selection.share.millionths(), 100_000);

    let (model, problems) = cluster.compile();
    let guard = resolve_newest(&model, "api-1", &[]).guard();
    let groups = &guard.ports[&8080].groups.rules;
    assert_eq!(groups[0].then, Some(selection));
    assert!(report(&problems, "FaultExperiment slow").accepted.status);
    let run = model.index.policies.faults.runs.values().next().unwrap();
    assert_eq!(
        (run.seed, run.ports.as_slice()),
        (selection.seed, &[80][..])
    );
}

#[test]
fn status_without_permission_of_namespace_harms_nothing() {
    for (annotation, field) in [
        (None, "does not allow faults"),
        (Some("yes"), "is \"yes\", which cannot be read"),
        (Some("share=5"), "such as \"share=5%\""),
        (Some("stopped"), "does not allow faults"),
        (Some("share=5%"), "is 10%, and namespace shop allows 5%"),
    ] {
        let namespace = annotation.map_or_else(|| namespace("shop"), allowing);
        let cluster = shop().with(namespace);
        let cluster = cluster.with(experiment("slow", "Running"));
        assert!(!harms(&cluster), "{annotation:?}");
        let (model, problems) = cluster.compile();
        assert!(model.index.policies.faults.runs.is_empty());
        let accepted = failures(&problems, ConditionType::Accepted);
        assert_eq!(accepted, [(Reason::NotAllowed, "spec.share")]);
        let message = &report(&problems, "FaultExperiment slow").accepted.message;
        assert!(message.contains(field), "{message}");
    }
    assert!(harms(
        &shop()
            .with(allowing("share=10%"))
            .with(experiment("slow", "Running"))
    ));
}

#[test]
fn experiment_has_rules_only_while_run_is_under_way() {
    for (phase, expected) in [
        ("Pending", false),
        ("Waiting", true),
        ("Running", true),
        ("Finished", false),
        ("Whatever", false),
    ] {
        let cluster = shop().with(allowing("allowed"));
        assert_eq!(
            harms(&cluster.with(experiment("slow", phase))),
            expected,
            "{phase}"
        );
    }
    let suspended = set(experiment("slow", "Running"), "/spec/suspend", json!(true));
    assert!(!harms(&shop().with(allowing("allowed")).with(suspended)));
}

#[test]
fn second_run_of_a_namespace_conflicts() {
    let cluster = shop()
        .with(allowing("allowed"))
        .with(experiment("slow", "Running"))
        .with(created(experiment("worse", "Running"), 1));
    assert_eq!(caller(&cluster).policy(API).fault.rules.len(), 1);
    let (_, problems) = cluster.compile();
    let accepted = &report(&problems, "FaultExperiment worse").accepted;
    assert_eq!(accepted.reason, "Conflicted", "{accepted:?}");
}

#[test]
fn workload_has_the_limit_of_its_own_namespace() {
    let limit = |value: Option<&str>| {
        let namespace = value.map_or_else(|| namespace("shop"), allowing);
        let cluster = shop().with(namespace);
        resolve_newest(&cluster.compile().0, "client", &[])
            .workload()
            .fault_limit
    };
    assert_eq!(limit(None), 0);
    assert_eq!(limit(Some("share=0.25%")), 2500);
    assert_eq!(limit(Some("allowed")), 1_000_000);
}

#[test]
fn endpoints_name_harmed_pods_and_follow_their_labels() {
    let labels = json!({"labels": {"shard": "a"}, "zone": "zone-a"});
    let spec = set(experiment("slow", "Running"), "/spec/endpoints", labels);
    let sharded = |name, ip, shard| {
        set(
            pod(name, ip, "api"),
            "/metadata/labels",
            json!({"shard": shard}),
        )
    };
    let cluster = shop()
        .with(allowing("allowed"))
        .with(sharded("api-1", "10.0.0.11", "a"))
        .with(sharded("api-2", "10.0.0.12", "b"))
        .with(spec);
    let pods = |cluster: &Cluster| {
        let policy = caller(cluster).policy(API);
        let section = &policy.fault.rules[0].then.as_ref().unwrap().section;
        let pods = section
            .pods
            .as_ref()
            .unwrap()
            .iter()
            .map(ToString::to_string);
        pods.collect::<Vec<String>>()
    };
    assert_eq!(pods(&cluster), ["uid-api-1"]);
    // The short way of compiling must not miss it.
    let moved = cluster.clone().with(sharded("api-2", "10.0.0.12", "a"));
    let (model, problems) = cluster.compile();
    let before = crate::model::compiled::Compiled::new(
        std::sync::Arc::new(cluster.world()),
        model,
        problems,
    );
    let after = before.after(
        std::sync::Arc::new(moved.world()),
        &crate::Defaults::default(),
    );
    let got = resolve_newest(&after.model, "client", &["10.96.0.1:80"]).policy(API);
    let section = &got.fault.rules[0].then.as_ref().unwrap().section;
    assert_eq!(section.pods.as_ref().unwrap().iter().count(), 2);
}

#[test]
fn missing_service_is_named_and_nothing_is_harmed() {
    let spec = set(
        experiment("slow", "Running"),
        "/spec/checks/0/service",
        json!("gone"),
    );
    let cluster = shop().with(allowing("allowed")).with(spec);
    assert!(!harms(&cluster));
    let (_, problems) = cluster.compile();
    let refs = failures(&problems, ConditionType::ResolvedRefs);
    assert_eq!(refs, [(Reason::RefNotFound, "spec.checks[0].service")]);
}
