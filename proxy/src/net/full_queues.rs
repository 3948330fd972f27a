//! Applications whose queue of connections has been full for long.
//!
//! Whoever hangs accepts nobody, so its queue fills and stays so. Calls that then waited for as
//! long as a queue that is full for a moment is worth would find no time to go elsewhere.

use std::collections::VecDeque;
use std::net::SocketAddr;

use parking_lot::Mutex;

/// Addresses of applications that kept somebody waiting in vain and have accepted nobody since,
/// of all pods of this process. A pod has few; the oldest goes.
static FULL: Mutex<VecDeque<SocketAddr>> = Mutex::new(VecDeque::new());
const MOST: usize = 64;

pub(super) fn contain(addr: SocketAddr) -> bool {
    FULL.lock().contains(&addr)
}

/// It kept somebody waiting in vain.
pub(super) fn note(addr: SocketAddr) {
    let mut full = FULL.lock();
    if !full.contains(&addr) {
        if full.len() >= MOST {
            full.pop_front();
        }
        full.push_back(addr);
    }
}

/// It accepts, or refuses.
pub(super) fn forget(addr: SocketAddr) {
    FULL.lock().retain(|full| *full != addr);
}
