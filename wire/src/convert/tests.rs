//! Messages become types and back, and bad ones are refused.

use std::time::Duration;

use policy::access::{Ports, Rule, Source};
use policy::http_match::HttpMatch;
use policy::name::{Kind, ObjectRef, ServiceId, SpiffeId};
use policy::origin::Origin;
use policy::protocol::{PortProtocols, PortRange};
use policy::route::names::Names;
use policy::route::{self, Backend, Match};
use policy::traffic::call::Timeouts;
use policy::traffic::guard::Priority;
use policy::traffic::pod::PodGuard;
use policy::traffic::{EffectivePolicy, Scoped, Sources};
use proptest::prelude::*;
use prost::Message;

use super::*;

fn target() -> Origin {
    Origin::new("TrafficTarget", "shop", "web")
}

fn message() -> v1::Rule {
    v1::Rule {
        origin: Some((&target()).into()),
        sources: vec![v1::Source::from(&Source::Authenticated)],
        ports: None,
        http: Some(v1::HttpMatches {
            matches: vec![v1::HttpMatch {
                name: "api".to_owned(),
                ..Default::default()
            }],
        }),
        limit: None,
    }
}

fn refused_field(message: &v1::Rule) -> String {
    Rule::try_from(message).unwrap_err().field
}

#[test]
fn invalid_part_refuses_complete_rule_and_names_field() {
    assert!(Rule::try_from(&message()).is_ok());

    let mut rule = message();
    rule.origin = None;
    assert_eq!(refused_field(&rule), "origin");

    let mut rule = message();
    rule.origin.as_mut().unwrap().kind = String::new();
    assert_eq!(refused_field(&rule), "origin.kind");

    let mut rule = message();
    rule.sources.push(v1::Source {
        who: Some(v1::source::Who::SpiffeId("spiffe://TD/x".to_owned())),
    });
    assert_eq!(refused_field(&rule), "sources[1].spiffe_id");

    for who in [
        None,
        Some(v1::source::Who::Authenticated(false)),
        Some(v1::source::Who::Unauthenticated(false)),
    ] {
        let mut rule = message();
        rule.sources = vec![v1::Source { who }];
        assert_eq!(refused_field(&rule), "sources[0].who");
    }

    for raw in [0, 65536, u32::MAX] {
        let mut rule = message();
        rule.ports = Some(v1::PortSet {
            any: false,
            ports: vec![80, raw],
        });
        assert_eq!(refused_field(&rule), "ports.ports");
    }

    let mut rule = message();
    rule.http.as_mut().unwrap().matches[0].path_regex = Some("(".to_owned());
    assert_eq!(refused_field(&rule), "http.matches[0].pathRegex");
}

/// What decided is only shown, so a proxy goes on with rules of objects that came after it.
#[test]
fn origin_of_unknown_kind_is_kept_as_text() {
    let mut rule = message();
    rule.origin.as_mut().unwrap().kind = "FuturePolicy".to_owned();
    let read = Rule::try_from(&rule).unwrap();
    assert_eq!(read.origin.to_string(), "FuturePolicy shop/web");
    assert_eq!(v1::Rule::from(&read), rule);
}

#[test]
fn a_refusal_reads_as_one_sentence() {
    let bad = BadResource::new("ports.ports", "0 is no port");
    assert_eq!(bad.to_string(), "ports.ports: 0 is no port");
    assert_eq!(
        bad.named("rule/a/b").to_string(),
        "rule/a/b: ports.ports: 0 is no port"
    );
}

