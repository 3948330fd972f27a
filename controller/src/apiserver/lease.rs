//! Leader election by a Lease: only the replica that holds it writes to the API server.
//!
//! The rules are client-go's. The replica that renewed last holds it; another one takes it when it
//! has seen the record unchanged for the lease's whole duration by its own clock, so clocks of
//! two machines are never compared. A holder that could not renew for [`RENEW_DEADLINE`] stops
//! writing before any other replica may start.
//!
//! A holder that renews may still be useless: the Lease's own calls succeed and those of its work
//! do not. A holder that notices this releases the Lease and lets the others take it for
//! [`STAND_BACK`].
//!
//! `kubert`'s `LeaseManager` is not used: it takes a Lease once its own clock has passed
//! the `renewTime` that the holder's wrote and the duration, so where the two differ by
//! more than is left between renewals and that end, two replicas write.
//!
//! Claims: attack-89

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease as LeaseObject, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, PostParams};
use kube::{Api, Client};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tracing::{info, warn};

use super::client::Stalls;

/// How far the removal of this installation has come. It is judged elsewhere; the Lease is
/// let go by it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Stage {
    /// No job, or one that refused.
    #[default]
    Stays,
    /// The job works.
    Preparing,
    /// The job is done: the chart goes next.
    Going,
    /// It did not go after all. Unlike the first, the job's pod, should it still be
    /// there, proves nothing any more.
    Stayed,
}

impl Stage {
    /// Whether marks are right.
    pub(crate) fn is_under_way(self) -> bool {
        matches!(self, Self::Preparing | Self::Going)
    }
}

type Stages = watch::Receiver<Stage>;

/// How long an unchanged record keeps others away.
pub(crate) const DURATION: Duration = Duration::from_secs(15);
/// Time between two renewals.
const RENEW_EVERY: Duration = Duration::from_secs(5);
/// A holder without a successful renewal for this long stops writing: shorter
/// than [`DURATION`], so that two never write at once.
const RENEW_DEADLINE: Duration = Duration::from_secs(10);
/// How often one that does not hold the lease looks at it.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Pause after a failed renewal.
const RETRY_EVERY: Duration = Duration::from_secs(1);
/// How long a holder whose work stalled leaves the Lease to others: long enough for
/// each of them to look at it several times.
const STAND_BACK: Duration = Duration::from_secs(30);
/// A call that takes longer than this has failed.
const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Whether this replica holds the lease; changes are seen by waiting on it.
#[derive(Clone, Debug)]
pub(crate) struct Leadership {
    is_holder: watch::Receiver<bool>,
    stalls: Stalls,
}

impl Leadership {
    /// True while this replica may write.
    pub(crate) fn is_held(&self) -> bool {
        *self.is_holder.borrow()
    }

    /// The client for what only the holder does, under the name `work`. Its calls have
    /// a time limit, and while none is answered the Lease is given up.
    #[must_use]
    pub(crate) fn client(&self, work: &'static str, client: &Client) -> Client {
        self.stalls.client(work, client)
    }

