//! What a policy means, and that a mistake costs its section and no more.

use policy::{
    name::ServiceId,
    traffic::{
        call::{Causes, FallbackTo, StickyKey},
        endpoint::{Locality, Subset},
        guard::{LimitKey, Priority, RateLimit},
        set::{Methods, Statuses},
    },
};
use serde_json::{Value, json};

use super::*;
use crate::smi::{
    each_node,
    judge::{Code, Severity, SourceKind, spec},
    schema, violations,
};

/// A spec that says everything.
const EVERYTHING: &str = include_str!("../everything.yaml");

const AT: Surroundings<'_> = Surroundings {
    namespace: "shop",
    cluster_domain: "cluster.example",
    mesh_namespace: "weft-system",
};

fn everything() -> Value {
    serde_yaml_ng::from_str(EVERYTHING).unwrap()
}

fn judged(written: &Value) -> (Policy, Vec<Mistake>) {
    spec::<TrafficPolicySpec>(Some(written), &AT)
}

fn in_mesh_namespace(written: &Value) -> (Policy, Vec<Mistake>) {
    let at = Surroundings {
        namespace: "weft-system",
        ..AT
    };
    spec::<TrafficPolicySpec>(Some(written), &at)
}

/// About Service `catalog`, with these fields.
fn about(fields: Value) -> Value {
    let mut spec = json!({"targetRef": {"kind": "Service", "name": "catalog"}});
    for (name, value) in fields.as_object().unwrap() {
        spec[name] = value.clone();
    }
    spec
}

/// The whole spec with one field changed.
fn changed(pointer: &str, value: &Value) -> Value {
    let mut spec = everything();
    let (parent, field) = pointer.rsplit_once('/').unwrap();
    match spec.pointer_mut(parent).unwrap() {
        Value::Array(list) => list[field.parse::<usize>().unwrap()] = value.clone(),
        parent => parent[field] = value.clone(),
    }
    spec
}

fn refused(mistakes: &[Mistake]) -> Vec<&str> {
    let refused = mistakes
        .iter()
        .filter(|one| one.severity == Severity::Refuse);
    refused.map(|one| one.field.as_str()).collect()
}

#[test]
fn a_policy_that_says_everything_means_what_it_says() {
    let (policy, mistakes) = judged(&everything());
    assert_eq!(mistakes, []);
    let catalog = ServiceId::new("shop", "catalog");
    assert_eq!(policy.target, Some(Target::Port(catalog, 8080)));
    assert_eq!(policy.written, Section::ALL);
    let sections = &policy.sections;
    for section in Section::ALL {
        assert_eq!(
            sections.has(section),
            section != Section::Overrides,
            "{section}"
        );
    }
    assert_eq!(sections.priority, Some(Priority::Normal));
    assert_eq!(sections.rate_limits[0].key, LimitKey::Caller);
    assert_eq!(
        sections.rate_limits[1].burst, 16,
        "1000 a minute are 16 in a second"
    );
    assert_eq!(
        sections.balance.unwrap().locality,
        Some(Locality::PreferSameZone)
    );
    let mirror = &sections.mirror.as_deref().unwrap()[0];
    assert_eq!(mirror.service, ServiceId::new("shop", "catalog-next"));
    assert_eq!(mirror.allow_tcp[0].port, 5432);
    let StickyKey::Cookie(name) = &sections.sticky.as_ref().unwrap().key else {
        panic!("no cookie");
    };
    assert_eq!(&**name, "tenant");
    let overrides = policy.overrides.unwrap();
    assert_eq!(
        overrides[0].sources[0].kind,
        Some(SourceKind::ServiceAccount)
    );
    assert_eq!(overrides[0].tokens[0].expires, 1_801_353_600);
    assert_eq!(overrides[0].tokens[0].sha256[..2], [0x9f, 0x86]);
}

