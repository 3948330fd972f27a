//! A policy that decides nothing takes neither room nor a place, and its condition names the
//! winner.

use std::collections::BTreeSet;

use policy::{
    access::Source,
    name::{Kind, ObjectRef, SpiffeId},
    origin::Origin,
    route::Match,
    traffic::{
        Sections, Sources,
        call::{Retry, Timeouts},
        precedence::resolve,
    },
};

use super::*;

fn service() -> ServiceId {
    ServiceId::new("shop", "api")
}

/// Retries of all calls, the older the lower its number.
fn candidate(n: usize, bytes: usize) -> PolicyCandidate {
    let name = format!("p{n:03}");
    PolicyCandidate {
        object: ObjectRef::new(Kind::TrafficPolicy, "shop", &*name),
        policy: Policy {
            origin: Origin::new("TrafficPolicy", "shop", name),
            created: i64::try_from(n).unwrap(),
            target: Target::Service(service()),
            enforce: false,
            routes: Match::Always,
            sources: Sources::Everyone,
            sections: Sections {
                retry: Some(Retry::DEFAULT),
                ..Sections::default()
            },
        },
        generation: 1,
        bytes,
        compiled: 0,
        origins: Vec::new(),
    }
}

fn as_written(policy: &Policy, _: u16) -> Vec<Section> {
    policy.says(&policy.sections).collect()
}

/// Each is read for every port of every Service, and however large it is, it is not kept.
#[test]
fn ineffective_policies_are_not_retained_but_losses_are() {
    let all: Vec<PolicyCandidate> = (0..100).map(|n| candidate(n, MOST_BYTES)).collect();
    let counting = ByTarget::new(&all).at(&service(), &[80, 81], as_written);
    assert_eq!(counting.len(), 2);
    let together = resolve(all.iter().map(|one| &one.policy), &service(), 80);
    let together: BTreeSet<Lost> = together.lost.into_iter().collect();
    assert_eq!(together.len(), 99);
    for at_port in counting {
        let [decides] = &at_port.policies[..] else {
            panic!("{} are read again", at_port.policies.len());
        };
        assert_eq!(&**decides.policy.origin.name(), "p000");
        let lost: BTreeSet<Lost> = at_port.lost.into_iter().collect();
        assert_eq!(lost, together);
    }
    // Control: where each is for another caller all decide, as many as there are places.
    let apart = (0..100).map(|n| {
        let mut one = candidate(n, 0);
        let id = SpiffeId::of("cluster.local", "shop", &format!("a{n}")).unwrap();
        one.policy.sources = Sources::Only(vec![Source::Identity(id)]);
        one
    });
    let apart: Vec<PolicyCandidate> = apart.collect();
    let counting = ByTarget::new(&apart).at(&service(), &[80], as_written);
    assert_eq!(counting[0].policies.len(), POLICIES_PER_SERVICE);
    assert!(counting[0].lost.is_empty());
}

#[test]
fn policies_without_sections_take_no_evaluation_place() {
    let mut all: Vec<PolicyCandidate> = (0..=MAX_COMPARED).map(|n| candidate(n, 0)).collect();
    all[MAX_COMPARED].policy.sections = Sections {
        timeouts: Some(Timeouts::DEFAULT),
        ..Sections::default()
    };
    // Such as a fallback to the very Service.
    let only_the_last = |policy: &Policy, port: u16| -> Vec<Section> {
        let mut says = as_written(policy, port);
        says.retain(|section| *section == Section::Timeouts);
        says
    };
    let mut by_target = ByTarget::new(&all);
    let counting = by_target.at(&service(), &[80], only_the_last);
    assert_eq!(counting[0].policies.len(), 1);
    assert!(by_target.coverages[MAX_COMPARED].counts);
    let mut coverages = by_target.coverages.iter();
    assert!(coverages.all(|coverage| coverage.first.is_none()));
    // Control: those that set something are evaluated, though they decide nothing.
    let mut by_target = ByTarget::new(&all);
    let counting = by_target.at(&service(), &[80], as_written);
    assert_eq!(counting[0].policies.len(), 1);
    let last = &by_target.coverages[MAX_COMPARED];
    assert!(!last.counts && last.first.is_some());
}

/// One that is skipped elsewhere and sets nothing here would be reported as in force in part.
#[test]
fn policy_without_sections_at_port_does_not_count_there() {
    let all = [candidate(0, 0)];
    let counts_at = |ports: &[u16]| {
        let at_81 = |policy: &Policy, port: u16| -> Vec<Section> {
            let mut says = as_written(policy, port);
            says.retain(|_| port == 81);
            says
        };
        let mut by_target = ByTarget::new(&all);
        let counting = by_target.at(&service(), ports, at_81);
        assert_eq!(counting.len(), ports.len());
        by_target.coverages[0].counts
    };
    assert!(!counts_at(&[80]));
    assert!(counts_at(&[80, 81]), "control");
}
