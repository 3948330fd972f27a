//! What of a policy is sent to callers and to pods, and what carrying it out takes.
//!
//! Claims: calls-36

use std::time::Duration;

use super::*;
use crate::access::Source;
use crate::name::SpiffeId;
use crate::route::{Match, Rule};
use crate::traffic::{Sources, Whole};

const SECOND: Duration = Duration::from_secs(1);

fn origin(name: &str) -> Origin {
    Origin::new("TrafficPolicy", "shop", name)
}

fn rule<T>(name: &str, section: T) -> Rule<Option<Scoped<T>>> {
    let sources = Sources::Everyone;
    Rule {
        origin: origin(name),
        when: Match::Always,
        then: Some(Scoped { sources, section }),
    }
}

fn timeouts(all: &[(&str, Timeouts)]) -> EffectivePolicy {
    let rules = all.iter().map(|(name, one)| rule(name, *one));
    EffectivePolicy {
        timeouts: Table {
            rules: rules.collect(),
            otherwise: None,
        },
        ..EffectivePolicy::default()
    }
}

fn parts<const N: usize>(parts: [Part; N]) -> Parts {
    Parts::of(&parts)
}

#[test]
fn empty_section_reaches_callers() {
    let empty = timeouts(&[("empty", Timeouts::DEFAULT)]);
    assert_eq!(empty.for_callers(), empty);
}

/// A rule that sets nothing, as the absent sections of an object do.
#[test]
fn rule_without_section_is_not_sent() {
    let mut traffic = timeouts(&[("some", Timeouts::DEFAULT)]);
    traffic.timeouts.rules[0].then = None;
    assert_eq!(traffic.for_callers(), EffectivePolicy::default());
    assert_eq!(traffic.for_pods(), EffectivePolicy::default());
}

#[test]
fn proxies_get_all_sections_of_their_side() {
    let limit = |name: &str, scope| {
        Arc::new(RateLimit {
            name: name.into(),
            requests: 1,
            per: SECOND,
            burst: 1,
            key: Default::default(),
            scope,
            mode: Default::default(),
        })
    };
    let balance = Balance {
        locality: Some(Locality::PreferSameZone),
        subset: Subset::Automatic,
        warmup: SECOND,
    };
    let ends = Timeouts {
        request: Some(SECOND),
        idle: Some(SECOND),
        ..Timeouts::DEFAULT
    };
    let mut traffic = timeouts(&[("ends", ends)]);
    traffic.balance = Whole {
        rules: vec![rule("balance", ()).map(|_| Some(balance))],
        otherwise: None,
    };
    traffic.rate_limits.rules = vec![
        rule("limits", limit("one", LimitScope::Instance)),
        rule("limits", limit("all", LimitScope::Service)),
    ];
    let of_callers = EffectivePolicy {
        rate_limits: Table::only(None),
        ..traffic.clone()
    };
    assert_eq!(traffic.for_callers(), of_callers);
    let pods = traffic.for_pods();
    assert_eq!(pods.rate_limits, traffic.rate_limits);
    let section = pods.timeouts.rules[0].then.as_ref().unwrap().section;
    assert_eq!((section.request, section.idle), (Some(SECOND), None));
    assert_eq!(pods.balance, Table::only(None));

    let needs = |needs: Vec<(&Origin, Parts)>| -> Vec<(String, Parts)> {
        let named = needs.into_iter();
        named
            .map(|(origin, parts)| (origin.name().to_string(), parts))
            .collect()
    };
    let expected = [
        ("ends", parts([Part::RequestTimeout, Part::IdleTimeout])),
        (
            "balance",
            parts([Part::Locality, Part::Subset, Part::Warmup]),
        ),
    ];
    let expected = expected.map(|(name, parts)| (name.to_owned(), parts));
    assert_eq!(needs(traffic.caller_needs().collect()), expected);
    let expected = [
        ("ends", parts([Part::OutsideTimeout])),
        ("limits", parts([Part::InstanceLimit])),
        ("limits", parts([Part::ServiceLimit])),
    ];
    let expected = expected.map(|(name, parts)| (name.to_owned(), parts));
    assert_eq!(needs(traffic.pod_needs().collect()), expected);
}

#[test]
fn pods_get_timeouts_for_mesh_accounts_and_outside_callers() {
    let web = Source::Identity(SpiffeId::of("cluster.local", "shop", "web").unwrap());
    for source in [web, Source::Authenticated, Source::Unauthenticated] {
        let of = |ends: Timeouts| {
            let mut traffic = timeouts(&[("some", ends), ("rest", Timeouts::DEFAULT)]);
            let scoped = traffic.timeouts.rules[0].then.as_mut().unwrap();
            scoped.sources = Sources::Only(vec![source.clone()]);
            traffic
        };
        let traffic = of(Timeouts {
            request: Some(SECOND),
            ..Timeouts::DEFAULT
        });
        let pods = traffic.for_pods();
        // The rule behind it ends nothing, and keeps its place.
        assert_eq!(pods.timeouts, traffic.timeouts, "{source:?}");
        let needs: Vec<_> = traffic.pod_needs().collect();
        let some = origin("some");
        assert_eq!(
            needs,
            [(&some, parts([Part::OutsideTimeout]))],
            "{source:?}"
        );
        // Control: a section that ends no call.
        let idle = of(Timeouts {
            idle: Some(SECOND),
            ..Timeouts::DEFAULT
        });
        assert_eq!(idle.for_pods(), EffectivePolicy::default());
        assert_eq!(idle.pod_needs().count(), 0);
    }
}

#[test]
fn plain_balance_needs_warm_up_alone() {
    let explicit = Balance {
        locality: Some(Locality::None),
        ..Balance::DEFAULT
    };
    for balance in [Balance::DEFAULT, explicit] {
        assert_eq!(Carried::needs(&balance), parts([Part::Warmup]));
    }
}

#[test]
fn callers_get_priorities_and_only_pods_get_overload() {
    let traffic = EffectivePolicy {
        priority: Table {
            rules: vec![rule("first", Priority::Critical)],
            otherwise: None,
        },
        overload: Table {
            rules: vec![rule("guard", ()).map(|_| Some(Overload::DEFAULT))],
            otherwise: None,
        },
        ..EffectivePolicy::default()
    };
    let of_callers = EffectivePolicy {
        priority: traffic.priority.clone(),
        ..EffectivePolicy::default()
    };
    assert_eq!(traffic.for_callers(), of_callers);
    assert_eq!(traffic.for_pods(), traffic);
    let callers: Vec<_> = traffic.caller_needs().map(|(_, parts)| parts).collect();
    assert_eq!(callers, [parts([Part::Priority])]);
    let pods: Vec<_> = traffic.pod_needs().map(|(_, parts)| parts).collect();
    assert_eq!(pods, [parts([Part::Priority]), parts([Part::Overload])]);
}
