//! Sets of edges whose calls the called side cannot distinguish.

use std::collections::HashMap;

use crate::graph::edges::EdgeRef;

/// Sets of edges, each with the one that stands for it: the one with the least id, so that it is
/// the same in every response of every replica.
#[derive(Debug, Default)]
pub(super) struct Sets<'a> {
    /// By edge one of its set with a lesser id; the one with the least has none.
    lesser: HashMap<&'a EdgeRef, &'a EdgeRef>,
}

impl<'a> Sets<'a> {
    /// The one that stands for the set of this edge.
    pub(super) fn head(&mut self, edge: &'a EdgeRef) -> &'a EdgeRef {
        let mut head = edge;
        while let Some(lesser) = self.lesser.get(head).copied() {
            head = lesser;
        }
        // The next lookup finds it at once.
        if head != edge {
            self.lesser.insert(edge, head);
        }
        head
    }

    /// Makes one set of those of two edges.
    pub(super) fn join(&mut self, one: &'a EdgeRef, other: &'a EdgeRef) {
        let (one, other) = (self.head(one), self.head(other));
        if one == other {
            return;
        }
        let (least, more) = if one.id() <= other.id() {
            (one, other)
        } else {
            (other, one)
        };
        self.lesser.insert(more, least);
    }

    /// All sets of several edges, each by the one that stands for it.
    pub(super) fn all(&mut self) -> HashMap<&'a EdgeRef, Vec<&'a EdgeRef>> {
        let joined: Vec<&'a EdgeRef> = self.lesser.keys().copied().collect();
        let mut all: HashMap<&'a EdgeRef, Vec<&'a EdgeRef>> = HashMap::new();
        for edge in joined {
            let head = self.head(edge);
            all.entry(head).or_insert_with(|| vec![head]).push(edge);
        }
        all
    }
}
