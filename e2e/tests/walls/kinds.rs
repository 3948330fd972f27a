//! A kind that exists only in tests: the code names it where a new kind must be added, and
//! nowhere else.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// What the kind is called: its facts, its field in a World, its translation.
const NAMES: [&str; 3] = ["ConfigMapFacts", "config_maps", "config_map"];
/// Its row, its facts and its translation.
const PLACES: [&str; 3] = [
    "model/src/translate/core.rs",
    "model/src/world/facts.rs",
    "model/src/world/kinds.rs",
];

/// Whether a text has one of the names as a word.
fn names_it(text: &str) -> bool {
    let in_a_word = |letter: char| letter.is_alphanumeric() || letter == '_';
    text.split(|letter| !in_a_word(letter))
        .any(|word| NAMES.contains(&word))
}

/// Files outside tests that name the kind.
fn naming(sources: &BTreeMap<String, String>) -> BTreeSet<&str> {
    sources
        .iter()
        .filter(|(file, _)| !file.contains("/tests/") && !file.ends_with("/tests.rs"))
        .filter(|(_, text)| names_it(text))
        .map(|(file, _)| file.as_str())
        .collect()
}

#[test]
fn kind_is_named_only_in_row_facts_and_translation() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .expect("e2e lies in the workspace");
    let mut sources = BTreeMap::new();
    super::read_sources(top, "controller/src", &mut sources);
    super::read_sources(top, "model/src", &mut sources);
    assert_eq!(naming(&sources), BTreeSet::from(PLACES));
}

#[test]
fn a_file_that_names_the_kind_besides_is_found() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let sources = BTreeMap::from([
        file("a.rs", "use crate::world::ConfigMapFacts;"),
        file("b.rs", "world.config_maps.len()"),
        file(
            "c.rs",
            "use k8s_openapi::api::core::v1::ConfigMap; fn config_map_of() {}",
        ),
        file("c/tests.rs", "world.config_maps.len()"),
    ]);
    assert_eq!(naming(&sources), BTreeSet::from(["a.rs", "b.rs"]));
}
