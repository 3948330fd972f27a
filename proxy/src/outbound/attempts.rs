//! Chooses the endpoint of each attempt of a call.
//!
//! A call goes to another endpoint for one of three reasons. It was not sent: then any method does,
//! because it is proven that no application saw it. It failed in a way that its policy lists, and
//! `policy::retry` allows another attempt: that takes a token, and never happens to a method that
//! may not be sent twice. Or the server's proxy refused it because its application has no room:
//! that takes a token, and any method goes on. Where there is no other endpoint, a retry that the
//! rule of a route wants goes to the same one.
//!
//! A call alternates between two steps. [`Attempts::next`] returns the endpoint of the next
//! attempt; [`Attempts::failed`] and [`Attempts::retry`] take the result of the attempt and decide
//! what follows it: [`Following`]. Requests take these steps in `exchange`, opaque bytes in
//! `opaque`.

use std::mem;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use policy::health::HealthSignal;
use policy::reason::Reason;
use policy::retry;

use crate::endpoints::endpoint::{Endpoint, InFlight};
use crate::endpoints::learned::{Fallback, Latency, now};
use crate::failure::{Failure, Next};
use crate::http::replay::Replay;
use crate::net::connect::ConnectTimeout;
use crate::outbound::admission::{self, CircuitRecorder};
use crate::outbound::attempt_outcome::{self, AttemptOutcome};
use crate::outbound::call_policy;
use crate::outbound::candidates::{Candidates, SuspectPeer};
use crate::outbound::retries::{Failed, Retries};
use crate::outbound::route::Route;
use crate::outbound::send::Outgoing;
use crate::proxy::Proxy;
use crate::telemetry::call::Call;

/// The attempts of a call, and where the next one goes.
pub(super) struct Attempts<'a> {
    pub(super) route: &'a Route,
    candidates: Candidates<'a>,
    following: Following,
    pub(super) retries: Retries<'a>,
    /// Of a request: its body.
    replay: Option<&'a Replay>,
    /// How the last attempt failed that had no response.
    last: Option<Failure>,
    /// Reports to the breaker, where a policy has one.
    pub(super) recorder: Option<Arc<CircuitRecorder>>,
    /// Those that were started, each at an endpoint of its own.
    started: u32,
}

/// What follows the last attempt.
enum Following {
    /// An endpoint that is yet to be chosen.
    Choice,
    /// The same endpoint by another connection, since only the one before had ended: no
    /// attempt of its own.
    Renewal(Attempt),
    /// Another endpoint, by a retry that is paid for, after this time. Where an attempt is
    /// abandoned for one, that is known before it has ended.
    Retry { to: InFlight, wait: Duration },
    /// None, or the attempt is under way.
    Nothing,
}

/// One attempt, at one endpoint.
pub(super) struct Attempt {
    pub(super) in_flight: InFlight,
    /// It has taken so long that what it shows of its endpoint was reported.
    pub(super) reported: bool,
    pub(super) fault: AttemptFault,
}

/// What a FaultExperiment does with an attempt, which is drawn once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum AttemptFault {
    Undrawn,
    Spared,
    Harmed,
}

impl Attempt {
    pub(super) const fn endpoint(&self) -> &Arc<Endpoint> {
        self.in_flight.endpoint()
    }
}

impl<'a> Attempts<'a> {
    /// Of a connection, which nothing but its own failure ends.
    pub(super) fn new(route: &'a Route) -> Self {
        Self::with(route, None, true)
    }

    /// Of a request with this body. `repeatable`: it may be sent again after an application has
    /// seen it.
    pub(super) fn of_request(route: &'a Route, body: &'a Replay, repeatable: bool) -> Self {
        Self::with(route, Some(body), repeatable)
    }

    fn with(route: &'a Route, replay: Option<&'a Replay>, repeatable: bool) -> Self {
        let policy = call_policy::retry(route.policy.as_deref());
        Self {
            route,
            candidates: Candidates::new(route, repeatable),
            following: Following::Choice,
            retries: Retries::new(policy, repeatable),
            replay,
            last: None,
            recorder: None,
            started: 0,
        }
    }

    /// The same, without this address, which has been tried in vain.
    pub(super) fn excluding(mut self, tried: SocketAddr) -> Self {
        self.candidates.exclude(tried);
        self.started = 1;
        self
    }

    /// Queries the breaker of what serves the call, where a policy has one.
    ///
    /// # Errors
    /// When it is open, and the call is not sent.
    pub(super) fn admit(&mut self, proxy: &Proxy) -> Result<(), Failure> {
        self.admit_started(proxy, now())
    }

    /// The same of a connection that was opened then, before it was known what for.
    ///
    /// # Errors
    /// When it is open, and the connection is not used.
    pub(super) fn admit_started(&mut self, proxy: &Proxy, started: Instant) -> Result<(), Failure> {
        self.recorder = admission::admit(proxy, self.route, started)?;
        Ok(())
    }

