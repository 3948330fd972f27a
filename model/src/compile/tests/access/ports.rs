//! Ports of routes and of old destinations.

use super::*;

#[test]
fn a_route_without_ports_means_every_port() {
    let cluster = cluster().with(tcp_route("ports", &[])).with(target(
        "t",
        "api",
        &["web"],
        json!([tcp_rule()]),
    ));
    assert!(tcp(&cluster, "web", 1) && tcp(&cluster, "web", 65535));
}

#[test]
fn route_with_only_invalid_ports_matches_no_port() {
    let wrong = tcp_route("ports", &[0, 70_000]);
    let unreadable = set(
        tcp_route("ports", &[]),
        "/spec/matches/ports",
        json!(["8080"]),
    );
    for object in [wrong, unreadable] {
        let cluster =
            cluster()
                .with(object)
                .with(target("t", "api", &["web"], json!([tcp_rule()])));
        assert!(!tcp(&cluster, "web", 8080));
        assert!(
            !report(&cluster.compile().1, "TCPRoute ports")
                .accepted
                .status
        );
    }
}

#[test]
fn the_port_of_an_old_destination_limits_every_rule() {
    let limited = |rules: Value, port: i64| {
        let object = target("t", "api", &["web"], rules);
        cluster().with(set(object, "/spec/destination/port", json!(port)))
    };
    assert!(tcp(&limited(json!([tcp_rule()]), 8080), "web", 8080));
    assert!(!tcp(&limited(json!([tcp_rule()]), 9090), "web", 8080));
    assert!(!tcp(&limited(json!([tcp_rule()]), 9090), "web", 9090));
    let both = json!([http_rule(None), tcp_rule()]);
    assert!(http(&limited(both.clone(), 8080), "web", "GET", "/api"));
    assert!(!http(&limited(both.clone(), 9090), "web", "GET", "/api"));
    assert!(!http(&limited(both, 0), "web", "GET", "/api"));
    assert!(!tcp(&limited(json!([tcp_rule()]), 0), "web", 8080));
}

#[test]
fn destination_port_with_http_rules_admits_only_matching_requests() {
    let object = target("t", "api", &["web"], json!([http_rule(Some(&["metrics"]))]));
    let limited =
        |port: i64| cluster().with(set(object.clone(), "/spec/destination/port", json!(port)));
    for port in [8080, 80] {
        // 80 is the port of Service api, which leads to 8080.
        let cluster = limited(port);
        assert!(http_at(&cluster, "web", 8080, "GET", "/metrics"));
        assert!(!http_at(&cluster, "web", 8080, "POST", "/metrics"));
        assert!(!http_at(&cluster, "web", 8080, "GET", "/api"));
        assert!(!http_at(&cluster, "web", 9090, "GET", "/metrics"));
        for raw in [80, 8080, 9090] {
            assert!(!tcp(&cluster, "web", raw), "raw TCP was never asked for");
        }
        let (_, problems) = cluster.compile();
        let condition = &report(&problems, "TrafficTarget t").accepted;
        let reason = if port == 80 {
            "ServicePortMapped"
        } else {
            "Accepted"
        };
        assert_eq!((condition.status, condition.reason), (true, reason));
    }
    let cluster = limited(0);
    assert!(!http_at(&cluster, "web", 8080, "GET", "/metrics"));
    let expected = [(Reason::Invalid, "spec.destination.port")];
    assert_eq!(failures(&cluster.compile().1, Accepted), expected);
    // A proxy of the first version must not take it for a rule without a limit.
    let names = limited(8080).resolve("api-1", &[]);
    assert!(names.names().contains(&"extended-rule/shop/t"));
    assert!(!names.names().contains(&"rule/shop/t"));
}

#[test]
fn destination_port_with_udp_rules_leaves_tcp_unchanged() {
    let rules = json!([{"kind": "UDPRoute", "name": "dns"}]);
    let object = set(
        target("t", "api", &["web"], rules),
        "/spec/destination/port",
        json!(8080),
    );
    let cluster = cluster().with(udp_route("dns", &[53])).with(object);
    let access = access(&cluster, "api-1");
    assert!(access.rules.is_empty());
    assert_eq!(access.enforcement, Enforcement::Open);
}

