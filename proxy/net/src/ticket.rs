//! Tickets: requests that wait for memory before they start.
//!
//! A request in flight holds some 40 KiB until its response was taken, and to end it early is the
//! last resort (`process::relief`). A request that waits holds next to nothing: most of it is in
//! the kernel still. So above a part of the memory requests wait until use falls, each only behind
//! others of its own holder. How high that part is follows from what the holder holds already, see
//! [`crate::admission`]: a holder of little finds room where others wait, and requests in flight
//! that never end do not hold up their holder.
//!
//! Only the amount counts, and not the holder: many holders of little wait as well where they fill
//! the memory together. Some requests of every holder are admitted beyond that, so that none waits
//! for a request that can only end after it; fewer, the more callers there are. A holder of more
//! than those in flight keeps a few permits that are reserved for its next requests, so that those
//! in flight that never end do not hold up all others.
//!
//! Room goes to the holder with the fewest in flight. A holder of much less than the largest one
//! that gets nothing at all for five seconds takes from that one, little at a time: where memory
//! becomes free by itself, no holder loses anything. Calls of the own application wait at a higher
//! part, because a request from outside may end only after them, and only beyond as many as there
//! are such requests.
//!
//! A caller that calls itself through this pod, as in A to B to A to B, is the exception: B cannot
//! see which requests of A are made for others of A that it serves already. Where those fill the
//! memory at B, one of them ends by the time limit of the wait.
//!
//! A request takes its memory only after it started, and a thousand of them may start within a
//! millisecond. So each counts in full from its start until it has ended, or until what it takes
//! has been measured.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use runtime::occupancy::{Look, Permit, Requests, ReservedPermit};
use tokio::time::{Instant, timeout_at};

use crate::admission::AdmissionClass;
use crate::budget::Budget;

/// No request waits longer than this. Clients that have a time limit have left by then.
pub const WAIT: Duration = Duration::from_secs(30);

/// What a request that may begin keeps until it has ended; nothing where there was room.
pub type Reservation = Option<Arc<ReservedPermit>>;

/// Lets the next request by this permit begin, or gives it a ticket. Its reservation goes to
/// [`Permit::begin_request_by`].
///
/// # Errors
/// When it has to wait.
pub fn admit(
    budget: &Arc<Budget>,
    permit: &Permit,
    class: AdmissionClass,
) -> Result<Reservation, AdmissionTicket> {
    let Some(requests) = permit.requests() else {
        return Ok(None);
    };
    if let Some(entry) = budget.passes(requests, class)
        && let Ok(reservation) = budget.enters(entry, requests)
    {
        return Ok(reservation);
    }
    permit.waits_for_memory(budget.lacks_memory(requests, class));
    let ticket = AdmissionTicket {
        number: budget
            .admission
            .enter(requests, class, budget.least(requests, class)),
        budget: Arc::clone(budget),
        requests: Arc::clone(requests),
        class,
    };
    budget.look_again();
    Err(ticket)
}

/// Ready when a request may begin. Dropped, it leaves the queue to the next.
#[derive(Debug)]
pub struct AdmissionTicket {
    budget: Arc<Budget>,
    requests: Arc<Requests>,
    class: AdmissionClass,
    number: u64,
}

impl AdmissionTicket {
    /// Returns when the request may begin whose own time is over at `until`.
    ///
    /// # Errors
    /// When it was not admitted by then, or within [`WAIT`].
    pub async fn admitted_by(self, until: Option<Instant>) -> Result<Reservation, NotAdmitted> {
        let late = Instant::now() + WAIT;
        let (at, why) = match until {
            Some(until) if until < late => (until, NotAdmitted::Deadline),
            _ => (late, NotAdmitted::Late),
        };
        timeout_at(at, self).await.map_err(|_| why)
    }

    /// The same.
    ///
    /// # Errors
    /// When it was not admitted in time, or its sender `left` before.
    pub async fn admitted_before(
        self,
        left: impl Future<Output = ()>,
        until: Option<Instant>,
    ) -> Result<Reservation, NotAdmitted> {
        tokio::select! {
            // The sender wants no response any more, and may have sent the request elsewhere.
            biased;
            () = left => Err(NotAdmitted::Left),
            admitted = self.admitted_by(until) => admitted,
        }
    }
}

impl Future for AdmissionTicket {
    type Output = Reservation;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Reservation> {
        let entry = match self.requests.look(self.number, cx.waker()) {
            Look::BelowShare | Look::Called => {
                self.budget.headroom().admits(&self.requests, self.class)
            }
            Look::First | Look::Behind => None,
        };
        let Some(entry) = entry else {
            return Poll::Pending;
        };
        let Ok(reservation) = self.budget.enters(entry, &self.requests) else {
            // A permit given back wakes the first that waits.
            return Poll::Pending;
        };
        self.requests.moves();
        Poll::Ready(reservation)
    }
}

impl Drop for AdmissionTicket {
    fn drop(&mut self) {
        self.budget.admission.leave(&self.requests, self.number);
        self.budget.look_again();
    }
}

/// In the extensions of a request that waited: for how long. Its sender sees that as a part of
/// the response time.
#[derive(Clone, Copy, Debug)]
pub struct Waited(pub Duration);

/// In the extensions of a request that was not admitted: nothing is to be done for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotAdmitted {
    /// It waited for [`WAIT`].
    Late,
    /// Its own time was over before that.
    Deadline,
    /// Its sender took it back.
    Left,
}

#[cfg(test)]
mod tests;
