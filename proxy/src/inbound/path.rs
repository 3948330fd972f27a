//! The path of a request as rules see it: made once, for all that judge the request.

use std::borrow::Cow;

use http::request::Parts;
use policy::http_match::RequestFacts;
use policy::path::{BadPath, normalise};

/// The normal form of a request's path.
#[derive(Debug)]
pub(super) struct JudgedPath {
    /// `None`: the path is its own normal form.
    normal: Result<Option<String>, BadPath>,
}

impl JudgedPath {
    pub(super) fn of(parts: &Parts) -> Self {
        let path = parts.uri.path();
        let normal = normalise(path).map(|normal| match normal {
            Cow::Borrowed(_) => None,
            Cow::Owned(normal) => Some(normal),
        });
        Self { normal }
    }

    /// The normal form where it differs.
    pub(super) fn changed(&self) -> Option<&str> {
        self.normal.as_ref().ok()?.as_deref()
    }

    /// Why the path has no normal form, so that rules may see it in one way and applications
    /// in another.
    pub(super) fn error(&self) -> Option<BadPath> {
        self.normal.as_ref().err().copied()
    }

    /// The request as rules see it. `parts`: its own.
    pub(super) fn facts<'a>(&'a self, parts: &'a Parts) -> RequestFacts<'a> {
        RequestFacts {
            method: &parts.method,
            path: self.text(parts),
            headers: &parts.headers,
        }
    }

    /// The normal form; the path as it is where there is none.
    fn text<'a>(&'a self, parts: &'a Parts) -> &'a str {
        self.changed().unwrap_or(parts.uri.path())
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
                (judged.text(&parts), judged.error()),
                (normal, None),
                "{path}"
            );
            parts.uri = normal.parse().unwrap();
            assert_eq!(judged.text(&parts), normal);
        }
        let parts = parts("/a%2fb");
        let judged = JudgedPath::of(&parts);
        assert_eq!(judged.text(&parts), "/a%2fb");
        assert_eq!(judged.error(), Some(BadPath::EscapedSlash));
    }
}
