//! Parses the matches of a rule, and computes how specific each of them is.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use policy::http_match::{Budget, Description, HttpMatch, PathMatch, ValueMatch};

use super::path::problem_of_match;
use crate::reader::{Broken, Field, Object};

/// The methods that a match may name.
pub(crate) const METHODS: [&str; 9] = [
    "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH",
];

/// The method of every call of gRPC.
const GRPC_METHOD: &str = "POST";

/// Any segment of a path.
const ANY_SEGMENT: &str = "[^/]+";

/// One set of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RouteMatch {
    /// Which requests.
    pub http: HttpMatch,
    /// What the match is sorted by.
    pub specificity: Specificity,
}

/// How specific a match is: less is more specific, and comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Specificity {
    path: PathClass,
    /// Characters of a prefix, or of the name of a service of gRPC.
    length: Reverse<usize>,
    /// Whether there is a method of HTTP, or the characters of one of gRPC.
    method: Reverse<usize>,
    headers: Reverse<usize>,
    query: Reverse<usize>,
}

/// How a path is compared, in order of precedence. Calls of gRPC are all alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum PathClass {
    Exact,
    Prefix,
    Expression,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Compare {
    Exact,
    Expression,
}

const COMPARE: [(&str, Compare); 2] = [
    ("Exact", Compare::Exact),
    ("RegularExpression", Compare::Expression),
];

const PATHS: [(&str, PathClass); 3] = [
    ("Exact", PathClass::Exact),
    ("PathPrefix", PathClass::Prefix),
    ("RegularExpression", PathClass::Expression),
];

