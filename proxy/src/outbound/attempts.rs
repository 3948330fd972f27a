//! Which endpoint a call tries next.
//!
//! Two things move a call on. It was not sent: then any method goes to another endpoint,
//! because it is proven that no application saw it. Or it failed in a way that its policy lists,
//! and `policy::retry` allows another attempt: that costs, and never happens to a method that may
//! not be sent twice. Between the two stands what the server's proxy kept from an application
//! without room for it: it costs, and any method goes on.

use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::health::HealthSignal;
use policy::reason::Reason;
use policy::retry::{self, RetryOutcome};
use policy::traffic::call::Retry;

use self::failed::{Doubted, Failed};
use crate::endpoints::endpoint::InFlight;
use crate::endpoints::learned::{Draw, Fallback, Latency};
use crate::failure::{Failure, Next};
use crate::http::client::exchange::UpstreamResponse;
use crate::http::deadline::{self, Progress, WaitEnd};
use crate::http::grpc::{grpc_status, is_success};
use crate::http::replay::Replay;
use crate::http::upload::Upload;
use crate::net::connect::ConnectTimeout;
use crate::outbound::attempt_outcome::{self, AtEnd, AttemptOutcome};
use crate::outbound::call_policy;
use crate::outbound::circuit_recorder::CircuitRecorder;
use crate::outbound::failovers::Failovers;
use crate::outbound::route::Route;
use crate::outbound::send::Outgoing;
use crate::outbound::serving::{self, Serving};
use crate::outbound::unanswered::Unanswered;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;

mod balance;
mod circuit;
mod failed;
mod next_attempt;
mod probe;
mod response_tracking;
mod retry_exhaustion;
mod throttle;
mod time;

/// Which endpoint a call tries next.
pub(crate) struct Attempts<'a> {
    route: &'a Route,
    tried: Vec<SocketAddr>,
    chosen: Option<Chosen>,
    failovers: Failovers,
    retries: u8,
    /// Of a request: its body.
    replay: Option<&'a Replay>,
    /// The call may be sent again after an application has seen it.
    repeatable: bool,
    over: bool,
    /// The attempt has taken so long that what it shows of its endpoint was reported.
    shown: bool,
    counted_by_throttle: bool,
    last: Option<Failure>,
    /// Reports to the breaker, where a policy has one.
    recorder: Option<Arc<CircuitRecorder>>,
}

/// What is tried next, where that is known before it is needed.
enum Chosen {
    /// The same endpoint by another connection, since only the one before had ended: no
    /// attempt of its own.
    Renewed(InFlight),
    /// Another endpoint, by a retry that is paid for, after this time. Where an attempt is given
    /// up for one, that is known before it has ended.
    Retried { to: InFlight, wait: Duration },
}

/// What follows an answer.
enum After {
    /// Another endpoint is tried, after this time.
    Retry(Duration),
    /// This is the response; with what its end reports.
    Pass(Option<AtEnd>),
}

impl<'a> Attempts<'a> {
    /// Of a connection, which nothing but its own failure ends.
    pub(super) const fn new(route: &'a Route) -> Self {
        Self {
            route,
            tried: Vec::new(),
            chosen: None,
            failovers: Failovers::NONE,
            retries: 0,
            replay: None,
            repeatable: true,
            over: false,
            shown: false,
            counted_by_throttle: false,
            last: None,
            recorder: None,
        }
    }

    /// Of a request.
    pub(super) fn of(route: &'a Route, outgoing: &'a Outgoing) -> Self {
        let retry = call_policy::retry(route.policy.as_deref());
        let listed = if outgoing.grpc {
            !retry.grpc_codes.is_empty()
        } else {
            retry.methods.contains(&outgoing.parts.method)
        };
        Self {
            repeatable: listed && retry.attempts > 0 && outgoing.upgrade.is_none(),
            replay: Some(&outgoing.replay),
            ..Self::new(route)
        }
    }

    /// Of a request that goes to another Service instead, once.
    pub(super) fn instead(route: &'a Route, outgoing: &'a Outgoing) -> Self {
        Self {
            repeatable: false,
            replay: Some(&outgoing.replay),
            ..Self::new(route)
        }
    }

    /// The same, where this address has been tried in vain.
    pub(super) fn besides(mut self, tried: SocketAddr) -> Self {
        self.tried.push(tried);
        self
    }

