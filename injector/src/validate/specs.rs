//! HTTPRouteGroup, TCPRoute and UDPRoute.

use std::collections::BTreeSet;

use crds::smi::{HttpRouteGroupSpec, RouteMatch, TcpRouteSpec, UdpRouteSpec, parse_headers};
use policy::http_match::{Budget, HttpMatch};

use super::mistakes::{Mistakes, check_count, check_port};

/// Most matches of a group, methods and headers of a match, and ports of a route; the
/// schema says the same but for headers, which it cannot look into.
const MOST_MATCHES: usize = 64;
const MOST_METHODS: usize = 32;
const MOST_HEADERS: usize = 32;
const MOST_PORTS: usize = 128;

/// Methods that are registered for HTTP and its extensions and that people meet.
const METHODS: [&str; 19] = [
    "GET",
    "HEAD",
    "POST",
    "PUT",
    "DELETE",
    "PATCH",
    "OPTIONS",
    "CONNECT",
    "TRACE",
    "QUERY",
    "PROPFIND",
    "PROPPATCH",
    "MKCOL",
    "COPY",
    "MOVE",
    "LOCK",
    "UNLOCK",
    "REPORT",
    "SEARCH",
];

/// Methods that no client is likely to send, each with its field. They are taken: whoever
/// invents a method may match it.
pub(super) fn doubtful_methods(spec: &HttpRouteGroupSpec) -> Vec<String> {
    let mut doubts = Vec::new();
    for (index, route) in spec.matches.iter().enumerate() {
        for (place, method) in route.methods.iter().flatten().enumerate() {
            let method = method.as_str();
            if method == "*" || METHODS.contains(&method) || doubts.len() >= MOST_DOUBTS {
                continue;
            }
            let meant = METHODS.iter().find(|known| is_near(method, known));
            let meant = meant.map_or(String::new(), |known| format!("; {known} is one"));
            let shown: String = method.chars().take(40).collect();
            doubts.push(format!(
                "spec.matches[{index}].methods[{place}]: {shown:?} is no usual method of HTTP, \
                 and methods are compared exactly{meant}"
            ));
        }
    }
    doubts
}

/// Most doubts that one answer tells.
const MOST_DOUBTS: usize = 5;

/// Whether one is the other in other case, with letters in another order, or with one
/// more or less.
fn is_near(written: &str, known: &str) -> bool {
    let letters = |text: &str| {
        let mut letters: Vec<u8> = text.bytes().map(|b| b.to_ascii_uppercase()).collect();
        letters.sort_unstable();
        letters
    };
    let (written, known) = (letters(written), letters(known));
    let (long, short) = if written.len() >= known.len() {
        (written, known)
    } else {
        (known, written)
    };
    // What the longer has more, letter by letter of both in order.
    let mut rest = short.iter().peekable();
    let more = long
        .iter()
        .filter(|letter| rest.next_if_eq(letter).is_none())
        .count();
    rest.peek().is_none() && more <= 1
}

pub(super) fn check_http(spec: &HttpRouteGroupSpec, mistakes: &mut Mistakes) {
    check_count("spec.matches", spec.matches.len(), MOST_MATCHES, mistakes);
    let mut seen = BTreeSet::new();
    let mut budget = Budget::group();
    for (index, route) in spec.matches.iter().enumerate() {
        let field = format!("spec.matches[{index}]");
        if route.name.is_empty() {
            mistakes.add(format!("{field}.name"), "must not be empty");
        } else if !seen.insert(&route.name) {
            mistakes.add(
                format!("{field}.name"),
                format!("{:?} is the name of two matches", route.name),
            );
        }
        check_match(&field, route, &mut budget, mistakes);
    }
}

/// The very code that will match requests says whether the match can be used.
fn check_match(field: &str, route: &RouteMatch, budget: &mut Budget, mistakes: &mut Mistakes) {
    let headers = match parse_headers(route.headers.as_ref()) {
        Ok(headers) => headers,
        Err(error) => {
            mistakes.add(format!("{field}.headers"), error.to_string());
            Vec::new()
        }
    };
    let methods = route.methods.as_deref().unwrap_or_default();
    check_count(
        &format!("{field}.methods"),
        methods.len(),
        MOST_METHODS,
        mistakes,
    );
    check_count(
        &format!("{field}.headers"),
        headers.len(),
        MOST_HEADERS,
        mistakes,
    );
    let path = route.path_regex.as_deref();
    if let Err(bad) = HttpMatch::within(budget, &route.name, path, methods, &headers) {
        mistakes.add(format!("{field}.{}", bad.field), bad.reason);
    }
}

pub(super) fn check_tcp(spec: &TcpRouteSpec, mistakes: &mut Mistakes) {
    let matches = spec.matches.as_ref();
    check_ports(matches.and_then(|m| m.ports.as_deref()), mistakes);
}

pub(super) fn check_udp(spec: &UdpRouteSpec, mistakes: &mut Mistakes) {
    let matches = spec.matches.as_ref();
    check_ports(matches.and_then(|m| m.ports.as_deref()), mistakes);
}

fn check_ports(ports: Option<&[i64]>, mistakes: &mut Mistakes) {
    let count = ports.map_or(0, <[_]>::len);
    check_count("spec.matches.ports", count, MOST_PORTS, mistakes);
    for (index, port) in ports.into_iter().flatten().enumerate() {
        check_port(format!("spec.matches.ports[{index}]"), *port, mistakes);
    }
}
