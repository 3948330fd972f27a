//! Each wall with a planted breach, which it must report: over a tree of a few lines
//! without other breaches.

mod rooms;
mod written;

use std::collections::BTreeMap;

use crate::allowance::{self, Breach};
use crate::rooms::Rooms;
use crate::rules::{Crate, Exempt, Rationed, Silent, Spelt, breaches};

const EXEMPT: Exempt = Exempt {
    generated: &["shop/src/generated.rs"],
    tables: &["shop/src/table.rs"],
    silent: &[Silent {
        of: "shop",
        folders: &["store"],
        besides: &["store/label"],
        about: "wire",
    }],
    proven: &[("shop/src/proof.rs", "sure")],
    rationed: &[
        Rationed {
            method: "snapshot",
            folders: &["shop/src/counter"],
            besides: &["shop/src/counter/again.rs"],
            once_in: &[
                ("shop/src/counter.rs", "pay"),
                ("shop/src/counter.rs", "count"),
            ],
            again_in: &[("shop/src/counter.rs", "wait")],
        },
        Rationed {
            method: "until_refused",
            folders: &["shop/src/counter"],
            besides: &[],
            once_in: &[],
            again_in: &[],
        },
    ],
    spelt: &[Spelt {
        prefix: "shop-",
        folders: &["shop/src"],
        file: "shop/src/names.rs",
        besides: &[("shop/src/lib.rs", "shop-keeper")],
    }],
    short: &[("shop/src/story.rs", "tell")],
};

/// Files of a crate, and what is wrong with them beside `rooms`.
fn found_with(rooms: &str, files: &[(&str, &str)]) -> Vec<String> {
    let file = |(path, text): &(&str, &str)| {
        (
            format!("shop/{path}"),
            format!("//! Why it is there, shortly.\n{text}"),
        )
    };
    let sources: BTreeMap<String, String> = files.iter().map(file).collect();
    found_in(rooms, &sources)
}

fn found_in(rooms: &str, sources: &BTreeMap<String, String>) -> Vec<String> {
    let roots = [("shop/src/lib.rs", false), ("shop/tests/buys.rs", true)];
    let roots = roots
        .into_iter()
        .filter(|(root, _)| sources.contains_key(*root))
        .map(|(root, test)| (root.to_owned(), test))
        .collect();
    let member = Crate {
        name: "shop".to_owned(),
        folder: "shop".to_owned(),
        roots,
        rooms: Rooms::parse(rooms).expect("a table"),
        shipped: true,
    };
    breaches(sources, &[member], &EXEMPT)
        .iter()
        .map(ToString::to_string)
        .collect()
}

fn found(files: &[(&str, &str)]) -> Vec<String> {
    let open = "till [all]\nstore [all]\ndesk [all]\ncounter [all]\n";
    let present = |line: &&str| {
        let room = line.split(' ').next().unwrap_or_default();
        files
            .iter()
            .any(|(path, _)| path.starts_with(&format!("src/{room}")))
    };
    let rooms: Vec<&str> = open.lines().filter(present).collect();
    found_with(&rooms.join("\n"), files)
}

#[test]
fn two_files_that_import_each_other_are_a_circle() {
    let found = found(&[
        ("src/lib.rs", "mod till;\nmod store;"),
        (
            "src/till.rs",
            "use crate::store::Shelf;\npub struct Coin(Shelf);",
        ),
        (
            "src/store.rs",
            "pub struct Shelf;\nfn pay() -> Option<crate::till::Coin> { None }",
        ),
    ]);
    assert_eq!(
        found,
        [
            "circle: shop/src/store.rs -> shop/src/till.rs",
            "circle: shop/src/till.rs -> shop/src/store.rs",
        ]
    );
}

