//! Random HTTPRoutes and requests from a small vocabulary, so that many of them meet.

use oracle::random::Random;
use serde_json::{Value, json};

/// An HTTP request.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: String,
    pub(crate) path: String,
    pub(crate) query: Option<String>,
    /// Lines in order.
    pub(crate) headers: Vec<(String, String)>,
}

const PATHS: [&str; 9] = [
    "/", "/a", "/a/", "/a/b", "/a/b/", "/a/b/c", "/ab", "/b", "/b/a",
];
/// Expressions for paths; the second reader knows each of them by heart.
pub(crate) const EXPRESSIONS: [&str; 3] = ["/a.*", "/[ab]", "/.*b.*"];
const METHODS: [&str; 3] = ["GET", "PUT", "DELETE"];
const HEADERS: [&str; 3] = ["x-a", "X-B", "x-c"];
const PARAMETERS: [&str; 3] = ["p", "q", "P"];
const VALUES: [&str; 3] = ["1", "2", "a b"];

/// One to four routes of one Service.
pub(crate) fn routes(random: &mut Random) -> Vec<Value> {
    let mut objects: Vec<Value> = Vec::new();
    for _ in 0..=random.below(4) {
        // `a-b/x` stands before `a/x`, though `a` stands before `a-b`.
        let namespace = random.pick(&["a", "a-b"]);
        let name = random.pick(&["x", "y", "z"]);
        let metadata = json!({
            "namespace": namespace, "name": name,
            "creationTimestamp": format!("2026-01-01T00:00:0{}Z", random.below(3)),
        });
        let rules: Vec<Value> = (0..=random.below(3)).map(|_| rule(random)).collect();
        let same = |other: &Value| {
            other["metadata"]["namespace"] == namespace && other["metadata"]["name"] == name
        };
        if !objects.iter().any(same) {
            objects.push(json!({"metadata": metadata, "spec": {"rules": rules}}));
        }
    }
    objects
}

fn rule(random: &mut Random) -> Value {
    let matches: Vec<Value> = (0..random.below(4)).map(|_| one(random)).collect();
    json!({"matches": matches})
}

fn one(random: &mut Random) -> Value {
    let mut one = json!({});
    if random.percent(80) {
        one["path"] = match random.below(4) {
            0 => json!({"type": "Exact", "value": random.pick(&PATHS)}),
            1 => json!({"type": "RegularExpression", "value": random.pick(&EXPRESSIONS)}),
            2 => json!({"value": random.pick(&PATHS)}),
            _ => json!({"type": "PathPrefix", "value": random.pick(&PATHS)}),
        };
    }
    if random.percent(25) {
        one["method"] = json!(random.pick(&METHODS));
    }
    if random.percent(40) {
        one["headers"] = values(random, &HEADERS);
    }
    if random.percent(25) {
        one["queryParams"] = values(random, &PARAMETERS);
    }
    one
}

fn values(random: &mut Random, names: &[&str]) -> Value {
    let values = (0..=random.below(2)).map(|_| {
        let name = random.pick(names);
        match random.below(3) {
            // Every value.
            0 => json!({"type": "RegularExpression", "name": name, "value": ".+"}),
            1 => json!({"type": "Exact", "name": name, "value": random.pick(&VALUES)}),
            _ => json!({"name": name, "value": random.pick(&VALUES)}),
        }
    });
    values.collect()
}

/// A request that may fit some of them.
pub(crate) fn request(random: &mut Random) -> Request {
    let headers = (0..random.below(4)).map(|_| {
        let name = random.pick(&HEADERS).to_ascii_lowercase();
        (name, random.pick(&VALUES).to_owned())
    });
    let headers = headers.collect();
    let parameters: Vec<String> = (0..random.below(4))
        .map(|_| {
            let (name, value) = (random.pick(&PARAMETERS), random.pick(&VALUES));
            let blank = random.pick(&["+", "%20"]);
            format!("{name}={}", value.replace(' ', blank))
        })
        .collect();
    Request {
        method: random.pick(&METHODS).to_owned(),
        path: random.pick(&PATHS).to_owned(),
        query: (!parameters.is_empty()).then(|| parameters.join("&")),
        headers,
    }
}
