//! Sends a request to one endpoint after the other until one answers.
//!
//! An attempt that gets the head of a response passes it to the caller, or another attempt takes
//! its place. After an attempt that failed or was abandoned, the next endpoint is tried where one
//! may be. [`Attempts`] decide where; this file decides what a response shows, and what of it
//! reaches the caller.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use policy::deadline::Deadline;
use policy::health::HealthSignal;
use policy::reason::Reason;
use policy::retry;
use policy::traffic::call::{Retry, Timeouts};

use crate::endpoints::learned::{Fallback, Latency};
use crate::failure::Failure;
use crate::http::client::exchange::UpstreamResponse;
use crate::http::deadline::{self, Progress, WaitEnd};
use crate::http::grpc::{grpc_status, is_success};
use crate::http::upload::Upload;
use crate::outbound::admission;
use crate::outbound::attempt_outcome::{self, AtEnd, AttemptOutcome, record_limit, record_load};
use crate::outbound::attempts::{Attempt, Attempts};
use crate::outbound::call_policy;
use crate::outbound::edits::ResponseEdits;
use crate::outbound::fault;
use crate::outbound::retries::Failed;
use crate::outbound::route::Route;
use crate::outbound::send::Outgoing;
use crate::outbound::serving::{self, EndReport, Open, Serving, TrailerListener};
use crate::outbound::serving_headers::ServingHeaders;
use crate::outbound::time_limits::{self, Unanswered, abandoned};
use crate::proxy::Proxy;
use crate::telemetry::call::Call;

/// The response to a request, or why none of its attempts has one.
pub(super) type ExchangeResult = Result<(UpstreamResponse, Serving), Failure>;

/// A request, and its attempts at the endpoints of a route.
pub(super) struct Exchange<'a> {
    proxy: &'a Proxy,
    outgoing: &'a Outgoing,
    upload: &'a Upload,
    attempts: Attempts<'a>,
    /// The throttle of its backend counts it before its first answer.
    counted_by_throttle: bool,
}

/// What follows an answer.
enum After {
    /// Another endpoint is tried, after this time.
    Retry(Duration),
    /// This is the response; with what its end reports.
    Pass(Option<AtEnd>),
}

impl<'a> Exchange<'a> {
    pub(super) fn new(
        proxy: &'a Proxy,
        route: &'a Route,
        outgoing: &'a Outgoing,
        upload: &'a Upload,
    ) -> Self {
        let retry = call_policy::retry(route.policy.as_deref());
        let listed = if outgoing.grpc {
            !retry.grpc_codes.is_empty()
        } else {
            retry.methods.contains(&outgoing.parts.method)
        };
        let repeatable = listed && retry.attempts > 0 && outgoing.upgrade.is_none();
        Self {
            proxy,
            outgoing,
            upload,
            attempts: Attempts::of_request(route, &outgoing.replay, repeatable),
            counted_by_throttle: false,
        }
    }

    /// Of a request that is sent once more, to the endpoints of another route.
    pub(super) fn at_other_endpoints(
        proxy: &'a Proxy,
        route: &'a Route,
        outgoing: &'a Outgoing,
        upload: &'a Upload,
    ) -> Self {
        Self {
            attempts: Attempts::of_request(route, &outgoing.replay, false),
            ..Self::new(proxy, route, outgoing, upload)
        }
    }

    /// The same, without this address, which has been tried in vain.
    pub(super) fn excluding(mut self, tried: SocketAddr) -> Self {
        self.attempts = self.attempts.excluding(tried);
        self
    }

    /// Sends to one endpoint after the other until one answers.
    pub(super) async fn send(&mut self, call: &mut Call) -> ExchangeResult {
        self.may_begin()?;
        while let Some(mut attempt) = self.next_in_time(call)? {
            let sent = Instant::now();
            let ended = self.attempt(&mut attempt, call).await;
            let wait = match ended {
                Ok(answer) => {
                    let answered = (answer, attempt);
                    match self.pass_on(answered, call).await {
                        Some(served) => return Ok(served),
                        None => continue,
                    }
                }
                // No endpoint could serve the call, and none is to blame.
                Err(failure) if self.upload.broke() => {
                    attempt.endpoint().attempt_abandoned(Duration::ZERO);
                    return Err(self.upload.blame(failure));
                }
                Err(failure) => self.lost(attempt, failure, sent, call),
            };
            if !wait.is_zero() {
                // On the heap: most requests never wait.
                Box::pin(self.outgoing.pause(wait, self.upload)).await;
                self.attempts.confirm_retry(self.proxy, Fallback::Ejected);
            }
        }
        Err(self.unserved(call))
    }