#[test]
fn an_empty_section_has_the_defaults_that_are_documented() {
    use policy::traffic::{call, endpoint, guard};
    let empty = about(json!({
        "timeouts": {}, "retry": {}, "ejection": {}, "breaker": {}, "overload": {}, "balance": {},
        "rateLimits": [{"name": "all", "requests": 7}], "fallback": {"service": "static"},
        "mirror": [{"service": "next", "percent": 1}], "sticky": {"type": "Caller"},
    }));
    let (policy, mistakes) = judged(&empty);
    assert_eq!(mistakes, []);
    let sections = policy.sections;
    assert_eq!(sections.timeouts, Some(call::Timeouts::DEFAULT));
    assert_eq!(sections.retry, Some(call::Retry::DEFAULT));
    assert_eq!(sections.ejection, Some(endpoint::Ejection::DEFAULT));
    assert_eq!(sections.breaker, Some(endpoint::Breaker::DEFAULT));
    assert_eq!(sections.overload, Some(guard::Overload::DEFAULT));
    assert_eq!(sections.balance, Some(endpoint::Balance::DEFAULT));
    let limit = RateLimit {
        name: "all".into(),
        requests: 7,
        per: std::time::Duration::from_secs(1),
        burst: 7,
        key: LimitKey::None,
        scope: guard::LimitScope::Service,
        mode: guard::LimitMode::Enforce,
    };
    assert_eq!(*sections.rate_limits[0], limit);
    let fallback = sections.fallback.unwrap();
    assert_eq!(
        fallback.to,
        FallbackTo::Service(ServiceId::new("shop", "static"))
    );
    assert_eq!(fallback.on, Causes::ALL);
    let mirror = &sections.mirror.unwrap()[0];
    assert_eq!(
        (&mirror.methods, mirror.downstream),
        (&Methods::SAFE, call::Downstream::ReadOnly)
    );
    assert_eq!(sections.sticky.unwrap().scope, call::StickyScope::Endpoint);
}

#[test]
fn every_default_is_told_by_kubectl_explain() {
    let schema = schema::<TrafficPolicySpec>();
    for (pointer, default) in [
        ("timeouts.request", "0s, no limit,"),
        ("timeouts.backendRequest", "0s, no limit,"),
        ("timeouts.idle", "0s, no limit,"),
        ("timeouts.share", "100"),
        ("retry.attempts", "1"),
        ("retry.codes", "503"),
        ("retry.grpcCodes", "None"),
        ("retry.methods", "GET, HEAD and OPTIONS"),
        ("retry.backoff", "25ms"),
        ("retry.budget.percent", "20"),
        ("retry.budget.interval", "5s"),
        ("retry.budget.minPerSecond", "1"),
        ("ejection.consecutiveFailures", "5"),
        ("ejection.codes", "502, 503 and 504"),
        ("ejection.baseTime", "5s"),
        ("ejection.maxTime", "60s"),
        ("ejection.maxPercent", "34"),
        ("breaker.state", "Auto"),
        ("breaker.failurePercent", "50"),
        ("breaker.interval", "10s"),
        ("breaker.minRequests", "50"),
        ("breaker.openTime", "5s"),
        ("fallback.on", "All of them"),
        ("overload.mode", "Adaptive"),
        ("overload.queueTime", "100ms"),
        ("overload.maxConcurrency", "0, no limit,"),
        ("balance.subset", "0"),
        ("balance.warmup", "10s"),
        ("sticky.scope", "Endpoint"),
        ("sticky.ttl", "0s"),
    ] {
        let path = format!("/properties/{}", pointer.replace('.', "/properties/"));
        let text = schema.pointer(&path).unwrap()["description"]
            .as_str()
            .unwrap();
        let told = format!("{default} when left out");
        let lists = format!("{default} when empty or left out");
        assert!(
            text.contains(&told) || text.contains(&lists),
            "{pointer}: {text}"
        );
    }
}

