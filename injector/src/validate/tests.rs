//! What is refused, and that the reason says which field.

use crds::smi;
use serde_json::{Value, json};

use super::*;

/// The cluster's domain is the usual one.
fn validate(request: &Request) -> AdmissionResponse {
    super::validate(request, &Cluster::default())
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "keeps the tests' json! plain"
)]
fn request(group: &str, kind: &str, spec: Value) -> Request {
    serde_json::from_value(json!({
        "uid": "u",
        "kind": { "group": group, "version": "v1alpha4", "kind": kind },
        "namespace": "shop",
        "name": "x",
        "operation": "CREATE",
        "object": { "metadata": { "name": "x" }, "spec": spec },
        "oldObject": null,
    }))
    .unwrap()
}

fn split(spec: Value) -> Request {
    request(smi::SPLIT_GROUP, "TrafficSplit", spec)
}

fn target(spec: Value) -> Request {
    request(smi::ACCESS_GROUP, "TrafficTarget", spec)
}

fn routes(spec: Value) -> Request {
    request(smi::SPECS_GROUP, "HTTPRouteGroup", spec)
}

fn refused(request: &Request, field: &str, reason: &str) {
    let message = validate(request).refusal.expect("must be refused");
    assert!(message.contains(&format!("{field}: ")), "{message}");
    assert!(message.contains(reason), "{message}");
}

fn allowed(request: &Request) {
    assert_eq!(validate(request), AdmissionResponse::allow());
}

fn good_target() -> Value {
    json!({
        "destination": { "kind": "ServiceAccount", "name": "cart", "namespace": "shop" },
        "sources": [{ "kind": "ServiceAccount", "name": "web" }],
        "rules": [{ "kind": "HTTPRouteGroup", "name": "api", "matches": ["get"] }],
    })
}

#[test]
fn split_root_accepts_every_service_name_form() {
    for service in [
        "web",
        "web.shop",
        "web.shop.svc",
        "web.shop.svc.cluster.local",
        "web.shop.svc.cluster.local.",
    ] {
        allowed(&split(json!({
            "service": service,
            "backends": [{ "service": "web-v1", "weight": 0 }],
        })));
    }
    let with = |service: &str| {
        split(json!({ "service": service, "backends": [{ "service": "a", "weight": 1 }] }))
    };
    refused(&with("web.bank"), "spec.service", "namespace \"shop\"");
    refused(
        &with("web.bank.svc.cluster.local"),
        "spec.service",
        "namespace \"shop\"",
    );
    for service in [
        "",
        "Web",
        "web.shop.pod",
        "web..shop",
        "foo.com.",
        "web_1",
        "*",
    ] {
        refused(&with(service), "spec.service", "Service");
    }
}

#[test]
fn negative_weight_and_empty_split_are_refused() {
    let spec = json!({ "service": "web", "backends": [{ "service": "a", "weight": -200 }] });
    refused(&split(spec), "spec.backends[0].weight", "is -200");
    let spec = json!({ "service": "web", "backends": [{ "service": "a", "weight": "1n" }] });
    refused(&split(spec), "spec.backends[0].weight", "side by side");
    refused(
        &split(json!({ "service": "web", "backends": [] })),
        "spec.backends",
        "at least one",
    );
    let spec = json!({
        "service": "web",
        "backends": [{ "service": "a", "weight": 1 }],
        "matches": [{ "kind": "TCPRoute", "name": "x" }],
    });
    refused(&split(spec), "spec.matches[0].kind", "HTTPRouteGroup");
}

#[test]
fn root_among_its_backends_is_allowed() {
    allowed(&split(json!({
        "service": "web",
        "backends": [{ "service": "web", "weight": 90 }, { "service": "web-v2", "weight": 10 }],
    })));
}

#[test]
fn target_must_protect_its_own_namespace() {
    allowed(&target(good_target()));
    let mut spec = good_target();
    spec["destination"]["namespace"] = "bank".into();
    refused(
        &target(spec),
        "spec.destination.namespace",
        "create it in \"bank\"",
    );
}

