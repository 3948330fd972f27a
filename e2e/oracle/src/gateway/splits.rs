//! Random TrafficSplits beside the objects that they name, such as routes can say.

use serde_json::{Value, json};

use crate::{World, random::Random};

const PATHS: [&str; 8] = [
    "/",
    "/shop",
    "^/shop",
    "/shop$",
    ".*",
    "/a|/shop/items",
    "/[a-z]+/b",
    "/s.*s",
];
const METHODS: [&str; 4] = ["GET", "POST", "PUT", "*"];
const HEADERS: [&str; 3] = ["x-tier", "X-Env", "cookie"];
const VALUES: [&str; 6] = ["gold", "g.*", "gold|silver", "", "a=1.*", "test"];

/// A split of `web` in namespace `shop`, which has ports 80 and 81, over `v1`, which has both,
/// `v2`, which has the first, and sometimes a Service that is not there.
pub fn split_world(random: &mut Random) -> World {
    let mut objects = vec![
        service("web", &[80, 81]),
        service("v1", &[80, 81]),
        service("v2", &[80]),
    ];
    let mut matches = Vec::new();
    for name in ["g1", "g2"] {
        if random.percent(50) {
            objects.push(group(random, name));
            matches.push(json!({"kind": "HTTPRouteGroup", "name": name}));
        }
    }
    let names = ["v1", "v1", "v1", "v2", "v2", "gone"];
    let count = 1 + random.below(3);
    let backends = (0..count).map(|_| {
        let (name, weight) = (random.of(&names), random.of(&[0, 1, 10, 90]));
        json!({"service": name, "weight": weight})
    });
    let backends: Vec<Value> = backends.collect();
    let mut spec = json!({"service": "web", "backends": backends});
    if !matches.is_empty() {
        spec["matches"] = matches.into();
    }
    objects.push(object(
        "split.smi-spec.io/v1alpha4",
        "TrafficSplit",
        "s",
        &spec,
    ));
    World {
        objects,
        ..World::default()
    }
}

fn object(version: &str, kind: &str, name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": version,
        "kind": kind,
        "metadata": {"namespace": "shop", "name": name},
        "spec": spec,
    })
}

fn service(name: &str, ports: &[u16]) -> Value {
    let ports: Vec<Value> = ports
        .iter()
        .map(|port| {
            let name = format!("http-{port}");
            json!({"name": name, "port": port, "protocol": "TCP", "appProtocol": "http"})
        })
        .collect();
    object(
        "v1",
        "Service",
        name,
        &json!({"clusterIP": "10.96.0.1", "ports": ports}),
    )
}

fn group(random: &mut Random, name: &str) -> Value {
    let count = 1 + random.below(3);
    let matches = (0..count).map(|at| {
        let mut one = json!({"name": format!("m{at}")});
        if random.percent(70) {
            one["pathRegex"] = random.of(&PATHS).into();
        }
        if random.percent(50) {
            let count = 1 + random.below(2);
            let methods = (0..count).map(|_| random.of(&METHODS));
            one["methods"] = methods.collect::<Vec<&str>>().into();
        }
        if random.percent(40) {
            let header = random.of(&HEADERS);
            one["headers"] = json!({header: random.of(&VALUES)});
        }
        one
    });
    let matches: Vec<Value> = matches.collect();
    let spec = json!({"matches": matches});
    object("specs.smi-spec.io/v1alpha4", "HTTPRouteGroup", name, &spec)
}
