//! Where a call goes by, and where it comes from: past the proxy, by another name, from
//! several nodes.
//!
//! Claims: observe-36, observe-37

use super::*;

/// Pod `client` with these arguments of its traffic capture.
fn client(arguments: &[&str]) -> Value {
    let arguments = [&["capture"][..], arguments].concat();
    let pod = pod("client", "10.0.0.1", "web");
    set(pod, "/spec/initContainers/0/args", json!(arguments))
}

#[test]
fn capture_skipped_call_has_no_identity_or_split() {
    let query = spec("Pod/client", "Service/api", "GET", "/items");
    for arguments in [
        &["--skip-outbound-ports=79-80"][..],
        &["--skip-outbound-cidrs", "10.96.0.0/16,fd00::/8"][..],
    ] {
        let cluster = read_only().with(client(arguments));
        let status = explain(&cluster, &query);
        assert_eq!(
            (status.verdict, status.reason.as_str()),
            (ExplanationVerdict::Refused, "no-identity"),
            "{arguments:?}: {status:?}"
        );
        assert!(texts(&status, "who")[0].contains("leaves this call out"));
        let fix = status.fix.clone().unwrap();
        assert!(fix.commands[0].contains("skip-outbound"), "{fix:?}");
        let split = cluster.with(split("s", "api", &[("api", 0), ("v2", 0)]));
        assert_eq!(
            explain(&split, &query).reason,
            "no-identity",
            "{arguments:?}"
        );
    }
    // What is captured is judged as ever.
    for arguments in [
        &["--skip-outbound-ports=81,8080"][..],
        &["--skip-outbound-cidrs=10.97.0.0/16"][..],
        &["--skip-inbound-ports=80"][..],
    ] {
        let status = explain(&read_only().with(client(arguments)), &query);
        assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{arguments:?}");
    }
    // By a pod's own address it is that address and port that count, and no split.
    let own = spec("Pod/client", "Pod/api-1", "GET", "/items");
    for (arguments, verdict) in [
        (
            &["--skip-outbound-ports=8080"][..],
            ExplanationVerdict::Refused,
        ),
        (
            &["--skip-outbound-cidrs=10.0.0.11"][..],
            ExplanationVerdict::Refused,
        ),
        (
            &["--skip-outbound-ports=80"][..],
            ExplanationVerdict::Allowed,
        ),
    ] {
        let status = explain(&read_only().with(client(arguments)), &own);
        assert_eq!(status.verdict, verdict, "{arguments:?}");
        let route = texts(&status, "route").join("; ");
        assert!(route.contains("past every TrafficSplit"), "{route}");
    }
}

fn alias(to: &str) -> Value {
    let alias = set(service("alias", "", &[("http", 80)]), "/spec", json!({}));
    let spec = json!({"type": "ExternalName", "externalName": to, "ports": [{"name": "http", "port": 80}]});
    set(alias, "/spec", spec)
}

#[test]
fn external_name_of_service_is_evaluated_as_service() {
    let query = spec("Pod/client", "Service/alias", "DELETE", "/items");
    let with = |name: &str| explain(&read_only().with(alias(name)), &query);
    for name in [
        "api.shop.svc.cluster.local",
        "api.shop.svc.cluster.local.",
        "API.shop.svc",
    ] {
        let status = with(name);
        assert_eq!(
            (status.verdict, status.reason.as_str()),
            (ExplanationVerdict::Refused, "not-allowed"),
            "{name}"
        );
    }
    // Of what the cluster's names lead to nothing is promised that is not known.
    for name in [
        "nothing.shop.svc.cluster.local",
        "api-1.api.shop.svc.cluster.local",
        "10-0-0-11.shop.pod.cluster.local",
        "alias.shop.svc.cluster.local",
        "ledger.bank.svc.cluster.local",
    ] {
        assert_eq!(with(name).verdict, ExplanationVerdict::Unknown, "{name}");
    }
    assert_eq!(with("api.example.com").verdict, ExplanationVerdict::Allowed);
}

#[test]
fn callers_are_evaluated_per_node_when_locality_matters() {
    let on =
        |name: &str, ip: &str, node: &str| set(pod(name, ip, "web"), "/spec/nodeName", json!(node));
    let cluster = shop().with(on("front-1", "10.0.0.61", "node-a")).with(on(
        "front-2",
        "10.0.0.62",
        "node-b",
    ));
    let query = spec("Deployment/front", "Service/api", "GET", "/");
    assert_eq!(
        explain(&cluster, &query).verdict,
        ExplanationVerdict::Allowed
    );
    let local = set(
        service("api", "10.96.0.1", &[("http", 80)]),
        "/spec/internalTrafficPolicy",
        json!("Local"),
    );
    let status = explain(&cluster.clone().with(local.clone()), &query);
    assert_eq!(status.verdict, ExplanationVerdict::Mixed, "{status:?}");
    // A split's backend may be the one.
    let root = service("root", "10.96.0.9", &[("http", 80)]);
    let cluster = cluster
        .with(local)
        .with(root)
        .with(split("s", "root", &[("api", 1)]));
    let query = spec("Deployment/front", "Service/root", "GET", "/");
    assert_eq!(explain(&cluster, &query).verdict, ExplanationVerdict::Mixed);
}

/// Service `api` with a port of this name, to this port of its pods.
fn named(name: &str, port: u16) -> Cluster {
    let endpoints = [
        endpoint("api-1", "10.0.0.11"),
        endpoint("api-2", "10.0.0.12"),
    ];
    shop()
        .with(service("api", "10.96.0.1", &[(name, 80)]))
        .with(slice("api-x", "api", &[(name, port)], &endpoints))
}

