//! The queue of HTTP/2 requests of one connection that wait until there is memory for them; see
//! [`weft_proxy_net::ticket`].
//!
//! Their heads have been read, since a server that does not read an HTTP/2 connection receives no
//! window updates for what it sends either. So each request holds its head and as much of its body
//! as its window allows, which counts, and no work starts for it. A connection has one ticket at a
//! time, for the first request.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use h2::RecvStream;
use h2::server::SendResponse;
use http::{Request, header};
use runtime::occupancy::{Permit, ReservedBytes};
use tokio::time::{Instant, Sleep, sleep_until};
use weft_proxy_net::admission::AdmissionClass;
use weft_proxy_net::budget::Budget;
use weft_proxy_net::ticket::{AdmissionTicket, NotAdmitted, Reservation, WAIT, Waited, admit};

use crate::deadline::{self, PreviousHop};
use crate::head::size;

/// What one of them costs beside its head, in bytes.
const STREAM: usize = 2 * 1024;
/// From so many on those are looked for that their clients took back.
const LOOK_FROM: usize = 64;

/// A request as it came.
pub(super) type AcceptedStream = (Request<RecvStream>, SendResponse<Bytes>);

/// The requests of one connection that wait.
pub(super) struct QueuedRequests {
    budget: Arc<Budget>,
    permit: Arc<Permit>,
    class: AdmissionClass,
    from: PreviousHop,
    waiting: VecDeque<Waiting>,
    /// Those that will not be admitted, marked with why.
    rejected: Vec<AcceptedStream>,
    ticket: Option<AdmissionTicket>,
    /// When the first of them has waited for too long.
    late: Option<Pin<Box<Sleep>>>,
    /// When the own time of one of them is over, whichever comes first. That one may not
    /// wait any more by then.
    next_end: Option<Instant>,
    ends: Option<Pin<Box<Sleep>>>,
    /// From this length on those that were taken back are looked for.
    look_at: usize,
}

struct Waiting {
    accepted: AcceptedStream,
    since: Instant,
    /// When its own deadline passes, as its head announces.
    until: Option<Instant>,
    _reserved: ReservedBytes,
}

