//! Links between pages and code: every file that a page names by path or link exists, and so
//! does every heading and anchor that the code names. No page names a test; tests carry the
//! ids of claims. From the README to a deciding file it takes two steps, each step of the paths
//! in docs/architecture.md names its files, and its tables of folders equal those of the walls.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::read_sources;

/// Pages that lead a reader into the code.
const PAGES: [&str; 3] = ["README.md", "CONTRIBUTING.md", "docs/architecture.md"];
/// Where all other pages lie. What they name by a path is as much a promise.
const FOLDERS: [&str; 6] = [
    "docs",
    "docs/decisions",
    "evidence",
    "bench",
    "e2e/cluster",
    "e2e/interop",
];
/// Topics of docs/architecture.md, each with a row that names its files.
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
/// The paths that are drawn, a line each, in steps.
const PATHS: [&str; 3] = ["config", "outbound", "inbound"];
/// The page of which single lines are named, each by an explicit anchor.
const WITH_ANCHORS: &str = "docs/applications.md";
/// Crates whose folders have a table, in this order.
const TABLES: [&str; 3] = ["proxy", "controller", "model"];
const TABLE_OF_FOLDERS: &str = "| folder | what it is | may import |";
/// Folders of pages that people read who do not carry on the code, and of evidence, which
/// tests name and not the other way round.
const WITHOUT_TESTS: [&str; 2] = ["docs", "evidence"];

/// Text between single backticks.
fn quoted(page: &str) -> impl Iterator<Item = &str> {
    page.lines()
        .flat_map(|line| line.split('`').skip(1).step_by(2))
}

/// What of `page` is no file of the checkout, by its whole path: a name alone may be that of
/// several files.
fn unknown(page: &str, exists: impl Fn(&str) -> bool) -> Vec<&str> {
    quoted(page)
        .filter(|word| is_file(word) && !exists(word))
        .collect()
}

/// Tests that `page` names.
fn named_tests<'a>(page: &'a str, tests: &BTreeSet<&str>) -> Vec<&'a str> {
    quoted(page).filter(|word| tests.contains(word)).collect()
}

fn is_file(word: &str) -> bool {
    word.ends_with(".rs") && !word.contains('{')
}

/// What of `page` is the path of no file. A name without a folder is none: a decision may
/// speak of every `lib.rs`.
fn not_there(page: &str, exists: impl Fn(&str) -> bool) -> Vec<&str> {
    quoted(page)
        .filter(|word| is_file(word) && word.contains('/') && !exists(word))
        .collect()
}

/// Links of the page `name` to what is not there.
fn broken_links<'a>(name: &str, page: &'a str) -> Vec<&'a str> {
    let page_path = top().join(name);
    let folder = page_path.parent().expect("a page lies in a folder");
    links(page)
        .filter(|link| !folder.join(link).exists())
        .collect()
}

/// Pages of a folder, by their path.
fn pages_in(folder: &str) -> Vec<String> {
    let entries = std::fs::read_dir(top().join(folder)).expect("a folder of pages");
    let names = entries.map(|entry| entry.expect("an entry").file_name());
    names
        .filter_map(|name| name.into_string().ok())
        .filter(|name| name.ends_with(".md"))
        .map(|name| format!("{folder}/{name}"))
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

/// The steps of a way that the page draws as `name: one > [two > three] x times (why) > four`.
fn steps<'a>(page: &'a str, heading: &str) -> Vec<&'a str> {
    let drawn = page.lines().find_map(|line| {
        let steps = line.strip_prefix(heading)?.trim_start();
        steps.strip_prefix(": ")
    });
    let step = |step: &'a str| {
        let step = step.trim_start_matches('[');
        let end = step.find(['(', ']']).unwrap_or(step.len());
        step[..end].trim()
    };
    drawn
        .into_iter()
        .flat_map(|line| line.split(" > ").map(step))
        .collect()
}

/// Steps without a row that names a file, and ways without steps.
fn without_files(page: &str) -> Vec<String> {
    let named = |heading: &str, step: &str| {
        page.lines().any(|line| {
            let mut cells = line.split('|').skip(1).map(str::trim);
            let row = (cells.next(), cells.next());
            let file = |cell: &str| quoted(cell).any(|word| word.ends_with(".rs"));
            row == (Some(heading), Some(step)) && cells.nth(1).is_some_and(file)
        })
    };
    let mut missing = Vec::new();
    for heading in PATHS {
        let steps = steps(page, heading);
        if steps.is_empty() {
            missing.push(heading.to_owned());
        }
        let unnamed = steps.into_iter().filter(|step| !named(heading, step));
        missing.extend(unnamed.map(|step| format!("{heading}: {step}")));
    }
    missing
}

/// A folder and what it may import, as one line.
fn row<'a>(folder: &str, imports: impl Iterator<Item = &'a str>) -> String {
    let imports: BTreeSet<&str> = imports.collect();
    let imports: Vec<&str> = imports.into_iter().collect();
    format!("{folder} [{}]", imports.join(" "))
}

