//! Counts the calls that a run is judged by, between two looks: of checked Services' pods by group,
//! from their early reports, and of the target's callers, from what their proxies report each five
//! seconds.
//!
//! A look gets the difference to the look before. A pod that is seen for the first time counts
//! nothing yet: what it counted before may have been judged already, by the holder of the Lease
//! before this one. A pod that counts anew, in another epoch, counts from there.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use automation::experiment::{Calls, GroupCounts};
use automation::judge::Counts;
use crds::weft::validation::Experiment;
use model::Index;
use model::world::ObjectKey;
use policy::name::ServiceId;
use tokio::time::Instant;
use wire::v1;

use crate::observe::early::{EarlyCounts, Group, PodSums};
use crate::observe::reports::Reports;

/// What was counted so far in one run.
#[derive(Debug, Default)]
pub(super) struct RunCounts {
    /// By check, and by uid of a pod.
    pods: HashMap<(usize, Arc<str>), (u64, GroupCounts)>,
    /// By interval.
    calls: BTreeMap<u64, v1::FaultCalls>,
}

impl RunCounts {
    /// The calls of each check since the look before.
    pub(super) fn look(
        &mut self,
        spec: &Experiment,
        index: &Index,
        early: &EarlyCounts,
    ) -> Vec<GroupCounts> {
        let now = Instant::now();
        let mut all = Vec::new();
        for (check, asked) in spec.checks.iter().enumerate() {
            let mut new = GroupCounts::default();
            for (uid, ports) in pods(index, &asked.service) {
                let Some(read) = early.get(&uid, now) else {
                    continue;
                };
                let sums = sums(&read, &ports);
                let before = self.pods.insert((check, uid), (read.epoch, sums));
                match before {
                    None => {}
                    Some((epoch, before)) if epoch == read.epoch => {
                        new.add(&difference(&before, &sums));
                    }
                    Some(_) => new.add(&sums),
                }
            }
            all.push(new);
        }
        all
    }

    /// What became of calls to the target since the look before. `first`: the interval from which
    /// on they count.
    pub(super) fn calls(
        &mut self,
        reports: &Reports,
        first: u64,
        experiment: &str,
        seed: u64,
    ) -> Calls {
        let before = self.total();
        // What is not held any more stays as it was last seen.
        self.calls
            .extend(reports.fault_calls(first, experiment, seed));
        let after = self.total();
        Calls {
            total: after.total.saturating_sub(before.total),
            harmed: after.harmed.saturating_sub(before.harmed),
            excluded: after.excluded.saturating_sub(before.excluded),
            beyond_limit: after.beyond_limit.saturating_sub(before.beyond_limit),
            untraced: after.untraced.saturating_sub(before.untraced),
        }
    }

    fn total(&self) -> Calls {
        let mut total = Calls::default();
        for one in self.calls.values() {
            total.add(&Calls {
                total: one.attempts,
                harmed: one.harmed,
                excluded: one.excluded,
                beyond_limit: one.beyond_limit,
                untraced: one.untraced,
            });
        }
        total
    }
}

/// The pods behind a Service by uid, each with its container ports behind it.
fn pods(index: &Index, service: &ServiceId) -> BTreeMap<Arc<str>, BTreeSet<u16>> {
    let key = ObjectKey::from(service);
    let mut pods: BTreeMap<Arc<str>, BTreeSet<u16>> = BTreeMap::new();
    let entry = index.services.get(&key).into_iter();
    let ports = entry.flat_map(|entry| entry.ports.values());
    for endpoint in ports.flat_map(|port| &port.candidates) {
        let endpoint = &endpoint.endpoint;
        if !endpoint.pod_uid.is_empty() {
            let ports = pods.entry(Arc::clone(&endpoint.pod_uid)).or_default();
            ports.insert(endpoint.port);
        }
    }
    pods
}

fn sums(read: &PodSums, ports: &BTreeSet<u16>) -> GroupCounts {
    let of = |group| {
        let sums = read.of(group, |port| ports.contains(&port));
        Counts {
            calls: sums.calls,
            bad: sums.failed.min(sums.calls),
        }
    };
    let (control, harmed) = (of(Group::Control), of(Group::Harmed));
    let mut all = of(Group::None);
    all.add(control);
    all.add(harmed);
    GroupCounts {
        all,
        control,
        harmed,
    }
}

fn difference(before: &GroupCounts, after: &GroupCounts) -> GroupCounts {
    let less = |before: Counts, after: Counts| {
        let calls = after.calls.saturating_sub(before.calls);
        Counts {
            calls,
            bad: after.bad.saturating_sub(before.bad).min(calls),
        }
    };
    GroupCounts {
        all: less(before.all, after.all),
        control: less(before.control, after.control),
        harmed: less(before.harmed, after.harmed),
    }
}
