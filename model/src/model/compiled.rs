//! A World with its compiled Model and problems, and the changes of the last Models.

use std::collections::{BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::SystemTime;

use super::{
    Model, PodId,
    changes::{Changes, Interest},
};
use crate::problem::Problems;
use crate::world::{ObjectKey, World};

/// Models whose changes are kept. A stream that is further behind looks at all that it needs, as it
/// does at first.
const MAX_RETAINED: usize = 32;

/// One World, compiled.
#[derive(Debug)]
pub struct Compiled {
    /// What it was made from.
    pub world: Arc<World>,
    /// What is sent to proxies.
    pub model: Model,
    /// What is reported to authors; the same allocation as before while nothing changes.
    pub problems: Arc<Problems>,
    /// When it was made.
    pub at: SystemTime,
    /// Pods with a proxy by uid, which is what their certificates name.
    pods: Arc<HashMap<Arc<str>, PodId>>,
    /// Counts models.
    number: u64,
    /// What changed up to this one, the last change last.
    recent: VecDeque<Arc<Changes>>,
}

impl Compiled {
    /// Puts together what was compiled from nothing.
    pub fn new(world: Arc<World>, model: Model, problems: impl Into<Arc<Problems>>) -> Self {
        let pods = meshed_by_uid(&model);
        Self {
            world,
            model,
            problems: problems.into(),
            at: SystemTime::now(),
            pods: Arc::new(pods),
            number: 0,
            recent: VecDeque::new(),
        }
    }

    /// Puts together what was compiled after `self`.
    pub(crate) fn followed_by(
        &self,
        world: Arc<World>,
        (model, problems, changes): (Model, Arc<Problems>, Changes),
    ) -> Self {
        let pods = self.pods_after(&model, &changes);
        let mut recent = self.recent.clone();
        recent.push_back(Arc::new(changes));
        while recent.len() > MAX_RETAINED {
            recent.pop_front();
        }
        Self {
            world,
            model,
            problems,
            at: SystemTime::now(),
            pods,
            number: self.number + 1,
            recent,
        }
    }

    /// The pods of a model that came after, most of which are the same.
    fn pods_after(&self, model: &Model, changes: &Changes) -> Arc<HashMap<Arc<str>, PodId>> {
        let mut pods = self.pods.clone();
        let meshed = |model: &Model, id: &PodId| model.pod(id).filter(|pod| pod.meshed);
        for id in changes.pods() {
            if let Some(gone) = meshed(&self.model, id) {
                Arc::make_mut(&mut pods).remove(&gone.uid);
            }
        }
        for id in changes.pods() {
            if let Some(pod) = meshed(model, id).filter(|pod| !pod.ended) {
                Arc::make_mut(&mut pods).insert(pod.uid, id.clone());
            }
        }
        pods
    }

    /// Counts models; for [`Self::states_since`].
    pub fn number(&self) -> u64 {
        self.number
    }

    /// Whether a proxy that has seen the model of this number may get something else now. True also
    /// when that is not known. Streams call [`Self::states_since`], which returns more.
    #[cfg(test)]
    pub(crate) fn concerns(&self, seen: u64, interest: &Interest) -> bool {
        self.missed(seen)
            .is_none_or(|mut missed| missed.any(|changes| changes.concern(interest)))
    }

    /// The Services of this interest whose endpoints' states changed since the model of this
    /// number; `None` if more did, or if that is not known.
    pub fn states_since(&self, seen: u64, interest: &Interest) -> Option<BTreeSet<ObjectKey>> {
        let mut services = BTreeSet::new();
        for changes in self.missed(seen)? {
            if changes.concern(interest) {
                services.extend(changes.states_of(interest)?.cloned());
            }
        }
        Some(services)
    }

    /// What changed since the model of this number, if that is kept.
    fn missed(&self, seen: u64) -> Option<impl Iterator<Item = &Changes>> {
        let missed = usize::try_from(self.number.checked_sub(seen)?).ok()?;
        let first = self.recent.len().checked_sub(missed)?;
        // A model that was compiled from nothing says nothing about others.
        let is_known = !self.recent.is_empty();
        is_known.then(|| self.recent.iter().skip(first).map(Arc::as_ref))
    }

    /// The pod with a proxy that has this uid.
    pub fn pod_by_uid(&self, uid: &str) -> Option<&PodId> {
        self.pods.get(uid)
    }
}

fn meshed_by_uid(model: &Model) -> HashMap<Arc<str>, PodId> {
    let by_uid = |id: &PodId| Some((model.pod(id)?.uid, id.clone()));
    model.meshed_pods().filter_map(by_uid).collect()
}
