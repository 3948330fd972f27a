//! The order in which the matches of several routes are tried.
//!
//! The most specific match comes first, whichever route it stands in; then the oldest route, then
//! the first by name, then the place in the route.

use std::sync::Arc;

use crate::route::{Route, RouteMatch, Specificity};

/// What a match is sorted by: less comes first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    specificity: Specificity,
    /// Seconds since 1970.
    created: i64,
    /// `namespace/name` of the route.
    label: Arc<str>,
    rule: usize,
    place: usize,
}

impl Key {
    /// Of the match at `place` of the rule number `rule` of a route that was made at `created`, in
    /// seconds since 1970.
    #[must_use]
    pub fn new(route: &Route, created: i64, rule: usize, place: usize, one: &RouteMatch) -> Self {
        Self {
            specificity: one.specificity,
            created,
            label: format!("{}/{}", route.namespace, route.name).into(),
            rule,
            place,
        }
    }
}

/// Brings matches into the order in which they are tried.
pub fn sort<T>(matches: &mut [T], key: impl Fn(&T) -> &Key) {
    matches.sort_by(|one, other| key(one).cmp(key(other)));
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::{GRPCRoute, HTTPRoute};

    /// Places of the matches of one route, in the order in which they are tried.
    fn order(route: &Route) -> Vec<(usize, usize)> {
        let mut matches = Vec::new();
        for (rule, written) in route.rules.iter().enumerate() {
            for (place, one) in written.matches.iter().enumerate() {
                matches.push(((rule, place), Key::new(route, 0, rule, place, one)));
            }
        }
        sort(&mut matches, |(_, key)| key);
        matches.into_iter().map(|(at, _)| at).collect()
    }

    #[test]
    fn http_matches_follow_the_criteria_of_the_api() {
        let header = |count: usize| -> Value {
            let one = |i| json!({"name": format!("x-{i}"), "value": "1"});
            (0..count).map(one).collect()
        };
        let prefix = |path: &str| json!({"value": path});
        let expression = json!({"type": "RegularExpression", "value": "/long/.*"});
        let matches = json!([
            {"path": expression},
            {"path": expression, "method": "GET"},
            {},
            {"headers": header(2), "queryParams": header(1)},
            {"headers": header(2), "queryParams": header(2)},
            {"headers": header(3)},
            {"method": "GET"},
            {"path": prefix("/a/")},
            {"path": prefix("/a")},
            {"path": prefix("/ab")},
            {"path": {"type": "Exact", "value": "/a"}},
        ]);
        let spec = json!({"rules": [{"matches": matches}]});
        let route = Route::read_http(&HTTPRoute::new("shop", "web", spec));
        let places: Vec<usize> = order(&route).into_iter().map(|(_, place)| place).collect();
        assert_eq!(places, [10, 9, 7, 8, 6, 5, 4, 3, 2, 1, 0]);
    }

    #[test]
    fn grpc_matches_follow_service_method_and_headers() {
        let header = json!([{"name": "x-a", "value": "1"}]);
        let matches = json!([
            {},
            {"headers": header},
            {"method": {"type": "RegularExpression", "service": ".{40}"}},
            {"method": {"method": "Get"}},
            {"method": {"service": "a.B"}},
            {"method": {"service": "a.B", "method": "Get"}},
            {"method": {"service": "a.Bc"}},
            {"method": {"service": "a.B", "method": "Get"}, "headers": header},
        ]);
        let rules: Vec<Value> = matches
            .as_array()
            .unwrap()
            .iter()
            .map(|one| json!({"matches": [one]}))
            .collect();
        let route = GRPCRoute::new("shop", "web", json!({"rules": rules}));
        let rules: Vec<usize> = order(&Route::read_grpc(&route))
            .into_iter()
            .map(|(rule, _)| rule)
            .collect();
        assert_eq!(rules, [6, 7, 5, 4, 3, 1, 0, 2]);
    }

    #[test]
    fn equal_matches_are_tried_by_age_and_name() {
        let route = |namespace: &str, name: &str| {
            Route::read_http(&HTTPRoute::new(namespace, name, json!({})))
        };
        let routes = [
            (route("a", "z"), 5),
            (route("a", "y"), 5),
            (route("a-b", "z"), 5),
            (route("z", "z"), 4),
        ];
        let mut keys: Vec<(usize, Key)> = Vec::new();
        for (at, (route, created)) in routes.iter().enumerate() {
            let one = &route.rules[0].matches[0];
            keys.push((at, Key::new(route, *created, 0, 0, one)));
        }
        sort(&mut keys, |(_, key)| key);
        let order: Vec<usize> = keys.into_iter().map(|(at, _)| at).collect();
        assert_eq!(order, [3, 2, 1, 0], "a-b/z stands before a/y");
    }
}
