//! `Call`: counts how one request or opaque connection ends. It is filled in while that is served,
//! and consumed exactly once. A request that is dropped instead had a caller that left before there
//! was a response: it counts as cancelled, so that successes, failures and cancelled ones add up to
//! all requests. Opaque bytes that are dropped while they are relayed count as lost.
//!
//! `Counting` holds where it counts, `Notes` what the access log, traces and taps will report
//! of it.

mod counting;
mod fault;
mod notes;

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use http::{HeaderMap, Method, Response, StatusCode, Version, request, response};
use policy::access::Verdict;
use policy::breaker::own::ShownState;
use policy::health::EjectedFor;
use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::reason::Reason;
use policy::retry::RetryOutcome;
use policy::traffic::call::Cause;

pub(crate) use self::counting::CallKind;
use self::counting::{Before, Counting};
use self::notes::Notes;
use crate::failure::Failure;
use crate::http::body::Body;
use crate::http::grpc::{grpc_status, is_success};
use crate::http::head::ReportedHead;
use crate::http::received::Rejected;
use crate::http::refusal::{NotHandled, reason_in};
use crate::http::upload::Upload;
use crate::http::watched::BodyEnd;
use crate::net::idle::is_still;
use crate::net::relay::Flows;
use crate::telemetry::Telemetry;
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallCounters, CallOutcome};
use crate::telemetry::labels::Security;
use crate::telemetry::tap::record::TapEnding;
use crate::telemetry::trace::{CameFrom, Trace, span};

/// Begins before anything can refuse it. A refusal goes by [`Call::refuse`] or [`Call::reset`],
/// which count it.
#[derive(Debug)]
pub(crate) struct Call {
    telemetry: Arc<Telemetry>,
    started: Instant,
    counting: Counting,
    notes: Notes,
}

/// A call whose caller has the head of its answer. It counts once it is known how the
/// body ended.
#[derive(Debug)]
pub(crate) struct Counted {
    call: Call,
    head: Head,
}

/// The head of an answer, as far as it is counted.
#[derive(Clone, Copy, Debug)]
struct Head {
    status: StatusCode,
    grpc: Option<u16>,
    reason: Option<Reason>,
    /// Time from the request to this head; `None`: there was none, and it ends now.
    after: Option<Duration>,
}

/// The status in the access log where the caller left before the response, as of other proxies.
const CLIENT_CLOSED_REQUEST: u16 = 499;

impl Call {
    #[must_use]
    pub(crate) fn begin(telemetry: &Arc<Telemetry>, kind: CallKind, call_ends: CallEnds) -> Self {
        Self {
            telemetry: Arc::clone(telemetry),
            started: Instant::now(),
            counting: Counting::new(telemetry, kind, call_ends),
            notes: Notes::default(),
        }
    }

    /// It came so long before it began.
    pub(crate) fn waited(&mut self, long: Duration) {
        self.started = self.started.checked_sub(long).unwrap_or(self.started);
    }

    /// The bytes of this body count where the request does, from now on.
    pub(crate) fn uploads(&mut self, upload: &Upload) {
        self.counting.uploads(upload);
    }

    /// Notes which HTTP the two applications speak with each other.
    pub(crate) const fn speaks(&mut self, version: Version, grpc: bool) {
        self.counting.speaks(version, grpc);
    }

    /// Notes that its bytes are TLS of the application's own, as declared or as they begin. Of a
    /// connection that does not count as open yet.
    pub(crate) fn carries_tls(&mut self) {
        self.counting.carries_tls();
    }

    /// Notes the request, as far as the access log, traces and taps will report it.
    pub(crate) fn note_request(&mut self, parts: &request::Parts, from: CameFrom) {
        let (call_ends, came) = (self.counting.call_ends(), (from, self.started));
        self.notes.request(&self.telemetry, call_ends, parts, came);
    }

