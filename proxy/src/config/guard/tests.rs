//! Limits of the own pod, from one configuration to the next.
//!
//! Claims: calls-59, calls-66, calls-70

use http::Method;
use policy::access::Source;
use policy::http_match::HttpMatch;
use policy::name::SpiffeId;
use policy::path::PathForms;
use policy::route::Table;
use policy::traffic::Sources;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn limit(requests: u32, key: LimitKey) -> RateLimit {
    RateLimit {
        name: "each".into(),
        requests,
        per: SECOND,
        burst: requests,
        key,
        scope: LimitScope::Instance,
        mode: LimitMode::Enforce,
    }
}

fn pod_guard(limits: &[RateLimit]) -> PodGuard {
    let rules = limits.iter().map(|limit| Rule {
        origin: Origin::new("TrafficPolicy", "shop", "p").rule(&limit.name),
        when: Match::Always,
        then: Some(Scoped {
            sources: Sources::Everyone,
            section: Arc::new(limit.clone()),
        }),
    });
    let port = GuardPort {
        rate_limits: Table {
            rules: rules.collect(),
            otherwise: None,
        },
        ..GuardPort::default()
    };
    PodGuard {
        ports: BTreeMap::from([(80, port)]),
        read_only: None,
    }
}

const fn facts<'a>(method: &'a Method, path: &'a str, headers: &'a HeaderMap) -> RequestFacts<'a> {
    RequestFacts {
        method,
        path,
        query: None,
        headers,
    }
}

const OUTSIDE: Arrival<'static> = Arrival {
    caller: Caller::Outside,
    client: None,
    request: None,
    path: PathReadings::One,
};

const fn ways(unreadable: bool) -> PathReadings<'static> {
    if unreadable {
        PathReadings::Unknown
    } else {
        PathReadings::One
    }
}

fn passed(guard: &Guard, now: Instant, tries: usize) -> usize {
    let port = guard.port(80).unwrap();
    let admitted = |_: &usize| port.admit(now, &OUTSIDE, |_| {}).is_ok();
    (0..tries).filter(admitted).count()
}

#[test]
fn a_change_of_one_limit_fills_no_bucket() {
    let now = Instant::now();
    let other = RateLimit {
        name: "other".into(),
        ..limit(1000, LimitKey::None)
    };
    let first = Guard::after(
        None,
        &pod_guard(&[limit(10, LimitKey::None)]),
        &Shares::default(),
        now,
    );
    assert_eq!(passed(&first, now, 20), 10);
    let both = pod_guard(&[other, limit(10, LimitKey::None)]);
    let second = Guard::after(Some(&first), &both, &Shares::default(), now);
    assert_eq!(passed(&second, now, 20), 0, "they stay empty");
    assert_eq!(passed(&second, now + SECOND, 20), 10);
    // Another rate, the same bucket.
    let more = Guard::after(
        Some(&second),
        &pod_guard(&[limit(20, LimitKey::None)]),
        &Shares::default(),
        now + SECOND,
    );
    assert!(passed(&more, now + SECOND, 40) <= 10);
    // By another key it is another limit.
    let keyed = Guard::after(
        Some(&more),
        &pod_guard(&[limit(20, LimitKey::Caller)]),
        &Shares::default(),
        now + SECOND,
    );
    assert_eq!(passed(&keyed, now + SECOND, 40), 20);
}

#[test]
fn outside_callers_get_timeout_of_first_matching_policy() {
    let rule = |when, sources, request| Rule {
        origin: Origin::new("TrafficPolicy", "shop", "p"),
        when,
        then: Some(Scoped {
            sources,
            section: Timeouts {
                request: Some(Duration::from_secs(request)),
                ..Timeouts::DEFAULT
            },
        }),
    };
    let reads = HttpMatch::new("reads", None, &["GET"], &[] as &[(&str, &str)]).unwrap();
    let mut pod_guard = pod_guard(&[limit(1, LimitKey::None)]);
    pod_guard.ports.get_mut(&80).unwrap().timeouts.rules = vec![
        rule(Match::Always, Sources::Only(Vec::new()), 9),
        rule(Match::AnyOf(vec![reads]), Sources::Everyone, 1),
        rule(Match::Always, Sources::Everyone, 5),
    ];
    let now = Instant::now();
    let before = Guard::after(
        None,
        &self::pod_guard(&[limit(1, LimitKey::None)]),
        &Shares::default(),
        now,
    );
    assert_eq!(passed(&before, now, 2), 1);
    let guard = Guard::after(Some(&before), &pod_guard, &Shares::default(), now);
    assert_eq!(passed(&guard, now, 2), 0, "the bucket stays");
    let headers = HeaderMap::new();
    let ask = |guard: &Guard, method, unreadable| {
        let facts = facts(&method, "/", &headers);
        let port = guard.port(80).unwrap();
        let time = port.request_time(Caller::Outside, &facts, ways(unreadable));
        time.map(|time| time.as_secs())
    };
    let time = |guard: &Guard, method| ask(guard, method, false);
    assert_eq!(time(&before, Method::GET), None);
    assert_eq!(time(&guard, Method::GET), Some(1));
    assert_eq!(time(&guard, Method::POST), Some(5));
    // No path that may be read in two ways has more time than any route gives.
    assert_eq!(ask(&guard, Method::POST, true), Some(1));
    assert_eq!(ask(&before, Method::POST, true), None);
}

