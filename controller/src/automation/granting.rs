//! Decides each second which runs of FaultExperiments this replica grants to its proxies.
//!
//! A run is granted while all of this holds, by what this replica itself sees:
//! - it has rules, so it can be read, its namespace allows it, and the status says that it is under
//!   way (`model::faults`), and its phase is Running,
//! - its end is ahead by this replica's clock,
//! - a write of its status was seen within [`DRIVEN_WITHIN`],
//! - its spec is what the run was started with, and it is not being deleted,
//! - the mesh's namespace has no kill switch.
//!
//! No API call is needed to end a run, so a replica that is cut off ends it too. Every replica
//! decides alone: the proxies of one whose watch is slow are harmed a moment longer.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crds::weft::ExperimentPhase;
use model::compiled::Compiled;
use model::faults;
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::followed::{Followed, FollowedObjects};
use crate::grants::{GrantedRun, Grants};
use crate::latest_model::LatestModel;

/// A run of which no write was seen for so long has no driver: three of its writes.
const DRIVEN_WITHIN: Duration = Duration::from_secs(15);
/// Between two grants of the same run; each holds three seconds.
const EVERY: Duration = Duration::from_secs(1);

/// What the grants follow from.
#[derive(Clone, Debug)]
pub(crate) struct Granting {
    pub(crate) latest: LatestModel,
    pub(crate) followed: Followed,
    pub(crate) grants: Grants,
    /// The mesh's own, whose annotation stops all.
    pub(crate) namespace: Arc<str>,
}

impl Granting {
    /// Grants until the model ends.
    pub(crate) async fn run(mut self) {
        let mut ticks = interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut granted = BTreeSet::new();
        loop {
            let is_tick = tokio::select! {
                _ = ticks.tick() => true,
                changed = self.latest.changed() => {
                    if changed.is_err() {
                        self.grants.withdraw_all();
                        return;
                    }
                    false
                }
                () = self.followed.changed() => false,
            };
            let runs = self.decide(Instant::now(), SystemTime::now());
            let names: BTreeSet<_> = runs.iter().map(name).collect();
            // Between two ticks only what differs is set: a setting goes to all streams.
            if is_tick || names != granted {
                self.grants.set(runs);
                granted = names;
            }
        }
    }

    fn decide(&mut self, now: Instant, clock: SystemTime) -> Vec<GrantedRun> {
        let compiled = self.latest.borrow_and_update().clone();
        let followed = self.followed.now();
        compiled.map_or_else(Vec::new, |compiled| {
            granted(&compiled, &followed, &self.namespace, now, clock)
        })
    }
}

/// The runs that are granted.
fn granted(
    compiled: &Compiled,
    followed: &FollowedObjects,
    mesh: &str,
    now: Instant,
    clock: SystemTime,
) -> Vec<GrantedRun> {
    let world = &compiled.world;
    if faults::is_stopped(world.namespace(mesh)) {
        return Vec::new();
    }
    let clock = clock.duration_since(UNIX_EPOCH).unwrap_or_default();
    let runs = compiled.model.index.policies.faults.runs.iter();
    let granted = runs.filter_map(|(key, run)| {
        let facts = world.experiments.get(key)?;
        let order = &facts.order;
        let one = followed.get(key)?;
        let is_driven = one
            .written
            .is_some_and(|written| now.saturating_duration_since(written) <= DRIVEN_WITHIN);
        let is_same = one.runs_by(facts.meta.generation);
        if order.phase != ExperimentPhase::Running || !is_driven || !is_same {
            return None;
        }
        let ends = Duration::from_secs(u64::try_from(order.ends_at?).ok()?);
        // However far ahead a status puts the end.
        let longest = facts.effective()?.duration;
        let left = ends.checked_sub(clock)?.min(longest);
        let names = run
            .ports
            .iter()
            .map(|port| wire::names::policy(&run.target.namespace, &run.target.name, *port));
        (left > Duration::ZERO).then(|| GrantedRun {
            experiment: key.to_string().into(),
            seed: run.seed,
            ends: now + left,
            policies: Arc::new(names.collect()),
        })
    });
    granted.collect()
}

fn name(run: &GrantedRun) -> (Arc<str>, u64) {
    (Arc::clone(&run.experiment), run.seed)
}

#[cfg(test)]
mod tests;
