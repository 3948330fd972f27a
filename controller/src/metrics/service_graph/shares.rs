//! Decides which client and server pairs of the service graph get metrics, and which owner loses a
//! pair when the bound is reached: names can be made up, so no namespace and no workload keeps the
//! places of all others.
//!
//! Claims: observe-88

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

/// The first reporter of a pair.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReportingWorkload {
    /// Namespace of the workload; empty where it is in none.
    pub namespace: Arc<str>,
    /// Id of its node.
    pub node: Arc<str>,
}

/// How many places each of some names has, and which has most: that is read for each of the
/// thousands of calls that find no place.
#[derive(Debug, Default)]
struct Ranking {
    places: HashMap<Arc<str>, usize>,
    order: BTreeSet<(usize, Arc<str>)>,
}

impl Ranking {
    fn of(&self, name: &Arc<str>) -> usize {
        self.places.get(name).copied().unwrap_or_default()
    }

    fn set(&mut self, name: &Arc<str>, places: usize) {
        let before = self.of(name);
        self.order.remove(&(before, Arc::clone(name)));
        if places == 0 {
            self.places.remove(name);
        } else {
            self.places.insert(Arc::clone(name), places);
            self.order.insert((places, Arc::clone(name)));
        }
    }

    /// The name that has most places; of several the last.
    fn fullest(&self) -> Option<(usize, &Arc<str>)> {
        self.order.last().map(|(places, name)| (*places, name))
    }
}

/// How many places namespaces, and workloads in them, have.
#[derive(Debug, Default)]
pub(super) struct Shares {
    namespaces: Ranking,
    /// Of each of these namespaces.
    nodes: HashMap<Arc<str>, Ranking>,
}

impl Shares {
    /// Counts one more place.
    pub(super) fn take(&mut self, by: &ReportingWorkload) {
        let places = self.namespaces.of(&by.namespace);
        self.namespaces.set(&by.namespace, places + 1);
        let nodes = self.nodes.entry(Arc::clone(&by.namespace)).or_default();
        let places = nodes.of(&by.node);
        nodes.set(&by.node, places + 1);
    }

    /// Counts one place less.
    pub(super) fn give_back(&mut self, by: &ReportingWorkload) {
        let places = self.namespaces.of(&by.namespace);
        self.namespaces.set(&by.namespace, places.saturating_sub(1));
        let Some(nodes) = self.nodes.get_mut(&by.namespace) else {
            return;
        };
        let places = nodes.of(&by.node);
        nodes.set(&by.node, places.saturating_sub(1));
        if nodes.places.is_empty() {
            self.nodes.remove(&by.namespace);
        }
    }

    /// The workload that gives a place up for one more of `by`: of the namespace that has most, the
    /// workload that has most. `None` where its own has as many. One more does not count: two would
    /// take a place from each other for ever.
    pub(super) fn loser(&self, by: &ReportingWorkload) -> Option<ReportingWorkload> {
        let (places, fullest) = self.namespaces.fullest()?;
        if places > self.namespaces.of(&by.namespace) + 1 {
            let (_, node) = self.nodes.get(fullest)?.fullest()?;
            return Some(ReportingWorkload {
                namespace: Arc::clone(fullest),
                node: Arc::clone(node),
            });
        }
        let nodes = self.nodes.get(&by.namespace)?;
        let (places, node) = nodes.fullest()?;
        (places > nodes.of(&by.node) + 1).then(|| ReportingWorkload {
            namespace: Arc::clone(&by.namespace),
            node: Arc::clone(node),
        })
    }
}