#[test]
fn pod_of_shared_limit_passes_one_request_before_share() {
    let limits = pod_guard(&[RateLimit {
        scope: LimitScope::Service,
        ..limit(100, LimitKey::None)
    }]);
    let (now, shares) = (Instant::now(), Shares::default());
    let guard = Guard::after(None, &limits, &shares, now);
    assert_eq!(passed(&guard, now, 9), 1);
    assert_eq!(passed(&guard, now + 60 * SECOND, 9), 0, "it never fills");
    let each = Origin::new("TrafficPolicy", "shop", "p").rule("each");
    assert!(guard.has_shared(80, &each) && !guard.has_shared(81, &each));
    let shares_of = |thousandths, now| {
        assert!(shares.set(80, each.clone(), thousandths));
        guard.share(&shares, now);
    };
    let then = now + 60 * SECOND;
    shares_of(20_000, then);
    assert_eq!(passed(&guard, then + SECOND, 99), 20);
    // A policy that changes elsewhere changes no share.
    let other = RateLimit {
        name: "other".into(),
        ..limit(1000, LimitKey::None)
    };
    let mut both = pod_guard(&[other]);
    let rules = limits.ports[&80].rate_limits.rules.clone();
    both.ports
        .get_mut(&80)
        .unwrap()
        .rate_limits
        .rules
        .extend(rules);
    let guard = Guard::after(Some(&guard), &both, &shares, then + SECOND);
    assert_eq!(passed(&guard, then + 2 * SECOND, 99), 20);
    shares.keep(|_, limit| *limit != each);
    guard.share(&shares, then + 2 * SECOND);
    assert_eq!(passed(&guard, then + 60 * SECOND, 9), 0, "it has passed");
}

#[test]
fn new_limit_on_serving_pod_is_complete_until_shared() {
    let limits = pod_guard(&[RateLimit {
        scope: LimitScope::Service,
        ..limit(100, LimitKey::None)
    }]);
    let (now, shares) = (Instant::now(), Shares::default());
    shares.begin(&limits, |_, _| false);
    let guard = Guard::after(None, &limits, &shares, now);
    assert_eq!(passed(&guard, now, 200), 100);
    let each = Origin::new("TrafficPolicy", "shop", "p").rule("each");
    assert!(shares.set(80, each.clone(), 20_000));
    shares.begin(&limits, |_, _| false);
    assert_eq!(shares.of(80, &each), Some(20_000), "it was sent");
    // What was forgotten is not new.
    shares.forget();
    shares.begin(&limits, |port, limit| guard.has_shared(port, limit));
    assert_eq!(shares.of(80, &each), None);
    // Nor is a limit there that each pod kept alone until now.
    let alone = Guard::after(
        None,
        &pod_guard(&[limit(100, LimitKey::None)]),
        &shares,
        now,
    );
    shares.begin(&limits, |port, limit| alone.has_shared(port, limit));
    let guard = Guard::after(Some(&alone), &limits, &shares, now);
    assert_eq!(passed(&guard, now, 200), 100);
}

#[test]
fn audited_limit_refuses_nothing_and_is_reported() {
    let audit = RateLimit {
        mode: LimitMode::Audit,
        ..limit(1, LimitKey::None)
    };
    let now = Instant::now();
    let guard = Guard::after(None, &pod_guard(&[audit]), &Shares::default(), now);
    let mut audited = Vec::new();
    for _ in 0..3 {
        let port = guard.port(80).unwrap();
        let noticed = |noticed: Noticed<'_>| {
            if let Noticed::Audited(origin) = noticed {
                audited.push(origin.to_string());
            }
        };
        port.admit(now, &OUTSIDE, noticed).unwrap();
    }
    assert_eq!(audited.len(), 2, "{audited:?}");
}

