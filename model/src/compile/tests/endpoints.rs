//! Where a Service's port is served.
//!
//! Claims: calls-20

use serde_json::{Value, json};

use crate::fixtures::*;

const API: &str = "endpoints/shop/api:80";

fn with_slice(endpoints: &[Value]) -> Cluster {
    shop().with(slice("api-x", "api", &[("http", 8080)], endpoints))
}

/// With these conditions, and without the others.
fn conditions(endpoint: Value, true_ones: &[&str]) -> Value {
    let is = |condition: &str| true_ones.contains(&condition);
    let conditions = json!({
        "ready": is("ready"), "serving": is("serving"), "terminating": is("terminating"),
    });
    set(endpoint, "/conditions", conditions)
}

fn addresses(cluster: &Cluster) -> Vec<String> {
    cluster.resolve("client", &["10.96.0.1:80"]).addresses(API)
}

#[test]
fn only_ready_endpoints_are_used_while_there_is_one() {
    let one = endpoint("api-1", "10.0.0.11");
    let two = endpoint("api-2", "10.0.0.12");
    let cluster = with_slice(&[one, conditions(two, &["serving", "terminating"])]);
    assert_eq!(addresses(&cluster), ["10.0.0.11:8080"]);
}

#[test]
fn serving_terminating_endpoints_are_used_without_ready_ones() {
    let one = conditions(endpoint("api-1", "10.0.0.11"), &["serving", "terminating"]);
    let two = conditions(endpoint("api-2", "10.0.0.12"), &["terminating"]);
    assert_eq!(addresses(&with_slice(&[one, two])), ["10.0.0.11:8080"]);
    let three = conditions(endpoint("api-1", "10.0.0.11"), &[]);
    assert!(addresses(&with_slice(&[three])).is_empty());
}

#[test]
fn ready_endpoint_carries_ready_since_of_its_pod() {
    let since = |ready: bool, by_kubernetes: bool| {
        let condition = json!({"type": "Ready", "status": "True",
            "lastTransitionTime": "2026-01-01T00:05:00Z"});
        let api = pod("api-1", "10.0.0.11", "api");
        let api = set(api, "/status/conditions", json!([condition]));
        let state = if ready { "ready" } else { "terminating" };
        let at = conditions(endpoint("api-1", "10.0.0.11"), &[state, "serving"]);
        let written = slice("api-x", "api", &[("http", 8080)], &[at]);
        let written = if by_kubernetes {
            kept(written)
        } else {
            written
        };
        let endpoints = shop().with(written).with(api);
        let endpoints = endpoints
            .resolve("client", &["10.96.0.1:80"])
            .endpoints(API);
        endpoints.endpoints[0].ready_since
    };
    assert_eq!(since(true, true), 1_767_225_900);
    assert_eq!(since(false, true), 0, "it only serves still");
    assert_eq!(
        since(true, false),
        0,
        "others may keep it whatever the pod says"
    );
}

#[test]
fn unready_pod_is_skipped_before_kubernetes_slice_updates() {
    let ready = |status: &str, slice: Value| {
        let condition = json!({"type": "Ready", "status": status});
        let one = pod("api-1", "10.0.0.11", "api");
        let one = set(one, "/status/conditions", json!([condition]));
        shop().with(one).with(slice)
    };
    let both = [
        endpoint("api-1", "10.0.0.11"),
        endpoint("api-2", "10.0.0.12"),
    ];
    let written = slice("api-x", "api", &[("http", 8080)], &both);
    let all = ["10.0.0.11:8080", "10.0.0.12:8080"];
    let unready = ready("False", kept(written.clone()));
    assert_eq!(addresses(&unready), ["10.0.0.12:8080"]);
    assert_eq!(addresses(&ready("True", kept(written.clone()))), all);
    assert_eq!(addresses(&ready("False", written.clone())), all);
    let published = service("api", "10.96.0.1", &[("http", 80)]);
    let published = set(published, "/spec/publishNotReadyAddresses", json!(true));
    let published = ready("False", kept(written)).with(published);
    assert_eq!(addresses(&published), all);
}

#[test]
fn absent_conditions_count_as_ready() {
    let one = set(endpoint("api-1", "10.0.0.11"), "/conditions", json!({}));
    assert_eq!(addresses(&with_slice(&[one])), ["10.0.0.11:8080"]);
}

#[test]
fn deleted_pod_is_skipped_before_slice_updates() {
    let deleted = json!("2026-01-01T00:01:00Z");
    let going = set(
        pod("api-1", "10.0.0.11", "api"),
        "/metadata/deletionTimestamp",
        deleted,
    );
    let cluster = shop().with(going.clone());
    assert_eq!(addresses(&cluster), ["10.0.0.12:8080"]);
    // Alone it is still better than none.
    let alone = with_slice(&[endpoint("api-1", "10.0.0.11")]).with(going.clone());
    assert_eq!(addresses(&alone), ["10.0.0.11:8080"]);
    // And a Service that publishes what is not ready has it as it is.
    let published = service("api", "10.96.0.1", &[("http", 80)]);
    let published = set(published, "/spec/publishNotReadyAddresses", json!(true));
    let cluster = shop().with(going).with(published);
    assert_eq!(addresses(&cluster), ["10.0.0.11:8080", "10.0.0.12:8080"]);
}

