//! Runs one proxy's control stream, from its Hello message to its end.
//!
//! `open` makes a stream. This file moves messages and waits; each concern has a type that handles
//! its messages: the configuration with its acknowledgements, breakers, quota shares, queries, and
//! what the proxy reports of itself.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::{Duration, SystemTime};

use futures::FutureExt as _;
use model::PodId;
use runtime::limit::Reached;
use runtime::pool::{Limits, Pool, Share};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt as _;
use tonic::{Code, Status, Streaming};
use tracing::{debug, warn};
use wire::v1;
use wire::v1::{from_proxy, to_proxy};

use super::allowances::Allowances;
use super::announced_breakers::AnnouncedBreakers;
use super::configuration::{Configuration, NextBatch};
use super::framed::Outbox;
use super::proxy_info::ProxyInfo;
use super::queries::{OUTBOX, ProxyQueries};
use super::quota_shares::QuotaShares;
use super::sent_grants::SentGrants;
use super::session::ANSWER_TIMEOUT;
use super::stream_end::{RevokedPeer, StreamEnd, taken_over};
use super::stream_owner::StreamOwner;
use crate::authority::Authority;
use crate::fleet::Fleet;
use crate::grants::Grants;
use crate::latest_model::LatestModel;
use crate::metrics::StreamMetrics;
use crate::observe::acknowledged::Observed;
use crate::observe::early::EarlyCounts;
use crate::observe::live_queries::LiveQueries;
use crate::observe::reports::Reports;
use crate::shares::ShareRegistry;

/// Life of a stream, so that proxies spread over replicas again.
const LIFE: Duration = Duration::from_secs(30 * 60);
/// Added to [`LIFE`] by chance, so that streams do not end together.
const LIFE_JITTER: Duration = Duration::from_secs(30 * 60);
/// Streams at one time. A proxy has one, and another while the first one is dead and that is not
/// noticed yet. What their messages may take together, `buffers` limits.
const STREAM_LIMITS: Limits = Limits {
    total: 8192,
    per_holder: 2,
};
/// Messages that are taken in before the model is looked at once for all of them.
const TOGETHER: usize = 64;
/// Resources of an answer after which other streams have their turn: it takes about a
/// millisecond.
const LARGE: usize = 512;
/// Until the proxy has taken what was sent before.
const AGAIN: Duration = Duration::from_millis(50);

/// Where streams have their places, by uid of the pod.
pub(crate) fn stream_permits(limits: &Reached) -> Pool<Arc<str>> {
    Pool::new(STREAM_LIMITS, limits.counter("streams"))
}

/// Opens streams.
#[derive(Clone, Debug)]
pub(crate) struct Streams {
    /// Newest model.
    pub latest: LatestModel,
    /// Where acknowledgements go.
    pub observed: Observed,
    /// Where reports go.
    pub reports: Reports,
    /// Where early reports go.
    pub early: EarlyCounts,
    /// Queries to proxies.
    pub live_queries: LiveQueries,
    /// Where breaker reports go, and states of breakers come from.
    pub fleet: Fleet,
    /// Shares of limits that the pods of a Service keep together.
    pub share_registry: ShareRegistry,
    /// Runs of FaultExperiments that may harm calls.
    pub grants: Grants,
    /// For the trust bundle.
    pub authority: Authority,
    /// Counters.
    pub metrics: StreamMetrics,
    /// Says true when the process ends.
    pub stop: watch::Receiver<bool>,
    /// Numbers streams.
    pub next: Arc<AtomicU64>,
    /// Made by [`stream_permits`].
    pub permits: Pool<Arc<str>>,
    /// What each pod has used.
    pub allowances: Allowances,
    /// Bounds that were reached.
    pub limits: Reached,
}

impl Streams {
    pub(super) fn left_out(&self, pod: &PodId, names: usize) {
        if names == 0 {
            return;
        }
        self.metrics.left_out.inc_by(names as u64);
        if self.allowances.may_log(pod, "left out", Instant::now()) {
            warn!(%pod, left_out = names, "proxy subscribes to too many destinations, or to invalid ones");
        }
    }
}

