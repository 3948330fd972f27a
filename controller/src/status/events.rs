//! Turns problems found by compiling into Events. Only the Lease holder records them.
//!
//! Problems with SMI objects are in their conditions too; Services, Pods and Namespaces have only
//! the Event. Three facts are no problems of an object but surprise its owner: a pod on its node's
//! network that the mesh skips, a workload that became open because its last TrafficTarget was
//! deleted, and a request for injection that is misspelled and so has no effect.
//!
//! A new Lease holder reports all problems when it begins to lead. That a workload became open can
//! be seen only when it happens, so every replica looks for that, and the next leader reports
//! recent cases: the former holder may have been killed before it could.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crds::{inject, labels};
use model::PodId;
use model::compiled::Compiled;
use model::problem::{Problem, Severity};
use model::world::{Annotations, ObjectKey, PodFacts, World};
use policy::mode::AccessMode;
use policy::name::{Kind, ObjectRef};
use tokio::time::{Instant, sleep};

use super::conditions::api_version;
use crate::apiserver::events::{About, Event, EventRecorder, EventType};
use crate::apiserver::lease::{self, Leadership};
use crate::latest_model::LatestModel;

/// Between two looks at the newest model. An Event may be a second late.
const PAUSE: Duration = Duration::from_secs(1);
/// The reason of an Event that a workload opened.
const OPENED: &str = "NoTrafficTarget";
/// From when a holder of the Lease is killed until another one leads, and has looked, on a busy
/// machine too: to see a note twice is better than never.
const HANDOVER: Duration = Duration::from_secs(lease::DURATION.as_secs() + 15);
/// As many as wait to be written at most.
const MAX_PENDING: usize = 512;

/// Reports what is new in every model, while this replica leads, until the models end.
pub(crate) async fn report(
    mut latest: LatestModel,
    mut leadership: Leadership,
    events: EventRecorder,
) {
    let mut reported = EventState::default();
    let mut pending = PendingEvents::default();
    let mut before: Option<Arc<Compiled>> = None;
    let mut led = false;
    loop {
        let leads = leadership.is_held();
        if leads && !led {
            for note in pending.take() {
                events.record_action(note);
            }
            // The leader before may not have reported what is wrong.
            reported.begin_anew();
            before = None;
        }
        led = leads;
        let compiled = latest.borrow_and_update().clone();
        if let Some(compiled) = compiled {
            if before.is_none_or(|before| may_be_news(&before, &compiled)) {
                if leads {
                    tell(&events, reported.news(&compiled));
                } else {
                    pending.keep(reported.opened(&compiled));
                }
            }
            before = Some(compiled);
            // Pods come and go all the time, and every look is one at all of them.
            sleep(PAUSE).await;
        }
        let turned = async {
            if leads {
                leadership.lost().await;
            } else {
                leadership.acquired().await;
            }
        };
        tokio::select! {
            changed = latest.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = turned => {}
        }
    }
}

fn tell(events: &EventRecorder, notes: Vec<Event>) {
    for note in notes {
        if note.reason == OPENED {
            // It opened, was closed and opens again: each time counts.
            events.record_action(note);
        } else {
            events.record(note);
        }
    }
}

/// What opened while another replica led, or none.
#[derive(Debug, Default)]
struct PendingEvents(Vec<(Instant, Event)>);

impl PendingEvents {
    fn keep(&mut self, opened: Vec<Event>) {
        let now = Instant::now();
        self.0.retain(|(at, _)| now.duration_since(*at) < HANDOVER);
        self.0.extend(opened.into_iter().map(|note| (now, note)));
        // What opened last is what the holder before is least likely to have reported.
        self.0.drain(..self.0.len().saturating_sub(MAX_PENDING));
    }

    /// Those of which the holder before may have said nothing.
    fn take(&mut self) -> Vec<Event> {
        let kept = std::mem::take(&mut self.0).into_iter();
        let recent = kept.filter(|(at, _)| at.elapsed() < HANDOVER);
        recent.map(|(_, note)| note).collect()
    }
}

/// Whether anything differs that notes are about. Endpoints come and go all the time,
/// and are not.
fn may_be_news(before: &Compiled, now: &Compiled) -> bool {
    let (was, is) = (&before.world, &now.world);
    !(Arc::ptr_eq(&before.problems, &now.problems)
        && Arc::ptr_eq(&was.pods, &is.pods)
        && Arc::ptr_eq(&was.namespaces, &is.namespaces)
        && now.model.has_targets_of(&before.model))
}

