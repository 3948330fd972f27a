//! Reconciles the NetworkPolicies in the API server with the plan.
//!
//! Each round reads the newest World, the existing policies, and the plan made of both. Edited
//! policies are restored, deleted ones created again, unwanted ones deleted first. Policies that
//! are not ours are never changed.
//!
//! Every policy of ours is owned by the ClusterRole that lets this reconciler write it. When the
//! chart takes that role away, because the value was switched off or the mesh is removed,
//! Kubernetes removes the policies with it, and no other component needs the right to do it.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use crds::item::Item;
use futures::StreamExt as _;
use k8s_openapi::api::networking::v1::{NetworkPolicy, NetworkPolicySpec};
use k8s_openapi::api::rbac::v1::ClusterRole;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, ObjectMeta, PostParams, Preconditions};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher;
use kube::{Api, Client, Resource as _};
use model::problem::few;
use model::translate;
use model::world::ObjectKey;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::{info, warn};

use super::live::{Live, Lives, MANAGER, OWNER_LABEL};
use super::plan::{Lack, Plan, TargetNeeds, plan};
use crate::apiserver::client::WATCH_SECONDS;
use crate::apiserver::events::{About, Event, EventRecorder, EventType};
use crate::latest_model::LatestModel;

/// ClusterRole with the rights that this needs; owner of all that it writes.
pub(crate) const ROLE: &str = "weft-network-policies";
/// Changes that come within this time are settled together.
const SETTLE: Duration = Duration::from_millis(50);
/// Least time from one write of a policy to the next one that is no deletion: a client that keeps
/// changing it must not make us hammer the API server.
const PACE: Duration = Duration::from_secs(1);
/// Pause before a write that failed is tried again.
const RETRY: Duration = Duration::from_secs(2);
/// Reasons that one condition's message gives.
const LISTED: usize = 4;

/// What is in force for each TrafficTarget with a UDPRoute.
pub(crate) type Enforced = BTreeMap<ObjectKey, InForce>;

/// Whether UDP is filtered as one TrafficTarget says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct InForce {
    /// Generation of the target that this is about.
    pub generation: i64,
    /// The UDPRoutes that it names, with the generations that this is about.
    pub routes: BTreeMap<Arc<str>, i64>,
    /// `None` when it is; else the reason in one word.
    pub lacks: Option<&'static str>,
    /// For people.
    pub message: String,
}

/// See the module.
#[derive(Clone)]
pub(crate) struct Reconciler {
    /// API server.
    pub client: Client,
    /// What is to be enforced.
    pub latest: LatestModel,
    /// Where accounts without protection are reported.
    pub events: EventRecorder,
    /// What became of it, for the conditions.
    pub enforced: watch::Sender<Option<Arc<Enforced>>>,
    /// Policies written and deleted.
    pub written: Counter,
}

opaque_debug!(Reconciler);

/// What is known between two rounds.
#[derive(Debug, Default)]
struct Progress {
    lives: Lives,
    relisted: Lives,
    listed: bool,
    /// Uid of the ClusterRole.
    owner: String,
    /// When each policy was written last.
    written: BTreeMap<ObjectKey, Instant>,
    /// What could not be written, and why.
    failed: BTreeMap<ObjectKey, String>,
    reported: BTreeMap<ObjectKey, Lack>,
}

