//! What is declared for a port.

use serde_json::json;
use wire::v1::{Protocol, destination::Target};

use crate::{fixtures::*, problem::Reason};

/// The protocol of Service `api` and of container port 8080 behind it.
fn protocols(cluster: &Cluster) -> (Protocol, Protocol) {
    let resolved = cluster.resolve("client", &["10.96.0.1:80", "10.0.0.11:8080"]);
    let pod = match resolved.destination("10.0.0.11:8080") {
        Target::Pod(pod) => pod.protocol(),
        other => panic!("{other:?}"),
    };
    (resolved.service("service/shop/api:80").protocol(), pod)
}

/// `shop` with another port name, and `appProtocol` if given.
fn declared(name: &str, app_protocol: Option<&str>) -> Cluster {
    let mut object = service("api", "10.96.0.1", &[(name, 80)]);
    if let Some(value) = app_protocol {
        object = set(object, "/spec/ports/0/appProtocol", json!(value));
    }
    let endpoints = [
        endpoint("api-1", "10.0.0.11"),
        endpoint("api-2", "10.0.0.12"),
    ];
    shop()
        .with(object)
        .with(slice("api-x", "api", &[(name, 8080)], &endpoints))
}

#[test]
fn app_protocol_overrides_port_name_on_both_sides() {
    use Protocol::{Detect, Grpc, Http1, Opaque};
    for (name, value, expected) in [
        ("http", None, Http1),
        ("tcp-x", None, Opaque),
        ("web", None, Detect),
        ("tcp-x", Some("grpc"), Grpc),
        ("http", Some("example.com/own"), Detect),
    ] {
        assert_eq!(
            protocols(&declared(name, value)),
            (expected, expected),
            "{name} {value:?}"
        );
    }
}

#[test]
fn a_pods_annotation_beats_its_services() {
    let opaque = pod("api-1", "10.0.0.11", "api");
    let opaque = annotate(opaque, "weft.dev/opaque-ports", "8080");
    let cluster = declared("http", None).with(opaque);
    assert_eq!(protocols(&cluster), (Protocol::Opaque, Protocol::Opaque));
    let endpoints = cluster.resolve("client", &["10.96.0.1:80"]);
    let endpoints = endpoints.endpoints("endpoints/shop/api:80").endpoints;
    assert!(endpoints[0].opaque, "the annotated one");
    assert!(!endpoints[1].opaque, "the other one");
}

#[test]
fn a_services_annotation_beats_its_ports() {
    let object = service("api", "10.96.0.1", &[("http", 80)]);
    let cluster = shop().with(annotate(object, "weft.dev/opaque-ports", "80"));
    assert_eq!(protocols(&cluster), (Protocol::Opaque, Protocol::Opaque));
}

#[test]
fn the_namespaces_list_holds_only_where_nothing_is_declared() {
    let ns = annotate(namespace("shop"), "weft.dev/opaque-ports", "8080");
    let opaque = (Protocol::Opaque, Protocol::Opaque);
    assert_eq!(protocols(&declared("web", None).with(ns.clone())), opaque);
    let http = (Protocol::Http1, Protocol::Http1);
    assert_eq!(protocols(&declared("http", None).with(ns)), http);
}

#[test]
fn the_default_opaque_ports_need_no_declaration() {
    let cluster = shop()
        .with(service("db", "10.96.0.2", &[("data", 3306)]))
        .with(slice(
            "db-x",
            "db",
            &[("data", 3306)],
            &[endpoint("api-1", "10.0.0.11")],
        ));
    let resolved = cluster.resolve("client", &["10.96.0.2:3306"]);
    assert_eq!(
        resolved.service("service/shop/db:3306").protocol(),
        Protocol::Opaque
    );
    assert!(resolved.endpoints("endpoints/shop/db:3306").endpoints[0].opaque);
}

#[test]
fn older_service_decides_protocol_and_conflicting_younger_is_warned() {
    let cluster = declared("http", None)
        .with(created(service("young", "10.96.0.3", &[("tcp-x", 80)]), 30))
        .with(slice(
            "young-x",
            "young",
            &[("tcp-x", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ));
    assert_eq!(protocols(&cluster), (Protocol::Http1, Protocol::Http1));
    let resolved = cluster.resolve("client", &["10.96.0.3:80"]);
    assert_eq!(
        resolved.service("service/shop/young:80").protocol(),
        Protocol::Http1
    );
    let (_, problems) = cluster.compile();
    assert_eq!(problems.list.len(), 1);
    assert_eq!(problems.list[0].reason, Reason::ProtocolConflict);
    assert_eq!(problems.list[0].object.to_string(), "Service shop/young");
}

/// A Service: its name, its age, and its ports by name.
type Sharing<'a> = (&'a str, u8, &'a [(&'a str, u16)]);

