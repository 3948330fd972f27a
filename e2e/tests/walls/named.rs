//! What pages name of the code exists: files by their path or a link, tests by their
//! function. And the way from the README to what decides takes two steps.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Pages that lead somebody into the code.
const PAGES: [&str; 3] = ["README.md", "docs/architecture.md", "docs/acceptance.md"];
/// What somebody looks for who changes the mesh, each with a row that names its files.
const DECISIONS: [&str; 8] = [
    "split",
    "access",
    "no plaintext to the meshed",
    "peer identity",
    "last good config",
    "status",
    "injection",
    "drain",
];
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

/// Targets of links to something in the checkout, without the heading.
fn links(page: &str) -> impl Iterator<Item = &str> {
    page.split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#']).next())
        .filter(|link| !link.is_empty() && !link.contains("://"))
}

/// Of `DECISIONS`, those without a row whose second cell names a file.
fn undecided(page: &str) -> Vec<&'static str> {
    let decides = |what: &str| {
        page.lines().any(|line| {
            let mut cells = line.split('|').skip(1).map(str::trim);
            let question = cells.next().and_then(|cell| cell.split(':').next());
            let file = |cell: &str| quoted(cell).any(|word| word.ends_with(".rs"));
            question == Some(what) && cells.next().is_some_and(file)
        })
    };
    DECISIONS
        .into_iter()
        .filter(|what| !decides(what))
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
        let folder = top.join(name);
        let folder = folder.parent().expect("a page lies in a folder");
        let broken: Vec<_> = links(&page)
            .filter(|link| !folder.join(link).exists())
            .collect();
        assert!(broken.is_empty(), "{name} links to nothing: {broken:?}");
    }
}

#[test]
fn the_readme_leads_in_two_steps_to_what_decides() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e lies in the workspace");
    let read = |name| std::fs::read_to_string(top.join(name)).expect("the page must be there");
    let (readme, architecture) = (read("README.md"), read("docs/architecture.md"));
    assert!(readme.contains("](docs/architecture.md#what-decides)"));
    assert!(architecture.contains("\n## What decides\n"));
    assert_eq!(undecided(&architecture), [""; 0]);
}

#[test]
fn a_decision_without_a_file_and_a_link_to_nothing_are_found() {
    let page = "| split: where to | `a/b.rs` | `c/d.rs` |\n| access | the policy | `a/b.rs` |\n\
                see [b](a/b.rs#there), [c](https://c.example), [here](#here), [d](../d.md)";
    let missing = undecided(page);
    assert!(!missing.contains(&"split") && missing.contains(&"access"));
    assert_eq!(links(page).collect::<Vec<_>>(), ["a/b.rs", "../d.md"]);
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