/// Of each table of folders its rows, a line for each folder.
fn drawn(page: &str) -> Vec<BTreeSet<String>> {
    let mut tables = Vec::new();
    let mut lines = page.lines();
    while lines.any(|line| line == TABLE_OF_FOLDERS) {
        let rows = lines
            .by_ref()
            .skip(1)
            .take_while(|line| line.starts_with('|'));
        let mut table = BTreeSet::new();
        for line in rows {
            let cells: Vec<&str> = line.split('|').map(str::trim).collect();
            let imports = cells.get(3).copied().unwrap_or_default();
            let imports = imports.split(", ").filter(|name| *name != "nothing");
            for folder in quoted(cells[1]) {
                table.insert(row(folder.trim_end_matches('/'), imports.clone()));
            }
        }
        tables.push(table);
    }
    tables
}

/// The rows of a table of rooms, in the same form.
fn walls(rooms: &str) -> BTreeSet<String> {
    let lines = rooms.lines().filter_map(|line| line.split('#').next());
    lines
        .filter_map(|line| line.trim().strip_suffix(']')?.split_once('['))
        .map(|(room, imports)| row(room.trim(), imports.split_whitespace()))
        .collect()
}

/// Names of the tests in `sources`: functions below an attribute `test`.
fn tests(sources: &BTreeMap<String, String>) -> BTreeSet<&str> {
    let mut names = BTreeSet::new();
    for text in sources.values() {
        let mut lines = text.lines();
        while let Some(line) = lines.next() {
            if !line.trim_end().ends_with("test]") {
                continue;
            }
            let function = lines.by_ref().find_map(|line| line.split_once("fn "));
            let name = function.and_then(|(_, rest)| rest.split('(').next());
            names.extend(name);
        }
    }
    names
}

/// Pages with the place in them that texts of the code name, as `docs/page.md#place`. What the
/// code fills in is left out.
fn places(source: &str) -> impl Iterator<Item = (&str, &str)> {
    let is_of_a_link = |letter: char| letter.is_ascii_alphanumeric() || "-_/.#".contains(letter);
    let links = source.match_indices("docs/").filter_map(move |(at, _)| {
        let link = source
            .get(at..)?
            .split(|letter: char| !is_of_a_link(letter))
            .next()?;
        link.trim_end_matches('.').split_once('#')
    });
    links.filter(|(page, place)| page.ends_with(".md") && !place.is_empty())
}

/// What a link may name in a page: its headings as a renderer names them, and its anchors.
fn nameable(page: &str) -> BTreeSet<String> {
    let headings = page
        .lines()
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            let text = line.trim_start_matches('#').trim().to_lowercase();
            let kept = text
                .chars()
                .filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
            kept.collect::<String>().replace(' ', "-")
        });
    headings
        .chain(anchors(page).map(ToOwned::to_owned))
        .collect()
}

/// The explicit anchors of a page.
fn anchors(page: &str) -> impl Iterator<Item = &str> {
    let rest = page.split("<a id=\"").skip(1);
    rest.filter_map(|rest| rest.split('"').next())
}

fn top() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e lies in the workspace")
}

fn read(name: &str) -> String {
    std::fs::read_to_string(top().join(name)).expect("the page must be there")
}

#[test]
fn pages_name_files_that_exist() {
    let top = top();
    for name in PAGES {
        let page = read(name);
        let missing = unknown(&page, |path| top.join(path).exists());
        assert!(
            missing.is_empty(),
            "{name} names what is not there: {missing:?}"
        );
        let broken = broken_links(name, &page);
        assert!(broken.is_empty(), "{name} links to nothing: {broken:?}");
    }
}

#[test]
fn no_page_names_a_test() {
    let top = top();
    let mut sources = BTreeMap::new();
    for member in super::crates(top, &top.join("e2e/tests/walls")) {
        read_sources(top, &member.folder, &mut sources);
    }
    let tests = tests(&sources);
    assert!(tests.contains("no_page_names_a_test"));
    for name in WITHOUT_TESTS.iter().flat_map(|folder| pages_in(folder)) {
        let named = named_tests(&read(&name), &tests)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>();
        assert!(
            named.is_empty(),
            "{name} names tests; a test carries the id of a claim instead: {named:?}"
        );
    }
}

#[test]
fn pages_and_decisions_name_existing_paths_and_links() {
    let exists = |path: &str| top().join(path).exists();
    for folder in FOLDERS {
        let pages = pages_in(folder);
        assert!(!pages.is_empty(), "{folder} has no page");
        for name in pages {
            let page = read(&name);
            let not_there = not_there(&page, exists);
            assert!(
                not_there.is_empty(),
                "{name} names what is not there: {not_there:?}"
            );
            let broken = broken_links(&name, &page);
            assert!(broken.is_empty(), "{name} links to nothing: {broken:?}");
        }
    }
}