/// A stream, a type for each concern.
pub(super) struct ProxyStream<'a> {
    pub(super) shared: &'a Streams,
    pub(super) owner: StreamOwner,
    pub(super) configuration: Configuration,
    pub(super) breakers: AnnouncedBreakers,
    pub(super) shares: QuotaShares,
    pub(super) grants: SentGrants,
    pub(super) queries: ProxyQueries,
    pub(super) proxy_info: ProxyInfo,
    pub(super) revoked: RevokedPeer<'a>,
    pub(super) outbox: &'a Outbox,
    /// Until when nothing is read, because too much came.
    pub(super) paused: Option<Instant>,
    /// Others have to have their turn.
    pub(super) must_yield: bool,
}

impl ProxyStream<'_> {
    /// Sends what is due and takes what comes, until the stream ends.
    pub(super) async fn run(
        &mut self,
        incoming: &mut Streaming<v1::FromProxy>,
        permit: &Share<Arc<str>>,
    ) -> Result<Infallible, StreamEnd> {
        let mut latest = self.shared.latest.clone();
        let mut bundle = self.shared.authority.bundle();
        let mut stop = self.shared.stop.clone();
        let mut breakers = self.shared.fleet.changes();
        let mut given = self.shared.share_registry.given_changes();
        let mut granted = self.shared.grants.changes();
        let over = Instant::now() + LIFE + LIFE_JITTER.mul_f64(rand::random());
        self.look(&mut latest)?;
        loop {
            if std::mem::take(&mut self.must_yield) {
                yield_now().await;
            }
            let wake = self.send_all()?.min(over);
            let wake = self.paused.map_or(wake, |until| wake.min(until));
            tokio::select! {
                message = incoming.next(), if self.paused.is_none() => {
                    self.take_all(message, incoming)?;
                    if self.configuration.take_outdated() {
                        self.look(&mut latest)?;
                    }
                }
                () = permit.taken() => return Err(taken_over().into()),
                changed = latest.changed() => {
                    changed?;
                    self.keep_up(&mut latest)?;
                }
                changed = bundle.changed() => {
                    changed?;
                    self.look(&mut latest)?;
                }
                query = self.queries.next(), if self.outbox.capacity() > OUTBOX => {
                    // Closed: the proxy went away, and what is read next says so.
                    let _ = self.send(query);
                }
                changed = breakers.changed() => {
                    changed?;
                    self.breakers.due = true;
                }
                changed = given.changed() => {
                    changed?;
                    self.shares.note_change();
                }
                changed = granted.changed() => {
                    changed?;
                    self.grants.note_change();
                }
                _ = stop.wait_for(|stop| *stop) => return Err(StreamEnd::Over),
                () = sleep_until(wake) => self.pass_time(Instant::now(), over)?,
            }
        }
    }

    /// What there is to do at this moment, where nothing else has happened.
    fn pass_time(&mut self, now: Instant, over: Instant) -> Result<(), StreamEnd> {
        if now >= over {
            return Err(StreamEnd::Over);
        }
        self.revoked.must_go_on(now)?;
        self.paused = self.paused.filter(|until| now < *until);
        if self.configuration.is_stuck(now) {
            return Err(Status::deadline_exceeded("a batch was not answered").into());
        }
        Ok(())
    }

    /// Follows the newest model.
    fn keep_up(&mut self, latest: &mut LatestModel) -> Result<(), StreamEnd> {
        let (pod, authority) = (self.owner.pod(), &self.shared.authority);
        if self.configuration.keep_up(pod, latest, authority)? {
            self.note();
        }
        self.revoked.look(latest, Instant::now());
        Ok(())
    }

    /// Reads the newest model.
    fn look(&mut self, latest: &mut LatestModel) -> Result<(), StreamEnd> {
        let (pod, authority) = (self.owner.pod(), &self.shared.authority);
        self.configuration.look(pod, latest, authority)?;
        self.note();
        self.revoked.look(latest, Instant::now());
        Ok(())
    }

    /// Reports to all replicas what this proxy has.
    fn note(&self) {
        let mut state = self.owner.state();
        self.configuration.add_to(&mut state);
        self.proxy_info.add_to(&mut state);
        self.shared.observed.note(self.owner.number, state);
    }

    /// Takes the message that came, and those that are there already.
    fn take_all(
        &mut self,
        first: Option<Result<v1::FromProxy, Status>>,
        incoming: &mut Streaming<v1::FromProxy>,
    ) -> Result<(), StreamEnd> {
        let mut first = Some(first);
        for _ in 0..TOGETHER {
            let Some(next) = first.take().or_else(|| incoming.next().now_or_never()) else {
                break;
            };
            self.handle_message(next)?;
            if self.paused.is_some() || self.must_yield {
                break;
            }
        }
        Ok(())
    }

    /// One message, or the end of them.
    fn handle_message(
        &mut self,
        message: Option<Result<v1::FromProxy, Status>>,
    ) -> Result<(), StreamEnd> {
        let message = match message {
            Some(Ok(message)) => message,
            // Ours, see `buffers`: the proxy gets the reason.
            Some(Err(status))
                if matches!(
                    status.code(),
                    Code::DeadlineExceeded | Code::ResourceExhausted
                ) =>
            {
                return Err(StreamEnd::Refused(status));
            }
            Some(Err(status)) => {
                debug!(pod = %self.owner.pod(), %status, "stream broke");
                return Err(StreamEnd::Over);
            }
            None => return Err(StreamEnd::Over),
        };
        let now = Instant::now();
        let wait = (self.shared.allowances).message(self.owner.uid(), &message, now);
        // Not an end: a proxy that really has so much to send is only slowed down.
        if !wait.is_zero() && self.paused.replace(now + wait).is_none() {
            self.shared.limits.counter("stream-messages").inc();
        }
        self.take(message)
    }

    fn take(&mut self, message: v1::FromProxy) -> Result<(), StreamEnd> {
        use from_proxy::Message;
        let (share_registry, uid) = (&self.shared.share_registry, self.owner.uid());
        match message.message {
            Some(Message::Ack(ack)) => self.take_ack(ack)?,
            Some(Message::Subscribe(change)) => {
                let left_out = self.configuration.subscribe(change);
                self.shared.left_out(self.owner.pod(), left_out);
            }
            Some(Message::Hello(_)) => {
                return Err(Status::invalid_argument("a second Hello").into());
            }
            Some(Message::Report(report)) => self.take_report(report),
            Some(Message::Pulse(breaker_report)) => self.take_breaker_report(breaker_report),
            Some(Message::SharesTaken(taken)) => share_registry.taken(uid, &taken),
            Some(Message::OfferedLoads(offered)) => share_registry.offered(uid, &offered),
            Some(Message::Status(status)) => {
                self.proxy_info
                    .status(status, SystemTime::now(), Instant::now());
                self.note();
            }
            Some(Message::EarlyReport(report)) if self.configuration.wants_early_reports() => {
                self.shared.early.take(uid, report, Instant::now());
            }
            // A newer proxy may say more than this controller knows, or wants by now.
            Some(Message::EarlyReport(_)) | None => {}
        }
        Ok(())
    }

    fn take_ack(&mut self, ack: v1::Ack) -> Result<(), StreamEnd> {
        let answered = self.configuration.acknowledge(ack)?;
        let metrics = &self.shared.metrics;
        if let Some(after) = answered.after {
            metrics.answer_seconds.observe(after.as_secs_f64());
        }
        if answered.refused > 0 {
            metrics.nacks.inc_by(answered.refused as u64);
            // The conditions of the objects tell which and why.
            let (allowances, pod) = (&self.shared.allowances, self.owner.pod());
            if allowances.may_log(pod, "could not use", Instant::now()) {
                let resources = answered.refused;
                warn!(%pod, resources, "proxy could not use resources");
            }
        }
        if answered.objects {
            self.note();
        }
        self.must_yield |= answered.carried > LARGE;
        Ok(())
    }

    fn take_report(&mut self, report: v1::Report) {
        let (reports, now) = (&self.shared.reports, SystemTime::now());
        if self.proxy_info.reports_of(report.slot, now, Instant::now()) {
            self.note();
        }
        let report = self.proxy_info.dated(report);
        reports.take(&self.owner.reporter, report, true, now);
    }

    /// Takes what the proxy reports of calls to Services with a breaker.
    fn take_breaker_report(&mut self, breaker_report: v1::Pulse) {
        let (caller, now) = (&self.owner.caller, Instant::now());
        if self
            .shared
            .allowances
            .admits_breaker_report(&caller.uid, now)
        {
            self.breakers.note_breaker_report(&breaker_report);
            self.shared.fleet.take(caller, breaker_report, now);
        } else {
            self.shared.limits.counter("breaker-pulses").inc();
        }
    }

    /// Sends all that is due. Returns when to look again at the latest.
    fn send_all(&mut self) -> Result<Instant, StreamEnd> {
        let wake = self.send_batch()?;
        // Before all that may be put off: a withdrawal must not wait.
        let later = self.send_grants()?.into_iter();
        let later = later
            .chain(self.send_breakers()?)
            .chain(self.send_shares()?)
            .chain(self.revoked.ends_at());
        Ok(later.fold(wake, Instant::min))
    }

    /// Sends what is due of resources.
    fn send_batch(&mut self) -> Result<Instant, StreamEnd> {
        let now = Instant::now();
        let batch = match self.configuration.next_batch(now) {
            NextBatch::Now(batch) => batch,
            NextBatch::NotBefore(at) => return Ok(at),
        };
        // What it is sent may have a breaker.
        self.breakers.due = true;
        self.grants.note_change();
        self.shares
            .note_batch(&batch, &self.shared.share_registry, self.owner.uid());
        self.shared.metrics.batches.inc();
        self.shared.metrics.resources.inc_by(batch.set.len() as u64);
        self.send(to_proxy::Message::Batch(batch))?;
        Ok(now + ANSWER_TIMEOUT)
    }

    /// Sends the proxy what it does not know yet of the breakers that its calls go by. Returns when
    /// to try again, if that has to be.
    fn send_breakers(&mut self) -> Result<Option<Instant>, StreamEnd> {
        let now = Instant::now();
        if !self.breakers.due {
            return Ok(None);
        }
        if self.is_busy() {
            return Ok(Some(now + AGAIN));
        }
        let (session, account) = (self.configuration.session(), &self.owner.caller.account);
        let all = self.shared.fleet.announced();
        let states = self.breakers.news(&all, session, account, now);
        if !states.is_empty() {
            self.send(to_proxy::Message::Steer(v1::Steer { states }))?;
        }
        Ok(None)
    }

    /// Sends the proxy which runs may harm its calls for now. Returns when to try again, if that
    /// has to be.
    fn send_grants(&mut self) -> Result<Option<Instant>, StreamEnd> {
        if !self.grants.are_due() {
            return Ok(None);
        }
        let now = Instant::now();
        if self.is_busy() {
            return Ok(Some(now + AGAIN));
        }
        let (runs, session) = (self.shared.grants.now(), self.configuration.session());
        if let Some(grants) = self.grants.next(&runs, session, now) {
            self.send(to_proxy::Message::Grants(grants))?;
        }
        Ok(None)
    }

    /// Sends the proxy the quota shares that it did not get yet. Returns when to try again, if that
    /// has to be.
    fn send_shares(&mut self) -> Result<Option<Instant>, StreamEnd> {
        if !self.shares.are_due() {
            return Ok(None);
        }
        if self.is_busy() {
            return Ok(Some(Instant::now() + AGAIN));
        }
        let has_limits = self.configuration.session().was_sent(wire::names::GUARD);
        let (share_registry, uid) = (&self.shared.share_registry, self.owner.uid());
        if let Some(shares) = self.shares.next(has_limits, share_registry, uid) {
            self.send(to_proxy::Message::Shares(shares))?;
        }
        Ok(None)
    }

    /// Whether something is on its way: batches need all places but one, and the first message is
    /// a batch.
    fn is_busy(&self) -> bool {
        self.outbox.capacity() < self.outbox.max_capacity()
    }

    fn send(&self, message: to_proxy::Message) -> Result<(), StreamEnd> {
        let message = v1::ToProxy {
            message: Some(message),
        };
        // Closed: the proxy went away. Full cannot be, see OUTBOX.
        self.outbox
            .try_send(Ok(Box::new(message)))
            .map_err(|_| StreamEnd::Over)
    }
}