#[derive(Debug, Default)]
struct EventState {
    problems: BTreeSet<Problem>,
    skipped: BTreeSet<PodId>,
    misspelled: BTreeMap<ObjectRef, String>,
    /// Pods that some TrafficTarget protects.
    protected: Option<BTreeSet<PodId>>,
}

impl EventState {
    /// All that is wrong is new again. Which pods were protected is still known.
    fn begin_anew(&mut self) {
        *self = Self {
            protected: self.protected.take(),
            ..Self::default()
        };
    }

    /// Which workloads opened since the last look.
    fn opened(&mut self, compiled: &Compiled) -> Vec<Event> {
        let protected = compiled.model.protected_pods();
        let before = self.protected.as_ref();
        let opened = before.map(|before| about_opened(compiled, before.difference(&protected)));
        self.protected = Some(protected);
        opened.unwrap_or_default()
    }

    fn news(&mut self, compiled: &Compiled) -> Vec<Event> {
        // First: nothing else says that a workload opened, and what does not fit into the
        // queue is lost.
        let mut notes = self.opened(compiled);

        let problems = reported_problems(compiled);
        notes.extend(
            problems
                .difference(&self.problems)
                .map(|problem| about_problem(compiled, problem)),
        );
        self.problems = problems;

        let skipped: BTreeSet<PodId> = skipped(&compiled.world);
        notes.extend(
            skipped
                .difference(&self.skipped)
                .map(|pod| about_skipped(&compiled.world, pod)),
        );
        self.skipped = skipped;

        let misspelled = misspelled(&compiled.world);
        let unheard = misspelled
            .iter()
            .filter(|(object, text)| self.misspelled.get(object) != Some(text));
        notes.extend(unheard.map(|(object, text)| about_misspelled(&compiled.world, object, text)));
        self.misspelled = misspelled;
        notes
    }
}

/// Counts notes that tell pods of one account the same. What makes those pods has to be
/// changed, and a note for each of a thousand would leave no room for others.
#[derive(Debug)]
struct FewOfAccount<K>(BTreeMap<(ObjectKey, K), usize>);

impl<K: Ord> FewOfAccount<K> {
    fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Whether the pod is among the few that get an Event about `what`.
    fn admits(&mut self, pod: &PodId, facts: &PodFacts, what: K) -> bool {
        let account = ObjectKey {
            namespace: pod.namespace.clone(),
            name: facts.service_account.clone(),
        };
        let reported = self.0.entry((account, what)).or_default();
        *reported += 1;
        *reported <= MAX_EVENTS
    }
}

/// Problems that become Events: of those of the pods of one account a few.
fn reported_problems(compiled: &Compiled) -> BTreeSet<Problem> {
    let all: BTreeSet<&Problem> = compiled.problems.list.iter().collect();
    let mut few = FewOfAccount::new();
    let mut reported = BTreeSet::new();
    for problem in all {
        let object = &problem.object;
        if object.kind == Kind::Pod {
            let pod = PodId::new(&object.namespace, &object.name);
            let message = problem.message.as_str();
            let what = (problem.reason, problem.field.as_str(), message);
            let facts = compiled.world.pods.get(&pod);
            if facts.is_some_and(|facts| !few.admits(&pod, facts, what)) {
                continue;
            }
        }
        reported.insert(problem.clone());
    }
    reported
}

fn about_problem(compiled: &Compiled, problem: &Problem) -> Event {
    let object = &problem.object;
    let uid = match object.kind {
        Kind::Pod => {
            let pod = PodId::new(&object.namespace, &object.name);
            compiled
                .world
                .pods
                .get(&pod)
                .map(|facts| facts.uid.to_string())
        }
        Kind::Namespace => {
            let facts = compiled.world.namespace(&object.name);
            facts.map(|facts| facts.uid.to_string())
        }
        Kind::Service => {
            let service = ObjectKey::new(&object.namespace, &object.name);
            let facts = compiled.world.services.get(&service);
            facts.map(|facts| facts.uid.to_string())
        }
        _ => compiled
            .problems
            .reports
            .get(object)
            .map(|report| report.uid.to_string()),
    };
    let text = match problem.field.as_str() {
        "" => problem.message.clone(),
        field => format!("{field}: {}", problem.message),
    };
    // What has no conditions has nothing but the Event.
    let has_conditions = compiled.problems.reports.contains_key(object);
    Event {
        about: about(object, uid),
        event_type: match problem.severity {
            Severity::Warning if has_conditions => EventType::Normal,
            Severity::Failure | Severity::Warning => EventType::Warning,
        },
        reason: problem.reason.as_str(),
        action: "Compile",
        text,
    }
}

