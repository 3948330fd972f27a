//! Random TrafficSplits with the Services and HTTPRouteGroups that they name.

use oracle::World;
use oracle::random::Random;
use serde_json::{Value, json};

pub(crate) const SHOP: &str = "shop";
pub(crate) const ROOT: &str = "cart";
/// Ports of the Service, and whether they carry HTTP.
pub(crate) const PORTS: [(u16, bool); 3] = [(80, true), (81, true), (90, false)];

const BACKENDS: [&str; 4] = [ROOT, "cart-v1", "cart-v2", "cart-v3"];
const PATHS: [&str; 8] = [
    "/api",
    "/api$",
    "^/api/v[12]",
    "/",
    ".*",
    "/admin|/api",
    "(?i)/API/.*",
    "/.*n$",
];
const METHODS: [&str; 5] = ["GET", "POST", "PUT", "PATCH", "*"];
const HEADERS: [(&str, &str); 9] = [
    ("x-role", "admin"),
    ("X-Role", "admin|user"),
    ("x-role", ".*"),
    ("x-role", ""),
    ("x-many", "a+"),
    ("cookie", ".*user=a.*"),
    ("cookie", "b=c"),
    ("host", "api.*"),
    ("user-agent", ".*Android.*"),
];

/// A split of [`ROOT`], and what it names.
pub(crate) fn world(random: &mut Random) -> World {
    let mut objects = vec![service(ROOT, &PORTS)];
    for name in &BACKENDS[1..] {
        let missing = usize::from(random.percent(20));
        objects.push(service(name, &PORTS[missing..]));
    }
    let groups = ["first", "second"];
    for name in groups {
        objects.push(group(name, random));
    }
    let backends = (0..1 + random.below(4)).map(|_| {
        let weight = random.of(&[0, 1, 5, 10, 50, 90, 99, 1_000_000, 2_000_000]);
        json!({"service": random.pick(&BACKENDS), "weight": weight})
    });
    let mut spec = json!({"service": ROOT, "backends": backends.collect::<Vec<_>>()});
    if random.percent(75) {
        let names =
            (0..1 + random.below(2)).map(|i| json!({"kind": "HTTPRouteGroup", "name": groups[i]}));
        spec["matches"] = names.collect();
    }
    objects.push(object(
        "split.smi-spec.io/v1alpha4",
        "TrafficSplit",
        "half",
        spec,
    ));
    World {
        objects,
        ..World::default()
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "callers write it where it is passed"
)]
fn object(api_version: &str, kind: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({
        "name": name, "namespace": SHOP, "creationTimestamp": "2026-01-01T00:00:00Z",
    });
    json!({"apiVersion": api_version, "kind": kind, "metadata": metadata, "spec": spec})
}

fn service(name: &str, ports: &[(u16, bool)]) -> Value {
    let ports = ports.iter().map(|(port, is_http)| {
        let protocol = if *is_http { "http" } else { "tcp" };
        json!({"port": port, "name": format!("{protocol}-{port}")})
    });
    object(
        "v1",
        "Service",
        name,
        json!({"ports": ports.collect::<Vec<_>>()}),
    )
}

fn group(name: &str, random: &mut Random) -> Value {
    let matches = (0..1 + random.below(3)).map(|i| {
        let mut one = json!({"name": format!("m{i}")});
        if random.percent(60) {
            one["pathRegex"] = json!(random.pick(&PATHS));
        }
        if random.percent(40) {
            let methods: Vec<&str> = (0..random.below(3))
                .map(|_| random.pick(&METHODS))
                .collect();
            one["methods"] = json!(methods);
        }
        if random.percent(50) {
            let headers = (0..1 + random.below(2)).map(|_| {
                let (name, pattern) = random.of(&HEADERS);
                json!({ name: pattern })
            });
            one["headers"] = headers.collect();
        }
        one
    });
    let matches: Vec<Value> = matches.collect();
    object(
        "specs.smi-spec.io/v1alpha4",
        "HTTPRouteGroup",
        name,
        json!({"matches": matches}),
    )
}
