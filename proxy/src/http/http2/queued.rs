//! Requests of one connection that wait until there is memory for them; see
//! [`crate::net::ticket`].
//!
//! Their heads have been read, since whoever does not read a connection of HTTP/2 does not
//! hear either that what was sent on it may go on. So each holds its head and what its
//! window lets come of its body, which counts, and nothing is done for it. A connection
//! has one ticket at a time, for the first of them.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, header};
use runtime::occupancy::{Permit, ReservedBytes};
use tokio::time::{Instant, Sleep, sleep_until};

use crate::http::limits::size;
use crate::net::admission::AdmissionClass;
use crate::net::budget::Budget;
use crate::net::ticket::{AdmissionTicket, NotAdmitted, Reservation, WAIT, Waited};

/// What one of them costs beside its head, in bytes.
const STREAM: usize = 2 * 1024;
/// From so many on those are looked for that their clients took back.
const LOOK_FROM: usize = 64;

/// A request as it came.
pub(super) type BegunRequest = (Request<RecvStream>, SendResponse<Bytes>);

/// The requests of one connection that wait.
pub(super) struct QueuedRequests {
    budget: Arc<Budget>,
    permit: Arc<Permit>,
    class: AdmissionClass,
    waiting: VecDeque<Waiting>,
    /// Those that were taken back while they waited.
    left: Vec<BegunRequest>,
    ticket: Option<AdmissionTicket>,
    /// When the first of them has waited for too long.
    late: Option<Pin<Box<Sleep>>>,
    /// From this length on those that were taken back are looked for.
    look_at: usize,
}

struct Waiting {
    begun: BegunRequest,
    since: Instant,
    _reserved: ReservedBytes,
}

impl QueuedRequests {
    pub(super) const fn new(
        budget: Arc<Budget>,
        permit: Arc<Permit>,
        class: AdmissionClass,
    ) -> Self {
        Self {
            budget,
            permit,
            class,
            waiting: VecDeque::new(),
            left: Vec::new(),
            ticket: None,
            late: None,
            look_at: LOOK_FROM,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives the request back where it may begin at once, and keeps it otherwise.
    /// `window`: as much of its body may come meanwhile.
    pub(super) fn admit(
        &mut self,
        begun: BegunRequest,
        window: u32,
        cx: &mut Context<'_>,
    ) -> Option<BegunRequest> {
        if self.waiting.is_empty() {
            match self.budget.admit(&self.permit, self.class) {
                Ok(reservation) => return Some(reserved(begun, reservation)),
                Err(ticket) => self.ticket = Some(ticket),
            }
        }
        let head = STREAM + size(begun.0.headers());
        let _reserved = self
            .permit
            .reserve_bytes(head + body(&begun.0, window as usize));
        self.waiting.push_back(Waiting {
            begun,
            since: Instant::now(),
            _reserved,
        });
        if self.waiting.len() >= self.look_at {
            for mut one in std::mem::take(&mut self.waiting) {
                if one.begun.1.poll_reset(cx).is_pending() {
                    self.waiting.push_back(one);
                } else {
                    self.left.push(one.begun);
                }
            }
            self.look_at = LOOK_FROM.max(2 * self.waiting.len());
            if self.waiting.is_empty() {
                self.ticket = None;
            }
        }
        None
    }

    /// The next one that is admitted, or never will be: that one is marked. Wakes for the
    /// others.
    pub(super) fn next(&mut self, cx: &mut Context<'_>) -> Option<BegunRequest> {
        if let Some(left) = self.left.pop() {
            return Some(marked(left, NotAdmitted::Left));
        }
        loop {
            let Some(first) = self.waiting.front() else {
                self.late = None;
                return None;
            };
            let late = is_late(&mut self.late, first.since + WAIT, cx);
            let mut reservation = None;
            if !late {
                let admitted = match &mut self.ticket {
                    Some(ticket) => Pin::new(ticket).poll(cx),
                    None => match self.budget.admit(&self.permit, self.class) {
                        Ok(reservation) => Poll::Ready(reservation),
                        Err(ticket) => {
                            self.ticket = Some(ticket);
                            continue;
                        }
                    },
                };
                let Poll::Ready(admitted) = admitted else {
                    return None;
                };
                reservation = admitted;
                self.ticket = None;
            }
            let Waiting {
                begun,
                since,
                _reserved,
            } = self.waiting.pop_front()?;
            if self.waiting.is_empty() {
                self.ticket = None;
            }
            let mut begun = begun;
            return Some(if begun.1.poll_reset(cx).is_ready() {
                marked(begun, NotAdmitted::Left)
            } else if late {
                marked(begun, NotAdmitted::Late)
            } else {
                marked(reserved(begun, reservation), Waited(since.elapsed()))
            });
        }
    }
}

/// The same with what it keeps until it has ended.
fn reserved(begun: BegunRequest, reservation: Reservation) -> BegunRequest {
    match reservation {
        Some(permit) => marked(begun, permit),
        None => begun,
    }
}

fn marked<M>((mut request, respond): BegunRequest, mark: M) -> BegunRequest
where
    M: Clone + Send + Sync + 'static,
{
    request.extensions_mut().insert(mark);
    (request, respond)
}

/// What may come of a body that nobody reads, in bytes.
fn body(request: &Request<RecvStream>, window: usize) -> usize {
    if request.body().is_end_stream() {
        return 0;
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    length.map_or(window, |length: usize| length.min(window))
}

/// Whether that time has come; wakes then.
fn is_late(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant, cx: &mut Context<'_>) -> bool {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
    if timer.deadline() != at {
        timer.as_mut().reset(at);
    }
    timer.as_mut().poll(cx).is_ready()
}