#[test]
fn port_known_only_to_service_maps_to_container_port() {
    // Service api: 80 to 8080.
    let rule = json!([tcp_rule()]);
    let cluster =
        cluster()
            .with(tcp_route("ports", &[80]))
            .with(target("t", "api", &["web"], rule));
    assert!(tcp(&cluster, "web", 8080) && !tcp(&cluster, "web", 80));
    let (_, problems) = cluster.compile();
    let condition = &report(&problems, "TrafficTarget t").accepted;
    assert_eq!(
        (condition.status, condition.reason),
        (true, "ServicePortMapped")
    );
    // A container port of that number wins.
    let own = set(
        pod("api-1", "10.0.0.11", "api"),
        "/spec/containers/0/ports",
        json!([{"containerPort": 80}]),
    );
    let cluster = cluster.with(own);
    assert!(tcp(&cluster, "web", 80) && !tcp(&cluster, "web", 8080));
}

#[test]
fn undeclared_port_means_itself() {
    let rules = json!([tcp_rule()]);
    let cluster =
        cluster()
            .with(tcp_route("ports", &[4000]))
            .with(target("t", "api", &["web"], rules));
    assert!(tcp(&cluster, "web", 4000));
    assert!(complaints(&cluster).is_empty());
}

#[test]
fn skipped_ports_are_mentioned_on_the_target() {
    let args = json!(["capture", "--skip-inbound-ports=9090"]);
    let skipping = set(
        pod("api-1", "10.0.0.11", "api"),
        "/spec/initContainers/0/args",
        args,
    );
    let cluster = cluster()
        .with(skipping)
        .with(target("t", "api", &["web"], json!([tcp_rule()])));
    let (_, problems) = cluster.compile();
    assert_eq!(
        report(&problems, "TrafficTarget t").accepted.reason,
        "PortSkipped"
    );
}

// Claims: A1
#[test]
fn mixed_rules_on_undeclared_port_advise_declaring_it() {
    let both = || target("t", "api", &["web"], json!([http_rule(None), tcp_rule()]));
    let reported = |cluster: &Cluster| {
        let condition = report(&cluster.compile().1, "TrafficTarget t")
            .accepted
            .clone();
        assert!(condition.status, "a warning refuses nothing");
        (condition.reason, condition.message)
    };
    let renamed = |name: &str| {
        cluster()
            .with(service("api", "10.96.0.1", &[(name, 80)]))
            .with(slice(
                "api-x",
                "api",
                &[(name, 8080)],
                &[
                    endpoint("api-1", "10.0.0.11"),
                    endpoint("api-2", "10.0.0.12"),
                ],
            ))
            .with(both())
    };
    // Service api names its port http.
    let declared = cluster().with(both());
    assert_eq!(reported(&declared).0, "Accepted");
    assert_eq!(reported(&renamed("tcp")).0, "Accepted");
    let (reason, message) = reported(&renamed("web"));
    assert_eq!(reason, "ProtocolNotDeclared");
    assert!(
        message.contains("spec.rules: port 8080 of api"),
        "{message}"
    );
    // Every port: those that are declared.
    let any = renamed("web").with(tcp_route("ports", &[]));
    assert!(
        reported(&any).1.contains("port 8080"),
        "{:?}",
        reported(&any)
    );
    // A port that the target does not reach, and rules of one kind, change nothing.
    let elsewhere = set(both(), "/spec/destination/port", json!(9090));
    assert_eq!(reported(&renamed("web").with(elsewhere)).0, "Accepted");
    for rules in [json!([http_rule(None)]), json!([tcp_rule()])] {
        let one = renamed("web").with(target("t", "api", &["web"], rules));
        assert_eq!(reported(&one).0, "Accepted");
    }
}

#[test]
fn tls_never_satisfies_http_rules_beside_it() {
    let both = target("t", "api", &["web"], json!([http_rule(None), tcp_rule()]));
    let cluster = cluster()
        .with(service("api", "10.96.0.1", &[("http", 80), ("https", 443)]))
        .with(slice(
            "api-x",
            "api",
            &[("http", 8080), ("https", 8080)],
            &[endpoint("api-1", "10.0.0.11")],
        ))
        .with(both);
    let workload = cluster.resolve("api-1", &[]).workload();
    let ports = wire::convert::port_protocols(&workload.ports).unwrap();
    assert!(!ports.lookup(8080).is_opaque());
    let id = id("web");
    let access = access(&cluster, "api-1");
    let bytes = access.decide(Caller::mesh(&id), 8080, EvaluatedTraffic::Bytes);
    assert!(!bytes.is_allowed());
    assert!(http(&cluster, "web", "GET", "/api"));
    let (_, problems) = cluster.compile();
    let condition = &report(&problems, "TrafficTarget t").accepted;
    assert_eq!(
        (condition.status, condition.reason),
        (true, "ProtocolConflict")
    );
    assert!(
        condition.message.contains("as HTTP and as TLS"),
        "{}",
        condition.message
    );
}
