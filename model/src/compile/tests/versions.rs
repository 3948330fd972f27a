//! The same objects give the resources that earlier controllers gave: a replica of
//! another version, or one that starts anew, must not make every proxy take its
//! configuration again.

use std::fmt::Write;

use serde_json::{Value, json};

use crate::{
    fixtures::*,
    model::{Defaults, Model},
};

/// What the pods below held before the way from objects to bytes was last changed. A line changes
/// only with what is sent to proxies.
const EXPECTED: &str = include_str!("versions.txt");

const PODS: [&str; 6] = ["client", "api-1", "api-2", "db", "plain", "bound"];

const ASKED: [&str; 15] = [
    "10.96.0.1:80",
    "10.96.0.1:81",
    "10.96.0.11:80",
    "10.96.0.12:80",
    "10.96.0.13:5432",
    "10.96.0.14:9000",
    "192.0.2.7:80",
    "10.0.0.11:8080",
    "10.0.0.12:8080",
    "10.0.0.12:9090",
    "10.0.0.20:5432",
    "10.0.0.30:8080",
    "[fd00::12]:8080",
    "10.0.0.11:15190",
    "1.2.3.4:5",
];

#[test]
fn the_same_objects_give_the_same_versions_as_before() {
    let (model, _) = town().compile_with(&Defaults::default());
    let mut listing = String::new();
    for pod in PODS {
        for (name, published) in resolve(&model, pod, &ASKED) {
            let _ = writeln!(listing, "{pod} {name} {}", published.resource.version);
        }
    }
    // To be put below where they change on purpose.
    println!("{listing}");
    for (line, (before, now)) in EXPECTED.lines().zip(listing.lines()).enumerate() {
        assert_eq!(now, before, "line {}", line + 1);
    }
    assert_eq!(listing, EXPECTED);
}

#[test]
fn the_same_versions_come_from_compiling_after_another_world() {
    let (objects, defaults) = (town(), Defaults::default());
    let (before, problems) = shop().compile_with(&defaults);
    let world = objects.world();
    let (after, ..) = Model::compile_after(&world, &defaults, &before, &problems.into());
    let (whole, _) = objects.compile_with(&defaults);
    for pod in PODS {
        let (after, whole) = (resolve(&after, pod, &ASKED), resolve(&whole, pod, &ASKED));
        assert_eq!(after, whole, "{pod}");
    }
}

/// Something of everything that a resource can hold.
fn town() -> Cluster {
    policies(services(shop().with(namespace("other"))))
}

fn services(cluster: Cluster) -> Cluster {
    let ready = |ready: bool, at: Value| set(at, "/conditions/ready", json!(ready));
    let leaving = |at: Value| {
        let at = ready(false, at);
        set(at, "/conditions/terminating", json!(true))
    };
    let nowhere = json!({"addresses": ["10.9.9.9"], "conditions": {"ready": true}});
    let both = set(
        pod("api-2", "10.0.0.12", "api"),
        "/status/podIPs",
        json!([{"ip": "10.0.0.12"}, {"ip": "fd00::12"}]),
    );
    let skipping = annotate(
        pod("bound", "10.0.0.30", "bound"),
        "weft.dev/opaque-ports",
        "7000-7002,8080",
    );
    let skipping = set(skipping, "/metadata/labels", json!({"app": "bound"}));
    let skipping = set(skipping, "/spec/nodeName", json!("node-b"));
    let sticky = set(
        service("v1", "10.96.0.11", &[("http", 80), ("grpc-x", 81)]),
        "/spec/sessionAffinity",
        json!("ClientIP"),
    );
    let local = set(
        service("v2", "10.96.0.12", &[("http2", 80)]),
        "/spec/internalTrafficPolicy",
        json!("Local"),
    );
    let outer = set(
        service("outer", "10.96.0.14", &[("", 9000), ("web", 80)]),
        "/spec/externalIPs",
        json!(["192.0.2.7"]),
    );
    cluster
        .with(both)
        .with(skipping)
        .with(pod("db", "10.0.0.20", "db"))
        .with(plain_pod("plain", "10.0.0.40", "plain"))
        .with(sticky)
        .with(slice(
            "v1-x",
            "v1",
            &[("http", 8080), ("grpc-x", 9090)],
            &[
                endpoint("api-1", "10.0.0.11"),
                endpoint("plain", "10.0.0.40"),
                nowhere,
            ],
        ))
        .with(local)
        .with(slice(
            "v2-x",
            "v2",
            &[("http2", 8080)],
            &[
                endpoint("bound", "10.0.0.30"),
                leaving(endpoint("api-2", "10.0.0.12")),
            ],
        ))
        .with(service("pg", "10.96.0.13", &[("tcp-pg", 5432)]))
        .with(slice(
            "pg-x",
            "pg",
            &[("tcp-pg", 5432)],
            &[leaving(endpoint("db", "10.0.0.20"))],
        ))
        .with(outer)
        .with(service("head", "None", &[("http", 8080)]))
        .with(slice(
            "head-x",
            "head",
            &[("http", 8080)],
            &[
                endpoint("api-2", "10.0.0.12"),
                ready(false, endpoint("api-1", "10.0.0.11")),
            ],
        ))
}

