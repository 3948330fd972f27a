//! Conditions of listeners, as the official conformance tests expect them, and what of a listener
//! that is refused stays.

use super::*;

/// Status and reason of a Gateway.
fn gateway_accepted(problems: &Problems) -> (bool, &'static str) {
    let accepted = &report(problems, "Gateway edge").accepted;
    (accepted.status, accepted.reason)
}

#[test]
fn gateway_is_accepted_with_some_listeners_and_refused_without() {
    let invalid = listener("invalid", 1111, "INVALID", "");
    let http = listener("http", 80, "HTTP", "");
    let (_, problems) = compile(&cluster(json!([invalid])));
    assert_eq!(gateway_accepted(&problems), (false, "ListenersNotValid"));
    let one = said(&problems, "invalid");
    assert_eq!(
        (one.accepted.status, one.accepted.reason),
        (false, "UnsupportedProtocol")
    );
    assert!(one.supported_kinds.is_empty() && !one.is_served);

    let (model, problems) = compile(&cluster(json!([http, invalid])));
    assert_eq!(gateway_accepted(&problems), (true, "ListenersNotValid"));
    let one = said(&problems, "http");
    assert_eq!((one.accepted.status, one.accepted.reason), ACCEPTED);
    assert_eq!(
        (one.resolved_refs.status, one.resolved_refs.reason),
        (true, "ResolvedRefs")
    );
    assert_eq!(
        (one.conflicted.status, one.conflicted.reason),
        (false, "NoConflicts")
    );
    assert!(one.is_served);
    assert_eq!(served(&model).listeners.len(), 1);

    let (_, problems) = compile(&plain());
    assert_eq!(gateway_accepted(&problems), ACCEPTED);
}

#[test]
fn all_listeners_that_are_not_served_are_named() {
    let mut https = listener("https", 443, "HTTPS", "");
    https["tls"]["certificateRefs"] = json!([{"name": "gone"}]);
    let (_, problems) = compile(&cluster(json!([
        listener("http", 80, "HTTP", ""),
        listener("invalid", 1111, "INVALID", ""),
        https,
    ])));
    assert_eq!(gateway_accepted(&problems), (true, "ListenersNotValid"));
    let message = &report(&problems, "Gateway edge").accepted.message;
    assert!(message.ends_with("of invalid, https"), "{message}");
}

#[test]
fn route_kinds_that_do_not_fit_are_unresolved_and_others_hold() {
    let kinds = |kinds: Value| {
        let mut http = listener("http", 80, "HTTP", "");
        http["allowedRoutes"] = json!({"kinds": kinds});
        let (_, problems) = compile(&cluster(json!([http])));
        let said = said(&problems, "http");
        let words = said.supported_kinds.iter().map(|kind| kind.word());
        let words: Vec<&str> = words.collect();
        assert_eq!(said.resolved_refs.reason, "InvalidRouteKinds");
        assert!(!said.resolved_refs.status && said.accepted.status);
        words.join(" ")
    };
    assert_eq!(kinds(json!([{"kind": "InvalidRoute"}])), "");
    let both = json!([{"kind": "InvalidRoute"}, {"kind": "HTTPRoute"}]);
    assert_eq!(kinds(both), "HTTPRoute");
}

#[test]
fn conflicted_listeners_are_not_accepted_and_say_so() {
    let (model, problems) = compile(&cluster(json!([
        listener("one", 80, "HTTP", "a.example.com"),
        listener("two", 80, "HTTP", "a.example.com"),
        listener("fine", 81, "HTTP", ""),
    ])));
    for name in ["one", "two"] {
        let said = said(&problems, name);
        let conflict = (said.conflicted.status, said.conflicted.reason);
        assert_eq!(conflict, (true, "HostnameConflict"));
        let accepted = (said.accepted.status, said.accepted.reason);
        assert_eq!(accepted, (false, "HostnameConflict"));
        assert!(!said.is_served);
    }
    assert_eq!(gateway_accepted(&problems), (true, "ListenersNotValid"));
    // Nothing else is served at their port.
    let ports: Vec<u16> = served(&model)
        .listeners
        .iter()
        .map(|one| one.port)
        .collect();
    assert_eq!(ports, [81]);
}

/// Else its calls would fall to the routes of another listener.
#[test]
fn refused_listener_keeps_its_hosts_from_others() {
    let mut options = listener("exact", 443, "HTTPS", "a.example.com");
    options["tls"]["options"] = json!({"example.com/versions": "1.3"});
    let wide = listener("wide", 443, "HTTPS", "*.example.com");
    let route = routed("web", json!([rule_over(&[("api", 1)])]));
    let read = [(("shop", "edge"), Some("f1"))];
    let (model, problems) = compile_with(&cluster(json!([options, wide])).with(route), &read);
    let gateway = served(&model);
    let exact = gateway.listener(20_443, Some("a.example.com")).unwrap();
    assert_eq!(&*exact.name, "exact");
    assert!(exact.certificates.is_empty() && exact.routes.is_empty());
    let wide = gateway.listener(20_443, Some("b.example.com")).unwrap();
    assert_eq!(wide.certificates.len(), 1);
    assert_eq!(goes(wide, "b.example.com", "/"), to("api"));
    let accepted = said(&problems, "exact").accepted;
    assert_eq!(
        (accepted.status, accepted.reason),
        (false, "UnsupportedValue")
    );
    assert!(
        accepted.message.contains("spec.listeners[0].tls.options"),
        "{accepted:?}"
    );
}

#[test]
fn wanted_address_is_unsupported_and_none_is_fine() {
    let with = |addresses: Value| {
        let mut object = gateway("edge", json!([listener("http", 80, "HTTP", "")]));
        object["spec"]["addresses"] = addresses;
        let (_, problems) = compile(&plain().with(object));
        gateway_accepted(&problems)
    };
    assert_eq!(with(json!([{"type": "IPAddress"}])), ACCEPTED);
    let value = json!([{"type": "IPAddress", "value": "203.0.113.7"}]);
    assert_eq!(with(value), (false, "UnsupportedAddress"));
}