#[test]
fn absent_and_empty_parts_of_a_rule_stay_different() {
    let empty = v1::Rule {
        origin: Some((&target()).into()),
        sources: Vec::new(),
        ports: Some(v1::PortSet::default()),
        http: Some(v1::HttpMatches::default()),
        limit: Some(v1::PortSet::default()),
    };
    let read =
        Rule::try_from(&v1::Rule::decode(empty.encode_to_vec().as_slice()).unwrap()).unwrap();
    assert_eq!(
        read.ports,
        Some(Ports::Only(vec![])),
        "an empty list of ports is no port"
    );
    assert_eq!(read.http, Some(vec![]));
    assert_eq!(read.limit, Some(Ports::Only(vec![])), "limited to no port");

    let absent = v1::Rule {
        ports: None,
        http: None,
        limit: None,
        ..empty
    };
    let read = Rule::try_from(&absent).unwrap();
    assert_eq!((read.ports, read.http, read.limit), (None, None, None));
}

/// A proxy of the first version skips fields that it does not know. It must not see
/// such a rule under the old name and kind, nor go on with the rule before it.
#[test]
fn extended_rule_has_own_name_for_older_proxies() {
    let plain = rule_resource(message());
    assert_eq!(plain.name, "rule/shop/web");
    assert!(matches!(
        plain.content,
        Some(v1::resource::Content::Rule(_))
    ));

    let limited = v1::Rule {
        limit: Some(v1::PortSet::default()),
        ..message()
    };
    let by_pod = v1::Rule {
        sources: vec![v1::Source::from(&Source::pods(["u"]))],
        ..message()
    };
    for rule in [limited, by_pod] {
        let resource = rule_resource(rule.clone());
        assert_eq!(resource.name, "extended-rule/shop/web");
        assert_eq!(rule_in(&resource), Some(&rule));
        // What the first version knew of a resource: fields 1, 2 and 5.
        assert!(matches!(
            resource.content,
            Some(v1::resource::Content::ExtendedRule(_))
        ));
    }
}

#[test]
fn missing_and_empty_path_stay_different_in_match() {
    for path_regex in [None, Some(String::new())] {
        let sent = v1::HttpMatch {
            path_regex,
            ..Default::default()
        };
        let read = HttpMatch::try_from(&sent).unwrap();
        assert_eq!(v1::HttpMatch::from(&read), sent);
    }
}

fn route(group: &str, path: &str) -> v1::Route {
    v1::Route {
        origin: Some(v1::ObjectRef {
            kind: "HTTPRouteGroup".to_owned(),
            namespace: "shop".to_owned(),
            name: group.to_owned(),
        }),
        http: Some(v1::HttpMatch {
            name: "m".to_owned(),
            path_regex: Some(path.to_owned()),
            ..Default::default()
        }),
    }
}

#[test]
fn route_names_round_trip_naming_invalid_field() {
    let sent = v1::Routes {
        routes: vec![route("a", "/one"), route("b", "/two")],
    };
    let read = Names::try_from(&sent).unwrap();
    assert_eq!(v1::Routes::from(&read), sent);
    let field = |change: fn(&mut v1::Route)| {
        let mut sent = sent.clone();
        change(&mut sent.routes[1]);
        Names::try_from(&sent).unwrap_err().field
    };
    assert_eq!(field(|route| route.http = None), "routes[1].http");
    assert_eq!(field(|route| route.origin = None), "routes[1].origin");
    let unreadable = field(|route| route.http.as_mut().unwrap().path_regex = Some("(".to_owned()));
    assert_eq!(unreadable, "routes[1].http.pathRegex");
}

#[test]
fn route_name_expressions_share_one_groups_size_limit() {
    let heavy = |number: usize| v1::Routes {
        routes: vec![route("a", r"/\w{3}"); number],
    };
    assert!(Names::try_from(&heavy(8)).is_ok());
    let bad = Names::try_from(&heavy(64)).unwrap_err();
    assert!(bad.reason.contains("4096 KiB"), "{bad}");
}

