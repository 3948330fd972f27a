//! The cells of one way's requests by route.
//!
//! Code that serves requests has found the cell of their way. Which route a request takes is
//! known a moment later, and the cell of that is found from here: without a lock, and without a
//! look at the map of all cells.

use std::sync::{Arc, Weak};

use policy::route::names::MAX_NAMES;

use super::CallCounters;

/// Routes of which one way retains the cells: all names, and none.
const KEPT: usize = MAX_NAMES + 1;

impl CallCounters {
    /// Where this way's requests of a route are counted, if that was looked up before.
    pub(crate) fn of_route(&self, route: &Arc<str>) -> Option<Arc<Self>> {
        let current = self.routed.load();
        let same = |(name, _): &&(Arc<str>, Weak<Self>)| Arc::ptr_eq(name, route) || name == route;
        current.as_ref()?.iter().find(same)?.1.upgrade()
    }

    /// Retains that; the route that came first makes room.
    pub(crate) fn keep_route(&self, route: &Arc<str>, cell: &Arc<Self>) {
        self.routed.rcu(|current| {
            let current = current.iter().flat_map(|current| current.iter());
            let others = current.filter(|(name, cell)| name != route && cell.strong_count() > 0);
            let this = (Arc::clone(route), Arc::downgrade(cell));
            let kept: Vec<_> = std::iter::once(this)
                .chain(others.cloned())
                .take(KEPT)
                .collect();
            Some(Arc::new(kept))
        });
    }
}
