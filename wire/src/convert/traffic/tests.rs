//! Policies survive the way there and back, and what is not understood allows no more.

mod fault;

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use policy::access::Caller;
use policy::http_match::HttpMatch;
use policy::name::{ServiceId, SpiffeId};
use policy::traffic::call::{
    Budget, Cause, Causes, Downstream, Fallback, FallbackResponse, FallbackTo, Mirror, Override,
    Retry, Sticky, StickyKey, StickyScope, TcpTarget, Timeouts, Token,
};
use policy::traffic::endpoint::{Balance, Breaker, BreakerState, Ejection, Locality, Subset};
use policy::traffic::guard::{
    LimitKey, LimitMode, LimitScope, Overload, OverloadMode, Priority, RateLimit,
};
use policy::traffic::pod::{GuardPort, PodGuard};
use policy::traffic::set::{GrpcCode, GrpcCodes, Methods, Percent, Statuses};
use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;
use prost::Message as _;

use self::fault::{a_fault, a_selection};
use super::*;

fn a_time(least: u64, most: u64) -> impl Strategy<Value = Duration> {
    (least..=most).prop_map(Duration::from_millis)
}

fn some_time() -> impl Strategy<Value = Option<Duration>> {
    option::of(a_time(1, 86_400_000))
}

fn a_percent() -> impl Strategy<Value = Percent> {
    (0u8..=100).prop_map(Percent::at_most)
}

fn a_share() -> impl Strategy<Value = Percent> {
    (1u8..=100).prop_map(Percent::at_most)
}

fn statuses(least: u16) -> impl Strategy<Value = Statuses> {
    vec(least..600, 0..5).prop_map(|codes| Statuses::of(&codes))
}

fn a_name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9]{0,6}"
}

fn a_header() -> impl Strategy<Value = HeaderName> {
    a_name().prop_map(|name| name.parse().unwrap())
}

fn a_service() -> impl Strategy<Value = ServiceId> {
    a_name().prop_map(|name| ServiceId::new("shop", name))
}

fn some_methods() -> impl Strategy<Value = Methods> {
    let known = select(vec![Method::GET, Method::POST, Method::HEAD]);
    prop_oneof![
        Just(Methods::Any),
        vec(known, 0..3).prop_map(|methods| Methods::Only(methods.into())),
    ]
}

fn a_caller() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Authenticated),
        Just(Source::Unauthenticated),
        a_name().prop_map(|sa| Source::Identity(SpiffeId::of("td", "shop", &sa).unwrap())),
        vec(a_name(), 0..3).prop_map(Source::pods),
    ]
}

prop_compose! {
    fn a_timeouts()(request in some_time(), backend_request in some_time(), idle in some_time(),
        share in a_share()) -> Timeouts {
        Timeouts { request, backend_request, idle, share }
    }
}

prop_compose! {
    fn a_retry()(attempts in 0u8..=5, codes in statuses(400),
        grpc in vec(select(GrpcCode::ALL.to_vec()), 0..4), methods in some_methods(),
        backoff in a_time(0, 10_000), percent in a_percent(), interval in a_time(1000, 60_000),
        min_per_second in 0u16..=1000) -> Retry {
        let budget = Budget { percent, interval, min_per_second };
        Retry { attempts, codes, grpc_codes: GrpcCodes::of(&grpc), methods, backoff, budget }
    }
}

prop_compose! {
    fn a_response()(status in 200u16..600, headers in vec((a_header(), "[ -~]{0,9}"), 0..3),
        body in vec(any::<u8>(), 0..40)) -> FallbackTo {
        let headers = headers.into_iter().map(|(name, value)| {
            (name, HeaderValue::from_str(&value).unwrap())
        });
        FallbackTo::Response(FallbackResponse {
            status: StatusCode::from_u16(status).unwrap(),
            headers: headers.collect(),
            body: body.into(),
        })
    }
}

prop_compose! {
    fn a_fallback()(to in prop_oneof![a_service().prop_map(FallbackTo::Service), a_response()],
        on in vec(select(Cause::ALL.to_vec()), 0..5)) -> Arc<Fallback> {
        Arc::new(Fallback { to, on: Causes::of(&on) })
    }
}

fn some_targets() -> impl Strategy<Value = Vec<TcpTarget>> {
    let target = (a_service(), 1u16..).prop_map(|(service, port)| TcpTarget { service, port });
    vec(target, 0..3)
}