/// Service `api` with ports 80 and 443 to one container port.
pub(super) fn http_and_https() -> Cluster {
    let endpoints = [
        endpoint("api-1", "10.0.0.11"),
        endpoint("api-2", "10.0.0.12"),
    ];
    let ports = [("http", 8080), ("https", 8080)];
    shop()
        .with(service("api", "10.96.0.1", &[("http", 80), ("https", 443)]))
        .with(slice("api-x", "api", &ports, &endpoints))
}

#[test]
fn the_wire_says_by_what_its_protocol_holds() {
    const OPAQUE: &str = "weft.dev/opaque-ports";
    let api = service("api", "10.96.0.1", &[("http", 80)]);
    let grpc = set(api.clone(), "/spec/ports/0/appProtocol", json!("grpc"));
    let annotated = |name, ip| annotate(pod(name, ip, "api"), OPAQUE, "8080");
    let shop_says = annotate(namespace("shop"), OPAQUE, "8080");
    let ours = [
        shop(),
        shop().with(grpc),
        shop().with(annotate(api, OPAQUE, "80")),
        shop()
            .with(annotated("api-1", "10.0.0.11"))
            .with(annotated("api-2", "10.0.0.12")),
        named("web", 8080).with(shop_says.clone()),
        // What a Service declares goes before.
        shop().with(shop_says),
        named("web", 6379),
        named("web", 8080),
        http_and_https(),
    ];
    let expected = [
        "HTTP/1.1 on port 8080: port name http of Service shop/api",
        "gRPC on port 8080: appProtocol grpc of Service shop/api",
        "bytes on port 8080: annotation weft.dev/opaque-ports of Service shop/api",
        "bytes on port 8080: annotation weft.dev/opaque-ports of the pod",
        "bytes on port 8080: annotation weft.dev/opaque-ports of namespace shop",
        "HTTP/1.1 on port 8080: port name http of Service shop/api",
        "bytes on port 6379: it is among the ports that carry bytes unless declared otherwise",
        "whatever its first bytes say on port 8080: no object declares it",
        "whatever its first bytes say on port 8080: port name http of Service shop/api and port \
         name https of Service shop/api contradict each other",
    ];
    for (cluster, expected) in ours.iter().zip(expected) {
        let mut question = spec("Pod/client", "Service/api", "GET", "/");
        question.to.port = expected.contains("https").then_some(80);
        let status = explain(cluster, &question);
        let mut steps = status.steps.iter().filter(|one| one.step == "wire");
        let wire = steps.next().unwrap();
        let secured = "mutual TLS as spiffe://cluster.local/ns/shop/sa/api; ";
        assert_eq!(wire.text, format!("{secured}{expected}"));
        let named = expected.contains("of Service shop/api");
        assert_eq!(wire.objects, vec!["Service shop/api"; usize::from(named)]);
        assert_eq!(steps.next(), None, "{expected}");
    }
}

/// Its name leads to pods, and nothing maps ports there.
#[test]
fn port_of_a_headless_service_is_the_pods_own() {
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"},
        {"kind": "TCPRoute", "name": "port"}]);
    let limited = || {
        read_only().with(tcp_route("port", &[8080])).with(target(
            "read",
            "api",
            &["web"],
            rules.clone(),
        ))
    };
    let headless = limited().with(service("api", "None", &[("http", 80)]));
    let at = |cluster: &Cluster, port: Option<u16>| {
        let mut query = spec("Pod/client", "Service/api", "GET", "/items/7");
        query.to.port = port;
        let status = explain(cluster, &query);
        let [route, wire] = ["route", "wire"].map(|step| texts(&status, step).join("; "));
        (status.verdict, route, wire)
    };
    let (allowed, refused) = (ExplanationVerdict::Allowed, ExplanationVerdict::Refused);
    let words = "port 80 of the Service is port 8080, which clients have to call";
    for (port, expected, met) in [
        (Some(80), refused, "on port 80"),
        (Some(8080), allowed, "HTTP/1.1 on port 8080"),
        (None, allowed, "HTTP/1.1 on port 8080"),
    ] {
        let (verdict, route, wire) = at(&headless, port);
        assert_eq!(verdict, expected, "{port:?}: {route}");
        assert!(route.contains(words), "{port:?}: {route}");
        assert!(wire.contains(met), "{port:?}: {wire}");
    }
    let (verdict, ..) = at(&headless, Some(81));
    assert_eq!(verdict, ExplanationVerdict::Unknown);
    // Control: an address of its own maps the port, and has no other one.
    let (verdict, route, wire) = at(&limited(), Some(80));
    assert!(verdict == allowed && !route.contains(words), "{route}");
    assert!(wire.contains("HTTP/1.1 on port 8080"), "{wire}");
    assert_eq!(at(&limited(), Some(8080)).0, ExplanationVerdict::Unknown);
}

/// Whose client chose a pod by its address; only a request says which Service it names.
#[test]
fn bytes_to_a_headless_service_follow_no_split() {
    let databases = |ip: &str| {
        shop()
            .with(service("db", ip, &[("tcp", 5432)]))
            .with(service("db-v2", "10.96.0.8", &[("tcp", 5432)]))
            .with(slice(
                "db-x",
                "db",
                &[("tcp", 8080)],
                &[endpoint("api-1", "10.0.0.11")],
            ))
            .with(split("s", "db", &[("db-v2", 1)]))
    };
    let bytes = ExplanationSpec {
        tcp: true,
        method: None,
        path: None,
        ..spec("Pod/client", "Service/db", "GET", "/")
    };
    let follows = |ip: &str| {
        let status = explain(&databases(ip), &bytes);
        let route = texts(&status, "route").join("; ");
        route.contains("TrafficSplit")
    };
    assert!(!follows("None"));
    assert!(
        follows("10.96.0.7"),
        "control: of one with an address they do"
    );
}
