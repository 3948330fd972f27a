//! What is read of Gateways, and what breaks a listener alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::egress::HostPattern;
use policy::gateway::{ListenerProtocol, MAX_LISTENERS};
use serde_json::{Value, json};

use super::*;
use crate::route::RouteKind;

fn read(spec: Value) -> GatewaySpec {
    GatewaySpec::read(&Gateway::new("infra", "edge", spec))
}

/// A Gateway with these listeners.
fn with(listeners: Value) -> GatewaySpec {
    let mut spec = json!({"gatewayClassName": "weft"});
    spec["listeners"] = listeners;
    read(spec)
}

fn one(listener: Value) -> Listener {
    with(Value::Array(vec![listener])).listeners.remove(0)
}

/// Path of what breaks a listener.
fn broken(listener: Value) -> Option<String> {
    one(listener).broken.map(|broken| broken.path)
}

#[test]
fn https_listener_is_read_with_certificates_of_other_namespaces() {
    let listener = one(json!({
        "name": "https", "port": 443, "protocol": "HTTPS", "hostname": "*.example.com",
        "tls": {"certificateRefs": [
            {"group": "", "kind": "Secret", "name": "own"},
            {"name": "theirs", "namespace": "certificates"},
        ]},
    }));
    assert_eq!(listener.broken, None);
    assert_eq!((&*listener.name, listener.port), ("https", 443));
    assert_eq!(listener.served, Some(ListenerProtocol::Https));
    let host: HostPattern = "*.example.com".parse().unwrap();
    assert_eq!(listener.hostname, Some(host));
    let named = listener.certificates.iter();
    let named: Vec<(&str, &str)> = named.map(|one| (&*one.namespace, &*one.name)).collect();
    assert_eq!(named, [("infra", "own"), ("certificates", "theirs")]);
    assert!(listener.certificates.iter().all(CertificateRef::is_secret));
    let path = &listener.certificates[1].path;
    assert_eq!(path, "spec.listeners[0].tls.certificateRefs[1]");
    assert_eq!(listener.allowed, AllowedRoutes::default());
}

#[test]
fn listener_that_ends_no_tls_names_no_certificate() {
    let certificates = json!([{"name": "c"}]);
    for (protocol, mode) in [("TLS", "Passthrough"), ("INVALID", "Terminate")] {
        let listener = one(json!({"name": "a", "port": 443, "protocol": protocol,
            "tls": {"mode": mode, "certificateRefs": certificates}}));
        assert_eq!((listener.broken, listener.certificates), (None, vec![]));
    }
}

#[test]
fn what_a_listener_cannot_mean_breaks_it_by_path() {
    let tls = |tls: Value| json!({"name": "a", "port": 443, "protocol": "TLS", "tls": tls});
    let https = |tls: Value| json!({"name": "a", "port": 443, "protocol": "HTTPS", "tls": tls});
    let certificate = json!([{"name": "c"}]);
    let options = json!({"certificateRefs": certificate, "options": {"example.com/min": "1.3"}});
    for (listener, path) in [
        (tls(json!({"mode": "Terminate"})), "tls.mode"),
        (tls(json!({"certificateRefs": certificate})), "tls"),
        (tls(json!({"mode": "Sideways"})), "tls.mode"),
        (https(json!({"mode": "Passthrough"})), "tls.mode"),
        (https(json!({})), "tls"),
        (https(options), "tls.options"),
        (json!({"name": "a", "port": 0, "protocol": "HTTP"}), "port"),
        (
            json!({"name": "a", "port": 80, "protocol": "HTTP", "tls": {}}),
            "tls",
        ),
        (
            json!({"name": "a", "port": 80, "protocol": "HTTP", "hostname": "10.0.0.1"}),
            "hostname",
        ),
        (
            json!({"name": "a", "port": 80, "protocol": "HTTP", "later": 1}),
            "later",
        ),
    ] {
        let expected = format!("spec.listeners[0].{path}");
        assert_eq!(broken(listener.clone()), Some(expected), "{listener}");
    }
    assert_eq!(broken(tls(json!({"mode": "Passthrough"}))), None);
    assert_eq!(
        broken(https(
            json!({"mode": "Terminate", "certificateRefs": certificate})
        )),
        None
    );
    // Another protocol is no mistake of the listener's own.
    let other = one(json!({"name": "a", "port": 1111, "protocol": "INVALID"}));
    assert_eq!((other.broken, other.served), (None, None));
}

