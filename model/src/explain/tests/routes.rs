//! Calls to Services with routes of the Gateway API.

use super::*;

fn cluster() -> Cluster {
    shop()
        .with(service("v2", "10.96.0.12", &[("http", 80)]))
        .with(slice(
            "v2-x",
            "v2",
            &[("http", 8080)],
            &[endpoint("api-2", "10.0.0.12")],
        ))
}

fn get(cluster: &Cluster, path: &str) -> ExplanationStatus {
    explain(cluster, &spec("Pod/client", "Service/api", "GET", path))
}

fn edited(mut rule: Value) -> Value {
    rule["name"] = json!("old-paths");
    rule["filters"] = json!([
        {"type": "RequestHeaderModifier", "requestHeaderModifier": {
            "set": [{"name": "x-from", "value": "route"}],
        }},
        {"type": "URLRewrite", "urlRewrite": {
            "path": {"type": "ReplacePrefixMatch", "replacePrefixMatch": "/new"},
        }},
    ]);
    rule
}

#[test]
fn explanation_names_rule_edits_and_earlier_rules() {
    let rules = json!([rule_below("/a/b", "api"), edited(rule_below("/a", "v2"))]);
    let status = get(&cluster().with(http_route("web", "api", rules)), "/a/x");
    assert_eq!(status.verdict, ExplanationVerdict::Allowed);
    let rule = status.rule.as_ref().unwrap();
    assert_eq!(rule.object, "HTTPRoute shop/web");
    assert_eq!((rule.rule, &*rule.name), (Some(1), "old-paths"));
    assert_eq!(rule.audience, "");
    assert!(
        rule.edits.iter().any(|edit| edit.contains("x-from")),
        "{rule:?}"
    );
    let earlier: Vec<_> = rule
        .earlier
        .iter()
        .map(|one| (one.rule, &*one.wants, &*one.fails))
        .collect();
    assert_eq!(earlier, [(0, "path below /a/b", "the path does not fit")]);
    let services: Vec<&str> = status.backends.iter().map(|one| &*one.service).collect();
    assert_eq!(services, ["shop/v2"]);
    let route = texts(&status, "route");
    assert!(
        route[0].starts_with("HTTPRoute shop/web gives shop/v2 100 %"),
        "{route:?}"
    );
}

/// Routes of a Service are for callers inside; its splits for all.
#[test]
fn calls_of_gateways_follow_splits_and_no_service_route() {
    let listeners = json!([listener("http", 80, "HTTP", "")]);
    let cluster = cluster()
        .with(gateway_class())
        .with(gateway("door", listeners))
        .with(gateway_pod("door-1", "10.0.0.91", "door"))
        .with(http_route("web", "api", json!([rule_below("/a", "api")])))
        .with(split("s", "api", &[("v2", 1)]));
    let query = spec("Pod/door-1", "Service/api", "GET", "/b");
    let status = ask_with(&cluster, &query, &with_gateways());
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
    assert!(status.rule.is_none(), "{status:?}");
    let services: Vec<&str> = status.backends.iter().map(|one| &*one.service).collect();
    assert_eq!(services, ["shop/v2"]);
    // The control: another caller's call fits no rule.
    let query = spec("Pod/client", "Service/api", "GET", "/b");
    let status = ask_with(&cluster, &query, &with_gateways());
    assert_eq!(&*status.reason, "no-route");
}

#[test]
fn service_of_gateway_is_said_to_have_own_routes() {
    let listeners = json!([listener("http", 80, "HTTP", "")]);
    let pods = [endpoint("door-1", "10.0.0.91")];
    let cluster = cluster()
        .with(gateway_class())
        .with(gateway("door", listeners))
        .with(gateway_pod("door-1", "10.0.0.91", "door"))
        .with(service("door-weft", "10.96.0.13", &[("http", 80)]))
        .with(slice("door-x", "door-weft", &[("http", 8080)], &pods));
    let query = spec("Pod/client", "Service/door-weft", "GET", "/");
    let status = ask_with(&cluster, &query, &with_gateways());
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
    let wire = texts(&status, "wire");
    assert!(wire[0].contains("evaluates its own routes"), "{wire:?}");
}

#[test]
fn explanation_of_call_fitting_no_rule_is_refusal() {
    let cluster = cluster().with(http_route("web", "api", json!([rule_below("/a", "v2")])));
    let status = get(&cluster, "/b");
    assert_eq!(status.verdict, ExplanationVerdict::Refused);
    assert_eq!(
        (&*status.reason, status.http_status),
        ("no-route", Some(404))
    );
    let rule = status.rule.unwrap();
    assert_eq!((rule.rule, rule.earlier.len()), (None, 1));

    let mut bytes = spec("Pod/client", "Service/api", "GET", "/");
    (bytes.method, bytes.path, bytes.tcp) = (None, None, true);
    let status = explain(&cluster, &bytes);
    assert_eq!(status.rule, None, "rules of requests say nothing of bytes");
    assert_ne!(&*status.reason, "no-route");
}

