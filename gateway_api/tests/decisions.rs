//! Which rule of many HTTPRoutes decides, and what a backend is sent, beside a second reader of the
//! same objects that shares no code with this one.

#![allow(clippy::unwrap_used)]

use gateway_api::HTTPRoute;
use gateway_api::order::{Key, sort};
use gateway_api::route::Route;
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use oracle::Request;
use oracle::gateway::{self, Decided, Sent};
use oracle::random::Random;
use oracle::seeds::seeds;
use policy::http_match::RequestFacts;
use policy::origin::Origin;
use policy::route::{Match, Rule, Table};
use serde_json::Value;

/// Sets of routes, and requests to each of them.
const SETS: u64 = 10_000;
const REQUESTS: usize = 8;

/// Routes as the mesh reads them, and their matches in the order in which they are tried.
struct Mesh {
    routes: Vec<Route>,
    table: Table<Option<(usize, usize)>>,
}

impl Mesh {
    fn new(objects: &[Value]) -> Self {
        let routes: Vec<Route> = objects.iter().map(read).collect();
        let mut all = Vec::new();
        for (at, (route, object)) in routes.iter().zip(objects).enumerate() {
            for (rule_at, rule) in route.rules.iter().enumerate() {
                for (place, one) in rule.matches.iter().enumerate() {
                    let key = Key::new(route, created(object), rule_at, place, one);
                    all.push((key, (at, rule_at), one.http.clone()));
                }
            }
        }
        sort(&mut all, |one| &one.0);
        let rules = all.into_iter().map(|(_, at, one)| Rule {
            origin: Origin::new("HTTPRoute", "shop", "any"),
            when: Match::AnyOf(vec![one]),
            then: Some(at),
        });
        let table = Table {
            rules: rules.collect(),
            otherwise: None,
        };
        Self { routes, table }
    }

    fn decide(&self, request: &Request, query: Option<&str>) -> Option<(usize, usize)> {
        let (method, headers) = (method(request), headers(request));
        let facts = RequestFacts {
            method: &method,
            path: &request.path,
            query,
            headers: &headers,
        };
        *self.table.decide(Some(&facts)).0
    }

    /// What the edits of a rule make of a request.
    fn sent(&self, at: (usize, usize), request: &Request, query: Option<&str>) -> Sent {
        let edits = &self.routes[at.0].rules[at.1].filters.edits;
        let mut headers = headers(request);
        edits.request.apply(&mut headers);
        let headers = headers.iter().map(|(name, value)| {
            let value = value.to_str().unwrap();
            (name.as_str().to_owned(), value.to_owned())
        });
        let mut headers: Vec<(String, String)> = headers.collect();
        headers.sort();
        let target = match query {
            Some(query) => format!("{}?{query}", request.path),
            None => request.path.clone(),
        };
        let rewrite = edits.rewrite.as_ref();
        let rewritten = rewrite.map(|rewrite| rewrite.path_and_query(&target).into_owned());
        Sent {
            host: rewrite
                .and_then(|rewrite| rewrite.host.as_deref())
                .map(str::to_owned),
            target: rewritten.unwrap_or(target),
            headers,
        }
    }
}

fn read(object: &Value) -> Route {
    let object: HTTPRoute = serde_json::from_value(object.clone()).unwrap();
    Route::read_http(&object)
}

/// The oracle compares these as text, and all are of one month.
fn created(object: &Value) -> i64 {
    let text = object["metadata"]["creationTimestamp"].as_str().unwrap();
    text["2026-01-".len()..][..2].parse().unwrap()
}

fn method(request: &Request) -> Method {
    request.method.parse().unwrap()
}

fn headers(request: &Request) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    headers
}

fn is_broken(rule: &Value) -> bool {
    let filters = rule["filters"].as_array();
    filters.is_some_and(|filters| filters.iter().any(|one| one["type"] == "ExtensionRef"))
}

#[test]
fn routes_decide_and_edit_as_their_plain_text_says() {
    let (mut decided, mut edited) = (0, 0);
    for seed in seeds(SETS) {
        let mut random = Random::new(seed);
        let count = 1 + random.below(4);
        let objects = gateway::routes(&mut random, count);
        let mesh = Mesh::new(&objects);
        for _ in 0..REQUESTS {
            let request = gateway::request(&mut random);
            let query = gateway::query(&mut random);
            let at = mesh.decide(&request, query);
            let expected = gateway::decide(&objects, &request, query);
            let found = at.map(|(route, rule)| {
                let route = &mesh.routes[route];
                let route = (route.namespace.to_string(), route.name.to_string());
                Decided { route, rule }
            });
            let case = || format!("{request:?} {query:?}\n{objects:#?}");
            assert_eq!(found, expected, "{}", case());
            let (Some(at), Some(expected)) = (at, expected) else {
                continue;
            };
            decided += 1;
            let rule = &mesh.routes[at.0].rules[at.1];
            let written = &objects[at.0]["spec"]["rules"][at.1];
            assert_eq!(rule.broken.is_some(), is_broken(written), "{}", case());
            if rule.broken.is_none() {
                let sent = mesh.sent(at, &request, query);
                let plain = gateway::sent(&objects, &expected, &request, query);
                assert_eq!(Some(sent), plain, "{}", case());
                edited += 1;
            }
        }
    }
    assert!(decided > SETS && edited > SETS, "{decided} {edited}");
}
