//! A call that was answered, until the body of its answer has ended.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use http::{HeaderMap, response};
use policy::reason::Reason;

use super::{Call, Ended};
use crate::http::watched::BodyEnd;
use crate::net::relay::Flows;

/// A call whose caller has the head of its answer. It counts once it is known how the
/// body ended.
#[derive(Debug)]
pub(crate) struct Counted {
    call: Call,
    ended: Ended,
}

impl Call {
    /// The caller gets an answer with this head now. `reason` is there where a peer proxy
    /// gave it instead of the application.
    #[must_use]
    pub(crate) fn answered(self, head: &response::Parts, reason: Option<Reason>) -> Counted {
        let ended = self.head(Ended::new(head, reason));
        Counted { call: self, ended }
    }
}

impl Counted {
    pub(crate) const fn call(&self) -> &Call {
        &self.call
    }

    /// Where the bytes of the answer, or of the connection that it became, are counted as they
    /// pass.
    pub(crate) fn flows(&mut self) -> Arc<Flows> {
        let served = self.ended.reason.is_none();
        Arc::clone(self.call.settle(served).flows())
    }

    /// The caller gets this many bytes, and that is all of the answer.
    pub(crate) fn whole(mut self, bytes: u64) {
        self.flows().received.fetch_add(bytes, Relaxed);
        self.done(BodyEnd::Complete, bytes, None);
    }

    /// The body of the answer, or the connection that it became, has ended. So many bytes of it
    /// passed, and are counted by then.
    pub(crate) fn done(self, end: BodyEnd, bytes: u64, trailers: Option<&HeaderMap>) {
        self.call.done(self.ended, end, bytes, trailers);
    }

    /// This proxy has ended it, for this reason.
    pub(crate) fn cut(self, reason: Reason, bytes: u64) {
        let Ended {
            status,
            grpc,
            after,
            ..
        } = self.ended;
        self.call.count(status, grpc, Some(reason), after, bytes);
    }
}
