//! All SMI objects of one place.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    objects::{binding, group, split, target, tcp_route},
    place::Vocabulary,
};
use crate::{object, random::Random};

/// SMI objects of a place, each with a name of its own.
pub fn policies(random: &mut Random, place: &Vocabulary) -> Vec<Value> {
    let mut made = Vec::new();
    for _ in 0..2 + random.below(5) {
        made.push(target(random, place));
    }
    for _ in 0..2 + random.below(3) {
        made.push(group(random, place));
    }
    for _ in 0..2 + random.below(2) {
        made.push(tcp_route(random, place));
    }
    for _ in 0..random.below(3) {
        made.push(binding(random, place));
    }
    for _ in 0..random.below(4) {
        made.push(split(random, place));
    }
    let mut names = BTreeSet::new();
    made.retain(|one| {
        let kind = object::text(&one["kind"]).to_owned();
        let (place, name) = (object::namespace(one), object::name(one));
        names.insert((kind, place.to_owned(), name.to_owned()))
    });
    made
}
