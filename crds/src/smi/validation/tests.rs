//! What each kind means, and that a mistake costs what holds it and no more.

use std::fmt::Debug;

use policy::name::ServiceId;
use serde_json::{Value, json};

use super::*;
use crate::smi::{
    HttpRouteGroupSpec, IdentityBindingSpec, TcpRouteSpec, TrafficSplitSpec, TrafficTargetSpec,
    UdpRouteSpec,
};

const AT: ValidationContext<'_> = ValidationContext {
    namespace: "shop",
    cluster_domain: "cluster.example",
    mesh_namespace: "weft-system",
};

#[expect(
    clippy::needless_pass_by_value,
    reason = "keeps the tests' json! plain"
)]
fn validated<S: Validate>(written: Value) -> (S::Validated, Vec<Mistake>) {
    spec::<S>(Some(&written), &AT)
}

/// Field and code of each mistake.
fn fields(mistakes: &[Mistake]) -> Vec<(&str, Code)> {
    let fields = mistakes.iter();
    fields
        .map(|mistake| (mistake.field.as_str(), mistake.code))
        .collect()
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "keeps the tests' json! plain"
)]
fn unreadable<S: Validate<Validated: Debug + PartialEq>>(
    written: Value,
    field: &str,
    text: &str,
) -> S::Validated {
    let (validated, mistakes) = spec::<S>(Some(&written), &AT);
    assert_eq!(
        fields(&mistakes),
        [(field, Code::Unreadable)],
        "{mistakes:?}"
    );
    assert!(mistakes[0].text.contains(text), "{mistakes:?}");
    assert!(mistakes[0].text.ends_with(S::UNREADABLE), "{mistakes:?}");
    validated
}

#[test]
fn wrongly_shaped_spec_is_unreadable_naming_innermost_field() {
    for weight in [json!(null), json!(1.5), json!({"a": 1})] {
        let backends = json!([{"service": "a"}, {"service": "b", "weight": weight}]);
        let spec = json!({"service": "web", "backends": backends});
        unreadable::<TrafficSplitSpec>(spec, "spec.backends[1].weight", "invalid type");
    }
    let weight = json!({"backends": [{"weight": u64::MAX}]});
    unreadable::<TrafficSplitSpec>(weight, "spec.backends[0].weight", "");
    unreadable::<HttpRouteGroupSpec>(
        json!({"matches": [{"name": "a", "methods": ["GET", 1]}]}),
        "spec.matches[0].methods[1]",
        "",
    );
    unreadable::<TrafficTargetSpec>(json!({"rules": "all"}), "spec.rules", "expected a sequence");
    unreadable::<UdpRouteSpec>(json!("x"), "spec", "");
}

#[test]
fn list_replacing_object_gets_no_meaning_from_order() {
    let list = "is a list, but must be an object";
    let ports = unreadable::<TcpRouteSpec>(json!({"matches": [null, 80]}), "spec.matches", list);
    assert_eq!(ports, RoutePorts(Some(Vec::new())), "never every port");
    unreadable::<TcpRouteSpec>(json!([{"ports": [80]}]), "spec", list);
    let source = json!([null, "ServiceAccount", "web"]);
    unreadable::<TrafficTargetSpec>(json!({"sources": [source]}), "spec.sources[0]", list);
    unreadable::<IdentityBindingSpec>(
        json!({"schemes": [null, null, "web"]}),
        "spec.schemes",
        list,
    );
}

#[test]
fn lists_beyond_schema_bounds_make_object_unreadable() {
    let many = |n: usize, one: Value| Value::Array(vec![one; n]);
    let split = |n| {
        let groups = (0..n).map(|i| json!({"kind": "HTTPRouteGroup", "name": format!("g{i}")}));
        let groups: Vec<Value> = groups.collect();
        let backends = json!([{"service": "a", "weight": 1}]);
        json!({"service": "web", "backends": backends, "matches": groups})
    };
    assert_eq!(validated::<TrafficSplitSpec>(split(16)).1, []);
    unreadable::<TrafficSplitSpec>(split(17), "spec.matches", "has 17 entries, but may have 16");
    let labels = |n| {
        let labels: serde_json::Map<_, _> = (0..n).map(|i| (format!("l{i}"), json!("a"))).collect();
        json!({"schemes": {"podLabelSelector": {"matchLabels": labels}}})
    };
    assert_eq!(validated::<IdentityBindingSpec>(labels(32)).1, []);
    let field = "spec.schemes.podLabelSelector.matchLabels";
    let binding = unreadable::<IdentityBindingSpec>(labels(33), field, "may have 32");
    assert!(
        !binding.usable && binding.labels.unwrap().len() == 33,
        "still protects"
    );
    unreadable::<TcpRouteSpec>(
        json!({"matches": {"ports": many(129, json!(1))}}),
        "spec.matches.ports",
        "129",
    );
}