impl QueuedRequests {
    pub(super) const fn new(
        budget: Arc<Budget>,
        permit: Arc<Permit>,
        class: AdmissionClass,
        from: PreviousHop,
    ) -> Self {
        Self {
            budget,
            permit,
            class,
            from,
            waiting: VecDeque::new(),
            rejected: Vec::new(),
            ticket: None,
            late: None,
            next_end: None,
            ends: None,
            look_at: LOOK_FROM,
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    /// Gives the request back where it may begin at once, marked where it was taken back
    /// already, and keeps it otherwise. `window`: as much of its body may come meanwhile.
    pub(super) fn admit(
        &mut self,
        mut accepted: AcceptedStream,
        window: u32,
        cx: &mut Context<'_>,
    ) -> Option<AcceptedStream> {
        if was_taken_back(&mut accepted) {
            return Some(marked(accepted, NotAdmitted::Left));
        }
        if self.waiting.is_empty() {
            match admit(&self.budget, &self.permit, self.class) {
                Ok(reservation) => return Some(reserved(accepted, reservation)),
                Err(ticket) => self.ticket = Some(ticket),
            }
        }
        let head = STREAM + size(accepted.0.headers());
        let _reserved = self
            .permit
            .reserve_bytes(head + body(&accepted.0, window as usize));
        let until = deadline::announced_end(accepted.0.headers(), self.from).map(Instant::from);
        self.next_end = earlier(self.next_end, until);
        self.waiting.push_back(Waiting {
            accepted,
            since: Instant::now(),
            until,
            _reserved,
        });
        if self.waiting.len() >= self.look_at {
            self.reject(|_| None, cx);
            self.look_at = LOOK_FROM.max(2 * self.waiting.len());
        }
        None
    }

    /// Takes out those that were taken back, and those for which `why` has a reason.
    fn reject(&mut self, why: impl Fn(&Waiting) -> Option<NotAdmitted>, cx: &mut Context<'_>) {
        for mut one in std::mem::take(&mut self.waiting) {
            let left = one.accepted.1.poll_reset(cx).is_ready();
            let why = if left {
                Some(NotAdmitted::Left)
            } else {
                why(&one)
            };
            match why {
                Some(why) => self.rejected.push(marked(one.accepted, why)),
                None => self.waiting.push_back(one),
            }
        }
        if self.waiting.is_empty() {
            self.ticket = None;
        }
    }

    /// Takes out those whose own time is over, wherever they stand: they would be refused
    /// for it if they were admitted. Wakes when the next one's is.
    fn end_those_out_of_time(&mut self, cx: &mut Context<'_>) {
        while let Some(end) = self.next_end
            && is_over(&mut self.ends, end, cx)
        {
            let now = Instant::now().max(end);
            let over = |one: &Waiting| one.until.is_some_and(|until| until <= now);
            self.reject(|one| over(one).then_some(NotAdmitted::Deadline), cx);
            self.next_end = self.waiting.iter().filter_map(|one| one.until).min();
        }
    }

    /// The next one that is admitted, or never will be: that one is marked. Wakes for the
    /// others.
    pub(super) fn next(&mut self, cx: &mut Context<'_>) -> Option<AcceptedStream> {
        self.end_those_out_of_time(cx);
        if let Some(rejected) = self.rejected.pop() {
            return Some(rejected);
        }
        loop {
            let Some(first) = self.waiting.front() else {
                (self.late, self.next_end, self.ends) = (None, None, None);
                return None;
            };
            let late_at = first.since + WAIT;
            let admitted = match &mut self.ticket {
                Some(ticket) => Pin::new(ticket).poll(cx),
                None => match admit(&self.budget, &self.permit, self.class) {
                    Ok(reservation) => Poll::Ready(reservation),
                    Err(ticket) => {
                        self.ticket = Some(ticket);
                        continue;
                    }
                },
            };
            let admitted = match admitted {
                Poll::Ready(reservation) => {
                    self.ticket = None;
                    Some(reservation)
                }
                // Only then: a proxy that stalled finds both at once.
                Poll::Pending if is_over(&mut self.late, late_at, cx) => None,
                Poll::Pending => return None,
            };
            let Waiting {
                accepted,
                since,
                _reserved,
                ..
            } = self.waiting.pop_front()?;
            if self.waiting.is_empty() {
                self.ticket = None;
            }
            let mut accepted = accepted;
            return Some(match admitted {
                _ if accepted.1.poll_reset(cx).is_ready() => marked(accepted, NotAdmitted::Left),
                Some(reservation) => {
                    marked(reserved(accepted, reservation), Waited(since.elapsed()))
                }
                None => marked(accepted, NotAdmitted::Late),
            });
        }
    }
}

/// Whether its reset came with its head. `h2` hands out a stream once it has read all that there
/// is. A client that begins and resets streams without end would have a connection to the
/// application opened for each, which is then dropped, until other connections find no room in the
/// application's accept queue.
fn was_taken_back(accepted: &mut AcceptedStream) -> bool {
    // The part that answers polls with its own waker.
    let mut cx = Context::from_waker(Waker::noop());
    accepted.1.poll_reset(&mut cx).is_ready()
}

/// The same with what it keeps until it has ended.
fn reserved(accepted: AcceptedStream, reservation: Reservation) -> AcceptedStream {
    match reservation {
        Some(permit) => marked(accepted, permit),
        None => accepted,
    }
}

fn marked<M>((mut request, respond): AcceptedStream, mark: M) -> AcceptedStream
where
    M: Clone + Send + Sync + 'static,
{
    request.extensions_mut().insert(mark);
    (request, respond)
}

fn earlier(one: Option<Instant>, other: Option<Instant>) -> Option<Instant> {
    one.into_iter().chain(other).min()
}

/// Bytes that may come of a body that is not read.
fn body(request: &Request<RecvStream>, window: usize) -> usize {
    if request.body().is_end_stream() {
        return 0;
    }
    let length = request.headers().get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse().ok());
    length.map_or(window, |length: usize| length.min(window))
}

/// Whether that time has come; wakes then.
fn is_over(timer: &mut Option<Pin<Box<Sleep>>>, at: Instant, cx: &mut Context<'_>) -> bool {
    let timer = timer.get_or_insert_with(|| Box::pin(sleep_until(at)));
    if timer.deadline() != at {
        timer.as_mut().reset(at);
    }
    timer.as_mut().poll(cx).is_ready()
}
