//! Calls that a TrafficSplit shared out: each backend has an account and ports of its own.
//!
//! Claims: observe-6

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{edge, judged, suggested};

/// A call of Service `cart` that this backend got, by a workload that serves it.
fn shared_out(to: &str, backend: &str) -> Value {
    let of = |name: &str| format!("shop/{name}");
    let more = json!({"service": of("cart"), "backend": of(backend), "split": of("cart")});
    edge("web", to, 80, more)
}

/// The allowed ports by the account of the pods.
fn allowed(objects: &[Value]) -> BTreeMap<String, Value> {
    judged(objects);
    let targets = objects.iter().filter(|one| one["kind"] == "TrafficTarget");
    let ports = targets.map(|target| {
        let spec = &target["spec"];
        assert_eq!(spec["sources"][0]["name"], "web", "{target}");
        let mut routes = objects.iter().filter(|one| one["kind"] == "TCPRoute");
        let named = &spec["rules"][0]["name"];
        let route = routes.find(|one| one["metadata"]["name"] == *named);
        let to = spec["destination"]["name"].as_str().unwrap().to_owned();
        (to, route.unwrap()["spec"]["matches"]["ports"].clone())
    });
    ports.collect()
}

#[test]
fn each_called_backend_is_allowed_on_own_ports() {
    let both = [shared_out("cart", "cart"), shared_out("job", "cart-v2")];
    let (objects, calls) = suggested(&both, false);
    assert_eq!(calls.left, [] as [String; 0]);
    let expected = [("cart", json!([8080])), ("job", json!([9090]))];
    let expected = expected.map(|(to, ports)| (to.to_owned(), ports));
    assert_eq!(allowed(&objects), BTreeMap::from(expected));
    // For a backend without calls so far nothing is suggested: once it has weight, `suggest` is run
    // again.
    let (objects, _) = suggested(&both[..1], false);
    let one = [("cart".to_owned(), json!([8080]))];
    assert_eq!(allowed(&objects), BTreeMap::from(one));
}

#[test]
fn backend_without_endpoints_is_skipped_and_named() {
    let (objects, calls) = suggested(&[shared_out("job", "cart-v3")], false);
    assert_eq!(objects, [] as [Value; 0]);
    let left = &calls.left;
    let words = "no endpoint of shop/cart-v3 says which container port this is";
    assert!(left.len() == 1 && left[0].contains(words), "{left:?}");
}