    /// Resolves once this replica holds the lease. Never resolves when it
    /// has stopped trying.
    pub(crate) async fn acquired(&mut self) {
        if self
            .is_holder
            .wait_for(|is_holder| *is_holder)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    /// Resolves once this replica does not hold the lease.
    pub(crate) async fn lost(&mut self) {
        // An error means that the elector is gone, which is a loss too.
        let _ = self.is_holder.wait_for(|is_holder| !*is_holder).await;
    }

    /// Runs `work` whenever the lease is held and drops it when it is lost.
    pub(crate) async fn while_leading<F: Future<Output = ()>>(
        mut self,
        mut work: impl FnMut() -> F,
    ) {
        loop {
            self.acquired().await;
            let mut watched = self.clone();
            tokio::select! {
                () = work() => return,
                () = watched.lost() => {}
            }
        }
    }

    /// A leadership that is fixed; for tests of what depends on it.
    #[cfg(test)]
    pub(crate) fn fixed(is_holder: bool) -> Self {
        let (sender, receiver) = watch::channel(is_holder);
        std::mem::forget(sender);
        Self::from_watch(receiver)
    }

    /// One that a test gives and takes away.
    #[cfg(test)]
    pub(crate) fn from_watch(is_holder: watch::Receiver<bool>) -> Self {
        let (stalls, _) = Stalls::new();
        Self { is_holder, stalls }
    }
}

/// Acquires and renews the Lease for this replica; client-go calls it the same.
pub(crate) struct LeaderElector {
    api: Api<LeaseObject>,
    name: String,
    me: String,
    annotations: BTreeMap<String, String>,
    is_holder: watch::Sender<bool>,
    /// Names work of this replica that gets no answers.
    stalled: mpsc::Receiver<&'static str>,
    seen: Option<ObservedRecord>,
    renewed: Option<Instant>,
}

opaque_debug!(LeaderElector);

/// The last record of another holder, and since when it has not changed.
#[derive(Clone, Debug, PartialEq, Eq)]
struct ObservedRecord {
    holder: String,
    renewed: Option<Timestamp>,
    transitions: i32,
    since: Instant,
}

impl LeaderElector {
    /// `me` must differ between replicas: the pod's name.
    pub(crate) fn new(client: Client, namespace: &str, name: &str, me: &str) -> (Self, Leadership) {
        let (is_holder, holds) = watch::channel(false);
        let (stalls, stalled) = Stalls::new();
        let elector = Self {
            api: Api::namespaced(client, namespace),
            name: name.to_owned(),
            me: me.to_owned(),
            annotations: BTreeMap::new(),
            is_holder,
            stalled,
            seen: None,
            renewed: None,
        };
        let leadership = Leadership {
            is_holder: holds,
            stalls,
        };
        (elector, leadership)
    }

    /// What the Lease says beside its holder, as long as that is this replica.
    #[must_use]
    pub(crate) fn annotated(mut self, name: &str, value: &str) -> Self {
        self.annotations.insert(name.to_owned(), value.to_owned());
        self
    }

    /// Tries for and keeps the lease until `stop` resolves, then releases it
    /// so that the next holder need not wait. While the installation goes it is released
    /// too: once Helm has taken the rights away it could not be any more, and the next
    /// installation would have to wait for it.
    pub(crate) async fn run(mut self, stop: impl Future<Output = ()>, mut uninstallation: Stages) {
        tokio::pin!(stop);
        loop {
            let pause = if *uninstallation.borrow_and_update() == Stage::Going {
                self.release().await;
                LOOK_EVERY
            } else {
                self.step().await
            };
            tokio::select! {
                () = sleep(pause) => continue,
                Ok(()) = uninstallation.changed() => continue,
                Some(work) = self.stalled.recv() => {
                    // Said while the Lease was another's.
                    if !*self.is_holder.borrow() {
                        continue;
                    }
                    warn!(
                        lease = self.name,
                        work, "no answer from the API server to the holder's work, giving the lease up"
                    );
                    self.release().await;
                    self.renewed = None;
                }
                () = &mut stop => break,
            }
            tokio::select! {
                () = sleep(STAND_BACK) => {}
                () = &mut stop => break,
            }
        }
        self.release().await;
    }

    /// One look at the record. Returns how long to wait before the next.
    async fn step(&mut self) -> Duration {
        let mut deadline = Instant::now() + CALL_TIMEOUT;
        if let Some(renewed) = self.renewed {
            deadline = deadline.min(renewed + RENEW_DEADLINE);
        }
        let outcome = timeout_at(deadline, self.claim()).await;
        let now = Instant::now();
        let mut pause = LOOK_EVERY;
        match outcome {
            Ok(Ok(true)) => {
                self.renewed = Some(now);
                pause = RENEW_EVERY;
            }
            Ok(Ok(false)) => self.renewed = None,
            Ok(Err(error)) => warn!(lease = self.name, %error, "lease call failed"),
            Err(_) => warn!(lease = self.name, "lease call timed out"),
        }
        match self.renewed {
            Some(at) if now >= at + RENEW_DEADLINE => self.renewed = None,
            // A failed renewal is tried again soon, and never sleeps past the deadline.
            Some(at) if at != now => {
                pause = RETRY_EVERY.min((at + RENEW_DEADLINE).saturating_duration_since(now));
            }
            _ => {}
        }
        let holds = self.renewed.is_some();
        match (self.is_holder.send_replace(holds), holds) {
            (false, true) => info!(lease = self.name, "lease acquired"),
            (true, false) => warn!(lease = self.name, "lease lost"),
            _ => {}
        }
        pause
    }

