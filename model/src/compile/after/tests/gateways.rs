//! Gateways in histories: their listeners, classes, pods and certificates, and routes that are for
//! them.

use super::*;
use crate::fixtures::{
    certificate_grant, gateway as gateway_named, gateway_class, gateway_pod, listener,
    read_certificate, tls_route, to_gateway,
};

const GATEWAYS: [&str; 2] = ["edge-0", "edge-1"];
const HOSTS: [&str; 4] = ["", "a.example.com", "b.example.com", "*.example.com"];
const SECRETS: [(&str, &str); 2] = [("shop", "edge"), ("other", "edge")];

/// A step around Gateways: done already, or an object to apply.
pub(super) fn step(dice: &mut StdRng, collector: &mut Collector) -> Option<Value> {
    match dice.random_range(0..8) {
        0 | 1 => {
            let secret = SECRETS[dice.random_range(0..2)];
            let fingerprint = [None, Some("one"), Some("two")][dice.random_range(0..3)];
            read_certificate(collector, secret, fingerprint);
            None
        }
        2 => Some(certificate_grant("other")),
        3 => {
            let mut class = gateway_class();
            let controller = pick(dice, &["weft.dev/gateway", "example.com/other"]);
            // Most of the time they are served.
            if dice.random_ratio(1, 3) {
                class["spec"]["controllerName"] = json!(controller);
            }
            Some(class)
        }
        4 => Some(route(dice)),
        _ => Some(gateway(dice)),
    }
}

fn gateway(dice: &mut StdRng) -> Value {
    let listeners = (0..dice.random_range(1..4)).map(|n| {
        let (port, protocol) = [
            (80, "HTTP"),
            (443, "HTTPS"),
            (443, "TLS"),
            (25, "TCP"),
            (80, "UDP"),
        ][dice.random_range(0..5)];
        let mut listener = listener(&format!("l{n}"), port, protocol, pick(dice, &HOSTS));
        if protocol == "TCP" {
            listener.as_object_mut().unwrap().remove("hostname");
        }
        if protocol == "HTTPS" && dice.random() {
            listener["tls"]["certificateRefs"][0]["namespace"] = json!("other");
        }
        let from = pick(dice, &["Same", "All", "None"]);
        listener["allowedRoutes"] = json!({"namespaces": {"from": from}});
        listener
    });
    let listeners: Vec<Value> = listeners.collect();
    let mut object = gateway_named(pick(dice, &GATEWAYS), json!(listeners));
    object["metadata"]["generation"] = json!(dice.random_range(1..4));
    object
}

/// A route of any kind for a Gateway, and now and then for a Service as well.
fn route(dice: &mut StdRng) -> Value {
    let name = pick(dice, &GATEWAYS);
    if dice.random_ratio(1, 5) {
        let rules = json!([{"backendRefs": [{"name": service_name(1), "port": 80}]}]);
        let route = tls_route("tls", pick(dice, &["a.example.com", "*.com"]), rules);
        return to_gateway(route, name);
    }
    let mut route = super::gateway::route(dice);
    let parents = &mut route["spec"]["parentRefs"];
    let own = json!({"name": name, "namespace": "shop"});
    if dice.random_ratio(1, 4) {
        parents.as_array_mut().unwrap().push(own);
    } else {
        *parents = json!([own]);
    }
    if dice.random() && route["kind"] != "TCPRoute" {
        route["spec"]["hostnames"] = json!([pick(dice, &["a.example.com", "*.example.com"])]);
    }
    route
}

/// A pod of a Gateway in the place of another one.
pub(super) fn pod(dice: &mut StdRng, name: &str, ip: &str) -> Value {
    let mut pod = gateway_pod(name, ip, pick(dice, &GATEWAYS));
    if dice.random_ratio(1, 5) {
        pod["spec"]["serviceAccountName"] = json!("account-0");
    }
    pod
}