    /// Notes the request of a head that will be refused, for the access log and taps. It begins
    /// no trace, since nothing of it is sent on.
    pub(crate) fn note_rejected(&mut self, reported_head: ReportedHead<'_>) {
        let call_ends = self.counting.call_ends();
        self.notes
            .head(&self.telemetry, call_ends, || reported_head, None);
    }

    /// Writes into the headers of a request that is sent on what its trace is from here on.
    pub(crate) fn pass_on_trace(&self, map: &mut HeaderMap) {
        self.notes.pass_on_trace(map);
    }

    /// The same of a request that goes to another proxy, where its endpoint has one. Returns what
    /// only the others get.
    pub(crate) fn pass_on_trace_to_peers(&mut self, map: &mut HeaderMap) -> Option<Box<Trace>> {
        self.notes.pass_on_trace_to_peers(map)
    }

    /// What is spoken, as far as it is known by now.
    pub(crate) const fn protocol(&self) -> Protocol {
        self.counting.protocol()
    }

    /// Notes its two ends.
    pub(crate) fn set_ends(&mut self, call_ends: CallEnds) {
        self.counting.set_ends(call_ends);
    }

    /// Counts it on this cell from now on.
    pub(crate) fn on(&mut self, cell: Arc<CallCounters>) {
        self.counting.on(cell);
    }

    /// A route of this name describes it, or, where the name is empty, none does. Counts it
    /// by that from now on, where its way has a cell of its own. The access log and the span
    /// report it wherever that counts.
    pub(crate) fn takes_route(&mut self, route: &Arc<str>) {
        self.notes.takes_route(route);
        self.counting.takes_route(&self.telemetry, route);
    }

    /// Counts and notes what was decided of a request.
    pub(crate) fn note_verdict(&mut self, verdict: &Verdict<'_>) {
        if matches!(verdict, Verdict::Audit { .. }) {
            self.audited();
        }
        self.decided_by(verdict.by());
        if verdict.is_allowed() {
            self.allowed_by(verdict.by());
        }
    }

    /// Deny would have refused it.
    pub(crate) fn audited(&mut self) {
        self.counting.audited(&self.telemetry);
    }

    /// A rule allows it, where one was needed.
    pub(crate) fn allowed_by(&mut self, rule: Option<&Origin>) {
        if let Some(rule) = rule {
            self.counting.allowed_by(rule);
        }
    }

    /// Notes what allowed or refused the call, for the access log and the span.
    pub(crate) fn decided_by(&mut self, rule: Option<&Origin>) {
        self.notes.decided_by(rule);
    }

    /// Sends it to the endpoint of this cell now: another one failed it before, or none did.
    pub(crate) fn attempt(&mut self, cell: Arc<CallCounters>) {
        self.notes.attempt();
        self.counting.attempt(cell);
    }

    /// The attempt has failed, and another one follows, if its caller waits for it.
    pub(crate) fn attempt_failed(&mut self) {
        self.counting.attempt_failed();
    }

    /// The backend that was chosen has nothing to send it to.
    pub(crate) const fn unserved(&mut self) {
        self.counting.unserved();
    }

    /// It was tried again, or was not for this reason.
    pub(crate) fn retried(&self, outcome: RetryOutcome) {
        self.telemetry.metrics.retried(self.call_ends(), outcome);
    }

    /// The endpoint that it was sent to is ejected from now on.
    pub(crate) fn ejected(&self, cause: EjectedFor) {
        self.telemetry.metrics.ejected(self.call_ends(), cause);
    }

    /// The breaker of what serves is another now.
    pub(crate) fn circuit(&self, service: &Arc<str>, backend: &Arc<str>, state: ShownState) {
        self.telemetry.metrics.circuit(service, backend, state);
    }

    /// What was tried has failed, and from now on it goes between these.
    pub(crate) fn falls_back(&mut self, to: CallEnds) -> Before {
        self.counting.falls_back(&self.telemetry, to)
    }

    /// That has failed as well, and it ends as it did before.
    pub(crate) fn returns(&mut self, before: Before) {
        self.counting.returns(&self.telemetry, before);
    }