    /// The attempt to make, which `call` is counted on from now on. Another connection to the
    /// same endpoint is no attempt of its own.
    pub(super) fn next(&mut self, proxy: &Proxy, call: &mut Call) -> Option<Attempt> {
        if !self.retries.failovers.may_go_on() {
            return None;
        }
        let to = match mem::replace(&mut self.following, Following::Nothing) {
            Following::Nothing => return None,
            Following::Renewal(attempt) => return Some(attempt),
            Following::Retry { to, .. } => {
                // Not before: no endpoint may be left once it has waited.
                self.retries.begin(call);
                to
            }
            Following::Choice => {
                self.candidates
                    .choose(proxy, Fallback::Ejected, SuspectPeer::Called)?
            }
        };
        self.candidates.count_nearness(proxy, to.endpoint());
        let protocol = call.protocol();
        call.attempt(self.route.cell(&proxy.telemetry, to.endpoint(), protocol));
        self.started += 1;
        Some(Attempt {
            in_flight: to,
            reported: false,
            fault: AttemptFault::Undrawn,
        })
    }

    /// Which one the last attempt is; the first is 1.
    pub(super) const fn number(&self) -> u32 {
        self.started
    }

    /// How long an application without a proxy may take to accept a connection.
    pub(super) fn connect_timeout(&self) -> ConnectTimeout {
        match self.route.choice.connect_timeout() {
            ConnectTimeout::Application if self.route.external.is_some() => {
                ConnectTimeout::External
            }
            limit => limit,
        }
    }

    /// The endpoint took the connection.
    pub(super) fn opened(&self, to: &mut InFlight, call: &Call) {
        self.learn(to, Latency::Recorded, Some(HealthSignal::Good), false, call);
    }

    /// An attempt failed without an answer.
    pub(super) fn failed(&mut self, mut attempt: Attempt, failure: Failure, call: &Call) {
        let renewed = self.retries.failovers.renews(&failure);
        if !renewed {
            let slow_upload = self.waits_for_sender();
            let (latency, signal) = attempt_outcome::signal_in_failure(&failure, slow_upload);
            // What a Gateway could not reach lies outside, and says nothing of its pod.
            let outside = self.route.hands_over() && failure.is_of_peer();
            let signal = signal.filter(|_| !outside);
            self.record(&mut attempt, latency, signal, call);
            self.candidates.exclude(attempt.endpoint().addr);
        }
        self.retries.failovers.note(&failure);
        let is_final = self.is_final(&failure, renewed);
        self.last = Some(failure);
        self.following = match mem::replace(&mut self.following, Following::Nothing) {
            // It was abandoned for that.
            retry @ Following::Retry { .. } => retry,
            _ if is_final => Following::Nothing,
            _ if renewed => Following::Renewal(attempt),
            _ => Following::Choice,
        };
    }

    /// Whether no attempt follows such a failure, unless by a retry.
    fn is_final(&self, failure: &Failure, renewed: bool) -> bool {
        // Its server had it, so asking the next one is what `attempts: 0` forbids.
        let refused = self.replay.is_some() && failure.was_refused_by_server();
        let forbidden = refused && self.retries.policy.attempts == 0;
        // Another one would be a probe of its own, of which there are so many in a second.
        let probed = self.probes() && !renewed;
        // Only the endpoint that was sent a body that cannot be sent again is to blame.
        let body_used = self.replay.is_some_and(|replay| !replay.may_be_sent());
        failure.next() == Next::Stop || forbidden || probed || body_used
    }

    /// What follows a call that failed. A retry is chosen and paid for with that, and counts once
    /// it is made.
    pub(super) fn retry(&mut self, proxy: &Proxy, failed: &Failed<'_>) -> retry::Next {
        self.retry_by(proxy, failed, SuspectPeer::Called)
    }

    /// An attempt to that endpoint has taken as long as one may. Whether it is abandoned for
    /// another one, which is chosen and paid for with that: what was there when the attempt began
    /// may be gone by now, since calls that hang together would all count on the same token.
    /// Where none follows, an end would save no time, and the attempt goes on.
    pub(super) fn is_followed(
        &mut self,
        proxy: &Proxy,
        to: SocketAddr,
        outgoing: &Outgoing,
    ) -> bool {
        let failed = Failed::new(outgoing, retry::Ended::TimedOut);
        self.candidates.exclude(to);
        let next = self.retry_by(proxy, &failed, SuspectPeer::PassedOver);
        // It is noted once the attempt has ended.
        self.candidates.readmit();
        // Why none follows is not counted: nothing has failed.
        matches!(next, retry::Next::Retry { .. })
    }

