//! Reasons that the page of policies names, each with the object that earns it. Those that
//! have to do with other policies stand in `conditions`.
//!
//! Claims: calls-19, calls-32

use serde_json::json;

use super::{about_api, policy, with_next};
use crate::{
    compile::tests::{failures, report},
    fixtures::*,
    problem::{
        ConditionType::{Accepted, ResolvedRefs},
        Reason,
    },
};

#[test]
fn findings_of_policy_alone_appear_in_accepted_with_reason() {
    let route = json!([{"kind": "HTTPRoute", "name": "reads"}]);
    for (spec, status, reason, part) in [
        (
            json!({"targetRef": {"kind": "Deployment", "name": "api"}, "retry": {}}),
            false,
            "UnsupportedKind",
            "spec.targetRef.kind: ",
        ),
        (
            about_api(&json!({"retry": {}, "routes": route})),
            false,
            "UnsupportedKind",
            "spec.routes[0].kind: ",
        ),
        (
            about_api(&json!({"retry": "three"})),
            false,
            "Unreadable",
            "the policy has no effect",
        ),
        (
            about_api(&json!({"retry": {"attempts": 6}})),
            false,
            "Invalid",
            "spec.retry.attempts: ",
        ),
        (
            about_api(&json!({})),
            false,
            "Invalid",
            "spec: holds no section",
        ),
        (
            about_api(&json!({"retry": {"attempt": 2}})),
            true,
            "FieldIgnored",
            "spec.retry.attempt: ",
        ),
        (
            about_api(&json!({"retry": {"methods": ["GTE"]}})),
            true,
            "UnusualMethod",
            "spec.retry.methods[0]: ",
        ),
    ] {
        let (_, problems) = shop().with(traffic_policy("p", spec)).compile();
        let accepted = &report(&problems, "TrafficPolicy p").accepted;
        assert_eq!(
            (accepted.status, accepted.reason),
            (status, reason),
            "{accepted:?}"
        );
        assert!(accepted.message.contains(part), "{accepted:?}");
    }
}

#[test]
fn external_name_service_is_neither_target_nor_replacement() {
    let external = set(service("ext", "", &[]), "/spec/type", json!("ExternalName"));
    let cluster = shop().with(external);
    let copies = json!([{"service": "ext", "percent": 1, "downstream": "Any"}]);
    for (spec, field) in [
        (
            json!({"targetRef": {"kind": "Service", "name": "ext"}, "retry": {}}),
            "spec.targetRef.name",
        ),
        (
            about_api(&json!({"fallback": {"service": "ext"}})),
            "spec.fallback.service",
        ),
        (
            about_api(&json!({"mirror": copies})),
            "spec.mirror[0].service",
        ),
        (
            about_api(&json!({"overrides": [{"to": ["ext"]}]})),
            "spec.overrides[0].to[0]",
        ),
    ] {
        let (_, problems) = cluster.clone().with(traffic_policy("p", spec)).compile();
        let expected = [(Reason::UnsupportedService, field)];
        assert_eq!(failures(&problems, Accepted), expected);
        assert_eq!(failures(&problems, ResolvedRefs), []);
        let accepted = &report(&problems, "TrafficPolicy p").accepted;
        assert_eq!(
            (accepted.status, accepted.reason),
            (false, "UnsupportedService")
        );
    }
}

#[test]
fn headless_service_policy_reports_partly_effective_sections() {
    let cluster = shop().with(service("db", "None", &[("http", 8080)]));
    for (section, written, expected_fields) in [
        (
            "rateLimits",
            json!([{"name": "each", "requests": 5}]),
            vec![],
        ),
        ("retry", json!({}), vec!["spec.targetRef.name: "]),
        (
            "timeouts",
            json!({"request": "1s"}),
            vec!["spec.targetRef.name: "],
        ),
        ("balance", json!({"subset": -1}), vec!["spec.balance: "]),
        ("sticky", json!({"type": "Caller"}), vec!["spec.sticky: "]),
    ] {
        let mut spec = json!({"targetRef": {"kind": "Service", "name": "db"}});
        spec[section] = written;
        let (_, problems) = cluster.clone().with(traffic_policy("p", spec)).compile();
        let accepted = &report(&problems, "TrafficPolicy p").accepted;
        let reason = if expected_fields.is_empty() {
            "Accepted"
        } else {
            "UnsupportedService"
        };
        assert_eq!(
            (accepted.status, accepted.reason),
            (true, reason),
            "{accepted:?}"
        );
        for field in ["spec.targetRef.name: ", "spec.balance: ", "spec.sticky: "] {
            let is_named = accepted.message.contains(field);
            assert_eq!(
                is_named,
                expected_fields.contains(&field),
                "{section}: {accepted:?}"
            );
        }
    }
}

