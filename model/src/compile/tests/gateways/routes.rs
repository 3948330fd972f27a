//! Which routes attach to which listeners, and which of them decides there.

use super::*;

fn rule(path: &str, backend: &str) -> Value {
    json!([rule_below(path, backend)])
}

/// An HTTPRoute of Gateway `edge` for some hosts.
fn for_hosts(name: &str, hosts: &[&str], rules: Value) -> Value {
    set(routed(name, rules), "/spec/hostnames", json!(hosts))
}

/// With a listener of this name at the reference.
fn at(route: Value, listener: &str) -> Value {
    set(route, "/spec/parentRefs/0/sectionName", json!(listener))
}

#[test]
fn routes_of_other_listeners_are_never_looked_at() {
    let cluster = cluster(json!([
        listener("every", 80, "HTTP", ""),
        listener("wide", 80, "HTTP", "*.example.com"),
        listener("exact", 80, "HTTP", "a.example.com"),
    ]))
    .with(at(routed("every", rule("/every", "api")), "every"))
    .with(at(routed("wide", rule("/wide", "v1")), "wide"))
    .with(at(routed("exact", rule("/exact", "v2")), "exact"));
    let (model, problems) = compile(&cluster);
    let gateway = served(&model);
    let nowhere = Err(reason::Reason::NoRoute);
    for (host, path, service) in [
        ("bar.com", "/every", "api"),
        ("b.example.com", "/wide", "v1"),
        ("a.example.com", "/exact", "v2"),
    ] {
        let listener = gateway.listener(20_080, Some(host)).unwrap();
        for other in ["/every", "/wide", "/exact"] {
            let expected = if other == path {
                to(service)
            } else {
                nowhere.clone()
            };
            assert_eq!(goes(listener, host, other), expected, "{host} {other}");
        }
    }
    for name in ["every", "wide", "exact"] {
        assert_eq!(said(&problems, name).attached_routes, 1, "{name}");
    }
}

#[test]
fn matches_of_one_host_are_one_sorted_list_across_routes() {
    let older = created(for_hosts("older", &["a.example.com"], rule("/a", "v1")), 1);
    let newer = created(
        for_hosts("newer", &["a.example.com"], rule("/a/b", "v2")),
        2,
    );
    let wide = created(for_hosts("wide", &["*.example.com"], rule("/", "api")), 0);
    let (model, _) = compile(&plain().with(older).with(newer).with(wide));
    let listener = served_listener(&model, "http");
    for (host, path, service) in [
        ("a.example.com", "/a", "v1"),
        ("a.example.com", "/a/b/c", "v2"),
        ("a.example.com", "/x", "api"),
        ("b.example.com", "/a", "api"),
    ] {
        assert_eq!(goes(&listener, host, path), to(service), "{host} {path}");
    }
    let nowhere = Err(reason::Reason::NoRoute);
    assert_eq!(goes(&listener, "example.org", "/a"), nowhere);
}

#[test]
fn detached_routes_say_why_and_are_not_counted() {
    let open = rule("/", "api");
    let listeners = json!([listener("http", 80, "HTTP", "foo.example.com")]);
    let foreign = in_namespace(routed("foreign", open.clone()), "other");
    let cluster = cluster(listeners)
        .with(namespace("other"))
        .with(routed("one", open.clone()))
        .with(routed("two", open.clone()))
        .with(for_hosts("host", &["not-accepted.test.com"], open.clone()))
        .with(at(routed("section", open.clone()), "http1"))
        .with(set(
            routed("port", open),
            "/spec/parentRefs/0/port",
            json!(81),
        ))
        .with(foreign)
        .with(to_gateway(
            tls_route("tls", "foo.example.com", json!([rule_over(&[("api", 1)])])),
            "edge",
        ));
    let (_, problems) = compile(&cluster);
    for (route, expected) in [
        ("HTTPRoute one", ACCEPTED),
        ("HTTPRoute two", ACCEPTED),
        ("HTTPRoute host", (false, "NoMatchingListenerHostname")),
        ("HTTPRoute section", (false, "NoMatchingParent")),
        ("HTTPRoute port", (false, "NoMatchingParent")),
        ("HTTPRoute foreign", (false, "NotAllowedByListeners")),
        ("TLSRoute tls", (false, "NotAllowedByListeners")),
    ] {
        assert_eq!(accepted(&problems, route), expected, "{route}");
        if route != "HTTPRoute foreign" {
            assert!(parent(&problems, route).resolved_refs.status, "{route}");
        }
    }
    assert_eq!(said(&problems, "http").attached_routes, 2);
}

