//! Conflicts of listeners, and attachment of routes, as the conformance tests of the Gateway API
//! expect them.

use serde_json::{Value, json};

use super::*;
use crate::{GRPCRoute, Gateway, HTTPRoute, TCPRoute, TLSRoute};

const INFRA: &str = "infra";

fn gateway(listeners: Value) -> GatewaySpec {
    let mut spec = json!({"gatewayClassName": "weft"});
    spec["listeners"] = listeners;
    GatewaySpec::read(&Gateway::new(INFRA, "edge", spec))
}

fn listener(name: &str, port: u16, protocol: &str, hostname: &str) -> Value {
    let mut listener = json!({"name": name, "port": port, "protocol": protocol});
    if !hostname.is_empty() {
        listener["hostname"] = json!(hostname);
    }
    match protocol {
        "HTTPS" => listener["tls"] = json!({"certificateRefs": [{"name": "c"}]}),
        "TLS" => listener["tls"] = json!({"mode": "Passthrough"}),
        _ => {}
    }
    listener
}

/// The reason why each listener is refused; empty where it is not.
fn refused(listeners: Value) -> Vec<&'static str> {
    let states = states(&gateway(listeners));
    let reasons = states.iter().map(|state| state.refused.as_ref());
    reasons
        .map(|one| one.map_or("", |one| one.reason.as_str()))
        .collect()
}

#[test]
fn unsupported_protocol_costs_its_listener_alone() {
    let listeners = json!([
        listener("http", 80, "HTTP", ""),
        listener("invalid", 1111, "INVALID", ""),
        listener("udp", 80, "UDP", ""),
    ]);
    let states = states(&gateway(listeners.clone()));
    let kinds = states.iter().map(|state| &*state.supported_kinds);
    let kinds: Vec<&[RouteKind]> = kinds.collect();
    assert_eq!(kinds, [&[RouteKind::Http, RouteKind::Grpc][..], &[], &[]]);
    let reasons = ["", "UnsupportedProtocol", "UnsupportedProtocol"];
    assert_eq!(refused(listeners), reasons);
}

#[test]
fn listeners_alike_are_all_refused_and_none_wins() {
    let same = json!([
        listener("one", 80, "HTTP", "a.example.com"),
        listener("two", 80, "HTTP", "a.example.com"),
        listener("three", 80, "HTTP", "*.example.com"),
        listener("four", 81, "HTTP", "a.example.com"),
    ]);
    assert_eq!(
        refused(same),
        ["HostnameConflict", "HostnameConflict", "", ""]
    );
    let protocols = json!([
        listener("http", 80, "HTTP", "a.example.com"),
        listener("https", 80, "HTTPS", "b.example.com"),
        listener("tcp", 81, "TCP", ""),
        listener("tls", 81, "TLS", "c.example.com"),
    ]);
    assert_eq!(refused(protocols), ["ProtocolConflict"; 4]);
    // Both begin with the name of the host.
    let names = json!([
        listener("https", 443, "HTTPS", "a.example.com"),
        listener("tls", 443, "TLS", "b.example.com"),
        listener("https-too", 443, "HTTPS", "c.example.com"),
        listener("tls-too", 443, "TLS", "c.example.com"),
    ]);
    let reasons = ["", "", "ProtocolConflict", "ProtocolConflict"];
    assert_eq!(refused(names), reasons);
    let tcp = json!([
        listener("one", 81, "TCP", ""),
        listener("two", 81, "TCP", "")
    ]);
    assert_eq!(refused(tcp), ["HostnameConflict"; 2]);
}

/// TLS does not end at listeners of protocol TLS.
#[test]
fn listener_that_ends_tls_is_refused_beside_passthrough() {
    let mut ends = listener("ends", 8443, "TLS", "a.example.com");
    ends["tls"] = json!({"mode": "Terminate", "certificateRefs": [{"name": "c"}]});
    let passes = listener("passes", 8443, "TLS", "b.example.com");
    let both = json!([ends, passes]);
    assert_eq!(refused(both.clone()), ["UnsupportedValue", ""]);
    let states = states(&gateway(both));
    assert!(states[0].supported_kinds.is_empty());
    assert_eq!(states[1].supported_kinds, [RouteKind::Tls]);
}

#[test]
fn ports_that_pods_cannot_open_are_unavailable() {
    let listeners = json!([
        listener("https", 443, "HTTPS", ""),
        listener("shifted", 20_443, "TCP", ""),
        listener("mesh", 15_108, "HTTP", ""),
        listener("fine", 20_444, "TCP", ""),
    ]);
    let reasons = ["", "PortUnavailable", "PortUnavailable", ""];
    assert_eq!(refused(listeners), reasons);
}