#[test]
fn a_mistake_costs_its_section_and_is_named_with_the_field_and_the_way_out() {
    for (pointer, value, section, text) in [
        (
            "/timeouts/request",
            json!("10"),
            Section::Timeouts,
            "must be a duration such as",
        ),
        (
            "/timeouts/request",
            json!("25h"),
            Section::Timeouts,
            "must be from 0s to 24h",
        ),
        (
            "/timeouts/backendRequest",
            json!("11s"),
            Section::Timeouts,
            "is longer than request",
        ),
        (
            "/timeouts/share",
            json!(0),
            Section::Timeouts,
            "is 0, but must be from 1 to 100",
        ),
        (
            "/retry/attempts",
            json!(6),
            Section::Retry,
            "is 6, but must be from 0 to 5",
        ),
        (
            "/retry/codes/0",
            json!(200),
            Section::Retry,
            "must be from 400 to 599",
        ),
        (
            "/retry/grpcCodes/0",
            json!("UNAVAILABLE"),
            Section::Retry,
            "you may mean Unavailable",
        ),
        (
            "/retry/methods/0",
            json!("GE T"),
            Section::Retry,
            "no method of HTTP",
        ),
        (
            "/retry/backoff",
            json!("11s"),
            Section::Retry,
            "must be from 0s to 10s",
        ),
        (
            "/retry/budget/interval",
            json!("500ms"),
            Section::Retry,
            "must be from 1s to 1m",
        ),
        (
            "/ejection/codes/0",
            json!(404),
            Section::Ejection,
            "must be from 500 to 599",
        ),
        (
            "/ejection/maxTime",
            json!("4s"),
            Section::Ejection,
            "is shorter than baseTime",
        ),
        (
            "/breaker/state",
            json!("open"),
            Section::Breaker,
            "you may mean Open",
        ),
        (
            "/breaker/failurePercent",
            json!(0),
            Section::Breaker,
            "must be from 1 to 100",
        ),
        (
            "/fallback/on/4",
            json!("5XX"),
            Section::Fallback,
            "you may mean 5xx",
        ),
        (
            "/fallback/response/status",
            json!(100),
            Section::Fallback,
            "must be from 200 to 599",
        ),
        (
            "/fallback/response/headers/0/name",
            json!("weft-x"),
            Section::Fallback,
            "proxy itself",
        ),
        (
            "/fallback/response/headers/0/name",
            json!("a b"),
            Section::Fallback,
            "no name of a header",
        ),
        (
            "/fallback/response/headers/0/value",
            json!("a\nb"),
            Section::Fallback,
            "no header may hold",
        ),
        (
            "/priority",
            json!("Sheddabel"),
            Section::Priority,
            "you may mean Sheddable",
        ),
        (
            "/overload/queueTime",
            json!("4ms"),
            Section::Overload,
            "must be from 5ms to 10s",
        ),
        (
            "/mirror/0/service",
            json!("catalog"),
            Section::Mirror,
            "cannot be its own mirror",
        ),
        (
            "/mirror/0/service",
            json!("catalog.other"),
            Section::Mirror,
            "name of a Service",
        ),
        (
            "/mirror/0/allowTcp/0",
            json!("db:0"),
            Section::Mirror,
            "such as \"catalog-db:5432\"",
        ),
        (
            "/balance/locality",
            json!("PreferSameZones"),
            Section::Balance,
            "mean PreferSameZone",
        ),
        (
            "/sticky/name",
            json!("a;b"),
            Section::Sticky,
            "no name of a cookie",
        ),
        (
            "/overrides/0/to/0",
            json!("Catalog"),
            Section::Overrides,
            "name of a Service",
        ),
        (
            "/overrides/0/tokens/0/sha256",
            json!("hunter2"),
            Section::Overrides,
            "never the secret",
        ),
        (
            "/overrides/0/tokens/0/expires",
            json!("soon"),
            Section::Overrides,
            "must be a time",
        ),
    ] {
        let (policy, mistakes) = judged(&changed(pointer, &value));
        let field = pointer.strip_prefix('/').unwrap().split('/');
        let mut path = "spec".to_owned();
        for part in field {
            match part.parse::<usize>() {
                Ok(place) => path.push_str(&format!("[{place}]")),
                Err(_) => path.push_str(&format!(".{part}")),
            }
        }
        assert_eq!(refused(&mistakes), [path], "{mistakes:?}");
        assert!(mistakes[0].text.contains(text), "{mistakes:?}");
        assert!(
            mistakes[0].text.ends_with("; this section is ignored"),
            "{mistakes:?}"
        );
        for other in Section::ALL {
            let there = match other {
                Section::Overrides => policy.overrides.is_some(),
                other => policy.sections.has(other),
            };
            assert_eq!(there, other != section, "{pointer}: {other}");
        }
    }
}

#[test]
fn fallback_holds_one_of_its_forms_and_fits_into_its_bytes() {
    for (fallback, text) in [
        (json!({}), "holds neither of service and response"),
        (
            json!({"service": "a", "response": {"status": 200}}),
            "holds both of service and",
        ),
        (json!({"service": "catalog"}), "cannot be its own fallback"),
        (
            json!({"response": {"status": 200, "body": "x".repeat(4097)}}),
            "may have 4096",
        ),
    ] {
        let (policy, mistakes) = judged(&about(json!({"fallback": fallback})));
        assert_eq!(policy.sections.fallback, None);
        assert!(mistakes[0].text.contains(text), "{mistakes:?}");
    }
}