/// The namespaces of a selector are those with its labels.
#[test]
fn namespaces_are_selected_by_their_labels() {
    let mut http = listener("http", 80, "HTTP", "");
    let selector = json!({"matchLabels": {"team": "web"}});
    http["allowedRoutes"] = json!({"namespaces": {"from": "Selector", "selector": selector}});
    let labelled = set(
        namespace("other"),
        "/metadata/labels",
        json!({"team": "web"}),
    );
    let rules = json!([{"backendRefs": [{"name": "api", "port": 80}]}]);
    let foreign = in_namespace(routed("web", rules), "other");
    let with = |namespace: Value| {
        let cluster = cluster(json!([http])).with(namespace).with(foreign.clone());
        let (_, problems) = compile(&cluster);
        accepted(&problems, "HTTPRoute web")
    };
    assert_eq!(with(labelled), ACCEPTED);
    assert_eq!(with(namespace("other")), (false, "NotAllowedByListeners"));
}

#[test]
fn older_of_two_kinds_decides_about_a_host() {
    let grpc = |name: &str, second, host: &str| {
        let rules = json!([rule_over(&[("v1", 1)])]);
        let route = set(
            grpc_route(name, "", rules),
            "/spec/hostnames",
            json!([host]),
        );
        created(to_gateway(route, "edge"), second)
    };
    let http = |second| {
        created(
            for_hosts("web", &["*.example.com"], rule("/", "api")),
            second,
        )
    };
    let conflicted = (false, "Conflicted");
    let (_, problems) = compile(&plain().with(http(1)).with(grpc("grpc", 2, "a.example.com")));
    assert_eq!(accepted(&problems, "HTTPRoute web"), ACCEPTED);
    assert_eq!(accepted(&problems, "GRPCRoute grpc"), conflicted);
    assert_eq!(said(&problems, "http").attached_routes, 1);

    let (_, problems) = compile(&plain().with(http(2)).with(grpc("grpc", 1, "a.example.com")));
    assert_eq!(accepted(&problems, "HTTPRoute web"), conflicted);
    assert_eq!(accepted(&problems, "GRPCRoute grpc"), ACCEPTED);

    let (model, problems) = compile(&plain().with(http(1)).with(grpc("grpc", 2, "example.org")));
    assert_eq!(accepted(&problems, "GRPCRoute grpc"), ACCEPTED);
    assert_eq!(served_listener(&model, "http").routes.len(), 2);
}

#[test]
fn broken_backends_keep_their_share_at_gateways() {
    let rules = json!([
        rule_below("/gone", "gone"),
        {"matches": [{"path": {"value": "/kind"}}],
            "backendRefs": [{"kind": "Bucket", "name": "b", "port": 80}]},
        rule_below("/", "api"),
    ]);
    let (model, problems) = compile(&plain().with(routed("web", rules)));
    let listener = served_listener(&model, "http");
    for (path, invalid) in [("/gone", true), ("/kind", true), ("/", false)] {
        let headers = http::HeaderMap::new();
        let facts = policy::http_match::RequestFacts {
            method: &http::Method::GET,
            path,
            query: None,
            headers: &headers,
        };
        let rule = listener.decide(None, Some(&facts)).unwrap();
        let Forward::Split(backends) = &rule.then else {
            panic!("{rule:?}");
        };
        assert_eq!(backends[0].invalid, invalid, "{path}");
    }
    let report = parent(&problems, "HTTPRoute web");
    assert_eq!((report.accepted.status, report.accepted.reason), ACCEPTED);
    assert_eq!(report.resolved_refs.reason, "InvalidKind");
    assert_eq!(said(&problems, "http").attached_routes, 1);
}

/// A parent of another namespace gives no right to name its Services.
#[test]
fn backend_of_the_gateways_namespace_needs_a_grant() {
    let mut http = listener("http", 80, "HTTP", "");
    http["allowedRoutes"] = json!({"namespaces": {"from": "All"}});
    let rules = json!([{"backendRefs": [{"name": "api", "namespace": "shop", "port": 80}]}]);
    let cluster = cluster(json!([http]))
        .with(namespace("other"))
        .with(in_namespace(routed("web", rules), "other"));
    let (_, problems) = compile(&cluster);
    let refs = parent(&problems, "HTTPRoute web").resolved_refs;
    assert_eq!((refs.status, refs.reason), (false, "RefNotPermitted"));
    let (model, problems) = compile(&cluster.with(reference_grant("web", "other")));
    assert!(parent(&problems, "HTTPRoute web").resolved_refs.status);
    assert_eq!(
        goes(&served_listener(&model, "http"), "a.example.com", "/"),
        to("api")
    );
}

