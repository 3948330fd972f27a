//! What is said of rules agrees with what is decided by them.

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use proptest::prelude::*;

use super::*;
use crate::access::{Ports, Source};
use crate::mode::Enforcement;
use crate::name::SpiffeId;
use crate::origin::Origin;

const PATHS: [&str; 5] = ["/", "/items", "/items/7", "/items/70", "/admin"];
const PATTERNS: [&str; 5] = ["^/items/7$", "/items", "^/$", "/(admin|items)", "/none"];

fn id(number: u8) -> SpiffeId {
    SpiffeId::of("cluster.local", "shop", &format!("a{number}")).unwrap()
}

fn a_match() -> impl Strategy<Value = HttpMatch> {
    let methods = prop::sample::subsequence(vec!["GET", "PUT", "*"], 0..=2);
    let headers = prop::option::weighted(0.3, prop::sample::select(vec!["gold", ".*", "x+"]));
    let path = prop::option::of(prop::sample::select(PATTERNS.to_vec()));
    (path, methods, headers).prop_map(|(path, methods, header)| {
        let headers: Vec<(&str, &str)> = header.map(|regex| ("tier", regex)).into_iter().collect();
        HttpMatch::new("m", path, &methods, &headers).unwrap()
    })
}

fn ports() -> impl Strategy<Value = Option<Ports>> {
    prop::option::of(prop_oneof![
        Just(Ports::Any),
        prop::collection::vec(80_u16..83, 0..3).prop_map(Ports::only),
    ])
}

fn rule() -> impl Strategy<Value = Rule> {
    let source = prop_oneof![
        (0_u8..3).prop_map(|number| Source::Identity(id(number))),
        Just(Source::Authenticated),
        Just(Source::Unauthenticated),
        (0_u8..3).prop_map(|number| Source::pods([format!("pod{number}")])),
    ];
    let http = prop::option::of(prop::collection::vec(a_match(), 0..4));
    let sources = prop::collection::vec(source, 0..3);
    (sources, ports(), http, ports()).prop_map(|(sources, ports, http, limit)| Rule {
        origin: Origin::new("TrafficTarget", "shop", "t"),
        sources,
        ports,
        http,
        limit: limit.filter(|limit| *limit != Ports::Any),
    })
}

fn access() -> impl Strategy<Value = Access> {
    let modes = vec![Enforcement::Open, Enforcement::Audit, Enforcement::Enforce];
    let rules = prop::collection::vec(rule(), 0..5);
    (prop::sample::select(modes), rules).prop_map(|(enforcement, mut rules)| {
        for (index, rule) in rules.iter_mut().enumerate() {
            rule.origin = Origin::new("TrafficTarget", "shop", format!("t{index}"));
        }
        Access { enforcement, rules }
    })
}

/// Caller, whether it names its pod, port, method, path, header, and how bytes are read.
type Asked = (
    Option<u8>,
    bool,
    u16,
    bool,
    &'static str,
    Option<&'static str>,
    u8,
);

fn query() -> impl Strategy<Value = Asked> {
    (
        prop::option::weighted(0.8, 0_u8..3),
        any::<bool>(),
        80_u16..84,
        any::<bool>(),
        prop::sample::select(PATHS.to_vec()),
        prop::option::of(prop::sample::select(vec!["gold", "xx", ""])),
        0_u8..4,
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 5000, ..ProptestConfig::default() })]

    #[test]
    fn what_is_explained_is_what_is_decided(access in access(), query in query()) {
        let (caller, names_pod, port, get, path, header, kind) = query;
        let identity = caller.map(id);
        let pod = caller.filter(|_| names_pod).map(|number| format!("pod{number}"));
        let caller = match &identity {
            Some(id) => Caller::Mesh { id, pod: pod.as_deref() },
            None => Caller::Outside,
        };
        let mut headers = HeaderMap::new();
        if let Some(value) = header {
            headers.insert(HeaderName::from_static("tier"), HeaderValue::from_static(value));
        }
        let method = if get { Method::GET } else { Method::DELETE };
        let request = RequestFacts { method: &method, path, query: None, headers: &headers };
        let call = match kind {
            0 => EvaluatedTraffic::Opaque,
            1 => EvaluatedTraffic::Bytes,
            _ => EvaluatedTraffic::Http(&request),
        };
        let decided = access.decide(caller, port, call);
        let reasons = access.explain(caller, port, call);
        prop_assert_eq!(reasons.verdict, decided);
        prop_assert_eq!(reasons.rules.len(), access.rules.len());
        let first = reasons.rules.iter().find(|answer| answer.fails.is_none());
        prop_assert_eq!(first.map(|answer| &answer.rule.origin), decided.by());
        for answer in &reasons.rules {
            // Each rule alone decides as it is said to.
            let alone = Access { enforcement: Enforcement::Enforce, rules: vec![answer.rule.clone()] };
            let alone = alone.explain(caller, port, call);
            prop_assert_eq!(alone.verdict.is_allowed(), answer.fails.is_none());
        }
    }
}

