//! Which limits are to be divided, and among which pods.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::traffic::guard::LimitScope;

use super::key::{LimitKey, Named};
use crate::model::{Index, PodEntry};
use crate::world::ObjectKey;

/// A limit, and the ready pods that keep it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) requests: u32,
    /// By uid: the port of the container.
    pub(super) pods: BTreeMap<Arc<str>, u16>,
}

/// All limits of scope Service.
pub(super) fn demands(index: &Index) -> BTreeMap<LimitKey, Demand> {
    let mut demands = BTreeMap::new();
    let rules = index.policies.ports.values();
    let mut rules = rules.flat_map(|port| &port.traffic.rate_limits.rules);
    let is_shared = |scope| scope == LimitScope::Service;
    if !rules.any(|rule| {
        rule.then
            .as_ref()
            .is_some_and(|one| is_shared(one.section.scope))
    }) {
        return demands;
    }
    for (pod, entry) in &*index.pods {
        let Some(facts) = index.world.pods.get(pod) else {
            continue;
        };
        for (key, requests, port) in kept_by(index, entry) {
            let demand: &mut Demand = demands.entry(key.clone()).or_default();
            demand.requests = requests;
            if is_ready(index, pod, &key) {
                demand.pods.insert(Arc::clone(&facts.uid), port);
            }
        }
    }
    demands
}

/// The limits that a pod keeps with others. One policy may reach a port by two Services: the
/// pod keeps its limit once, with the pods of the first.
fn kept_by(index: &Index, entry: &PodEntry) -> Vec<(LimitKey, u32, u16)> {
    let mut kept = Vec::new();
    let mut known: BTreeSet<(u16, Named)> = BTreeSet::new();
    for (service, number, own) in &entry.serves {
        let Some(said) = index.policies.of(service, *number) else {
            continue;
        };
        for rule in &said.traffic.rate_limits.rules {
            let limit = rule.then.as_ref().map(|scoped| &scoped.section);
            let Some(limit) = limit.filter(|limit| limit.scope == LimitScope::Service) else {
                continue;
            };
            let Some(of) = Named::by(&rule.origin) else {
                continue;
            };
            if known.insert((*own, of.clone())) {
                let key = LimitKey {
                    of,
                    service: service.clone(),
                    port: *number,
                };
                kept.push((key, limit.requests, *own));
            }
        }
    }
    kept
}

fn is_ready(index: &Index, pod: &ObjectKey, key: &LimitKey) -> bool {
    let port = index
        .services
        .get(&key.service)
        .and_then(|service| service.ports.get(&key.port));
    let candidates = port.into_iter().flat_map(|port| &port.candidates);
    let mut own = candidates.filter(|state| state.endpoint.pod.as_ref() == Some(pod));
    own.any(|state| state.ready && !state.endpoint.identity.is_empty())
}