#[test]
fn null_is_empty_only_for_optional_fields() {
    let (ports, mistakes) = spec::<TcpRouteSpec>(None, &AT);
    assert_eq!((ports, mistakes), (RoutePorts(None), vec![]));
    for every in [
        json!({}),
        json!({"matches": null}),
        json!({"matches": {"ports": null}}),
        json!({"matches": {"ports": []}}),
    ] {
        assert_eq!(validated::<TcpRouteSpec>(every), (RoutePorts(None), vec![]));
    }
    let ports = unreadable::<TcpRouteSpec>(json!(null), "spec", "");
    assert_eq!(
        ports,
        RoutePorts(Some(Vec::new())),
        "a lost spec is not every port"
    );
    unreadable::<TrafficTargetSpec>(json!({"sources": null}), "spec.sources", "");
    // In these lists, absent and empty differ.
    let rule = |matches: Value| {
        let rule = json!({"kind": "HTTPRouteGroup", "name": "g", "matches": matches});
        let (target, mistakes) = validated::<TrafficTargetSpec>(json!({
            "destination": {"kind": "ServiceAccount", "name": "api"},
            "sources": [{"kind": "ServiceAccount", "name": "web"}], "rules": [rule],
        }));
        let matches = target.rules.into_iter().next().unwrap().matches;
        (
            matches,
            mistakes
                .into_iter()
                .map(|mistake| mistake.field)
                .collect::<Vec<_>>(),
        )
    };
    assert_eq!(rule(json!(null)), (None, vec![]));
    assert_eq!(
        rule(json!([])),
        (Some(vec![]), vec!["spec.rules[0].matches".to_owned()])
    );
}

#[test]
fn services_are_those_of_the_own_namespace_and_cluster() {
    let root = |written: &str| {
        let spec = json!({"service": written, "backends": [{"service": "a", "weight": 1}]});
        let (split, mistakes) = validated::<TrafficSplitSpec>(spec);
        assert_eq!(
            split.root.id.is_none(),
            fields(&mistakes) == [("spec.service", Code::Invalid)]
        );
        assert_eq!(&*split.root.written, written);
        split.root.id
    };
    for good in [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.example",
        "web.shop.",
    ] {
        assert_eq!(root(good), Some(ServiceId::new("shop", "web")), "{good}");
    }
    for bad in [
        "",
        ".",
        "Web",
        "web_1",
        "web..",
        "web..shop",
        ".shop",
        "web.bank",
        "web.shop.pod",
        "web.shop.svc.",
        "web.shop.svc.other.example",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.example.x",
        "web.shop.svcx",
        "web.shop.cluster.example",
    ] {
        // A dot at the end is no part of the name.
        let expected = (bad == "web.shop.svc.").then(|| ServiceId::new("shop", "web"));
        assert_eq!(root(bad), expected, "{bad}");
    }
}

#[test]
fn out_of_range_weight_leaves_split_without_effect() {
    for (weight, fits) in [
        (0, true),
        (2_147_483_647, true),
        (2_147_483_648, false),
        (-1, false),
    ] {
        let (split, mistakes) = validated::<TrafficSplitSpec>(json!({
            "service": "web", "backends": [{"service": "a", "weight": weight}],
        }));
        assert_eq!(
            (split.weights_fit, mistakes.is_empty()),
            (fits, fits),
            "{weight}"
        );
        let kept = if fits { weight } else { 0 };
        assert_eq!(i64::from(split.backends[0].weight), kept);
    }
}

#[test]
fn invalid_target_entry_matches_nothing_and_others_stay() {
    let (target, mistakes) = validated::<TrafficTargetSpec>(json!({
        "destination": {"kind": "Group", "name": "api", "port": 0},
        "sources": [
            {"kind": "ServiceAccount", "name": "web"},
            {"kind": "ServiceAccount", "name": "Web"},
            {"kind": "User", "name": "web"},
            {"kind": "Group", "name": "*"},
            {"kind": "ServiceAccount", "name": "web", "namespace": "a.b"},
        ],
        "rules": [{"kind": "Pigeon", "name": "x"}, {"kind": "TCPRoute", "name": "x", "matches": []}],
    }));
    let to = target.destination.unwrap();
    assert_eq!(
        (to.kind, to.limit),
        (DestinationKind::Unknown, PortLimit::Nothing)
    );
    let kinds: Vec<_> = target.sources.iter().map(|source| source.kind).collect();
    assert_eq!(
        kinds,
        [Some(SourceKind::ServiceAccount), None, None, None, None]
    );
    let kinds: Vec<_> = target.rules.iter().map(|rule| rule.kind).collect();
    assert_eq!(kinds, [RuleKind::Unknown, RuleKind::TcpRoute]);
    assert_eq!(
        fields(&mistakes),
        [
            ("spec.destination.kind", Code::UnsupportedKind),
            ("spec.destination.port", Code::Invalid),
            ("spec.sources[1].name", Code::Invalid),
            ("spec.sources[2].kind", Code::UnsupportedKind),
            ("spec.sources[3].name", Code::Invalid),
            ("spec.sources[4].namespace", Code::Invalid),
            ("spec.rules[0].kind", Code::UnsupportedKind),
            ("spec.rules[1].matches", Code::FieldIgnored),
        ]
    );
}

