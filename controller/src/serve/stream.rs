//! One proxy's stream, from its Hello to its end.
//!
//! Which pod it serves follows from the certificate alone: the pod whose uid is
//! in it, if that pod runs as the service account in it. What is sent is decided
//! in `session`; this file moves messages and waits. `open` makes it, and
//! `messages` takes what the proxy says.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use futures::FutureExt as _;
use runtime::limit::Reached;
use runtime::pool::{Limits, Pool, Share};
use tokio::sync::watch;
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until};
use tokio_stream::StreamExt as _;
use tonic::{Status, Streaming};
use tracing::warn;
use wire::v1;

use super::allowances::Allowances;
use super::announced_breakers::AnnouncedBreakers;
use super::bundle::bundle;
use super::framed::Outbox;
use super::orders::{OUTBOX, ProxyQuestions};
use super::proxy_info::ProxyInfo;
use super::session::{ANSWER_TIMEOUT, Due, Session, Target};
use crate::authority::Authority;
use crate::fleet::{Caller, Fleet};
use crate::metrics::StreamMetrics;
use crate::model::PodId;
use crate::model::changes::Interest;
use crate::model::compiled::LatestModel;
use crate::model::published::EncodedResource;
use crate::observe::acknowledged::Observed;
use crate::observe::asks::Asks;
use crate::observe::reports::{Reporter, Reports};
use crate::shares::Board;

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
    /// Queries to proxies.
    pub asks: Asks,
    /// Where pulses go, and states of breakers come from.
    pub fleet: Fleet,
    /// Shares of limits that the pods of a Service keep together.
    pub board: Board,
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

/// Why a stream ends without the proxy's doing.
pub(super) enum StreamEnd {
    /// In order; the proxy opens another.
    Over,
    Refused(Status),
}

/// Keeps names of destinations and nothing else: what is kept is persisted and sent to all
/// replicas. Returns how many it skipped.
pub(super) fn keep_names(names: &mut Vec<String>) -> usize {
    let before = names.len();
    names.retain(|name| {
        let name = wire::names::parse(name);
        matches!(name, Some(wire::names::Name::Destination { .. }))
    });
    before - names.len()
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

/// The status of a stream that another one of its pod replaces.
pub(super) fn taken_over() -> Status {
    Status::aborted("newer streams of this pod have taken over")
}

/// What of the target is not on its way to the proxy yet; the greater one decides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Unsent {
    Nothing,
    /// At the pace of batches.
    Paced,
    /// At once: a subscription, or a change that must not wait.
    Urgent,
}

pub(super) struct ProxyStream<'a> {
    pub(super) number: u64,
    pub(super) shared: &'a Streams,
    pub(super) pod: &'a PodId,
    pub(super) account: String,
    pub(super) reporter: Reporter,
    /// Its identity for breakers.
    pub(super) caller: Caller,
    pub(super) breakers: AnnouncedBreakers,
    /// There may be shares to tell.
    pub(super) shares_due: bool,
    /// Others may have the shares that it holds, and the pod must learn that.
    pub(super) forget: bool,
    pub(super) session: Session,
    pub(super) proxy_info: ProxyInfo,
    pub(super) target: Target,
    /// What this proxy requested itself, which is what gets persisted.
    pub(super) asks: BTreeSet<String>,
    /// What others requested; those of no use are dropped after the first look.
    pub(super) remembered: BTreeSet<String>,
    pub(super) unsent: Unsent,
    /// Messages have changed what is requested.
    pub(super) must_look: bool,
    /// Others have to have their turn.
    pub(super) must_yield: bool,
    /// Until when nothing is read, because too much came.
    pub(super) paused: Option<Instant>,
    /// Number of the model that was seen last, and what was read of it.
    pub(super) seen: u64,
    pub(super) interest: Interest,
    pub(super) outbox: &'a Outbox,
    /// Queries of users to it.
    pub(super) orders: ProxyQuestions,
}