#[test]
fn child_may_import_parent_unless_parent_imports_it() {
    let child = (
        "src/store/shelf.rs",
        "use super::Goods;\npub struct Shelf(Goods);",
    );
    let parent = "mod shelf;\npub struct Goods;\n";
    let apart = found(&[
        ("src/lib.rs", "mod store;"),
        ("src/store.rs", parent),
        child,
    ]);
    assert_eq!(apart, [""; 0]);

    let both = format!("{parent}fn first() -> Option<shelf::Shelf> {{ None }}");
    let both = found(&[("src/lib.rs", "mod store;"), ("src/store.rs", &both), child]);
    assert_eq!(both.len(), 2, "{both:?}");
    assert!(both.iter().all(|line| line.starts_with("circle: ")));

    // To hand the child's names on is not to use them.
    for (more, circles) in [("", 0), ("fn first() -> Option<Shelf> { None }", 2)] {
        let facade = format!("{parent}pub use shelf::Shelf;\n{more}");
        let found = found(&[
            ("src/lib.rs", "mod store;"),
            ("src/store.rs", &facade),
            child,
        ]);
        assert_eq!(found.len(), circles, "{found:?}");
    }
}

#[test]
fn reexport_counts_for_defining_file() {
    let found = found(&[
        ("src/lib.rs", "mod store;\nmod till;"),
        (
            "src/store.rs",
            "mod goods;\nmod shelf;\npub use goods::Goods;\npub use shelf::Shelf;",
        ),
        ("src/store/goods.rs", "pub struct Goods;"),
        (
            "src/store/shelf.rs",
            "use super::Goods;\npub struct Shelf(Goods);",
        ),
        (
            "src/till.rs",
            "use crate::store::{self, Shelf};\nfn f(_: store::Goods, _: Shelf) {}",
        ),
    ]);
    assert_eq!(found, [""; 0]);
}

#[test]
fn macro_arguments_count_but_tests_do_not() {
    let files = |body: &str| {
        let store = format!("pub struct Shelf;\n{body}");
        let till = "use crate::store::Shelf;\npub fn sum(_: Shelf) -> u8 { 1 }";
        found(&[
            ("src/lib.rs", "mod store;\nmod till;"),
            ("src/store.rs", &store),
            ("src/till.rs", till),
        ])
    };
    let in_a_macro = "fn f() { println!(\"{}\", crate::till::sum(Shelf)); }";
    assert_eq!(files(in_a_macro).len(), 2);
    let in_a_test = "#[cfg(test)]\nmod tests { fn f() { crate::till::sum(super::Shelf); } }";
    assert_eq!(files(in_a_test), [""; 0]);
    let outside_tests = in_a_test.replace("cfg(test)", "cfg(not(test))");
    assert_eq!(files(&outside_tests).len(), 2);
}

#[test]
fn included_code_counts_for_included_file() {
    let found = found_with(
        "till [all]\nstore [all]",
        &[
            (
                "src/lib.rs",
                "mod store;\nmod till { include!(\"generated.rs\"); }",
            ),
            (
                "src/generated.rs",
                "pub struct Coin(crate::store::Shelf);\nfn f(a: Option<u8>) { a.unwrap(); }",
            ),
            (
                "src/store.rs",
                "pub struct Shelf;\nfn pay() -> Option<crate::till::Coin> { None }",
            ),
        ],
    );
    assert_eq!(
        found,
        [
            "circle: shop/src/generated.rs -> shop/src/store.rs",
            "circle: shop/src/store.rs -> shop/src/generated.rs",
        ]
    );
}

#[test]
fn folder_cycle_through_different_files_is_reported() {
    let found = found(&[
        ("src/lib.rs", "mod store;\nmod till;"),
        ("src/store.rs", "mod goods;\nmod shelf;"),
        ("src/store/goods.rs", "pub struct Goods;"),
        ("src/store/shelf.rs", "use crate::till::Coin;"),
        ("src/till.rs", "mod receipt;\npub struct Coin;"),
        ("src/till/receipt.rs", "use crate::store::goods::Goods;"),
    ]);
    assert_eq!(
        found,
        [
            "circle-of-folders: shop/src/store/ -> shop/src/till/",
            "circle-of-folders: shop/src/till/ -> shop/src/store/",
        ]
    );
}

