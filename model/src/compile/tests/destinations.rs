//! What stands at an address.
//!
//! Claims: observe-140

use serde_json::json;
use wire::v1::destination::Target;

use crate::fixtures::*;

#[test]
fn a_cluster_address_of_either_family_is_its_service() {
    let ips = json!(["10.96.0.1", "fd00::1"]);
    let cluster = shop().with(set(
        service("api", "10.96.0.1", &[("http", 80)]),
        "/spec/clusterIPs",
        ips,
    ));
    for at in ["10.96.0.1:80", "[fd00::1]:80"] {
        let resolved = cluster.resolve("client", &[at]);
        assert_eq!(
            resolved.destination(at),
            Target::Service("service/shop/api:80".into())
        );
        assert_eq!(
            resolved.addresses("endpoints/shop/api:80"),
            ["10.0.0.11:8080", "10.0.0.12:8080"]
        );
    }
}

#[test]
fn undeclared_service_port_is_refused() {
    let resolved = shop().resolve("client", &["10.96.0.1:81"]);
    let Target::Refused(refused) = resolved.destination("10.96.0.1:81") else {
        panic!("a Service has what no object declared");
    };
    assert_eq!(refused.service, "shop/api");
    assert_eq!(refused.reason, "Service shop/api has no TCP port 81");
}

#[test]
fn a_udp_port_is_no_port() {
    let object = service("api", "10.96.0.1", &[("http", 80), ("dns", 53)]);
    let cluster = shop().with(set(object, "/spec/ports/1/protocol", json!("UDP")));
    let resolved = cluster.resolve("client", &["10.96.0.1:53"]);
    assert!(matches!(
        resolved.destination("10.96.0.1:53"),
        Target::Refused(_)
    ));
}

#[test]
fn an_unknown_address_is_external() {
    let resolved = shop().resolve("client", &["93.184.216.34:443"]);
    assert!(matches!(
        resolved.destination("93.184.216.34:443"),
        Target::External(_)
    ));
}

#[test]
fn what_is_no_destination_name_is_left_out() {
    let resolved = shop().resolve("client", &["10.96.0.1", "10.096.0.1:80", "host:80"]);
    assert_eq!(resolved.names(), ["workload"]);
}

fn pod_at(cluster: &Cluster, at: &str) -> wire::v1::PodTarget {
    match cluster.resolve("client", &[at]).destination(at) {
        Target::Pod(pod) => pod,
        other => panic!("{other:?}"),
    }
}

#[test]
fn meshed_pod_address_expects_identity_on_every_port() {
    for at in ["10.0.0.11:8080", "10.0.0.11:9999"] {
        let endpoint = pod_at(&shop(), at).endpoint.unwrap();
        assert_eq!(endpoint.identity, "spiffe://cluster.local/ns/shop/sa/api");
        assert_eq!(endpoint.pod, "api-1");
        assert_eq!(endpoint.zone, "zone-a");
    }
}

// Claims: R6, attack-105
#[test]
fn admin_port_of_meshed_pod_bypasses_its_proxy() {
    let cluster = shop()
        .with(service("admin", "10.96.0.9", &[("weft-admin", 15190)]))
        .with(slice(
            "admin-x",
            "admin",
            &[("weft-admin", 15190)],
            &[endpoint("api-1", "10.0.0.11")],
        ));
    let scraped = pod_at(&cluster, "10.0.0.11:15190").endpoint.unwrap();
    assert_eq!((&*scraped.identity, &*scraped.pod), ("", "api-1"));
    let resolved = cluster.resolve("client", &["10.96.0.9:15190"]);
    let behind = resolved.endpoints("endpoints/shop/admin:15190").endpoints;
    assert_eq!(behind[0].identity, "");
    // Control: every other port of the pod is the mesh's, its own included.
    for port in [15101, 15106, 15108, 15189, 15191, 8080] {
        let endpoint = pod_at(&cluster, &format!("10.0.0.11:{port}")).endpoint;
        assert_ne!(endpoint.unwrap().identity, "", "{port}");
    }
}