#[test]
fn kinds_that_cannot_attach_are_named_and_others_stay() {
    let kinds = |protocol: &str, kinds: &[&str]| {
        let mut written = listener("a", 443, protocol, "");
        let kinds = kinds.iter().map(|kind| json!({"kind": kind}));
        written["allowedRoutes"] = json!({"kinds": kinds.collect::<Vec<Value>>()});
        let state = states(&gateway(json!([written]))).remove(0);
        assert_eq!(state.refused, None);
        (state.supported_kinds, state.unsupported_kinds)
    };
    let unsupported = |kind: &str| {
        Some(UnsupportedKinds {
            kinds: vec![kind.into()],
        })
    };
    let only_invalid = kinds("HTTP", &["InvalidRoute"]);
    assert_eq!(only_invalid, (Vec::new(), unsupported("InvalidRoute")));
    let both = kinds("HTTP", &["InvalidRoute", "HTTPRoute"]);
    assert_eq!(both, (vec![RouteKind::Http], unsupported("InvalidRoute")));
    let tls = kinds("TLS", &["TCPRoute", "TLSRoute"]);
    assert_eq!(tls, (vec![RouteKind::Tls], unsupported("TCPRoute")));
    assert_eq!(
        kinds("HTTPS", &["GRPCRoute"]),
        (vec![RouteKind::Grpc], None)
    );
}

fn spec(hostnames: &[&str]) -> Value {
    json!({"hostnames": hostnames, "rules": [{"backendRefs": [{"name": "b", "port": 80}]}]})
}

fn http(namespace: &str, hostnames: &[&str]) -> Route {
    Route::read_http(&HTTPRoute::new(namespace, "web", spec(hostnames)))
}

fn parent(fields: &Value) -> ParentRef {
    let mut written = json!({"name": "edge"});
    for (name, value) in fields.as_object().unwrap() {
        written[name] = value.clone();
    }
    ParentRef::read(&written, INFRA).unwrap()
}

type Outcome = Result<Vec<(usize, Vec<String>)>, Detached>;

/// Places of listeners with the hosts there; an empty one is every host.
#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn attached(gateway: &GatewaySpec, route: &Route, reference: Value) -> Outcome {
    let labels = BTreeMap::from([("team".into(), "edge".into())]);
    let states = states(gateway);
    let attached = attach(route, &parent(&reference), (gateway, &states), &labels)?;
    let shown = |host: &Option<HostPattern>| match host {
        Some(host) => host.to_string(),
        None => String::new(),
    };
    let each = attached.iter();
    Ok(each
        .map(|one| (one.listener, one.hostnames.iter().map(shown).collect()))
        .collect())
}

fn hosts(all: &[(usize, &[&str])]) -> Outcome {
    let owned = |hosts: &[&str]| {
        hosts
            .iter()
            .map(|host| (*host).to_owned())
            .collect::<Vec<String>>()
    };
    Ok(all
        .iter()
        .map(|(nth, hosts)| (*nth, owned(hosts)))
        .collect())
}

#[test]
fn route_attaches_where_hostnames_intersect() {
    let gateway = gateway(json!([
        listener("one", 80, "HTTP", "very.specific.com"),
        listener("two", 80, "HTTP", "*.wildcard.io"),
        listener("three", 80, "HTTP", "*.anotherwildcard.io"),
    ]));
    let at = |hostnames: &[&str]| attached(&gateway, &http(INFRA, hostnames), json!({}));
    let exact = at(&[
        "non.matching.com",
        "*.nonmatchingwildcard.io",
        "very.specific.com",
    ]);
    assert_eq!(exact, hosts(&[(0, &["very.specific.com"])]));
    let below = at(&["wildcard.io", "foo.wildcard.io", "foo.bar.wildcard.io"]);
    assert_eq!(
        below,
        hosts(&[(1, &["foo.wildcard.io", "foo.bar.wildcard.io"])])
    );
    let wide = at(&["non.matching.com", "*.specific.com"]);
    assert_eq!(wide, hosts(&[(0, &["very.specific.com"])]));
    let same = at(&["*.anotherwildcard.io"]);
    assert_eq!(same, hosts(&[(2, &["*.anotherwildcard.io"])]));
    let none = at(&["specific.but.wrong.com", "wildcard.io"]);
    assert_eq!(none, Err(Detached::NoMatchingListenerHostname));
    let all = hosts(&[
        (0, &["very.specific.com"]),
        (1, &["*.wildcard.io"]),
        (2, &["*.anotherwildcard.io"]),
    ]);
    assert_eq!(at(&[]), all);
}

#[test]
fn intersection_is_the_narrower_of_two_patterns() {
    for (one, other, both) in [
        ("abc.example.com", "*.example.com", Some("abc.example.com")),
        ("*.example.com", "*.com", Some("*.example.com")),
        ("*.example.com", "*.example.com", Some("*.example.com")),
        ("*.example.com", "example.com", None),
        ("*.example.com", "*.ample.com", None),
        ("a.example.com", "b.example.com", None),
    ] {
        let parse = |raw: &str| raw.parse::<HostPattern>().unwrap();
        let both = both.map(parse);
        assert_eq!(
            intersection(&parse(one), &parse(other)),
            both,
            "{one} {other}"
        );
        assert_eq!(
            intersection(&parse(other), &parse(one)),
            both,
            "{other} {one}"
        );
    }
}