#[test]
fn a_file_that_no_module_declares_is_an_orphan() {
    let found = found(&[
        ("src/lib.rs", "mod store;"),
        (
            "src/store.rs",
            "#[cfg(test)]\n#[path = \"odd/name.rs\"]\nmod tests;",
        ),
        ("src/odd/name.rs", ""),
        ("src/generated.rs", ""),
        ("src/left.rs", ""),
        ("tests/buys.rs", "mod helper;\nmod gone;"),
        ("tests/helper.rs", ""),
    ]);
    assert_eq!(
        found,
        ["missing: shop/tests/gone.rs", "orphan: shop/src/left.rs"]
    );
}

#[test]
fn unwrap_and_expect_are_reported_outside_tests_only() {
    let found = found(&[(
        "src/lib.rs",
        "fn f(a: Option<u8>) { a.expect(\"x\"); println!(\"{}\", a.expect(\"y\")); a.unwrap(); }\n\
         #[test]\nfn t() { None::<u8>.unwrap(); None::<u8>.expect(\"z\"); }",
    )]);
    assert_eq!(found, ["expect: shop = 2", "unwrap: shop/src/lib.rs"]);
}

#[test]
fn proven_expect_is_exempt_once_in_its_function() {
    let expecting = |body: &str| {
        let lib = ("src/lib.rs", "mod proof;");
        found_with("proof []", &[lib, ("src/proof.rs", body)])
    };
    let sure = "fn sure() { A.expect(\"a\"); }";
    assert_eq!(expecting(sure), [""; 0]);
    let elsewhere = format!("{sure} fn other() {{ A.expect(\"b\"); }}");
    assert_eq!(expecting(&elsewhere), ["expect: shop = 1"]);
    let twice = "fn sure() { A.expect(\"a\"); B.expect(\"b\"); }";
    assert_eq!(expecting(twice), ["expect: shop = 1"]);
    let none = "proven: shop/src/proof.rs sure expects nothing";
    assert_eq!(expecting("fn sure() {}"), [none]);
}

#[test]
fn a_silent_folder_does_not_name_the_other_crate() {
    let found = found(&[
        ("src/lib.rs", "mod store;"),
        (
            "src/store.rs",
            "mod label;\nmod shelf;\nuse wire::v1::Goods;",
        ),
        ("src/store/label.rs", "use wire::v1::Label;"),
        (
            "src/store/shelf.rs",
            "fn f() { wire::convert::shelf(); }\n\
             #[cfg(test)]\nmod tests { use wire::v1; }",
        ),
    ]);
    assert_eq!(
        found,
        [
            "silent: shop/src/store.rs names wire",
            "silent: shop/src/store/shelf.rs names wire",
        ]
    );
}

#[test]
fn a_name_is_spelt_in_one_file_alone() {
    let found = found_with(
        "names []\ntill []",
        &[
            (
                "src/lib.rs",
                "mod names;\nmod till;\nconst A: &str = \"shop-keeper\";",
            ),
            ("src/names.rs", "const A: &str = \"shop-coin\";"),
            (
                "src/till.rs",
                "/// shop-doc\nconst PREFIX: &[u8] = b\"shop-\";\n\
                 const A: &str = \"the shop-door is open\";\n\
                 const B: &[u8] = b\"shop-bytes\";\n\
                 fn f() { g(\"shop-coin\"); log!(\"shop-log\"); h(\"shop-keeper\"); }\n\
                 #[test]\nfn t() { g(\"shop-test\"); }",
            ),
        ],
    );
    let till = |text: &str| format!("spelt: shop/src/till.rs spells {text}");
    let expected = ["shop-bytes", "shop-coin", "shop-keeper", "shop-log"].map(till);
    assert_eq!(found, expected);
}

