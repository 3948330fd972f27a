//! Headroom: how much memory must be free for a request to start.
//!
//! A holder that holds nothing may start a request up to [`TOP`], and the more a holder holds, the
//! earlier its next request waits. So there is always room for holders of less than those that fill
//! the memory, however many they are, and among equals all get the same. What is in use counts with
//! what is going to be, so all together stay below the part of the memory from which on nothing is
//! read.
//!
//! Beyond that each holder may have [`LEAST`] requests in flight, or its part of so many where
//! there are more callers: one may have to end before others can.
//!
//! A holder with more in flight, of which none ends, as downloads without a reader, would wait for
//! ever with the next. So a few requests of each holder start by permits that are reserved for it,
//! up to [`RESERVED`], and give them back when they end, or some seconds later: by then what they
//! take is in use.
//!
//! Where requests stall, memory may stay above that level and below the one at which holders lose
//! connections. A holder that is known to hold an [`HEAVY`]th part of the memory goes on there as
//! well, by half of its permits: where that fills the memory it is among those who make room.

use runtime::occupancy::Requests;

use crate::admission::{Admission, AdmissionClass, MIN_IN_FLIGHT, REQUEST};
use crate::memory::{HEAVY, Memory};

/// In percent: a holder of nothing finds room up to here. The rest up to where nothing is read is
/// for responses that take more than was expected of them.
const TOP: usize = 63;
/// In percent: a holder of a [`MUCH`]th part of the memory finds room up to here. More than from
/// where on chunks and windows are the smallest: three hundred streams that stall hold that much
/// of 64 MiB now and then, and calls beside them go on, as many at once as fit. From here on they
/// go on as well, but only as many at once as there are reserved permits.
const CALLERS: usize = 58;
/// The same for the own application.
const OWN: usize = 60;
const MUCH: usize = 4;
/// In percent: requests begin by reserved permits up to here, whatever their holder holds. Less
/// than [`TOP`], so that room is left for holders of next to nothing. All of one holder fit below
/// where nothing is read even if each takes twice what is expected of it.
const RESERVED: usize = 62;
/// The reserved permits of a holder are for this part of the memory, 8 of 64 MiB.
const RESERVE: usize = 128;
/// Requests that callers may have in flight where there is no room for more.
const LEAST: usize = 64;
/// In percent: those begin up to here, where nothing is read any more.
const LAST: usize = 65;
/// This part of the memory is let in so until it was measured, which takes half a second.
const SPARED: usize = 16;
/// Whatever is in use: this part of the memory is let in so until it was answered or measured,
/// from any holder. That is a rate. What bounds them over time, where none ends, is [`LEAST`]:
/// callers that come one after the other have 64, 32, 21 and so on, and beyond the 64th one each.
/// Where they fill the memory, it is they or the holder of most who lose something.
const TRICKLE: usize = 128;

/// How a request begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Entry {
    Headroom,
    /// There is none.
    Spared,
    /// By a permit that is reserved for its holder, which has too much in flight for either.
    Reserved,
}

/// Others took the last reserved permit meanwhile.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct NoneLeft;

/// What is in use, looked at once for all requests.
#[derive(Clone, Copy)]
pub(super) struct Headroom<'a> {
    memory: &'a Memory,
    admission: &'a Admission,
    /// With what is going to be in use, and one request more, in bytes.
    taken: usize,
}

impl<'a> Headroom<'a> {
    /// Beside what is expected of requests that began just now.
    pub(super) fn new(memory: &'a Memory, admission: &'a Admission) -> Self {
        let expected = admission.expected() + REQUEST;
        Self {
            memory,
            admission,
            taken: memory.used().saturating_add(expected),
        }
    }

    /// Whatever is expected of those.
    pub(super) fn in_use(memory: &'a Memory, admission: &'a Admission) -> Self {
        Self {
            memory,
            admission,
            taken: memory.used().saturating_add(REQUEST),
        }
    }