/// Each section repeats the matches of its policy, and each port of a pod those of its Service.
#[test]
fn sections_of_one_resource_share_compiled_matches() {
    fn rule<T>(section: T) -> route::Rule<Option<Scoped<T>>> {
        let headers: &[(&str, &str)] = &[("x-a", "[a-c]+x")];
        let one = HttpMatch::new("m", Some("/v[0-9]+"), &["GET"], headers).unwrap();
        route::Rule {
            origin: target(),
            when: Match::AnyOf(vec![one]),
            then: Some(Scoped {
                sources: Sources::Everyone,
                section,
            }),
        }
    }
    fn only(when: &Match) -> &HttpMatch {
        let Match::AnyOf(matches) = when else {
            panic!("{when:?}")
        };
        &matches[0]
    }
    let mut sent = EffectivePolicy::default();
    sent.timeouts.rules.push(rule(Timeouts {
        request: Some(Duration::from_secs(1)),
        ..Timeouts::DEFAULT
    }));
    sent.priority.rules.push(rule(Priority::Critical));
    let is_shared = |one: &EffectivePolicy, other: &EffectivePolicy| {
        let one = only(&one.timeouts.rules[0].when);
        let other = only(&other.priority.rules[0].when);
        std::ptr::eq(one.description(), other.description())
    };
    assert!(!is_shared(&sent, &sent), "control");
    let read = traffic(&policy_message(&sent)).unwrap();
    assert_eq!(read, sent);
    assert!(is_shared(&read, &read));
    let guard = PodGuard {
        ports: [(80, sent.clone()), (81, sent)].into(),
        read_only: None,
    };
    let read = PodGuard::try_from(&v1::Guard::from(&guard)).unwrap();
    assert_eq!(read, guard);
    assert!(is_shared(&read.ports[&80], &read.ports[&81]));
}

#[test]
fn unknown_values_are_read_towards_the_safe_side() {
    for raw in [-1, 3, 99] {
        assert_eq!(enforcement(raw), Enforcement::Enforce);
        assert_eq!(mtls(raw), MtlsMode::Strict);
    }
    for raw in [-1, 6, 99] {
        assert_eq!(protocol(raw), Protocol::Detect);
    }
}

#[test]
fn every_enumeration_value_survives_round_trip() {
    for value in [Enforcement::Open, Enforcement::Audit, Enforcement::Enforce] {
        assert_eq!(enforcement(v1::Enforcement::from(value).into()), value);
    }
    for value in [MtlsMode::Permissive, MtlsMode::Strict] {
        assert_eq!(mtls(v1::MtlsMode::from(value).into()), value);
    }
    for value in [
        Protocol::Detect,
        Protocol::Http1,
        Protocol::Http2,
        Protocol::Grpc,
        Protocol::Opaque,
        Protocol::Tls,
    ] {
        assert_eq!(protocol(v1::Protocol::from(value).into()), value);
    }
    for kind in Kind::ALL {
        let object = ObjectRef::new(kind, "a", "b");
        assert_eq!(
            ObjectRef::try_from(&v1::ObjectRef::from(&object)),
            Ok(object)
        );
    }
}

#[test]
fn a_wrong_range_of_ports_is_refused_and_named() {
    let wrong = |first, last| {
        let messages = [
            v1::PortProtocol {
                first: 1,
                last: 1,
                protocol: 1,
            },
            v1::PortProtocol {
                first,
                last,
                protocol: 1,
            },
        ];
        port_protocols(&messages).unwrap_err().field
    };
    assert_eq!(wrong(0, 1), "ports[1].first");
    assert_eq!(wrong(1, 65536), "ports[1].last");
    assert_eq!(wrong(2, 1), "ports[1].last");
}

fn a_name() -> impl Strategy<Value = String> {
    "[a-z][a-z0-9-]{0,8}"
}

