//! Random HTTPRoutes that compete for the same requests, and requests that many of them fit.

use serde_json::{Value, json};

use crate::{Request, random::Random};

const PLAIN: [&str; 8] = [
    "/",
    "/shop",
    "/shop/",
    "/shop/items",
    "/shops",
    "/a",
    "/a/b",
    "/a/b/",
];
const EXPRESSIONS: [&str; 6] = [
    "/shop(/.*)?",
    "/[a-z]+",
    ".*",
    "/a/b|/shop/items",
    "/shop",
    "/(a|shop)/[a-z]+/?",
];
const METHODS: [&str; 3] = ["GET", "POST", "PUT"];
const HEADERS: [&str; 4] = ["x-tier", "X-Tier", "x-env", "cookie"];
const VALUES: [&str; 5] = ["gold", "gold,silver", "silver", "a=1; b=2", "test"];
const OF_VALUES: [&str; 4] = ["g.*", "[a-z]+", "gold|silver", ".*=.*"];
const PARAMETERS: [&str; 2] = ["q", "page"];
const OF_PARAMETERS: [&str; 5] = ["1", "2", "x y", "ä", "%zz"];
const QUERIES: [&str; 11] = [
    "q=1",
    "q=x+y",
    "q=x%20y&page=2",
    "page=%C3%A4&q=2",
    "q=%zz",
    "q",
    "page=2&q=1&q=2",
    "q=2&q=1&page=1",
    "%71=1",
    "q=1%0A",
    "Q=1&page=%ff&page=1",
];

/// So many routes that hold for the same callers, in any order: some of one age, some broken.
pub fn routes(random: &mut Random, count: usize) -> Vec<Value> {
    let mut routes: Vec<Value> = (0..count)
        .map(|at| {
            let rules = 1 + random.below(3);
            let rules: Vec<Value> = (0..rules).map(|_| rule(random)).collect();
            json!({
                "apiVersion": "gateway.networking.k8s.io/v1",
                "kind": "HTTPRoute",
                "metadata": {
                    "namespace": "shop",
                    // Of two digits, so that the order of names is not that of numbers.
                    "name": format!("r{}", (7 * at) % 12),
                    "creationTimestamp": format!("2026-01-0{}T00:00:00Z", 1 + random.below(3)),
                },
                "spec": {
                    "parentRefs": [{"group": "", "kind": "Service", "name": "web"}],
                    "rules": rules,
                },
            })
        })
        .collect();
    for at in (1..routes.len()).rev() {
        routes.swap(at, random.below(at + 1));
    }
    routes
}

fn rule(random: &mut Random) -> Value {
    let matches: Vec<Value> = (0..random.below(4)).map(|_| one_match(random)).collect();
    let of_prefix = match &*matches {
        [one] => one["path"]["type"] == "PathPrefix",
        _ => false,
    };
    let mut filters = Vec::new();
    if random.percent(30) {
        filters.push(modifier(random));
    }
    if random.percent(30) {
        filters.push(rewrite(random, of_prefix));
    }
    if random.percent(5) {
        filters.push(json!({
            "type": "ExtensionRef",
            "extensionRef": {"group": "example.org", "kind": "Unknown", "name": "x"},
        }));
    }
    let mut rule = json!({"backendRefs": [{"name": "v1", "port": 80}]});
    if !matches.is_empty() {
        rule["matches"] = matches.into();
    }
    if !filters.is_empty() {
        rule["filters"] = filters.into();
    }
    rule
}

fn one_match(random: &mut Random) -> Value {
    let mut one = json!({});
    if random.percent(85) {
        let (kind, value) = match random.below(10) {
            0..4 => ("PathPrefix", random.of(&PLAIN)),
            4..7 => ("Exact", random.of(&PLAIN)),
            _ => ("RegularExpression", random.of(&EXPRESSIONS)),
        };
        one["path"] = json!({"type": kind, "value": value});
    }
    if random.percent(30) {
        one["method"] = random.of(&METHODS).into();
    }
    if random.percent(40) {
        one["headers"] = entries(random, &HEADERS, &VALUES, &OF_VALUES);
    }
    if random.percent(25) {
        one["queryParams"] = entries(
            random,
            &PARAMETERS,
            &OF_PARAMETERS,
            &["[0-9]+", ".*", "x.y"],
        );
    }
    one
}

fn entries(random: &mut Random, names: &[&str], texts: &[&str], patterns: &[&str]) -> Value {
    let count = 1 + random.below(2);
    let entries = (0..count).map(|_| {
        let name = random.of(names);
        if random.percent(30) {
            json!({"type": "RegularExpression", "name": name, "value": random.of(patterns)})
        } else {
            json!({"name": name, "value": random.of(texts)})
        }
    });
    entries.collect::<Vec<Value>>().into()
}

fn modifier(random: &mut Random) -> Value {
    let mut modifier = json!({});
    if random.percent(60) {
        modifier["set"] = json!([{"name": "X-Env", "value": random.of(&VALUES)}]);
    }
    if random.percent(60) {
        modifier["add"] = json!([{"name": "x-tier", "value": random.of(&VALUES)}]);
    }
    if random.percent(60) {
        modifier["remove"] = json!(["x-gone"]);
    }
    json!({"type": "RequestHeaderModifier", "requestHeaderModifier": modifier})
}

fn rewrite(random: &mut Random, of_prefix: bool) -> Value {
    let mut rewrite = json!({});
    if random.percent(50) {
        rewrite["hostname"] = "other.example".into();
    }
    if of_prefix {
        let with = random.of(&["/xyz", "/xyz/", "", "/", "/x/y"]);
        rewrite["path"] = json!({"type": "ReplacePrefixMatch", "replacePrefixMatch": with});
    } else {
        rewrite["path"] = json!({"type": "ReplaceFullPath", "replaceFullPath": "/full"});
    }
    json!({"type": "URLRewrite", "urlRewrite": rewrite})
}

/// A request, without its query.
pub fn request(random: &mut Random) -> Request {
    let paths = [
        "/",
        "/shop",
        "/shop/",
        "/shop/items",
        "/shop/items/7",
        "/shops",
        "/a",
        "/a/b",
        "/a/b/c",
        "/other",
        "/Shop",
        "/shop//",
    ];
    let lines = [
        ("x-tier", "gold"),
        ("X-TIER", "silver"),
        ("x-env", "test"),
        ("x-env", "gold"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-gone", "1"),
    ];
    let count = random.below(4);
    let headers = (0..count).map(|_| {
        let (name, value) = random.of(&lines);
        (name.to_owned(), value.as_bytes().to_vec())
    });
    Request {
        headers: headers.collect(),
        method: random.of(&METHODS).to_owned(),
        path: random.of(&paths).to_owned(),
    }
}

/// A query, or none.
pub fn query(random: &mut Random) -> Option<&'static str> {
    random.percent(70).then(|| random.of(&QUERIES))
}