    /// How a request may begin that has just come. It overtakes no others for which there is room.
    pub(super) fn passes(&self, requests: &Requests, class: AdmissionClass) -> Option<Entry> {
        if self.is_for_all() {
            return Some(Entry::Headroom);
        }
        match self.admits(requests, class) {
            Some(Entry::Headroom | Entry::Reserved) if self.others_first(requests) => {
                self.spares(requests, class).then_some(Entry::Spared)
            }
            entry => entry,
        }
    }

    /// A request waits for which there is room, and its holder has no more in flight.
    fn others_first(&self, requests: &Requests) -> bool {
        self.admission
            .any(|one, class| one.in_flight() <= requests.in_flight() && self.is_for(one, class))
    }

    /// How the next request of this holder may begin, where none goes before it.
    pub(super) fn admits(&self, requests: &Requests, class: AdmissionClass) -> Option<Entry> {
        if self.is_for(requests, class) {
            return Some(Entry::Headroom);
        }
        if self.spares(requests, class) {
            return Some(Entry::Spared);
        }
        self.reserves(requests).then_some(Entry::Reserved)
    }

    /// Whether no request waits, and there is room for the next request of any holder.
    pub(super) fn is_for_all(&self) -> bool {
        self.taken <= self.memory.heap() / 100 * CALLERS && self.admission.is_empty()
    }

    /// Whether there is room for the next request of this holder.
    pub(super) fn is_for(&self, requests: &Requests, class: AdmissionClass) -> bool {
        const STEPS: usize = 256;
        let heap = self.memory.heap();
        let (part, much) = (heap / 100, (heap / MUCH).max(1));
        let least = match class {
            AdmissionClass::Callers => CALLERS,
            AdmissionClass::Own => OWN,
        };
        let counted = requests.in_flight().saturating_mul(MIN_IN_FLIGHT);
        let holds = counted.max(requests.weight()).min(much);
        let steps = holds.saturating_mul(STEPS) / much;
        self.taken <= part * TOP - part * (TOP - least) / STEPS * steps
    }

    /// Whether its next request may begin though there is none.
    pub(super) fn spares(&self, requests: &Requests, class: AdmissionClass) -> bool {
        let (admission, heap) = (self.admission, self.memory.heap());
        if requests.in_flight() >= least(admission, requests, class) {
            return false;
        }
        let below = self.memory.used() + REQUEST <= heap / 100 * LAST;
        (below && admission.spared() + REQUEST <= heap / SPARED)
            || admission.expected() + REQUEST <= heap / TRICKLE
    }

    /// Whether what is in use bounds requests by reserved permits, and not their number alone.
    pub(super) fn is_below_reserved(&self) -> bool {
        self.taken <= self.memory.heap() / 100 * RESERVED
    }

    /// Whether its next request may begin by a reserved permit.
    fn reserves(&self, requests: &Requests) -> bool {
        let heap = self.memory.heap();
        let permits = reserved_permits(heap, requests);
        let usable = if self.is_below_reserved() {
            permits
        } else if requests.weight() >= heap / HEAVY && !self.memory.is_full() {
            // By number and not by what is in use, or it would wait for ever at the mark.
            (permits / 2).max(1)
        } else {
            0
        };
        requests.reserved() < usable
    }
}

/// Requests that may be in flight though there is no room. For the own application as many
/// more as callers have: each of those may have to end after one of its own calls. A call
/// that can only end after another one does so through a request of a caller, and no two do
/// through the same one next to them, so with more in flight than callers have some of them
/// wait for no other here.
pub(super) fn least(admission: &Admission, requests: &Requests, class: AdmissionClass) -> usize {
    let part = (LEAST / requests.sharers().max(1)).max(1);
    match class {
        AdmissionClass::Callers => part,
        AdmissionClass::Own => part + admission.callers(),
    }
}

/// Reserved permits of a holder where the process may use `heap` bytes, or its part of them where
/// there are more holders. At least one, however many they are: what all of them take is bounded by
/// [`RESERVED`].
pub(super) fn reserved_permits(heap: usize, requests: &Requests) -> usize {
    let all = heap / RESERVE / REQUEST;
    (all / requests.sharers().max(1)).max(1)
}