#[test]
fn endpoint_in_two_slices_counts_once_with_best_state() {
    let stale = conditions(endpoint("api-1", "10.0.0.11"), &[]);
    let cluster = shop().with(slice("api-a", "api", &[("http", 8080)], &[stale]));
    assert_eq!(addresses(&cluster), ["10.0.0.11:8080", "10.0.0.12:8080"]);
}

#[test]
fn a_named_target_port_is_each_slices_own() {
    let cluster = with_slice(&[endpoint("api-1", "10.0.0.11")]).with(slice(
        "api-y",
        "api",
        &[("http", 9090)],
        &[endpoint("api-2", "10.0.0.12")],
    ));
    assert_eq!(addresses(&cluster), ["10.0.0.11:8080", "10.0.0.12:9090"]);
}

#[test]
fn slices_of_both_families_give_one_endpoint_per_pod() {
    let both = json!([{"ip": "10.0.0.11"}, {"ip": "fd00::11"}]);
    let dual = set(pod("api-1", "10.0.0.11", "api"), "/status/podIPs", both);
    let six = slice(
        "api-6",
        "api",
        &[("http", 8080)],
        &[endpoint("api-1", "fd00::11")],
    );
    let cluster = shop()
        .with(dual.clone())
        .with(set(six.clone(), "/addressType", json!("IPv6")));
    assert_eq!(addresses(&cluster), ["10.0.0.11:8080", "10.0.0.12:8080"]);
    let only_six = with_slice(&[])
        .with(dual)
        .with(set(six, "/addressType", json!("IPv6")));
    assert_eq!(addresses(&only_six), ["fd00::11:8080"]);
}

#[test]
fn selectorless_service_endpoints_are_plaintext_except_pods() {
    let outside = json!({"addresses": ["203.0.113.1"]});
    let inside = json!({"addresses": ["10.0.0.12"]});
    let cluster = with_slice(&[outside, inside]);
    let endpoints = cluster
        .resolve("client", &["10.96.0.1:80"])
        .endpoints(API)
        .endpoints;
    let seen: Vec<(&str, bool, &str)> = endpoints
        .iter()
        .map(|e| (e.ip.as_str(), e.identity.is_empty(), e.pod.as_str()))
        .collect();
    assert_eq!(
        seen,
        [("10.0.0.12", false, "api-2"), ("203.0.113.1", true, "")]
    );
}

#[test]
fn slice_address_not_owned_by_pod_is_skipped() {
    // The pod is gone, the address is another pod's, or the claim is forged.
    let gone = endpoint("ghost", "10.0.0.77");
    let foreign = endpoint("api-1", "10.0.0.12");
    assert!(addresses(&with_slice(&[gone, foreign])).is_empty());
}

#[test]
fn local_traffic_policy_keeps_endpoints_of_callers_node() {
    let away = set(
        pod("api-2", "10.0.0.12", "api"),
        "/spec/nodeName",
        json!("node-b"),
    );
    let local = service("api", "10.96.0.1", &[("http", 80)]);
    let local = set(local, "/spec/internalTrafficPolicy", json!("Local"));
    let far = set(
        pod("far", "10.0.0.2", "web"),
        "/spec/nodeName",
        json!("node-b"),
    );
    let lonely = set(
        pod("lonely", "10.0.0.3", "web"),
        "/spec/nodeName",
        json!("node-c"),
    );
    let cluster = shop().with(away).with(local).with(far).with(lonely);
    let at = |pod| cluster.resolve(pod, &["10.96.0.1:80"]).addresses(API);
    assert_eq!(at("client"), ["10.0.0.11:8080"]);
    assert_eq!(at("far"), ["10.0.0.12:8080"]);
    assert!(at("lonely").is_empty());
}

#[test]
fn endpoint_is_meshed_only_if_pod_has_proxy() {
    let cluster = shop().with(plain_pod("api-2", "10.0.0.12", "api"));
    let endpoints = cluster
        .resolve("client", &["10.96.0.1:80"])
        .endpoints(API)
        .endpoints;
    assert_eq!(
        endpoints[0].identity,
        "spiffe://cluster.local/ns/shop/sa/api"
    );
    assert_eq!(endpoints[1].identity, "");
}

#[test]
fn session_affinity_carries_its_time() {
    let sticky = service("api", "10.96.0.1", &[("http", 80)]);
    let sticky = set(sticky, "/spec/sessionAffinity", json!("ClientIP"));
    let with_time = json!({"clientIP": {"timeoutSeconds": 60}});
    let timed = set(sticky.clone(), "/spec/sessionAffinityConfig", with_time);
    for (object, seconds) in [(sticky, 10_800), (timed, 60)] {
        let resolved = shop().with(object).resolve("client", &["10.96.0.1:80"]);
        assert_eq!(
            resolved.service("service/shop/api:80").affinity_seconds,
            seconds
        );
    }
}

#[test]
fn a_service_without_endpoints_has_an_empty_resource() {
    assert!(addresses(&with_slice(&[])).is_empty());
}