    /// # Errors
    /// When something holds the call back. A call whose time is over gets that first.
    fn may_begin(&mut self) -> Result<(), Failure> {
        if self.outgoing.check().is_err() {
            return Ok(());
        }
        let held_back = admission::hold_back(self.proxy, self.attempts.route, self.outgoing);
        let admitted = held_back.and_then(|counted| {
            self.counted_by_throttle = counted;
            self.attempts.admit(self.proxy)
        });
        admitted.inspect_err(|refused| self.note_failure(refused, None))
    }

    /// The attempt to make, where there is one.
    ///
    /// # Errors
    /// When no time is left for another attempt, or no caller waits for it any more.
    fn next_in_time(&mut self, call: &mut Call) -> Result<Option<Attempt>, Failure> {
        if let Err(passed) = self.outgoing.check() {
            self.attempts.retries.count_failed(call);
            return Err(passed);
        }
        Ok(self.attempts.next(self.proxy, call))
    }

    /// One attempt, until it has the head of a response or is abandoned.
    fn attempt(
        &mut self,
        attempt: &mut Attempt,
        call: &mut Call,
    ) -> impl Future<Output = Result<UpstreamResponse, Failure>> {
        let endpoint = Arc::clone(attempt.endpoint());
        let (proxy, outgoing) = (self.proxy, self.outgoing);
        let harm = fault::of_request(proxy, outgoing, &self.attempts, attempt, call);
        let mut ends = time_limits::of_attempt(self.attempts.route, outgoing, self.upload);
        // What an async function is given it holds a second time; a block holds it once.
        async move {
            let unanswered = Unanswered::new(&endpoint, &outgoing.replay);
            let (retries, limit) = (
                self.attempts.retries.made(),
                self.attempts.connect_timeout(),
            );
            let to = (self.attempts.route, &*endpoint);
            let mut sending = pin!(outgoing.send(proxy, to, retries, limit));
            let mut sending = pin!(fault::before(harm, sending.as_mut()));
            let ended = loop {
                match deadline::progress(&mut ends, sending.as_mut()).await {
                    Progress::Ended(ended) => break ended,
                    Progress::Slow => {
                        if self.attempts.is_followed(proxy, endpoint.addr, outgoing) {
                            break Err(WaitEnd::Time);
                        }
                        let again = self.slow(attempt, call);
                        ends = ends.map(|ends| ends.slow_at(again));
                    }
                }
            };
            let route = self.attempts.route;
            let ended = ended.unwrap_or_else(|over| Err(abandoned(route, outgoing, over)));
            // Where its caller's time is over, it only shows that it takes longer.
            if !attempt_outcome::is_callers_time(&ended) {
                unanswered.over();
            }
            ended
        }
    }

    /// An attempt takes longer than one may, and goes on because none follows it. That its
    /// endpoint failed it must not wait until the call is over, which may be much later: others
    /// go there meanwhile.
    ///
    /// When to look again: while the sender of the request is waited for, nothing is shown.
    fn slow(&self, attempt: &mut Attempt, call: &Call) -> Option<Instant> {
        if attempt.reported {
            return None;
        }
        let slow_upload = self.attempts.waits_for_sender();
        let (latency, signal) = attempt_outcome::signal_when_late(slow_upload);
        if signal.is_some() {
            self.attempts.record(attempt, latency, signal, call);
            attempt.reported = true;
            return None;
        }
        let limit = self.timeouts().backend_request?;
        Some(deadline::now() + limit)
    }

    /// A response with what is held while it is passed on. `None`: another endpoint is tried
    /// instead.
    fn pass_on(
        &mut self,
        (answer, mut attempt): (UpstreamResponse, Attempt),
        call: &mut Call,
    ) -> impl Future<Output = Option<(UpstreamResponse, Serving)>> {
        let after = self.answered(&answer, &mut attempt, call);
        async move {
            let (answer, attempt, at_end) = match after {
                After::Pass(at_end) => (answer, attempt, at_end),
                After::Retry(wait) => {
                    // On the heap: most requests never wait.
                    let waited = Box::pin(self.wait_with(wait, answer, attempt));
                    let (answer, attempt) = waited.await?;
                    self.attempts.retries.count_failed(call);
                    (answer, attempt, None)
                }
            };
            Some((answer, self.served(attempt, at_end)))
        }
    }

