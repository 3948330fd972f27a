//! Which Service is named to an author who loses a time at pods that several lead to.

use policy::route::Table;

use super::*;

fn rule(name: &str, when: Match, sources: Sources, seconds: u64) -> TimeoutRule {
    let section = Timeouts {
        request: Some(Duration::from_secs(seconds)),
        ..Timeouts::DEFAULT
    };
    Rule {
        origin: Origin::new("TrafficPolicy", "shop", name),
        when,
        then: Some(Scoped { sources, section }),
    }
}

/// Of some requests from outside alone.
fn reads() -> TimeoutRule {
    let outside = Sources::Only(vec![Source::Unauthenticated]);
    rule("reads", Match::AnyOf(Vec::new()), outside, 1)
}

fn of_all(name: &str, seconds: u64) -> TimeoutRule {
    rule(name, Match::Always, Sources::Everyone, seconds)
}

/// What is reported about `reads`, once for each Service that it is about: the winner, the other
/// Service, and whether the winner speaks by the own one, too.
fn overridden(services: &[(&str, &[TimeoutRule])]) -> Vec<(String, String, bool)> {
    let services = services.iter().map(|(name, rules)| {
        let timeouts = Table {
            rules: rules.to_vec(),
            otherwise: None,
        };
        let configured = EffectivePolicy {
            timeouts,
            ..EffectivePolicy::default()
        };
        (ObjectKey::new("shop", name), configured)
    });
    let services: Vec<(ObjectKey, EffectivePolicy)> = services.collect();
    let ranks = Ranks::new();
    let mut port = GuardBuilder::default();
    for (service, configured) in &services {
        port.add((service, 80), Some((configured, &ranks)));
    }
    let overridden = port.overridden().into_iter().map(|one| {
        assert_eq!(&**one.loser.name(), "reads");
        let winner = one.winner.unwrap().name().to_string();
        (winner, one.service.name.to_string(), one.by_own)
    });
    overridden.collect()
}

/// An author who reads that it decides at the first of them would write there what stands there
/// already.
#[test]
fn policy_deciding_two_services_names_the_differing_one() {
    let same = [reads(), of_all("wide", 10)];
    let overridden_with = |near: u64| {
        let near = [of_all("near", near)];
        overridden(&[("a", &same[..]), ("b", &same[..]), ("c", &near[..])])
    };
    let by_own = ("wide".to_owned(), "c".to_owned(), true);
    assert_eq!(overridden_with(2), [by_own.clone(), by_own]);
    // Control: a longer time of the other one alone.
    let by_other = ("near".to_owned(), "c".to_owned(), false);
    assert_eq!(overridden_with(20), [by_other.clone(), by_other]);
}