/// Services with these ports and this age, all of which lead to `api-1` at 8080.
fn sharing(services: &[Sharing<'_>]) -> Cluster {
    let endpoints = [endpoint("api-1", "10.0.0.11")];
    let mut cluster = shop();
    for (n, (name, second, ports)) in services.iter().enumerate() {
        let ip = format!("10.96.0.{}", n + 1);
        let leads_to: Vec<(&str, u16)> = ports.iter().map(|(name, _)| (*name, 8080)).collect();
        cluster = cluster
            .with(created(service(name, &ip, ports), *second))
            .with(slice(&format!("{name}-x"), name, &leads_to, &endpoints));
    }
    cluster
}

fn of_port(cluster: &Cluster, service: &str, at: &str) -> Protocol {
    let resolved = cluster.resolve("client", &[at]);
    let (_, port) = at.split_once(':').unwrap();
    resolved
        .service(&format!("service/shop/{service}:{port}"))
        .protocol()
}

fn of_pod(cluster: &Cluster) -> Protocol {
    match cluster
        .resolve("client", &["10.0.0.11:8080"])
        .destination("10.0.0.11:8080")
    {
        Target::Pod(pod) => pod.protocol(),
        other => panic!("{other:?}"),
    }
}

fn conflicts(cluster: &Cluster) -> Vec<(String, String)> {
    let problems = cluster.compile().1.list.into_iter();
    problems
        .map(|problem| {
            assert_eq!(problem.reason, Reason::ProtocolConflict);
            (problem.object.to_string(), problem.message)
        })
        .collect()
}

#[test]
fn younger_service_takes_no_http_rules_off_a_port() {
    let port = |ports: &[wire::v1::PortProtocol], port: u16| {
        wire::convert::port_protocols(ports).unwrap().lookup(port)
    };
    for younger in ["https", "tls", "grpc", "tcp", "opaque", "redis", "mysql"] {
        // Opaque where no Service declares it, too.
        for number in [8080, 9300] {
            let endpoints = [endpoint("api-1", "10.0.0.11")];
            let of = |name: &str, app_protocol: &str, second| {
                let object = created(service(name, "10.96.0.1", &[("web", 80)]), second);
                set(object, "/spec/ports/0/appProtocol", json!(app_protocol))
            };
            let cluster = shop()
                .with(of("api", "http", 1))
                .with(of("new", younger, 2))
                .with(slice("api-x", "api", &[("web", number)], &endpoints))
                .with(slice("new-x", "new", &[("web", number)], &endpoints));
            let workload = cluster.resolve("api-1", &[]).workload();
            let protocol = port(&workload.ports, number);
            assert!(!protocol.is_opaque(), "{younger} at {number}: {protocol:?}");
        }
    }
}

#[test]
fn http_beside_tls_is_detected_while_ports_keep_protocols() {
    let one: &[Sharing<'_>] = &[("api", 1, &[("http", 80), ("https", 443)])];
    let cluster = sharing(one);
    assert_eq!(of_pod(&cluster), Protocol::Detect);
    assert_eq!(of_port(&cluster, "api", "10.96.0.1:80"), Protocol::Http1);
    assert_eq!(of_port(&cluster, "api", "10.96.0.1:443"), Protocol::Tls);
    let found = conflicts(&cluster);
    let [(object, message)] = found.as_slice() else {
        panic!("{found:?}")
    };
    assert_eq!(object, "Service shop/api");
    assert!(message.starts_with("port 443 ("), "{message}");
    assert!(message.contains("and port 80 (HTTP/1.1) of Service shop/api"));
    assert!(message.contains("without an HTTPRouteGroup"), "{message}");
    assert!(!message.contains("older"), "{message}");
    // Whichever Service is older.
    for (http, https) in [(1, 2), (2, 1), (1, 1)] {
        let cluster = sharing(&[
            ("api", http, &[("grpc", 80)]),
            ("secure", https, &[("https", 443)]),
        ]);
        assert_eq!(of_pod(&cluster), Protocol::Detect);
        assert_eq!(of_port(&cluster, "api", "10.96.0.1:80"), Protocol::Grpc);
        assert_eq!(of_port(&cluster, "secure", "10.96.0.2:443"), Protocol::Tls);
        assert_eq!(conflicts(&cluster).len(), 1);
    }
}

#[test]
fn versions_of_http_do_not_contradict_each_other() {
    let cluster = sharing(&[
        ("api", 2, &[("http", 80), ("h2c", 81)]),
        ("rpc", 1, &[("grpc", 80)]),
    ]);
    assert_eq!(of_pod(&cluster), Protocol::Grpc);
    assert_eq!(of_port(&cluster, "api", "10.96.0.1:80"), Protocol::Http1);
    assert_eq!(of_port(&cluster, "api", "10.96.0.1:81"), Protocol::Http2);
    assert_eq!(of_port(&cluster, "rpc", "10.96.0.2:80"), Protocol::Grpc);
    assert!(conflicts(&cluster).is_empty());
}

#[test]
fn opaque_beside_http_and_tls_goes_by_age() {
    let with = |opaque| {
        sharing(&[
            ("api", 2, &[("http", 80), ("https", 443)]),
            ("bytes", opaque, &[("tcp", 80)]),
        ])
    };
    let older = with(1);
    assert_eq!(of_pod(&older), Protocol::Opaque);
    for port in [80, 443] {
        let at = format!("10.96.0.1:{port}");
        assert_eq!(of_port(&older, "api", &at), Protocol::Opaque);
    }
    let found = conflicts(&older);
    assert_eq!(found.len(), 2, "{found:?}");
    for (object, message) in &found {
        assert_eq!(object, "Service shop/api");
        assert!(message.contains("since Service shop/bytes is older"));
        assert!(message.contains("and port 80 (bytes) of Service shop/bytes"));
    }
    let younger = with(3);
    assert_eq!(of_pod(&younger), Protocol::Detect);
    let found = conflicts(&younger);
    let of_bytes = found
        .iter()
        .find(|(object, _)| object == "Service shop/bytes");
    let (_, message) = of_bytes.unwrap();
    assert!(
        message.contains("taken for whatever its first bytes say"),
        "{message}"
    );
    assert_eq!(of_port(&younger, "bytes", "10.96.0.2:80"), Protocol::Detect);
    assert_eq!(of_port(&younger, "api", "10.96.0.1:443"), Protocol::Tls);
}

#[test]
fn conflict_within_one_service_names_its_lower_port() {
    let cluster = sharing(&[("api", 1, &[("tcp-a", 79), ("http", 80)])]);
    assert_eq!(of_pod(&cluster), Protocol::Opaque);
    let found = conflicts(&cluster);
    assert_eq!(found.len(), 1);
    assert!(found[0].1.contains("since port 79 has the lower number"));
}

#[test]
fn a_service_declares_nothing_for_pods_of_other_namespaces() {
    let foreign = service("spy", "10.96.0.4", &[("tcp-x", 80)]);
    let endpoints = slice(
        "spy-x",
        "spy",
        &[("tcp-x", 8080)],
        &[endpoint("api-1", "10.0.0.11")],
    );
    let cluster = declared("web", None)
        .with(in_namespace(foreign, "other"))
        .with(in_namespace(endpoints, "other"));
    assert_eq!(protocols(&cluster), (Protocol::Detect, Protocol::Detect));
}

#[test]
fn the_servers_proxy_learns_the_same_protocols() {
    let workload = declared("grpc", None).resolve("api-1", &[]).workload();
    let ports = wire::convert::port_protocols(&workload.ports).unwrap();
    assert_eq!(ports.lookup(8080), policy::protocol::Protocol::Grpc);
    assert_eq!(ports.lookup(3306), policy::protocol::Protocol::Opaque);
    assert_eq!(ports.lookup(80), policy::protocol::Protocol::Detect);
}

#[test]
fn the_servers_proxy_learns_which_ports_its_containers_name() {
    let ports = |cluster: Cluster| cluster.resolve("api-1", &[]).workload().ports;
    let of_8080 = |ports: &[wire::v1::PortProtocol]| -> Vec<Protocol> {
        let of = ports
            .iter()
            .filter(|one| (one.first, one.last) == (8080, 8080));
        of.map(wire::v1::PortProtocol::protocol).collect()
    };
    assert_eq!(of_8080(&ports(declared("web", None))), [Protocol::Detect]);
    // The declarations of a port decide before that.
    let protocol = of_8080(&ports(declared("grpc", None)));
    assert_eq!(protocol, [Protocol::Grpc, Protocol::Detect]);
    let ns = annotate(namespace("shop"), "weft.dev/opaque-ports", "8080");
    let protocol = of_8080(&ports(declared("web", None).with(ns)));
    assert_eq!(protocol, [Protocol::Opaque, Protocol::Detect]);
}

// Claims: R6, attack-105
#[test]
fn tls_to_controller_port_passes_unchanged() {
    let own = declared("grpc-tls", None);
    assert_eq!(protocols(&own), (Protocol::Tls, Protocol::Tls));
}

#[test]
fn unreadable_port_list_is_ignored_and_reported() {
    let object = service("api", "10.96.0.1", &[("http", 80)]);
    let cluster = shop().with(annotate(object, "weft.dev/opaque-ports", "80,x"));
    assert_eq!(protocols(&cluster).0, Protocol::Http1);
    assert_eq!(cluster.compile().1.list[0].reason, Reason::Invalid);
    let namespace = annotate(namespace("shop"), "weft.dev/opaque-ports", "80,x");
    let (_, problems) = shop().with(namespace).compile();
    assert_eq!(problems.list[0].object.to_string(), "Namespace shop");
}
