//! Whose the pairs are that are shown, and who gives one up where all places are taken: names
//! can be made up, so no namespace and no workload keeps those of all others.

use std::collections::HashMap;
use std::sync::Arc;

/// Who told of a pair first.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Teller {
    /// Namespace of the workload; empty where it is in none.
    pub namespace: Arc<str>,
    /// Id of its node.
    pub node: Arc<str>,
}

/// How many places namespaces, and workloads in them, have.
#[derive(Debug, Default)]
pub(super) struct Shares {
    namespaces: HashMap<Arc<str>, NamespaceShare>,
}

#[derive(Debug, Default)]
struct NamespaceShare {
    places: usize,
    nodes: HashMap<Arc<str>, usize>,
}

impl NamespaceShare {
    /// The workload that has most places; of several the last by name.
    fn fullest(&self) -> Option<(usize, &Arc<str>)> {
        let nodes = self.nodes.iter();
        nodes.map(|(node, places)| (*places, node)).max()
    }
}

impl Shares {
    /// Counts one more place.
    pub(super) fn take(&mut self, by: &Teller) {
        let namespace = Arc::clone(&by.namespace);
        let share = self.namespaces.entry(namespace).or_default();
        share.places += 1;
        *share.nodes.entry(Arc::clone(&by.node)).or_default() += 1;
    }

    /// Counts one place less.
    pub(super) fn give_back(&mut self, by: &Teller) {
        let Some(share) = self.namespaces.get_mut(&by.namespace) else {
            return;
        };
        share.places = share.places.saturating_sub(1);
        if let Some(places) = share.nodes.get_mut(&by.node) {
            *places = places.saturating_sub(1);
        }
        share.nodes.retain(|_, places| *places > 0);
        if share.places == 0 {
            self.namespaces.remove(&by.namespace);
        }
    }

    /// Who gives a place up for one more of `by`: of the namespace that has most, the workload
    /// that has most. `None` where its own has as many. One more does not count: two would
    /// take a place from each other for ever.
    pub(super) fn loser(&self, by: &Teller) -> Option<Teller> {
        let own = self.namespaces.get(&by.namespace);
        let namespaces = self.namespaces.iter();
        let namespaces = namespaces.map(|(name, share)| (share.places, name));
        let (places, fullest) = namespaces.max()?;
        if places > own.map_or(0, |share| share.places) + 1 {
            let (_, node) = self.namespaces.get(fullest)?.fullest()?;
            return Some(Teller {
                namespace: Arc::clone(fullest),
                node: Arc::clone(node),
            });
        }
        let own = own?;
        let (places, node) = own.fullest()?;
        let own = own.nodes.get(&by.node).copied().unwrap_or_default();
        (places > own + 1).then(|| Teller {
            namespace: Arc::clone(&by.namespace),
            node: Arc::clone(node),
        })
    }
}