#[test]
fn allowed_routes_select_namespaces_by_labels() {
    let from = |namespaces: Value| {
        one(json!({"name": "a", "port": 80, "protocol": "HTTP",
            "allowedRoutes": {"namespaces": namespaces}}))
        .allowed
        .from
    };
    assert_eq!(from(json!({})), FromNamespaces::Same);
    assert_eq!(from(json!({"from": "All"})), FromNamespaces::All);
    assert_eq!(from(json!({"from": "None"})), FromNamespaces::None);
    let selector = json!({
        "matchLabels": {"team": "shop"},
        "matchExpressions": [
            {"key": "tier", "operator": "NotIn", "values": ["test"]},
            {"key": "old", "operator": "DoesNotExist"},
        ],
    });
    let FromNamespaces::Selector(selector) =
        from(json!({"from": "Selector", "selector": selector}))
    else {
        panic!("no selector");
    };
    let selects = |labels: &[(&str, &str)]| {
        let labels = labels
            .iter()
            .map(|(key, value)| (Arc::from(*key), Arc::from(*value)));
        selector.selects(&labels.collect::<BTreeMap<Arc<str>, Arc<str>>>())
    };
    assert!(selects(&[("team", "shop")]));
    assert!(selects(&[("team", "shop"), ("tier", "live")]));
    assert!(!selects(&[]));
    assert!(!selects(&[("team", "bank")]));
    assert!(!selects(&[("team", "shop"), ("tier", "test")]));
    assert!(!selects(&[("team", "shop"), ("old", "")]));
    // What is no selector allows nothing: the listener is broken, and its own namespace stays.
    let unknown = json!({"name": "a", "port": 80, "protocol": "HTTP",
        "allowedRoutes": {"namespaces": {"from": "Everywhere"}}});
    let path = "spec.listeners[0].allowedRoutes.namespaces.from";
    assert_eq!(broken(unknown).as_deref(), Some(path));
}

#[test]
fn allowed_kinds_are_known_by_group_and_kind() {
    let listener = one(
        json!({"name": "a", "port": 80, "protocol": "HTTP", "allowedRoutes": {
            "kinds": [{"kind": "HTTPRoute"}, {"kind": "InvalidRoute"},
                {"group": "example.com", "kind": "GRPCRoute"}],
        }}),
    );
    let kinds = listener.allowed.kinds.iter();
    let kinds: Vec<Option<RouteKind>> = kinds.map(RouteGroupKind::route).collect();
    assert_eq!(kinds, [Some(RouteKind::Http), None, None]);
}

#[test]
fn client_certificates_break_the_listeners_that_demand_them() {
    let listeners = json!([
        {"name": "https", "port": 443, "protocol": "HTTPS",
            "tls": {"certificateRefs": [{"name": "c"}]}},
        {"name": "http", "port": 80, "protocol": "HTTP"},
    ]);
    let mut spec = json!({"gatewayClassName": "weft", "tls": {"frontend": {"default": {}}}});
    spec["listeners"] = listeners;
    let gateway = read(spec);
    let broken = gateway.listeners.iter().map(|one| one.broken.as_ref());
    let broken: Vec<Option<&str>> = broken.map(|one| Some(&*one?.path)).collect();
    assert_eq!(broken, [Some("spec.tls.frontend"), None]);
}

#[test]
fn address_with_a_value_cannot_be_had() {
    let address = |addresses: Value| {
        let spec = json!({"gatewayClassName": "weft", "listeners": [], "addresses": addresses});
        read(spec).address.map(|broken| broken.path)
    };
    assert_eq!(address(json!([])), None);
    assert_eq!(address(json!([{"type": "IPAddress"}])), None);
    let value = address(json!([{"type": "IPAddress"}, {"value": "203.0.113.7"}]));
    assert_eq!(value.as_deref(), Some("spec.addresses[1].value"));
    let kind = address(json!([{"type": "test/fake-invalid-type"}]));
    assert_eq!(kind.as_deref(), Some("spec.addresses[0].type"));
}

#[test]
fn infrastructure_and_class_are_read() {
    let gateway = read(
        json!({"gatewayClassName": "weft", "listeners": [], "infrastructure": {
            "labels": {"team": "edge"}, "annotations": {"a": "b"},
            "parametersRef": {"group": "", "kind": "ConfigMap", "name": "edge"},
        }}),
    );
    let Infrastructure {
        labels,
        annotations,
        parameters,
    } = gateway.infrastructure;
    assert_eq!(
        labels,
        BTreeMap::from([("team".to_owned(), "edge".to_owned())])
    );
    assert_eq!(
        annotations,
        BTreeMap::from([("a".to_owned(), "b".to_owned())])
    );
    assert_eq!(parameters.map(|one| one.kind).as_deref(), Some("ConfigMap"));
    let class = |spec: Value| ClassSpec::read(&GatewayClass::new("", "weft", spec));
    let plain = class(json!({"controllerName": "weft.dev/gateway"}));
    assert_eq!(
        (&*plain.controller, plain.has_parameters),
        ("weft.dev/gateway", false)
    );
    let with = class(json!({"controllerName": "x", "parametersRef": {"name": "y"}}));
    assert!(with.has_parameters);
}

#[test]
fn listeners_beyond_the_bound_break_the_gateway() {
    let listener = |n: usize| json!({"name": format!("l{n}"), "port": 8000 + n, "protocol": "TCP"});
    let gateway = |count: usize| with((0..count).map(listener).collect());
    assert_eq!(gateway(MAX_LISTENERS).broken, None);
    let more = gateway(MAX_LISTENERS + 1);
    assert_eq!(more.listeners.len(), MAX_LISTENERS);
    assert_eq!(
        more.broken.map(|broken| broken.path).as_deref(),
        Some("spec.listeners")
    );
}