    /// The endpoint to try, which `call` is counted on from now on. Another connection to
    /// the same one is no attempt of its own.
    pub(super) fn next(&mut self, proxy: &Proxy, call: &mut Call) -> Option<InFlight> {
        if self.over || !self.failovers.may_go_on() {
            return None;
        }
        let to = match self.chosen.take() {
            Some(Chosen::Renewed(to)) => return Some(to),
            Some(Chosen::Retried { to, .. }) => {
                // Not before: no endpoint may be left once it has waited. Where it follows a
                // retry, that has failed.
                self.retry_failed(call);
                self.retries += 1;
                to
            }
            None => self.choose(proxy, Fallback::Ejected, Doubted::Called)?,
        };
        self.shown = false;
        self.count_nearness(proxy, to.endpoint());
        let protocol = call.protocol();
        call.attempt(self.route.cell(&proxy.telemetry, to.endpoint(), protocol));
        Some(to)
    }

    /// One that is none of `besides`.
    fn pick(&self, proxy: &Proxy, fallback: Fallback, besides: &[SocketAddr]) -> Option<InFlight> {
        let draw = self.draw(fallback, besides);
        self.route.choice.pick(proxy, &draw)
    }

    /// What a choice goes by of one that is none of `besides`.
    fn draw<'b>(&'b self, fallback: Fallback, besides: &'b [SocketAddr]) -> Draw<'b> {
        let policy = self.route.policy.as_deref();
        Draw {
            tried: besides,
            first: self.tried.is_empty(),
            may_retry: self.repeatable,
            ejection: call_policy::ejection_if(policy, self.route.choice.ejects()),
            balance: call_policy::balance(policy),
            fallback,
        }
    }

    /// How long an application without a proxy may take to accept a connection.
    pub(super) fn connect_timeout(&self) -> ConnectTimeout {
        self.route.choice.connect_timeout()
    }

    /// Sends to one endpoint after the other until one answers.
    pub(super) async fn send(
        &mut self,
        proxy: &Proxy,
        outgoing: &Outgoing,
        upload: &Upload,
        call: &mut Call,
    ) -> Result<(UpstreamResponse, Serving), Failure> {
        self.may_begin(proxy, outgoing)?;
        while let Some(mut to) = self.next_in_time(proxy, outgoing, call)? {
            let sent = Instant::now();
            let ended = self.attempt(proxy, outgoing, upload, &mut to, call).await;
            let wait = match ended {
                Ok(answer) => {
                    let answered = (answer, to);
                    match self.pass_on(proxy, outgoing, upload, answered, call).await {
                        Some(served) => return Ok(served),
                        None => continue,
                    }
                }
                // No endpoint could serve the call, and none is to blame.
                Err(failure) if upload.broke() => {
                    to.endpoint().given_up(Duration::ZERO);
                    return Err(upload.blame(failure));
                }
                Err(failure) => {
                    let outcome = AttemptOutcome::of_failure(&failure, sent, Instant::now());
                    self.note_failure(&failure, outcome, outgoing);
                    self.failed(to, failure, call);
                    self.lost(proxy, outgoing, outcome, call)
                }
            };
            if !wait.is_zero() {
                // On the heap: most requests never wait.
                Box::pin(outgoing.pause(wait, upload)).await;
                self.confirm(proxy, Fallback::Ejected);
            }
        }
        Err(self.unserved(outgoing, call))
    }

    /// # Errors
    /// When something holds the call back. A call whose time is over gets that first.
    fn may_begin(&mut self, proxy: &Proxy, outgoing: &Outgoing) -> Result<(), Failure> {
        if outgoing.check().is_err() {
            return Ok(());
        }
        let admitted = self.held_back(proxy, outgoing);
        let admitted = admitted.and_then(|()| self.admit(proxy));
        admitted.inspect_err(|refused| self.note_failure(refused, None, outgoing))
    }

    /// The endpoint to try, where there is one.
    ///
    /// # Errors
    /// When no time is left for another attempt, or no caller waits for it any more.
    fn next_in_time(
        &mut self,
        proxy: &Proxy,
        outgoing: &Outgoing,
        call: &mut Call,
    ) -> Result<Option<InFlight>, Failure> {
        if let Err(passed) = outgoing.check() {
            self.retry_failed(call);
            return Err(passed);
        }
        Ok(self.next(proxy, call))
    }

