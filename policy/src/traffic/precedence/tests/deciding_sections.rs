//! Policies that are asked one after another decide what they decide together.

use super::*;

/// What each policy about port 80 decides and loses to others, in order of precedence.
fn one_after_another(policies: &[Policy]) -> (BTreeSet<(Origin, Section)>, BTreeSet<Lost>) {
    let about = policies
        .iter()
        .filter(|policy| policy.target.covers(&service(), 80) && !policy.is_void());
    let mut ranked: Vec<&Policy> = about.collect();
    ranked.sort_by(|one, other| order(one, other));
    let calls = Calls::of_each(ranked.iter().copied());
    let mut decided = Decided::new(&calls);
    let (mut won, mut lost) = (BTreeSet::new(), BTreeSet::new());
    for (place, policy) in ranked.iter().enumerate() {
        let outcome = decided.outcome_of(policy.says(&policy.sections), place);
        decided.add(&outcome.decides, place);
        for section in outcome.decides {
            won.insert((policy.origin.clone(), section));
        }
        for (section, winner) in outcome.lost {
            lost.insert(Lost::to(ranked[winner], policy, section));
        }
    }
    (won, lost)
}

#[test]
fn covered_policy_decides_only_without_room_for_covering_one() {
    let mut all = [retry("a", 1), retry("b", 2), retry("c", 3)];
    all[2].sources = Sources::Only(vec![Source::Identity(account("web"))]);
    let calls = Calls::of_each(&all);
    let ask = |decided: &Decided<'_>, place: usize| {
        let policy: &Policy = &all[place];
        decided.outcome_of(policy.says(&policy.sections), place)
    };
    let mut decided = Decided::new(&calls);
    let free = SectionOutcome {
        decides: vec![Section::Retry],
        lost: vec![],
    };
    assert_eq!(ask(&decided, 0), free);
    assert_eq!(ask(&decided, 1), free, "not added");
    decided.add(&[Section::Retry], 0);
    let covered = SectionOutcome {
        decides: vec![],
        lost: vec![(Section::Retry, 0)],
    };
    assert_eq!(ask(&decided, 1), covered);
    assert_eq!(ask(&decided, 2), covered);
    // What is narrower covers nothing that is wider.
    let mut decided = Decided::new(&calls);
    decided.add(&[Section::Retry], 2);
    assert_eq!(ask(&decided, 0), free);
}

#[test]
fn a_policy_without_a_section_that_counts_says_nothing() {
    let mut nothing = retry("nothing", 1);
    nothing.sections = Sections::default();
    assert!(nothing.is_void());
    // Only calls of all can be asked for it.
    nothing.sections.ejection = Some(Ejection::DEFAULT);
    assert!(!nothing.is_void());
    nothing.routes = Match::AnyOf(vec![path('a')]);
    assert!(nothing.is_void());
    nothing.sections.retry = Some(Retry::DEFAULT);
    assert!(!nothing.is_void());
    nothing.routes = Match::AnyOf(vec![]);
    assert!(nothing.is_void());
}

proptest! {
    #[test]
    fn sequential_and_joint_policy_resolution_agree(
        plain in proptest::collection::vec(plain(), 0..12),
    ) {
        let policies: Vec<Policy> = plain.iter().enumerate().map(|(at, p)| policy(at, p)).collect();
        let resolved = resolve(&policies, &service(), 80);
        let lost: BTreeSet<Lost> = resolved.lost.into_iter().collect();
        prop_assert_eq!(one_after_another(&policies), (resolved.won, lost));
    }
}
