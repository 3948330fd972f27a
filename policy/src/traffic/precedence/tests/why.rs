//! Why one policy comes before another, as it is reported to the other's author.
//!
//! Claims: calls-33

use super::*;

/// A policy that sets the same for some requests only comes after a closer one for all, so that
/// a narrower policy is no way out.
#[test]
fn lost_section_reports_why_other_policy_precedes() {
    let loser = retry("m", 1);
    let changed = |name, change: fn(&mut Policy)| {
        let mut policy = retry(name, 1);
        change(&mut policy);
        policy
    };
    for (contender, by) in [
        (
            changed("z", |one| {
                (one.target, one.enforce) = (Target::Mesh, true);
            }),
            Precedence::Enforced,
        ),
        (
            changed("z", |one| one.target = Target::Port(service(), 80)),
            Precedence::Closer,
        ),
        (changed("z", |one| one.created = -1), Precedence::Older),
        (changed("a", |_| ()), Precedence::Name),
    ] {
        let mut narrow = loser.clone();
        narrow.routes = Match::AnyOf(vec![path('a')]);
        let beats_narrow = matches!(by, Precedence::Enforced | Precedence::Closer);
        for (loser, loses) in [(&loser, true), (&narrow, beats_narrow)] {
            let lost = resolve([loser, &contender], &service(), 80).lost;
            let losses = lost.iter().map(|lost| (&lost.loser, &lost.winner, lost.by));
            let expected = loses.then_some((&loser.origin, &contender.origin, by));
            assert!(losses.eq(expected), "{by:?}: {lost:?}");
            // Ranks alone, without the policies, give the same order.
            let [one, other] = [loser, &contender].map(Rank::of);
            assert_eq!(one.cmp(&other), order(loser, &contender), "{by:?}");
            assert_eq!(loses, one > other, "{by:?}");
            if loses {
                assert_eq!(other.over(&one), by);
            }
        }
    }
}