#[test]
fn connections_go_by_server_name_or_to_the_oldest_route() {
    let rules = |service: &str| json!([rule_over(&[(service, 1)])]);
    let tcp = |name: &str, service: &str, second| {
        let route = to_gateway(gateway_tcp_route(name, "", rules(service)), "edge");
        created(route, second)
    };
    let cluster = cluster(json!([
        listener("tls", 443, "TLS", ""),
        listener("tcp", 25, "TCP", "")
    ]))
    .with(to_gateway(
        tls_route("one", "a.example.com", rules("v1")),
        "edge",
    ))
    .with(to_gateway(
        tls_route("two", "*.example.com", rules("v2")),
        "edge",
    ))
    .with(tcp("old", "api", 1))
    .with(tcp("new", "v1", 2));
    let (model, problems) = compile(&cluster);
    let goes = |listener: &Listener, host: Option<&str>| match &listener.decide(host, None)?.then {
        Forward::Split(backends) => Some(backends[0].service.name.to_string()),
        other => panic!("{other:?}"),
    };
    let tls = served_listener(&model, "tls");
    assert_eq!(goes(&tls, Some("a.example.com")).as_deref(), Some("v1"));
    assert_eq!(goes(&tls, Some("b.example.com")).as_deref(), Some("v2"));
    assert_eq!(goes(&tls, Some("example.org")), None);
    assert_eq!(goes(&tls, None), None);
    let tcp = served_listener(&model, "tcp");
    assert_eq!(goes(&tcp, None).as_deref(), Some("api"));
    // The younger one is attached and accepted, and its message says who decides.
    let new = parent(&problems, "TCPRoute.gateway.networking.k8s.io new").accepted;
    assert_eq!((new.status, new.reason), ACCEPTED);
    assert!(
        new.message.contains("TCPRoute shop/old decides"),
        "{}",
        new.message
    );
    assert_eq!(said(&problems, "tcp").attached_routes, 2);
    assert_eq!(said(&problems, "tls").attached_routes, 2);
}

#[test]
fn policy_enforced_for_the_mesh_beats_rules_of_gateways() {
    let mut rule = rule_over(&[("api", 1)]);
    rule["timeouts"] = json!({"request": "2s"});
    rule["retry"] = json!({"attempts": 2});
    let spec = json!({"targetRef": {"kind": "Mesh"}, "enforce": true, "retry": {"attempts": 0}});
    let mesh = in_namespace(traffic_policy("mesh", spec), "weft-system");
    let (model, problems) = compile(&plain().with(routed("web", json!([rule]))).with(mesh));
    let listener = served_listener(&model, "http");
    let Forward::Split(backends) = &listener.routes[0].table.rules[0].then else {
        panic!("{listener:?}");
    };
    for backend in backends {
        let actions = backend.actions.as_deref().unwrap();
        assert!(actions.timeouts.is_some() && actions.retry.is_none());
    }
    let said = parent(&problems, "HTTPRoute web").accepted;
    assert_eq!((said.status, said.reason), ACCEPTED);
    assert!(
        said.message.contains("spec.rules[0].retry: "),
        "{}",
        said.message
    );
    assert!(!said.message.contains("timeouts"), "{}", said.message);
}

/// One object may be for Services and for Gateways.
#[test]
fn route_of_a_service_and_a_gateway_has_two_reports() {
    let mut route = http_route("web", "api", json!([rule_over(&[("v1", 1)])]));
    let parents = route["spec"]["parentRefs"].as_array_mut().unwrap();
    parents.push(json!({"name": "edge"}));
    let (model, problems) = compile(&plain().with(route));
    let report = report(&problems, "HTTPRoute web");
    let of = report.parents.iter().map(|parent| parent.controller);
    assert_eq!(
        of.collect::<Vec<_>>(),
        ["weft.dev/mesh", "weft.dev/gateway"]
    );
    assert_eq!(report.parents[0].ports, [80]);
    assert_eq!(
        goes(&served_listener(&model, "http"), "a.example.com", "/"),
        to("v1")
    );
}