    /// One attempt, until it has the head of a response or is abandoned.
    fn attempt(
        &mut self,
        proxy: &Proxy,
        outgoing: &Outgoing,
        upload: &Upload,
        to: &mut InFlight,
        call: &mut Call,
    ) -> impl Future<Output = Result<UpstreamResponse, Failure>> {
        let endpoint = Arc::clone(to.endpoint());
        let mut ends = self.attempt_ends(outgoing, upload);
        // What an async function is given it holds a second time; a block holds it once.
        async move {
            let unanswered = Unanswered::new(&endpoint, &outgoing.replay);
            let limit = self.connect_timeout();
            let mut attempt = pin!(outgoing.send(proxy, &endpoint, self.retries, limit));
            let ended = loop {
                match deadline::progress(&mut ends, attempt.as_mut()).await {
                    Progress::Ended(ended) => break ended,
                    Progress::Slow => {
                        if self.is_followed(proxy, endpoint.addr, outgoing) {
                            break Err(WaitEnd::Time);
                        }
                        let again = self.slow(to, call);
                        ends = ends.map(|ends| ends.slow_at(again));
                    }
                }
            };
            let ended = ended.unwrap_or_else(|over| Err(self.late(outgoing, over)));
            // Where its caller's time is over, it only shows that it takes longer.
            if !attempt_outcome::is_callers_time(&ended) {
                unanswered.over();
            }
            ended
        }
    }

    /// A response with what is held while it is passed on. `None`: another endpoint is tried
    /// instead.
    fn pass_on(
        &mut self,
        proxy: &Proxy,
        outgoing: &Outgoing,
        upload: &Upload,
        (answer, mut to): (UpstreamResponse, InFlight),
        call: &mut Call,
    ) -> impl Future<Output = Option<(UpstreamResponse, Serving)>> {
        let after = self.answered(proxy, outgoing, &answer, &mut to, call);
        async move {
            let (answer, to, at_end) = match after {
                After::Pass(at_end) => (answer, to, at_end),
                After::Retry(wait) => {
                    // On the heap: most requests never wait.
                    let pause = outgoing.pause(wait, upload);
                    let waited = self.wait_with(proxy, pause, answer, to);
                    let (answer, to) = Box::pin(waited).await?;
                    self.retry_failed(call);
                    (answer, to, None)
                }
            };
            let ends = self.answer_ends(outgoing, upload);
            let open = at_end.and_then(|at_end| self.open(proxy, outgoing, upload, at_end));
            Some((answer, self.served(to, open, ends)))
        }
    }

    /// Why the call has no response. That there was nothing to attempt was not noted before.
    fn unserved(&mut self, outgoing: &Outgoing, call: &mut Call) -> Failure {
        let attempted = self.last.is_some();
        let failure = self.failure(call);
        if !attempted {
            self.note_failure(&failure, None, outgoing);
        }
        failure
    }

    /// An answer came.
    fn answered(
        &mut self,
        proxy: &Proxy,
        outgoing: &Outgoing,
        answer: &UpstreamResponse,
        to: &mut InFlight,
        call: &mut Call,
    ) -> After {
        let (head, grpc) = (&answer.response, outgoing.grpc);
        let reason = call.reason_of(head.headers());
        let outcome = AttemptOutcome::of_answer(head, grpc, reason, answer.took);
        let success = is_success(head.status(), grpc_status(head.headers()));
        let limited = reason.is_none() && Self::record_limit(to.endpoint(), head, grpc);
        let good = success && reason.is_none() && !limited;
        let latency = Latency::of_head(answer.took, good);
        // It is busy, and no worse than the others.
        let signal = if limited {
            Some(HealthSignal::Good)
        } else {
            self.signal(outcome)
        };
        let at_end = self.at_end(outcome, signal, head);
        let signal = at_end.map_or(signal, |_| Some(HealthSignal::Reached));
        self.record(to, latency, signal, call);
        Self::record_load(proxy, to.endpoint(), head.headers());
        let overloaded = outcome == AttemptOutcome::Mesh(Reason::Overload) && !success;
        self.throttle(outgoing, overloaded);
        let listed = match outcome {
            AttemptOutcome::Ended(ended) => ended.is_failure(self.retry()),
            AttemptOutcome::Mesh(_) => overloaded,
            AttemptOutcome::Open => false,
        };
        let ended = match outcome {
            AttemptOutcome::Ended(ended) => Some(ended),
            AttemptOutcome::Mesh(reason) => Some(retry::Ended::Refused(reason)),
            AttemptOutcome::Open => None,
        };
        let failed = ended.filter(|_| listed || !success).map(|ended| Failed {
            requested_wait: attempt_outcome::requested_wait(head.headers(), grpc),
            spent: call.is_mutual() && attempt_outcome::is_spent(head.headers()),
            ..Failed::new(outgoing, ended)
        });
        // Also where another one is to be tried: the caller may have left until then.
        self.note_answer(failed.as_ref(), outgoing);
        if let Some(failed) = failed.as_ref().filter(|_| listed) {
            self.tried.push(to.endpoint().addr);
            if let Some(wait) = self.again(proxy, failed, call) {
                call.attempt_failed();
                return After::Retry(wait);
            }
        }
        match outcome {
            AttemptOutcome::Ended(_) if success && !listed => self.succeeded(call),
            AttemptOutcome::Ended(_) | AttemptOutcome::Mesh(_) => self.retry_failed(call),
            // Its trailers decide.
            AttemptOutcome::Open => {}
        }
        After::Pass(at_end)
    }

