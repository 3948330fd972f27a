//! What is said of an object, once and in order.

use std::sync::Arc;

use policy::name::{Kind, ObjectRef};

use super::*;
use crate::world::Meta;

fn split() -> ObjectRef {
    ObjectRef {
        kind: Kind::TrafficSplit,
        namespace: "shop".into(),
        name: "s".into(),
    }
}

fn seen() -> Findings {
    let mut findings = Findings::default();
    let meta = Meta {
        generation: 3,
        uid: Arc::from("u"),
        ..Meta::default()
    };
    findings.seen(split(), &meta, "v1 1".to_owned());
    findings
}

#[test]
fn an_object_without_problems_has_both_conditions() {
    let problems = seen().finish();
    let verdict = &problems.verdicts[&split()];
    assert_eq!(verdict.generation, 3);
    assert_eq!(
        (verdict.accepted.status, verdict.accepted.reason),
        (true, "Accepted")
    );
    assert_eq!(
        (verdict.resolved_refs.status, verdict.resolved_refs.reason),
        (true, "ResolvedRefs")
    );
    assert_eq!(verdict.accepted.message, "");
}

#[test]
fn the_worst_problem_gives_the_reason_and_all_are_in_the_message() {
    let mut findings = seen();
    let mut about = findings.about(&split(), 3);
    about.unresolved(
        Reason::PortNotFound,
        "spec.backends[0].service",
        "no port 80".to_owned(),
    );
    about.unresolved(
        Reason::NoUsableBackend,
        "spec.backends",
        "answers 503".to_owned(),
    );
    about.warn(
        Reason::NotEnforced,
        "spec.rules",
        "has no effect".to_owned(),
    );
    let problems = findings.finish();
    let verdict = &problems.verdicts[&split()];
    assert_eq!(
        (verdict.resolved_refs.status, verdict.resolved_refs.reason),
        (false, "NoUsableBackend")
    );
    assert_eq!(
        verdict.resolved_refs.message,
        "spec.backends: answers 503; spec.backends[0].service: no port 80"
    );
    assert_eq!(
        (verdict.accepted.status, verdict.accepted.reason),
        (true, "NotEnforced")
    );
}

#[test]
fn a_message_has_an_end() {
    let mut findings = seen();
    for i in 0..100 {
        let text = format!("{i}{}", "ä".repeat(10_000));
        findings
            .about(&split(), 3)
            .refuse(Reason::Invalid, "spec", text);
    }
    let problems = findings.finish();
    let message = &problems.verdicts[&split()].accepted.message;
    assert!(
        message.len() < 10_000 && message.ends_with("and 92 more"),
        "{}",
        message.len()
    );
}
