//! The path of a request in the forms that rules, limits and route names evaluate, parsed once per
//! request.
//!
//! Claims: calls-50

use std::sync::Arc;

use http::request::Parts;
use policy::http_match::RequestFacts;
use policy::path::PathForms;
use policy::route::names::Names;

/// The forms of a request's path.
#[derive(Debug)]
pub(super) struct EvaluatedPath(PathForms);

impl EvaluatedPath {
    pub(super) fn of(parts: &Parts) -> Self {
        Self(PathForms::of(parts.uri.path()))
    }

    pub(super) const fn forms(&self) -> &PathForms {
        &self.0
    }

    /// The request with the normal form of its path; with the path as it is where there is
    /// none. `parts`: its own.
    pub(super) fn facts<'a>(&'a self, parts: &'a Parts) -> RequestFacts<'a> {
        let sent = parts.uri.path();
        at(parts, self.0.normal(sent).unwrap_or(sent))
    }

    /// The request with its path as it came.
    pub(super) fn sent(parts: &Parts) -> RequestFacts<'_> {
        at(parts, parts.uri.path())
    }

    /// What the request is named by the normal form of its path, or, where there is none, by all
    /// of its readings alike. `parts`: its own.
    pub(super) fn route<'n>(&self, names: &'n Names, parts: &Parts) -> Option<&'n Arc<str>> {
        if let Ok(normal) = self.0.normal(parts.uri.path()) {
            return Some(names.name(&at(parts, normal)));
        }
        let readings = self.0.readings().iter();
        let mut all = readings.map(|path| names.name(&at(parts, path)));
        let first = all.next()?;
        all.all(|other| other == first).then_some(first)
    }
}

fn at<'a>(parts: &'a Parts, path: &'a str) -> RequestFacts<'a> {
    RequestFacts {
        method: &parts.method,
        path,
        query: parts.uri.query(),
        headers: &parts.headers,
    }
}

#[cfg(test)]
mod tests {
    use policy::http_match::HttpMatch;
    use policy::origin::Origin;

    use super::*;

    fn parts(path: &str) -> Parts {
        let request = http::Request::builder().uri(path).body(()).unwrap();
        request.into_parts().0
    }

    #[test]
    fn rules_see_normalised_path_before_and_after_replacement() {
        for (path, normal) in [
            ("/items", "/items"),
            ("/a/../%69tems", "/items"),
            ("//items", "/items"),
        ] {
            let mut parts = parts(path);
            let evaluated = EvaluatedPath::of(&parts);
            assert_eq!(evaluated.facts(&parts).path, normal, "{path}");
            parts.uri = normal.parse().unwrap();
            assert_eq!(evaluated.facts(&parts).path, normal);
        }
        let parts = parts("/a%2fb");
        let evaluated = EvaluatedPath::of(&parts);
        assert_eq!(evaluated.facts(&parts).path, "/a%2fb");
    }

    #[test]
    fn route_has_a_name_that_all_readings_have() {
        let one = |name: &str, path: &str| {
            let fits = HttpMatch::new(name, Some(path), &[] as &[&str], &[] as &[(&str, &str)]);
            (
                Origin::new("HTTPRouteGroup", "shop", "routes"),
                fits.unwrap(),
            )
        };
        let names = Names::of([one("items", "/items"), one("flat", "^/[^/]*$")]);
        for (path, name) in [
            ("/items%2F7", Some("routes/items")),
            ("/x%2Fitems", None),
            ("/a/b%2Fc", Some("")),
            ("//items", Some("routes/items")),
            ("/a%5Cb", None),
        ] {
            let parts = parts(path);
            let route = EvaluatedPath::of(&parts).route(&names, &parts);
            assert_eq!(route.map(|name| &**name), name, "{path}");
        }
    }
}