    /// Waits before the next attempt. A response is let go only then: when no other endpoint is
    /// left by that time, the caller gets that one.
    async fn wait_with(
        &mut self,
        wait: Duration,
        answer: UpstreamResponse,
        attempt: Attempt,
    ) -> Option<(UpstreamResponse, Attempt)> {
        self.outgoing.pause(wait, self.upload).await;
        let retried = self
            .attempts
            .confirm_retry(self.proxy, Fallback::NoEndpoint);
        (!retried).then_some((answer, attempt))
    }

    /// No response came. How long to wait before another endpoint is tried.
    fn lost(
        &mut self,
        attempt: Attempt,
        failure: Failure,
        sent: Instant,
        call: &mut Call,
    ) -> Duration {
        let outcome = AttemptOutcome::of_failure(&failure, sent, Instant::now());
        self.note_failure(&failure, outcome);
        self.attempts.failed(attempt, failure, call);
        // Of all else no application may have seen the request.
        let Some(AttemptOutcome::Ended(ended)) = outcome else {
            return Duration::ZERO;
        };
        // Of an attempt that was abandoned for a retry that is known.
        let wait = self.attempts.wait_of_retry();
        let wait = wait.or_else(|| self.again(&Failed::new(self.outgoing, ended), call));
        match wait {
            Some(wait) => {
                call.attempt_failed();
                wait
            }
            None => Duration::ZERO,
        }
    }

    /// Why the call has no response. That there was nothing to attempt was not noted before.
    fn unserved(&mut self, call: &mut Call) -> Failure {
        let attempted = self.attempts.had_failure();
        let failure = self.attempts.failure(call);
        if !attempted {
            self.note_failure(&failure, None);
        }
        failure
    }

    /// An answer came.
    fn answered(
        &mut self,
        answer: &UpstreamResponse,
        attempt: &mut Attempt,
        call: &mut Call,
    ) -> After {
        let (head, grpc) = (&answer.response, self.outgoing.grpc);
        let reason = call.reason_of(head.headers());
        let outcome = AttemptOutcome::of_answer(head, grpc, reason, answer.took);
        let success = is_success(head.status(), grpc_status(head.headers()));
        let limited = reason.is_none() && record_limit(attempt.endpoint(), head, grpc);
        let good = success && reason.is_none() && !limited;
        let latency = Latency::of_head(answer.took, good);
        // It is busy, and no worse than the others.
        let signal = if limited {
            Some(HealthSignal::Good)
        } else if reason.is_some() && self.attempts.route.hands_over() {
            // What a Gateway could not reach lies outside, and says nothing of its pod.
            None
        } else {
            self.attempts.signal(outcome)
        };
        let at_end = AtEnd::of(outcome, signal, head, self.retry());
        let signal = at_end.map_or(signal, |_| Some(HealthSignal::Reached));
        self.attempts.record(attempt, latency, signal, call);
        record_load(self.proxy, attempt.endpoint(), head.headers());
        let overloaded = outcome == AttemptOutcome::Mesh(Reason::Overload) && !success;
        self.record_overload(overloaded);
        let (ended, listed) = match outcome {
            AttemptOutcome::Ended(ended) => (Some(ended), ended.is_failure(self.retry())),
            AttemptOutcome::Mesh(reason) => (Some(retry::Ended::Refused(reason)), overloaded),
            AttemptOutcome::Open => (None, false),
        };
        let failed = ended.filter(|_| listed || !success).map(|ended| Failed {
            requested_wait: attempt_outcome::requested_wait(head.headers(), grpc),
            retries_exhausted: call.is_mutual()
                && attempt_outcome::reports_retries_exhausted(head.headers()),
            ..Failed::new(self.outgoing, ended)
        });
        // Also where another one is to be tried: the caller may have left until then.
        self.note_answer(failed.as_ref());
        if let Some(failed) = failed.as_ref().filter(|_| listed) {
            self.attempts.exclude(attempt.endpoint());
            if let Some(wait) = self.again(failed, call) {
                call.attempt_failed();
                return After::Retry(wait);
            }
        }
        match outcome {
            AttemptOutcome::Ended(_) if success && !listed => self.succeeded(call),
            AttemptOutcome::Ended(_) | AttemptOutcome::Mesh(_) => {
                self.attempts.retries.count_failed(call);
            }
            // Its trailers decide.
            AttemptOutcome::Open => {}
        }
        After::Pass(at_end)
    }

