//! Shares of limits that all pods of a Service keep together, as the controller told them.
//!
//! They outlive the configuration: a policy that changes elsewhere changes no share, and
//! while no controller answers they stay.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;
use policy::origin::Origin;

/// Shares of one pod: 16 limits of each of 64 policies, at one port.
const MOST: usize = 1024;

/// In thousandths of a request in the limit's time, by port of the container and limit.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shares(Arc<Mutex<HashMap<(u16, Origin), u64>>>);

impl Shares {
    pub(super) fn of(&self, port: u16, limit: &Origin) -> Option<u64> {
        self.0.lock().get(&(port, limit.clone())).copied()
    }

    /// False where there is no room.
    pub(super) fn set(&self, port: u16, limit: Origin, thousandths: u64) -> bool {
        let mut held = self.0.lock();
        let key = (port, limit);
        if held.len() >= MOST && !held.contains_key(&key) {
            return false;
        }
        held.insert(key, thousandths);
        true
    }

    /// Keeps those that are about limits which are there.
    pub(super) fn keep(&self, is_there: impl Fn(u16, &Origin) -> bool) {
        self.0
            .lock()
            .retain(|(port, limit), _| is_there(*port, limit));
    }

    /// Nobody knows any more what others hold.
    pub(super) fn forget(&self) {
        self.0.lock().clear();
    }
}
