//! How files and functions are written: what a file opens with, and how long either may be.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{found, found_in, found_with};

#[test]
fn file_without_purpose_header_is_reported() {
    let header = |text: &str| {
        let sources = BTreeMap::from([("shop/src/lib.rs".to_owned(), text.to_owned())]);
        found_in("", &sources)
    };
    let why = "//! Why it is there:\n//!\n//! shortly.\n";
    assert_eq!(header(why), [""; 0]);
    for says_nothing in [
        "",
        "//!\n",
        "//! The shop's library.\n",
        &format!("// A comment.\n{why}"),
        &format!("\n{why}"),
    ] {
        assert_eq!(
            header(says_nothing),
            ["header: shop/src/lib.rs"],
            "{says_nothing:?}"
        );
    }
}

#[test]
fn file_over_480_lines_is_reported_unless_table() {
    let lines = |count: usize| "// One.\n".repeat(count);
    let files = |text: &str| {
        let root = "mod store;\nmod table;";
        found_with(
            "store []\ntable []",
            &[
                ("src/lib.rs", root),
                ("src/store.rs", text),
                ("src/table.rs", &lines(900)),
            ],
        )
    };
    assert_eq!(files(&lines(479)), [""; 0]);
    assert_eq!(files(&lines(480)), ["file-lines: shop/src/store.rs = 481"]);
}

#[test]
fn a_function_may_have_100_lines_and_six_parameters() {
    let function = |lines: usize, parameters: usize| {
        let mut text = String::from("fn f(");
        for each in 0..parameters {
            let _ = write!(text, "_a{each}: u8, ");
        }
        text.push_str(") {\n");
        text.push_str(&"    let _ = 1;\n".repeat(lines - 2));
        text.push('}');
        found(&[("src/lib.rs", &text)])
    };
    assert_eq!(function(60, 6), [""; 0]);
    assert_eq!(function(60, 7), ["parameters: shop/src/lib.rs f = 7"]);
    // Of one function none may be among the longest.
    assert_eq!(function(100, 6), ["most-function-lines: shop = 100"]);
    assert_eq!(
        function(101, 6),
        [
            "function-lines: shop/src/lib.rs f = 101",
            "most-function-lines: shop = 101"
        ]
    );
}

#[test]
fn listed_short_function_must_exist_within_60_lines() {
    let breaches_of = |name: &str, lines: usize| {
        let body = "    let _ = 1;\n".repeat(lines - 2);
        let story = format!("fn {name}() {{\n{body}}}\nfn other() {{}}");
        found_with(
            "story []",
            &[("src/lib.rs", "mod story;"), ("src/story.rs", &story)],
        )
    };
    assert_eq!(breaches_of("tell", 60), [""; 0]);
    assert_eq!(
        breaches_of("tell", 61),
        [
            "most-function-lines: shop = 61",
            "short-function: shop/src/story.rs tell = 61"
        ]
    );
    let gone = "short-function: shop/src/story.rs tell is not there";
    assert_eq!(breaches_of("said", 60), [gone]);
}
