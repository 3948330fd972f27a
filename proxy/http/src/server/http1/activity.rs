//! The state of one HTTP/1.1 connection: whether a head is expected, what is in flight, and what
//! the client has not taken. Each part that sees some of it updates it here.
//!
//! hyper does not read while it waits for a response, so this proxy has to check whether the client
//! has left. A reset is seen at once. A FIN shows only that the client sends no more: a client that
//! has closed its socket and one that still reads look alike until something is sent to them. How
//! long the proxy waits for such a client is in [`phases`].

mod admission;
mod phases;

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};
use std::task::Context;

use futures::task::AtomicWaker;
use http::{Request, StatusCode, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use parking_lot::Mutex;
use runtime::occupancy::{InFlight, Permit, ReservedBytes};
use tokio::io::AsyncRead;
use tokio::time::Instant;
use weft_proxy_net::abort::Abort;
use weft_proxy_net::admission::AdmissionClass;
use weft_proxy_net::budget::{Budget, Holder, Promise};
use weft_proxy_net::prefixed::Prefixed;
use weft_proxy_net::ticket::{AdmissionTicket, NotAdmitted};

use self::admission::{AHEAD, RequestAdmission};
use self::phases::{AtomicPhase, NextHead, OtherProtocol, Queue, Unanswered};
use crate::deadline::PreviousHop;
use crate::server::refused_head;

/// What a request in flight costs beside its head, in bytes.
const REQUEST: usize = 16 * 1024;

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct ConnectionUse {
    pub(super) permit: Arc<Permit>,
    pub(super) budget: Arc<Budget>,
    pub(super) admission: RequestAdmission,
    pub(super) head: Head,
    requests: AtomicU64,
    /// Answers that have not been handed over in full.
    in_flight: AtomicU32,
    body: RequestBody,
    /// Whether the last request waits for its answer, and its caller sends no more.
    unanswered: Unanswered,
    protocol: AtomicPhase<OtherProtocol>,
    /// At the next flush it is looked whether the client is still there: hyper does not read
    /// while it waits for an answer, since a client may have closed its own direction.
    pub(super) looks: AtomicBool,
    pub(super) answers: Answers,
    /// The status of an answer of hyper itself that was kept back; 0: none.
    pub(super) refusal: AtomicU16,
    /// The connection is to end: the next answer announces it.
    pub(super) is_last: AtomicBool,
    /// An answer broke off: a client that reads to the end of the connection must not
    /// take what it got for all of it.
    pub(super) abort: Abort,
}

/// The head of the next request.
#[derive(Debug)]
pub(super) struct Head {
    phase: AtomicPhase<NextHead>,
    /// Bytes that have come since it is expected, for all that is known.
    pub(super) bytes: AtomicUsize,
    /// What came of it, as it is counted for this connection.
    pub(super) reserved: ReservedBytes,
}

impl Head {
    pub(super) fn is_expected(&self) -> bool {
        !self.phase.is(NextHead::NotExpected)
    }

    /// Bytes came. Returns whether they are the first ones of a head.
    pub(super) fn begins(&self) -> bool {
        self.phase.advance(NextHead::Expected, NextHead::Started)
    }
}

/// The body of the last request.
#[derive(Debug, Default)]
struct RequestBody {
    /// Not all of it has come. What comes must never be taken for the next request.
    is_coming: AtomicBool,
    /// A request that was answered in full before all of its body came, as long as that
    /// does not.
    unfinished: Mutex<Option<(InFlight, Holder)>>,
}

/// What the client has not taken of its answers.
#[derive(Debug, Default)]
pub(super) struct Answers {
    /// The client does not take what was answered.
    pub(super) stuck: AtomicBool,
    /// Bytes of answers that hyper has and the client has not taken, or nearly: heads
    /// are not counted when they come, so it may be less.
    pub(super) unsent: AtomicIsize,
    /// Wakes the sender that waits for `unsent` to shrink.
    pub(super) taken: AtomicWaker,
    /// Changes with each write of what came of an answer that broke off, and is 0 behind that.
    pub(super) unwritten: AtomicUsize,
}

impl Answers {
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
}

impl ConnectionUse {
    pub(super) fn new(
        budget: Arc<Budget>,
        permit: Arc<Permit>,
        class: AdmissionClass,
        from: PreviousHop,
    ) -> Self {
        Self {
            admission: RequestAdmission::new(Arc::clone(&budget), Arc::clone(&permit), class, from),
            head: Head {
                phase: AtomicPhase::new(NextHead::NotExpected),
                bytes: AtomicUsize::default(),
                reserved: permit.reserve_bytes(0),
            },
            permit,
            budget,
            requests: AtomicU64::default(),
            in_flight: AtomicU32::default(),
            body: RequestBody::default(),
            unanswered: Unanswered::default(),
            protocol: AtomicPhase::new(OtherProtocol::NotRequested),
            looks: AtomicBool::default(),
            answers: Answers::default(),
            refusal: AtomicU16::default(),
            is_last: AtomicBool::default(),
            abort: Abort::default(),
        }
    }

    /// True when `data` is an answer of hyper itself, to a head that no handler gets, and is to be
    /// kept back for one with a reason. Answers of handlers that look like it announce that they
    /// are the last ones, so that no head is expected after them.
    pub(super) fn keeps_back(&self, data: &[u8]) -> bool {
        if !self.head.is_expected()
            || self.requests_other_protocol()
            || self.answers.unsent.load(Relaxed) > 0
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
        self.body.is_coming.store(false, Relaxed);
        drop(self.body.unfinished.lock().take());
        self.head.phase.set(NextHead::Expected);
        self.head.bytes.store(0, Relaxed);
        self.becomes_idle_or_stuck();
    }

    /// An answer that is not taken in full is no rest between two requests.
    pub(super) fn becomes_idle_or_stuck(&self) {
        if self.answers.stuck.load(Relaxed) {
            self.permit.stuck();
        } else {
            self.permit.idle();
        }
    }

    /// So many bytes of a head came.
    pub(super) fn note_head_bytes(&self, bytes: usize) {
        if self.head.is_expected() {
            self.permit.head_begins();
            self.head.reserved.add(bytes);
        }
    }

    /// Whether hyper has taken the head that came, and what it gave back is what came behind
    /// that.
    pub(super) fn has_head_of<I: AsyncRead + Unpin>(&self, io: &Prefixed<I>) -> bool {
        io.ahead() < self.head.bytes.load(Relaxed)
    }

    /// Nothing of the next head was read, and it would wait: it stays where it is, and the
    /// connection is idle meanwhile. A connection with an offer of another protocol is never idle,
    /// so there the head is read, and its request waits to be admitted.
    pub(super) fn holds_back(&self) -> bool {
        self.head.phase.is(NextHead::Expected)
            && !self.requests_other_protocol()
            && self.admission.holds_back()
    }

    /// Whether a request of this connection has asked for another protocol.
    pub(super) fn requests_other_protocol(&self) -> bool {
        !self.protocol.is(OtherProtocol::NotRequested)
    }

    pub(super) fn begin(self: &Arc<Self>, request: &Request<Incoming>) -> (Busy, bool) {
        self.head.phase.set(NextHead::NotExpected);
        self.permit.busy();
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        self.unanswered.begins();
        let is_coming = !request.body().is_end_stream();
        self.body.is_coming.store(is_coming, Relaxed);
        let upgrade = request.headers().contains_key(header::UPGRADE);
        if upgrade {
            self.protocol
                .advance(OtherProtocol::NotRequested, OtherProtocol::Requested);
        }
        let head = self.head.reserved.set(0);
        let busy = Busy {
            used: Arc::clone(self),
            reserved: self.head.reserved.beside(REQUEST + head),
            // What sending it on costs is not there while it waits.
            promise: self.budget.promise(0),
            head,
            in_flight: None,
        };
        (busy, upgrade)
    }

    /// As [`RequestAdmission::admitted`].
    pub(super) fn admitted(
        &self,
        ticket: AdmissionTicket,
        until: Option<Instant>,
    ) -> impl Future<Output = Result<(), NotAdmitted>> {
        self.admission.admitted(ticket, until, &self.head.reserved)
    }

    /// The last request has its answer, or asks for no other protocol.
    fn no_longer_awaits_protocol(&self) {
        self.protocol
            .advance(OtherProtocol::Awaited, OtherProtocol::Requested);
    }

    /// Looks while a request waits whose head hyper has: nothing else reads the connection then, so
    /// nothing else would notice that the caller left.
    pub(super) fn looks_whether_left<I: AsyncRead + Unpin>(
        &self,
        io: &mut Prefixed<I>,
        cx: &mut Context<'_>,
    ) {
        if !self.admission.queue.is(Queue::Waits) {
            return;
        }
        if io.poll_left(cx, AHEAD).is_ready() {
            self.admission.queue.set(Queue::Left);
            cx.waker().wake_by_ref();
        }
        self.head.reserved.set(io.ahead());
    }

    /// Whether the sender of a request for another protocol has left before the answer. No such
    /// protocol works with a client that sends no more; the caller of another request may only have
    /// finished sending.
    pub(super) fn has_left<I: AsyncRead + Unpin>(
        &self,
        io: &mut Prefixed<I>,
        cx: &mut Context<'_>,
    ) -> bool {
        self.protocol.is(OtherProtocol::Awaited) && io.poll_left(cx, AHEAD).is_ready()
    }

    /// Whether the caller of a request closed its direction so long ago that it is taken to have
    /// left. To be polled every now and then. Behind a body, or while memory is full, that is seen
    /// once all of what came before was read.
    pub(super) fn has_abandoned<I: AsyncRead + Unpin>(
        &self,
        io: &mut Prefixed<I>,
        cx: &mut Context<'_>,
    ) -> bool {
        // Of a peer proxy hyper itself sees it, and that is no half-close.
        if self.admission.from == PreviousHop::Peer {
            return false;
        }
        self.unanswered.is_abandoned(|| {
            if self.budget.is_full() {
                return false;
            }
            let before = io.ahead();
            let closes = io.poll_left(cx, AHEAD).is_ready();
            if io.ahead() > before {
                // hyper may wait for it, as the rest of a body.
                cx.waker().wake_by_ref();
            }
            closes && (io.ahead() == 0 || !self.body.is_coming.load(Relaxed))
        })
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(super) fn chunk_size(&self) -> usize {
        self.budget.chunk_size()
    }

    /// The client has enough to take.
    pub(super) fn is_full(&self) -> bool {
        usize::try_from(self.answers.unsent.load(Relaxed))
            .is_ok_and(|unsent| unsent >= self.chunk_size())
    }

    pub(super) fn is_quiet(&self) -> bool {
        self.in_flight.load(Relaxed) == 0
            && !self.body.is_coming.load(Relaxed)
            && !self.answers.stuck.load(Relaxed)
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
        if upgrade && !used.body.is_coming.load(Relaxed) {
            used.protocol.set(OtherProtocol::Awaited);
        } else {
            used.no_longer_awaits_protocol();
        }
        let admitted_head = used.admission.take();
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
        self.used.body.is_coming.store(false, Relaxed);
    }

    /// It has its answer.
    pub(super) fn answered(&mut self) {
        self.used.no_longer_awaits_protocol();
        self.used.unanswered.ends();
        self.promise.answered();
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        // A body on its way to an application that has answered already holds as much as
        // one that waits for its answer.
        if self.used.body.is_coming.load(Relaxed) {
            *self.used.body.unfinished.lock() = self.in_flight.take();
        }
        self.used.in_flight.fetch_sub(1, Relaxed);
    }
}