prop_compose! {
    fn a_mirror()(service in a_service(), percent in a_percent(), methods in some_methods(),
        downstream in select(vec![Downstream::ReadOnly, Downstream::Any]),
        allow_tcp in some_targets()) -> Mirror {
        Mirror { service, percent, methods, downstream, allow_tcp }
    }
}

prop_compose! {
    fn a_limit()(name in a_name(), requests in 1u32..=1_000_000, per in a_time(1000, 3_600_000),
        burst in 1u32..=1_000_000, audit in any::<bool>(), instance in any::<bool>(),
        key in prop_oneof![Just(LimitKey::None), Just(LimitKey::Caller),
            Just(LimitKey::ClientAddress),
            a_header().prop_map(LimitKey::Header)]) -> Arc<RateLimit> {
        Arc::new(RateLimit {
            name: name.into(), requests, per, burst, key,
            scope: if instance { LimitScope::Instance } else { LimitScope::Service },
            mode: if audit { LimitMode::Audit } else { LimitMode::Enforce },
        })
    }
}

prop_compose! {
    fn an_ejection()(consecutive_failures in 0u8..=100, codes in statuses(500),
        base_time in a_time(1000, 300_000), max_time in a_time(1000, 3_600_000),
        max_percent in a_percent()) -> Ejection {
        Ejection { consecutive_failures, codes, base_time, max_time, max_percent }
    }
}

prop_compose! {
    fn a_breaker()(
        state in select(vec![BreakerState::Auto, BreakerState::Open, BreakerState::Closed]),
        failure_percent in a_share(), interval in a_time(5000, 60_000),
        min_requests in 1u32..=100_000, open_time in a_time(1000, 300_000)) -> Breaker {
        Breaker { state, failure_percent, interval, min_requests, open_time }
    }
}

prop_compose! {
    fn a_balance()(
        locality in option::of(select(vec![
            Locality::None, Locality::PreferSameZone, Locality::PreferSameNode])),
        subset in prop_oneof![Just(Subset::All), Just(Subset::Automatic),
            (1u32..=10_000).prop_map(Subset::Count)],
        warmup in a_time(0, 300_000)) -> Balance {
        Balance { locality, subset, warmup }
    }
}

prop_compose! {
    fn an_overload()(
        mode in select(vec![OverloadMode::Adaptive, OverloadMode::Audit, OverloadMode::Off]),
        queue_time in a_time(5, 10_000), max_concurrency in option::of(1u32..)) -> Overload {
        Overload { mode, queue_time, max_concurrency }
    }
}

prop_compose! {
    fn a_sticky()(
        key in prop_oneof![Just(StickyKey::Caller), a_header().prop_map(StickyKey::Header),
            a_name().prop_map(|name| StickyKey::Cookie(name.into()))],
        scope in select(vec![StickyScope::Endpoint, StickyScope::Backend]),
        ttl in some_time()) -> Sticky {
        Sticky { key, scope, ttl }
    }
}

prop_compose! {
    fn an_override()(to in vec(a_service(), 1..3), sources in vec(a_caller(), 0..3),
        forwarders in vec(a_caller(), 0..3),
        tokens in vec((any::<[u8; 32]>(), any::<i64>()), 0..3)) -> Override {
        let tokens = tokens.into_iter().map(|(sha256, expires)| Token { sha256, expires });
        Override { to, sources, forwarders, tokens: tokens.collect() }
    }
}

fn a_when() -> impl Strategy<Value = Match> {
    let one = a_name().prop_map(|name| {
        let no_header: [(&str, &str); 0] = [];
        HttpMatch::new(&name, Some("/a"), &["GET"], &no_header).unwrap()
    });
    prop_oneof![Just(Match::Always), vec(one, 0..3).prop_map(Match::AnyOf)]
}

fn some_sources() -> impl Strategy<Value = Sources> {
    prop_oneof![
        Just(Sources::Everyone),
        vec(a_caller(), 0..3).prop_map(Sources::Only)
    ]
}

/// A table of rules that routes and callers limit.
fn limited<T: Clone + std::fmt::Debug>(
    section: impl Strategy<Value = T>,
) -> impl Strategy<Value = Limited<T>> {
    let rule = (a_name(), a_when(), some_sources(), section);
    vec(rule, 0..3).prop_map(|rules| Table {
        rules: rules
            .into_iter()
            .map(|(name, when, sources, section)| Rule {
                origin: Origin::new("TrafficPolicy", "shop", name),
                when,
                then: Some(Scoped { sources, section }),
            })
            .collect(),
        otherwise: None,
    })
}