impl Reconciler {
    /// Keeps the policies right until dropped. Runs on the Lease holder only.
    pub(crate) async fn keep(mut self) {
        let owner = loop {
            match owner(&self.client).await {
                Some(uid) => break uid,
                None => sleep(RETRY).await,
            }
        };
        let mut state = Progress {
            owner,
            ..Progress::default()
        };
        let api: Api<Item<NetworkPolicy>> = Api::all(self.client.clone());
        let config = watcher::Config::default().timeout(WATCH_SECONDS);
        let policies = kube::runtime::watcher(api, config);
        let mut policies = pin!(policies.default_backoff());
        let mut due = Some(Instant::now());
        loop {
            tokio::select! {
                event = policies.next() => match event {
                    Some(Ok(event)) => state.take(event),
                    Some(Err(error)) => {
                        warn!(%error, "watching NetworkPolicies failed");
                        continue;
                    }
                    None => return,
                },
                changed = self.latest.changed() => if changed.is_err() { return },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = self.round(&mut state).await;
                    continue;
                }
            }
            let soon = Instant::now() + SETTLE;
            due = Some(due.map_or(soon, |due| due.min(soon)));
        }
    }

    /// Does what is needed. Returns when to look again, if nothing happens before.
    async fn round(&mut self, state: &mut Progress) -> Option<Instant> {
        let compiled = self.latest.borrow_and_update().clone()?;
        if !state.listed {
            return None;
        }
        let plan = plan(&compiled.model, &state.lives);
        self.report(&plan, state);
        let due = self.carry_out(&plan, state).await;
        let enforced: Enforced = plan
            .targets
            .iter()
            .map(|(target, needs)| (target.clone(), state.in_force(needs, &plan)))
            .collect();
        self.enforced.send_if_modified(|current| {
            let news = current.as_deref() != Some(&enforced);
            if news {
                *current = Some(Arc::new(enforced));
            }
            news
        });
        due
    }

    async fn carry_out(&self, plan: &Plan, state: &mut Progress) -> Option<Instant> {
        let wanted = &plan.policies;
        state.failed.retain(|key, _| wanted.contains_key(key));
        let steps = state.steps(plan);
        if !steps.is_empty() {
            // A role that was made anew is another owner.
            match owner(&self.client).await {
                Some(uid) => state.owner = uid,
                None => return Some(Instant::now() + RETRY),
            }
        }
        let now = Instant::now();
        state.written.retain(|_, at| now < *at + PACE);
        let mut due: Option<Instant> = None;
        for (key, step) in steps {
            // Taking back what must not be allowed never waits.
            let paced = !matches!(step, Step::Delete { .. });
            let again = match state.written.get(&key).filter(|_| paced) {
                Some(at) => Some(*at + PACE),
                None => {
                    state.written.insert(key.clone(), now);
                    let outcome = self.act(&key, &step, state).await;
                    state.note(&key, &step, outcome, &self.written)
                }
            };
            if let Some(again) = again {
                due = Some(due.map_or(again, |due| due.min(again)));
            }
        }
        due
    }

    async fn act(
        &self,
        key: &ObjectKey,
        step: &Step<'_>,
        state: &Progress,
    ) -> Result<Option<Live>, kube::Error> {
        let api: Api<NetworkPolicy> = Api::namespaced(self.client.clone(), &key.namespace);
        let params = PostParams {
            field_manager: Some(MANAGER.to_owned()),
            ..PostParams::default()
        };
        match step {
            Step::Delete { uid } => {
                // No other object of that name than the one that was judged.
                let params = DeleteParams::default().preconditions(Preconditions {
                    uid: Some(uid.clone()).filter(|uid| !uid.is_empty()),
                    resource_version: None,
                });
                api.delete(&key.name, &params).await?;
                Ok(None)
            }
            Step::Create { spec } => {
                let policy = policy(key, spec, &state.owner, None);
                Ok(Some(api.create(&params, &policy).await?.into()))
            }
            Step::Replace { spec, version } => {
                let policy = policy(key, spec, &state.owner, Some(version.clone()));
                let policy = api.replace(&key.name, &params, &policy).await?;
                Ok(Some(policy.into()))
            }
        }
    }

    /// Reports which accounts are not protected as their mode requires. Targets have conditions; an
    /// account that no target names has nothing else.
    fn report(&self, plan: &Plan, state: &mut Progress) {
        for (account, lack) in &plan.unprotected {
            if state.reported.get(account) == Some(lack) {
                continue;
            }
            self.events.record(Event {
                about: About {
                    api_version: "v1".to_owned(),
                    kind: "ServiceAccount".to_owned(),
                    namespace: account.namespace.to_string(),
                    name: account.name.to_string(),
                    uid: String::new(),
                },
                event_type: EventType::Warning,
                reason: lack.reason.as_str(),
                action: "FilterUdp",
                text: lack.message.clone(),
            });
        }
        state.reported.clone_from(&plan.unprotected);
    }
}

/// One call.
#[derive(Debug, PartialEq)]
enum Step<'a> {
    Delete {
        uid: String,
    },
    Create {
        spec: &'a NetworkPolicySpec,
    },
    Replace {
        spec: &'a NetworkPolicySpec,
        version: String,
    },
}

impl Progress {
    fn take(&mut self, event: watcher::Event<Item<NetworkPolicy>>) {
        match event {
            watcher::Event::Apply(policy) => {
                self.lives
                    .insert(translate::key(policy.meta()), live(policy));
            }
            watcher::Event::Delete(policy) => {
                self.lives.remove(&translate::key(policy.meta()));
            }
            watcher::Event::Init => self.relisted.clear(),
            watcher::Event::InitApply(policy) => {
                self.relisted
                    .insert(translate::key(policy.meta()), live(policy));
            }
            watcher::Event::InitDone => {
                self.lives = std::mem::take(&mut self.relisted);
                self.listed = true;
            }
        }
    }

