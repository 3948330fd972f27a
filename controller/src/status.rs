//! Writes conditions into the status of policy objects.
//!
//! `Accepted` and `ResolvedRefs` come from compiling. `Programmed` counts the proxies that need
//! the object and have acknowledged its generation; one that needs it and is not connected counts
//! and is named. A changed status, reason or generation is written at once; changed counts alone
//! are written at most every [`conditions::COUNT_EVERY`] per object, because each write wakes
//! every watcher of the kind.
//!
//! Streams end and begin anew all day, and pods start. So an object that was programmed stays so
//! for [`conditions::RECONNECT`] if it only lacks proxies without a stream.
//!
//! Routes of the Gateway API have these conditions once for each parent, in a list that others
//! write too: [`parents`].
//!
//! Only the Lease holder runs this. Statuses of releases and experiments are not written here:
//! `automation` writes them whole, with the conditions that [`apart`] computes.
//!
//! May import `apiserver`, `fleet`, `latest_model`, `metrics`, `network_policy`, `observe` and
//! `settings`.

pub(crate) mod apart;
pub(crate) mod breakers;
pub(crate) mod conditions;
pub(crate) mod events;
pub(crate) mod gauges;
mod parents;
mod revoked;
mod udp;
pub(crate) mod unexpected;
mod unmeshed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::item::Item;
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::DynamicObject;
use kube::{Api, Client};
use model::compiled::Compiled;
use model::problem::{ObjectReport, Problems};
use model::world::{ObjectKey, PodFacts, Store, World};
use policy::name::{Kind, ObjectRef};
use policy::traffic::guard::LimitScope;
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use self::conditions::{
    COUNT_EVERY, Status, When, Written, WrittenBreaker, has_status, kinds, read, resource, when,
    word,
};
use self::unmeshed::Unmeshed;
use crate::apiserver::events::EventRecorder;
use crate::fleet::Fleet;
use crate::latest_model::LatestModel;
use crate::network_policy::Enforced;
use crate::observe::acknowledged::{Consumer, Observed, Tally};
use crate::settings::gateways::GatewayApi;

/// Changes that come within this time are written together; the streams take
/// about as long to see a new model.
const SETTLE: Duration = Duration::from_millis(100);
/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Writes under way at one time.
const PARALLEL: usize = 8;
/// Writes the statuses.
#[derive(Clone)]
pub(crate) struct StatusWriter {
    /// API server.
    pub client: Client,
    /// What compiling found.
    pub latest: LatestModel,
    /// What proxies acknowledged.
    pub observed: Observed,
    /// The breakers of the whole mesh.
    pub fleet: Fleet,
    /// What became of UDPRoutes; `None` where enforcing them is switched off.
    pub enforced: Option<watch::Receiver<Option<Arc<Enforced>>>>,
    /// Which routes of the Gateway API are read.
    pub gateway_api: GatewayApi,
    /// Reports that a Revocation is in force.
    pub events: EventRecorder,
    /// Statuses written.
    pub written: Counter,
}

opaque_debug!(StatusWriter);

impl StatusWriter {
    /// Writes until dropped or until the model ends.
    pub(crate) async fn write(mut self) {
        let mut acks = self.observed.changes();
        let mut breakers = self.fleet.changes();
        // A breaker that is closed changes nothing for proxies, and its status shows it.
        let mut called = self.fleet.called_changes();
        let mut written = self.read_all().await;
        let mut enforced = self.enforced.clone();
        let mut last_problems: Option<Arc<Problems>> = None;
        let mut later = BTreeMap::new();
        // What becomes of UDPRoutes is read from the World, so then all is looked at.
        let mut all = true;
        // Pods that come and go change which proxies need an object, but never what it says.
        let mut pods: Store<PodFacts> = Store::default();
        let mut look_at_all: Option<Instant> = Some(self.observed.complete_at());
        let reads_routes = self.gateway_api != GatewayApi::Off;
        let mut recheck = reads_routes.then(|| Instant::now() + parents::RECHECK);
        loop {
            sleep(SETTLE).await;
            let now = Instant::now();
            if look_at_all.is_some_and(|at| at <= now) {
                look_at_all = None;
                all = true;
            }
            if recheck.is_some_and(|at| at <= now) {
                recheck = Some(now + parents::RECHECK);
                all |= parents::forget_dropped(&self.client, self.gateway_api, &mut written).await;
            }
            let touched = self.observed.take_touched(Consumer::Status);
            let Some(compiled) = self.latest.borrow_and_update().clone() else {
                if self.latest.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let scope = match (touched, &last_problems) {
                (Some(mut touched), Some(last_problems)) if !std::mem::take(&mut all) => {
                    if !Arc::ptr_eq(last_problems, &compiled.problems) {
                        touched.extend(compiled.problems.news(last_problems).cloned());
                    }
                    touched.extend(later.into_keys());
                    touched.extend(self.fleet.objects());
                    Some(touched)
                }
                _ => None,
            };
            later = self.write_due(&compiled, scope, &mut written).await;
            if !Arc::ptr_eq(&pods, &compiled.world.pods) {
                pods = compiled.world.pods.clone();
                look_at_all.get_or_insert(now + COUNT_EVERY);
            }
            let problems = last_problems.insert(compiled.problems.clone());
            drop(compiled);
            loop {
                let next = later.values().copied().chain(look_at_all);
                let next = next.chain(recheck).min();
                tokio::select! {
                    changed = self.latest.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let latest = self.latest.borrow();
                        let same = |new: &Arc<Compiled>| Arc::ptr_eq(&new.problems, problems);
                        let moved = |new: &Arc<Compiled>| !Arc::ptr_eq(&new.world.pods, &pods);
                        if latest.as_ref().is_some_and(moved) {
                            look_at_all.get_or_insert(Instant::now() + COUNT_EVERY);
                        }
                        all |= enforced.is_some();
                        // Endpoints come and go; most models say the same about objects.
                        if !all && latest.as_ref().is_some_and(same) {
                            continue;
                        }
                    }
                    () = next_change(&mut enforced) => all = true,
                    changed = acks.changed() => if changed.is_err() { return },
                    changed = breakers.changed() => if changed.is_err() { return },
                    changed = called.changed() => if changed.is_err() { return },
                    () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                }
                break;
            }
        }
    }

