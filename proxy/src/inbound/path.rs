//! The path of a request as rules see it: made once, for all that judge the request.

use http::request::Parts;
use policy::http_match::RequestFacts;
use policy::path::{BadPath, PathForms};

/// The forms of a request's path.
#[derive(Debug)]
pub(super) struct JudgedPath(PathForms);

impl JudgedPath {
    pub(super) fn of(parts: &Parts) -> Self {
        Self(PathForms::of(parts.uri.path()))
    }

    pub(super) const fn forms(&self) -> &PathForms {
        &self.0
    }

    /// Why the path has no normal form, so that rules may see it in one way and applications
    /// in another.
    pub(super) fn error(&self) -> Option<BadPath> {
        self.0.error()
    }

    /// The request with the normal form of its path; with the path as it is where there is
    /// none. `parts`: its own.
    pub(super) fn facts<'a>(&'a self, parts: &'a Parts) -> RequestFacts<'a> {
        let sent = parts.uri.path();
        RequestFacts {
            method: &parts.method,
            path: self.0.normal(sent).unwrap_or(sent),
            headers: &parts.headers,
        }
    }

    /// The request with its path as it came.
    pub(super) fn sent(parts: &Parts) -> RequestFacts<'_> {
        RequestFacts {
            method: &parts.method,
            path: parts.uri.path(),
            headers: &parts.headers,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts(path: &str) -> Parts {
        let request = http::Request::builder().uri(path).body(()).unwrap();
        request.into_parts().0
    }

    #[test]
    fn rules_see_the_normal_form_before_and_after_it_replaced_the_path() {
        for (path, normal) in [
            ("/items", "/items"),
            ("/a/../%69tems", "/items"),
            ("//items", "/items"),
        ] {
            let mut parts = parts(path);
            let judged = JudgedPath::of(&parts);
            assert_eq!(
                (judged.facts(&parts).path, judged.error()),
                (normal, None),
                "{path}"
            );
            parts.uri = normal.parse().unwrap();
            assert_eq!(judged.facts(&parts).path, normal);
        }
        let parts = parts("/a%2fb");
        let judged = JudgedPath::of(&parts);
        assert_eq!(judged.facts(&parts).path, "/a%2fb");
        assert_eq!(judged.error(), Some(BadPath::EscapedSlash));
    }
}