#[test]
fn places_that_the_code_names_stand_in_the_pages() {
    let top = top();
    let mut sources = BTreeMap::new();
    for member in super::crates(top, &top.join("e2e/tests/walls")) {
        if member.shipped {
            read_sources(top, &member.folder, &mut sources);
        }
    }
    let named: BTreeSet<(&str, &str)> = sources.values().flat_map(|text| places(text)).collect();
    let missing: Vec<_> = named
        .iter()
        .filter(|(page, place)| !top.join(page).exists() || !nameable(&read(page)).contains(*place))
        .collect();
    assert!(missing.is_empty(), "the code names {missing:?}");
    // An anchor that nothing names any more goes.
    let page = read(WITH_ANCHORS);
    let all: Vec<&str> = anchors(&page).collect();
    let anchors: BTreeSet<&str> = all.iter().copied().collect();
    assert_eq!(anchors.len(), all.len(), "an anchor stands twice: {all:?}");
    let of_lines = named.iter().filter(|(page, _)| *page == WITH_ANCHORS);
    let of_lines: BTreeSet<&str> = of_lines.map(|(_, place)| *place).collect();
    assert_eq!(of_lines, anchors);
}

#[test]
fn the_readme_leads_in_two_steps_to_what_decides() {
    let (readme, architecture) = (read("README.md"), read("docs/architecture.md"));
    assert!(readme.contains("](docs/architecture.md#what-decides)"));
    assert!(architecture.contains("\n## What decides\n"));
    assert_eq!(undecided(&architecture), [""; 0]);
}

#[test]
fn each_step_that_the_architecture_draws_names_its_files() {
    let page = read("docs/architecture.md");
    assert_eq!(without_files(&page), [""; 0]);
}

#[test]
fn the_tables_of_folders_say_what_the_walls_hold() {
    let tables = drawn(&read("docs/architecture.md"));
    assert_eq!(tables.len(), TABLES.len());
    for (name, drawn) in TABLES.iter().zip(tables) {
        let walls = walls(&read(&format!("e2e/tests/walls/rooms/{name}")));
        let differ: Vec<_> = drawn.symmetric_difference(&walls).collect();
        assert!(differ.is_empty(), "{name}: {differ:?}");
    }
}

#[test]
fn step_without_file_and_divergent_table_are_detected() {
    let page = "config  : admit > watch\n\
                outbound: accept > [choose > send (once)] x attempts\n\
                | config | admit | the webhook | `a/b.rs` |\n\
                | config | watch | `a/b.rs` | the collector |\n\
                | outbound | accept | it | `a/c.rs` |\n\
                | inbound | choose | it | `a/c.rs` |\n\
                | outbound | send | it | `a/c.rs`, `a/d.rs` |\n";
    assert_eq!(
        without_files(page),
        ["config: watch", "outbound: choose", "inbound"]
    );
    let page = "| folder | what it is | may import |\n|---|---|---|\n\
                | `net/`, `http` | sockets | nothing |\n| `mesh` | peers | net, http |\n\n\
                | folder | what it is | may import |\n|---|---|---|\n| `run` | it | all |";
    let tables = drawn(page);
    let rooms = "# leaves first\nhttp []\nnet [] # one\nmesh [http net]\n";
    assert_eq!(tables, [walls(rooms), walls("run [all]")]);
    let narrower = walls("http []\nnet []\nmesh [http]\n");
    assert_eq!(tables[0].symmetric_difference(&narrower).count(), 2);
}

#[test]
fn decision_without_file_and_dead_link_are_detected() {
    let page = "| split: where to | `a/b.rs` | `c/d.rs` |\n| access | the policy | `a/b.rs` |\n\
                see [b](a/b.rs#there), [c](https://c.example), [here](#here), [d](../d.md)";
    let missing = undecided(page);
    assert!(!missing.contains(&"split") && missing.contains(&"access"));
    assert_eq!(links(page).collect::<Vec<_>>(), ["a/b.rs", "../d.md"]);
}

#[test]
fn page_anchor_is_found_in_code_and_page() {
    let source = "see (docs/a.md#b-c). `docs/d.md#e` docs/{page}.md#f docs/a.md#{} docs/g.md";
    let found: Vec<_> = places(source).collect();
    assert_eq!(found, [("docs/a.md", "b-c"), ("docs/d.md", "e")]);
    let page = "# One, two\n| <a id=\"here\"></a>text |\n";
    let found: Vec<String> = nameable(page).into_iter().collect();
    assert_eq!(found, ["here", "one-two"]);
}

#[test]
fn missing_file_and_named_test_are_found() {
    let page = "see `a/b.rs`, `b.rs` and `a/gone.rs`, `a_test_that_is_there` and `{a,b}/c.rs`";
    let exists = |path: &str| path == "a/b.rs";
    assert_eq!(unknown(page, exists), ["b.rs", "a/gone.rs"]);
    assert_eq!(not_there(page, exists), ["a/gone.rs"]);
    let source = "#[tokio::test]\n#[ignore]\nasync fn a_test_that_is_there() {}\nfn no_test() {}";
    let sources = BTreeMap::from([("a/b.rs".to_owned(), source.to_owned())]);
    assert_eq!(
        named_tests(page, &tests(&sources)),
        ["a_test_that_is_there"]
    );
}
