//! Finds why a run of a FaultExperiment may not start or go on: what forbids it, and what it waits
//! for.

use std::time::Duration;

use crds::weft::validation::Experiment;
use kube::core::ObjectMeta;
use model::faults;
use model::world::ObjectKey;

use super::context::Around;
use crate::automation::conditions::Conditions;

/// For so long after its weights changed, a split counts as shifting: longer than the steps of
/// what shifts weights, which take a minute.
const SHIFTED_FOR: Duration = Duration::from_secs(5 * 60);

/// The weights of the splits of the target, and when they were last seen to change.
#[derive(Debug, Default)]
pub(super) struct Shifts {
    weights: Option<Weights>,
    changed: Option<Duration>,
}

/// Of each split in force.
type Weights = Vec<Vec<(ObjectKey, u32)>>;

/// Why nothing may be harmed, as a sentence.
pub(super) fn refused(
    around: &Around<'_>,
    meta: &ObjectMeta,
    conditions: &Conditions,
) -> Option<String> {
    // Where a finalizer keeps the object, it is still there.
    if meta.deletion_timestamp.is_some() {
        return Some("the experiment is being deleted".to_owned());
    }
    let mesh = &around.parts.namespace;
    if !around.parts.enabled {
        return Some(
            "experiments are switched off by chart value automation.faults.enabled".into(),
        );
    }
    if faults::is_stopped(around.compiled.world.namespace(mesh)) {
        return Some(format!(
            "annotation weft.dev/faults of Namespace {mesh} stops all experiments"
        ));
    }
    let failed = conditions.failed()?;
    Some(format!("{}: {}", failed.reason, failed.message))
}

/// Why another run goes first, as a sentence.
pub(super) fn taken(around: &Around<'_>) -> Option<String> {
    let other = around.taken?;
    Some(format!(
        "a run of FaultExperiment {other} is under way, and a namespace has one at a time"
    ))
}

impl Shifts {
    /// Why it would be wrong to harm anything now, as a sentence: calls are led to a new version,
    /// which would be blamed for the fault.
    pub(super) fn busy(&mut self, around: &Around<'_>, spec: &Experiment) -> Option<String> {
        let target = &spec.target;
        let service = ObjectKey::from(target);
        let index = &around.compiled.model.index;
        let entry = index.services.get(&service);
        let weights: Weights = entry.map(|entry| entry.weights()).unwrap_or_default();
        if self.weights.as_ref().is_some_and(|known| *known != weights) {
            self.changed = Some(around.now);
        }
        self.weights = Some(weights);
        let mut releases = around.compiled.world.releases.iter();
        let release =
            releases.find(|(_, facts)| facts.spec.service == *target && facts.order.is_run());
        if let Some((release, _)) = release {
            return Some(format!(
                "CanaryRelease {release} releases a new version of {}",
                target.name
            ));
        }
        let ago = around.now.saturating_sub(self.changed?);
        (ago < SHIFTED_FOR).then(|| {
            format!(
                "the weights of a TrafficSplit, CanaryRelease or route of {} changed {} s ago",
                target.name,
                ago.as_secs()
            )
        })
    }
}
