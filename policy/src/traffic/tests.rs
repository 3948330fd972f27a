//! What a section means that a user writes empty, and whose word counts in a split.

use std::time::Duration;

use http::{Method, StatusCode};

use super::*;
use crate::route::Rule;
use crate::route::edits::RuleRetry;
use crate::traffic::call::{Budget, Cause, Causes, Downstream, StickyScope};
use crate::traffic::endpoint::{BreakerState, Locality, Subset};
use crate::traffic::guard::{LimitKey, LimitMode, LimitScope, OverloadMode};
use crate::traffic::set::{GrpcCode, GrpcCodes, Methods, Percent, Statuses};

const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

#[test]
fn every_section_has_the_promised_defaults() {
    let none = Timeouts::default();
    assert_eq!(
        (none.request, none.backend_request, none.idle),
        (None, None, None)
    );
    assert_eq!(none.share.get(), 100);

    let retry = Retry::default();
    assert_eq!((retry.attempts, retry.backoff), (1, ms(25)));
    assert_eq!(retry.codes.iter().collect::<Vec<_>>(), [503]);
    assert!(retry.grpc_codes.is_empty());
    for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
        assert!(retry.methods.contains(&method));
    }
    for method in [Method::POST, Method::PUT, Method::DELETE, Method::PATCH] {
        assert!(!retry.methods.contains(&method));
    }
    let budget = Budget::default();
    assert_eq!((budget.percent.get(), budget.min_per_second), (20, 1));
    assert_eq!(budget.interval, ms(5000));

    let ejection = Ejection::default();
    assert_eq!(ejection.consecutive_failures, 5);
    assert_eq!(ejection.codes.iter().collect::<Vec<_>>(), [502, 503, 504]);
    assert_eq!(
        (ejection.base_time, ejection.max_time),
        (ms(5000), ms(60_000))
    );
    assert_eq!(ejection.max_percent.get(), 34);

    let breaker = Breaker::default();
    assert_eq!(breaker.state, BreakerState::Auto);
    assert_eq!(
        (breaker.failure_percent.get(), breaker.min_requests),
        (50, 50)
    );
    assert_eq!(
        (breaker.interval, breaker.open_time),
        (ms(10_000), ms(5000))
    );

    let overload = Overload::default();
    assert_eq!(overload.mode, OverloadMode::Adaptive);
    assert_eq!(
        (overload.queue_time, overload.max_concurrency),
        (ms(100), None)
    );

    let balance = Balance::default();
    assert_eq!((balance.locality, balance.subset), (None, Subset::All));
    assert_eq!(balance.warmup, ms(10_000));

    assert_eq!(Causes::default().iter().collect::<Vec<_>>(), Cause::ALL);
    assert_eq!(Downstream::default(), Downstream::ReadOnly);
    assert_eq!(StickyScope::default(), StickyScope::Endpoint);
    assert_eq!(Priority::default(), Priority::Normal);
    assert_eq!(LimitKey::default(), LimitKey::None);
    assert_eq!(LimitScope::default(), LimitScope::Service);
    assert_eq!(LimitMode::default(), LimitMode::Enforce);
    assert_eq!(Locality::default(), Locality::None);
}

#[test]
fn without_policy_only_retries_ejection_and_warm_up_apply() {
    assert_eq!(without_object::RETRY, Retry::default());
    assert_eq!(without_object::EJECTION, Ejection::default());
    assert_eq!(without_object::BALANCE, Balance::default());
    let nothing = EffectivePolicy::default();
    assert_eq!(*nothing.timeouts.decide(None).0, None);
    assert_eq!(*nothing.retry.decide(None).0, None);
    assert_eq!(*nothing.fallback.decide(None).0, None);
    assert_eq!(*nothing.mirror.decide(None).0, None);
    assert_eq!(*nothing.priority.decide(None).0, None);
    assert_eq!(nothing.rate_limits.rules, []);
    assert_eq!(*nothing.ejection.decide(None).0, None);
    assert_eq!(*nothing.breaker.decide(None).0, None);
    assert_eq!(*nothing.balance.decide(None).0, None);
    assert_eq!(*nothing.overload.decide(None).0, None);
    assert_eq!(*nothing.sticky.decide(None).0, None);
    assert_eq!(*nothing.overrides.decide(None).0, None);
}

#[test]
fn default_burst_is_one_second_with_minimum_one() {
    for (requests, seconds, burst) in [(100, 1, 100), (100, 10, 10), (1, 3600, 1), (7, 2, 3)] {
        let per = Duration::from_secs(seconds);
        assert_eq!(RateLimit::default_burst(requests, per), burst);
    }
}

#[test]
fn percent_takes_0_to_100_and_nothing_else() {
    assert_eq!(Percent::try_from(0), Ok(Percent::NONE));
    assert_eq!(Percent::try_from(100), Ok(Percent::ALL));
    for raw in [-1, 101, 256, i64::MAX] {
        let error = Percent::try_from(raw).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("{raw} is no percentage: 0 to 100")
        );
    }
}

