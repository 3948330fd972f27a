//! Calls that are no request of HTTP/1.1: gRPC, whose streams are served long before they end,
//! and bytes, which have no routes.
//!
//! Claims: observe-6

use serde_json::{Value, json};

use super::{edge, judged, route, rules, suggested};

/// Ports of the only TCPRoute of these objects.
fn on_ports(objects: &[Value]) -> &Value {
    judged(objects);
    let mut routes = objects.iter().filter(|one| one["kind"] == "TCPRoute");
    let found = &routes.next().unwrap()["spec"]["matches"]["ports"];
    assert_eq!(routes.next(), None);
    found
}

/// A call that started and has not ended: it is counted only as open.
fn open(protocol: &str) -> Value {
    json!({"protocol": protocol, "requests": 0, "success": 0, "opened": 1, "open": 1})
}

#[test]
fn what_is_still_open_is_served_in_every_protocol() {
    for (to, port, own, protocol) in [
        ("cart", 80, 8080, "grpc"),
        ("cart", 80, 8080, "http2"),
        ("db", 5432, 15432, "tcp"),
        ("db", 5432, 15432, "tls"),
    ] {
        for by_route in [false, true] {
            let edges = [edge("web", to, port, open(protocol))];
            let (objects, calls) = suggested(&edges, by_route);
            assert_eq!(on_ports(&objects), &json!([own]), "{protocol}");
            assert_eq!(calls.left, [] as [String; 0], "{protocol}");
        }
        // Control: that it once was open means nothing.
        let mut gone = open(protocol);
        gone["open"] = json!(0);
        let (objects, calls) = suggested(&[edge("web", to, port, gone)], false);
        assert_eq!(objects, [] as [Value; 0], "{protocol}");
        assert_eq!(calls.left.len(), 1, "{protocol}");
    }
}

#[test]
fn grpc_is_allowed_by_routes_like_other_requests() {
    let routes = json!([route("cart/add", 5, 0), route("cart/watch", 0, 0)]);
    let called = json!({"protocol": "grpc", "open": 1, "routes": routes});
    let (objects, calls) = suggested(&[edge("web", "cart", 80, called.clone())], true);
    assert_eq!(calls.words().count(), 0);
    let [port, group] = rules(&objects) else {
        panic!("{objects:?}")
    };
    assert_eq!(port["kind"], "TCPRoute");
    assert_eq!(group["matches"], json!(["add", "watch"]));
    // A stream alone, of which no request has ended.
    let mut watching = called;
    for (field, value) in [("requests", 0), ("success", 0)] {
        watching[field] = json!(value);
    }
    watching["routes"] = json!([route("cart/watch", 0, 0)]);
    let (objects, _) = suggested(&[edge("web", "cart", 80, watching)], true);
    assert_eq!(rules(&objects)[1]["matches"], json!(["watch"]));
    // The status of a response is in its trailers; what failed by it was not served.
    let failed = json!({"protocol": "grpc", "success": 0, "failure": 5});
    let (objects, calls) = suggested(&[edge("web", "cart", 80, failed)], true);
    assert_eq!(objects, [] as [Value; 0]);
    assert!(calls.left[0].contains("was not served"), "{:?}", calls.left);
}

/// A route that the called workload has is none of its bytes'.
#[test]
fn raw_tcp_is_allowed_by_port_without_warning() {
    for protocol in ["tcp", "tls", "unknown"] {
        let called = json!({"protocol": protocol, "routes": [route("cart/add", 5, 0)]});
        let (objects, calls) = suggested(&[edge("web", "db", 5432, called)], true);
        assert_eq!(rules(&objects).len(), 1, "{protocol}");
        assert_eq!(on_ports(&objects), &json!([15432]), "{protocol}");
        assert_eq!(calls.words().count(), 0, "{protocol}");
        // A connection that broke was let in; one that was not allowed would be.
        let with = |more: Value| {
            let mut called = json!({"protocol": protocol, "success": 3, "failure": 2});
            called["refused"] = more;
            suggested(&[edge("web", "db", 5432, called)], true)
        };
        assert_eq!(with(json!({})).0.len(), 2, "{protocol}");
        let (objects, calls) = with(json!({"not-allowed": 2}));
        assert_eq!(objects, [] as [Value; 0], "{protocol}");
        assert!(
            calls.left[0].contains("2 of its calls were not allowed"),
            "{:?}",
            calls.left
        );
    }
}
