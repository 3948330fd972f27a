//! The order of matches, beside a second reader of the same objects that shares no code with it.
//!
//! It reads HTTPRoutes as JSON, finds every match that a request fits, and takes the best by the
//! words of the API.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test ends with the first surprise"
)]

mod generate;
mod second_reader;

use gateway_api::HTTPRoute;
use gateway_api::order::{self, Key};
use gateway_api::route::Route;
use http::header::{HeaderName, HeaderValue};
use http::{HeaderMap, Method};
use oracle::random::Random;
use oracle::seeds::seeds;
use policy::http_match::{HttpMatch, RequestFacts};
use serde_json::Value;

use generate::Request;

/// `namespace/name` of the route that decides, and its rule.
type Decision = Option<(String, usize)>;

struct Row {
    key: Key,
    http: HttpMatch,
    decision: (String, usize),
}

/// The matches of all routes, in the order in which they are tried.
fn table(objects: &[Value]) -> Vec<Row> {
    let mut rows = Vec::new();
    for object in objects {
        let object: HTTPRoute = serde_json::from_value(object.clone()).unwrap();
        let created = object.metadata.creation_timestamp.as_ref();
        let created = created.unwrap().0.as_second();
        let route = Route::read_http(&object);
        for (at, rule) in route.rules.iter().enumerate() {
            assert_eq!(rule.broken, None, "{object:?}");
            for (place, one) in rule.matches.iter().enumerate() {
                rows.push(Row {
                    key: Key::new(&route, created, at, place, one),
                    http: one.http.clone(),
                    decision: (format!("{}/{}", route.namespace, route.name), at),
                });
            }
        }
    }
    order::sort(&mut rows, |row| &row.key);
    rows
}

fn decide(rows: &[Row], request: &Request) -> Decision {
    let mut headers = HeaderMap::new();
    for (name, value) in &request.headers {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_str(value).unwrap());
    }
    let facts = RequestFacts {
        method: &Method::from_bytes(request.method.as_bytes()).unwrap(),
        path: &request.path,
        query: request.query.as_deref(),
        headers: &headers,
    };
    let first = rows.iter().find(|row| row.http.matches(&facts));
    first.map(|row| row.decision.clone())
}

#[test]
fn ten_thousand_sets_are_decided_as_second_reader_does() {
    let mut decided = 0;
    for seed in seeds(10_000) {
        let mut random = Random::new(seed);
        let objects = generate::routes(&mut random);
        let rows = table(&objects);
        for _ in 0..6 {
            let request = generate::request(&mut random);
            let ours = decide(&rows, &request);
            let theirs = second_reader::decide(&objects, &request);
            assert_eq!(ours, theirs, "seed {seed}: {request:?} {objects:#?}");
            decided += usize::from(ours.is_some());
        }
    }
    assert!(decided > 10_000, "requests that no match fits say little");
}