#[test]
fn a_wrong_limit_takes_no_other_limit_away() {
    let limits = json!([
        {"name": "a", "requests": 1},
        {"name": "b", "requests": 0},
        {"name": "a", "requests": 2},
        {"name": "C", "requests": 3},
        {"name": "d", "requests": 4, "key": {"type": "Header"}},
        {"name": "e", "requests": 5, "key": {"type": "Caller", "name": "x"}},
        {"name": "f", "requests": 6, "mode": "Enforced"},
        {"name": "g", "requests": 7, "burst": 0},
        {"name": "h", "requests": 8, "per": "2h"},
        {"name": "i", "requests": 9},
    ]);
    let (policy, mistakes) = judged(&about(json!({"rateLimits": limits})));
    let names: Vec<&str> = policy
        .sections
        .rate_limits
        .iter()
        .map(|one| &*one.name)
        .collect();
    assert_eq!(names, ["a", "i"]);
    let fields = [
        "[1].requests",
        "[2].name",
        "[3].name",
        "[4].key.name",
        "[5].key.name",
        "[6].mode",
        "[7].burst",
        "[8].per",
    ];
    assert_eq!(
        refused(&mistakes),
        fields.map(|field| format!("spec.rateLimits{field}"))
    );
    assert!(
        mistakes
            .iter()
            .all(|one| one.text.ends_with("this limit is ignored"))
    );
    let many: Vec<Value> = (0..17)
        .map(|n| json!({"name": format!("l{n}"), "requests": 1}))
        .collect();
    let (policy, mistakes) = judged(&about(json!({"rateLimits": many})));
    assert_eq!(policy.sections.rate_limits.len(), 16, "the first ones hold");
    assert_eq!(refused(&mistakes), ["spec.rateLimits"]);
}

#[test]
fn routes_and_sources_take_sections_away_that_they_cannot_limit() {
    let group = json!([{"kind": "HTTPRouteGroup", "name": "catalog", "matches": ["reads"]}]);
    let caller = json!([{"kind": "ServiceAccount", "name": "web"}]);
    for (field, list) in [("routes", &group), ("sources", &caller)] {
        let mut spec = everything();
        spec[field] = list.clone();
        let (policy, mistakes) = judged(&spec);
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
        assert_eq!(judged(&spec).1, [], "an empty list limits nothing");
    }
}

#[test]
fn what_limits_a_policy_and_cannot_be_read_fits_nothing() {
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
    let (policy, mistakes) = judged(&spec);
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
    let (policy, mistakes) = judged(&about(json!({"retry": {}, "sources": many})));
    assert_eq!(refused(&mistakes), ["spec.sources"]);
    assert!(policy.sources.iter().all(|one| one.kind.is_none()) && !policy.sources.is_empty());
}

