//! Which name a request has.
//!
//! Claims: observe-137

use http::{HeaderMap, Method};

use super::*;

fn one(group: &str, name: &str, path: &str) -> (Origin, HttpMatch) {
    let (methods, headers): (&[&str], &[(&str, &str)]) = (&[], &[]);
    let fits = HttpMatch::new(name, Some(path), methods, headers).unwrap();
    (Origin::new("HTTPRouteGroup", "shop", group), fits)
}

fn named(names: &Names, path: &str) -> String {
    let request = RequestFacts {
        method: &Method::GET,
        path,
        query: None,
        headers: &HeaderMap::new(),
    };
    names.name(&request).to_string()
}

#[test]
fn request_takes_name_of_first_matching_route_or_none() {
    let names = Names::of([
        one("cart", "item", "/items/[0-9]+"),
        one("cart", "items", "/items"),
        one("web", "any-item", "/items"),
    ]);
    for (path, name) in [
        ("/items/7", "cart/item"),
        ("/items", "cart/items"),
        ("/health", ""),
    ] {
        assert_eq!(named(&names, path), name, "{path}");
    }
    assert!(!names.is_empty() && Names::of([]).is_empty());
    assert_eq!(named(&Names::of([]), "/items"), "");
    let made_of: Vec<&str> = names.matches().map(|(_, one)| one.name()).collect();
    assert_eq!(made_of, ["item", "items", "any-item"]);
}

#[test]
fn route_names_are_bounded_and_hold_no_terminal_controls() {
    let many = (0..=MAX_NAMES).map(|at| one("g", &format!("m{at}"), &format!("/{at}$")));
    let names = Names::of(many);
    assert_eq!(names.matches().count(), MAX_NAMES);
    assert_eq!(named(&names, "/63"), "g/m63", "the last one");
    assert_eq!(named(&names, "/64"), "");
    let long = Names::of([one("g", &"ä".repeat(MAX_NAME_BYTES), "/")]);
    let long = named(&long, "/");
    assert!(long.len() <= MAX_NAME_BYTES && long.len() > MAX_NAME_BYTES - 4);
    assert_eq!(
        named(&Names::of([one("g", "a\u{1b}[2J", "/")]), "/"),
        "g/a?[2J"
    );
}