    /// Counts a retry that failed: when the next one begins, or there is none.
    fn retry_failed(&self, call: &Call) {
        if self.retries > 0 {
            call.retried(RetryOutcome::Failure);
        }
    }

    fn succeeded(&self, call: &Call) {
        let policy = self.route.policy.as_deref();
        serving::succeeded(self.route.choice.set(), policy, self.retries > 0, call);
    }

    fn retry(&self) -> &'a Retry {
        call_policy::retry(self.route.policy.as_deref())
    }

    /// What an attempt has shown of its endpoint, also to a breaker without ejection.
    fn signal(&self, outcome: AttemptOutcome) -> Option<HealthSignal> {
        outcome.health_signal(call_policy::ejection(self.route.policy.as_deref()))
    }

    fn record(
        &self,
        to: &mut InFlight,
        latency: Latency,
        signal: Option<HealthSignal>,
        call: &Call,
    ) {
        // One attempt counts once, but for the head that shows that its endpoint is there.
        let signal = signal.filter(|_| !self.shown);
        let latency = match latency {
            Latency::Head(_) => latency,
            _ if self.shown => Latency::Recorded,
            latency => latency,
        };
        if let Some(recorder) = &self.recorder {
            recorder.record(signal, call);
        }
        let choice = &self.route.choice;
        let Some(set) = choice.set() else {
            return to.learn(latency);
        };
        let ejection = call_policy::ejection_if(self.route.policy.as_deref(), choice.ejects());
        if let Some(cause) = set.record(to, latency, signal, ejection) {
            call.ejected(cause);
        }
    }

    /// The endpoint took the connection.
    pub(super) fn opened(&self, to: &mut InFlight, call: &Call) {
        self.record(to, Latency::Recorded, Some(HealthSignal::Good), call);
    }

    /// Why the last attempt failed, or that there was nothing to attempt.
    pub(super) fn failure(&mut self, call: &mut Call) -> Failure {
        self.retry_failed(call);
        self.last.take().unwrap_or_else(|| {
            if let Some(why) = self.route.choice.no_endpoint() {
                return why.clone();
            }
            call.unserved();
            let none = format!("no endpoint of {}", self.route.backend);
            Failure::not_sent(Reason::NoEndpoint, none)
        })
    }

    /// An attempt failed without an answer.
    pub(super) fn failed(&mut self, mut to: InFlight, failure: Failure, call: &Call) {
        let renewed = self.failovers.renews(&failure);
        if renewed {
            self.failovers.note(&failure);
            self.chosen = Some(Chosen::Renewed(to));
        } else {
            let slow_upload = self.waits_for_sender();
            let (latency, signal) = attempt_outcome::signal_in_failure(&failure, slow_upload);
            self.record(&mut to, latency, signal, call);
            self.tried.push(to.endpoint().addr);
            self.failovers.note(&failure);
        }
        // Its server had it, so asking the next one is what `attempts: 0` forbids.
        let refused = self.replay.is_some() && failure.was_refused_by_server();
        let forbidden = refused && self.retry().attempts == 0;
        // Another one would be a probe of its own, of which there are so many in a second.
        let probed = self.probes() && !renewed;
        // Only the endpoint that was sent a body that cannot be sent again is to blame.
        let spent = self.replay.is_some_and(|replay| !replay.may_be_sent());
        self.over = failure.next() == Next::Stop || forbidden || probed || spent;
        self.last = Some(failure);
    }
}
