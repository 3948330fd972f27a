//! A TrafficSplit and the routes that `weft convert` writes for it send the same requests to the
//! same Services, by a reader of both that shares no code with the mesh.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::slice;

use gateway_api::convert::{Around, from_split};
use oracle::gateway::{decide, request, split_world};
use oracle::random::Random;
use oracle::seeds::seeds;
use oracle::{CLUSTER_DOMAIN, Request, Shares, Traffic, World};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Splits, and requests to each port of each of them.
const SPLITS: u64 = 10_000;
const REQUESTS: usize = 4;

/// What of the requests each Service gets; `None`: all of them the Service that was called.
type Parts = Option<BTreeMap<String, f64>>;

fn parts(weights: impl Iterator<Item = (String, f64)>) -> Parts {
    let mut all: BTreeMap<String, f64> = weights.filter(|(_, weight)| *weight > 0.0).collect();
    let total: f64 = all.values().sum();
    for weight in all.values_mut() {
        *weight /= total;
    }
    Some(all)
}

fn by_split(world: &World, port: u16, request: &Request) -> Parts {
    let traffic = Traffic::Http(request.clone());
    match world.shares("shop", "web", port, &traffic) {
        Shares::Root => None,
        Shares::Split(weights) => parts(weights.into_iter()),
    }
}

fn by_route(route: &Value, request: &Request) -> Parts {
    let decided = decide(slice::from_ref(route), request, None).expect("a rule for all others");
    let rule = &route["spec"]["rules"][decided.rule];
    let backends = rule["backendRefs"].as_array().unwrap();
    match &**backends {
        // Of all other requests.
        [only] if only["name"] == "web" && only["weight"].is_null() => None,
        backends => parts(backends.iter().map(|backend| {
            let name = backend["name"].as_str().unwrap().to_owned();
            (name, backend["weight"].as_f64().unwrap())
        })),
    }
}

fn typed<T: DeserializeOwned>(world: &World, kind: &str) -> Vec<T> {
    let objects = world.objects.iter();
    let of_kind = objects.filter(|object| object["kind"] == kind);
    of_kind
        .map(|object| serde_json::from_value(object.clone()).unwrap())
        .collect()
}

/// A request that has no header twice: a route compares values that a split compares one by one
/// as one text.
fn single(mut request: Request) -> Request {
    let mut seen: Vec<String> = Vec::new();
    request.headers.retain(|(name, _)| {
        let name = name.to_ascii_lowercase();
        let first = !seen.contains(&name);
        seen.push(name);
        first
    });
    request
}

#[test]
fn split_and_converted_routes_decide_alike() {
    let mut compared = 0;
    for seed in seeds(SPLITS) {
        let mut random = Random::new(seed);
        let world = split_world(&mut random);
        let around = Around {
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            groups: typed(&world, "HTTPRouteGroup"),
            services: typed(&world, "Service"),
            splits: typed(&world, "TrafficSplit"),
        };
        let converted = from_split(&around.splits[0], &around);
        // What cannot be said is reported, and may be decided otherwise.
        if !converted.unsaid.is_empty() {
            continue;
        }
        compared += 1;
        for port in [80_u16, 81] {
            let mut routes = converted.objects.iter();
            let route = routes.find(|route| route["spec"]["parentRefs"][0]["port"] == port);
            let case = || format!("{port} {:#?}\n{:#?}", world.objects, converted.objects);
            assert!(route.is_some(), "{}", case());
            for _ in 0..REQUESTS {
                let request = single(request(&mut random));
                let found = route.and_then(|route| by_route(route, &request));
                let expected = by_split(&world, port, &request);
                assert_eq!(found, expected, "{request:?} {}", case());
            }
        }
    }
    assert!(compared > SPLITS / 2, "{compared} of {SPLITS}");
}
