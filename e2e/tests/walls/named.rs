//! What pages name of the code exists: files by their path, tests by their function.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Pages that lead somebody into the code.
const PAGES: [&str; 3] = ["README.md", "docs/architecture.md", "docs/acceptance.md"];
/// Shorter words between backticks are no name of a test.
const SHORTEST_TEST: usize = 20;

/// Text between single backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// What of `page` is neither a file of the checkout nor a function of its sources.
fn unknown<'a>(
    page: &'a str,
    exists: impl Fn(&str) -> bool,
    functions: &BTreeSet<&str>,
) -> Vec<&'a str> {
    let is_name = |word: &str| {
        let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        word.len() >= SHORTEST_TEST && word.contains('_') && word.bytes().all(fits)
    };
    let is_path = |word: &str| word.ends_with(".rs") && word.contains('/') && !word.contains('{');
    quoted(page)
        .filter(|word| {
            (is_path(word) && !exists(word)) || (is_name(word) && !functions.contains(word))
        })
        .collect()
}

/// Names of all functions in `sources`.
fn functions(sources: &BTreeMap<String, String>) -> BTreeSet<&str> {
    let lines = sources.values().flat_map(|text| text.lines());
    lines
        .filter_map(|line| {
            let (_, rest) = line.split_once("fn ")?;
            let end = rest.find(|letter: char| !letter.is_ascii_alphanumeric() && letter != '_');
            rest.get(..end?)
        })
        .collect()
}

#[test]
fn pages_name_files_and_tests_that_exist() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e lies in the workspace");
    let mut sources = BTreeMap::new();
    for member in super::crates(top, &top.join("e2e/tests/walls")) {
        super::read_sources(top, &member.folder, &mut sources);
    }
    let functions = functions(&sources);
    for name in PAGES {
        let page = std::fs::read_to_string(top.join(name)).expect("the page must be there");
        let exists = |path: &str| top.join(path).exists();
        let missing = unknown(&page, exists, &functions);
        assert!(
            missing.is_empty(),
            "{name} names what is not there: {missing:?}"
        );
    }
}

#[test]
fn a_file_or_test_that_is_gone_is_found() {
    let page = "see `a/b.rs` and `a/gone.rs`, `a_test_that_is_really_there` and \
                `a_test_that_is_not_there_now`, `short_name` and `{a,b}/c.rs`";
    let exists = |path: &str| path == "a/b.rs";
    let known = BTreeSet::from(["a_test_that_is_really_there"]);
    let missing = unknown(page, exists, &known);
    assert_eq!(missing, ["a/gone.rs", "a_test_that_is_not_there_now"]);
}