#[test]
fn sets_hold_what_was_put_in_and_nothing_beside() {
    let all: Vec<u16> = (400..600).collect();
    for code in [400, 463, 464, 500, 527, 528, 591, 592, 599] {
        let one = Statuses::of(&[code]);
        let members: Vec<u16> = all
            .iter()
            .copied()
            .filter(|other| one.contains(StatusCode::from_u16(*other).unwrap()))
            .collect();
        assert_eq!(members, [code]);
    }
    assert_eq!(Statuses::of(&[200, 399, 600, 999]), Statuses::EMPTY);
    assert!(!Statuses::of(&all).contains(StatusCode::OK));

    let numbers = [1, 2, 4, 8, 13, 14];
    assert_eq!(GrpcCode::ALL.map(GrpcCode::number), numbers);
    let codes = GrpcCodes::of(&GrpcCode::ALL);
    for number in 0..=255u8 {
        assert_eq!(
            codes.contains(number),
            numbers.contains(&number),
            "{number}"
        );
    }
    for code in GrpcCode::ALL {
        assert_eq!(code.as_str().parse(), Ok(code));
    }
    assert!("UNAVAILABLE".parse::<GrpcCode>().is_err());
    assert!(Methods::Any.contains(&Method::from_bytes(b"PURGE").unwrap()));
}

#[test]
fn sections_are_called_as_their_fields() {
    let all = Section::ALL.map(Section::as_str);
    let promised = [
        "timeouts",
        "retry",
        "ejection",
        "breaker",
        "fallback",
        "rateLimits",
        "priority",
        "overload",
        "mirror",
        "balance",
        "sticky",
        "overrides",
    ];
    assert_eq!(all, promised);
    let limited: Vec<&str> = Section::ALL
        .into_iter()
        .filter(|section| section.may_be_limited())
        .map(Section::as_str)
        .collect();
    let promised = [
        "timeouts",
        "retry",
        "fallback",
        "rateLimits",
        "priority",
        "mirror",
    ];
    assert_eq!(limited, promised);
}

#[test]
fn serving_service_of_split_decides_about_its_endpoints() {
    let policy_of = |name: &str, failures| Table {
        rules: vec![Rule {
            origin: Origin::new("TrafficPolicy", "shop", name),
            when: Match::Always,
            then: Some(Ejection {
                consecutive_failures: failures,
                ..Ejection::DEFAULT
            }),
        }],
        otherwise: None,
    };
    let (root, serving, silent) = (
        policy_of("root", 1),
        policy_of("canary", 2),
        Table::only(None),
    );
    let failures = |serving: &Whole<Ejection>, root: &Whole<Ejection>| {
        let (ejection, origin) = serving_or_root(serving, root)?;
        Some((ejection.consecutive_failures, origin.name().to_string()))
    };
    assert_eq!(failures(&serving, &root), Some((2, "canary".into())));
    assert_eq!(failures(&silent, &root), Some((1, "root".into())));
    assert_eq!(failures(&silent, &silent), None);
}

#[test]
fn logs_show_no_hash_of_a_token() {
    let token = call::Token {
        sha256: [0xab; 32],
        expires: 7,
    };
    assert_eq!(format!("{token:?}"), "Token { expires: 7, .. }");
}

#[test]
fn priority_drops_one_class_and_lowest_stays_lowest() {
    assert_eq!(
        Priority::ALL.map(Priority::lower),
        [Priority::Sheddable, Priority::Sheddable, Priority::Normal]
    );
    assert!(Priority::Sheddable < Priority::Normal && Priority::Normal < Priority::Critical);
}

#[test]
fn caller_may_lower_call_priority_but_not_raise() {
    use Priority::{Critical, Normal, Sheddable};
    for (requested, policy, class) in [
        (None, None, Normal),
        (None, Some(Critical), Critical),
        (None, Some(Sheddable), Sheddable),
        (Some(Critical), None, Normal),
        (Some(Critical), Some(Critical), Critical),
        (Some(Normal), Some(Critical), Normal),
        (Some(Sheddable), Some(Critical), Sheddable),
        (Some(Normal), Some(Sheddable), Sheddable),
    ] {
        let found = Priority::of_call(requested, policy);
        assert_eq!(found, class, "{requested:?} {policy:?}");
    }
    for class in Priority::ALL {
        assert_eq!(Priority::parse(class.as_str().as_bytes()), Some(class));
    }
    assert_eq!(Priority::parse(b"sheddable"), Some(Sheddable));
    assert_eq!(Priority::parse(b"High"), None);
}

#[test]
fn retry_of_rule_has_own_statuses_and_budget() {
    let rule = RuleRetry {
        attempts: 3,
        codes: vec![500, 503],
        backoff: None,
    };
    let retry = Retry::of_rule(&rule);
    assert_eq!((retry.attempts, retry.backoff), (3, ms(25)));
    assert_eq!(retry.codes, Statuses::of(&[500, 503]));
    assert_eq!(retry.methods, Methods::SAFE);
    assert_eq!(retry.budget.min_per_second, 10);
    let later = RuleRetry {
        backoff: Some(ms(100)),
        ..rule
    };
    assert_eq!(Retry::of_rule(&later).backoff, ms(100));
}
