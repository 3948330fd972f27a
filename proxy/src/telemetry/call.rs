//! Counts how calls end. One `Call` per request or opaque connection, filled in while it is
//! served, and consumed exactly once. A request that is dropped instead had a caller that left
//! before there was a response: it counts as cancelled, so that successes, failures and cancelled
//! ones are all requests there were. Opaque bytes that are dropped while they are relayed were
//! cut off, and count as lost.
//!
//! A call counts once, on the cell of its last attempt; each attempt counts on the cell of
//! its own endpoint.

pub(crate) mod counted;
pub(crate) mod endpoint;
mod line;
mod logged;
mod refused_head;
mod routes;
mod rules;
mod tapped;
mod traced;

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, StatusCode, Version, request, response};
use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::reason::Reason;

use crate::failure::Failure;
use crate::http::asked::Asked;
use crate::http::body::Body;
use crate::http::grpc::{grpc_status, is_success};
use crate::http::refusal::reason_in;
use crate::http::upload::Upload;
use crate::http::watched::BodyEnd;
use crate::net::idle::is_still;
use crate::telemetry::Telemetry;
use crate::telemetry::call::logged::Logged;
use crate::telemetry::cell::{CallCounters, CallOutcome};
use crate::telemetry::labels::Security;
use crate::telemetry::parties::CallEnds;
use crate::telemetry::tap::record::Tapped;
use crate::telemetry::trace::{CameFrom, Trace};

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CallKind {
    Request,
    /// A connection of opaque bytes.
    Bytes,
}

/// Why a call ended as it did.
#[derive(Clone, Copy, Debug)]
enum Why {
    /// By the application, or by the mesh for this reason.
    Answered(Option<Reason>),
    /// Its caller left before.
    Cancelled,
}

/// Where a call is counted.
#[derive(Debug)]
enum At {
    /// Nowhere yet: it may be refused before anybody knows where it goes.
    Nowhere(CallEnds),
    Counters(Arc<CallCounters>),
}

/// Begins before anything can refuse it. A refusal goes by [`Call::refuse`] or [`Call::reset`],
/// which count it.
#[derive(Debug)]
pub(crate) struct Call {
    telemetry: Arc<Telemetry>,
    kind: CallKind,
    at: At,
    protocol: Protocol,
    /// The port that was called, also where its cell does not distinguish it.
    port: u16,
    started: Instant,
    /// On the heap, because most are not logged.
    logged: Option<Box<Logged>>,
    /// Where it changes headers, or is recorded.
    trace: Option<Box<Trace>>,
    /// What taps see of it; only made where one may want it.
    tapped: Option<Box<Tapped>>,
    /// A request, or bytes that are relayed, that nothing has counted yet.
    awaited: bool,
    /// The cell counts it as under way.
    arrived: bool,
    /// What allowed it, where it may go on to the cell of its port.
    allowed: Option<Box<Origin>>,
    /// An attempt is under way, or none was possible, and that is not counted yet.
    trying: bool,
    /// The body of the request, where it has one.
    upload: Option<Upload>,
}

/// The status in the access log where the caller left before the response, as of other proxies.
const CLIENT_CLOSED_REQUEST: u16 = 499;

/// The head of an answer, as far as it is counted.
#[derive(Clone, Copy, Debug)]
struct Ended {
    status: StatusCode,
    grpc: Option<u16>,
    reason: Option<Reason>,
    /// Time from the request to this head.
    after: Option<Duration>,
}

impl Ended {
    fn new(parts: &response::Parts, reason: Option<Reason>) -> Self {
        Self {
            status: parts.status,
            grpc: grpc_status(&parts.headers),
            reason,
            after: None,
        }
    }
}

impl Call {
    #[must_use]
    pub(crate) fn begin(telemetry: &Arc<Telemetry>, kind: CallKind, parties: CallEnds) -> Self {
        Self {
            telemetry: Arc::clone(telemetry),
            kind,
            port: parties.port(),
            at: At::Nowhere(parties),
            protocol: match kind {
                CallKind::Request => Protocol::Detect,
                CallKind::Bytes => Protocol::Opaque,
            },
            started: Instant::now(),
            logged: None,
            trace: None,
            tapped: None,
            awaited: kind == CallKind::Request,
            arrived: false,
            allowed: None,
            trying: false,
            upload: None,
        }
    }

    /// The bytes of this body count where the request does, from now on.
    pub(crate) fn uploads(&mut self, upload: &Upload) {
        self.upload = upload.comes().then(|| upload.clone());
        self.count_upload();
    }

    fn count_upload(&self) {
        if let (Some(upload), At::Counters(cell)) = (&self.upload, &self.at) {
            upload.counts_on(cell.flows());
        }
    }

    /// It came so long before it began.
    pub(crate) fn waited(&mut self, long: Duration) {
        self.started = self.started.checked_sub(long).unwrap_or(self.started);
    }

    /// Notes which HTTP the two applications speak with each other.
    pub(crate) const fn speaks(&mut self, version: Version, grpc: bool) {
        self.protocol = match version {
            Version::HTTP_2 if grpc => Protocol::Grpc,
            Version::HTTP_2 => Protocol::Http2,
            _ => Protocol::Http1,
        };
    }