#[test]
fn audited_limit_ignores_requests_refused_by_another_limit() {
    let name = |name: &str, requests, mode| RateLimit {
        name: name.into(),
        mode,
        ..limit(requests, LimitKey::None)
    };
    let both = pod_guard(&[
        name("trial", 3, LimitMode::Audit),
        name("strict", 2, LimitMode::Enforce),
    ]);
    let now = Instant::now();
    let guard = Guard::after(None, &both, &Shares::default(), now);
    let port = guard.port(80).unwrap();
    let findings = |now, tries| {
        let mut audited = 0;
        let admitted = (0..tries).filter(|_: &usize| {
            let admitted = port.admit(now, &OUTSIDE, |noticed| {
                audited += usize::from(matches!(noticed, Noticed::Audited(_)));
            });
            admitted.is_ok()
        });
        (admitted.count(), audited)
    };
    assert_eq!(findings(now, 10), (2, 0));
    // The one that was not taken is there for the first of these.
    assert_eq!(findings(now + SECOND / 2, 10), (1, 0));
    // Alone it would have passed 3 of the 4 that come at once, once it is full.
    let alone = pod_guard(&[name("trial", 3, LimitMode::Audit)]);
    let guard = Guard::after(Some(&guard), &alone, &Shares::default(), now);
    let port = guard.port(80).unwrap();
    let mut audited = 0;
    for _ in 0..4 {
        let noticed = |_: Noticed<'_>| audited += 1;
        port.admit(now + 10 * SECOND, &OUTSIDE, noticed).unwrap();
    }
    assert_eq!(audited, 1, "the control");
}

#[test]
fn header_values_have_buckets_and_unreadable_path_matches_all() {
    let tenant = http::HeaderName::from_static("x-tenant");
    let now = Instant::now();
    let guard = Guard::after(
        None,
        &pod_guard(&[limit(1, LimitKey::Header(tenant))]),
        &Shares::default(),
        now,
    );
    let port = guard.port(80).unwrap();
    let ask = |value: Option<&'static str>| {
        let mut headers = HeaderMap::new();
        if let Some(value) = value {
            headers.insert("x-tenant", http::HeaderValue::from_static(value));
        }
        let facts = facts(&http::Method::GET, "/", &headers);
        let arrival = Arrival {
            request: Some(&facts),
            ..OUTSIDE
        };
        port.admit(now, &arrival, |_| {}).is_ok()
    };
    assert!(ask(Some("a")) && ask(Some("b")) && ask(None));
    assert!(!ask(Some("a")) && !ask(Some("b")) && !ask(None));

    let mut routed = pod_guard(&[limit(1, LimitKey::None)]);
    let port = routed.ports.get_mut(&80).unwrap();
    port.rate_limits.rules[0].when = Match::AnyOf(Vec::new());
    let guard = Guard::after(None, &routed, &Shares::default(), now);
    let port = guard.port(80).unwrap();
    let headers = HeaderMap::new();
    let facts = facts(&http::Method::GET, "/a%2Fb", &headers);
    let ask = |unreadable| {
        let arrival = Arrival {
            request: Some(&facts),
            path: ways(unreadable),
            ..OUTSIDE
        };
        port.admit(now, &arrival, |_| {}).is_ok()
    };
    assert!(ask(false) && ask(false) && ask(true), "the first token");
    assert!(!ask(true) && ask(false));
}

#[test]
fn limits_of_pod_share_one_key_budget() {
    let now = Instant::now();
    let overflowed = |limits: usize| {
        let limits: Vec<RateLimit> = (0..limits)
            .map(|number| RateLimit {
                name: format!("limit-{number}").as_str().into(),
                ..limit(1, LimitKey::Caller)
            })
            .collect();
        // What was one limit of many before is not more than its part after.
        let one = Guard::after(None, &pod_guard(&limits[..1]), &Shares::default(), now);
        let guard = Guard::after(Some(&one), &pod_guard(&limits), &Shares::default(), now);
        let port = guard.port(80).unwrap();
        let mut overflowed = 0;
        for number in 0..2000 {
            let id = format!("spiffe://cluster.local/ns/shop/sa/a{number}");
            let id = policy::name::SpiffeId::try_from(id.as_str()).unwrap();
            let arrival = Arrival {
                caller: Caller::mesh(&id),
                ..OUTSIDE
            };
            let _ = port.admit(now, &arrival, |noticed| match noticed {
                Noticed::Overflowed => overflowed += 1,
                Noticed::Audited(_) => {}
            });
        }
        overflowed
    };
    assert_eq!(overflowed(3), 0);
    // One place is that of all callers together.
    assert_eq!(overflowed(40), 2000 - (policy::limit::keys_of_each(40) - 1));
}