#[test]
fn rationed_call_is_made_once_where_allowed() {
    let found = found(&[
        (
            "src/lib.rs",
            "mod counter;\nmod store;\nfn f() { s.snapshot(); }",
        ),
        (
            "src/counter.rs",
            "mod again;\n\
             fn pay() { let now = s.snapshot(); }\n\
             impl A { fn count(&self) { s.snapshot(); log!(s.snapshot()); } }\n\
             fn other() { let f = || s.snapshot(); fn inner() { s.snapshot(); } }\n\
             fn wait() { loop { s.snapshot(); } }\n\
             #[test]\nfn t() { s.snapshot(); }",
        ),
        (
            "src/counter/again.rs",
            "fn f() { s.snapshot(); s.snapshot(); }",
        ),
        ("src/store.rs", "fn f() { s.snapshot(); }"),
    ]);
    assert_eq!(
        found,
        [
            "rationed: shop/src/counter.rs count calls snapshot = 2",
            "rationed: shop/src/counter.rs other calls snapshot = 2",
        ]
    );
}

/// What `pay` does, and what is wrong with it.
fn paying(pay: &str) -> Vec<String> {
    let counter =
        format!("fn count() {{ s.snapshot(); }}\nfn wait() {{ loop {{ s.snapshot(); }} }}\n{pay}");
    found(&[("src/lib.rs", "mod counter;"), ("src/counter.rs", &counter)])
}

#[test]
fn a_rationed_call_is_found_however_it_is_written() {
    const TWICE: &str = "rationed: shop/src/counter.rs pay calls snapshot = 2";
    const AGAIN: &str = "rationed: shop/src/counter.rs pay calls snapshot again and again";
    const NEVER: &str = "rationed: shop/src/counter.rs pay never calls snapshot";
    const WAITS: &str = "rationed: shop/src/counter.rs pay calls until_refused = 1";
    for (body, expected) in [
        ("s.snapshot();", None),
        ("if a { b } else { s.snapshot() };", None),
        ("for each in s.snapshot().all() { each; }", None),
        ("s.snapshot(); Store::snapshot(&s);", Some(TWICE)),
        ("s.snapshot(); t.map(Store::snapshot);", Some(TWICE)),
        ("s.snapshot(); log!(Store::snapshot(s));", Some(TWICE)),
        ("s.snapshot(); async { s.snapshot() };", Some(TWICE)),
        ("loop { s.snapshot(); }", Some(AGAIN)),
        ("while s.snapshot().waits() {}", Some(AGAIN)),
        ("for each in all { s.snapshot(); }", Some(AGAIN)),
        ("all.map(|one| s.snapshot());", Some(AGAIN)),
        ("s.inspect();", Some(NEVER)),
        (
            "s.snapshot(); select! { end = s.until_refused(f) => end }",
            Some(WAITS),
        ),
    ] {
        let found = paying(&format!("fn pay() {{ {body} }}"));
        assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{body}");
    }
    // Nor is it hidden in a helper of another file of the folder.
    let helper = paying("fn pay() { s.snapshot(); helper(); }\nfn helper() { s.snapshot(); }");
    let expected = "rationed: shop/src/counter.rs helper calls snapshot = 1";
    assert_eq!(helper, [expected]);
}

#[test]
fn an_allowance_can_only_shrink() {
    let circle = Breach::of("circle", "a.rs -> b.rs");
    let long = Breach::measured("file-lines", "a.rs", 500);
    let text = allowance::write(&[long.clone(), circle.clone()]);
    assert_eq!(text, "circle: a.rs -> b.rs\nfile-lines: a.rs = 500\n");
    let differences = |found: &[Breach]| allowance::differences(&text, found);

    assert_eq!(differences(&[circle.clone(), long.clone()]), [""; 0]);
    assert_eq!(
        differences(std::slice::from_ref(&long)),
        ["not needed any more, remove it: circle: a.rs -> b.rs"]
    );
    let other = Breach::of("circle", "b.rs -> c.rs");
    assert_eq!(
        differences(&[circle.clone(), long, other]),
        ["new: circle: b.rs -> c.rs"]
    );
    for (lines, word) in [(501, "more"), (499, "less")] {
        let changed = Breach::measured("file-lines", "a.rs", lines);
        let differences = differences(&[circle.clone(), changed]);
        assert!(
            differences.len() == 1 && differences[0].starts_with(word),
            "{differences:?}"
        );
    }
}