    /// What is stored already, so that times of change survive a new holder
    /// of the lease.
    async fn read_all(&self) -> BTreeMap<ObjectRef, Written> {
        let mut written = parents::read_all(&self.client, self.gateway_api).await;
        for (kind, resource) in kinds() {
            let api: Api<Item<DynamicObject>> = Api::all_with(self.client.clone(), &resource);
            match api.list(&ListParams::default()).await {
                Ok(list) => {
                    let readable = list.into_iter().filter_map(|Item(object)| object.ok());
                    written.extend(readable.map(|object| read(kind, &object)));
                }
                // Times of change start anew; the statuses themselves are right.
                Err(error) => warn!(kind = kind.as_str(), %error, "statuses could not be read"),
            }
        }
        written
    }

    /// Writes what is due of these objects, or of all. Returns which of them are due
    /// later, and when.
    async fn write_due(
        &self,
        compiled: &Compiled,
        scope: Option<BTreeSet<ObjectRef>>,
        written: &mut BTreeMap<ObjectRef, Written>,
    ) -> BTreeMap<ObjectRef, Instant> {
        let reports = &compiled.problems.reports;
        let enforced = self
            .enforced
            .as_ref()
            .map(|current| current.borrow().clone());
        let now = Instant::now();
        let mut later = self.leave(compiled, written, now).await;
        forget_gone(written, scope.as_ref(), |object| {
            reports.contains_key(object) || later.contains_key(object)
        });
        let mut objects: Vec<(&ObjectRef, &ObjectReport)> = match &scope {
            None => reports.iter().collect(),
            Some(scope) => {
                let known = scope.iter();
                let known = known.filter_map(|object| reports.get_key_value(object));
                known.collect()
            }
        };
        objects.retain(|(object, _)| has_status(object.kind) || parents::is_route(object.kind));
        let mut due = Vec::new();
        let mut unmeshed = Unmeshed::default();
        for (object, report) in objects {
            let tally = self
                .observed
                .tally(&compiled.model, object, report.generation);
            let mut status = Status::of(report, &tally);
            status.revoked = revoked::found(object, compiled);
            revoked::name_what_is_wrong(object, &mut status);
            status.with_shared_limits(&shared_limits(object, &compiled.world));
            let mut absent = tally.only_lacks_absent();
            status.breaker = self.fleet.report(object, now).map(WrittenBreaker::from);
            if let Some(enforced) = &enforced {
                let udp = udp::of(object, &compiled.world, enforced.as_deref());
                absent &= udp.as_ref().is_none_or(|udp| udp.lacks.is_none());
                status.with_udp(udp);
            }
            // Callers that come and go, as those of a CronJob, leave it as it is.
            if !tally.was_called {
                status.with_unneeded(|| unmeshed.of(object, &compiled.world));
            }
            status.with_bare(|| unmeshed.partly(object, compiled));
            match when(written.get_mut(object), &status, absent, now) {
                // What is counted goes on, and ends, without any message.
                When::Never if status.breaker.is_some() => {
                    later.insert(object.clone(), now + COUNT_EVERY);
                }
                When::Never => {}
                When::Now => due.push((object, status)),
                When::At(at) => drop(later.insert(object.clone(), at)),
            }
        }
        for batch in due.chunks(PARALLEL) {
            let writes = batch
                .iter()
                .map(|(object, status)| self.put(object, status, written.get(object)));
            let outcomes = join_all(writes).await;
            for ((object, status), outcome) in batch.iter().zip(outcomes) {
                match outcome {
                    Ok(new) => {
                        if status.breaker.is_some() {
                            later.insert((*object).clone(), now + COUNT_EVERY);
                        }
                        written.insert((*object).clone(), new);
                    }
                    Err(kube::Error::Api(status)) if status.is_not_found() => {
                        debug!(%object, "object is gone");
                        // Of a route perhaps its definition alone, and for a moment.
                        if parents::is_route(object.kind) {
                            later.insert((*object).clone(), now + parents::RECHECK);
                        }
                    }
                    Err(error) => {
                        warn!(%object, %error, "status not written");
                        later.insert((*object).clone(), now + RETRY);
                    }
                }
            }
        }
        later
    }

