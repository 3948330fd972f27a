//! Writes what an object's author should know into its status.
//!
//! `Accepted` and `ResolvedRefs` come from compiling. `Programmed` counts the
//! proxies that need the object and have acknowledged its generation. A changed
//! status, reason or generation is written at once; counts that only tick are
//! written at most every [`COUNT_EVERY`] per object, because each write wakes
//! every watcher of the kind.
//!
//! Only the Lease holder runs this.

mod udp;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::item::Item;
use crds::smi::{HTTPRouteGroup, IdentityBinding, TCPRoute, TrafficSplit, TrafficTarget, UDPRoute};
use futures::future::join_all;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ListParams, Patch, PatchParams};
use kube::core::{ApiResource, DynamicObject};
use kube::{Api, Client};
use policy::name::{Kind, ObjectRef};
use prometheus_client::metrics::counter::Counter;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{debug, warn};

use crate::compiled::{Compiled, Latest};
use crate::network_policy::{Enforced, InForce};
use crate::observed::{Observed, Reader, Tally};
use crate::problem::{Condition, Problems, Verdict};

/// Time between two writes of an object whose counts only tick.
pub const COUNT_EVERY: Duration = Duration::from_secs(5);
/// Changes that come within this time are written together; the streams take
/// about as long to see a new model.
const SETTLE: Duration = Duration::from_millis(100);
/// Pause before a failed write is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Writes under way at one time.
const PARALLEL: usize = 8;
/// The kinds that have a status.
const KINDS: [Kind; 6] = [
    Kind::TrafficSplit,
    Kind::TrafficTarget,
    Kind::IdentityBinding,
    Kind::HttpRouteGroup,
    Kind::TcpRoute,
    Kind::UdpRoute,
];

/// Writes the statuses.
#[derive(Clone)]
pub struct StatusWriter {
    /// API server.
    pub client: Client,
    /// What compiling found.
    pub latest: Latest,
    /// What proxies acknowledged.
    pub observed: Observed,
    /// What became of UDPRoutes; `None` where nobody asked to enforce them.
    pub enforced: Option<watch::Receiver<Option<Arc<Enforced>>>>,
    /// Statuses written.
    pub written: Counter,
}

opaque_debug!(StatusWriter);

/// A status as it should stand in the API server, without times.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Status {
    uid: String,
    generation: i64,
    summary: String,
    conditions: [(&'static str, Condition); 3],
}

/// A status as it stands there.
#[derive(Clone, Debug)]
struct Written {
    /// None: it was read, not written by this process.
    status: Option<Status>,
    /// When each condition last changed, RFC 3339, and its status then.
    since: BTreeMap<String, (String, String)>,
    uid: String,
    at: Instant,
}

/// What to do about a status that differs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Never,
    Now,
    At(Instant),
}

