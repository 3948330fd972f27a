//! HTTPRoutes that hold for the same callers of a Service: which rule decides about a request, and
//! what the backend is sent.
//!
//! Written beside the Gateway API's own text. Every match of every route is compared with the
//! request, and what fits with the best that fitted before it: nothing is sorted.

mod set;

use std::cmp::Ordering;

use serde_json::{Value, json};

use crate::{
    Request,
    http::compiled,
    object::{created, list, name, namespace, text},
};

pub use set::{query, request, routes};

/// The rule that decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// Namespace and name of the route.
    pub route: (String, String),
    /// Place of the rule in it.
    pub rule: usize,
}

/// What the backend is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sent {
    /// The authority, where it is another one.
    pub host: Option<String>,
    /// Path with its query.
    pub target: String,
    /// Headers of the request in small letters, sorted.
    pub headers: Vec<(String, String)>,
}

/// One match that fits.
struct Fitting<'a> {
    route: &'a Value,
    rule: usize,
    place: usize,
    one: Value,
}

/// Which rule decides; `None`: no match fits.
pub fn decide(routes: &[Value], request: &Request, query: Option<&str>) -> Option<Decided> {
    let mut best: Option<Fitting<'_>> = None;
    for route in routes {
        for (rule_at, rule) in list(&route["spec"]["rules"]).iter().enumerate() {
            // A rule without matches has one that every request fits.
            let mut matches = list(&rule["matches"]).to_vec();
            if matches.is_empty() {
                matches.push(json!({}));
            }
            for (place, one) in matches.into_iter().enumerate() {
                if !fits(&one, request, query) {
                    continue;
                }
                let fitting = Fitting {
                    route,
                    rule: rule_at,
                    place,
                    one,
                };
                if best.as_ref().is_none_or(|best| precedes(&fitting, best)) {
                    best = Some(fitting);
                }
            }
        }
    }
    best.map(|best| Decided {
        route: (
            namespace(best.route).to_owned(),
            name(best.route).to_owned(),
        ),
        rule: best.rule,
    })
}

/// Whether the first is tried before the second.
fn precedes(first: &Fitting<'_>, second: &Fitting<'_>) -> bool {
    let kinds = ["Exact", "PathPrefix", "RegularExpression"];
    let rank = |one: &Value| kinds.iter().position(|kind| *kind == path_kind(one));
    let (a, b) = (&first.one, &second.one);
    let label = |route: &Value| format!("{}/{}", namespace(route), name(route));
    // More comes first: of these the second stands in front.
    let more = |count: fn(&Value) -> usize| count(b).cmp(&count(a));
    let order = rank(a)
        .cmp(&rank(b))
        .then(more(prefix_length))
        .then(more(|one| usize::from(!one["method"].is_null())))
        .then(more(|one| distinct(one, "headers")))
        .then(more(|one| distinct(one, "queryParams")))
        .then(created(first.route).cmp(created(second.route)))
        .then(label(first.route).cmp(&label(second.route)))
        .then(first.rule.cmp(&second.rule))
        .then(first.place.cmp(&second.place));
    order == Ordering::Less
}

fn path_kind(one: &Value) -> &str {
    match text(&one["path"]["type"]) {
        "" => "PathPrefix",
        kind => kind,
    }
}

fn path_value(one: &Value) -> &str {
    one["path"]["value"].as_str().unwrap_or("/")
}

/// A final slash means nothing.
fn prefix_length(one: &Value) -> usize {
    if path_kind(one) == "PathPrefix" {
        path_value(one).trim_end_matches('/').chars().count()
    } else {
        0
    }
}

/// Names of a list: of several entries with one name the first counts.
fn distinct(one: &Value, field: &str) -> usize {
    let mut names: Vec<String> = list(&one[field])
        .iter()
        .map(|entry| known_as(field, text(&entry["name"])))
        .collect();
    names.sort();
    names.dedup();
    names.len()
}

/// Names of headers are the same in capitals, those of parameters are not.
fn known_as(field: &str, name: &str) -> String {
    match field {
        "headers" => name.to_ascii_lowercase(),
        _ => name.to_owned(),
    }
}

fn fits(one: &Value, request: &Request, query: Option<&str>) -> bool {
    let method = text(&one["method"]);
    (method.is_empty() || method == request.method)
        && path_fits(one, &request.path)
        && values_fit(one, "headers", |name| header(request, name))
        && values_fit(one, "queryParams", |name| parameter(query?, name))
}

fn path_fits(one: &Value, path: &str) -> bool {
    match path_kind(one) {
        "Exact" => path == path_value(one),
        "PathPrefix" => behind(path, path_value(one)).is_some(),
        _ => compiled(path_value(one), "$").is_some_and(|pattern| pattern.is_match(path)),
    }
}

