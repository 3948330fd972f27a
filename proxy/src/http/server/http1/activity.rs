//! The state of one HTTP/1.1 connection: whether a head is expected, what is in flight, and what
//! the client has not taken. Each part that sees some of it reports here.

mod admitted_head;
mod left;
mod unanswered;

use std::future::poll_fn;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::task::Poll;
use std::time::Duration;

use futures::task::AtomicWaker;
use http::{HeaderMap, Request, StatusCode, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use parking_lot::Mutex;
use runtime::occupancy::{InFlight, Permit, ReservedBytes};
use tokio::io::AsyncRead;
use tokio::time::Instant;

pub(super) use self::admitted_head::AdmittedHead;
use self::unanswered::Unanswered;
use crate::http::deadline::{self, PreviousHop};
use crate::http::server::http1::unread_head;
use crate::http::server::refused_head;
use crate::net::abort::Abort;
use crate::net::admission::AdmissionClass;
use crate::net::budget::{Budget, Holder, Promise};
use crate::net::prefixed::Prefixed;
use crate::net::ticket::{AdmissionTicket, NotAdmitted, Reservation, Waited};

/// What a request in flight costs beside its head, in bytes.
const REQUEST: usize = 16 * 1024;

/// So much is read of what lies behind a head that waits, to see whether its caller leaves.
const AHEAD: usize = 4 * 1024;

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct ConnectionUse {
    pub(super) permit: Arc<Permit>,
    /// A head is expected; whatever came before has been read to its end.
    pub(super) expects: AtomicBool,
    /// Nothing of it has come.
    pub(super) fresh: AtomicBool,
    /// Bytes that have come since, for all that is known.
    pub(super) head: AtomicUsize,
    requests: AtomicU64,
    /// Answers that have not been handed over in full.
    in_flight: AtomicU32,
    /// The last request has a body, and not all of it has come. What comes must
    /// never be taken for the next request.
    pub(super) body: AtomicBool,
    /// A request that was answered in full before all of its body came, as long as that
    /// does not.
    unfinished: Mutex<Option<(InFlight, Holder)>>,
    /// A request asks for another protocol.
    pub(super) upgrade: AtomicBool,
    /// The last request does, and waits for its answer.
    pub(super) switches: AtomicBool,
    /// At the next flush it is looked whether the client is still there: hyper does not read
    /// while it waits for an answer, since a client may have closed its own direction.
    pub(super) looks: AtomicBool,
    /// The client does not take what was answered.
    pub(super) stuck: AtomicBool,
    /// Bytes of answers that hyper has and the client has not taken, or nearly: heads
    /// are not counted when they come, so it may be less.
    pub(super) unsent: AtomicIsize,
    /// Wakes the sender that waits for `unsent` to shrink.
    pub(super) taken: AtomicWaker,
    /// Changes with each write of what came of an answer that broke off, and is 0 behind that.
    pub(super) unwritten: AtomicUsize,
    pub(super) budget: Arc<Budget>,
    /// The class by which a request waits where there is no room for it.
    class: AdmissionClass,
    /// Where its requests come from.
    from: PreviousHop,
    /// The next request was let in before hyper has its head.
    admitted: AtomicBool,
    /// A request that was admitted, until it goes on its way. hyper may take long to read its head:
    /// while memory is full it is not read.
    admitted_head: Mutex<Option<Box<AdmittedHead>>>,
    /// For how many milliseconds it waited; 0: it did not.
    waited: AtomicU64,
    /// A request whose head hyper has waits to be admitted.
    queued: AtomicBool,
    /// Its sender has left.
    left: AtomicBool,
    /// Whether the last request waits for its answer, and its caller sends no more.
    unanswered: Unanswered,
    /// The status of an answer of hyper itself that was kept back; 0: none.
    pub(super) refusal: AtomicU16,
    /// The connection is to end: the next answer announces it.
    pub(super) is_last: AtomicBool,
    /// What came of the next head, as it is counted for this connection.
    reserved_head: ReservedBytes,
    /// An answer broke off: a client that reads to the end of the connection must not
    /// take what it got for all of it.
    pub(super) abort: Abort,
}

impl ConnectionUse {
    pub(super) fn new(
        budget: Arc<Budget>,
        permit: Arc<Permit>,
        class: AdmissionClass,
        from: PreviousHop,
    ) -> Self {
        Self {
            reserved_head: permit.reserve_bytes(0),
            permit,
            expects: AtomicBool::default(),
            fresh: AtomicBool::default(),
            head: AtomicUsize::default(),
            requests: AtomicU64::default(),
            in_flight: AtomicU32::default(),
            body: AtomicBool::default(),
            unfinished: Mutex::default(),
            upgrade: AtomicBool::default(),
            switches: AtomicBool::default(),
            looks: AtomicBool::default(),
            stuck: AtomicBool::default(),
            unsent: AtomicIsize::default(),
            taken: AtomicWaker::new(),
            unwritten: AtomicUsize::default(),
            budget,
            class,
            from,
            admitted: AtomicBool::default(),
            admitted_head: Mutex::default(),
            waited: AtomicU64::default(),
            queued: AtomicBool::default(),
            left: AtomicBool::default(),
            unanswered: Unanswered::default(),
            refusal: AtomicU16::default(),
            is_last: AtomicBool::default(),
            abort: Abort::default(),
        }
    }

    /// True when `data` is an answer of hyper itself, to a head that no handler gets, and is to be
    /// kept back for one with a reason. Answers of handlers that look like it announce that they
    /// are the last ones, so that no head is expected after them.
    pub(super) fn keeps_back(&self, data: &[u8]) -> bool {
        if !self.expects.load(Relaxed)
            || self.upgrade.load(Relaxed)
            || self.unsent.load(Relaxed) > 0
        {
            return false;
        }
        let status = refused_head::by_hyper(data);
        if let Some(status) = status {
            self.refusal.store(status.as_u16(), Relaxed);
        }
        status.is_some()
    }

    pub(super) fn refusal(&self) -> Option<StatusCode> {
        StatusCode::from_u16(self.refusal.swap(0, Relaxed)).ok()
    }

    /// The next head may come.
    pub(super) fn waits(&self) {
        self.body.store(false, Relaxed);
        drop(self.unfinished.lock().take());
        self.expects.store(true, Relaxed);
        self.fresh.store(true, Relaxed);
        self.head.store(0, Relaxed);
        self.rests();
    }

    /// An answer that is not taken in full is no rest between two requests.
    pub(super) fn rests(&self) {
        if self.stuck.load(Relaxed) {
            self.permit.stuck();
        } else {
            self.permit.idle();
        }
    }

    /// So many bytes of a head came.
    pub(super) fn note_head_bytes(&self, bytes: usize) {
        if self.expects.load(Relaxed) {
            self.permit.head_begins();
            self.reserved_head.add(bytes);
        }
    }

    /// Lets a request in of whose head only the first bytes have come, where there is room.
    /// It counts from here on, or a thousand such beginnings would be let in as one.
    pub(super) fn lets_in(&self) -> Option<Box<AdmittedHead>> {
        let lets_in = self.budget.lets_in(&self.permit, self.class);
        lets_in.then(|| self.admit_with(None))
    }

    /// A request that counts from now on.
    fn admit_with(&self, reservation: Reservation) -> Box<AdmittedHead> {
        let mut promise = self.budget.promise(0);
        promise.begins();
        Box::new(AdmittedHead {
            since: Instant::now(),
            whole: false,
            reserved: reservation.is_some(),
            in_flight: self.permit.begin_request_by(reservation),
            _promise: promise,
        })
    }

    /// Whether hyper has taken the head that came, and what it gave back is what came behind
    /// that.
    pub(super) fn has_head_of<I: AsyncRead + Unpin>(&self, io: &Prefixed<I>) -> bool {
        io.ahead() < self.head.load(Relaxed)
    }

    /// Waits until the request may begin whose head has come, as far as it is waited for
    /// before hyper reads it.
    ///
    /// # Errors
    /// When it was not admitted.
    pub(super) async fn admits<I>(
        &self,
        io: &mut Prefixed<I>,
        early: Option<Box<AdmittedHead>>,
    ) -> Result<(), NotAdmitted>
    where
        I: AsyncRead + Unpin,
    {
        self.forgets();
        let mut admitted_head = match early.filter(|early| early.is_still_admitted()) {
            Some(early) => early,
            None => match self.budget.admit(&self.permit, self.class) {
                Ok(at_once) => self.admit_with(at_once),
                // Boxed: an idle connection has no room for it.
                Err(ticket) => Box::pin(self.queues(io, ticket)).await?,
            },
        };
        admitted_head.whole = io.has_head();
        // Of a head that is too large the rest may never come.
        if admitted_head.whole || !admitted_head.reserved {
            *self.admitted_head.lock() = Some(admitted_head);
        }
        self.admitted.store(true, Relaxed);
        Ok(())
    }

    /// What was admitted does not come.
    pub(super) fn forgets(&self) {
        let admitted_head = self.admitted_head.lock().take();
        drop(admitted_head);
    }

    /// Waits with a request of which nothing but the head, or its beginning, was read.
    async fn queues<I>(
        &self,
        io: &mut Prefixed<I>,
        ticket: AdmissionTicket,
    ) -> Result<Box<AdmittedHead>, NotAdmitted>
    where
        I: AsyncRead + Unpin,
    {
        let reserved = self.permit.reserve_bytes(io.ahead());
        let until = self.until(&unread_head::times(io.read_ahead()));
        let most = io.ahead() + AHEAD;
        // No client is to blame for the time that passes.
        self.permit.busy();
        let since = Instant::now();
        let left = poll_fn(|cx| {
            let left = io.poll_left(cx, most);
            reserved.set(io.ahead());
            left
        });
        let admitted_head = self.admit_with(ticket.admitted_before(left, until).await?);
        self.notes_wait(since);
        self.permit.idle();
        self.permit.head_begins();
        Ok(admitted_head)
    }

    /// What a request waits for whose head hyper has.
    pub(super) fn ticket(&self) -> Option<AdmissionTicket> {
        let admitted = self.admitted.swap(false, Relaxed);
        let admitted_head = self.admitted_head.lock().take();
        if let Some(admitted_head) =
            admitted_head.filter(|admitted_head| admitted && admitted_head.is_still_admitted())
        {
            *self.admitted_head.lock() = Some(admitted_head);
            return None;
        }
        match self.budget.admit(&self.permit, self.class) {
            Ok(reservation) => {
                *self.admitted_head.lock() = Some(self.admit_with(reservation));
                None
            }
            Err(ticket) => Some(ticket),
        }
    }

    /// When a request with these headers is over, by its head.
    pub(super) fn until(&self, map: &HeaderMap) -> Option<Instant> {
        deadline::announced_end(map, self.from).map(Instant::from)
    }

    /// Waits until the request may begin, `until` at most.
    ///
    /// # Errors
    /// When it was late before that, or its sender left.
    pub(super) async fn admitted(
        &self,
        ticket: AdmissionTicket,
        until: Option<Instant>,
    ) -> Result<(), NotAdmitted> {
        let since = Instant::now();
        self.left.store(false, Relaxed);
        self.queued.store(true, Relaxed);
        // The part that notes it wakes this connection.
        let left = poll_fn(|_| {
            if self.left.load(Relaxed) {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        });
        let admitted = ticket.admitted_before(left, until).await;
        self.queued.store(false, Relaxed);
        self.reserved_head.set(0);
        *self.admitted_head.lock() = Some(self.admit_with(admitted?));
        self.notes_wait(since);
        Ok(())
    }

    fn notes_wait(&self, since: Instant) {
        let waited = since.elapsed().as_millis().max(1);
        self.waited
            .store(u64::try_from(waited).unwrap_or(u64::MAX), Relaxed);
    }

    /// For how long the request waited that begins now.
    pub(super) fn waited(&self) -> Option<Waited> {
        if self.waited.load(Relaxed) == 0 {
            return None;
        }
        let waited = self.waited.swap(0, Relaxed);
        Some(Waited(Duration::from_millis(waited)))
    }

    /// Nothing of the next head was read, and it would wait: it stays where it is, and the
    /// connection is idle meanwhile. A connection with an offer of another protocol is never idle,
    /// so there the head is read, and its request waits to be admitted.
    pub(super) fn holds_back(&self) -> bool {
        self.expects.load(Relaxed)
            && self.fresh.load(Relaxed)
            && !self.admitted.load(Relaxed)
            && !self.upgrade.load(Relaxed)
            && self.budget.holds_back(&self.permit, self.class)
    }

    pub(super) fn begin(self: &Arc<Self>, request: &Request<Incoming>) -> (Busy, bool) {
        self.expects.store(false, Relaxed);
        self.permit.busy();
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        self.unanswered.begins();
        self.body.store(!request.body().is_end_stream(), Relaxed);
        let upgrade = request.headers().contains_key(header::UPGRADE);
        self.upgrade.fetch_or(upgrade, Relaxed);
        let head = self.reserved_head.set(0);
        let busy = Busy {
            used: Arc::clone(self),
            reserved: self.reserved_head.beside(REQUEST + head),
            // What sending it on costs is not there while it waits.
            promise: self.budget.promise(0),
            head,
            in_flight: None,
        };
        (busy, upgrade)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(super) fn chunk_size(&self) -> usize {
        self.budget.chunk_size()
    }

    /// The client has enough to take.
    pub(super) fn is_full(&self) -> bool {
        usize::try_from(self.unsent.load(Relaxed)).is_ok_and(|unsent| unsent >= self.chunk_size())
    }

    /// `bytes` were written to the client.
    pub(super) fn written(&self, bytes: usize) {
        let bytes = isize::try_from(bytes).unwrap_or(isize::MAX);
        let before = self.unsent.fetch_sub(bytes, Relaxed);
        if before < bytes {
            // A head, or what chunks are wrapped in.
            self.unsent.store(0, Relaxed);
        }
        self.taken.wake();
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.load(Relaxed) == 0 && !self.body.load(Relaxed) && !self.stuck.load(Relaxed)
    }
}

/// Held until an answer has been handed over. What makes it a request in flight is held
/// until its own body has come as well.
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) used: Arc<ConnectionUse>,
    /// Its head, and that of the answer.
    pub(super) reserved: ReservedBytes,
    /// What it will cost on the way.
    pub(super) promise: Promise,
    /// Bytes of its head.
    head: usize,
    /// It was let in.
    in_flight: Option<(InFlight, Holder)>,
}

impl Busy {
    /// It goes on its way. `upgrade`: it asks for another protocol. Where it has a body the end
    /// of what its caller sends may be no more than the end of that.
    pub(super) fn proceed(&mut self, upgrade: bool) {
        let used = &self.used;
        let switches = upgrade && !used.body.load(Relaxed);
        used.switches.store(switches, Relaxed);
        let admitted_head = used.admitted_head.lock().take();
        // From here on: what it takes was not there to be measured before.
        self.promise = used.budget.promise(self.head);
        self.promise.begins();
        let in_flight = match admitted_head {
            Some(admitted_head) => admitted_head.in_flight,
            None => used.permit.begin_request(),
        };
        self.in_flight = Some((in_flight, used.budget.enter()));
    }

    /// Another protocol is spoken from now on. Its body came whole before that, and what comes is
    /// no rest of it.
    pub(super) fn switched(&self) {
        self.used.body.store(false, Relaxed);
    }

    /// It has its answer.
    pub(super) fn answered(&mut self) {
        self.used.switches.store(false, Relaxed);
        self.used.unanswered.ends();
        self.promise.answered();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // A body on its way to an application that has answered already holds as much as
        // one that waits for its answer.
        if self.used.body.load(Relaxed) {
            *self.used.unfinished.lock() = self.in_flight.take();
        }
        self.used.in_flight.fetch_sub(1, Relaxed);
    }
}