fn a_match() -> impl Strategy<Value = HttpMatch> {
    let path = prop_oneof!["/[a-z]{0,5}", Just(".*".to_owned()), Just("a|b".to_owned())];
    let method = prop_oneof![
        Just("GET".to_owned()),
        Just("*".to_owned()),
        Just("PURGE".to_owned())
    ];
    let headers = proptest::collection::vec((a_name(), "[a-z.*]{0,6}"), 0..3);
    (
        a_name(),
        proptest::option::of(path),
        proptest::collection::vec(method, 0..3),
        headers,
    )
        .prop_filter_map("must compile", |(name, path, methods, headers)| {
            HttpMatch::new(&name, path.as_deref(), &methods, &headers).ok()
        })
}

fn a_source() -> impl Strategy<Value = Source> {
    prop_oneof![
        Just(Source::Authenticated),
        Just(Source::Unauthenticated),
        (a_name(), a_name()).prop_map(|(ns, sa)| Source::Identity(
            SpiffeId::of("cluster.local", &ns, &sa).unwrap()
        )),
        proptest::collection::vec(a_name(), 0..4).prop_map(Source::pods),
    ]
}

fn some_ports() -> impl Strategy<Value = Ports> {
    prop_oneof![
        Just(Ports::Any),
        proptest::collection::vec(1u16.., 0..5).prop_map(Ports::only),
    ]
}

prop_compose! {
    fn a_rule()(
        namespace in a_name(),
        name in a_name(),
        sources in proptest::collection::vec(a_source(), 0..4),
        ports in proptest::option::of(some_ports()),
        http in proptest::option::of(proptest::collection::vec(a_match(), 0..3)),
        limit in proptest::option::of(some_ports()),
    ) -> Rule {
        let origin = Origin::new("TrafficTarget", namespace, name);
        Rule { origin, sources, ports, http, limit }
    }
}

prop_compose! {
    fn a_split()(
        namespace in a_name(),
        name in a_name(),
        matches in proptest::option::of(proptest::collection::vec(a_match(), 0..3)),
        backends in proptest::collection::vec((a_name(), any::<u32>()), 0..4),
    ) -> route::Rule<Vec<Backend>> {
        let then = backends
            .into_iter()
            .map(|(service, weight)| {
                let endpoints = crate::names::endpoints(&namespace, &service, 80);
                Backend::new(ServiceId::new(namespace.as_str(), service), 80, weight, endpoints)
            })
            .collect();
        let when = matches.map_or(Match::Always, Match::AnyOf);
        route::Rule { origin: Origin::new("TrafficSplit", namespace, name), when, then }
    }
}

proptest! {
    #[test]
    fn a_rule_survives_the_way_over_the_wire(rule in a_rule()) {
        let bytes = v1::Rule::from(&rule).encode_to_vec();
        let message = v1::Rule::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(Rule::try_from(&message), Ok(rule));
    }

    #[test]
    fn a_split_survives_the_way_over_the_wire(split in a_split()) {
        let bytes = v1::Split::from(&split).encode_to_vec();
        let message = v1::Split::decode(bytes.as_slice()).unwrap();
        prop_assert_eq!(super::split(&message, 80), Ok(split));
    }

    #[test]
    fn declared_ports_survive_the_way_over_the_wire(
        ranges in proptest::collection::vec((1u16.., 0u16..100, 0i32..6), 0..5),
    ) {
        let declared = PortProtocols::new(ranges.into_iter().map(|(first, more, raw)| {
            (PortRange::new(first, first.saturating_add(more)).unwrap(), protocol(raw))
        }));
        let messages: Vec<_> = declared.iter().map(port_protocol).collect();
        prop_assert_eq!(port_protocols(&messages), Ok(declared));
    }

    /// Whatever bytes arrive, reading them ends in a value or in a refusal.
    #[test]
    fn no_bytes_make_reading_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        if let Ok(message) = v1::Rule::decode(bytes.as_slice()) {
            let _ = Rule::try_from(&message);
        }
        if let Ok(message) = v1::Split::decode(bytes.as_slice()) {
            let _ = super::split(&message, 80);
        }
    }
}
