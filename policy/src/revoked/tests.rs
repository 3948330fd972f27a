//! Which certificates each subject revokes, and which of several objects decides.

use std::time::{Duration, UNIX_EPOCH};

use super::*;

const ISSUER: [u8; 16] = [7; 16];

fn at(seconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(seconds)
}

fn by(name: &str) -> Origin {
    Origin::new("Revocation", "", name)
}

fn account(name: &str) -> Subject {
    Subject::ServiceAccount {
        namespace: "shop".into(),
        name: name.into(),
    }
}

fn pod(uid: &str) -> Subject {
    Subject::Pod { uid: uid.into() }
}

/// For good.
fn ends(subject: Subject, name: &str) -> Revocation {
    Revocation {
        subject,
        issued_before: None,
        announced: false,
        by: by(name),
    }
}

fn ends_older(subject: Subject, before: u64, name: &str) -> Revocation {
    Revocation {
        issued_before: Some(at(before)),
        ..ends(subject, name)
    }
}

fn announced(one: Revocation) -> Revocation {
    Revocation {
        announced: true,
        ..one
    }
}

fn web() -> SpiffeId {
    SpiffeId::of("cluster.local", "shop", "web").unwrap()
}

/// Of the account web, issued at 100.
fn facts(id: &SpiffeId) -> PeerFacts<'_> {
    PeerFacts {
        id,
        pod: Some("uid-1"),
        serial: &[0x00, 0xf3, 0xa9],
        issuer: &ISSUER,
        issued: at(100),
    }
}

// Claims: trust-5a
#[test]
fn each_subject_revokes_its_certificates_alone() {
    let id = web();
    let serial = |bytes: &[u8]| Subject::Serial(bytes.into());
    let rows = [
        (account("web"), account("api")),
        (pod("uid-1"), pod("uid-2")),
        (serial(&[0xf3, 0xa9]), serial(&[0xf3])),
        (serial(&[0, 0, 0xf3, 0xa9]), serial(&[0xf3, 0xa9, 0])),
        (Subject::Issuer(ISSUER), Subject::Issuer([8; 16])),
    ];
    for (own, other) in rows {
        let revocations = Revocations::of([ends(own.clone(), "a")]);
        assert_eq!(revocations.revoked(&facts(&id)), Some(&by("a")), "{own:?}");
        let revocations = Revocations::of([ends(other.clone(), "a")]);
        assert_eq!(revocations.revoked(&facts(&id)), None, "{other:?}");
    }
}

#[test]
fn account_of_another_namespace_or_form_stays() {
    let revocations = Revocations::of([ends(account("web"), "a")]);
    for other in [
        "spiffe://cluster.local/ns/shop2/sa/web",
        "spiffe://cluster.local/ns/shop/sa/web/x",
        "spiffe://cluster.local/x/ns/shop/sa/web",
        "spiffe://cluster.local/ns/shop/sa/Web",
    ] {
        let id: SpiffeId = other.parse().unwrap();
        assert_eq!(revocations.revoked(&facts(&id)), None, "{other}");
    }
    let id = web();
    let without_pod = PeerFacts {
        pod: None,
        ..facts(&id)
    };
    assert_eq!(revocations.revoked(&without_pod), Some(&by("a")));
    let of_pods = Revocations::of([ends(pod("uid-1"), "a"), ends(pod(""), "b")]);
    assert_eq!(of_pods.revoked(&without_pod), None);
}

// Claims: trust-5b
#[test]
fn certificates_issued_at_the_time_or_later_stay() {
    let id = web();
    for (before, refused) in [(99, false), (100, false), (101, true)] {
        let revocations = Revocations::of([ends_older(account("web"), before, "a")]);
        let found = revocations.find(&facts(&id));
        assert_eq!(found.is_some(), refused, "{before}");
        assert!(found.is_none_or(|found| found.issued_before == Some(at(before))));
    }
}

#[test]
fn strictest_of_several_revocations_decides() {
    let id = web();
    let older = |before, name| ends_older(account("web"), before, name);
    let decides = |all: &[Revocation]| {
        let mut reversed = all.to_vec();
        reversed.reverse();
        let [one, other] = [all.to_vec(), reversed].map(|all| {
            let revocations = Revocations::of(all);
            revocations.revoked(&facts(&id)).cloned()
        });
        assert_eq!(one, other, "in either order");
        one
    };
    // About one subject.
    assert_eq!(decides(&[older(50, "a"), older(101, "b")]), Some(by("b")));
    let for_good = ends(account("web"), "b");
    assert_eq!(decides(&[older(200, "a"), for_good]), Some(by("b")));
    // About two.
    let for_good = ends(Subject::Issuer(ISSUER), "b");
    assert_eq!(decides(&[older(200, "a"), for_good]), Some(by("b")));
    let of_pod = ends_older(pod("uid-1"), 101, "b");
    assert_eq!(decides(&[older(50, "a"), of_pod]), Some(by("b")));
}

#[test]
fn announced_revocation_refuses_nothing_and_outdates_older() {
    let id = web();
    let (own, issued) = (facts(&id), |at| PeerFacts {
        issued: at,
        ..facts(&id)
    });
    let revocations = Revocations::of([announced(ends_older(account("web"), 101, "a"))]);
    assert!(!revocations.is_empty());
    assert_eq!(revocations.revoked(&own), None);
    assert!(revocations.outdates(&own));
    assert!(!revocations.outdates(&issued(at(101))));
    // Beside one in force that is less strict.
    let both = [
        ends_older(account("web"), 50, "a"),
        announced(ends_older(account("web"), 101, "b")),
    ];
    let both = Revocations::of(both);
    assert_eq!(both.revoked(&own), None);
    assert!(both.outdates(&own));
    // For good there is nothing to announce.
    let for_good = Revocations::of([announced(ends(account("web"), "a"))]);
    assert_eq!(for_good.revoked(&own), Some(&by("a")));
}

#[test]
fn issuance_is_refused_or_bounded_by_account_and_pod() {
    let id = web();
    let issuance = |all: Vec<Revocation>| {
        let revocations = Revocations::of(all);
        let issued = revocations.issuance(&id, Some("uid-1"));
        issued.map_err(Clone::clone)
    };
    assert_eq!(issuance(Vec::new()), Ok(None));
    assert_eq!(
        issuance(vec![ends(account("web"), "a")]),
        Err(by("a")),
        "an account"
    );
    let of_pod = ends(pod("uid-1"), "a");
    assert_eq!(
        issuance(vec![ends_older(account("web"), 200, "b"), of_pod]),
        Err(by("a")),
        "a pod"
    );
    let dated = vec![
        ends_older(account("web"), 200, "a"),
        announced(ends_older(pod("uid-1"), 300, "b")),
    ];
    assert_eq!(issuance(dated), Ok(Some(at(300))));
    // A new certificate has another serial, and another issuer where that is replaced.
    let others = vec![
        ends(Subject::Serial([0xf3, 0xa9].into()), "a"),
        ends(Subject::Issuer(ISSUER), "b"),
        ends(account("api"), "c"),
    ];
    assert_eq!(issuance(others), Ok(None));
}

#[test]
fn nothing_revoked_is_empty() {
    assert!(Revocations::of([]).is_empty());
    assert!(Revocations::default().is_empty());
    assert!(!Revocations::of([ends(pod("uid-1"), "a")]).is_empty());
}
