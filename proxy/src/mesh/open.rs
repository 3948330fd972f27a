//! Tracks the open connections to peer proxies, in both directions, by what the peer has proved,
//! and ends those whose root is replaced or whose peer is revoked.
//!
//! A stolen root is replaced within seconds, and connections that were opened with it must end as
//! soon. Their requests get the time between two looks to end: the first look marks a connection,
//! the second one breaks it off. A connection that was being opened at the first look is marked at
//! the second. Those of a peer whose certificate is revoked for good are broken off at once.

use std::sync::Arc;

use identity::verify::PeerIdentity;
use parking_lot::Mutex;

use crate::net::coalesce::BreakOff;

/// Room for connections at first.
const ROOM: usize = 64;

/// All of one workload. Clones are the same list.
#[derive(Clone, Debug, Default)]
pub(crate) struct OpenConnections(Arc<Mutex<Vec<Open>>>);

#[derive(Debug)]
struct Open {
    peer: Arc<PeerIdentity>,
    break_off: BreakOff,
    marked: bool,
}

impl OpenConnections {
    /// A connection to or from this peer.
    pub(super) fn add(&self, peer: Arc<PeerIdentity>, break_off: BreakOff) {
        let mut open = self.0.lock();
        if open.len() == open.capacity() {
            // Those that have ended make room. Where few have, there is twice as much, so that few
            // connections pay for this.
            open.retain(|one| one.break_off.is_open());
            let more = open.len().max(ROOM);
            open.reserve_exact(more);
        }
        open.push(Open {
            peer,
            break_off,
            marked: false,
        });
    }

    /// Looks for connections that do not stay; true when there is one.
    pub(super) fn end_unless(&self, stays: impl Fn(&PeerIdentity) -> bool) -> bool {
        let mut ending = false;
        self.0.lock().retain_mut(|one| {
            if !one.break_off.is_open() {
                return false;
            }
            if stays(&one.peer) {
                one.marked = false;
                return true;
            }
            ending = true;
            if one.marked {
                one.break_off.now();
            }
            one.marked = true;
            true
        });
        ending
    }

    /// Breaks off at once those of peers that end.
    pub(super) fn break_off(&self, ends: impl Fn(&PeerIdentity) -> bool) {
        let open = self.0.lock();
        let ending = open.iter().filter(|one| ends(&one.peer));
        ending.for_each(|one| one.break_off.now());
    }
}