#[test]
fn missing_match_port_or_caller_is_reported_with_field() {
    use Reason::{PortNotFound, RefNotFound};
    let reads = group("reads", json!([{"name": "get", "methods": ["GET"]}]));
    let other = service("other", "10.96.0.9", &[("http", 81)]);
    let cluster = with_next(shop()).with(reads).with(other);
    let route = json!([{"kind": "HTTPRouteGroup", "name": "reads", "matches": ["get", "gone"]}]);
    let copies = json!([{"service": "other", "percent": 1, "downstream": "Any"}]);
    let gone = json!([{"kind": "IdentityBinding", "name": "gone"}]);
    for (fields, reason, field, word) in [
        (
            json!({"retry": {}, "routes": route}),
            RefNotFound,
            "spec.routes[0].matches[1]",
            "reads has no match gone",
        ),
        (
            json!({"fallback": {"service": "other"}}),
            PortNotFound,
            "spec.fallback.service",
            "other has no port 80; there is no fallback",
        ),
        (
            json!({"mirror": copies}),
            PortNotFound,
            "spec.mirror[0].service",
            "other has no port 80; no copies are made",
        ),
        (
            json!({"overrides": [{"to": ["other"]}]}),
            PortNotFound,
            "spec.overrides[0].to[0]",
            "other has no port 80",
        ),
        (
            json!({"overrides": [{"to": ["next"], "sources": gone}]}),
            RefNotFound,
            "spec.overrides[0].sources[0].name",
            "there is no IdentityBinding shop/gone",
        ),
        (
            json!({"overrides": [{"to": ["next"], "forwarders": gone}]}),
            RefNotFound,
            "spec.overrides[0].forwarders[0].name",
            "there is no IdentityBinding shop/gone",
        ),
    ] {
        let (_, problems) = cluster.clone().with(policy("p", &fields)).compile();
        assert_eq!(failures(&problems, ResolvedRefs), [(reason, field)]);
        let conditions = report(&problems, "TrafficPolicy p");
        assert!(
            conditions.resolved_refs.message.contains(word),
            "{conditions:?}"
        );
        assert!(conditions.accepted.status, "{conditions:?}");
    }
}

// Claims: calls-34
#[test]
fn unusable_match_or_caller_is_reported_on_naming_policy() {
    let broken = json!({"name": "reads", "pathRegex": "("});
    let gets = json!({"name": "gets", "methods": ["GET"]});
    let cluster = shop()
        .with(group("some", json!([broken, gets])))
        .with(group("none", json!([broken])))
        .with(group("empty", json!([])))
        .with(binding("broken", json!({})));
    let routes = |group: &str| json!([{"kind": "HTTPRouteGroup", "name": group}]);
    let named =
        |matches: &[&str]| json!([{"kind": "HTTPRouteGroup", "name": "some", "matches": matches}]);
    let callers = json!([{"kind": "IdentityBinding", "name": "broken"}]);
    for (limits, expected, decides) in [
        (
            json!({"routes": named(&["reads"])}),
            Some(("spec.routes[0].matches[0]", "match reads of some cannot be")),
            false,
        ),
        (
            json!({"routes": named(&["gets", "reads"])}),
            Some(("spec.routes[0].matches[1]", "match reads of some cannot be")),
            true,
        ),
        (
            json!({"routes": routes("none")}),
            Some(("spec.routes[0].name", "none has no match that can be used")),
            false,
        ),
        (
            json!({"routes": routes("empty")}),
            Some(("spec.routes[0].name", "empty has no match that can be used")),
            false,
        ),
        (
            json!({"sources": callers}),
            Some((
                "spec.sources[0].name",
                "IdentityBinding shop/broken cannot be",
            )),
            false,
        ),
        // The control: something is left of what is meant.
        (json!({"routes": named(&["gets"])}), None, true),
        (json!({"routes": routes("some")}), None, true),
    ] {
        let mut fields = limits;
        fields["retry"] = json!({});
        let (model, problems) = cluster.clone().with(policy("p", &fields)).compile();
        let failed = expected.map(|(field, _)| (Reason::RefNotFound, field));
        let found = failures(&problems, ResolvedRefs);
        assert_eq!(found, failed.into_iter().collect::<Vec<_>>());
        let resolved = &report(&problems, "TrafficPolicy p").resolved_refs;
        let (reason, words) =
            expected.map_or(("ResolvedRefs", ""), |(_, words)| ("RefNotFound", words));
        assert_eq!(resolved.reason, reason);
        assert!(resolved.message.contains(words), "{resolved:?}");
        let resources = super::names(&model, "client");
        let is_named = resources.contains(&"policy/shop/api:80".to_owned());
        assert_eq!(is_named, decides, "{fields}");
    }
}

// Claims: calls-30
#[test]
fn policy_routes_are_limited_to_256_kib_of_matches() {
    let path = "x".repeat(900);
    let matches = (0..64).map(|n| {
        let expression = format!("/{n:02}/{path}");
        json!({"name": format!("m{n}"), "pathRegex": expression})
    });
    // One group is named again and again, by other matches each time.
    let route = |from: usize, to: usize| {
        let names: Vec<String> = (from..to).map(|n| format!("m{n}")).collect();
        json!({"kind": "HTTPRouteGroup", "name": "big", "matches": names})
    };
    let most = [route(0, 64), route(0, 63), route(1, 64), route(0, 62)];
    let mut more = most.to_vec();
    more.push(route(2, 64));
    let cluster = shop()
        .with(group("big", matches.collect()))
        .with(policy("most", &json!({"retry": {}, "routes": most})))
        .with(policy("more", &json!({"timeouts": {}, "routes": more})));
    let (_, problems) = cluster.compile();
    let expected = [(Reason::Invalid, "spec.routes")];
    assert_eq!(failures(&problems, Accepted), expected);
    assert!(report(&problems, "TrafficPolicy most").accepted.status);
    let accepted = &report(&problems, "TrafficPolicy more").accepted;
    assert!(
        accepted.message.contains("more than 256 KiB"),
        "{accepted:?}"
    );
}
