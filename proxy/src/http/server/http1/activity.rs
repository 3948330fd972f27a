//! What a connection of HTTP/1.1 is doing, told by whoever sees a part of it: whether
//! a head is expected, what is in flight, and what the client has not taken.

use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicIsize, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed,
};

use futures::task::AtomicWaker;
use http::{Request, StatusCode, header};
use http_body::Body as HttpBody;
use hyper::body::Incoming;
use runtime::occupancy::{Held, InFlight, Place};

use crate::http::server::refused_head;
use crate::net::abort::Abort;
use crate::net::budget::{Budget, Holder, Promise};
use crate::net::turn::{Line, Turn};

/// What a request in flight costs beside its head, in bytes.
const REQUEST: usize = 16 * 1024;

/// What a connection is doing.
#[derive(Debug)]
pub(super) struct Use {
    pub(super) place: Arc<Place>,
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
    /// A request asks for another protocol.
    pub(super) upgrade: AtomicBool,
    /// The client does not take what was answered.
    pub(super) stuck: AtomicBool,
    /// Bytes of answers that hyper has and the client has not taken, or nearly: heads
    /// are not counted when they come, so it may be less.
    pub(super) unsent: AtomicIsize,
    /// Wakes whoever waits for `unsent` to get less.
    pub(super) taken: AtomicWaker,
    pub(super) budget: Arc<Budget>,
    /// Whom a request waits behind where there is no room for it.
    line: Line,
    /// The next request was let in before its head was read.
    admitted: AtomicBool,
    /// The status of an answer of hyper itself that was kept back; 0: none.
    pub(super) refusal: AtomicU16,
    /// What came of the next head, as it is counted for this connection.
    held_head: Held,
    /// An answer broke off: a client that reads to the end of the connection must not
    /// take what it got for all of it.
    pub(super) abort: Abort,
}

impl Use {
    pub(super) fn new(budget: Arc<Budget>, place: Arc<Place>, line: Line) -> Self {
        Self {
            held_head: place.hold(0),
            place,
            expects: AtomicBool::default(),
            fresh: AtomicBool::default(),
            head: AtomicUsize::default(),
            requests: AtomicU64::default(),
            in_flight: AtomicU32::default(),
            body: AtomicBool::default(),
            upgrade: AtomicBool::default(),
            stuck: AtomicBool::default(),
            unsent: AtomicIsize::default(),
            taken: AtomicWaker::new(),
            budget,
            line,
            admitted: AtomicBool::default(),
            refusal: AtomicU16::default(),
            abort: Abort::default(),
        }
    }

    /// True when `data` is an answer of hyper itself, to a head that no handler gets,
    /// and is to be kept back for one that says more. Answers of handlers that look like
    /// it say that they are the last ones, so that no head is expected after them.
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
        self.expects.store(true, Relaxed);
        self.fresh.store(true, Relaxed);
        self.head.store(0, Relaxed);
        self.rests();
    }

    /// An answer that is not taken in full is no rest between two requests.
    pub(super) fn rests(&self) {
        if self.stuck.load(Relaxed) {
            self.place.stuck();
        } else {
            self.place.idle();
        }
    }

    /// So many bytes of a head came.
    pub(super) fn hears(&self, bytes: usize) {
        if self.expects.load(Relaxed) {
            self.place.head_begins();
            self.held_head.add(bytes);
        }
    }

    /// Waits until the request that comes may be read. False: its turn did not come.
    pub(super) async fn admits(&self) -> bool {
        if let Err(turn) = self.budget.admit(&self.place, self.line) {
            // Nobody is to blame for the time that passes.
            self.place.busy();
            if !Box::pin(turn.comes()).await {
                return false;
            }
            self.place.idle();
        }
        self.admitted.store(true, Relaxed);
        true
    }

    /// What a request waits for whose head came behind another one.
    pub(super) fn turn(&self) -> Option<Turn> {
        if self.admitted.swap(false, Relaxed) {
            return None;
        }
        self.budget.admit(&self.place, self.line).err()
    }

    pub(super) fn begin(self: &Arc<Self>, request: &Request<Incoming>) -> (Busy, bool) {
        self.expects.store(false, Relaxed);
        self.place.busy();
        self.requests.fetch_add(1, Relaxed);
        self.in_flight.fetch_add(1, Relaxed);
        self.body.store(!request.body().is_end_stream(), Relaxed);
        let upgrade = request.headers().contains_key(header::UPGRADE);
        self.upgrade.fetch_or(upgrade, Relaxed);
        let head = self.held_head.set(0);
        let busy = Busy {
            used: Arc::clone(self),
            _holder: self.budget.hold(),
            held: self.held_head.beside(REQUEST + head),
            promise: Some(self.budget.promise(head)),
            in_flight: None,
        };
        (busy, upgrade)
    }

    pub(super) fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    pub(super) fn piece(&self) -> usize {
        self.budget.piece()
    }

    /// The client has enough to take.
    pub(super) fn is_full(&self) -> bool {
        usize::try_from(self.unsent.load(Relaxed)).is_ok_and(|unsent| unsent >= self.piece())
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

/// Held until an answer has been handed over.
#[derive(Debug)]
pub(super) struct Busy {
    pub(super) used: Arc<Use>,
    _holder: Holder,
    /// Its head, and that of the answer.
    pub(super) held: Held,
    /// What it will cost on the way; by the time of an answer it does.
    pub(super) promise: Option<Promise>,
    /// It was let in.
    in_flight: Option<InFlight>,
}

impl Busy {
    /// It goes on its way.
    pub(super) fn goes(&mut self) {
        self.in_flight = Some(self.used.place.begin_request());
        if let Some(promise) = &mut self.promise {
            promise.begins();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.used.in_flight.fetch_sub(1, Relaxed);
    }
}
