//! Which Services and ports a route is for, and what is said where it is for none.

use super::*;
use crate::world::collect::{Collector, News};

/// A route whose only parent is changed.
fn of_parent(change: impl FnOnce(&mut Value)) -> Cluster {
    let mut route = http_route("web", "api", json!([rule_over(&[("v1", 1)])]));
    change(&mut route["spec"]["parentRefs"][0]);
    let ports = [("http", 80), ("tcp-db", 5432), ("https", 443)];
    let mut headless = service("headless", "None", &[("http", 80)]);
    headless["spec"]["clusterIPs"] = json!(["None"]);
    let mut external = service("external", "None", &[("http", 80)]);
    external["spec"] = json!({"type": "ExternalName", "externalName": "example.com"});
    cluster()
        .with(service("api", "10.96.0.1", &ports))
        .with(headless)
        .with(external)
        .with(route)
}

#[test]
fn route_without_port_is_for_ports_carrying_http() {
    let cluster = of_parent(|_| ());
    let report = parent(&cluster, "HTTPRoute web");
    assert!(report.accepted.status, "{report:?}");
    assert_eq!(
        report.accepted.message, "",
        "others are passed over in silence"
    );
    assert_eq!(report.ports, [80]);
}

#[test]
fn named_port_and_section_limit_the_route_together() {
    let ports = |parent: Value| {
        let written = move |at: &mut Value| {
            for (field, value) in parent.as_object().unwrap() {
                at[field] = value.clone();
            }
        };
        let report = super::parent(&of_parent(written), "HTTPRoute web");
        (report.accepted.reason, report.ports)
    };
    assert_eq!(ports(json!({"port": 80})), ("Accepted", vec![80]));
    assert_eq!(
        ports(json!({"sectionName": "http"})),
        ("Accepted", vec![80])
    );
    let both = json!({"port": 80, "sectionName": "http"});
    assert_eq!(ports(both), ("Accepted", vec![80]));
    for (parent, reason) in [
        (
            json!({"port": 80, "sectionName": "https"}),
            "NoMatchingParent",
        ),
        (json!({"port": 81}), "NoMatchingParent"),
        (json!({"name": "gone"}), "NoMatchingParent"),
        (json!({"port": 5432}), "UnsupportedProtocol"),
        (json!({"sectionName": "https"}), "UnsupportedProtocol"),
        (json!({"name": "headless"}), "UnsupportedValue"),
        (json!({"name": "external"}), "UnsupportedValue"),
    ] {
        assert_eq!(ports(parent.clone()), (reason, vec![]), "{parent}");
    }
}

#[test]
fn parent_of_another_kind_is_none_of_ours() {
    let gateway = json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": "edge"});
    let mut cluster = of_parent(|parent| *parent = gateway.clone());
    let (model, problems) = cluster.compile();
    let routes = |problems: &crate::problem::Problems| {
        let kinds = problems.reports.keys().map(|object| object.kind);
        kinds
            .filter(|kind| Kind::GATEWAY_ROUTES.contains(kind))
            .count()
    };
    assert_eq!(routes(&problems), 0);
    resolved(&model, ("shop", "client")).service(ROUTED);

    let mut both = http_route("both", "api", json!([rule_over(&[("v1", 1)])]));
    let parents = both["spec"]["parentRefs"].as_array_mut().unwrap();
    parents.insert(0, gateway);
    cluster = cluster.with(both);
    let report = parent(&cluster, "HTTPRoute both");
    assert_eq!(&*report.parent.name, "api");
}

#[test]
fn hostnames_warn_and_route_stays_accepted() {
    let mut route = http_route("web", "api", json!([rule_over(&[("v1", 1)])]));
    route["spec"]["hostnames"] = json!(["shop.example"]);
    let cluster = cluster().with(route);
    let report = parent(&cluster, "HTTPRoute web");
    assert_eq!((report.accepted.status, report.accepted.reason), ACCEPTED);
    assert!(
        report.accepted.message.starts_with("spec.hostnames: "),
        "{report:?}"
    );
    assert_eq!(shares(&request(&table(&cluster), "/")), [share("v1", 1)]);
}