#[test]
fn a_target_that_cannot_be_read_takes_all_effect_from_the_policy() {
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
        let (policy, mistakes) = judged(&json!({"targetRef": target, "retry": {}}));
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
fn only_a_policy_of_the_mesh_in_its_own_namespace_can_be_enforced() {
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
    let (policy, _) = judged(&mesh);
    assert!(!policy.enforce && policy.target.is_none());
}

#[test]
fn a_field_that_the_kind_does_not_have_is_told_with_the_one_that_was_meant() {
    let spec = about(json!({
        "retries": {}, "retry": {"attempt": 3, "budget": {"percentage": 1}},
        "rateLimits": [{"name": "a", "requests": 1, "bust": 3}],
    }));
    let (policy, mistakes) = judged(&spec);
    assert!(policy.sections.retry.is_some());
    let told: Vec<(&str, bool)> = mistakes
        .iter()
        .map(|one| (one.field.as_str(), one.text.contains("is one")))
        .collect();
    assert_eq!(
        told,
        [
            ("spec.rateLimits[0].bust", true),
            ("spec.retries", false),
            ("spec.retry.attempt", true),
            ("spec.retry.budget.percentage", false),
        ]
    );
    assert!(
        mistakes
            .iter()
            .all(|one| { (one.severity, one.code) == (Severity::Warn, Code::FieldIgnored) })
    );
}

#[test]
fn a_policy_without_a_section_or_of_another_shape_has_no_effect() {
    let (_, mistakes) = judged(&about(json!({})));
    assert_eq!(refused(&mistakes), ["spec"]);
    assert!(
        mistakes[0].text.contains("holds no section"),
        "{mistakes:?}"
    );
    for spec in [
        about(json!({"retry": [3]})),
        about(json!({"retry": {"budget": [20]}})),
        about(json!({"retry": "three"})),
        json!({"targetRef": ["Service", "catalog"], "retry": {}}),
    ] {
        let (policy, mistakes) = judged(&spec);
        assert_eq!(policy, Policy::default());
        assert_eq!(mistakes[0].code, Code::Unreadable);
        assert!(
            mistakes[0].text.ends_with("the policy has no effect"),
            "{mistakes:?}"
        );
    }
}

#[test]
fn what_is_off_is_off_and_what_is_a_list_may_be_empty() {
    let (policy, mistakes) = judged(&about(json!({
        "retry": {"attempts": 0, "codes": [], "methods": ["*"]},
        "ejection": {"consecutiveFailures": 0, "baseTime": "2m"},
        "balance": {"subset": -1, "warmup": "0s"}, "mirror": [], "overrides": [],
    })));
    assert_eq!(mistakes, []);
    let sections = policy.sections;
    let retry = sections.retry.unwrap();
    assert_eq!(
        (retry.attempts, retry.codes, retry.methods),
        (0, Statuses::EMPTY, Methods::Any)
    );
    let ejection = sections.ejection.unwrap();
    assert_eq!(
        ejection.max_time, ejection.base_time,
        "no rest is shorter than the first"
    );
    assert_eq!(sections.balance.unwrap().subset, Subset::Automatic);
    assert_eq!(sections.mirror.as_deref(), Some(&[][..]));
    assert_eq!(policy.overrides, Some(vec![]));
}

/// Schema and judge were written apart, and each reads every field for itself: whatever
/// one refuses at its bounds, the other does too.
#[test]
fn schema_and_judge_agree_at_every_bound() {
    let schema = schema::<TrafficPolicySpec>();
    let mut tried = 0;
    let mut probes: Vec<(String, Value)> = Vec::new();
    each_node(&schema, "", &mut |node, at| {
        let pointer = at.replace("[]", "/0").replace('.', "/");
        for (bound, beyond) in [("minimum", -1), ("maximum", 1)] {
            if let Some(bound) = node[bound].as_i64() {
                probes.push((pointer.clone(), json!(bound)));
                probes.push((pointer.clone(), json!(bound + beyond)));
            }
        }
        for known in node["enum"].as_array().into_iter().flatten() {
            probes.push((pointer.clone(), known.clone()));
            let other = known.as_str().map(str::to_lowercase);
            probes.push((pointer.clone(), json!(other)));
        }
        if let Some(most) = node["maxItems"].as_u64() {
            let least = node["minItems"].as_u64().unwrap_or(0);
            for count in [least.saturating_sub(1), least, most, most + 1] {
                let one = everything().pointer(&format!("{pointer}/0")).cloned();
                let Some(one) = one else { continue };
                let numbered = |n: u64| {
                    let mut one = one.clone();
                    if one.get("name").is_some() {
                        one["name"] = json!(format!("n{n}"));
                    }
                    one
                };
                probes.push((pointer.clone(), (0..count).map(numbered).collect()));
            }
        }
    });
    for (pointer, value) in probes {
        if everything().pointer(&pointer).is_none() {
            continue;
        }
        // Changing a kind alone asks for other fields, of which CEL speaks.
        let kinds = ["/targetRef/kind", "/sticky/type", "/rateLimits/0/key/type"];
        let known = value
            .as_str()
            .is_some_and(|text| text.starts_with(char::is_uppercase));
        if (kinds.contains(&&*pointer) && known) || value == "Group" {
            continue;
        }
        let spec = changed(&pointer, &value);
        let schema_says = violations(&schema, &spec);
        let (_, judge_says) = judged(&spec);
        assert_eq!(
            schema_says.is_empty(),
            refused(&judge_says).is_empty(),
            "{pointer} = {value}: {schema_says:?} and {judge_says:?}"
        );
        tried += 1;
    }
    assert!(tried > 150, "{tried}");
}
