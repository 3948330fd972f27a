//! What a policy is about, and what cannot be limited.
//!
//! Claims: calls-27

use super::*;

#[test]
fn routes_and_sources_remove_sections_they_cannot_limit() {
    let group = json!([{"kind": "HTTPRouteGroup", "name": "catalog", "matches": ["reads"]}]);
    let caller = json!([{"kind": "ServiceAccount", "name": "web"}]);
    for (field, list) in [("routes", &group), ("sources", &caller)] {
        let mut spec = everything();
        spec[field] = list.clone();
        let (policy, mistakes) = validated(&spec);
        for section in Section::ALL {
            let there = policy.sections.has(section) || policy.overrides.is_some();
            assert_eq!(there, section.may_be_limited(), "{section}");
        }
        let unlimited = Section::ALL
            .into_iter()
            .filter(|section| !section.may_be_limited());
        let unlimited: Vec<String> = unlimited.map(|section| format!("spec.{section}")).collect();
        assert_eq!(refused(&mistakes), unlimited);
        spec[field] = json!([]);
        assert_eq!(validated(&spec).1, [], "an empty list limits nothing");
    }
}

#[test]
fn unreadable_policy_limit_matches_nothing() {
    let spec = about(json!({
        "retry": {}, "routes": [
            {"kind": "HTTPRouteGroup", "name": "a"}, {"kind": "HTTPRoute", "name": "b"},
            {"kind": "HTTPRouteGroup", "name": ""}, {"kind": "HTTPRouteGroup", "name": "c", "matches": []},
            {"kind": "HTTPRouteGroup", "name": "a"},
        ],
        "sources": [
            {"kind": "ServiceAccount", "name": "web"}, {"kind": "User", "name": "ann"},
            {"kind": "Group", "name": "everybody"},
        ],
    }));
    let (policy, mistakes) = validated(&spec);
    let routes: Vec<bool> = policy.routes.iter().map(Option::is_some).collect();
    assert_eq!(routes, [true, false, false, true, true]);
    let sources: Vec<bool> = policy
        .sources
        .iter()
        .map(|one| one.kind.is_some())
        .collect();
    assert_eq!(sources, [true, false, false]);
    assert_eq!(
        refused(&mistakes),
        [
            "spec.routes[1].kind",
            "spec.routes[2].name",
            "spec.routes[3].matches",
            "spec.routes[4].name",
            "spec.sources[1].kind",
            "spec.sources[2].name",
        ]
    );
    let many = json!(vec![json!({"kind": "ServiceAccount", "name": "a"}); 65]);
    let (policy, mistakes) = validated(&about(json!({"retry": {}, "sources": many})));
    assert_eq!(refused(&mistakes), ["spec.sources"]);
    assert!(policy.sources.iter().all(|one| one.kind.is_none()) && !policy.sources.is_empty());
}

#[test]
fn unreadable_target_disables_the_policy() {
    for (target, field, text) in [
        (
            json!({"kind": "service", "name": "a"}),
            "kind",
            "you may mean Service",
        ),
        (
            json!({"kind": "Service"}),
            "name",
            "must be the name of a Service",
        ),
        (
            json!({"kind": "Service", "name": "a.b"}),
            "name",
            "must be the name of a Service",
        ),
        (
            json!({"kind": "Service", "name": "a", "port": 0}),
            "port",
            "from 1 to 65535",
        ),
        (
            json!({"kind": "Namespace", "name": "a"}),
            "name",
            "only a Service has one",
        ),
        (
            json!({"kind": "Mesh"}),
            "kind",
            "stand in its own namespace \"weft-system\"",
        ),
        (json!({}), "kind", "must be Service, Namespace or Mesh"),
    ] {
        let (policy, mistakes) = validated(&json!({"targetRef": target, "retry": {}}));
        assert_eq!(policy.target, None);
        assert_eq!(
            refused(&mistakes),
            [format!("spec.targetRef.{field}")],
            "{mistakes:?}"
        );
        assert!(mistakes[0].text.contains(text), "{mistakes:?}");
    }
}

#[test]
fn only_mesh_policy_in_mesh_namespace_is_enforceable() {
    let mesh = json!({"targetRef": {"kind": "Mesh"}, "enforce": true, "retry": {"attempts": 0}});
    let (policy, mistakes) = in_mesh_namespace(&mesh);
    assert_eq!(
        (policy.target, policy.enforce, mistakes),
        (Some(Target::Mesh), true, vec![])
    );
    let namespace = json!({"targetRef": {"kind": "Namespace"}, "enforce": true, "retry": {}});
    let (policy, mistakes) = in_mesh_namespace(&namespace);
    assert!(!policy.enforce && policy.sections.retry.is_some());
    assert_eq!(refused(&mistakes), ["spec.enforce"]);
    let (policy, _) = validated(&mesh);
    assert!(!policy.enforce && policy.target.is_none());
}
