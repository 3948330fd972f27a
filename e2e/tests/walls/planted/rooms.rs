//! Rooms, with what they may import and what they do.

use super::found_with;

#[test]
fn undeclared_import_is_reported_as_boundary_breach() {
    let files = [
        ("src/lib.rs", "mod desk;\nmod store;\nmod till;"),
        ("src/desk.rs", "use crate::store::shelf::Shelf;"),
        ("src/store.rs", "pub mod shelf;"),
        ("src/store/shelf.rs", "pub struct Shelf;"),
        ("src/till.rs", ""),
    ];
    let rooms = "desk [] # counts\nstore []\ntill []";
    assert_eq!(
        found_with(rooms, &files),
        ["wall: shop/src/desk.rs -> shop/src/store/shelf.rs"]
    );
    for open in [
        "desk [store]\nstore []\ntill []",
        "desk [store/shelf]\nstore []\ntill []",
        "desk [all but till]\nstore []\ntill []",
    ] {
        assert_eq!(found_with(open, &files), [""; 0], "{open}");
    }
    assert_eq!(
        found_with("desk [all but store]\nstore []\ntill []", &files).len(),
        1
    );
    assert_eq!(
        found_with("desk [store]\nstore []", &files),
        ["no-row: shop/till"]
    );
    let too_many = "desk [store]\nstore []\ntill [cellar]\nroof []";
    assert_eq!(
        found_with(too_many, &files),
        [
            "no-room: shop/cellar",
            "no-room: shop/roof",
            "unused-arrow: shop/till [cellar]"
        ]
    );
}

#[test]
fn submodule_can_have_own_import_row() {
    let files = [
        ("src/lib.rs", "mod store;"),
        ("src/store.rs", "mod cell;\nmod goods;"),
        ("src/store/cell.rs", "use super::goods::Goods;"),
        ("src/store/goods.rs", "pub struct Goods;"),
    ];
    assert_eq!(found_with("store []", &files), [""; 0]);
    assert_eq!(
        found_with("store []\nstore/cell []", &files),
        ["wall: shop/src/store/cell.rs -> shop/src/store/goods.rs"]
    );
}

#[test]
fn unused_import_permission_is_reported() {
    let files = |desk: &str| {
        let store = "pub mod shelf;\npub use shelf::Shelf;\npub use elsewhere::Goods;";
        found_with(
            "desk [store]\nstore []",
            &[
                ("src/lib.rs", "mod desk;\nmod store;"),
                ("src/desk.rs", desk),
                ("src/store.rs", store),
                ("src/store/shelf.rs", "pub struct Shelf;"),
            ],
        )
    };
    for used in [
        "use crate::store::shelf::Shelf;",
        "use crate::store::Shelf;",
        "use crate::store;\nfn f(_: store::Shelf) {}",
        "fn f() { log!(crate::store::shelf::Shelf); }",
        "use crate::store::shelf::*;",
        // Another crate's, and named by way of the room.
        "use crate::store::Goods;",
    ] {
        assert_eq!(files(used), [""; 0], "{used}");
    }
    for unused in [
        "",
        "use std::mem::swap;\nfn f(store: u8) { store.shelf(); }",
        "#[cfg(test)]\nmod tests { use crate::store::Shelf; }",
    ] {
        assert_eq!(
            files(unused),
            ["unused-arrow: shop/desk [store]"],
            "{unused}"
        );
    }
}

#[test]
fn allowed_submodule_must_be_imported_itself() {
    let files = [
        ("src/lib.rs", "mod desk;\nmod store;"),
        ("src/desk.rs", "use crate::store::shelf::Shelf;"),
        ("src/store.rs", "pub mod cellar;\npub mod shelf;"),
        ("src/store/cellar.rs", ""),
        ("src/store/shelf.rs", "pub struct Shelf;"),
    ];
    assert_eq!(
        found_with("desk [store/cellar store/shelf]\nstore []", &files),
        ["unused-arrow: shop/desk [store/cellar]"]
    );
}

/// The arguments of a derive become code, and name what that calls.
#[test]
fn what_an_attribute_is_given_counts() {
    let files = |attribute: &str| {
        let desk = format!("use crate::store::shelf;\n{attribute}pub struct Desk(u8);");
        let shelf = "pub fn full(_: crate::desk::Desk) {}".to_owned();
        [
            ("src/lib.rs", "mod desk;\nmod store;".to_owned()),
            ("src/desk.rs", desk),
            ("src/store.rs", "pub mod shelf;".to_owned()),
            ("src/store/shelf.rs", shelf),
        ]
    };
    let found = |attribute: &str| {
        let files = files(attribute);
        let files: Vec<(&str, &str)> = files.iter().map(|(path, text)| (*path, &**text)).collect();
        found_with("desk [store]\nstore [desk]", &files)
    };
    assert_eq!(found(""), [""; 0]);
    let given = found("#[arg(check = shelf::full)]\n");
    assert!(
        given.contains(&"circle: shop/src/desk.rs -> shop/src/store/shelf.rs".to_owned()),
        "{given:?}"
    );
}
