//! The length and last bytes of the text that a path must begin with. Of the matches of a long
//! table nearly all fail by them, in place of three pointers to the text itself.

use super::description::PathMatch;

const COMPARED: usize = 8;

/// What is known without a look at the whole text.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stem {
    /// 0 where paths need not begin with a text.
    length: usize,
    last: u64,
}

impl Stem {
    pub(super) fn of(path: Option<&PathMatch>) -> Self {
        let text = match path {
            Some(PathMatch::Exact(text)) => text,
            Some(PathMatch::Prefix(text)) => text.strip_suffix('/').unwrap_or(text),
            Some(PathMatch::Open(_) | PathMatch::Regex(_)) | None => "",
        };
        Self {
            length: text.len(),
            last: last_bytes(text.as_bytes()),
        }
    }

    /// `false`: no match with this stem fits the path.
    pub(super) fn may_fit(self, path: &str) -> bool {
        let start = path.as_bytes().get(..self.length);
        start.is_some_and(|start| last_bytes(start) == self.last)
    }
}

fn last_bytes(text: &[u8]) -> u64 {
    match text.last_chunk::<COMPARED>() {
        Some(last) => u64::from_ne_bytes(*last),
        None => text
            .iter()
            .fold(0, |bytes, byte| bytes << 8 | u64::from(*byte)),
    }
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::super::{Description, HttpMatch, RequestFacts};
    use super::*;

    #[test]
    fn stem_passes_over_no_path_that_fits() {
        let paths: Vec<String> = (0..20)
            .flat_map(|length| {
                let path = format!("/{}", "abcdefgh/jklmnopqrst".get(..length).unwrap());
                let others = [
                    format!("{path}/"),
                    format!("{path}/x"),
                    format!("{path}x"),
                    path.replacen('a', "z", 1),
                    path.replace('/', "//"),
                    format!("{path}\u{e4}"),
                ];
                [path].into_iter().chain(others)
            })
            .collect();
        let (headers, mut fitting) = (HeaderMap::new(), 0);
        for text in &paths {
            let kinds = [PathMatch::Exact, PathMatch::Prefix];
            for path_match in kinds.map(|kind| kind(text.clone())) {
                let description = Description {
                    path: Some(path_match.clone()),
                    ..Description::default()
                };
                let one = HttpMatch::as_described("", description);
                for path in &paths {
                    let facts = RequestFacts {
                        method: &Method::GET,
                        path,
                        query: None,
                        headers: &headers,
                    };
                    let fits = one.fails(&facts).is_none();
                    fitting += usize::from(fits);
                    assert_eq!(one.matches(&facts), fits, "{path_match:?} {path}");
                }
            }
        }
        assert!(fitting > 300, "{fitting}");
    }

    #[test]
    fn expressions_and_empty_prefixes_have_no_stem() {
        let text = || "/abcdefghi".to_owned();
        let none = [
            None,
            Some(PathMatch::Open(text())),
            Some(PathMatch::Regex(text())),
            Some(PathMatch::Prefix("/".to_owned())),
        ];
        for path in none {
            let stem = Stem::of(path.as_ref());
            assert!(stem.may_fit("") && stem.may_fit("*"), "{path:?}");
        }
        assert!(!Stem::of(Some(&PathMatch::Exact(text()))).may_fit("/abcdefghj"));
    }
}