fn about(object: &ObjectRef, uid: Option<String>) -> About {
    About {
        api_version: api_version(object.kind),
        kind: object.kind.word().to_owned(),
        namespace: object.namespace.to_string(),
        name: object.name.to_string(),
        uid: uid.unwrap_or_default(),
    }
}

/// Pods whose annotation or namespace requests a proxy, and that cannot have one because they share
/// their node's network; of those of one account a few.
fn skipped(world: &World) -> BTreeSet<PodId> {
    let mut few = FewOfAccount::new();
    let pods = world
        .pods
        .iter()
        .filter(|(_, facts)| facts.host_network && !facts.ended);
    pods.filter(|(pod, facts)| {
        let own = facts.labels.get(labels::INJECT);
        let namespace = world
            .namespace(&pod.namespace)
            .and_then(|facts| facts.labels.get(labels::INJECT));
        own.or(namespace)
            .is_some_and(|value| &**value == labels::ENABLED)
            && few.admits(pod, facts, ())
    })
    .map(|(pod, _)| pod.clone())
    .collect()
}

fn about_skipped(world: &World, pod: &PodId) -> Event {
    let object = ObjectRef::new(Kind::Pod, pod.namespace.clone(), pod.name.clone());
    let uid = world.pods.get(pod).map(|facts| facts.uid.to_string());
    Event {
        about: about(&object, uid),
        event_type: EventType::Warning,
        reason: "HostNetworkSkipped",
        action: "Inject",
        text: "the pod uses its node's network (hostNetwork), so it got no proxy and is not part of the mesh".to_owned(),
    }
}

/// Namespaces, and pods without a proxy, that request one in a way that is not read. Of the pods of
/// one account a few: what makes them has to be changed.
fn misspelled(world: &World) -> BTreeMap<ObjectRef, String> {
    let wrong = |labels: &BTreeMap<Arc<str>, Arc<str>>, annotations: &Annotations| {
        inject::misspelled(
            labels.get(labels::INJECT).map(AsRef::as_ref),
            annotations.inject.as_deref(),
        )
    };
    let namespaces = world.namespaces.iter().filter_map(|(key, facts)| {
        let text = wrong(&facts.labels, &facts.annotations)?;
        Some((ObjectRef::new(Kind::Namespace, "", key.name.clone()), text))
    });
    let mut few = FewOfAccount::new();
    let pods = world.pods.iter().filter_map(|(pod, facts)| {
        if facts.ended || facts.proxy.is_some() {
            return None;
        }
        let text = wrong(&facts.labels, &facts.annotations)?;
        let object = ObjectRef::new(Kind::Pod, pod.namespace.clone(), pod.name.clone());
        few.admits(pod, facts, ()).then_some((object, text))
    });
    namespaces.chain(pods).collect()
}

fn about_misspelled(world: &World, object: &ObjectRef, text: &str) -> Event {
    let uid = match object.kind {
        Kind::Namespace => world.namespace(&object.name).map(|facts| facts.uid.clone()),
        _ => {
            let pod = PodId::new(&object.namespace, &object.name);
            world.pods.get(&pod).map(|facts| facts.uid.clone())
        }
    };
    Event {
        about: about(object, uid.map(|uid| uid.to_string())),
        event_type: EventType::Warning,
        reason: "InjectNotUnderstood",
        action: "Inject",
        text: text.to_owned(),
    }
}

/// One Event per pod whose last TrafficTarget went, as far as that opened it: in the
/// other modes no target decides between open and closed.
fn about_opened<'a>(compiled: &Compiled, pods: impl Iterator<Item = &'a PodId>) -> Vec<Event> {
    let mut notes = Vec::new();
    let mut few = FewOfAccount::new();
    for pod in pods {
        let facts = match compiled.world.pods.get(pod) {
            Some(facts) if !facts.ended => facts,
            _ => continue,
        };
        let opened = compiled.model.access_mode(pod) == Some(AccessMode::Auto);
        if !opened || !few.admits(pod, facts, ()) {
            continue;
        }
        notes.push(Event {
            about: about(
                &ObjectRef::new(Kind::Pod, pod.namespace.clone(), pod.name.clone()),
                Some(facts.uid.to_string()),
            ),
            event_type: EventType::Warning,
            reason: OPENED,
            action: "Compile",
            text: format!(
                "no TrafficTarget names this pod's service account {} or an IdentityBinding of \
                 it any more: in access mode auto every caller is served now",
                facts.service_account
            ),
        });
    }
    notes
}

/// Pods of one workload that get the same note; one would do.
const MAX_EVENTS: usize = 3;

#[cfg(test)]
mod tests;