/// The matches of a rule that can be understood, and what is wrong with the first that cannot.
/// Without any there is one that every request fits.
pub(super) fn read(
    rule: &Object<'_>,
    budget: &mut Budget,
    read_one: fn(&Object<'_>, &mut Budget) -> Result<RouteMatch, Broken>,
    every_request: fn() -> RouteMatch,
) -> (Vec<RouteMatch>, Option<Broken>) {
    let list = match rule.list("matches") {
        Ok(list) => list,
        Err(broken) => return (Vec::new(), Some(broken)),
    };
    if list.is_empty() {
        return (vec![every_request()], None);
    }
    let mut matches = Vec::with_capacity(list.len());
    let mut wrong = None;
    for field in list {
        match field.object().and_then(|one| read_one(&one, budget)) {
            Ok(one) => matches.push(one),
            Err(broken) => wrong = wrong.or(Some(broken)),
        }
    }
    (matches, wrong)
}

/// What a rule of an HTTPRoute without matches fits.
pub(super) fn every_request() -> RouteMatch {
    let path = PathMatch::Prefix("/".to_owned());
    let description = Description {
        path: Some(path),
        ..Description::default()
    };
    RouteMatch {
        specificity: Specificity::new(PathClass::Prefix, 0, 0, &description),
        http: HttpMatch::as_described("", description),
    }
}

/// What a rule of a GRPCRoute without matches fits.
pub(super) fn every_grpc_call() -> RouteMatch {
    let description = Description {
        methods: vec![GRPC_METHOD.to_owned()],
        ..Description::default()
    };
    RouteMatch {
        specificity: Specificity::new(PathClass::Exact, 0, 0, &description),
        http: HttpMatch::as_described("", description),
    }
}

/// A match of an HTTPRoute.
pub(super) fn http(one: &Object<'_>, budget: &mut Budget) -> Result<RouteMatch, Broken> {
    one.only(&["path", "headers", "queryParams", "method"])?;
    let (path, class) = match one.field("path") {
        Some(path) => path_match(&path)?,
        None => (PathMatch::Prefix("/".to_owned()), PathClass::Prefix),
    };
    let length = match &path {
        // A final slash means nothing.
        PathMatch::Prefix(prefix) => prefix.trim_end_matches('/').len(),
        _ => 0,
    };
    let method = one.read("method", |method| {
        let text = method.text()?;
        let known = METHODS.contains(&text);
        known.then(|| text.to_owned()).ok_or_else(|| {
            let known = METHODS.join(", ");
            method.broken(format!("must be one of {known}"))
        })
    })?;
    let description = Description {
        path: Some(path),
        methods: method.into_iter().collect(),
        headers: values(one, "headers", str::to_ascii_lowercase)?,
        query: values(one, "queryParams", str::to_owned)?,
    };
    let methods = description.methods.len();
    let specificity = Specificity::new(class, length, methods, &description);
    compiled(one, description, specificity, budget)
}

fn path_match(field: &Field<'_>) -> Result<(PathMatch, PathClass), Broken> {
    let path = field.object()?;
    path.only(&["type", "value"])?;
    let class = path.read("type", |kind| kind.one_of(&PATHS))?;
    let class = class.unwrap_or(PathClass::Prefix);
    let value = path.read("value", Field::text)?.unwrap_or("/");
    if class != PathClass::Expression
        && let Some(problem) = problem_of_match(value)
    {
        return Err(path.need("value")?.broken(problem));
    }
    let value = value.to_owned();
    let path = match class {
        PathClass::Exact => PathMatch::Exact(value),
        PathClass::Prefix => PathMatch::Prefix(value),
        PathClass::Expression => PathMatch::Regex(value),
    };
    Ok((path, class))
}

/// The values that headers or parameters must have. Of several entries with one name the first
/// counts; `same` makes names that mean the same equal.
fn values(
    one: &Object<'_>,
    list: &str,
    same: fn(&str) -> String,
) -> Result<Vec<(String, ValueMatch)>, Broken> {
    let mut seen = BTreeSet::new();
    let mut values = Vec::new();
    for field in one.list(list)? {
        let entry = field.object()?;
        entry.only(&["type", "name", "value"])?;
        let name = entry.need("name")?.word()?;
        let value = entry.need("value")?.text()?.to_owned();
        let compare = entry.read("type", |kind| kind.one_of(&COMPARE))?;
        if seen.insert(same(name)) {
            let value = match compare.unwrap_or(Compare::Exact) {
                Compare::Exact => ValueMatch::Exact(value),
                Compare::Expression => ValueMatch::Regex(value),
            };
            values.push((name.to_owned(), value));
        }
    }
    Ok(values)
}

/// A match of a GRPCRoute.
pub(super) fn grpc(one: &Object<'_>, budget: &mut Budget) -> Result<RouteMatch, Broken> {
    one.only(&["method", "headers"])?;
    let method = one.read("method", |method| grpc_path(&method.object()?, budget))?;
    let (path, service, method) = method.unwrap_or((None, 0, 0));
    let description = Description {
        path,
        methods: vec![GRPC_METHOD.to_owned()],
        headers: values(one, "headers", str::to_ascii_lowercase)?,
        query: Vec::new(),
    };
    let specificity = Specificity::new(PathClass::Exact, service, method, &description);
    compiled(one, description, specificity, budget)
}

/// The paths of a service and method of gRPC, and how long the two names are. Expressions have no
/// length: what they fit is not known.
fn grpc_path(
    method: &Object<'_>,
    budget: &mut Budget,
) -> Result<(Option<PathMatch>, usize, usize), Broken> {
    method.only(&["type", "service", "method"])?;
    let compare = method.read("type", |kind| kind.one_of(&COMPARE))?;
    let (service, name) = (method.filled("service")?, method.filled("method")?);
    if compare == Some(Compare::Expression) {
        for (field, text) in [("service", service), ("method", name)] {
            if let Some(text) = text {
                alone(method, field, text, budget)?;
            }
        }
        let group =
            |text: Option<&str>| text.map_or(ANY_SEGMENT.to_owned(), |text| format!("(?:{text})"));
        let any = service.is_none() && name.is_none();
        let path = format!("/{}/{}", group(service), group(name));
        return Ok(((!any).then_some(PathMatch::Regex(path)), 0, 0));
    }
    if service.is_some_and(|service| !is_grpc_service(service)) {
        let text = "must be the full name of a service, such as shop.v1.Carts";
        return Err(method.need("service")?.broken(text));
    }
    if name.is_some_and(|name| !is_grpc_name(name)) {
        let text = "must be the name of a method, such as GetCart";
        return Err(method.need("method")?.broken(text));
    }
    let path = match (service, name) {
        (Some(service), Some(name)) => Some(PathMatch::Exact(format!("/{service}/{name}"))),
        (Some(service), None) => Some(PathMatch::Prefix(format!("/{service}"))),
        (None, Some(name)) => Some(PathMatch::Regex(format!("/{ANY_SEGMENT}/{name}"))),
        (None, None) => None,
    };
    let length = |text: Option<&str>| text.map_or(0, str::len);
    Ok((path, length(service), length(name)))
}

/// Checks an expression by itself: what is none must not become one by what stands around it. It
/// costs as much as any other, so it counts as one.
fn alone(method: &Object<'_>, field: &str, text: &str, budget: &mut Budget) -> Result<(), Broken> {
    let description = Description {
        path: Some(PathMatch::Regex(text.to_owned())),
        ..Description::default()
    };
    match HttpMatch::described(budget, "", description) {
        Ok(_) => Ok(()),
        Err(bad) => Err(method.need(field)?.broken(bad.reason)),
    }
}

fn is_grpc_service(text: &str) -> bool {
    let mut parts = text.strip_prefix('.').unwrap_or(text).split('.');
    parts.all(is_grpc_name)
}

fn is_grpc_name(text: &str) -> bool {
    let is_letter = |byte: u8| byte.is_ascii_alphabetic() || byte == b'_';
    text.bytes().next().is_some_and(is_letter)
        && text
            .bytes()
            .all(|byte| is_letter(byte) || byte.is_ascii_digit())
}

/// The very code that will match requests decides whether the match can be used.
fn compiled(
    one: &Object<'_>,
    description: Description,
    specificity: Specificity,
    budget: &mut Budget,
) -> Result<RouteMatch, Broken> {
    let http = HttpMatch::described(budget, "", description);
    let http = http.map_err(|bad| Broken {
        path: format!("{}.{}", one.path, bad.field),
        message: bad.reason,
    })?;
    Ok(RouteMatch { http, specificity })
}

impl Specificity {
    fn new(path: PathClass, length: usize, method: usize, of: &Description) -> Self {
        Self {
            path,
            length: Reverse(length),
            method: Reverse(method),
            headers: Reverse(of.headers.len()),
            query: Reverse(of.query.len()),
        }
    }
}
