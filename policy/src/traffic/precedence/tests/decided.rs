//! Policies that are asked one after another decide what they decide together.

use super::*;

/// What each decides that is about port 80, asked in order of precedence.
fn one_after_another(policies: &[Policy]) -> BTreeSet<(Origin, Section)> {
    let about = policies
        .iter()
        .filter(|policy| policy.target.covers(&service(), 80) && !policy.is_void());
    let mut ranked: Vec<&Policy> = about.collect();
    ranked.sort_by(|one, other| order(one, other));
    let calls = Calls::of_each(ranked.iter().copied());
    let mut decided = Decided::new(&calls);
    let mut won = BTreeSet::new();
    for (place, policy) in ranked.into_iter().enumerate() {
        let sections = decided.left_to(policy, place);
        decided.add(&sections, place);
        for section in sections {
            won.insert((policy.origin.clone(), section));
        }
    }
    won
}

#[test]
fn whoever_is_covered_decides_nothing_until_there_is_no_room_for_who_covers() {
    let mut all = [retry("a", 1), retry("b", 2), retry("c", 3)];
    all[2].sources = Sources::Only(vec![Source::Identity(account("web"))]);
    let calls = Calls::of_each(&all);
    let mut decided = Decided::new(&calls);
    assert_eq!(decided.left_to(&all[0], 0), [Section::Retry]);
    assert_eq!(decided.left_to(&all[1], 1), [Section::Retry], "not added");
    decided.add(&[Section::Retry], 0);
    assert!(decided.left_to(&all[1], 1).is_empty());
    assert!(decided.left_to(&all[2], 2).is_empty());
    // What is narrower covers nothing that is wider.
    let mut decided = Decided::new(&calls);
    decided.add(&[Section::Retry], 2);
    assert_eq!(decided.left_to(&all[0], 0), [Section::Retry]);
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
    fn policies_that_are_asked_one_after_another_win_what_they_win_together(
        plain in proptest::collection::vec(plain(), 0..12),
    ) {
        let policies: Vec<Policy> = plain.iter().enumerate().map(|(at, p)| policy(at, p)).collect();
        let resolved = resolve(&policies, &service(), 80);
        prop_assert_eq!(one_after_another(&policies), resolved.won);
    }
}