// Claims: mesh-2c
#[test]
fn target_without_sources_or_rules_is_refused() {
    let mut spec = good_target();
    spec["sources"] = json!([]);
    spec["rules"] = json!([]);
    refused(&target(spec.clone()), "spec.sources", "at least one source");
    refused(&target(spec), "spec.rules", "at least one rule");
    refused(
        &target(json!({})),
        "spec.destination.kind",
        "ServiceAccount",
    );
}

#[test]
fn only_smi_kinds_may_be_referenced() {
    let mut spec = good_target();
    spec["sources"][0]["kind"] = "IdentityBinding".into();
    spec["destination"]["kind"] = "IdentityBinding".into();
    spec["rules"] =
        json!([{ "kind": "UDPRoute", "name": "dns" }, { "kind": "TCPRoute", "name": "dns" }]);
    allowed(&target(spec.clone()));
    spec["sources"][0]["name"] = "Not A Name".into();
    refused(&target(spec), "spec.sources[0].name", "IdentityBinding");
    let mut spec = good_target();
    spec["sources"][0]["kind"] = "User".into();
    refused(&target(spec), "spec.sources[0].kind", "is \"User\"");
    let mut spec = good_target();
    spec["rules"][0]["kind"] = "HTTPRoute".into();
    refused(&target(spec), "spec.rules[0].kind", "is \"HTTPRoute\"");
    let mut spec = good_target();
    spec["destination"]["kind"] = "Group".into();
    refused(
        &target(spec),
        "spec.destination.kind",
        "must be ServiceAccount",
    );
}

#[test]
fn tcp_and_udp_route_matches_are_refused_with_advice() {
    for kind in ["TCPRoute", "UDPRoute"] {
        let mut spec = good_target();
        spec["rules"] = json!([{ "kind": kind, "name": "dns" }]);
        allowed(&target(spec.clone()));
        spec["rules"][0]["matches"] = json!(["a"]);
        let words = format!("a {kind} has none: leave the field out");
        refused(&target(spec), "spec.rules[0].matches", &words);
    }
}

#[test]
fn overlong_lists_are_refused_with_their_length() {
    let many = |n: usize, one: Value| Value::Array(vec![one; n]);
    let source = json!({ "kind": "ServiceAccount", "name": "web" });
    let rule = json!({ "kind": "TCPRoute", "name": "a" });
    let mut spec = good_target();
    spec["sources"] = many(256, source.clone());
    spec["rules"] = many(64, rule.clone());
    allowed(&target(spec.clone()));
    spec["sources"] = many(257, source);
    spec["rules"] = many(65, rule);
    refused(&target(spec.clone()), "spec.sources", "has 257 entries");
    refused(&target(spec), "spec.rules", "may have 64");
    let backend = json!({ "service": "a", "weight": 1 });
    let spec = json!({ "service": "web", "backends": many(65, backend) });
    refused(&split(spec), "spec.backends", "has 65 entries");
    let headers: serde_json::Map<_, _> = (0..33).map(|n| (format!("x-{n}"), "a".into())).collect();
    let spec = json!({ "matches": [{ "name": "a", "headers": headers }] });
    refused(&routes(spec), "spec.matches[0].headers", "");
    let ports = json!({ "matches": { "ports": many(129, json!(80)) } });
    for kind in ["TCPRoute", "UDPRoute"] {
        let route = request(smi::SPECS_GROUP, kind, ports.clone());
        refused(&route, "spec.matches.ports", "has 129 entries");
    }
    let binding = |schemes: Value| {
        request(
            smi::ACCESS_GROUP,
            "IdentityBinding",
            json!({ "schemes": schemes }),
        )
    };
    let ids = many(65, json!("td/a"));
    let field = "spec.schemes.spiffeIdentities";
    refused(
        &binding(json!({ "spiffeIdentities": ids })),
        field,
        "has 65 entries",
    );
    let empty = json!({ "spiffeIdentities": [], "serviceAccount": "a" });
    refused(&binding(empty), field, "at least one");
    let slash = json!({ "serviceAccount": "a/b" });
    refused(&binding(slash), "spec.schemes.serviceAccount", "name");
}

