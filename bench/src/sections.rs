//! What the stand-in controllers say in the sections of a TrafficPolicy.

use std::sync::Arc;
use std::time::Duration;

use http::{HeaderName, StatusCode};
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::route::{Match, Rule, Table};
use policy::traffic::call::{
    Causes, Downstream, Fallback, FallbackResponse, FallbackTo, Mirror, Override, Retry, Sticky,
    StickyKey, StickyScope, Timeouts,
};
use policy::traffic::endpoint::{Balance, Breaker, Ejection, Locality, Subset};
use policy::traffic::guard::{LimitKey, LimitMode, LimitScope, Overload, Priority, RateLimit};
use policy::traffic::set::{Methods, Percent};
use policy::traffic::{EffectivePolicy, Limited, Scoped, Sources, Whole};

/// Of all objects.
const NAMESPACE: &str = "bench";
/// Far more than a bench sends in a second.
const LIMIT: u32 = 1_000_000;

/// Something in every section, which each call goes through and which changes nothing of what
/// it comes to: no end is near, no limit is reached, no caller is a tenant, nothing is copied.
pub(crate) fn every() -> EffectivePolicy {
    let seconds = Duration::from_secs;
    let other = || ServiceId::new(NAMESPACE, "web-b");
    let timeouts = Timeouts {
        request: Some(seconds(30)),
        backend_request: Some(seconds(10)),
        idle: Some(seconds(300)),
        share: Percent::at_most(80),
    };
    // It would show as a failed call.
    let response = FallbackResponse {
        status: StatusCode::INTERNAL_SERVER_ERROR,
        headers: Vec::new(),
        body: Arc::from(&b""[..]),
    };
    let fallback = Fallback {
        to: FallbackTo::Response(response),
        on: Causes::ALL,
    };
    let mirrors: Arc<[Mirror]> = Arc::from(vec![Mirror {
        service: other(),
        percent: Percent::NONE,
        methods: Methods::SAFE,
        downstream: Downstream::Any,
        allow_tcp: Vec::new(),
    }]);
    let overrides: Arc<[Override]> = Arc::from(vec![Override {
        to: vec![other()],
        sources: Vec::new(),
        forwarders: Vec::new(),
        tokens: Vec::new(),
    }]);
    EffectivePolicy {
        timeouts: limited(Sources::Everyone, timeouts),
        retry: limited(Sources::Everyone, Retry::DEFAULT),
        fallback: limited(Sources::Everyone, Arc::new(fallback)),
        mirror: limited(Sources::Everyone, mirrors),
        priority: limited(Sources::Everyone, Priority::Normal),
        rate_limits: limited(Sources::Everyone, Arc::new(unreached())),
        ejection: whole(Ejection::DEFAULT),
        breaker: whole(Breaker::DEFAULT),
        balance: whole(Balance {
            locality: Some(Locality::PreferSameZone),
            subset: Subset::Automatic,
            ..Balance::DEFAULT
        }),
        overload: whole(Overload::DEFAULT),
        sticky: whole(Sticky {
            key: StickyKey::Header(HeaderName::from_static("x-tenant")),
            scope: StickyScope::Endpoint,
            ttl: None,
        }),
        overrides: whole(overrides),
        ..EffectivePolicy::default()
    }
}

fn unreached() -> RateLimit {
    RateLimit {
        name: "per-caller".into(),
        requests: LIMIT,
        per: Duration::from_secs(1),
        burst: LIMIT,
        key: LimitKey::Caller,
        scope: LimitScope::Instance,
        mode: LimitMode::Enforce,
    }
}

/// For calls of these, whatever they ask.
pub(crate) fn limited<T>(sources: Sources, section: T) -> Limited<T> {
    Table {
        rules: vec![rule(Some(Scoped { sources, section }))],
        otherwise: None,
    }
}

pub(crate) fn whole<T>(section: T) -> Whole<T> {
    Table {
        rules: vec![rule(Some(section))],
        otherwise: None,
    }
}

fn rule<T>(then: T) -> Rule<T> {
    Rule {
        origin: Origin::new("TrafficPolicy", NAMESPACE, "bench"),
        when: Match::Always,
        then,
    }
}

#[cfg(test)]
mod tests {
    use policy::traffic::EffectivePolicy;
    use policy::traffic::part::{Part, Parts};

    use super::every;

    #[test]
    fn bench_policy_uses_all_parts_except_limits_and_refusals() {
        let traffic = every();
        let needed = traffic.caller_needs().chain(traffic.pod_needs());
        let needed: Parts = needed.map(|(_, parts)| parts).collect();
        let left_out = Parts::ALL.without(needed);
        let meant = Parts::of(&[
            Part::ServiceLimit,
            Part::ReadOnly,
            Part::Fault,
            Part::Groups,
        ]);
        assert_eq!(left_out.without(meant), Parts::NONE);
        let none = EffectivePolicy::default();
        assert!(
            none.caller_needs().next().is_none(),
            "control: nothing is said in it"
        );
    }
}
