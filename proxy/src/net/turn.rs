//! Which requests wait for memory before they begin.
//!
//! A request in flight holds some 40 KiB until its answer was taken, and to cut it off is
//! the last resort ([`crate::process::relief`]). One that has not begun holds next to
//! nothing: most of it is in the kernel still. So from a part of the memory on a caller
//! that has its share of requests in flight waits with the next one until memory falls.
//!
//! Who has less than its share never waits, but behind requests of its own. So a quiet
//! caller beside a crowd is served at once, and whatever it is that fills the memory, some
//! requests of everybody go on: nobody waits for what can only end after it.
//!
//! The wait falls on who fills the memory: who holds much less than the holder of most
//! waits from a higher part on, and comes first where there is room, since that goes to
//! who has fewest in flight. Where all of that does not help it for [`PATIENCE`], who holds
//! most loses connections. Calls of the own application wait from the higher part on as
//! well, because a request from outside may end only after them, and only beyond as many
//! as there are such requests.
//!
//! A caller that calls itself through this pod, as in A to B to A to B, is the exception:
//! B cannot tell which requests of A are made for others of A that it serves already. Where
//! A has its share of those in flight at B, one of them ends by the time limit of the wait.
//!
//! What a request takes comes after it began, and a thousand of them may begin within a
//! millisecond. So each counts in full from its beginning until its answer comes, or
//! until what it takes has been measured.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use runtime::occupancy::{Look, Place, Requests};
use tokio::time::timeout;

use crate::net::admission::{Line, REQUEST};
use crate::net::budget::{Budget, WORTH};

/// Nobody waits longer than this. Clients that have a time limit have given up by then.
pub(crate) const WAIT: Duration = Duration::from_secs(30);
/// Who holds much less than the holder of most waits no longer before that one loses
/// something.
const PATIENCE: Duration = Duration::from_secs(1);

impl Budget {
    /// Lets a request of whoever has this place begin, or gives it a turn.
    ///
    /// # Errors
    /// When it has to wait.
    pub(crate) fn admit(self: &Arc<Self>, place: &Place, line: Line) -> Result<(), Turn> {
        let Some(requests) = place.requests() else {
            return Ok(());
        };
        if self.passes(requests, line) {
            return Ok(());
        }
        place.waits_for_memory();
        let turn = Turn {
            number: self.admission.enter(requests, line, self.share(line)),
            budget: Arc::clone(self),
            requests: Arc::clone(requests),
            line,
        };
        self.look_again();
        Err(turn)
    }

    /// Whether the next request of whoever has this place would wait.
    pub(crate) fn holds_back(&self, place: &Place, line: Line) -> bool {
        let requests = place.requests();
        requests.is_some_and(|requests| !self.passes(requests, line))
    }

    /// With its share in flight nobody overtakes anybody, with less nobody of its own.
    fn passes(&self, requests: &Requests, line: Line) -> bool {
        let below = || requests.in_flight() < self.share(line);
        let room = || self.admission.is_empty() && self.has_room(requests, line);
        requests.waiting() == 0 && (below() || room())
    }

    fn has_room(&self, requests: &Requests, line: Line) -> bool {
        let from = self.heap() / 100 * line.from(requests.is_light());
        self.used().saturating_add(self.admission.expected()) <= from
    }

    /// Requests that everybody may have in flight. For the own application as many more as
    /// callers have: each of those may have to end after one of its own calls. A call that
    /// can only end after another one does so through a request of a caller, and no two do
    /// through the same one next to them, so with more in flight than callers have a whole
    /// share of them waits for nobody here.
    fn share(&self, line: Line) -> usize {
        let share = (self.heap() / WORTH / REQUEST).max(1);
        match line {
            Line::Callers => share,
            Line::Own => share + self.admission.callers(),
        }
    }

    /// Notes how many requests of callers are in flight.
    pub(crate) fn note_callers(&self, requests: usize) {
        self.admission.note_callers(requests);
    }

    /// There may be room for one that waits.
    pub(crate) fn look_again(&self) {
        self.admission
            .call(|requests, line| self.has_room(requests, line));
    }

    /// What requests take that began before the last call of this has been measured, and
    /// there may be room. To be called every now and then.
    pub(crate) fn settle(&self) {
        self.admission.settle();
        self.admission.look_again(|line| self.share(line));
        self.look_again();
    }

    /// Somebody waits, or may have to.
    pub(crate) fn holds_anybody_back(&self) -> bool {
        self.is_tight() || !self.admission.is_empty()
    }

    /// Somebody has waited for long who holds much less than another one.
    pub(crate) fn is_pressed(&self) -> bool {
        self.admission.any(|requests, line| {
            requests.is_light() && requests.has_waited(PATIENCE) && !self.has_room(requests, line)
        })
    }
}

/// Ready when a request may begin. Dropped, it gives its turn to the next.
pub(crate) struct Turn {
    budget: Arc<Budget>,
    requests: Arc<Requests>,
    line: Line,
    number: u64,
}

impl Turn {
    /// True when its turn came within [`WAIT`].
    pub(crate) async fn comes(self) -> bool {
        timeout(WAIT, self).await.is_ok()
    }

    /// The same, and before whoever sent the request left.
    pub(crate) async fn comes_before(self, left: impl Future<Output = ()>) -> bool {
        tokio::select! {
            // Nobody wants an answer any more, and what was asked for may have been asked
            // for elsewhere.
            biased;
            () = left => false,
            came = self.comes() => came,
        }
    }
}

impl Future for Turn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let may = match self.requests.look(self.number, cx.waker()) {
            Look::BelowShare => true,
            Look::Called => self.budget.has_room(&self.requests, self.line),
            Look::First | Look::Behind => false,
        };
        if may { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.budget.admission.leave(&self.requests, self.number);
        self.budget.look_again();
    }
}

/// In the extensions of a request that waited: for how long. Whoever sent it sees that
/// as a part of what its answer took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Waited(pub(crate) Duration);

/// In the extensions of a request whose turn did not come: it is to be refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoTurn;

#[cfg(test)]
mod tests;
