//! What a Revocation means, and that a mistake in one subject lifts no other.

use super::*;
use crate::weft::RevocationSpec;

const REVOCATION: &str = include_str!("../../revocation.yaml");

fn complete() -> Value {
    serde_yaml_ng::from_str(REVOCATION).unwrap()
}

fn read(written: &Value) -> (Revoked, Vec<Mistake>) {
    spec::<RevocationSpec>(Some(written), &AT)
}

/// The complete one with another value at a pointer.
fn with(pointer: &str, value: Value) -> Value {
    let mut spec = complete();
    *spec.pointer_mut(pointer).unwrap() = value;
    spec
}

#[test]
fn revocation_that_says_everything_means_what_it_says() {
    let (revoked, mistakes) = read(&complete());
    assert_eq!(mistakes, []);
    let shown = revoked.subjects.iter();
    let shown: Vec<String> = shown.map(|(at, one)| format!("{at} {one}")).collect();
    let expected = [
        "0 sa shop/web",
        "1 pod shop/db-0",
        "2 node node-2",
        "3 certificate 5f3a90",
        "4 issuer sha256:9f2c0000000000000000000000000000",
    ];
    assert_eq!(shown, expected);
    assert_eq!(revoked.issued_before, Some(1_795_255_200));
    let RevocationSubject::Pod { uid, .. } = &revoked.subjects[1].1 else {
        panic!("{revoked:?}");
    };
    assert!(uid.is_some());
    // As if it were left out.
    let (revoked, mistakes) = read(&with("/subjects/1/pod/uid", json!("")));
    assert_eq!(mistakes, []);
    let RevocationSubject::Pod { uid, .. } = &revoked.subjects[1].1 else {
        panic!("{revoked:?}");
    };
    assert_eq!(*uid, None);
}

#[test]
fn mistake_in_subject_costs_that_subject_alone() {
    let two = json!({"node": {"name": "a"}, "certificate": {"serial": "5f3a90"}});
    for (pointer, value, field) in [
        ("/subjects/0", json!({}), "spec.subjects[0]"),
        ("/subjects/0", two, "spec.subjects[0]"),
        (
            "/subjects/0/serviceAccount/namespace",
            json!("a.b"),
            "spec.subjects[0].serviceAccount.namespace",
        ),
        (
            "/subjects/1/pod/uid",
            json!("A/B"),
            "spec.subjects[1].pod.uid",
        ),
        (
            "/subjects/2/node/name",
            json!(""),
            "spec.subjects[2].node.name",
        ),
        (
            "/subjects/3/certificate/serial",
            json!("0a:0b"),
            "spec.subjects[3].certificate.serial",
        ),
        (
            "/subjects/4/issuer/fingerprint",
            json!("sha256:9F2C0000000000000000000000000000"),
            "spec.subjects[4].issuer.fingerprint",
        ),
    ] {
        let (revoked, mistakes) = read(&with(pointer, value));
        assert_eq!(revoked.subjects.len(), 4, "{pointer}");
        let [one] = &*mistakes else {
            panic!("{pointer}: {mistakes:?}");
        };
        assert_eq!(one.field, field, "{one:?}");
        assert_eq!(one.severity, Severity::Refuse);
        assert!(one.text.ends_with("this subject is not revoked"), "{one:?}");
    }
}

/// Without its time it would end the workloads that it spares.
#[test]
fn unreadable_issue_time_revokes_nothing() {
    let (revoked, mistakes) = read(&with("/issuedBefore", json!("yesterday")));
    assert_eq!((revoked.subjects.len(), mistakes.len()), (0, 1));
    assert!(mistakes[0].text.ends_with("nothing is revoked"));
    let (revoked, mistakes) = read(&with("/reason", json!("")));
    assert_eq!((revoked.subjects.len(), mistakes.len()), (5, 1));
    let many = json!(vec![json!({"node": {"name": "a"}}); 65]);
    let (revoked, mistakes) = read(&with("/subjects", many));
    assert_eq!((revoked.subjects.len(), mistakes.len()), (0, 1));
}

#[test]
fn serials_are_equal_whatever_zeros_lead_them() {
    let serial = |text: &str| {
        let (revoked, mistakes) = read(&with("/subjects/3/certificate/serial", json!(text)));
        assert_eq!(mistakes, [], "{text}");
        revoked.subjects[3].1.clone()
    };
    assert_eq!(serial("5F3A90"), serial("005f3a90"));
    assert_eq!(serial("a90"), serial("0a90"));
}

/// A certificate has whole seconds, so one of that second was perhaps issued before.
#[test]
fn fraction_of_issue_time_counts_as_whole_second() {
    let seconds = |text: &str| {
        let (revoked, mistakes) = read(&with("/issuedBefore", json!(text)));
        assert_eq!(mistakes, [], "{text}");
        revoked.issued_before.unwrap()
    };
    let whole = seconds("2026-11-21T10:00:00Z");
    assert_eq!(seconds("2026-11-21T10:00:00.001Z"), whole + 1);
    assert_eq!(seconds("2026-11-21T11:00:00+01:00"), whole);
}
