//! Which rule of several HTTPRoutes decides about a request, read straight from their JSON.

use std::cmp::Ordering;

use serde_json::Value;

use super::Decision;
use super::generate::Request;

/// A match that the request fits.
struct Fit<'a> {
    route: &'a Value,
    rule: usize,
    place: usize,
    one: Value,
}

pub(crate) fn decide(objects: &[Value], request: &Request) -> Decision {
    let mut best: Option<Fit<'_>> = None;
    for route in objects {
        let rules = route["spec"]["rules"].as_array().unwrap();
        for (rule, written) in rules.iter().enumerate() {
            let mut matches = written["matches"].as_array().unwrap().clone();
            if matches.is_empty() {
                matches.push(Value::Object(serde_json::Map::new()));
            }
            for (place, one) in matches.into_iter().enumerate() {
                let fit = Fit {
                    route,
                    rule,
                    place,
                    one,
                };
                if fit.fits(request) && best.as_ref().is_none_or(|best| fit.beats(best)) {
                    best = Some(fit);
                }
            }
        }
    }
    best.map(|best| (best.label(), best.rule))
}

impl Fit<'_> {
    fn fits(&self, request: &Request) -> bool {
        let method = &self.one["method"];
        self.path_fits(&request.path)
            && (method.is_null() || *method == request.method.as_str())
            && self.headers().iter().all(|(name, wanted)| {
                let lines = request.headers.iter();
                let lines: Vec<&str> = lines
                    .filter(|(other, _)| other == name)
                    .map(|(_, value)| value.as_str())
                    .collect();
                !lines.is_empty() && value_fits(wanted, &lines.join(","))
            })
            && self.parameters().iter().all(|(name, wanted)| {
                let query = request.query.as_deref().unwrap_or_default();
                let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
                let first = pairs.find(|(other, _)| other == name);
                let first = first.map(|(_, value)| value.replace('+', " ").replace("%20", " "));
                first.is_some_and(|value| value_fits(wanted, &value))
            })
    }

    /// Type and value of the path.
    fn path(&self) -> (&str, &str) {
        let path = &self.one["path"];
        let kind = path["type"].as_str().unwrap_or("PathPrefix");
        (kind, path["value"].as_str().unwrap_or("/"))
    }

    fn path_fits(&self, path: &str) -> bool {
        let segments = |text: &str| -> Vec<String> {
            let parts = text.split('/').filter(|part| !part.is_empty());
            parts.map(str::to_owned).collect()
        };
        match self.path() {
            ("Exact", value) => path == value,
            ("PathPrefix", value) => segments(path).starts_with(&segments(value)),
            (_, "/a.*") => path.starts_with("/a"),
            (_, "/[ab]") => path == "/a" || path == "/b",
            (_, "/.*b.*") => path.contains('b'),
            (_, other) => panic!("{other} is not known here"),
        }
    }

    /// Names of headers in small letters; the first of each counts.
    fn headers(&self) -> Vec<(String, &Value)> {
        named(&self.one["headers"], str::to_ascii_lowercase)
    }

    fn parameters(&self) -> Vec<(String, &Value)> {
        named(&self.one["queryParams"], str::to_owned)
    }

    fn label(&self) -> String {
        let text = |field: &str| self.route["metadata"][field].as_str().unwrap();
        format!("{}/{}", text("namespace"), text("name"))
    }

    /// Whether it has precedence, criterion by criterion.
    fn beats(&self, other: &Self) -> bool {
        let exact = |one: &Self| one.path().0 == "Exact";
        let expression = |one: &Self| one.path().0 == "RegularExpression";
        if exact(self) != exact(other) {
            return exact(self);
        }
        if expression(self) != expression(other) {
            return expression(other);
        }
        let length = |one: &Self| match one.path() {
            ("PathPrefix", value) => value.strip_suffix('/').unwrap_or(value).len(),
            _ => 0,
        };
        let method = |one: &Self| usize::from(!one.one["method"].is_null());
        let headers = |one: &Self| one.headers().len();
        let parameters = |one: &Self| one.parameters().len();
        for count in [
            &length as &dyn Fn(&Self) -> usize,
            &method,
            &headers,
            &parameters,
        ] {
            match count(self).cmp(&count(other)) {
                Ordering::Greater => return true,
                Ordering::Less => return false,
                Ordering::Equal => {}
            }
        }
        let age = |one: &Self| {
            let created = &one.route["metadata"]["creationTimestamp"];
            (created.as_str().unwrap().to_owned(), one.label())
        };
        (age(self), self.rule, self.place) < (age(other), other.rule, other.place)
    }
}

fn named(list: &Value, same: fn(&str) -> String) -> Vec<(String, &Value)> {
    let mut named: Vec<(String, &Value)> = Vec::new();
    for entry in list.as_array().into_iter().flatten() {
        let name = same(entry["name"].as_str().unwrap());
        if named.iter().all(|(known, _)| *known != name) {
            named.push((name, entry));
        }
    }
    named
}

/// The only expression for values fits all of them.
fn value_fits(wanted: &Value, value: &str) -> bool {
    wanted["type"] == "RegularExpression" || wanted["value"] == value
}
