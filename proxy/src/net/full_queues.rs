//! Applications whose queue of connections has been full for long.
//!
//! Whoever hangs accepts nobody, so its queue fills and stays so. Calls that then waited for as
//! long as a queue that is full for a moment is worth would find no time to go elsewhere. Whoever
//! left after a second without an answer tells as much as who stayed.

use std::collections::VecDeque;
use std::net::SocketAddr;

use parking_lot::Mutex;

/// Of one workload: a pod has few applications, and calls few that have no proxy. The oldest goes.
const MOST: usize = 64;

/// Addresses of applications that kept somebody waiting in vain and have accepted nobody since.
#[derive(Debug, Default)]
pub(super) struct FullQueues(Mutex<VecDeque<SocketAddr>>);

impl FullQueues {
    pub(super) fn contain(&self, addr: SocketAddr) -> bool {
        self.0.lock().contains(&addr)
    }

    /// It kept somebody waiting in vain.
    pub(super) fn note(&self, addr: SocketAddr) {
        let mut full = self.0.lock();
        if !full.contains(&addr) {
            if full.len() >= MOST {
                full.pop_front();
            }
            full.push_back(addr);
        }
    }

    /// It accepts, or refuses.
    pub(super) fn forget(&self, addr: SocketAddr) {
        self.0.lock().retain(|full| *full != addr);
    }
}
