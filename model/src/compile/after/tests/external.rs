//! ExternalServices in histories, with the addresses that their hosts have.

use super::*;
use crate::fixtures::{external_service, forget_host, read_authorities, resolve_host};

/// One that no object names is resolved, too.
const HOSTS: [&str; 4] = ["a.example", "b.example", "x.wild.example", "other.example"];
/// Outside, of pods, of one behind NAT64, of a Service, of an outer address, of a node, and of the
/// own machine.
const ADDRESSES: [&str; 9] = [
    "203.0.113.1",
    "203.0.113.2",
    "10.0.0.1",
    "10.0.0.6",
    "64:ff9b::10.0.0.2",
    "10.96.0.1",
    "192.0.2.1",
    "172.16.0.1",
    "127.0.0.1",
];

/// A step around what is outside: done already, or an object to apply.
pub(super) fn step(dice: &mut StdRng, collector: &mut Collector) -> Option<Value> {
    match dice.random_range(0..9) {
        0..4 => {
            let host = pick(dice, &HOSTS);
            if dice.random_ratio(1, 6) {
                forget_host(collector, host);
            } else {
                let count = dice.random_range(0..3);
                let found: Vec<&str> = (0..count).map(|_| pick(dice, &ADDRESSES)).collect();
                resolve_host(collector, host, &found);
            }
            None
        }
        4 => {
            let pem = [None, Some("one"), Some("two")][dice.random_range(0..3)];
            read_authorities(collector, "ca", pem);
            None
        }
        5 => {
            let address = json!([{"type": "InternalIP", "address": pick(dice, &ADDRESSES)}]);
            let node = cluster::node(pick(dice, &["node-a", "node-b"]), "zone-a");
            Some(cluster::set(node, "/status/addresses", address))
        }
        6 => Some(way_out(dice)),
        _ => Some(object(dice)),
    }
}

/// What finds the pods of a Gateway: its Service, or whatever pods that has.
fn way_out(dice: &mut StdRng) -> Value {
    const SERVICE: &str = "edge-0-weft";
    if dice.random_ratio(1, 3) {
        return cluster::service(SERVICE, "10.96.0.77", &[("http", 80)]);
    }
    let mut endpoints = Vec::new();
    for _ in 0..dice.random_range(0..3) {
        let n = dice.random_range(0..PODS);
        endpoints.push(cluster::endpoint(
            &format!("pod-{n}"),
            &format!("10.0.0.{n}"),
        ));
    }
    cluster::slice("edge-0-weft-x", SERVICE, &[("http", 20_080)], &endpoints)
}

fn object(dice: &mut StdRng) -> Value {
    let name = if dice.random() {
        service_name(dice.random_range(0..SERVICES))
    } else {
        format!("outside-{}", dice.random_range(0..2))
    };
    let tls = json!({"caRef": {"name": "ca"}});
    let mut spec = json!({
        "hosts": [pick(dice, &["a.example", "b.example"]), "*.wild.example"],
        "ports": [
            {"port": 80, "protocol": "HTTP", "targetPort": 443, "tls": tls},
            {"port": 81, "protocol": "TCP"},
            {"port": 443, "protocol": "TLS"},
        ],
    });
    match dice.random_range(0..6) {
        0 => {
            let account = pick(dice, &["account-0", "account-1"]);
            spec["sources"] = json!([{"kind": "ServiceAccount", "name": account}]);
        }
        // Beside addresses the TLS of the first port needs a name.
        1 => spec["addresses"] = json!(["203.0.113.0/24"]),
        2 => spec["hosts"] = json!(["*.wild.example"]),
        3 => spec["ports"] = json!([{"port": 80, "protocol": "HTTP"}]),
        _ => {}
    }
    if dice.random_ratio(1, 3) {
        let name = pick(dice, &["edge-0", "edge-1"]);
        spec["gateway"] = json!({"name": name, "namespace": "shop"});
    }
    let mut object = external_service(&name, spec);
    object["metadata"]["generation"] = json!(dice.random_range(1..4));
    if dice.random_ratio(1, 5) {
        object = cluster::in_namespace(object, "other");
    }
    let second = dice.random_range(0..3);
    cluster::created(object, second)
}

/// A cluster whose pods may call one host outside.
fn outside_shop() -> (Collector, Compiled) {
    let mut collector = Collector::default();
    let spec = json!({
        "hosts": ["pay.example"], "ports": [{"port": 443, "protocol": "TLS"}],
    });
    let shop = cluster::shop().with(external_service("pay", spec));
    for object in shop.objects() {
        cluster::apply(&mut collector, object);
    }
    resolve_host(&mut collector, "pay.example", &["10.0.0.99", "203.0.113.1"]);
    let world = Arc::new(collector.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    (collector, Compiled::new(world, model, problems))
}

fn called(compiled: &Compiled) -> Vec<String> {
    let sent = cluster::resolve_newest(&compiled.model, "client", &[]);
    sent.addresses("external/pay.example:443")
}

#[test]
fn new_addresses_of_host_concern_its_callers_alone() {
    let (mut collector, compiled) = outside_shop();
    let client = ObjectKey::new("shop", "client");
    let interest = compiled.model.interest(&client, &BTreeSet::new());
    resolve_host(&mut collector, "other.example", &["203.0.113.9"]);
    let unneeded = compiled.after(Arc::new(collector.world()), &Defaults::default());
    assert!(!unneeded.concerns(compiled.number(), &interest));

    resolve_host(&mut collector, "pay.example", &["203.0.113.2"]);
    let world = collector.world();
    assert!(states_only(&world, &unneeded.model.index).is_some());
    let after = unneeded.after(Arc::new(world), &Defaults::default());
    assert!(after.concerns(unneeded.number(), &interest));
    assert_eq!(after.states_since(unneeded.number(), &interest), None);
    assert_eq!(called(&after), ["203.0.113.2:443"]);
}

/// An answer of DNS that turns inside, the other way round: what stood outside is a pod now.
#[test]
fn address_that_a_pod_takes_leaves_the_host() {
    let (mut collector, compiled) = outside_shop();
    let interest = compiled
        .model
        .interest(&ObjectKey::new("shop", "client"), &BTreeSet::new());
    assert_eq!(called(&compiled), ["10.0.0.99:443", "203.0.113.1:443"]);
    cluster::apply(&mut collector, &cluster::pod("late", "10.0.0.99", "web"));
    let world = collector.world();
    assert!(pods_and_places(&world, &compiled.model.index).is_some());
    let after = compiled.after(Arc::new(world), &Defaults::default());
    assert!(after.concerns(compiled.number(), &interest));
    assert_eq!(called(&after), ["203.0.113.1:443"]);
}
