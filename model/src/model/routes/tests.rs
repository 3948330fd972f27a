//! What a split means for one port, and that proxies are sent just that.

use policy::reason::Reason;
use serde_json::json;

use super::*;
use crate::fixtures::{Cluster, Resolved, group, resolve, service, set, shop, split};

/// Service `api` of ports 80 and 90 beside `v1`, which has the first of them, and `v2`, which
/// has both.
fn cluster() -> Cluster {
    let both = [("http", 80), ("other", 90)];
    shop()
        .with(service("api", "10.96.0.1", &both))
        .with(service("v1", "10.96.0.11", &both[..1]))
        .with(service("v2", "10.96.0.12", &both))
}

/// The same with a split over `v1` and `v2`.
fn shared_out(weights: [i64; 2]) -> Cluster {
    let [first, second] = weights;
    cluster().with(split("s", "api", &[("v1", first), ("v2", second)]))
}

fn api() -> ObjectKey {
    ObjectKey::new("shop", "api")
}

/// Where bytes to a port of `api` go, by the names and weights of backends.
fn forward(cluster: &Cluster, port: u16) -> Result<Vec<(String, u32)>, Option<Reason>> {
    let (model, _) = cluster.compile();
    let entry = &model.index.services[&api()];
    let table = model.index.routes_at(entry, port, Audience::Everyone);
    match table.decide(None).0 {
        Forward::Root => Err(None),
        Forward::Refuse(reason) => Err(Some(*reason)),
        Forward::Redirect(_) => panic!("no split redirects"),
        Forward::Split(backends) => {
            let backends = backends.iter();
            let named = backends.map(|one| (one.service.name.to_string(), one.weight));
            Ok(named.collect())
        }
    }
}

#[test]
fn split_port_is_divided_among_backends_having_it() {
    let named = |expected: &[(&str, u32)]| {
        let expected = expected.iter();
        let expected = expected.map(|(name, weight)| ((*name).to_owned(), *weight));
        Ok(expected.collect::<Vec<_>>())
    };
    let halves = shared_out([1, 1]);
    assert_eq!(forward(&halves, 80), named(&[("v1", 1), ("v2", 1)]));
    assert_eq!(forward(&halves, 90), named(&[("v2", 1)]));
    let first = shared_out([1, 0]);
    assert_eq!(forward(&first, 80), named(&[("v1", 1), ("v2", 0)]));
    let no_backend = Err(Some(Reason::NoBackend));
    assert_eq!(forward(&first, 90), no_backend, "v1 has no such port");
    assert_eq!(forward(&shared_out([0, 0]), 80), no_backend);
    assert_eq!(forward(&cluster(), 80), Err(None), "there is no split");
}

#[test]
fn controllers_route_table_equals_table_built_by_proxy() {
    let reads = json!([{"name": "read", "pathRegex": "/items", "methods": ["GET"]}]);
    let matches = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    let reading = split("reading", "api", &[("v2", 1), ("v1", 2)]);
    for weights in [[3, 1], [1, 0], [0, 1], [0, 0]] {
        let cluster = shared_out(weights)
            .with(group("routes", reads.clone()))
            .with(set(reading.clone(), "/spec/matches", matches.clone()));
        let (model, _) = cluster.compile();
        let destinations = ["10.96.0.1:80", "10.96.0.1:90"];
        let sent = Resolved(resolve(&model, "client", &destinations));
        for port in [80, 90] {
            let entry = &model.index.services[&api()];
            let table = model.index.routes_at(entry, port, Audience::Everyone);
            assert_eq!(table.rules.len(), 2);
            let sent = sent.service(&format!("service/shop/api:{port}"));
            let read = sent.splits.iter().map(|split| {
                let rule = wire::convert::split(split, port).unwrap();
                rule.map(Forward::split)
            });
            assert_eq!(table.rules, read.collect::<Vec<_>>(), "{weights:?} {port}");
        }
    }
}