#[test]
fn access_rules_are_explained_for_what_arrives() {
    let only_new = json!([{"name": "new", "pathRegex": "/new"}]);
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    let closed = cluster()
        .with(group("routes", only_new.clone()))
        .with(target("new", "api", &["web"], rules.clone()));
    assert_eq!(get(&closed, "/a/x").verdict, ExplanationVerdict::Refused);
    let rewritten = json!([edited(rule_below("/a", "v2"))]);
    let opened = closed.with(http_route("web", "api", rewritten.clone()));
    assert_eq!(get(&opened, "/a/x").verdict, ExplanationVerdict::Allowed);

    // What would let the call pass is written for what arrives, too.
    let refused = cluster()
        .with(group("routes", only_new))
        .with(target("other", "api", &["other"], rules))
        .with(http_route("web", "api", rewritten));
    let status = get(&refused, "/a/x");
    assert_eq!(status.verdict, ExplanationVerdict::Refused);
    let fix = status.fix.unwrap();
    let mut paths = fix.objects.iter().filter_map(|object| {
        let path = object.pointer("/spec/matches/0/pathRegex")?;
        path.as_str().map(str::to_owned)
    });
    let path = paths.next().unwrap();
    assert!(path.contains("/new/x") && !path.contains("/a/"), "{path}");
}

/// An owner of the called Service need not be able to read what its callers' namespaces have.
#[test]
fn routes_of_unreadable_namespace_are_not_explained() {
    let own = in_namespace(
        http_route("own", "api", json!([edited(rule_below("/", "api"))])),
        "other",
    );
    let producers = http_route("web", "api", json!([rule_below("/", "v2")]));
    let (model, _) = cluster().with(producers).with(own).compile();
    let seen = |_: &BTreeSet<PodId>| SeenCallers::default();
    let status = |namespace: &str, view: CallerView| {
        let mut query = spec("ServiceAccount/web", "Service/api", "GET", "/");
        query.from.namespace = namespace.to_owned();
        let explained = model.explain(&query, view, &owner, &seen);
        explained.unwrap().status
    };
    let hidden = status("other", CallerView::AccountOnly);
    assert_eq!(hidden.verdict, ExplanationVerdict::Unknown, "{hidden:?}");
    assert!(hidden.reason.contains("routes of the caller's namespace"));
    assert!(
        hidden.rule.is_none() && hidden.steps.is_empty(),
        "{hidden:?}"
    );
    let object = |status: ExplanationStatus| status.rule.unwrap().object;
    let shown = status("other", CallerView::Known);
    assert_eq!(object(shown), "HTTPRoute other/own");
    let everyones = status("third", CallerView::AccountOnly);
    assert_eq!(object(everyones), "HTTPRoute shop/web");
}

#[test]
fn redirected_call_is_allowed_and_reaches_no_pod() {
    let rule = json!({"filters": [{"type": "RequestRedirect", "requestRedirect": {
        "hostname": "new.example", "statusCode": 301,
    }}]});
    let status = get(
        &cluster().with(http_route("web", "api", json!([rule]))),
        "/",
    );
    assert_eq!(status.verdict, ExplanationVerdict::Allowed);
    let route = texts(&status, "route");
    assert!(
        route[0].contains("redirect 301 to host new.example"),
        "{route:?}"
    );
}

#[test]
fn query_of_explained_path_selects_its_rule() {
    let mut beta = rule_below("/", "v2");
    beta["matches"][0]["queryParams"] = json!([{"name": "beta", "value": "1"}]);
    let rules = json!([beta, rule_below("/", "api")]);
    let cluster = cluster().with(http_route("web", "api", rules));
    let rule = |path: &str| get(&cluster, path).rule.unwrap().rule;
    assert_eq!(rule("/?beta=1"), Some(0));
    assert_eq!(rule("/?beta=2"), Some(1));
    assert_eq!(rule("/"), Some(1));
}

#[test]
fn tables_of_service_are_listed_by_port_and_audience() {
    let mut own = in_namespace(
        http_route("own", "api", json!([rule_below("/own", "v2")])),
        "other",
    );
    own["spec"]["rules"][0]["backendRefs"][0]["namespace"] = json!("shop");
    let rules = json!([rule_over(&[("api", 3), ("v2", 1), ("gone", 4)])]);
    let (model, _) = cluster()
        .with(http_route("web", "api", rules))
        .with(own)
        .compile();
    let service = ObjectKey::new("shop", "api");
    let all = model.route_rules(&service, None).unwrap();
    let named: Vec<_> = all
        .iter()
        .map(|table| (table.port, &*table.audience, &*table.rules[0].object))
        .collect();
    let expected = [
        (80, "", "HTTPRoute shop/web"),
        (80, "other", "HTTPRoute other/own"),
    ];
    assert_eq!(named, expected);
    assert_eq!(all[1].rules[0].matches, "path below /own");
    assert!(all[1].otherwise.starts_with("refused: no-route"), "{all:?}");
    let shares = all[0].rules[0].backends.iter();
    let shares: Vec<_> = shares
        .map(|one| (&*one.service, one.share, one.invalid))
        .collect();
    let expected = [
        ("shop/api", 0.375, false),
        ("shop/v2", 0.125, false),
        ("shop/gone", 0.5, true),
    ];
    assert_eq!(shares, expected);

    let of = |from| model.route_rules(&service, Some(from)).unwrap();
    assert_eq!(of("other"), [all[1].clone()]);
    assert_eq!(of("shop"), [all[0].clone()]);
    assert_eq!(
        model.route_rules(&ObjectKey::new("shop", "gone"), None),
        None
    );
}
