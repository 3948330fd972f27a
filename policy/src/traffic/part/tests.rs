//! Parts have names of their own, and the page states of each whether it is in force.
//!
//! Claims: calls-36

use std::collections::BTreeSet;

use super::*;

const PAGE: &str = include_str!("../../../../docs/trafficpolicy.md");

#[test]
fn every_part_has_unique_name_and_bit() {
    let names: BTreeSet<&str> = Part::ALL.iter().map(|part| part.capability()).collect();
    assert_eq!(names.len(), Part::ALL.len());
    assert!(Part::ALL.len() <= 32, "the set has 32 bits");
    assert_eq!(Parts::ALL.iter().collect::<Vec<_>>(), Part::ALL);
    for part in Part::ALL {
        assert!(!Parts::NONE.has(*part) && !Parts::ALL.without(Parts::of(&[*part])).has(*part));
    }
}

/// Users are shown as in force exactly what proxies report to carry out.
#[test]
fn page_states_for_every_part_whether_in_force() {
    for part in Part::ALL {
        let word = if Part::IN_FORCE.contains(part) {
            "yes"
        } else {
            "not yet"
        };
        let field = part.field().split_once(' ');
        let (field, rest) = field.unwrap_or((part.field(), ""));
        let row = format!("| `{field}` {rest}").trim_end().to_owned() + &format!(" | {word} |");
        assert!(
            PAGE.contains(&row),
            "docs/trafficpolicy.md has no row {row}"
        );
    }
}
