//! HTTPRouteGroup, TCPRoute and UDPRoute.

use std::collections::BTreeSet;

use crds::smi::{HttpRouteGroupSpec, RouteMatch, TcpRouteSpec, UdpRouteSpec, parse_headers};
use policy::http_match::{Budget, HttpMatch};

use super::{Mistakes, check_count, check_port};

/// Most matches of a group, methods and headers of a match, and ports of a route; the
/// schema says the same but for headers, which it cannot look into.
const MOST_MATCHES: usize = 64;
const MOST_METHODS: usize = 32;
const MOST_HEADERS: usize = 32;
const MOST_PORTS: usize = 128;

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