#[test]
fn rule_that_cannot_be_served_keeps_its_place() {
    let mut broken = rule_below("/a", "v1");
    broken["filters"] = json!([{"type": "ExtensionRef", "extensionRef": {
        "group": "example.com", "kind": "Filter", "name": "x",
    }}]);
    let whole = rule_below("/", "v2");
    let of_rules = |rules: Value| cluster().with(http_route("web", "api", rules));
    let some = of_rules(json!([broken, whole]));
    let invalid = Forward::Refuse(reason::Reason::InvalidRoute);
    assert_eq!(request(&table(&some), "/a"), invalid);
    assert_eq!(shares(&request(&table(&some), "/b")), [share("v2", 1)]);

    let report = parent(&some, "HTTPRoute web");
    let said = (report.accepted.status, report.accepted.reason);
    assert_eq!(said, ACCEPTED, "partly valid is accepted");
    let path = "spec.rules[0].filters[0]: ";
    assert!(report.accepted.message.starts_with(path), "{report:?}");
    let partly = report.partially_invalid.unwrap();
    assert_eq!((partly.status, partly.reason), (true, "UnsupportedValue"));
    let words = "Dropped Rule spec.rules[0]: ";
    assert!(partly.message.starts_with(words), "{partly:?}");

    let none = of_rules(json!([broken]));
    assert_eq!(request(&table(&none), "/a"), invalid);
    assert_eq!(parent(&none, "HTTPRoute web").partially_invalid, None);
    let refused = (false, "UnsupportedValue");
    assert_eq!(accepted(&none, "HTTPRoute web"), refused);

    let grpc = grpc_route("g", "api", json!([rule_over(&[("v2", 1)])]));
    let lost = parent(&some.with(grpc), "HTTPRoute web");
    assert_eq!(lost.accepted.reason, "Conflicted");
    assert_eq!(lost.partially_invalid, None, "it is not accepted");
}

#[test]
fn status_says_that_unreadable_match_fits_no_request() {
    let expression = json!({"path": {"type": "RegularExpression", "value": "/(a"}});
    let exact = json!({"path": {"type": "Exact", "value": "/b"}});
    let of_matches = |matches: Value| {
        let mut broken = rule_below("/a", "v1");
        broken["matches"] = matches;
        let rules = json!([broken, rule_below("/", "v2")]);
        cluster().with(http_route("web", "api", rules))
    };
    let alone = of_matches(json!([expression]));
    assert_eq!(shares(&request(&table(&alone), "/a")), [share("v2", 1)]);
    let report = parent(&alone, "HTTPRoute web");
    let says = "no request fits this rule, so that other rules decide";
    assert!(report.accepted.message.contains(says), "{report:?}");
    let partly = report.partially_invalid.unwrap();
    let says = "no request fits a match that cannot be read";
    assert!(partly.message.contains(says), "{partly:?}");

    let beside = of_matches(json!([expression, exact]));
    let invalid = Forward::Refuse(reason::Reason::InvalidRoute);
    assert_eq!(request(&table(&beside), "/b"), invalid);
    let report = parent(&beside, "HTTPRoute web");
    let says = "requests that fit another match of this rule get 500";
    assert!(report.accepted.message.contains(says), "{report:?}");
}

#[test]
fn later_rule_of_tcp_route_does_not_refuse_it() {
    let mut broken = rule_over(&[("v2", 1)]);
    broken["filters"] = json!([]);
    let of_rules = |rules: Value| cluster().with(gateway_tcp_route("t", "api", rules));
    const TCP: &str = "TCPRoute.gateway.networking.k8s.io t";
    let later = of_rules(json!([rule_over(&[("v1", 1)]), broken]));
    assert_eq!(accepted(&later, TCP), ACCEPTED);
    assert_eq!(parent(&later, TCP).partially_invalid, None);
    let first = of_rules(json!([broken]));
    assert_eq!(accepted(&first, TCP), (false, "UnsupportedValue"));
}

#[test]
fn change_of_a_route_with_other_parents_is_none() {
    let of_others = |rules: Value, generation: i64| {
        let mut route = http_route("web", "api", rules);
        route["spec"]["parentRefs"] =
            json!([{"group": "example.com", "kind": "Edge", "name": "edge"}]);
        set(route, "/metadata/generation", json!(generation))
    };
    let mut collector = Collector::default();
    let first = of_others(json!([rule_below("/a", "v1")]), 1);
    assert_eq!(apply(&mut collector, &first), News::Ordinary);
    let second = of_others(json!([rule_below("/b", "v2")]), 2);
    assert_eq!(apply(&mut collector, &second), News::None);
}
