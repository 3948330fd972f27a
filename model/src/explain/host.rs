//! Decides whether the result for a call depends on the host that the request names.
//!
//! Every request names a host, and proxies put it where rules look for headers before they
//! evaluate. So a query without a host describes no request that any client sends: where rules or
//! splits look at the host there is no result without it.

use http::header::HOST;
use policy::access::{Access, Caller, Rule};
use policy::http_match::{HttpMatch, RequestFacts};
use policy::path::PathForms;
use policy::route::{Match, Table};

/// Whether rules that refuse a call without its host let it in with some host. `path` was made of
/// that of the request.
pub(super) fn may_let_in(
    access: &Access,
    caller: Caller<'_>,
    port: u16,
    request: &RequestFacts<'_>,
    path: &PathForms,
) -> bool {
    if names_host(request) || !access.header_names().contains(HOST.as_str()) {
        return false;
    }
    let open = |rule: &Rule| Rule {
        http: rule
            .http
            .as_ref()
            .map(|matches| matches.iter().map(of_any_host).collect()),
        ..rule.clone()
    };
    let access = Access {
        enforcement: access.enforcement,
        rules: access.rules.iter().map(open).collect(),
    };
    let evaluated = access.decide_request(caller, port, request, path);
    evaluated.is_ok_and(|evaluated| evaluated.verdict.is_allowed())
}

/// Whether with some host another rule decides than for the call without one.
pub(super) fn may_decide_otherwise<T: Clone>(
    table: &Table<T>,
    request: Option<&RequestFacts<'_>>,
) -> bool {
    if request.is_none_or(names_host) {
        return false;
    }
    let mut of_any = table.clone();
    for rule in &mut of_any.rules {
        if let Match::AnyOf(matches) = &mut rule.when {
            for one in matches {
                *one = of_any_host(one);
            }
        }
    }
    of_any.position(request) != table.position(request)
}

fn names_host(request: &RequestFacts<'_>) -> bool {
    request.headers.contains_key(HOST)
}

/// The match without its condition on the host.
fn of_any_host(one: &HttpMatch) -> HttpMatch {
    let is_host = |name: &str| name.eq_ignore_ascii_case(HOST.as_str());
    if !one.header_names().any(is_host) {
        return one.clone();
    }
    let mut description = one.description().clone();
    description.headers.retain(|(name, _)| !is_host(name));
    HttpMatch::as_described(one.name(), description)
}