impl ProxyStream<'_> {
    pub(super) async fn run(
        &mut self,
        incoming: &mut Streaming<v1::FromProxy>,
        permit: &Share<Arc<str>>,
    ) -> StreamEnd {
        let mut latest = self.shared.latest.clone();
        let mut roots = self.shared.authority.roots_pem();
        let mut stop = self.shared.stop.clone();
        let mut breakers = self.shared.fleet.changes();
        let mut given = self.shared.board.given_changes();
        let over = Instant::now() + LIFE + LIFE_JITTER.mul_f64(rand::random());
        if let Err(end) = self.look(&mut latest) {
            return end;
        }
        loop {
            if std::mem::take(&mut self.must_yield) {
                yield_now().await;
            }
            let wake = match self.send_all() {
                Ok(wake) => wake.min(over),
                Err(end) => return end,
            };
            let wake = self.paused.map_or(wake, |until| wake.min(until));
            tokio::select! {
                message = incoming.next(), if self.paused.is_none() => {
                    let mut message = Some(message);
                    for _ in 0..TOGETHER {
                        // At first the one that came, then those that are there already.
                        let Some(next) = message.take().or_else(|| incoming.next().now_or_never())
                        else {
                            break;
                        };
                        if let Err(end) = self.handle_message(next) {
                            return end;
                        }
                        if self.paused.is_some() || self.must_yield {
                            break;
                        }
                    }
                    if std::mem::take(&mut self.must_look)
                        && let Err(end) = self.look(&mut latest)
                    {
                        return end;
                    }
                },
                () = permit.taken() => return StreamEnd::Refused(taken_over()),
                changed = latest.changed() => {
                    if changed.is_err() {
                        return StreamEnd::Over;
                    }
                    if !self.is_kept_up(&mut latest)
                        && let Err(end) = self.look(&mut latest)
                    {
                        return end;
                    }
                }
                changed = roots.changed() => {
                    if changed.is_err() {
                        return StreamEnd::Over;
                    }
                    if let Err(end) = self.look(&mut latest) {
                        return end;
                    }
                }
                order = self.orders.next(), if self.outbox.capacity() > OUTBOX => {
                    ProxyQuestions::pass(order, self.outbox);
                }
                changed = breakers.changed() => {
                    if changed.is_err() {
                        return StreamEnd::Over;
                    }
                    self.breakers.due = true;
                }
                changed = given.changed() => {
                    if changed.is_err() {
                        return StreamEnd::Over;
                    }
                    self.shares_due = true;
                }
                _ = stop.wait_for(|stop| *stop) => return StreamEnd::Over,
                () = sleep_until(wake) => {
                    let now = Instant::now();
                    if now >= over {
                        return StreamEnd::Over;
                    }
                    self.paused = self.paused.filter(|until| now < *until);
                    if self.session.is_stuck(now) {
                        return StreamEnd::Refused(Status::deadline_exceeded("a batch was not answered"));
                    }
                }
            }
        }
    }

    /// Goes along with the newest model without a whole look at it. Most models hold
    /// nothing new for this proxy, and most others nothing but the state of endpoints
    /// that it knows. False if there may be more.
    fn is_kept_up(&mut self, latest: &mut LatestModel) -> bool {
        let latest = latest.borrow_and_update();
        let Some(compiled) = latest.as_ref() else {
            return false;
        };
        let Some(services) = compiled.states_since(self.seen, &self.interest) else {
            return false;
        };
        self.seen = compiled.number();
        if services.is_empty() {
            return true;
        }
        let (pod, target) = (self.pod, &mut self.target);
        let names = compiled.model.refresh(pod, &services, target);
        let of_objects = |name: &String| {
            target
                .get(name)
                .is_some_and(|resource| resource.is_of_objects())
        };
        let objects = names.iter().any(of_objects);
        let urgent = self.session.is_urgent_among(&names, target);
        self.note_unsent(urgent);
        if objects {
            self.note();
        }
        true
    }

    /// Reads the newest model.
    fn look(&mut self, latest: &mut LatestModel) -> Result<(), StreamEnd> {
        let compiled = latest.borrow_and_update().clone();
        let gone = || StreamEnd::Refused(Status::not_found("the pod is gone"));
        let compiled = compiled.ok_or_else(gone)?;
        let (destinations, capabilities) =
            (self.session.destinations(), self.session.capabilities());
        let set = compiled
            .model
            .resolve(self.pod, destinations, capabilities)
            .ok_or_else(gone)?;
        self.session.leave_out(set.left_out);
        let mut target = set.resources;
        self.drop_useless(&mut target);
        let destinations = self.session.destinations();
        self.interest = compiled.model.interest(self.pod, destinations);
        self.seen = compiled.number();
        let bundle = bundle(&self.shared.authority, &compiled.model.index.shared);
        target.insert(bundle.resource.name.clone(), bundle);
        let urgent = self.session.is_urgent(&target);
        self.target = target;
        self.note_unsent(urgent);
        self.note();
        Ok(())
    }

    fn note_unsent(&mut self, urgent: bool) {
        let unsent = if urgent {
            Unsent::Urgent
        } else {
            Unsent::Paced
        };
        self.unsent = self.unsent.max(unsent);
    }

    /// Persisted destinations that lead nowhere by now are not sent: pods' addresses come and go,
    /// and no client asked for these.
    fn drop_useless(&mut self, target: &mut Target) {
        let useless = |published: &EncodedResource| match &published.resource.content {
            Some(v1::resource::Content::Destination(destination)) => matches!(
                destination.target,
                None | Some(
                    v1::destination::Target::External(_) | v1::destination::Target::Refused(_)
                )
            ),
            _ => false,
        };
        let remembered = std::mem::take(&mut self.remembered);
        let useless: Vec<String> = remembered
            .into_iter()
            .filter(|name| target.get(name).is_none_or(|published| useless(published)))
            .collect();
        for name in &useless {
            target.remove(name);
        }
        self.session.forget(&useless);
    }

    /// Sends all that is due. Returns when to look again at the latest.
    fn send_all(&mut self) -> Result<Instant, StreamEnd> {
        let wake = self.send()?;
        let later = self.steer()?.into_iter().chain(self.share()?);
        Ok(later.fold(wake, Instant::min))
    }

    /// Sends what is due of resources.
    fn send(&mut self) -> Result<Instant, StreamEnd> {
        let now = Instant::now();
        let patience = now + ANSWER_TIMEOUT;
        if self.unsent == Unsent::Nothing {
            return Ok(patience);
        }
        match self.session.due(self.unsent == Unsent::Urgent, now) {
            Due::Now => {}
            Due::At(at) => return Ok(at),
            Due::AfterAnswer => return Ok(patience),
        }
        self.unsent = Unsent::Nothing;
        let Some(batch) = self.session.next(&self.target, now) else {
            return Ok(patience);
        };
        // What it is sent may have a breaker.
        self.breakers.due = true;
        self.share_after(&batch);
        self.shared.metrics.batches.inc();
        self.shared.metrics.resources.inc_by(batch.set.len() as u64);
        let message = v1::ToProxy {
            message: Some(v1::to_proxy::Message::Batch(batch)),
        };
        match self.outbox.try_send(Ok(Box::new(message))) {
            Ok(()) => Ok(patience),
            // Closed: the proxy went away. Full cannot be, see OUTBOX.
            Err(_) => Err(StreamEnd::Over),
        }
    }
}