#[test]
fn reference_means_listeners_by_name_and_port_together() {
    let mut open = listener("http", 80, "HTTP", "");
    open["allowedRoutes"] = json!({"namespaces": {"from": "All"}});
    let gateway = gateway(json!([open, listener("more", 8080, "HTTP", "")]));
    let at = |reference: Value| attached(&gateway, &http(INFRA, &[]), reference);
    assert_eq!(at(json!({})), hosts(&[(0, &[""]), (1, &[""])]));
    assert_eq!(at(json!({"sectionName": "more"})), hosts(&[(1, &[""])]));
    assert_eq!(at(json!({"port": 80})), hosts(&[(0, &[""])]));
    let nowhere = Err(Detached::NoMatchingParent);
    for reference in [
        json!({"port": 81}),
        json!({"port": 80, "sectionName": "http1"}),
        json!({"sectionName": "http", "port": 8080}),
    ] {
        assert_eq!(at(reference), nowhere);
    }
}

#[test]
fn listener_allows_routes_by_namespace_and_kind() {
    let from = |namespaces: Value| {
        let mut written = listener("http", 80, "HTTP", "");
        written["allowedRoutes"] = json!({"namespaces": namespaces});
        gateway(json!([written]))
    };
    let selector = |team: &str| {
        let selector = json!({"matchLabels": {"team": team}});
        json!({"from": "Selector", "selector": selector})
    };
    let foreign = http("web", &[]);
    let refused = Err(Detached::NotAllowedByListeners);
    let at = |namespaces: Value| attached(&from(namespaces), &foreign, json!({}));
    assert_eq!(at(json!({"from": "Same"})), refused);
    assert_eq!(at(json!({"from": "None"})), refused);
    assert_eq!(at(selector("bank")), refused);
    assert_eq!(at(json!({"from": "All"})), hosts(&[(0, &[""])]));
    assert_eq!(at(selector("edge")), hosts(&[(0, &[""])]));

    let tls = gateway(json!([listener("tls", 443, "TLS", "")]));
    assert_eq!(attached(&tls, &http(INFRA, &[]), json!({})), refused);
    let both = gateway(json!([
        listener("http", 80, "HTTP", ""),
        listener("https", 443, "HTTPS", ""),
    ]));
    let route = Route::read_tls(&TLSRoute::new(INFRA, "tls", spec(&["tls.example.com"])));
    assert_eq!(attached(&both, &route, json!({})), refused);
    let route = Route::read_tcp(&TCPRoute::new(INFRA, "tcp", spec(&[])));
    assert_eq!(attached(&both, &route, json!({})), refused);
    let route = Route::read_grpc(&GRPCRoute::new(INFRA, "grpc", spec(&[])));
    assert_eq!(
        attached(&both, &route, json!({})),
        hosts(&[(0, &[""]), (1, &[""])])
    );
}

/// The furthest that one came counts.
#[test]
fn reason_of_detached_route_is_that_of_its_nearest_listener() {
    let mut closed = listener("closed", 80, "HTTP", "a.example.com");
    closed["allowedRoutes"] = json!({"namespaces": {"from": "None"}});
    let gateway = gateway(json!([
        closed,
        listener("open", 81, "HTTP", "b.example.com")
    ]));
    let at = |reference: Value| attached(&gateway, &http(INFRA, &["c.example.com"]), reference);
    assert_eq!(at(json!({})), Err(Detached::NoMatchingListenerHostname));
    assert_eq!(
        at(json!({"port": 80})),
        Err(Detached::NotAllowedByListeners)
    );
    assert_eq!(at(json!({"port": 82})), Err(Detached::NoMatchingParent));
}

/// What is no hostname must not make a route one for every host.
#[test]
fn route_without_readable_hostname_attaches_nowhere() {
    let gateway = gateway(json!([listener("http", 80, "HTTP", "")]));
    let at = |hostnames: &[&str]| attached(&gateway, &http(INFRA, hostnames), json!({}));
    assert_eq!(at(&["10.0.0.1"]), Err(Detached::NoMatchingListenerHostname));
    let some = at(&["10.0.0.1", "a.example.com", "a.example.com"]);
    assert_eq!(some, hosts(&[(0, &["a.example.com"])]));
}

/// Of thousands of routes at many listeners the hosts would else be kept for each.
#[test]
fn listeners_that_narrow_no_host_share_hosts_of_route() {
    let gateway = gateway(json!([
        listener("every", 80, "HTTP", ""),
        listener("all", 81, "HTTP", "*.example.com"),
        listener("one", 82, "HTTP", "a.example.com"),
    ]));
    let route = http(INFRA, &["a.example.com", "b.example.com", "a.example.com"]);
    let states = states(&gateway);
    let parent = parent(&json!({"name": "edge"}));
    let attached = attach(&route, &parent, (&gateway, &states), &BTreeMap::new()).unwrap();
    let [every, all, one] = &attached[..] else {
        panic!("{attached:?}");
    };
    assert_eq!((every.hostnames.len(), one.hostnames.len()), (2, 1));
    assert!(Arc::ptr_eq(&every.hostnames, &all.hostnames));
}