/// The segments behind those of a prefix; `None` where the path does not begin with them.
fn behind<'a>(path: &'a str, prefix: &str) -> Option<Vec<&'a str>> {
    let prefix: Vec<&str> = prefix.trim_end_matches('/').split('/').collect();
    let segments: Vec<&str> = path.split('/').collect();
    let begins = segments.starts_with(&prefix);
    begins.then(|| segments[prefix.len()..].to_vec())
}

fn values_fit(one: &Value, field: &str, value_of: impl Fn(&str) -> Option<String>) -> bool {
    let mut seen: Vec<String> = Vec::new();
    for entry in list(&one[field]) {
        let known_as = known_as(field, text(&entry["name"]));
        if seen.contains(&known_as) {
            continue;
        }
        seen.push(known_as);
        let Some(value) = value_of(text(&entry["name"])) else {
            return false;
        };
        let wanted = text(&entry["value"]);
        let fits = match text(&entry["type"]) {
            "RegularExpression" => {
                compiled(wanted, "$").is_some_and(|pattern| pattern.is_match(&value))
            }
            _ => value == wanted,
        };
        if !fits {
            return false;
        }
    }
    true
}

/// All lines of a header as one text; those of a cookie are pieces of one cookie.
fn header(request: &Request, name: &str) -> Option<String> {
    let between = if name.eq_ignore_ascii_case("cookie") {
        "; "
    } else {
        ","
    };
    let mut lines = Vec::new();
    for (other, value) in &request.headers {
        if other.eq_ignore_ascii_case(name) {
            lines.push(String::from_utf8(value.clone()).ok()?);
        }
    }
    (!lines.is_empty()).then(|| lines.join(between))
}

/// The first value of a parameter.
fn parameter(query: &str, name: &str) -> Option<String> {
    for pair in query.split('&') {
        let (key, value) = match pair.find('=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, ""),
        };
        if unescaped(key).as_deref() == Some(name) {
            return unescaped(value);
        }
    }
    None
}

fn unescaped(text: &str) -> Option<String> {
    let bytes = text.replace('+', " ").into_bytes();
    let mut out = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 3);
        let digits = digits.and_then(|two| std::str::from_utf8(two).ok());
        let digits = digits.filter(|two| two.bytes().all(|byte| byte.is_ascii_hexdigit()));
        let byte = digits.and_then(|two| u8::from_str_radix(two, 16).ok());
        match byte {
            Some(byte) if bytes[at] == b'%' => {
                out.push(byte);
                at += 3;
            }
            _ => {
                out.push(bytes[at]);
                at += 1;
            }
        }
    }
    String::from_utf8(out).ok()
}

/// What the filters of the rule that decides make of a request.
pub fn sent(
    routes: &[Value],
    decided: &Decided,
    request: &Request,
    query: Option<&str>,
) -> Option<Sent> {
    let route = routes
        .iter()
        .find(|route| (namespace(route), name(route)) == (&*decided.route.0, &*decided.route.1))?;
    let rule = &list(&route["spec"]["rules"])[decided.rule];
    let mut path = request.path.clone();
    let mut host = None;
    let mut headers: Vec<(String, String)> = Vec::new();
    for (name, value) in &request.headers {
        let value = String::from_utf8(value.clone()).ok()?;
        headers.push((name.to_ascii_lowercase(), value));
    }
    for filter in list(&rule["filters"]) {
        match text(&filter["type"]) {
            "RequestHeaderModifier" => edit(&mut headers, &filter["requestHeaderModifier"]),
            "URLRewrite" => {
                let rewrite = &filter["urlRewrite"];
                host = rewrite["hostname"].as_str().map(str::to_owned);
                path = rewritten(&path, &rewrite["path"], &rule["matches"][0]);
            }
            _ => {}
        }
    }
    headers.sort();
    let target = match query {
        Some(query) => format!("{path}?{query}"),
        None => path,
    };
    Some(Sent {
        host,
        target,
        headers,
    })
}

fn edit(headers: &mut Vec<(String, String)>, modifier: &Value) {
    let of = |entry: &Value| text(&entry["name"]).to_ascii_lowercase();
    for name in list(&modifier["remove"]) {
        let name = text(name).to_ascii_lowercase();
        headers.retain(|(other, _)| *other != name);
    }
    for entry in list(&modifier["set"]) {
        headers.retain(|(other, _)| *other != of(entry));
        headers.push((of(entry), text(&entry["value"]).to_owned()));
    }
    for entry in list(&modifier["add"]) {
        headers.push((of(entry), text(&entry["value"]).to_owned()));
    }
}

fn rewritten(path: &str, rewrite: &Value, one: &Value) -> String {
    match text(&rewrite["type"]) {
        "ReplaceFullPath" => text(&rewrite["replaceFullPath"]).to_owned(),
        "ReplacePrefixMatch" => {
            let with = text(&rewrite["replacePrefixMatch"]).trim_end_matches('/');
            let mut segments = vec![with];
            segments.extend(behind(path, path_value(one)).unwrap_or_default());
            match segments.join("/") {
                whole if whole.is_empty() => "/".to_owned(),
                whole => whole,
            }
        }
        _ => path.to_owned(),
    }
}
