//! Which requests wait for memory before they begin.
//!
//! A request in flight holds some 40 KiB until its answer was taken, and to cut it off is
//! the last resort ([`crate::process::relief`]). One that has not begun holds next to
//! nothing: most of it is in the kernel still. So from a part of the memory on a caller
//! that has its share of requests in flight waits with the next one until memory falls.
//!
//! Who has less than its share never waits. So a quiet caller beside a crowd is served at
//! once, and whatever it is that fills the memory, some requests of everybody go on:
//! nobody waits for what can only end after it. Calls of the own application wait from a
//! higher part on, because a request from outside may end only after them.
//!
//! What a request takes comes after it began, and a thousand of them may begin within a
//! millisecond. So each counts in full from its beginning until its answer comes, or
//! until what it takes has been measured.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;

use runtime::occupancy::Place;
use tokio::time::timeout;

use crate::net::admission::{Queue, REQUEST};
use crate::net::budget::{Budget, WORTH};

/// Nobody waits longer than this. Clients that have a time limit have given up by then.
pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// Who waits behind whom, and from which part of the memory on, in percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Line {
    /// Callers from outside the pod.
    Callers,
    /// Calls of the pod's own application.
    Own,
}

impl Line {
    const fn from(self) -> usize {
        match self {
            Self::Callers => 55,
            Self::Own => 60,
        }
    }
}

impl Budget {
    /// Lets a request of whoever has this place begin, or gives it a turn.
    ///
    /// # Errors
    /// When it has to wait.
    pub(crate) fn admit(self: &Arc<Self>, place: &Arc<Place>, line: Line) -> Result<(), Turn> {
        let queue = &self.admission.lines[line as usize];
        if self.has_room(line) && queue.is_empty() || !self.has_its_share(place) {
            return Ok(());
        }
        place.waits_for_memory();
        Err(Turn {
            number: queue.numbers.fetch_add(1, Relaxed),
            budget: Arc::clone(self),
            place: Arc::clone(place),
            line,
        })
    }

    fn has_room(&self, line: Line) -> bool {
        self.used().saturating_add(self.admission.expected()) <= self.heap() / 100 * line.from()
    }

    fn has_its_share(&self, place: &Place) -> bool {
        place.requests_of_holder() >= (self.heap() / WORTH / REQUEST).max(1)
    }

    /// What requests take that began before the last call of this has been measured, and
    /// whoever waits looks again. To be called every now and then.
    pub(crate) fn settle(&self) {
        self.admission.settle();
    }
}

/// Ready when a request may begin. Dropped, it gives its turn to the next.
pub(crate) struct Turn {
    budget: Arc<Budget>,
    place: Arc<Place>,
    line: Line,
    number: u64,
}

impl Turn {
    /// True when its turn came within [`WAIT`].
    pub(crate) async fn comes(self) -> bool {
        timeout(WAIT, self).await.is_ok()
    }

    fn queue(&self) -> &Queue {
        &self.budget.admission.lines[self.line as usize]
    }
}

impl Future for Turn {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let queue = self.queue();
        let next = self.budget.has_room(self.line) && queue.is_first(self.number);
        if next || !self.budget.has_its_share(&self.place) {
            return Poll::Ready(());
        }
        queue.wait(self.number, cx.waker());
        Poll::Pending
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.queue().leave(self.number);
    }
}

/// In the extensions of a request whose turn did not come: it is to be refused.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NoTurn;

#[cfg(test)]
mod tests;
