//! Bindings as the destination that a TrafficTarget protects.
//!
//! Claims: attack-91

use super::*;

#[test]
fn destination_binding_protects_exactly_its_pods() {
    let web = peer("shop", "web", "");
    let other = peer("shop", "other", "");
    let base = shop()
        .with(tcp_route("ports", &[8080]))
        .with(to_binding("callees"));
    let check = |schemes: Value, bound: &[&str], free: &[&str]| {
        let api_2 = labelled(pod("api-2", "10.0.0.12", "api"), "app", "b");
        let cluster = base
            .clone()
            .with(api_2)
            .with(binding("callees", schemes.clone()));
        for pod in bound {
            assert!(admits(&cluster, pod, &web), "{schemes} {pod}");
            assert!(!admits(&cluster, pod, &other), "{schemes} {pod}");
        }
        for pod in free {
            assert!(!is_protected(&cluster, pod), "{schemes} {pod}");
        }
    };
    check(
        json!({"serviceAccount": "api"}),
        &["api-1", "api-2"],
        &["client"],
    );
    check(
        by_labels(json!({"app": "b"})),
        &["api-2"],
        &["api-1", "client"],
    );
    let ids = json!({"spiffeIdentities": ["cluster.local/ns/shop/sa/api"]});
    check(ids, &["api-1", "api-2"], &["client"]);
    // One pod by two ways has one rule.
    let mut both = by_labels(json!({"app": "b"}));
    both["spiffeIdentities"] = json!(["cluster.local/ns/shop/sa/api"]);
    check(both, &["api-1", "api-2"], &["client"]);
}

#[test]
fn foreign_spiffe_ids_protect_no_pod_and_are_reported() {
    let ids = json!([
        "cluster.local/ns/shop/sa/api",
        "other.example/ns/shop/sa/web"
    ]);
    let cluster = shop()
        .with(tcp_route("ports", &[8080]))
        .with(to_binding("callees"))
        .with(binding("callees", json!({"spiffeIdentities": ids})));
    assert!(is_protected(&cluster, "api-1") && !is_protected(&cluster, "client"));
    let (_, problems) = cluster.compile();
    let expected = [(Reason::ForeignIdentity, "spec.destination.name")];
    assert_eq!(failures(&problems, ResolvedRefs), expected);
    assert!(report(&problems, "IdentityBinding callees").accepted.status);
}

// Claims: C3
#[test]
fn target_reports_destination_accounts_of_other_namespace() {
    let ids = json!([
        "cluster.local/ns/shop/sa/api",
        "cluster.local/ns/bank/sa/vault"
    ]);
    let cluster = shop()
        .with(tcp_route("ports", &[8080]))
        .with(to_binding("callees"))
        .with(binding("callees", json!({"spiffeIdentities": ids})));
    let (_, problems) = cluster.compile();
    let expected = [(Reason::ForeignIdentity, "spec.destination.name")];
    assert_eq!(failures(&problems, ResolvedRefs), expected);
    let condition = &report(&problems, "TrafficTarget t").resolved_refs;
    assert!(
        condition.message.contains("/ns/bank/sa/vault"),
        "{condition:?}"
    );

    // Its own accounts alone are nothing to report.
    let own = json!({"spiffeIdentities": ["cluster.local/ns/shop/sa/api"]});
    let cluster = shop()
        .with(tcp_route("ports", &[8080]))
        .with(to_binding("callees"))
        .with(binding("callees", own));
    assert_eq!(failures(&cluster.compile().1, ResolvedRefs), []);
}

#[test]
fn contradictory_destination_binding_protects_both_and_allows_nothing() {
    let mut schemes = by_labels(json!({"app": "c"}));
    schemes["serviceAccount"] = json!("api");
    let cluster = shop()
        .with(tcp_route("ports", &[8080]))
        .with(labelled(pod("client", "10.0.0.1", "web"), "app", "c"))
        .with(to_binding("callees"))
        .with(binding("callees", schemes));
    for pod in ["api-1", "api-2", "client"] {
        assert!(!admits(&cluster, pod, &peer("shop", "web", "")), "{pod}");
    }
}

#[test]
fn missing_destination_binding_matches_no_pod_and_is_reported() {
    let cluster = shop()
        .with(tcp_route("ports", &[8080]))
        .with(to_binding("callees"));
    assert!(!is_protected(&cluster, "api-1"));
    let expected = [(Reason::RefNotFound, "spec.destination.name")];
    assert_eq!(failures(&cluster.compile().1, ResolvedRefs), expected);
}

#[test]
fn a_binding_of_another_namespace_is_no_destination() {
    let object = set(
        to_binding("callees"),
        "/spec/destination/namespace",
        json!("bank"),
    );
    let foreign = in_namespace(binding("callees", json!({"serviceAccount": "api"})), "bank");
    let cluster = shop()
        .with(tcp_route("ports", &[8080]))
        .with(object)
        .with(foreign);
    assert!(!is_protected(&cluster, "api-1"));
    let expected = [(Reason::ForeignDestination, "spec.destination.namespace")];
    assert_eq!(failures(&cluster.compile().1, Accepted), expected);
}

#[test]
fn service_ports_map_on_pods_of_destination_binding() {
    let cluster = shop()
        .with(tcp_route("ports", &[80]))
        .with(labelled(pod("api-1", "10.0.0.11", "api"), "app", "b"))
        .with(to_binding("callees"))
        .with(binding("callees", by_labels(json!({"app": "b"}))));
    assert!(admits(&cluster, "api-1", &peer("shop", "web", "")));
    let (_, problems) = cluster.compile();
    let condition = &report(&problems, "TrafficTarget t").accepted;
    assert_eq!(
        (condition.status, condition.reason),
        (true, "ServicePortMapped")
    );
}