    /// Whether a call that failed is tried again, elsewhere and after this time.
    fn again(&mut self, failed: &Failed<'_>, call: &Call) -> Option<Duration> {
        match self.attempts.retry(self.proxy, failed) {
            retry::Next::Pass => None,
            retry::Next::Denied(outcome) => {
                call.retried(outcome);
                None
            }
            retry::Next::Retry { wait } => Some(wait),
        }
    }

    fn succeeded(&self, call: &Call) {
        let route = self.attempts.route;
        let retried = self.attempts.retries.made() > 0;
        serving::succeeded(route.choice.set(), route.policy.as_deref(), retried, call);
    }

    /// `overloaded`: the application had no room for the request. One attempt is counted when it
    /// is sent, and those after it when they are answered.
    fn record_overload(&mut self, overloaded: bool) {
        let counted = std::mem::take(&mut self.counted_by_throttle);
        admission::record_overload(self.attempts.route, self.outgoing, counted, overloaded);
    }

    /// Notes what the last response leaves to the caller of this call.
    fn note_answer(&self, failed: Option<&Failed<'_>>) {
        // A peer counts the same time, and may be the first to report that it is over.
        let passed = retry::Ended::Refused(Reason::Deadline);
        if failed.is_some_and(|failed| failed.ended == passed) {
            self.outgoing.late.store(true, Relaxed);
        }
        self.note(failed);
    }

    /// The same of an attempt without an answer.
    fn note_failure(&self, failure: &Failure, outcome: Option<AttemptOutcome>) {
        let ended = match outcome {
            Some(AttemptOutcome::Ended(ended)) => ended,
            _ => retry::Ended::Refused(failure.reason()),
        };
        self.note(Some(&Failed::new(self.outgoing, ended)));
    }

    fn note(&self, failed: Option<&Failed<'_>>) {
        let exhausted =
            failed.is_some_and(|failed| self.attempts.retries.exhausts_parent_retries(failed));
        self.outgoing.note_retries_exhausted(exhausted);
    }

    /// What is held of the call while its answer is passed on.
    fn served(&self, attempt: Attempt, at_end: Option<AtEnd>) -> Serving {
        let route = self.attempts.route;
        let ends = time_limits::of_answer(route, self.outgoing, self.upload);
        let routed_to = route.overridden.then_some(&*route.backend);
        Serving {
            open: at_end.and_then(|at_end| self.open(&attempt, at_end)),
            in_flight: attempt.in_flight,
            ends,
            marks: ServingHeaders::of(route.cookie.as_deref(), routed_to, ResponseEdits::of(route)),
            standing: route.choice.standing().cloned(),
        }
    }

    /// What waits for the end of an answer.
    fn open(&self, attempt: &Attempt, at_end: AtEnd) -> Option<Open> {
        let route = self.attempts.route;
        let end_report = match at_end {
            AtEnd::Status => EndReport::Status {
                retried: self.attempts.retries.made() > 0,
                listener: self.trailer_listener(),
            },
            AtEnd::Whole => EndReport::Whole,
        };
        Some(Open {
            among: route.choice.among()?.clone(),
            policy: route.policy.clone(),
            ejects: route.choice.ejects(),
            recorder: self.attempts.recorder.clone(),
            shown: attempt.reported,
            upload: self.upload.clone(),
            end_report,
        })
    }

    /// Gets the result of a gRPC call that has it in its trailers, or has no time for them, where
    /// a failure would mark it.
    fn trailer_listener(&self) -> Option<Box<TrailerListener>> {
        let (any, deadline) = (self.outgoing.is_for_retry(), self.outgoing.deadline);
        let ends = deadline != Deadline::NONE || self.timeouts().idle.is_some();
        if !any && !ends && self.retry().grpc_codes.is_empty() {
            return None;
        }
        Some(Box::new(TrailerListener {
            contexts: Arc::clone(&self.proxy.contexts),
            retry_parent: self.outgoing.retry_parent()?,
            any,
            deadline,
        }))
    }

    fn retry(&self) -> &'a Retry {
        self.attempts.retries.policy
    }

    fn timeouts(&self) -> &'a Timeouts {
        call_policy::timeouts(self.attempts.route.policy.as_deref())
    }
}