    /// Reads the record and writes ours when that is allowed. True when this
    /// replica holds the lease afterwards.
    async fn claim(&mut self) -> Result<bool, kube::Error> {
        let Some(mut lease) = self.api.get_opt(&self.name).await? else {
            let lease = LeaseObject {
                metadata: ObjectMeta {
                    name: Some(self.name.clone()),
                    annotations: Some(self.annotations.clone()),
                    ..ObjectMeta::default()
                },
                spec: Some(self.record(None)),
            };
            return won(self.api.create(&PostParams::default(), &lease).await);
        };
        let spec = lease.spec.clone().unwrap_or_default();
        if !self.may_write(&spec, Instant::now()) {
            return Ok(false);
        }
        lease.spec = Some(self.record(Some(&spec)));
        let annotations = lease.metadata.annotations.get_or_insert_default();
        annotations.extend(self.annotations.clone());
        // The resource version that was read makes the write fail when another
        // replica was quicker.
        won(self
            .api
            .replace(&self.name, &PostParams::default(), &lease)
            .await)
    }

    fn may_write(&mut self, spec: &LeaseSpec, now: Instant) -> bool {
        let holder = spec.holder_identity.clone().unwrap_or_default();
        if holder == self.me || holder.is_empty() {
            self.seen = None;
            return true;
        }
        let record = ObservedRecord {
            holder,
            renewed: spec.renew_time.as_ref().map(|time| time.0),
            transitions: spec.lease_transitions.unwrap_or_default(),
            since: now,
        };
        let since = match self.seen.take() {
            Some(seen)
                if (ObservedRecord {
                    since: now,
                    ..seen.clone()
                }) == record =>
            {
                seen.since
            }
            _ => now,
        };
        self.seen = Some(ObservedRecord { since, ..record });
        let duration = spec
            .lease_duration_seconds
            .and_then(|seconds| u64::try_from(seconds).ok())
            .map_or(DURATION, Duration::from_secs);
        now.duration_since(since) >= duration
    }

    fn record(&self, before: Option<&LeaseSpec>) -> LeaseSpec {
        let now = MicroTime(Timestamp::now());
        let keeps = before.is_some_and(|spec| spec.holder_identity.as_ref() == Some(&self.me));
        let transitions = before
            .and_then(|spec| spec.lease_transitions)
            .unwrap_or_default();
        LeaseSpec {
            holder_identity: Some(self.me.clone()),
            lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
            acquire_time: match before {
                Some(spec) if keeps => spec.acquire_time.clone(),
                _ => Some(now.clone()),
            },
            renew_time: Some(now),
            lease_transitions: Some(if keeps {
                transitions
            } else {
                transitions.saturating_add(1)
            }),
            ..LeaseSpec::default()
        }
    }

    async fn release(&mut self) {
        self.renewed = None;
        let is_holder = self.is_holder.send_replace(false);
        if !is_holder {
            return;
        }
        match timeout(Duration::from_secs(1), self.give_up()).await {
            Ok(Ok(())) => info!(lease = self.name, "lease released"),
            Ok(Err(error)) => warn!(lease = self.name, %error, "lease could not be released"),
            Err(_) => warn!(lease = self.name, "lease could not be released in time"),
        }
    }

    async fn give_up(&self) -> Result<(), kube::Error> {
        let mut lease = self.api.get(&self.name).await?;
        let Some(spec) = lease.spec.as_mut() else {
            return Ok(());
        };
        if spec.holder_identity.as_ref() != Some(&self.me) {
            return Ok(());
        }
        spec.holder_identity = None;
        spec.lease_duration_seconds = Some(1);
        self.api
            .replace(&self.name, &PostParams::default(), &lease)
            .await?;
        Ok(())
    }
}

/// A conflict means that another replica was quicker: an answer, not a failure.
fn won<T>(written: Result<T, kube::Error>) -> Result<bool, kube::Error> {
    match written {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.is_conflict() || status.is_already_exists() => {
            Ok(false)
        }
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests;
