//! The index of each proxy among those of its workload, and their number.
//!
//! Proxies that use a part of a large Service get the exact number. Others only share what their
//! workload may do, such as its retries without savings: they get a power of two, so that a
//! Deployment may grow by some pods without a message to each of the others. Nothing is computed
//! before the first query. A workload is what its pods have as topmost owner: a Deployment, not the
//! ReplicaSets that it replaces by one another, and a CronJob, not each of its Jobs. A World has
//! neither ReplicaSets nor Jobs, so the owner of these is read from what a pod shows. Of a kind
//! that others define nothing is read: it may only have such a name.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use policy::subset::PeerPosition;

use super::dependents::is_running;
use crate::world::{ObjectKey, PodFacts, World};

/// Labels that pods of a Deployment, and of a Rollout of Argo, have: the end of their
/// ReplicaSet's name.
const TEMPLATE_HASHES: [(&str, &str); 2] = [
    ("Deployment", "pod-template-hash"),
    ("Rollout", "rollouts-pod-template-hash"),
];
/// A CronJob ends the names of its Jobs with the minute, since 1970, for which each is. None is
/// before this one, of 2015, and all until 2160 have as many digits. A date such as 20251128,
/// by which people name Jobs, is less.
const FIRST_MINUTE: &str = "24000000";

/// What the pods of one workload have in common.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Workload {
    namespace: Arc<str>,
    /// Of what owns the pods, which distinguishes kinds of the same name.
    group: Arc<str>,
    kind: Arc<str>,
    name: Arc<str>,
}

/// Pods whose proxies run, by workload, in the order of their names; each with its zone.
pub(crate) type Peers = HashMap<Workload, BTreeMap<ObjectKey, String>>;

/// Kind and name of what owns a pod's owner, as far as the pod shows it: a Job that was made by
/// hand from a CronJob shows nothing, and a ReplicaSet shows nothing without its label.
#[must_use]
pub fn owner_above(facts: &PodFacts) -> Option<(&'static str, &str)> {
    let owner = facts.owner.as_ref()?;
    let (kind, name) = match owner.known_kind()? {
        "ReplicaSet" => TEMPLATE_HASHES.iter().find_map(|(kind, label)| {
            let hash = facts.labels.get(*label)?;
            let name = owner.name.strip_suffix(&**hash)?.strip_suffix('-')?;
            Some((*kind, name))
        })?,
        "Job" => ("CronJob", cron_job(&owner.name)?),
        _ => return None,
    };
    (!name.is_empty()).then_some((kind, name))
}

fn cron_job(job: &str) -> Option<&str> {
    let (name, minute) = job.rsplit_once('-')?;
    let digits = minute.bytes().all(|byte| byte.is_ascii_digit());
    let is_minute = digits && minute.len() == FIRST_MINUTE.len() && minute >= FIRST_MINUTE;
    is_minute.then_some(name)
}

impl Workload {
    pub(crate) fn of(pod: &ObjectKey, facts: &PodFacts) -> Self {
        let namespace = Arc::clone(&pod.namespace);
        let Some(owner) = &facts.owner else {
            return Self {
                namespace,
                group: "".into(),
                kind: "Pod".into(),
                name: Arc::clone(&pod.name),
            };
        };
        let group = owner.group().into();
        match owner_above(facts) {
            Some((kind, name)) => Self {
                namespace,
                group,
                kind: kind.into(),
                name: name.into(),
            },
            None => Self {
                namespace,
                group,
                kind: Arc::clone(&owner.kind),
                name: Arc::clone(&owner.name),
            },
        }
    }
}

/// The workloads of these pods whose proxies are others now, or run in other zones.
pub(crate) fn changed<'a>(
    worlds: [&World; 2],
    pods: impl Iterator<Item = &'a ObjectKey>,
) -> HashSet<Workload> {
    let counted = |world: &World, pod: &ObjectKey| {
        let facts = world.pods.get(pod).filter(|facts| is_running(facts))?;
        Some((Workload::of(pod, facts), world.zone(&facts.node).to_owned()))
    };
    let mut workloads = HashSet::new();
    for pod in pods {
        let [now, then] = worlds.map(|world| counted(world, pod));
        if now != then {
            let both = [now, then].into_iter().flatten();
            workloads.extend(both.map(|(workload, _)| workload));
        }
    }
    workloads
}

/// Which of its workload's proxies that of a pod is: among all, and among those of its
/// zone. `None` while it does not run.
pub(crate) fn positions(
    peers: &Peers,
    pod: &ObjectKey,
    facts: &PodFacts,
) -> Option<[PeerPosition; 2]> {
    let all = peers.get(&Workload::of(pod, facts))?;
    let zone = all.get(pod)?;
    let position = |counts: &dyn Fn(&str) -> bool| {
        let peers = || all.iter().filter(|(_, zone)| counts(zone));
        let index = peers().position(|(peer, _)| peer == pod)?;
        Some(PeerPosition {
            index: u32::try_from(index).ok()?,
            peers: u32::try_from(peers().count()).ok()?,
        })
    };
    Some([position(&|_| true)?, position(&|other| other == zone)?])
}

/// How many proxies share what their workload may do, rounded up to a power of two. 1
/// where none runs.
pub(crate) fn sharers(peers: &Peers, workload: &Workload) -> u32 {
    let running = peers.get(workload).map_or(0, BTreeMap::len);
    u32::try_from(running.next_power_of_two()).unwrap_or(1)
}

/// Those of these workloads whose [`sharers`] are others than they were.
pub(crate) fn resized(
    workloads: &HashSet<Workload>,
    now: &Peers,
    then: &Peers,
) -> HashSet<Workload> {
    let differs = |workload: &&Workload| sharers(now, workload) != sharers(then, workload);
    workloads.iter().filter(differs).cloned().collect()
}

/// All that run.
pub(super) fn of_world(world: &World) -> Peers {
    let mut peers = Peers::new();
    for (pod, facts) in world.pods.iter().filter(|(_, facts)| is_running(facts)) {
        let zone = world.zone(&facts.node).to_owned();
        let workload = peers.entry(Workload::of(pod, facts)).or_default();
        workload.insert(pod.clone(), zone);
    }
    peers
}