    /// Notes that its bytes are TLS of the application's own, as declared or as they begin. Of a
    /// connection that does not count as open yet.
    pub(crate) fn carries_tls(&mut self) {
        self.protocol = Protocol::Tls;
        // The way of a connection that was opened ahead is one of whatever bytes.
        if let At::Counters(cell) = &self.at
            && !matches!(cell.key().parties, CallEnds::Rest(_))
        {
            self.at = At::Nowhere(cell.key().parties.clone());
        }
    }

    /// Notes the request, as far as the access log, traces and taps will report it.
    pub(crate) fn asks(&mut self, parts: &request::Parts, from: CameFrom) {
        let trace = self.begin_trace(parts, from);
        self.note(|| Asked::of(parts), trace.as_deref());
        self.trace = trace;
    }

    /// `asked` is only made for a receiver of it.
    fn note<'a>(&mut self, asked: impl Fn() -> Asked<'a>, trace: Option<&Trace>) {
        let log = self.telemetry.access_log();
        let logged = || Box::new(Logged::of(asked(), trace, log));
        self.logged = log.is_on().then(logged);
        if self.telemetry.taps.any() {
            self.tapped = Tapped::note(&self.telemetry.taps, self.parties(), asked(), trace);
        }
    }

    /// What is spoken, as far as it is known by now.
    pub(crate) const fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Notes its two ends.
    pub(crate) fn between(&mut self, parties: CallEnds) {
        self.port = parties.port();
        self.at = At::Nowhere(parties);
    }

    /// Counts it on this cell from now on.
    pub(crate) fn on(&mut self, cell: Arc<CallCounters>) {
        self.leave();
        self.at = At::Counters(cell);
        self.count_upload();
        if self.kind == CallKind::Request {
            self.arrive();
        }
    }

    /// Sends it to the endpoint of this cell now: another one failed it before, or none did.
    pub(crate) fn attempt(&mut self, cell: Arc<CallCounters>) {
        self.attempt_failed();
        self.trying = true;
        if let Some(span) = self.span() {
            span.attempt();
        }
        self.on(cell);
    }

    /// The attempt has failed, and another one follows, if its caller waits for it.
    pub(crate) fn attempt_failed(&mut self) {
        if std::mem::take(&mut self.trying)
            && let At::Counters(failed) = &self.at
        {
            failed.attempted(false);
        }
    }

    /// The backend that was chosen has nothing to send it to.
    pub(crate) const fn unserved(&mut self) {
        self.trying = true;
    }

    /// An opaque connection is served from now on, since the other end has taken it. Its
    /// bytes are counted on the cell.
    pub(crate) fn open(&mut self) -> Arc<CallCounters> {
        self.awaited = true;
        self.settle(true)
    }

    fn arrive(&mut self) {
        if let At::Counters(cell) = &self.at
            && !std::mem::replace(&mut self.arrived, true)
        {
            cell.begin();
        }
    }

    fn leave(&mut self) {
        if let At::Counters(cell) = &self.at
            && std::mem::take(&mut self.arrived)
        {
            cell.leave();
        }
    }

    /// The cell that counts it, on which it is under way from now on.
    fn settle(&mut self, served: bool) -> Arc<CallCounters> {
        let cell = self.cell(served);
        if let Some(rule) = self.allowed.take()
            && cell.key().parties.port() != 0
        {
            cell.allowed_by(&rule);
        }
        self.arrive();
        cell
    }

    /// The cell that counts it; `served` when the other end itself has answered, which makes the
    /// port a distinguished one.
    fn cell(&mut self, served: bool) -> Arc<CallCounters> {
        let parties = match &self.at {
            At::Nowhere(parties) => parties,
            At::Counters(cell) => &cell.key().parties,
        };
        let news = served && parties.port() == 0 && !matches!(parties, CallEnds::Rest(_));
        match &self.at {
            At::Counters(cell) if !news => Arc::clone(cell),
            _ => {
                if served {
                    let (direction, service) = (parties.direction(), parties.service_name());
                    let _ = self
                        .telemetry
                        .port_label(direction, service, self.port, true);
                }
                let cell = self.telemetry.cell_of(self.cell_key());
                // It counts once, and where it is now.
                let moved =
                    matches!(&self.at, At::Counters(current) if !Arc::ptr_eq(current, &cell));
                if moved
                    && std::mem::take(&mut self.arrived)
                    && let At::Counters(current) = &self.at
                {
                    current.moves();
                }
                self.at = At::Counters(Arc::clone(&cell));
                self.count_upload();
                cell
            }
        }
    }

    fn parties(&self) -> &CallEnds {
        match &self.at {
            At::Nowhere(parties) => parties,
            At::Counters(cell) => &cell.key().parties,
        }
    }

    /// True when the other end has proved that it is a proxy of the mesh: only then do
    /// headers of the mesh in its answer mean anything.
    #[must_use]
    pub(crate) fn is_mutual(&self) -> bool {
        self.parties().security() == Security::mtls
    }

    /// Why the peer proxy answered instead of the application. An application's
    /// own header of that name means nothing.
    #[must_use]
    pub(crate) fn reason_of(&self, map: &HeaderMap) -> Option<Reason> {
        self.is_mutual().then(|| reason_in(map))?
    }

    /// Refuses it by a response of this proxy: to a request of this method, whose caller may want
    /// the error in the form of gRPC.
    #[must_use]
    pub(crate) fn refuse(
        mut self,
        failure: &Failure,
        method: &Method,
        grpc: bool,
    ) -> Response<Body> {
        if let Failure::Refused { by: Some(by), .. } = failure {
            self.decided_by(Some(by));
        }
        let reason = failure.reason();
        match self.kind {
            CallKind::Request => self.count(reason.status(), None, Some(reason), None, 0),
            CallKind::Bytes => self.count_tcp(Some(reason)),
        }
        failure.response_to(method, grpc)
    }

    /// Refuses it, or ends it, without an answer: `abort` is how.
    pub(crate) fn reset(self, failure: &Failure, abort: impl FnOnce()) {
        abort();
        self.count_tcp(Some(failure.reason()));
    }

    /// The caller got an answer with this head, and its body has ended.
    fn done(self, ended: Ended, end: BodyEnd, bytes: u64, trailers: Option<&HeaderMap>) {
        let grpc = trailers.and_then(grpc_status).or(ended.grpc);
        let (status, reason) = match end {
            BodyEnd::Failed => (ended.status, Some(Reason::ConnectionLost)),
            BodyEnd::OutOfTime(_) => (ended.status, Some(Reason::Deadline)),
            BodyEnd::Late(_) => (Reason::Deadline.status(), Some(Reason::Deadline)),
            BodyEnd::Complete | BodyEnd::Dropped => (ended.status, ended.reason),
        };
        self.count(status, grpc, reason, ended.after, bytes);
    }

    /// Notes when the head of the answer came.
    fn head(&self, mut ended: Ended) -> Ended {
        ended.after = Some(self.started.elapsed());
        ended
    }

    fn count(
        mut self,
        status: StatusCode,
        grpc: Option<u16>,
        reason: Option<Reason>,
        after: Option<Duration>,
        bytes: u64,
    ) {
        self.awaited = false;
        let latency = after.unwrap_or_else(|| self.started.elapsed());
        // An answer of the mesh instead of the application's is a failure, whatever
        // its status.
        let success = reason.is_none() && is_success(status, grpc);
        let outcome = CallOutcome {
            status: status.as_u16(),
            success,
            reason,
        };
        let cell = self.settle(reason.is_none());
        cell.answered(outcome, latency);
        self.exemplify(&cell, latency);
        if std::mem::take(&mut self.trying) {
            // Beyond a limit nothing has shown that the backend fails.
            cell.attempted(success || reason == Some(Reason::Limit));
        }
        self.leave();
        self.end_trace(status.as_u16(), grpc, Why::Answered(reason));
        self.keep_line_of(!success);
        let reason = reason.map_or("", Reason::as_str);
        self.log(status.as_u16(), reason, latency, bytes);
        self.show((status.as_u16(), grpc), reason, latency, bytes);
    }

    /// The caller left before there was a response. That shows nothing of how good the response
    /// would have been, so it is neither a success nor a failure, and no latency.
    fn cancelled(&mut self) {
        let waited = self.started.elapsed();
        self.end_trace(0, None, Why::Cancelled);
        self.keep_line_of(false);
        self.log(CLIENT_CLOSED_REQUEST, "cancelled", waited, 0);
        self.show((CLIENT_CLOSED_REQUEST, None), "cancelled", waited, 0);
        let tried = std::mem::take(&mut self.trying);
        let cell = self.settle(false);
        cell.cancel();
        if tried {
            cell.left();
        }
        self.leave();
    }

    /// An opaque connection that was served, and has ended. Its bytes are counted already.
    pub(crate) fn relayed(self, outcome: std::io::Result<()>) {
        self.count_tcp(outcome.err().map(|error| {
            if is_still(&error) {
                Reason::Deadline
            } else {
                Reason::ConnectionLost
            }
        }));
    }

    fn count_tcp(mut self, reason: Option<Reason>) {
        self.bytes_ended(reason);
    }

    fn bytes_ended(&mut self, reason: Option<Reason>) {
        self.awaited = false;
        let outcome = CallOutcome {
            status: 0,
            success: reason.is_none(),
            reason,
        };
        let cell = self.settle(reason.is_none());
        cell.outcome(outcome);
        if std::mem::take(&mut self.trying) {
            // As of requests: a limit shows nothing of the backend.
            cell.attempted(reason.is_none() || reason == Some(Reason::Limit));
        }
        self.leave();
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        match self.kind {
            _ if !self.awaited => {}
            CallKind::Request => self.cancelled(),
            CallKind::Bytes => self.bytes_ended(Some(Reason::ConnectionLost)),
        }
        self.leave();
    }
}

#[cfg(test)]
mod tests;
