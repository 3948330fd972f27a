//! HTTPRouteGroups: whether a request is one of those that a match describes.

use std::{cell::RefCell, collections::HashMap};

use regex::{Regex, RegexBuilder};
use serde_json::Value;

use crate::{
    Request, World,
    object::{list, spec, text},
    shape::readable,
};

const MOST_BYTES: usize = 1024;
const MOST_COMPILED: usize = 256 * 1024;
const MOST_HEADERS: usize = 32;

impl World {
    /// Whether the request fits one of the group's matches; only those of `names`
    /// count if there are any names. `path` replaces the request's own.
    pub(crate) fn group_fits(
        &self,
        namespace: &str,
        group: &str,
        names: Option<&[Value]>,
        request: &Request,
        path: &str,
    ) -> bool {
        let Some(group) = self.find("HTTPRouteGroup", namespace, group) else {
            return false;
        };
        if !readable(group) {
            return false;
        }
        let mut seen: Vec<&str> = Vec::new();
        list(&spec(group)["matches"]).iter().any(|one| {
            let name = text(&one["name"]);
            // The second of two matches with one name does not exist.
            if name.is_empty() || seen.contains(&name) {
                return false;
            }
            seen.push(name);
            let selected = names.is_none_or(|names| names.iter().any(|wanted| wanted == name));
            selected && match_fits(one, request, path).unwrap_or(false)
        })
    }
}

/// `None` if the match cannot be used.
fn match_fits(one: &Value, request: &Request, path: &str) -> Option<bool> {
    let path_fits = match one["pathRegex"].as_str() {
        Some(pattern) => compiled(pattern, "")?.is_match(path),
        None => true,
    };
    let mut method_fits = list(&one["methods"]).is_empty();
    for method in list(&one["methods"]).iter().map(text) {
        if !is_token(method) {
            return None;
        }
        method_fits |= method == "*" || method == request.method;
    }
    let mut headers_fit = true;
    for (name, pattern) in headers(&one["headers"])? {
        if !is_token(&name) {
            return None;
        }
        let pattern = compiled(&pattern, "$")?;
        let values = values(request, &name);
        headers_fit &= !values.is_empty()
            && values
                .iter()
                .all(|value| std::str::from_utf8(value).is_ok_and(|value| pattern.is_match(value)));
    }
    Some(path_fits && method_fits && headers_fit)
}

/// The values of a header, one per line; the lines of a cookie are one value.
fn values(request: &Request, name: &str) -> Vec<Vec<u8>> {
    let lines = request.headers.iter();
    let lines: Vec<Vec<u8>> = lines
        .filter(|(other, _)| other.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.clone())
        .collect();
    if name.eq_ignore_ascii_case("cookie") && !lines.is_empty() {
        return vec![lines.join(&b"; "[..])];
    }
    lines
}

/// Names and patterns, from a map or a list of maps with one entry each. `None` if
/// it is neither.
fn headers(written: &Value) -> Option<Vec<(String, String)>> {
    let entries: Vec<(&String, &Value)> = match written {
        Value::Null => Vec::new(),
        Value::Object(map) => map.iter().collect(),
        Value::Array(list) => {
            let mut entries = Vec::new();
            for entry in list {
                let entry = entry.as_object().filter(|entry| entry.len() == 1)?;
                entries.extend(entry);
            }
            entries
        }
        _ => return None,
    };
    if entries.len() > MOST_HEADERS {
        return None;
    }
    entries
        .into_iter()
        .map(|(name, pattern)| Some((name.clone(), pattern.as_str()?.to_owned())))
        .collect()
}

/// What names of headers and methods are made of.
fn is_token(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

thread_local! {
    /// Compiling is what costs.
    static KNOWN: RefCell<HashMap<String, Option<Regex>>> = RefCell::default();
}

/// The pattern, tied to the start of the text and, with `end`, to its end.
pub(crate) fn compiled(pattern: &str, end: &str) -> Option<Regex> {
    if pattern.len() > MOST_BYTES {
        return None;
    }
    let build = |pattern: &str| {
        RegexBuilder::new(pattern)
            .size_limit(MOST_COMPILED)
            .build()
            .ok()
    };
    // First alone: what is no pattern by itself must not become one by the rest.
    let tied = format!("^(?:{pattern}){end}");
    KNOWN.with_borrow_mut(|known| {
        let made = || build(pattern).and_then(|_| build(&tied));
        known.entry(tied.clone()).or_insert_with(made).clone()
    })
}
