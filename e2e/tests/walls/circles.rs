//! Finds cycles of imports: the edges whose end leads back to their start.

use std::collections::{BTreeMap, BTreeSet};

pub(crate) fn in_circles<'a>(
    arrows: &BTreeSet<(&'a str, &'a str)>,
) -> BTreeSet<(&'a str, &'a str)> {
    let mut ends: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for (from, to) in arrows {
        ends.entry(from).or_default().push(to);
    }
    arrows
        .iter()
        .filter(|(from, to)| reaches(&ends, to, from))
        .copied()
        .collect()
}

fn reaches(ends: &BTreeMap<&str, Vec<&str>>, start: &str, goal: &str) -> bool {
    let mut seen = BTreeSet::from([start]);
    let mut left = vec![start];
    while let Some(at) = left.pop() {
        if at == goal {
            return true;
        }
        for next in ends.get(at).into_iter().flatten() {
            if seen.insert(next) {
                left.push(next);
            }
        }
    }
    false
}