#[test]
fn unreadable_target_still_protects_destination_in_own_namespace() {
    let named = |destination: Value| {
        let written = json!({"destination": destination, "rules": "everything"});
        validated::<TrafficTargetSpec>(written).0.destination
    };
    let to = named(json!({"kind": "ServiceAccount", "name": "api", "port": 0})).unwrap();
    assert_eq!((&*to.name, to.limit), ("api", PortLimit::Any));
    assert!(
        named(json!({"name": "api"})).is_some(),
        "whatever its kind says"
    );
    assert_eq!(named(json!({"name": "api", "namespace": "bank"})), None);
    assert_eq!(named(json!({"kind": "ServiceAccount"})), None);
    assert_eq!(named(json!(["api"])), None);
}

#[test]
fn match_refused_before_compiling_uses_no_group_budget() {
    // Expressions of 16 KiB or more, together more than one group may hold.
    let heavy: Vec<Value> = (0..60)
        .map(|n| {
            let headers = json!({"a": r"\w{3}", "b": r"\w{3}", "c": r"\w{3}", "d": r"\w{3}"});
            json!({"name": format!("m{n}"), "pathRegex": r"/\w{3}", "headers": headers})
        })
        .collect();
    let usable = |matches: &[Value]| {
        let (group, _) = validated::<HttpRouteGroupSpec>(json!({"matches": matches}));
        let usable = group.matches.iter().filter(|one| one.criteria.is_some());
        usable.count()
    };
    let room = usable(&heavy);
    assert!((1..60).contains(&room), "{room}");
    let mut spoiled: Vec<Value> = heavy[..4].to_vec();
    for (n, one) in spoiled.iter_mut().enumerate() {
        one["name"] = json!(format!("bad-{n}"));
        one["headers"] = json!("x: 1");
    }
    spoiled.extend(heavy);
    assert_eq!(usable(&spoiled), room);
}

#[test]
fn texts_are_bounded_whatever_they_quote() {
    let long = "x".repeat(100_000);
    let (_, mistakes) = validated::<TrafficTargetSpec>(json!({
        "destination": {"kind": long, "name": long},
        "sources": [{"kind": long, "name": long}], "rules": [{"kind": long, "name": long}],
    }));
    assert!(mistakes.len() >= 5);
    for mistake in &mistakes {
        assert!(mistake.text.len() < 500 && mistake.field.len() < 500);
    }
    let mut deep = json!({});
    deep[long.as_str()] = json!([[1]]);
    let (_, mistakes) = validated::<TrafficTargetSpec>(deep);
    assert!(
        mistakes.iter().all(|mistake| mistake.field.len() < 500),
        "{}",
        mistakes.len()
    );
}

// Claims: C8, attack-93
#[test]
fn an_unusual_method_is_taken_with_a_warning() {
    let (group, mistakes) = validated::<HttpRouteGroupSpec>(
        json!({"matches": [{"name": "a", "methods": ["get", "GET"]}]}),
    );
    assert!(group.matches[0].criteria.is_some());
    assert_eq!(
        fields(&mistakes),
        [("spec.matches[0].methods[0]", Code::UnusualMethod)]
    );
    assert_eq!(mistakes[0].severity, Severity::Warn);
}

#[test]
fn path_without_leading_slash_is_taken_with_a_warning() {
    let paths = ["a/b", "/a/b", ".*"];
    let matches: Vec<Value> = paths
        .iter()
        .map(|path| json!({"name": path, "pathRegex": path}))
        .collect();
    let (group, mistakes) = validated::<HttpRouteGroupSpec>(json!({ "matches": matches }));
    assert!(group.matches.iter().all(|one| one.criteria.is_some()));
    assert_eq!(
        fields(&mistakes),
        [("spec.matches[0].pathRegex", Code::UnusualPath)]
    );
    assert_eq!(mistakes[0].severity, Severity::Warn);
}

#[test]
fn many_validation_errors_are_bounded_in_time_and_count() {
    let before = std::time::Instant::now();
    let lists = Value::Array(vec![json!([]); 300_000]);
    let long = "x".repeat(500_000);
    let fields: serde_json::Map<_, _> = (0..50_000).map(|n| (n.to_string(), json!([[]]))).collect();
    let mut spec = json!({ "rules": [{"kind": "TCPRoute", "name": "a"}], "unknown": lists });
    spec[long.as_str()] = Value::Object(fields);
    let (target, mistakes) = validated::<TrafficTargetSpec>(spec);
    assert_eq!(mistakes.len(), 100);
    assert!(target.rules.is_empty(), "nothing of it is allowed");
    assert!(before.elapsed().as_secs() < 5, "{:?}", before.elapsed());
}