#[test]
fn an_unmeshed_pod_has_no_identity() {
    let cluster = shop().with(plain_pod("old", "10.0.0.50", "api"));
    assert_eq!(
        pod_at(&cluster, "10.0.0.50:8080")
            .endpoint
            .unwrap()
            .identity,
        ""
    );
}

#[test]
fn annotation_or_container_alone_does_not_make_pod_meshed() {
    let claimed = annotate(
        plain_pod("a", "10.0.0.50", "x"),
        "weft.dev/proxy-version",
        "1",
    );
    let other = set(
        pod("b", "10.0.0.51", "x"),
        "/metadata/annotations",
        json!({}),
    );
    let cluster = shop().with(claimed).with(other);
    for at in ["10.0.0.50:80", "10.0.0.51:80"] {
        assert_eq!(pod_at(&cluster, at).endpoint.unwrap().identity, "");
    }
}

#[test]
fn pod_with_starting_proxy_is_already_meshed() {
    let starting = set(
        pod("new", "10.0.0.50", "x"),
        "/status/initContainerStatuses",
        json!([]),
    );
    let cluster = shop().with(starting);
    assert_ne!(
        pod_at(&cluster, "10.0.0.50:80").endpoint.unwrap().identity,
        ""
    );
}

#[test]
fn capture_skipped_port_is_plaintext_despite_later_annotation() {
    let args = json!(["capture", "--skip-inbound-ports", "9090,9100-9102"]);
    let skipping = set(
        pod("skip", "10.0.0.50", "x"),
        "/spec/initContainers/0/args",
        args,
    );
    let cluster = shop().with(annotate(skipping, "weft.dev/skip-inbound-ports", "8080"));
    for (port, plain) in [(9090, true), (9101, true), (8080, false), (9103, false)] {
        let endpoint = pod_at(&cluster, &format!("10.0.0.50:{port}"))
            .endpoint
            .unwrap();
        assert_eq!(endpoint.identity.is_empty(), plain, "{port}");
    }
}

#[test]
fn an_annotation_alone_skips_nothing() {
    let pod = annotate(
        pod("api-1", "10.0.0.11", "api"),
        "weft.dev/skip-inbound-ports",
        "8080",
    );
    let endpoint = pod_at(&shop().with(pod), "10.0.0.11:8080")
        .endpoint
        .unwrap();
    assert_ne!(endpoint.identity, "");
}

#[test]
fn a_pod_on_its_nodes_network_is_external() {
    let host = set(
        pod("host", "192.168.0.1", "x"),
        "/spec/hostNetwork",
        json!(true),
    );
    let resolved = shop().with(host).resolve("client", &["192.168.0.1:80"]);
    assert!(matches!(
        resolved.destination("192.168.0.1:80"),
        Target::External(_)
    ));
}

/// Else a Gateway would let calls out to kubelets and node ports.
#[test]
fn nodes_and_api_server_are_external_but_inside() {
    let addresses = json!([{"type": "InternalIP", "address": "172.16.0.1"}]);
    let node = set(node("node-a", "zone-a"), "/status/addresses", addresses);
    let api_server = json!({"addresses": ["172.16.9.9"], "conditions": {"ready": true}});
    let slice = slice(
        "kubernetes",
        "kubernetes",
        &[("https", 6443)],
        &[api_server],
    );
    let slice = in_namespace(slice, "default");
    let inside =
        |cluster: &Cluster, at: &str| match cluster.resolve("client", &[at]).destination(at) {
            Target::External(external) => external.inside,
            other => panic!("{other:?}"),
        };
    let (before, after) = (shop(), shop().with(node).with(slice));
    for at in [
        "172.16.0.1:10250",
        "[64:ff9b::ac10:1]:30080",
        "172.16.9.9:6443",
    ] {
        assert!(!inside(&before, at), "{at}");
        assert!(inside(&after, at), "{at}");
    }
    // What NAT64 makes of a pod.
    assert!(inside(&after, "[64:ff9b::a00:b]:8080"));
    assert!(!inside(&after, "203.0.113.7:443"));
}