impl StatusWriter {
    /// Writes until dropped or until the model ends.
    pub async fn write(mut self) {
        let mut acks = self.observed.changes();
        let mut written = self.read_all().await;
        let mut enforced = self.enforced.clone();
        let mut said: Option<Arc<Problems>> = None;
        let mut later = BTreeMap::new();
        // What becomes of UDPRoutes is read from the World, so then all is looked at.
        let mut all = true;
        loop {
            sleep(SETTLE).await;
            let touched = self.observed.take_touched(Reader::Status);
            let Some(compiled) = self.latest.borrow_and_update().clone() else {
                if self.latest.changed().await.is_err() {
                    return;
                }
                continue;
            };
            let scope = match (touched, &said) {
                (Some(mut touched), Some(said)) if !std::mem::take(&mut all) => {
                    if !Arc::ptr_eq(said, &compiled.problems) {
                        touched.extend(compiled.problems.news(said).cloned());
                    }
                    touched.extend(later.into_keys());
                    Some(touched)
                }
                _ => None,
            };
            later = self.write_due(&compiled, scope, &mut written).await;
            let problems = said.insert(compiled.problems.clone());
            drop(compiled);
            loop {
                let next = later.values().min().copied();
                tokio::select! {
                    changed = self.latest.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        let latest = self.latest.borrow();
                        let same = |new: &Arc<Compiled>| Arc::ptr_eq(&new.problems, problems);
                        all |= enforced.is_some();
                        // Endpoints come and go; most models say the same about objects.
                        if !all && latest.as_ref().is_some_and(same) {
                            continue;
                        }
                    }
                    () = next_change(&mut enforced) => all = true,
                    changed = acks.changed() => if changed.is_err() { return },
                    () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
                }
                break;
            }
        }
    }

    /// What stands there already, so that times of change survive a new holder
    /// of the lease.
    async fn read_all(&self) -> BTreeMap<ObjectRef, Written> {
        let mut written = BTreeMap::new();
        for kind in KINDS {
            let Some(resource) = resource(kind) else {
                continue;
            };
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
        let verdicts = &compiled.problems.verdicts;
        let enforced = self.enforced.as_ref().map(|held| held.borrow().clone());
        let objects: Vec<(&ObjectRef, &Verdict)> = match &scope {
            None => {
                written.retain(|object, _| verdicts.contains_key(object));
                verdicts.iter().collect()
            }
            Some(scope) => {
                for gone in scope
                    .iter()
                    .filter(|object| !verdicts.contains_key(*object))
                {
                    written.remove(gone);
                }
                let known = scope
                    .iter()
                    .filter_map(|object| verdicts.get_key_value(object));
                known.collect()
            }
        };
        let now = Instant::now();
        let mut later = BTreeMap::new();
        let mut due = Vec::new();
        for (object, verdict) in objects {
            let tally = self.observed.tally(object, verdict.generation);
            let mut status = Status::of(verdict, &tally);
            if let Some(enforced) = &enforced {
                status.with_udp(udp::of(object, &compiled.world, enforced.as_deref()));
            }
            match when(written.get(object), &status, now) {
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
            for ((object, _), outcome) in batch.iter().zip(outcomes) {
                match outcome {
                    Ok(new) => {
                        self.written.inc();
                        written.insert((*object).clone(), new);
                    }
                    Err(kube::Error::Api(status)) if status.is_not_found() => {
                        debug!(%object, "object is gone");
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

    async fn put(
        &self,
        object: &ObjectRef,
        status: &Status,
        before: Option<&Written>,
    ) -> Result<Written, kube::Error> {
        let before = before.filter(|before| before.uid == status.uid);
        let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
        let mut since = BTreeMap::new();
        let mut conditions = Vec::new();
        for (name, condition) in &status.conditions {
            let word = word(condition);
            let at = match before.and_then(|before| before.since.get(*name)) {
                Some((held, at)) if held == word => at.clone(),
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
        let patch = json!({"status": {"summary": status.summary, "conditions": conditions}});
        if let Some(resource) = resource(object.kind) {
            let api: Api<Item<DynamicObject>> =
                Api::namespaced_with(self.client.clone(), &object.namespace, &resource);
            api.patch_status(&object.name, &PatchParams::default(), &Patch::Merge(&patch))
                .await?;
        }
        Ok(Written {
            status: Some(status.clone()),
            since,
            uid: status.uid.clone(),
            at: Instant::now(),
        })
    }
}

impl Status {
    fn of(verdict: &Verdict, tally: &Tally) -> Self {
        Self {
            uid: verdict.uid.to_string(),
            generation: verdict.generation,
            summary: verdict.summary.clone(),
            conditions: [
                (crds::smi::ACCEPTED, verdict.accepted.clone()),
                (crds::smi::RESOLVED_REFS, verdict.resolved_refs.clone()),
                (
                    crds::smi::PROGRAMMED,
                    programmed(verdict.accepted.status, tally),
                ),
            ],
        }
    }

    /// Adds what is known about UDP, if that is part of the object.
    fn with_udp(&mut self, udp: Option<InForce>) {
        let Some(udp) = udp else { return };
        let [.., (_, condition)] = &mut self.conditions;
        condition.message = format!("{}; {}", condition.message, udp.message);
        match udp.lacks {
            // What a proxy could not use is the worse news.
            Some(reason) if condition.reason != "Nacked" => {
                condition.status = false;
                condition.reason = reason;
            }
            None if condition.reason == "NoProxies" && condition.status => {
                condition.reason = "Programmed";
            }
            _ => {}
        }
    }

    /// Equal but for the counts in messages.
    fn differs_only_in_counts(&self, other: &Self) -> bool {
        let mut counted = other.clone();
        counted.conditions[2]
            .1
            .message
            .clone_from(&self.conditions[2].1.message);
        counted == *self && self != other
    }
}

fn programmed(accepted: bool, tally: &Tally) -> Condition {
    let Tally {
        needed,
        acknowledged,
        nack,
    } = tally;
    let mut message = format!("{acknowledged} of {needed} proxies");
    let (status, reason) = if let Some((pod, why)) = nack {
        message = format!("{message}; {pod} could not use it: {why}");
        (false, "Nacked")
    } else if *needed == 0 {
        (accepted, "NoProxies")
    } else if acknowledged == needed {
        (accepted, if accepted { "Programmed" } else { "Pending" })
    } else {
        (false, "Pending")
    };
    Condition {
        status,
        reason,
        message,
    }
}

fn when(before: Option<&Written>, status: &Status, now: Instant) -> When {
    let Some(before) = before.filter(|before| before.uid == status.uid) else {
        return When::Now;
    };
    match &before.status {
        Some(held) if held == status => When::Never,
        Some(held) if status.differs_only_in_counts(held) => {
            let at = before.at + COUNT_EVERY;
            if at <= now { When::Now } else { When::At(at) }
        }
        _ => When::Now,
    }
}

/// Waits for news; for ever when there never will be any.
async fn next_change(enforced: &mut Option<watch::Receiver<Option<Arc<Enforced>>>>) {
    let changed = match enforced {
        Some(enforced) => enforced.changed().await.is_ok(),
        None => false,
    };
    if !changed {
        std::future::pending().await
    }
}

fn word(condition: &Condition) -> &'static str {
    if condition.status { "True" } else { "False" }
}

fn read(kind: Kind, object: &DynamicObject) -> (ObjectRef, Written) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let conditions = object.data["status"]["conditions"].as_array();
    let since = conditions
        .into_iter()
        .flatten()
        .map(|held| {
            let entry = (text(&held["status"]), text(&held["lastTransitionTime"]));
            (text(&held["type"]), entry)
        })
        .collect();
    let meta = &object.metadata;
    let name = ObjectRef {
        kind,
        namespace: meta.namespace.as_deref().unwrap_or_default().into(),
        name: meta.name.as_deref().unwrap_or_default().into(),
    };
    let uid = meta.uid.clone().unwrap_or_default();
    (
        name,
        Written {
            status: None,
            since,
            uid,
            at: Instant::now(),
        },
    )
}

/// How the API names a kind; none for kinds whose status is not ours.
fn resource(kind: Kind) -> Option<ApiResource> {
    Some(match kind {
        Kind::TrafficSplit => ApiResource::erase::<TrafficSplit>(&()),
        Kind::TrafficTarget => ApiResource::erase::<TrafficTarget>(&()),
        Kind::HttpRouteGroup => ApiResource::erase::<HTTPRouteGroup>(&()),
        Kind::TcpRoute => ApiResource::erase::<TCPRoute>(&()),
        Kind::UdpRoute => ApiResource::erase::<UDPRoute>(&()),
        Kind::IdentityBinding => ApiResource::erase::<IdentityBinding>(&()),
        _ => return None,
    })
}

/// `group/version` of a kind, as Events name it.
pub(crate) fn api_version(kind: Kind) -> String {
    resource(kind).map_or_else(|| "v1".to_owned(), |resource| resource.api_version)
}

#[cfg(test)]
#[path = "status/tests.rs"]
mod tests;