    fn retry_by(
        &mut self,
        proxy: &Proxy,
        failed: &Failed<'_>,
        doubted: SuspectPeer,
    ) -> retry::Next {
        let Some(set) = self.route.choice.set() else {
            return retry::Next::Pass;
        };
        if !self.retries.may_follow(failed) || self.probes() || failed.outgoing.caller_has_left() {
            return retry::Next::Pass;
        }
        // Before anything is paid for it: no other endpoint may be left.
        let mut to = self.candidates.choose(proxy, Fallback::NoEndpoint, doubted);
        // The one that had no room for it would not have any now.
        if to.is_none() && !failed.was_refused() {
            to = self.candidates.choose_again(proxy);
        }
        let Some(to) = to else {
            return retry::Next::Pass;
        };
        let next = self.retries.decide(set, failed);
        if let retry::Next::Retry { wait } = next {
            self.following = Following::Retry { to, wait };
        }
        next
    }

    /// The wait before a retry that is paid for.
    pub(super) const fn wait_of_retry(&self) -> Option<Duration> {
        match &self.following {
            Following::Retry { wait, .. } => Some(*wait),
            Following::Choice | Following::Renewal(_) | Following::Nothing => None,
        }
    }

    /// While a retry waited, its endpoint may have left the Service, be known as meshed by now,
    /// or be ejected: then it is chosen anew, and not made where none is left. `fallback` is
    /// which takes it where none works. Returns whether it is made.
    pub(super) fn confirm_retry(&mut self, proxy: &Proxy, fallback: Fallback) -> bool {
        let Following::Retry { to, wait } = &self.following else {
            return false;
        };
        if self.candidates.still_works(proxy, to.endpoint()) {
            return true;
        }
        let wait = *wait;
        // Those that work come first: one whose ejection is over would be drawn before them.
        let choose = |fallback| self.candidates.choose(proxy, fallback, SuspectPeer::Called);
        let to = choose(Fallback::NoEndpoint).or_else(|| choose(fallback));
        let to = to.or_else(|| self.candidates.choose_again(proxy));
        self.following = match to {
            Some(to) => Following::Retry { to, wait },
            None => Following::Choice,
        };
        self.wait_of_retry().is_some()
    }

    /// Whether an attempt had no response.
    pub(super) const fn had_failure(&self) -> bool {
        self.last.is_some()
    }

    /// Why the last attempt failed, or that there was nothing to attempt.
    pub(super) fn failure(&mut self, call: &mut Call) -> Failure {
        self.retries.count_failed(call);
        self.last.take().unwrap_or_else(|| {
            if let Some(why) = self.route.choice.no_endpoint() {
                return why.clone();
            }
            call.unserved();
            let none = format!("no endpoint of {}", self.route.backend);
            Failure::not_sent(Reason::NoEndpoint, none)
        })
    }

    /// This endpoint has answered, and the call may go to another one.
    pub(super) fn exclude(&mut self, endpoint: &Endpoint) {
        self.candidates.exclude(endpoint.addr);
    }

    /// Whether the endpoint has to wait for the remaining request itself.
    pub(super) fn waits_for_sender(&self) -> bool {
        self.replay.is_some_and(Replay::waits_for_sender)
    }

    /// Whether the call only finds out how the Service fares, which another attempt would
    /// load twice.
    pub(super) fn probes(&self) -> bool {
        self.recorder.as_ref().is_some_and(|one| one.is_probe())
    }

    /// What an attempt has shown of its endpoint, also to a breaker without ejection.
    pub(super) fn signal(&self, outcome: AttemptOutcome) -> Option<HealthSignal> {
        outcome.health_signal(call_policy::ejection(self.route.policy.as_deref()))
    }

    /// Records what an attempt has shown of its endpoint. One counts once, but for the head that
    /// shows that its endpoint is there.
    pub(super) fn record(
        &self,
        attempt: &mut Attempt,
        latency: Latency,
        signal: Option<HealthSignal>,
        call: &Call,
    ) {
        let signal = signal.filter(|_| !attempt.reported);
        let harmed = attempt.fault == AttemptFault::Harmed;
        let latency = match latency {
            // Of a response in its place, which took no time: an endpoint must not seem fast by it.
            Latency::Head(took) if harmed && took.is_zero() => Latency::Recorded,
            Latency::Head(_) => latency,
            _ if attempt.reported => Latency::Recorded,
            latency => latency,
        };
        self.learn(&mut attempt.in_flight, latency, signal, harmed, call);
    }

    fn learn(
        &self,
        to: &mut InFlight,
        latency: Latency,
        signal: Option<HealthSignal>,
        harmed: bool,
        call: &Call,
    ) {
        if let Some(recorder) = &self.recorder {
            recorder.record(signal, harmed, call);
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
}