    /// Takes our entries out of routes that have no Service as parent any more. Returns those for
    /// which that has to be tried again, and when.
    async fn leave(
        &self,
        compiled: &Compiled,
        written: &mut BTreeMap<ObjectRef, Written>,
        now: Instant,
    ) -> BTreeMap<ObjectRef, Instant> {
        let mut later = BTreeMap::new();
        for (object, report) in parents::left(compiled, written) {
            let status = Status::of(&report, &Tally::default());
            match parents::put(&self.client, &object, &status).await {
                Ok(changed) => {
                    self.written.inc_by(changed.into());
                    written.remove(&object);
                }
                Err(kube::Error::Api(error)) if error.is_not_found() => {
                    written.remove(&object);
                }
                Err(error) => {
                    warn!(%object, %error, "status not written");
                    later.insert(object, now + RETRY);
                }
            }
        }
        later
    }

    async fn put(
        &self,
        object: &ObjectRef,
        status: &Status,
        before: Option<&Written>,
    ) -> Result<Written, kube::Error> {
        if parents::is_route(object.kind) {
            if parents::put(&self.client, object, status).await? {
                self.written.inc();
            }
            return Ok(Written::now(status.clone(), BTreeMap::new()));
        }
        let before = before.filter(|before| before.uid == status.uid);
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut since = BTreeMap::new();
        let mut conditions = Vec::new();
        for (name, condition) in &status.conditions {
            let word = word(condition);
            let at = match before.and_then(|before| before.since.get(*name)) {
                Some((current, at)) if current == word => at.clone(),
                _ => now.clone(),
            };
            conditions.push(json!({
                "type": name,
                "status": word,
                "reason": condition.reason,
                "message": condition.message,
                "observedGeneration": status.generation,
                "lastTransitionTime": at,
            }));
            since.insert((*name).to_owned(), (word.to_owned(), at));
        }
        let mut patch = json!({"status": {"summary": status.summary, "conditions": conditions}});
        if let Some(target) = &status.target {
            patch["status"]["target"] = json!(target);
        }
        if object.kind == Kind::TrafficPolicy {
            // Null takes it away.
            patch["status"]["breaker"] = status
                .breaker
                .as_ref()
                .map_or(Value::Null, WrittenBreaker::json);
        }
        if let Some(subjects) = revoked::json(&status.revoked) {
            patch["status"]["subjects"] = subjects;
        }
        if let Some(resource) = resource(object.kind) {
            let client = self.client.clone();
            let api: Api<Item<DynamicObject>> = match &*object.namespace {
                "" => Api::all_with(client, &resource),
                namespace => Api::namespaced_with(client, namespace, &resource),
            };
            let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
            let patched = api.patch_status(&object.name, &parameters, &patch).await?;
            if let Item(Ok(stored)) = patched {
                revoked::report_in_force(&self.events, (object, status), before, &stored);
            }
        }
        self.written.inc();
        Ok(Written::now(status.clone(), since))
    }
}

impl Written {
    /// A status that stands from now on.
    fn now(status: Status, since: BTreeMap<String, (String, String)>) -> Self {
        let [.., (_, programmed)] = &status.conditions;
        Self {
            since,
            uid: status.uid.clone(),
            at: Instant::now(),
            programmed: programmed.status.then_some(status.generation),
            lapsed: None,
            status: Some(status),
        }
    }
}

/// The limits of a policy that all pods of a Service keep together.
fn shared_limits(object: &ObjectRef, world: &World) -> Vec<Arc<str>> {
    if object.kind != Kind::TrafficPolicy {
        return Vec::new();
    }
    let key = ObjectKey {
        namespace: object.namespace.clone(),
        name: object.name.clone(),
    };
    let facts = world.policies.get(&key).into_iter();
    let limits = facts.flat_map(|facts| &facts.spec.sections.rate_limits);
    let shared = limits.filter(|limit| limit.scope == LimitScope::Service);
    shared.map(|limit| Arc::clone(&limit.name)).collect()
}

/// Forgets what was written of objects of this scope, or of all, that are gone.
fn forget_gone(
    written: &mut BTreeMap<ObjectRef, Written>,
    scope: Option<&BTreeSet<ObjectRef>>,
    is_there: impl Fn(&ObjectRef) -> bool,
) {
    match scope {
        None => written.retain(|object, _| is_there(object)),
        Some(scope) => {
            for gone in scope.iter().filter(|one| !is_there(one)) {
                written.remove(gone);
            }
        }
    }
}

/// Waits for a change; for ever when there never will be any.
async fn next_change(enforced: &mut Option<watch::Receiver<Option<Arc<Enforced>>>>) {
    let changed = match enforced {
        Some(enforced) => enforced.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

#[cfg(test)]
mod tests;
