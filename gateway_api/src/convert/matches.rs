//! The matches of HTTPRouteGroups as those of an HTTPRoute.

use std::collections::{BTreeMap, BTreeSet};

use crds::smi::validation::{Criteria, Validate};
use policy::http_match::{Budget, Description, HttpMatch, MAX_REGEX_LEN, PathMatch, ValueMatch};
use serde_json::{Map, Value, json};

use super::source::{Nothing, Source, context, is_named};
use crate::route::METHODS;

/// Matches that the API lets a rule have.
const OF_RULE: usize = 64;
/// Matches that the API lets a route have. The last is that of all other requests.
const OF_ROUTE: usize = 128 - 1;
/// Headers that the API lets a match name.
const MOST_HEADERS: usize = 16;
/// Characters that the API lets the name of a header have.
const LONGEST_HEADER: usize = 256;
/// Characters that mean something else than themselves in an expression.
const OPERATORS: [char; 14] = [
    '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
];

/// The matches of a split.
pub(super) struct Matches {
    list: Vec<Value>,
    /// Whether one of them has an expression for paths, which stand behind all prefixes.
    has_expression: bool,
}

/// The matches of a split; `None` if everything is split.
pub(super) fn of(
    source: &Source<'_>,
    unsaid: &mut Vec<String>,
) -> Result<Option<Matches>, Nothing> {
    if source.split.groups.is_empty() {
        return Ok(None);
    }
    let mut matches = Matches {
        list: Vec::new(),
        has_expression: false,
    };
    let mut seen = BTreeSet::new();
    for (i, name) in source.split.groups.iter().enumerate() {
        // What is no group is among the mistakes of the split.
        let name = name.as_ref().ok_or(Nothing)?;
        let field = format!("spec.matches[{i}]");
        let mut groups = source.around.groups.iter();
        let group = groups.find(|group| is_named(&group.metadata, source.namespace, name));
        let Some(group) = group else {
            unsaid.push(format!(
                "{field}.name: HTTPRouteGroup {name} is not given; give it too"
            ));
            return Err(Nothing);
        };
        if !seen.insert(name) {
            continue;
        }
        let (group, _) = group
            .spec
            .validate(&context(source.namespace, source.around));
        for one in &group.matches {
            // Another never fits.
            let Some(criteria) = &one.criteria else {
                continue;
            };
            let mut no = |why: String| {
                unsaid.push(format!(
                    "{field}: match {} of HTTPRouteGroup {name} {why}",
                    one.name
                ));
            };
            matches.add(criteria, &mut no);
        }
    }
    let count = matches.list.len();
    if count == 0 {
        unsaid.push("spec.matches: fit no request that a route could describe".to_owned());
        return Err(Nothing);
    }
    if count > OF_ROUTE {
        unsaid.push(format!(
            "spec.matches: become {count} matches, one for each method, and an HTTPRoute can have \
             {OF_ROUTE} beside that of all other requests; make several groups and routes of them"
        ));
        return Err(Nothing);
    }
    Ok(Some(matches))
}

/// The rules of a route: requests that fit go to `backends`, all others to `root`.
pub(super) fn rules(matches: &Matches, backends: &[Value], root: &Value) -> Vec<Value> {
    let rules = matches.list.chunks(OF_RULE);
    let rules = rules.map(|matches| json!({"matches": matches, "backendRefs": backends}));
    let mut others = json!({"backendRefs": [root]});
    if matches.has_expression {
        // A prefix would stand before all expressions.
        others["matches"] = json!([{"path": {"type": "RegularExpression", "value": ".*"}}]);
    }
    rules.chain([others]).collect()
}

impl Matches {
    /// Adds a match, once for each of its methods. What cannot be said goes to `no`.
    fn add(&mut self, criteria: &Criteria, no: &mut impl FnMut(String)) {
        let mut one = Map::new();
        let has_path = criteria.path_regex.is_some();
        if let Some(regex) = criteria.path_regex.as_deref() {
            let Some(path) = path(regex, no) else {
                return;
            };
            one.insert("path".to_owned(), path);
        }
        let Some(headers) = headers(criteria, no) else {
            return;
        };
        if !headers.is_empty() {
            one.insert("headers".to_owned(), Value::Array(headers));
        }
        let before = self.list.len();
        if criteria.methods.is_empty() || criteria.methods.iter().any(|method| &**method == "*") {
            self.list.push(Value::Object(one));
        } else {
            let methods: BTreeSet<&str> = criteria.methods.iter().map(|method| &**method).collect();
            for method in methods {
                if !METHODS.contains(&method) {
                    no(format!(
                        "is for method {method}, which no HTTPRoute can name"
                    ));
                    continue;
                }
                let mut one = one.clone();
                one.insert("method".to_owned(), method.into());
                self.list.push(Value::Object(one));
            }
        }
        self.has_expression |= has_path && self.list.len() > before;
    }
}

/// An expression with an open end as one that fits in full.
fn path(regex: &str, no: &mut impl FnMut(String)) -> Option<Value> {
    let value = format!("(?:{regex}).*");
    if value.len() > MAX_REGEX_LEN {
        no(format!(
            "has a pathRegex that becomes longer than {MAX_REGEX_LEN} bytes"
        ));
        return None;
    }
    let description = Description {
        path: Some(PathMatch::Regex(value.clone())),
        ..Description::default()
    };
    if let Err(bad) = HttpMatch::described(&mut Budget::group(), "", description) {
        no(format!(
            "has a pathRegex that cannot be given an open end: {}",
            bad.reason
        ));
        return None;
    }
    Some(json!({"type": "RegularExpression", "value": value}))
}

/// What each header must be.
fn headers(criteria: &Criteria, no: &mut impl FnMut(String)) -> Option<Vec<Value>> {
    let mut values: BTreeMap<String, &str> = BTreeMap::new();
    for (name, regex) in &criteria.headers {
        if name.len() > LONGEST_HEADER {
            no("names a header that is too long for an HTTPRoute".to_owned());
            return None;
        }
        let before = values.insert(name.to_ascii_lowercase(), regex);
        if before.is_some_and(|before| before != &**regex) {
            no(format!(
                "names header {name} twice, and of an HTTPRoute only the first counts"
            ));
            return None;
        }
    }
    if values.len() > MOST_HEADERS {
        no(format!(
            "names more than {MOST_HEADERS} headers, which is the most for an HTTPRoute"
        ));
        return None;
    }
    let values = values.into_iter();
    let values = values.map(|(name, regex)| value(&name, regex, no));
    values.collect()
}

/// One header. A split compares each value of it, and a route all of them as one text.
fn value(name: &str, regex: &str, no: &mut impl FnMut(String)) -> Option<Value> {
    let of = |kind: &str, value: &str| json!({"type": kind, "name": name, "value": value});
    // Their values are one text for both.
    let is_one = ["cookie", "host"].contains(&name);
    if regex == ".*" || is_one && regex.contains(OPERATORS) {
        return Some(of("RegularExpression", regex));
    }
    if is_one && !regex.is_empty() {
        return Some(of("Exact", regex));
    }
    let each = format!("(?:{regex})(?:,(?:{regex}))*");
    let description = Description {
        headers: vec![(name.to_owned(), ValueMatch::Regex(each.clone()))],
        ..Description::default()
    };
    if let Err(bad) = HttpMatch::described(&mut Budget::group(), "", description) {
        no(format!(
            "has an expression for header {name} that cannot stand for several values: {}",
            bad.reason
        ));
        return None;
    }
    Some(of("RegularExpression", &each))
}
