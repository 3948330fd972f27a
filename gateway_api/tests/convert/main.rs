//! A TrafficSplit and the routes that it becomes decide alike.
//!
//! What the split means is read by the naive evaluator, from its text; what the routes mean by the
//! code that the mesh runs.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

mod generate;

use std::collections::BTreeMap;

use gateway_api::convert::{Around, from_split};
use gateway_api::order::{self, Key};
use gateway_api::route::{Route, RouteRule};
use gateway_api::{HTTPRoute, TCPRoute};
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use oracle::generate::request;
use oracle::random::Random;
use oracle::seeds::seeds;
use oracle::{CLUSTER_DOMAIN, Request, Shares, Traffic, World};
use policy::http_match::{HttpMatch, RequestFacts};
use serde_json::Value;

use generate::{PORTS, ROOT, SHOP};

/// Parts of the traffic by name of the Service; empty if it is answered 503.
type Parts = BTreeMap<String, f64>;

fn parts(weights: impl IntoIterator<Item = (String, f64)>) -> Parts {
    let mut parts = Parts::new();
    for (name, weight) in weights {
        if weight > 0.0 {
            *parts.entry(name).or_default() += weight;
        }
    }
    let sum: f64 = parts.values().sum();
    parts
        .into_iter()
        .map(|(name, weight)| (name, weight / sum))
        .collect()
}

fn of_split(world: &World, port: u16, traffic: &Traffic) -> Parts {
    match world.shares(SHOP, ROOT, port, traffic) {
        Shares::Root => parts([(ROOT.to_owned(), 1.0)]),
        Shares::Split(shares) => parts(shares),
    }
}

fn of_rule(rule: &RouteRule) -> Parts {
    assert_eq!(rule.broken, None);
    let backends = rule.backends.iter();
    parts(backends.map(|backend| {
        let (service, _) = backend.target.service().unwrap();
        (service.name.to_string(), f64::from(backend.weight))
    }))
}

/// What a route makes of the traffic to its port.
enum Table {
    /// In the order in which they are tried.
    Http(Vec<(Key, HttpMatch, Parts)>),
    Tcp(Parts),
}

/// The routes by port.
fn tables(objects: &[Value]) -> BTreeMap<u64, Table> {
    let tables = objects.iter().map(|object| {
        let port = object["spec"]["parentRefs"][0]["port"].as_u64().unwrap();
        if object["kind"] == "TCPRoute" {
            let object: TCPRoute = serde_json::from_value(object.clone()).unwrap();
            return (
                port,
                Table::Tcp(of_rule(&Route::read_tcp(&object).rules[0])),
            );
        }
        let object: HTTPRoute = serde_json::from_value(object.clone()).unwrap();
        let route = Route::read_http(&object);
        let mut rows = Vec::new();
        for (at, rule) in route.rules.iter().enumerate() {
            for (place, one) in rule.matches.iter().enumerate() {
                let key = Key::new(&route, 0, at, place, one);
                rows.push((key, one.http.clone(), of_rule(rule)));
            }
        }
        order::sort(&mut rows, |(key, ..)| key);
        (port, Table::Http(rows))
    });
    tables.collect()
}

/// Where the routes send traffic to a port; to the Service itself where there is none.
fn of_routes(tables: &BTreeMap<u64, Table>, port: u16, traffic: &Traffic) -> Parts {
    match (tables.get(&u64::from(port)), traffic) {
        (None, _) | (Some(Table::Http(_)), Traffic::Bytes) => parts([(ROOT.to_owned(), 1.0)]),
        (Some(Table::Tcp(parts)), _) => parts.clone(),
        (Some(Table::Http(rows)), Traffic::Http(request)) => {
            let headers = headers(request);
            let facts = RequestFacts {
                method: &Method::from_bytes(request.method.as_bytes()).unwrap(),
                path: &request.path,
                query: None,
                headers: &headers,
            };
            let first = rows.iter().find(|(_, http, _)| http.matches(&facts));
            first.unwrap().2.clone()
        }
    }
}

fn headers(request: &Request) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

#[test]
fn ten_thousand_splits_decide_alike_after_conversion() {
    let (mut converted, mut elsewhere) = (0, 0);
    for seed in seeds(10_000) {
        let mut random = Random::new(seed);
        let world = generate::world(&mut random);
        let of_kind = |kind: &str| -> Value {
            let objects = world.objects.iter().filter(|object| object["kind"] == kind);
            objects.cloned().collect()
        };
        let around = Around {
            cluster_domain: CLUSTER_DOMAIN.to_owned(),
            groups: serde_json::from_value(of_kind("HTTPRouteGroup")).unwrap(),
            services: serde_json::from_value(of_kind("Service")).unwrap(),
            splits: serde_json::from_value(of_kind("TrafficSplit")).unwrap(),
        };
        let routes = from_split(&around.splits[0], &around);
        if !routes.unsaid.is_empty() {
            continue;
        }
        converted += 1;
        let tables = tables(&routes.objects);
        for _ in 0..4 {
            for (port, is_http) in PORTS {
                let traffic = if is_http {
                    Traffic::Http(request(&mut random))
                } else {
                    Traffic::Bytes
                };
                let theirs = of_split(&world, port, &traffic);
                let ours = of_routes(&tables, port, &traffic);
                let same = theirs.len() == ours.len()
                    && theirs.iter().all(|(name, part)| {
                        ours.get(name).is_some_and(|own| (own - part).abs() < 1e-9)
                    });
                let shown = &routes.objects;
                assert!(
                    same,
                    "seed {seed}: {theirs:?} {ours:?} {port} {traffic:?} {shown:#?}"
                );
                elsewhere += usize::from(!ours.contains_key(ROOT));
            }
        }
    }
    assert!(converted > 5000, "{converted} alone could be said");
    assert!(elsewhere > 5000, "{elsewhere} calls alone left the Service");
}
