//! All SMI objects of one random namespace.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    objects::{binding, group, split, target, tcp_route},
    vocabulary::Vocabulary,
};
use crate::{object, random::Random};

/// SMI objects of a place, each with a name of its own.
pub fn policies(random: &mut Random, vocabulary: &Vocabulary) -> Vec<Value> {
    let mut made = Vec::new();
    for _ in 0..2 + random.below(5) {
        made.push(target(random, vocabulary));
    }
    for _ in 0..2 + random.below(3) {
        made.push(group(random, vocabulary));
    }
    for _ in 0..2 + random.below(2) {
        made.push(tcp_route(random, vocabulary));
    }
    for _ in 0..random.below(3) {
        made.push(binding(random, vocabulary));
    }
    for _ in 0..random.below(4) {
        made.push(split(random, vocabulary));
    }
    let mut names = BTreeSet::new();
    made.retain(|one| {
        let kind = object::text(&one["kind"]).to_owned();
        let (vocabulary, name) = (object::namespace(one), object::name(one));
        names.insert((kind, vocabulary.to_owned(), name.to_owned()))
    });
    made
}