#[test]
fn only_the_two_groups_exist() {
    for (name, good) in [
        ("system:authenticated", true),
        ("system:unauthenticated", true),
        ("system:masters", false),
        ("*", false),
    ] {
        let mut spec = good_target();
        spec["sources"] = json!([{ "kind": "Group", "name": name }]);
        if good {
            allowed(&target(spec));
        } else {
            refused(
                &target(spec),
                "spec.sources[0].name",
                "system:authenticated",
            );
        }
    }
}

#[test]
fn invalid_or_overlong_regex_is_refused() {
    allowed(&routes(json!({ "matches": [
        { "name": "api", "pathRegex": "/api/.*", "methods": ["GET", "*"], "headers": { "x-a": "b.*" } },
        { "name": "list", "headers": [{ "x-a": "b" }, { "x-c": "d" }] },
    ]})));
    let with = |route: Value| routes(json!({ "matches": [route] }));
    refused(
        &with(json!({ "name": "a", "pathRegex": "(" })),
        "spec.matches[0].pathRegex",
        "",
    );
    let long = "a".repeat(10_000);
    refused(
        &with(json!({ "name": "a", "pathRegex": long })),
        "spec.matches[0].pathRegex",
        "1024",
    );
    refused(
        &with(json!({ "name": "a", "headers": { "x": "[" } })),
        "spec.matches[0].headers.x",
        "",
    );
    refused(
        &with(json!({ "name": "a", "headers": "x" })),
        "spec.matches[0].headers",
        "map",
    );
    refused(
        &with(json!({ "pathRegex": "/" })),
        "spec.matches[0].name",
        "empty",
    );
    let twice = routes(json!({ "matches": [{ "name": "a" }, { "name": "a" }] }));
    refused(&twice, "spec.matches[1].name", "two matches");
}

#[test]
fn group_regexes_beyond_shared_budget_are_refused() {
    let matches: Vec<Value> = (0..64)
        .map(|n| json!({ "name": format!("m{n}"), "pathRegex": r"/(\w{4}|x)", "headers": { "a": r"\w{3}" } }))
        .collect();
    let answer = validate(&routes(json!({ "matches": matches })));
    let message = answer.refusal.expect("must be refused");
    assert!(message.contains("more than 4096 KiB"), "{message}");
}

#[test]
fn tcp_ports_must_exist() {
    let tcp = |spec: Value| request(smi::SPECS_GROUP, "TCPRoute", spec);
    allowed(&tcp(json!({})));
    let mut absent = tcp(Value::Null);
    // The API server drops a null; where it comes all the same, the route stands for no
    // port at the controller.
    refused(&absent, "spec", "stands for no port");
    absent.object.as_object_mut().unwrap().remove("spec");
    allowed(&absent);
    allowed(&tcp(json!({ "matches": { "ports": [1, 65535] } })));
    refused(
        &tcp(json!({ "matches": { "ports": [80, 0] } })),
        "spec.matches.ports[1]",
        "is 0",
    );
    refused(
        &tcp(json!({ "matches": { "ports": [65536] } })),
        "spec.matches.ports[0]",
        "65536",
    );
}

