//! Names that docs pages and code must both know: metrics, labels and their values.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

pub(crate) type Words = BTreeSet<String>;

/// A file of the repository.
pub(crate) fn read(path: &str) -> String {
    let path = root().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every file below a folder of the repository that has one of these endings.
pub(crate) fn below(folder: &str, endings: &[&str]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).expect("the folder must be readable") {
            let path = entry.expect("the entry must be readable").path();
            if path.is_dir() {
                folders.push(path);
            } else if endings
                .iter()
                .any(|ending| path.to_string_lossy().ends_with(ending))
            {
                files.push(path);
            }
        }
    }
    assert!(!files.is_empty(), "{folder} has no such file");
    files
}

/// The source of the proxy's crates without its tests.
pub(crate) fn code() -> String {
    let mut all = String::new();
    let crates = ["proxy/src", "proxy/http/src", "proxy/net/src"];
    for path in crates.iter().flat_map(|folder| below(folder, &[".rs"])) {
        if path.components().any(|part| part.as_os_str() == "tests") || path.ends_with("tests.rs") {
            continue;
        }
        let text = std::fs::read_to_string(&path).expect("the source must be readable");
        let end = text.find("\n#[cfg(test)]\nmod tests").unwrap_or(text.len());
        all.push_str(&text[..end]);
        all.push('\n');
    }
    all
}

/// What stands between single backquotes and is a word as labels have them.
pub(crate) fn quoted(text: &str) -> Words {
    let words = text.split('`').skip(1).step_by(2);
    words
        .filter(|word| {
            let fits =
                |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
            !word.is_empty() && word.bytes().all(fits)
        })
        .map(str::to_owned)
        .collect()
}

/// The second cell of the row of a table whose first cell is `first`.
pub(crate) fn cell<'a>(page: &'a str, first: &str) -> &'a str {
    let begin = format!("| {first} | ");
    page.lines()
        .find_map(|line| line.strip_prefix(&begin)?.strip_suffix(" |"))
        .unwrap_or_else(|| panic!("no row begins with {begin:?}"))
}

/// The literals that follow `call` in the source, as its first argument.
pub(crate) fn first_arguments(code: &str, call: &str) -> Words {
    let mut words = Words::new();
    for (at, _) in code.match_indices(call) {
        let rest = code[at + call.len()..].trim_start();
        if let Some(literal) = rest.strip_prefix('"') {
            let end = literal.find('"').expect("a literal must end");
            words.insert(literal[..end].to_owned());
        }
    }
    words
}

/// Every literal in the source between `begin` and the first `end` behind it.
pub(crate) fn literals(code: &str, begin: &str, end: &str) -> Words {
    let at = code
        .find(begin)
        .unwrap_or_else(|| panic!("no {begin:?} in the source"));
    let part = &code[at..];
    let part = &part[..part.find(end).unwrap_or(part.len())];
    let literals = part.split('"').skip(1).step_by(2);
    literals.map(str::to_owned).collect()
}

/// Fails with what only one of them has.
pub(crate) fn same(what: &str, page: &Words, code: &Words) {
    let only =
        |one: &Words, other: &Words| -> Vec<String> { one.difference(other).cloned().collect() };
    let (stale, missing) = (only(page, code), only(code, page));
    assert!(
        stale.is_empty() && missing.is_empty(),
        "{what}: the page names {stale:?}, which the code cannot say, and lacks {missing:?}"
    );
}

/// Names that begin with `weft_`, wherever they stand in a text.
pub(crate) fn names(text: &str) -> Words {
    let mut names = Words::new();
    for (at, _) in text.match_indices("weft_") {
        let rest = &text[at..];
        let end = rest
            .find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
            .unwrap_or(rest.len());
        names.insert(rest[..end].to_owned());
    }
    names
}
