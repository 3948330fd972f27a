//! Which Services and ports a route is for, and what is said where it is for none.

use super::*;

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
    let accepted = (report.accepted.status, report.accepted.reason);
    assert_eq!(accepted, (false, "UnsupportedValue"));
    let path = "spec.rules[0].filters[0]: ";
    assert!(report.accepted.message.starts_with(path), "{report:?}");
    let partly = report.partially_invalid.unwrap();
    assert_eq!((partly.status, partly.reason), (true, "UnsupportedValue"));
    assert!(partly.message.contains("spec.rules[0]"), "{partly:?}");

    let none = of_rules(json!([broken]));
    assert_eq!(request(&table(&none), "/a"), invalid);
    assert_eq!(parent(&none, "HTTPRoute web").partially_invalid, None);
}