#[test]
fn object_that_is_invalid_already_stays_deletable_and_relabelable() {
    let invalid = json!({ "metadata": {}, "spec": { "sources": [] } });
    let mut request = target(invalid["spec"].clone());
    request.operation = "UPDATE".into();
    request.old_object = invalid;
    allowed(&request);

    request.old_object = json!({ "spec": {} });
    assert!(validate(&request).refusal.is_some());
    request.sub_resource = Some("status".into());
    allowed(&request);
    request.sub_resource = None;
    request.object["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
    allowed(&request);

    let mut deletion = target(Value::Null);
    deletion.operation = "DELETE".into();
    deletion.object = Value::Null;
    allowed(&deletion);
}

#[test]
fn wrong_field_type_is_refused_without_panic() {
    let odd = split(json!({ "service": 1, "backends": "x" }));
    assert!(validate(&odd).refusal.is_some());
    assert!(
        validate(&request("other", "Thing", json!(3)))
            .refusal
            .is_some()
    );
}

#[test]
fn binding_must_name_possible_identity() {
    let binding = |schemes: Value| {
        let spec = json!({ "schemes": schemes });
        request(smi::ACCESS_GROUP, "IdentityBinding", spec)
    };
    allowed(&binding(json!({ "serviceAccount": "web" })));
    allowed(&binding(
        json!({ "podLabelSelector": { "matchLabels": { "app": "web" } } }),
    ));
    allowed(&binding(json!({ "spiffeIdentities": [
        "cluster.local/ns/shop/sa/web", "spiffe://cluster.local/ns/shop/sa/web",
    ]})));
    refused(&binding(json!({})), "spec.schemes", "must hold");
    let both = json!({ "serviceAccount": "web",
        "podLabelSelector": { "matchLabels": { "app": "web" } } });
    refused(&binding(both), "spec.schemes.serviceAccount", "exclude");
    let all = json!({ "podLabelSelector": { "matchLabels": {} } });
    let field = "spec.schemes.podLabelSelector.matchLabels";
    refused(&binding(all), field, "every pod");
    let ids = json!({ "spiffeIdentities": ["cluster.local/ns/a/sa/b", "https://x"] });
    refused(&binding(ids), "spec.schemes.spiffeIdentities[1]", "");
}

#[test]
fn udp_route_with_an_impossible_port_is_refused() {
    let route = |ports: Value| {
        let spec = json!({ "matches": { "ports": ports } });
        request(smi::SPECS_GROUP, "UDPRoute", spec)
    };
    allowed(&route(json!([53, 65535])));
    refused(&route(json!([53, 65536])), "spec.matches.ports[1]", "65535");
}

// Claims: C8
#[test]
fn unknown_method_gets_warning_suggesting_known_one() {
    let warned = |methods: &[&str]| {
        let spec = json!({ "matches": [{ "name": "a", "methods": methods }] });
        let answer = validate(&routes(spec));
        assert_eq!(answer.refusal, None, "{methods:?}");
        answer.warnings
    };
    for (method, meant) in [
        ("GTE", "GET is one"),
        ("get", "GET is one"),
        ("POTS", "POST is one"),
        ("DELET", "DELETE is one"),
        ("FROBNICATE", "compared exactly"),
    ] {
        let warnings = warned(&["PUT", method]);
        assert!(
            warnings.len() == 1
                && warnings[0].starts_with("spec.matches[0].methods[1]: ")
                && warnings[0].contains(meant),
            "{method}: {warnings:?}"
        );
    }
    assert_eq!(warned(&["FROBNICATE"; 20]).len(), 5, "bounded");
    let usual = ["GET", "POST", "PATCH", "PROPFIND", "*"];
    assert_eq!(warned(&usual), [] as [String; 0]);
}

// Claims: C8
#[test]
fn class_of_unicode_is_refused_as_every_proxy_would() {
    let path = |path: &str| json!({ "matches": [{ "name": "a", "pathRegex": path }] });
    for class in ["/\\p{L}+", "/[\\P{Greek}]", "/x\\pL"] {
        refused(&routes(path(class)), "spec.matches[0].pathRegex", "Unicode");
    }
    for other in ["/\\w+", "/\\\\p", "/p{2}", "/[[:alpha:]]"] {
        allowed(&routes(path(other)));
    }
}

#[test]
fn unread_label_or_annotation_is_only_warned() {
    let warned = |field: &str, name: &str| {
        let mut request = target(good_target());
        request.object["metadata"][field] = json!({ name: "deny" });
        let answer = validate(&request);
        assert_eq!(answer.refusal, None);
        answer.warnings
    };
    for (field, name, said) in [
        ("annotations", "weft.dev/acess", "mean weft.dev/access"),
        ("annotations", "weft.dev/access", "of Namespace and Pod"),
        ("labels", "weft.dev/inject", "of Namespace and Pod"),
    ] {
        let warnings = warned(field, name);
        let [warning] = &warnings[..] else {
            panic!("{name}: {warnings:?}")
        };
        let start = format!("metadata.{field}[{name}]: is ");
        assert!(warning.starts_with(&start), "{warning}");
        assert!(warning.ends_with(said), "{warning}");
    }
    // What conversion writes, and what others do.
    for name in ["weft.dev/smi-lossless", "example.com/acess"] {
        assert_eq!(warned("annotations", name), [] as [String; 0]);
    }
}