    /// Something else was to answer it.
    pub(crate) fn fell_back(&self, to: &str, when: Cause, outcome: &'static str) {
        let service = self.call_ends().service();
        self.telemetry.metrics.fell_back(service, to, when, outcome);
    }

    /// True when the other end has proved that it is a proxy of the mesh: only then do
    /// headers of the mesh in its answer mean anything.
    #[must_use]
    pub(crate) fn is_mutual(&self) -> bool {
        self.call_ends().security() == Security::mtls
    }

    fn call_ends(&self) -> &CallEnds {
        self.counting.call_ends()
    }

    /// Why the peer proxy answered instead of the application. An application's
    /// own header of that name means nothing.
    #[must_use]
    pub(crate) fn reason_of(&self, map: &HeaderMap) -> Option<Reason> {
        self.is_mutual().then(|| reason_in(map))?
    }

    /// An opaque connection is served from now on, since the other end has taken it. Its
    /// bytes are counted on the cell.
    pub(crate) fn open(&mut self) -> Arc<CallCounters> {
        self.counting.open(&self.telemetry)
    }

    /// No request could be made out, or there was no room for one. When it came is not
    /// known here, so that counts as no latency.
    pub(crate) fn turned_away(mut self, how: NotHandled, reported_head: ReportedHead<'_>) {
        self.note_rejected(reported_head);
        let NotHandled::Answered(reason, status) = how else {
            // Dropped, it counts as cancelled.
            return;
        };
        let outcome = CallOutcome {
            status: status.as_u16(),
            success: false,
            reason: Some(reason),
        };
        self.counting.end(&self.telemetry, outcome, None);
        self.notes.keep_line_of(true);
        let waited = self.started.elapsed();
        self.report((outcome.status, None), reason.as_str(), waited, 0);
    }

    /// Refuses by an answer of this proxy what can be read in two ways, or is not for a proxy
    /// to send on.
    #[must_use]
    pub(crate) fn reject(mut self, rejected: &Rejected) -> Response<Body> {
        let parts = &rejected.parts;
        self.note_rejected(ReportedHead::of(parts));
        self.refuse(&rejected.failure, &parts.method, false)
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
        match self.counting.kind() {
            CallKind::Request => {
                let head = Head {
                    status: reason.status(),
                    grpc: None,
                    reason: Some(reason),
                    after: None,
                };
                self.count(head, 0);
            }
            CallKind::Bytes => self.bytes_ended(Some(reason)),
        }
        self.with_fault(failure.response_to(method, grpc))
    }

    /// Refuses it, or ends it, without an answer: `abort` is how.
    pub(crate) fn reset(mut self, failure: &Failure, abort: impl FnOnce()) {
        abort();
        self.bytes_ended(Some(failure.reason()));
    }

    /// The caller gets an answer with this head now. `reason` is there where a peer proxy
    /// gave it instead of the application.
    #[must_use]
    pub(crate) fn answered(mut self, head: &response::Parts, reason: Option<Reason>) -> Counted {
        self.counting.has_head();
        let head = Head {
            status: head.status,
            grpc: grpc_status(&head.headers),
            reason,
            after: Some(self.started.elapsed()),
        };
        Counted { call: self, head }
    }

    /// An opaque connection that was served, and has ended. Its bytes are counted already.
    pub(crate) fn relayed(mut self, outcome: std::io::Result<()>) {
        self.bytes_ended(outcome.err().map(|error| {
            if is_still(&error) {
                Reason::Deadline
            } else {
                Reason::ConnectionLost
            }
        }));
    }

    fn bytes_ended(&mut self, reason: Option<Reason>) {
        let outcome = CallOutcome {
            status: 0,
            success: reason.is_none(),
            reason,
        };
        self.counting.end(&self.telemetry, outcome, None);
    }