    /// What is to be done, deletions first: they take back what should not be allowed.
    fn steps<'a>(&mut self, plan: &'a Plan) -> Vec<(ObjectKey, Step<'a>)> {
        let unwanted = self.lives.iter();
        let unwanted =
            unwanted.filter(|(key, live)| live.ours && !plan.policies.contains_key(*key));
        let mut steps: Vec<(ObjectKey, Step<'a>)> = unwanted
            .map(|(key, live)| {
                let uid = live.uid.clone();
                (key.clone(), Step::Delete { uid })
            })
            .collect();
        for (key, spec) in &plan.policies {
            match self.lives.get(key) {
                None => steps.push((key.clone(), Step::Create { spec })),
                Some(live) if !live.ours => {
                    let message = format!(
                        "NetworkPolicy {} has a name of Weft's and was written by another client; \
                         delete it",
                        key.name
                    );
                    self.failed.insert(key.clone(), message);
                }
                Some(live) if self.is_right(live, spec) => {}
                Some(live) => {
                    let version = live.resource_version.clone();
                    steps.push((key.clone(), Step::Replace { spec, version }));
                }
            }
        }
        steps
    }

    fn is_right(&self, live: &Live, spec: &NetworkPolicySpec) -> bool {
        live.spec == *spec && live.owners == [self.owner.as_str()]
    }

    /// Takes down how a step ended. Returns when to try again.
    fn note(
        &mut self,
        key: &ObjectKey,
        step: &Step<'_>,
        outcome: Result<Option<Live>, kube::Error>,
        written: &Counter,
    ) -> Option<Instant> {
        match outcome {
            Ok(live) => {
                written.inc();
                self.failed.remove(key);
                match live {
                    Some(live) => {
                        info!(policy = %key, "NetworkPolicy written");
                        self.lives.insert(key.clone(), Arc::new(live));
                    }
                    None => {
                        info!(policy = %key, "NetworkPolicy withdrawn");
                        self.lives.remove(key);
                    }
                }
                None
            }
            // Another client deleted it, which was the wish.
            Err(kube::Error::Api(status))
                if status.is_not_found() && matches!(step, Step::Delete { .. }) =>
            {
                self.lives.remove(key);
                None
            }
            Err(error) => {
                // The watch brings what is different in a moment, if it was that.
                warn!(policy = %key, %error, "NetworkPolicy not written");
                let message = format!("NetworkPolicy {} cannot be written: {error}", key.name);
                self.failed.insert(key.clone(), message);
                Some(Instant::now() + RETRY)
            }
        }
    }

    fn in_force(&self, needs: &TargetNeeds, plan: &Plan) -> InForce {
        let generation = needs.generation;
        let lacking = |reason, message| InForce {
            generation,
            routes: needs.routes.clone(),
            lacks: Some(reason),
            message,
        };
        if let Some(worst) = needs.lacks.first() {
            let all = needs.lacks.iter().take(LISTED);
            let all: Vec<&str> = all.map(|lack| lack.message.as_str()).collect();
            return lacking(worst.reason.as_str(), all.join("; "));
        }
        if let Some(message) = needs.policies.iter().find_map(|key| self.failed.get(key)) {
            return lacking("NetworkPolicyNotWritten", message.clone());
        }
        let stands = |key: &&ObjectKey| {
            let both = self.lives.get(*key).zip(plan.policies.get(*key));
            both.is_some_and(|(live, spec)| live.ours && self.is_right(live, spec))
        };
        if let Some(missing) = needs.policies.iter().find(|key| !stands(key)) {
            let message = format!("NetworkPolicy {} is being written", missing.name);
            return lacking("Pending", message);
        }
        let names = needs.policies.iter().map(|key| &key.name);
        let message = if needs.policies.is_empty() {
            "UDP needs no NetworkPolicy: nothing is refused in the destination's access mode"
                .to_owned()
        } else {
            format!("UDP by NetworkPolicy {}", few(names))
        };
        InForce {
            generation,
            routes: needs.routes.clone(),
            lacks: None,
            message,
        }
    }
}

fn policy(
    key: &ObjectKey,
    spec: &NetworkPolicySpec,
    owner: &str,
    resource_version: Option<String>,
) -> NetworkPolicy {
    let (label, value) = OWNER_LABEL;
    NetworkPolicy {
        metadata: ObjectMeta {
            name: Some(key.name.to_string()),
            namespace: Some(key.namespace.to_string()),
            labels: Some(BTreeMap::from([(label.to_owned(), value.to_owned())])),
            resource_version,
            owner_references: Some(vec![OwnerReference {
                api_version: "rbac.authorization.k8s.io/v1".to_owned(),
                kind: "ClusterRole".to_owned(),
                name: ROLE.to_owned(),
                uid: owner.to_owned(),
                controller: None,
                block_owner_deletion: None,
            }]),
            ..ObjectMeta::default()
        },
        spec: Some(spec.clone()),
    }
}

/// A policy that cannot be read counts as another owner's, for every pod of its namespace: ours
/// must never widen what it may say.
fn live(policy: Item<NetworkPolicy>) -> Arc<Live> {
    Arc::new(policy.or_empty().into())
}

/// Uid of the ClusterRole. Without it nothing is written: nothing would remove it.
async fn owner(client: &Client) -> Option<String> {
    let roles: Api<ClusterRole> = Api::all(client.clone());
    match roles.get_metadata(ROLE).await {
        Ok(role) => role.metadata.uid.filter(|uid| !uid.is_empty()),
        Err(error) => {
            warn!(%error, role = ROLE, "no rights to write NetworkPolicies");
            None
        }
    }
}

#[cfg(test)]
mod tests;