/// Calls as account `a0` on port 80.
fn part<'a>(
    rule: &'a Rule,
    method: &Method,
    path: &str,
    tier: Option<&'static str>,
) -> Option<Part<'a>> {
    let mut headers = HeaderMap::new();
    if let Some(tier) = tier {
        headers.insert("tier", HeaderValue::from_static(tier));
    }
    let request = RequestFacts {
        method,
        path,
        query: None,
        headers: &headers,
    };
    rule.fails(Caller::mesh(&id(0)), 80, EvaluatedTraffic::Http(&request))
}

#[test]
fn first_failing_rule_part_is_reported_in_narrowing_order() {
    let read = HttpMatch::new("read", Some("^/items"), &["GET"], &[("tier", "gold")]).unwrap();
    let mut rule = Rule {
        origin: Origin::new("TrafficTarget", "shop", "t"),
        sources: vec![Source::Identity(id(1))],
        ports: Some(Ports::only([81])),
        http: Some(vec![read.clone()]),
        limit: Some(Ports::only([82])),
    };
    let ask = |rule: &Rule| part(rule, &Method::PUT, "/other", None).map(Part::rank);
    assert_eq!(ask(&rule), Some(Part::Source.rank()));
    rule.sources = vec![Source::Authenticated];
    assert_eq!(ask(&rule), Some(Part::Limit.rank()));
    rule.limit = None;
    assert_eq!(ask(&rule), Some(Part::Port.rank()));
    rule.ports = Some(Ports::Any);
    assert_eq!(
        part(&rule, &Method::PUT, "/other", None),
        Some(Part::Path(&read))
    );
    assert_eq!(
        part(&rule, &Method::PUT, "/items", None),
        Some(Part::Method(&read))
    );
    let header = Some(Part::Header(&read, "tier"));
    assert_eq!(part(&rule, &Method::GET, "/items", None), header);
    assert_eq!(part(&rule, &Method::GET, "/items", Some("silver")), header);
    assert_eq!(part(&rule, &Method::GET, "/items", Some("gold")), None);
}

#[test]
fn closest_match_is_reported() {
    let other = HttpMatch::new("other", Some("/other"), &["PUT"], &[] as &[(&str, &str)]).unwrap();
    let near = HttpMatch::new("near", Some("/items"), &["GET"], &[] as &[(&str, &str)]).unwrap();
    let broken = HttpMatch::as_written("broken", Some("("), &["GET"], &[] as &[(&str, &str)]);
    let rule = Rule {
        origin: Origin::new("TrafficTarget", "shop", "t"),
        sources: vec![Source::Authenticated],
        ports: None,
        http: Some(vec![broken.clone(), other, near.clone()]),
        limit: None,
    };
    assert_eq!(
        part(&rule, &Method::PUT, "/items", None),
        Some(Part::Method(&near))
    );
    let rule = Rule {
        http: Some(vec![broken.clone()]),
        ..rule
    };
    assert_eq!(
        part(&rule, &Method::PUT, "/items", None),
        Some(Part::Unusable(&broken))
    );
    let rule = Rule {
        http: Some(Vec::new()),
        ..rule
    };
    assert_eq!(
        part(&rule, &Method::PUT, "/items", None),
        Some(Part::Routes)
    );
}