fn policies(cluster: Cluster) -> Cluster {
    let rule = |kind: &str, name: &str| json!({"kind": kind, "name": name});
    let matches = json!([
        {"name": "reads", "pathRegex": "/items/[0-9]+", "methods": ["GET", "head"]},
        {"name": "any", "methods": ["*"]},
        {"name": "bad", "pathRegex": "("},
        {"name": "marked", "methods": ["POST"],
            "headers": [{"x-tier": "gold|silver"}, {"host": "api\\.shop"}]},
        {"name": "umlaut", "pathRegex": "/stra\u{df}e"},
    ]);
    let some = json!([{"kind": "HTTPRouteGroup", "name": "routes",
        "matches": ["marked", "reads", "none"]}]);
    let limited = set(
        target(
            "limited",
            "api",
            &["web"],
            json!([rule("HTTPRouteGroup", "routes")]),
        ),
        "/spec/destination/port",
        json!(80),
    );
    let everybody = set(
        target("everybody", "api", &[], json!([rule("TCPRoute", "open")])),
        "/spec/sources",
        json!([
            {"kind": "AuthenticatedPrincipals", "name": "all"},
            {"kind": "UnauthenticatedPrincipals", "name": "all"},
            {"kind": "ServiceAccount", "name": "web", "namespace": "other"},
        ]),
    );
    let bound = set(
        target("bound", "db", &["web"], json!([rule("TCPRoute", "ports")])),
        "/spec/sources/0",
        json!({"kind": "IdentityBinding", "name": "callers", "namespace": "shop"}),
    );
    let guarded = set(
        target(
            "guarded",
            "bound",
            &["web", "api"],
            json!([rule("TCPRoute", "none")]),
        ),
        "/spec/destination",
        json!({"kind": "IdentityBinding", "name": "callers"}),
    );
    let conditional = set(
        split("conditional", "api", &[("v1", 3), ("v2", 0)]),
        "/spec/matches",
        json!([rule("HTTPRouteGroup", "routes")]),
    );
    let open = set(tcp_route("open", &[]), "/spec/matches", json!({}));
    cluster
        .with(group("routes", matches))
        .with(tcp_route("ports", &[80, 5432]))
        .with(tcp_route("none", &[]))
        .with(open)
        .with(udp_route("dns", &[53]))
        .with(binding(
            "callers",
            json!({"podLabelSelector": {"matchLabels": {"app": "bound"}}}),
        ))
        .with(conditional)
        .with(split("always", "api", &[("v1", 1), ("v2", 2), ("v9", 3)]))
        .with(split("lost", "head", &[("pg", 1)]))
        .with(target("some", "api", &["web", "bound"], some))
        .with(target(
            "both",
            "api",
            &["web"],
            json!([rule("HTTPRouteGroup", "routes"), rule("TCPRoute", "ports")]),
        ))
        .with(target(
            "udp",
            "api",
            &["web"],
            json!([rule("UDPRoute", "dns")]),
        ))
        .with(target(
            "ghost",
            "api",
            &["web"],
            json!([rule("TCPRoute", "ghost")]),
        ))
        .with(limited)
        .with(everybody)
        .with(bound)
        .with(guarded)
}
