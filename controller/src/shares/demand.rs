//! Finds the shared rate limits in the Model, and the pods among which each is divided.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use model::world::ObjectKey;
use model::{Index, PodEntry};
use policy::traffic::guard::LimitScope;

use super::key::{LimitKey, NamedLimit};

/// A limit, and the ready pods that keep it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    pub(super) requests: u32,
    /// By uid: the port of the container.
    pub(super) pods: BTreeMap<Arc<str>, u16>,
    /// The same of all that keep it, ready or not: what they hold counts.
    pub(super) keepers: BTreeMap<Arc<str>, u16>,
}

/// All limits of scope Service.
pub(super) fn demands(index: &Index) -> BTreeMap<LimitKey, Demand> {
    let mut demands = BTreeMap::new();
    if named(index).is_empty() {
        return demands;
    }
    // Looked up once for each port of a Service, not for each of its pods.
    let mut ready: HashMap<(ObjectKey, u16), HashSet<&ObjectKey>> = HashMap::new();
    for (pod, entry) in &*index.pods {
        let Some(facts) = index.world.pods.get(pod) else {
            continue;
        };
        for (key, requests, port) in kept_by(index, entry) {
            let demand: &mut Demand = demands.entry(key.clone()).or_default();
            demand.requests = requests;
            demand.keepers.insert(Arc::clone(&facts.uid), port);
            let ready = ready.entry((key.service.clone(), key.port));
            if ready
                .or_insert_with(|| ready_pods(index, &key))
                .contains(pod)
            {
                demand.pods.insert(Arc::clone(&facts.uid), port);
            }
        }
    }
    demands
}

/// All limits of scope Service, by the policies that say them.
pub(super) fn named(index: &Index) -> BTreeSet<NamedLimit> {
    let ports = index.policies.ports.values();
    let rules = ports.flat_map(|port| &port.traffic.rate_limits.rules);
    let shared = rules.filter(|rule| {
        let limit = rule.then.as_ref().map(|scoped| &scoped.section);
        limit.is_some_and(|limit| limit.scope == LimitScope::Service)
    });
    shared
        .filter_map(|rule| NamedLimit::by(&rule.origin))
        .collect()
}

/// The limits that a pod keeps with others. One policy may reach a port by two Services: the
/// pod keeps its limit with the pods of each.
fn kept_by(index: &Index, entry: &PodEntry) -> Vec<(LimitKey, u32, u16)> {
    let mut kept = Vec::new();
    for (service, number, own) in &entry.serves {
        let Some(policies) = index.policies.of(service, *number) else {
            continue;
        };
        for rule in &policies.traffic.rate_limits.rules {
            let limit = rule.then.as_ref().map(|scoped| &scoped.section);
            let Some(limit) = limit.filter(|limit| limit.scope == LimitScope::Service) else {
                continue;
            };
            let Some(of) = NamedLimit::by(&rule.origin) else {
                continue;
            };
            let key = LimitKey {
                of,
                service: service.clone(),
                port: *number,
            };
            kept.push((key, limit.requests, *own));
        }
    }
    kept
}

fn ready_pods<'a>(index: &'a Index, key: &LimitKey) -> HashSet<&'a ObjectKey> {
    let port = index
        .services
        .get(&key.service)
        .and_then(|service| service.ports.get(&key.port));
    let candidates = port.into_iter().flat_map(|port| &port.candidates);
    let ready = candidates.filter(|state| state.ready && !state.endpoint.identity.is_empty());
    ready
        .filter_map(|state| state.endpoint.pod.as_ref())
        .collect()
}