#[test]
fn address_belongs_to_pod_that_currently_has_it() {
    let ended = set(
        pod("aa-old", "10.0.0.60", "old"),
        "/status/phase",
        json!("Succeeded"),
    );
    let cluster = shop()
        .with(ended)
        .with(created(pod("new", "10.0.0.60", "new"), 5));
    assert_eq!(
        pod_at(&cluster, "10.0.0.60:80").endpoint.unwrap().pod,
        "new"
    );
}

#[test]
fn balancer_and_external_ips_lead_to_service_ports() {
    let object = set(
        service("api", "10.96.0.1", &[("http", 80)]),
        "/spec/externalIPs",
        json!(["203.0.113.7"]),
    );
    let ingress = json!({"ingress": [{"ip": "198.51.100.1"},
        {"ip": "198.51.100.2", "ipMode": "Proxy"}]});
    let cluster = shop().with(set(object, "/status/loadBalancer", ingress));
    let at = [
        "203.0.113.7:80",
        "198.51.100.1:80",
        "198.51.100.2:80",
        "203.0.113.7:81",
    ];
    let resolved = cluster.resolve("client", &at);
    let service = Target::Service("service/shop/api:80".into());
    assert_eq!(resolved.destination(at[0]), service);
    assert_eq!(resolved.destination(at[1]), service);
    assert!(matches!(resolved.destination(at[2]), Target::External(_)));
    assert!(matches!(resolved.destination(at[3]), Target::External(_)));
}

#[test]
fn a_service_cannot_claim_a_pods_address() {
    let thief = set(
        service("thief", "10.96.0.9", &[("http", 8080)]),
        "/spec/externalIPs",
        json!(["10.0.0.11"]),
    );
    assert_eq!(
        pod_at(&shop().with(thief), "10.0.0.11:8080")
            .endpoint
            .unwrap()
            .pod,
        "api-1"
    );
}

#[test]
fn headless_service_is_named_on_pod_target_port_only() {
    let cluster = shop()
        .with(service("db", "None", &[("tcp-db", 5000)]))
        .with(slice(
            "db-x",
            "db",
            &[("tcp-db", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ));
    let pod = pod_at(&cluster, "10.0.0.11:8080");
    assert_eq!(pod.headless.len(), 1);
    assert_eq!(pod.headless[0].service, "service/shop/db:5000");
    assert_eq!(
        pod.headless[0].hosts,
        ["db", "db.shop", "db.shop.svc", "db.shop.svc.cluster.local"]
    );
    let resolved = cluster.resolve("client", &["10.0.0.11:8080"]);
    assert_eq!(
        resolved.addresses("endpoints/shop/db:5000"),
        ["10.0.0.11:8080"]
    );
    assert!(pod_at(&cluster, "10.0.0.11:5000").headless.is_empty());
    assert!(pod_at(&cluster, "10.0.0.12:8080").headless.is_empty());
}

#[test]
fn a_pod_that_does_not_exist_gets_no_answer() {
    let (model, _) = shop().compile();
    let unknown = crate::model::PodId::new("shop", "absent");
    let capabilities = wire::capability::Capabilities::default();
    assert!(
        model
            .resolve(&unknown, &Default::default(), &capabilities)
            .is_none()
    );
}

#[test]
fn only_headless_services_without_hostnames_are_alike() {
    for (ip, hostname, alike) in [
        ("None", json!(null), true),
        ("None", json!("api-2"), false),
        ("10.96.0.1", json!(null), false),
    ] {
        // One that is not ready is distinguished from the others all the same.
        let mut named = endpoint("api-2", "10.0.0.12");
        named["hostname"] = hostname.clone();
        named["conditions"]["ready"] = json!(false);
        let cluster = shop().with(service("api", ip, &[("http", 80)])).with(slice(
            "api-x",
            "api",
            &[("http", 8080)],
            &[endpoint("api-1", "10.0.0.11"), named],
        ));
        let resolved = cluster.resolve("client", &["10.0.0.11:8080", "10.96.0.1:80"]);
        let sent = resolved.endpoints("endpoints/shop/api:80");
        assert_eq!(sent.alike, alike, "{ip} {hostname}");
    }
}