#[test]
fn request_takes_first_matching_class_or_lowest_if_unreadable() {
    let web = SpiffeId::of("cluster.local", "shop", "web").unwrap();
    let reads = HttpMatch::new("reads", None, &["GET"], &[] as &[(&str, &str)]).unwrap();
    let rule = |sources, section| Rule {
        origin: Origin::new("TrafficPolicy", "shop", "p"),
        when: Match::Always,
        then: Some(Scoped { sources, section }),
    };
    let mut of_reads = rule(Sources::Everyone, Priority::Critical);
    of_reads.when = Match::AnyOf(vec![reads]);
    let of_web = Sources::Only(vec![Source::Identity(web.clone())]);
    // Without a section for overload.
    let with = |rules| {
        let port = GuardPort {
            priority: Table {
                rules,
                otherwise: None,
            },
            ..GuardPort::default()
        };
        PodGuard {
            ports: BTreeMap::from([(80, port)]),
            read_only: None,
        }
    };
    let now = Instant::now();
    let of = |guard: &Guard, caller, method: Method, unreadable| {
        let headers = HeaderMap::new();
        let facts = facts(&method, "/", &headers);
        let port = guard.port(80).unwrap();
        port.class(caller, &facts, ways(unreadable))
    };
    let found = |pod_guard: &PodGuard, caller, method: Method, unreadable| {
        let guard = Guard::after(None, pod_guard, &Shares::default(), now);
        of(&guard, caller, method, unreadable)
    };
    let caller = Caller::Mesh {
        id: &web,
        pod: None,
    };
    let all = with(vec![of_reads.clone(), rule(of_web, Priority::Sheddable)]);
    let critical = Some(Priority::Critical);
    let sheddable = Some(Priority::Sheddable);
    assert_eq!(found(&all, caller, Method::GET, false), critical);
    assert_eq!(found(&all, caller, Method::POST, false), sheddable);
    assert_eq!(found(&all, Caller::Outside, Method::POST, false), None);
    // It fits every route, and no caller gains by it.
    assert_eq!(found(&all, caller, Method::GET, true), sheddable);
    let one = with(vec![of_reads.clone()]);
    let normal = Some(Priority::Normal);
    assert_eq!(found(&one, caller, Method::GET, true), normal);
    let both = with(vec![of_reads, rule(Sources::Everyone, Priority::Critical)]);
    assert_eq!(found(&both, caller, Method::GET, true), critical);
    let before = Guard::after(None, &one, &Shares::default(), now);
    assert_eq!(of(&before, caller, Method::POST, false), None);
    let after = Guard::after(Some(&before), &both, &Shares::default(), now);
    assert_eq!(of(&after, caller, Method::POST, false), critical);
}

// Claims: calls-50
#[test]
fn path_of_several_readings_has_the_strictest_of_each() {
    let fits = |path| {
        let one = HttpMatch::new("m", Some(path), &[] as &[&str], &[] as &[(&str, &str)]);
        Match::AnyOf(vec![one.unwrap()])
    };
    let mut pod_guard = pod_guard(&[limit(1, LimitKey::None)]);
    let port = pod_guard.ports.get_mut(&80).unwrap();
    port.rate_limits.rules[0].when = fits("/items/7$");
    port.priority.rules = vec![Rule {
        origin: Origin::new("TrafficPolicy", "shop", "p"),
        when: fits("/items%2F"),
        then: Some(Scoped {
            sources: Sources::Everyone,
            section: Priority::Critical,
        }),
    }];
    let now = Instant::now();
    let guard = Guard::after(None, &pod_guard, &Shares::default(), now);
    let port = guard.port(80).unwrap();
    let headers = HeaderMap::new();
    let ask = |sent: &str| {
        let forms = PathForms::of(sent);
        let request = facts(&Method::GET, sent, &headers);
        let arrival = Arrival {
            request: Some(&request),
            path: forms.ways(),
            ..OUTSIDE
        };
        let class = port.class(Caller::Outside, &request, forms.ways());
        (class, port.admit(now, &arrival, |_| {}).is_ok())
    };
    let normal = Some(Priority::Normal);
    assert_eq!(ask("/other%2F7"), (None, true));
    assert_eq!(ask("/items%2F8"), (normal, true));
    assert_eq!(ask("/items%2F7"), (normal, true), "the only token");
    assert_eq!(ask("/items%2F7"), (normal, false));
    assert_eq!(ask("/items//7"), (None, false));
}
