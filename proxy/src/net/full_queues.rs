//! Applications whose queue of connections has been full for long.
//!
//! An application that hangs accepts nothing, so its queue fills and stays so. Calls that then
//! waited as long as a momentarily full queue is worth would have no time left for another
//! endpoint. A caller that left after a second without a response is as good a sign as one that
//! stayed.

use std::collections::VecDeque;
use std::net::SocketAddr;

use parking_lot::Mutex;

/// Of one workload: a pod has few applications, and calls few that have no proxy. The oldest goes.
const MOST: usize = 64;

/// Addresses of applications with a wait in vain and no accepted connection since.
#[derive(Debug, Default)]
pub(super) struct FullQueues(Mutex<VecDeque<SocketAddr>>);

impl FullQueues {
    pub(super) fn contain(&self, addr: SocketAddr) -> bool {
        self.0.lock().contains(&addr)
    }

    /// A caller waited for it in vain.
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