    /// The request has ended with this head of an answer, and so many bytes behind it.
    fn count(&mut self, head: Head, bytes: u64) {
        let (status, grpc, reason) = (head.status.as_u16(), head.grpc, head.reason);
        let latency = head.after.unwrap_or_else(|| self.started.elapsed());
        // An answer of the mesh instead of the application's is a failure, whatever
        // its status.
        let success = reason.is_none() && is_success(head.status, grpc);
        let outcome = CallOutcome {
            status,
            success,
            reason,
        };
        let answered = (latency, self.notes.exemplar(latency));
        self.counting.end(&self.telemetry, outcome, Some(answered));
        self.end_trace(status, grpc, reason, false);
        self.notes.keep_line_of(!success);
        let reason = reason.map_or("", Reason::as_str);
        self.report((status, grpc), reason, latency, bytes);
    }

    /// The caller left before there was a response. That shows nothing of how good the response
    /// would have been, so it is neither a success nor a failure, and no latency.
    fn cancelled(&mut self) {
        let waited = self.started.elapsed();
        self.end_trace(0, None, None, true);
        self.notes.keep_line_of(false);
        self.report((CLIENT_CLOSED_REQUEST, None), "cancelled", waited, 0);
        self.counting.cancel(&self.telemetry);
    }

    fn end_trace(&mut self, status: u16, grpc: Option<u16>, reason: Option<Reason>, left: bool) {
        let (call_ends, started) = (self.counting.call_ends(), self.started);
        self.notes.end_trace(&self.telemetry, || span::Ended {
            call_ends,
            status,
            grpc,
            reason,
            cancelled: left,
            after: started.elapsed(),
        });
    }

    /// Reports how it ended to the access log and to taps. A status of gRPC stands beside that of
    /// HTTP.
    fn report(
        &mut self,
        (status, grpc): (u16, Option<u16>),
        reason: &'static str,
        latency: Duration,
        bytes: u64,
    ) {
        let counting = &self.counting;
        let ending = TapEnding {
            port: counting.port(),
            route: counting.route(),
            status,
            grpc,
            reason,
            latency,
            bytes,
        };
        let call = (counting.call_ends(), counting.protocol());
        self.notes.report(&self.telemetry, call, &ending);
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        match self.counting.kind() {
            _ if !self.counting.is_awaited() => {}
            CallKind::Request => self.cancelled(),
            CallKind::Bytes => self.bytes_ended(Some(Reason::ConnectionLost)),
        }
        self.counting.leave();
    }
}

impl Counted {
    pub(crate) const fn call(&self) -> &Call {
        &self.call
    }

    /// Where the bytes of the answer, or of the connection that it became, are counted as they
    /// pass.
    pub(crate) fn flows(&mut self) -> Arc<Flows> {
        let served = self.head.reason.is_none();
        let call = &mut self.call;
        Arc::clone(call.counting.settle(&call.telemetry, served).flows())
    }

    /// The caller gets this many bytes, and that is all of the answer.
    pub(crate) fn whole(mut self, bytes: u64) {
        self.flows().received.fetch_add(bytes, Relaxed);
        self.done(BodyEnd::Complete, bytes, None);
    }

    /// The body of the answer, or the connection that it became, has ended. So many bytes of it
    /// passed, and are counted by then.
    pub(crate) fn done(mut self, end: BodyEnd, bytes: u64, trailers: Option<&HeaderMap>) {
        let head = self.head;
        let (status, reason) = match end {
            BodyEnd::Failed => (head.status, Some(Reason::ConnectionLost)),
            BodyEnd::OutOfTime(_) => (head.status, Some(Reason::Deadline)),
            BodyEnd::Late(_) => (Reason::Deadline.status(), Some(Reason::Deadline)),
            BodyEnd::Complete | BodyEnd::Dropped => (head.status, head.reason),
        };
        let ended = Head {
            status,
            grpc: trailers.and_then(grpc_status).or(head.grpc),
            reason,
            ..head
        };
        self.call.count(ended, bytes);
    }

    /// This proxy has ended it, for this reason.
    pub(crate) fn cut(mut self, reason: Reason, bytes: u64) {
        let ended = Head {
            reason: Some(reason),
            ..self.head
        };
        self.call.count(ended, bytes);
    }
}

#[cfg(test)]
mod tests;