fn whole<T: Clone + std::fmt::Debug>(
    section: impl Strategy<Value = T>,
) -> impl Strategy<Value = Whole<T>> {
    option::of((a_name(), section)).prop_map(|rule| Table {
        rules: rule
            .into_iter()
            .map(|(name, section)| Rule {
                origin: Origin::new("TrafficPolicy", "shop", name),
                when: Match::Always,
                then: Some(section),
            })
            .collect(),
        otherwise: None,
    })
}

prop_compose! {
    fn for_callers()(timeouts in limited(a_timeouts()), retry in limited(a_retry()),
        fallback in limited(a_fallback()),
        mirror in limited(vec(a_mirror(), 0..3).prop_map(Arc::from)),
        priority in limited(select(Priority::ALL.to_vec())),
        ejection in whole(an_ejection()), breaker in whole(a_breaker()),
        balance in whole(a_balance()), sticky in whole(a_sticky()),
        overrides in whole(vec(an_override(), 0..3).prop_map(Arc::from)),
        fault in limited(a_fault())) -> EffectivePolicy {
        EffectivePolicy { timeouts, retry, fallback, mirror, priority, ejection, breaker, balance,
            sticky, overrides, fault, ..EffectivePolicy::default() }
    }
}

prop_compose! {
    fn for_a_port()(timeouts in limited(a_timeouts()), limits in limited(a_limit()),
        priority in limited(select(Priority::ALL.to_vec())),
        overload in whole(an_overload()), groups in whole(a_selection())) -> GuardPort {
        let mut rate_limits = limits;
        for rule in &mut rate_limits.rules {
            let name = rule.then.as_ref().map(|scoped| scoped.section.name.clone());
            rule.origin = rule.origin.rule(&name.unwrap());
        }
        EffectivePolicy { timeouts, rate_limits, priority, overload, groups, ..EffectivePolicy::default() }
    }
}

prop_compose! {
    fn a_guard()(ports in vec((1u16.., for_a_port()), 0..3),
        read_only in option::of(some_targets())) -> PodGuard {
        PodGuard { ports: ports.into_iter().collect(), read_only }
    }
}

proptest! {
    #[test]
    fn caller_policy_survives_wire_round_trip(stated in for_callers()) {
        let bytes = policy_message(&stated).encode_to_vec();
        let message = v1::Policy::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(traffic(&message), Ok(stated));
    }

    #[test]
    fn pod_guard_survives_wire_round_trip(stated in a_guard()) {
        let bytes = v1::Guard::from(&stated).encode_to_vec();
        let message = v1::Guard::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(PodGuard::try_from(&message), Ok(stated));
    }
}

fn rule(section: Option<Section>) -> v1::PolicyRule {
    v1::PolicyRule {
        origin: Some((&Origin::new("TrafficPolicy", "shop", "p")).into()),
        section,
        ..v1::PolicyRule::default()
    }
}

fn attempts(attempts: u8) -> Section {
    let retry = Retry {
        attempts,
        ..Retry::DEFAULT
    };
    retry.to_section()
}

fn read(rules: Vec<v1::PolicyRule>) -> Result<EffectivePolicy, BadResource> {
    traffic(&v1::Policy { rules })
}

#[test]
fn unknown_policy_section_is_ignored_and_others_apply() {
    // As a newer controller would send one: a field of the oneof with another number.
    let mut bytes = rule(None).encode_to_vec();
    bytes.extend([0xfa, 0x01, 0x02, 0x08, 0x01]);
    let newer = v1::PolicyRule::decode(bytes.as_slice()).unwrap();
    let stated = read(vec![newer, rule(Some(attempts(0)))]).unwrap();
    assert_eq!(stated.retry.rules.len(), 1);
    let nothing = EffectivePolicy {
        retry: stated.retry.clone(),
        ..EffectivePolicy::default()
    };
    assert_eq!(stated, nothing);
}

#[test]
fn rule_for_unknown_caller_kind_matches_no_caller() {
    let mut newer = rule(Some(attempts(5)));
    newer.sources = Some(v1::Callers {
        sources: vec![v1::Source { who: None }],
    });
    let stated = read(vec![newer, rule(Some(attempts(0)))]).unwrap();
    let caller = stated.seen_by(Caller::Outside);
    let decided = caller.retry.decide(None).0.as_ref().unwrap();
    assert_eq!(decided.attempts, 0, "the next one decides");
    let empty = v1::PolicyRule {
        sources: Some(v1::Callers::default()),
        ..rule(Some(attempts(5)))
    };
    let stated = read(vec![empty]).unwrap();
    assert_eq!(stated.seen_by(Caller::Outside).retry.decide(None).0, &None);
}

