//! What is reported of an object, once and in order.

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
    let report = &problems.reports[&split()];
    assert_eq!(report.generation, 3);
    assert_eq!(
        (report.accepted.status, report.accepted.reason),
        (true, "Accepted")
    );
    assert_eq!(
        (report.resolved_refs.status, report.resolved_refs.reason),
        (true, "ResolvedRefs")
    );
    assert_eq!(report.accepted.message, "");
}

#[test]
fn worst_problem_gives_reason_and_message_lists_all() {
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
    let report = &problems.reports[&split()];
    assert_eq!(
        (report.resolved_refs.status, report.resolved_refs.reason),
        (false, "NoUsableBackend")
    );
    assert_eq!(
        report.resolved_refs.message,
        "spec.backends: answers 503; spec.backends[0].service: no port 80"
    );
    assert_eq!(
        (report.accepted.status, report.accepted.reason),
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
    let message = &problems.reports[&split()].accepted.message;
    assert!(
        message.len() < 10_000 && message.ends_with("and 92 more"),
        "{}",
        message.len()
    );
}

#[test]
fn worst_of_many_problems_are_kept_and_all_counted() {
    const PROBLEMS: usize = 10_000;
    let mut findings = seen();
    let mut about = findings.about(&split(), 3);
    // The worst comes last.
    let mut reasons = vec![Reason::RefNotFound; PROBLEMS];
    reasons.push(Reason::NoUsableBackend);
    for (at, reason) in reasons.into_iter().enumerate() {
        let field = format!("spec.backends[{at:05}]");
        about.unresolved(reason, &field, "is not there".to_owned());
        about.warn(Reason::FieldIgnored, &field, "means nothing".to_owned());
    }
    let problems = findings.finish();
    assert_eq!(problems.list.len(), KEPT + LISTED);
    assert!(problems.list.is_sorted());
    let report = &problems.reports[&split()];
    let (accepted, refs) = (&report.accepted, &report.resolved_refs);
    assert_eq!((refs.status, refs.reason), (false, "NoUsableBackend"));
    let listed: Vec<&str> = refs.message.split("; ").collect();
    assert_eq!(listed.len(), LISTED + 1);
    assert_eq!(listed[0], "spec.backends[10000]: is not there");
    assert_eq!(listed[LISTED - 1], "spec.backends[00006]: is not there");
    assert_eq!(
        listed[LISTED],
        format!("and {} more", PROBLEMS + 1 - LISTED)
    );
    assert_eq!((accepted.status, accepted.reason), (true, "FieldIgnored"));
}

#[test]
fn problem_messages_are_built_only_if_shown() {
    let mut findings = seen();
    let mut about = findings.about(&split(), 3);
    let mut found = 0;
    for at in 0..100 {
        about.unresolved_with(
            Reason::RefNotFound,
            &format!("spec.backends[{at:02}]"),
            || {
                found += 1;
                "is not there".to_owned()
            },
        );
    }
    assert_eq!(found, LISTED);
    // A repeated report adds nothing.
    let again = "is not there".to_owned();
    about.unresolved(Reason::RefNotFound, "spec.backends[00]", again);
    let problems = findings.finish();
    let message = &problems.reports[&split()].resolved_refs.message;
    assert!(message.ends_with("and 92 more"), "{message}");
}