#[test]
fn rate_limit_with_unknown_key_is_skipped_not_shared() {
    let of = |key| {
        let limit = Arc::new(RateLimit {
            name: "a".into(),
            requests: 5,
            per: Duration::from_secs(1),
            burst: 5,
            key,
            scope: LimitScope::Service,
            mode: LimitMode::Enforce,
        });
        limit.to_section()
    };
    let Section::RateLimit(mut newer) = of(LimitKey::Caller) else {
        panic!("a limit is a limit");
    };
    newer.key = None;
    // A field of the oneof with another number.
    let mut bytes = newer.encode_to_vec();
    bytes.extend([0xf8, 0x01, 0x01]);
    let newer = v1::RateLimit::decode(bytes.as_slice()).unwrap();
    let stated = read(vec![
        rule(Some(Section::RateLimit(newer))),
        rule(Some(of(LimitKey::None))),
    ])
    .unwrap();
    let keys = stated
        .rate_limits
        .rules
        .iter()
        .map(|rule| rule.then.as_ref());
    let keys: Vec<_> = keys
        .map(|then| then.map(|limit| &limit.section.key))
        .collect();
    assert_eq!(keys, [Some(&LimitKey::None)]);
}

#[test]
fn section_of_endpoints_that_is_limited_decides_nothing() {
    let limited = v1::PolicyRule {
        matches: Some(v1::HttpMatches::default()),
        ..rule(Some(Ejection::DEFAULT.to_section()))
    };
    assert_eq!(read(vec![limited]), Ok(EffectivePolicy::default()));
}

#[test]
fn known_invalid_value_refuses_resource_and_names_field() {
    let wrong = |section: Section| {
        read(vec![rule(None), rule(Some(section))])
            .unwrap_err()
            .field
    };
    assert_eq!(wrong(attempts(6)), "rules[1].attempts");
    let limit = v1::RateLimit {
        name: "a".to_owned(),
        requests: 0,
        per: 1000,
        burst: 1,
        ..v1::RateLimit::default()
    };
    assert_eq!(wrong(Section::RateLimit(limit)), "rules[1].requests");
    let sticky = v1::Sticky {
        key: Some(v1::sticky::Key::Header("a b".to_owned())),
        ..v1::Sticky::default()
    };
    assert_eq!(wrong(Section::Sticky(sticky)), "rules[1].header");
    let token = v1::Override {
        tokens: vec![v1::Token::default()],
        ..v1::Override::default()
    };
    let overrides = v1::Overrides {
        overrides: vec![token],
    };
    assert_eq!(
        wrong(Section::Overrides(overrides)),
        "rules[1].overrides[0].tokens.sha256"
    );
    let fault = v1::Fault {
        share: 1_000_001,
        ..v1::Fault::default()
    };
    assert_eq!(wrong(Section::Fault(fault)), "rules[1].share");
    let mut without_origin = rule(Some(attempts(1)));
    without_origin.origin = None;
    assert_eq!(
        read(vec![without_origin]).unwrap_err().field,
        "rules[0].origin"
    );
}

#[test]
fn unknown_section_values_fall_back_to_unset_behaviour() {
    let breaker = v1::Breaker {
        state: 9,
        failure_percent: 50,
        interval: 10_000,
        min_requests: 50,
        open_time: 5000,
    };
    let overload = v1::Overload {
        mode: 9,
        queue_time: 100,
        max_concurrency: 0,
    };
    let stated = read(vec![
        rule(Some(Section::Breaker(breaker))),
        rule(Some(Section::Overload(overload))),
        rule(Some(Section::Priority(9))),
        rule(Some(Section::Sticky(v1::Sticky::default()))),
        rule(Some(Section::Fallback(v1::Fallback::default()))),
        // Of an effect that is not known.
        rule(Some(Section::Fault(v1::Fault {
            share: 1_000_000,
            ..v1::Fault::default()
        }))),
    ])
    .unwrap();
    let breaker = stated.breaker.decide(None).0.unwrap();
    assert_eq!(breaker.state, BreakerState::Auto);
    let overload = stated.overload.decide(None).0.unwrap();
    assert_eq!(overload.mode, OverloadMode::Off);
    let priority = stated.priority.rules[0].then.as_ref().unwrap();
    assert_eq!(priority.section, Priority::Normal);
    assert!(stated.sticky.rules.is_empty() && stated.fallback.rules.is_empty());
    assert!(stated.fault.rules.is_empty());
}
