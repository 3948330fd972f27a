//! Finds the differences between two Worlds, and between the Models compiled from them.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use super::{accounts, external};
use crate::{
    model::{Index, PodEntry, ServiceEntry, changes::Changes, external::moved_machines, peers},
    world::{ObjectKey, PodFacts, World, kinds::every_kind},
};

/// Pods that are not the same in both, in one walk along both.
pub(super) fn changed_pods(one: &World, other: &World) -> BTreeSet<ObjectKey> {
    let mut changed = BTreeSet::new();
    if Arc::ptr_eq(&one.pods, &other.pods) {
        return changed;
    }
    let (mut ones, mut others) = (one.pods.iter().peekable(), other.pods.iter().peekable());
    loop {
        let order = match (ones.peek(), others.peek()) {
            (None, None) => return changed,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((one, _)), Some((other, _))) => one.cmp(other),
        };
        let one = if order.is_le() { ones.next() } else { None };
        let other = if order.is_ge() { others.next() } else { None };
        match (one, other) {
            (Some((_, one)), Some((_, other))) if Arc::ptr_eq(one, other) => {}
            (Some((key, _)), _) | (None, Some((key, _))) => drop(changed.insert(key.clone())),
            (None, None) => {}
        }
    }
}

/// Whether nothing of a pod differs but whether, and since when, it is ready.
pub(super) fn only_readiness_differs(one: &World, other: &World, pod: &ObjectKey) -> bool {
    let (Some(one), Some(other)) = (one.pods.get(pod), other.pods.get(pod)) else {
        return false;
    };
    let as_other = PodFacts {
        ready_since: other.ready_since,
        unready: other.unready,
        gate: other.gate,
        ..PodFacts::clone(one)
    };
    as_other == **other
}

macro_rules! same_policy {
    (@places $field:ident) => { |_: &World, _: &World| true };
    (@accounts $field:ident) => { accounts::same };
    (@policy $field:ident) => {
        |one: &World, other: &World| Arc::ptr_eq(&one.$field, &other.$field)
    };
    ($($(#[$doc:meta])* $field:ident: $facts:ident = $kind:ty, $how:ident $translate:ident,
        $change:ident, $object:expr, $status:expr;)+) => {
        /// Whether nothing but where pods and endpoints are differs, the API server not among them.
        pub(super) fn same_besides_pods_and_slices(one: &World, other: &World) -> bool {
            let same: &[fn(&World, &World) -> bool] = &[$(same_policy!(@$change $field)),+];
            same.iter().all(|same| same(one, other))
                && Arc::ptr_eq(&one.ca_bundles, &other.ca_bundles)
                && Arc::ptr_eq(&one.listener_certificates, &other.listener_certificates)
                && external::api_server(one) == external::api_server(other)
        }
    };
}

every_kind!(same_policy);

/// Hosts outside the mesh with other addresses.
pub(super) fn changed_hosts(one: &World, other: &World) -> HashSet<Arc<str>> {
    if Arc::ptr_eq(&one.names, &other.names) {
        return HashSet::new();
    }
    let hosts = differing(&one.names, &other.names, |_, one, other| one == other);
    hosts.into_iter().map(|key| key.name).collect()
}

pub(super) fn services_of_changed_slices(one: &World, other: &World) -> BTreeSet<ObjectKey> {
    let mut services = BTreeSet::new();
    for (slices, others) in [(&one.slices, &other.slices), (&other.slices, &one.slices)] {
        for (key, slice) in slices.iter() {
            if others
                .get(key)
                .is_none_or(|other| !Arc::ptr_eq(slice, other))
            {
                services.insert(ObjectKey {
                    namespace: key.namespace.clone(),
                    name: slice.service.clone(),
                });
            }
        }
    }
    services
}

/// Replaces what is as it was by what was there, and returns what is not.
pub(super) fn take_over(index: &mut Index, before: &Index) -> Changes {
    index.shared = before.shared.clone();
    if let Some(gateways) = Arc::get_mut(&mut index.gateways) {
        gateways.take_over(&before.gateways);
    }
    if index.gateways == before.gateways {
        index.gateways = before.gateways.clone();
    }
    // First, since what is shared decides what is the same.
    let policies = Arc::get_mut(&mut index.policies);
    let changed_by_policy = policies.map(|now| now.take_over(&before.policies));
    let mut changes = Changes {
        services: differing(&index.services, &before.services, |key, new, old| {
            same_service(index, before, new, old) && same_outside(index, before, key)
        }),
        pods: pods_that_differ(index, before),
        hosts: changed_hosts(&index.world, &before.world),
        ..Changes::default()
    };
    if index.revocations.content == before.revocations.content {
        index.revocations = before.revocations.clone();
    } else {
        changes.revocations = true;
    }
    changes.workloads = peers::changed([&index.world, &before.world], changes.pods.iter());
    changes.resized = index.resized(&changes.workloads, before);
    changes
        .services
        .extend(changed_by_policy.into_iter().flatten());
    let pods = by_key(&index.pods_by_ip, &before.pods_by_ip);
    let services = by_key(&index.services_by_ip, &before.services_by_ip);
    let outer = by_key(&index.services_by_outer, &before.services_by_outer);
    changes.addresses = pods.into_iter().chain(services).collect();
    changes
        .addresses
        .extend(outer.into_iter().map(|(ip, _)| ip));
    changes
        .addresses
        .extend(moved_machines(&index.machine_ips, &before.machine_ips));

    for (key, entry) in &mut index.services {
        if let Some(old) = before.services.get(key)
            && !changes.services.contains(key)
        {
            *entry = old.clone();
        }
    }
    for (key, entry) in Arc::make_mut(&mut index.pods) {
        // Entries without use so far are not worth it, and their rules may differ.
        if let Some(old) = before.pods.get(key)
            && !rules_are_unused(old)
            && !changes.pods.contains(key)
        {
            // No resource has all that a pod serves, so that may differ alone.
            *entry = if entry.serves_same(old) {
                old.clone()
            } else {
                Arc::new(PodEntry {
                    declared: entry.declared.clone(),
                    headless: entry.headless.clone(),
                    serves: entry.serves.clone(),
                    elsewhere: entry.elsewhere.clone(),
                    workload: old.workload.clone(),
                    guard: OnceLock::new(),
                    guard_resource: OnceLock::new(),
                    routes: old.routes.clone(),
                })
            };
        }
    }
    if index.targets.same(&before.targets) {
        index.targets = before.targets.clone();
    }
    if index.names.same(&before.names) {
        index.names = before.names.clone();
    }
    if index.externals == before.externals {
        index.externals = before.externals.clone();
    }
    changes
}

/// Keys that only one of the two has, or that lead to something else.
fn differing<T>(
    new: &BTreeMap<ObjectKey, Arc<T>>,
    old: &BTreeMap<ObjectKey, Arc<T>>,
    same: impl Fn(&ObjectKey, &T, &T) -> bool,
) -> HashSet<ObjectKey> {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let changed = new.iter().filter(|(key, new)| {
        let old = old.get(*key);
        old.is_none_or(|old| !same(key, new, old))
    });
    changed.map(|(key, _)| key).chain(gone).cloned().collect()
}

fn by_key<K: Copy + Eq + Hash>(new: &HashMap<K, ObjectKey>, old: &HashMap<K, ObjectKey>) -> Vec<K> {
    let gone = old.keys().filter(|key| !new.contains_key(*key));
    let changed = new.iter().filter(|(key, to)| old.get(*key) != Some(*to));
    changed.map(|(key, _)| key).chain(gone).copied().collect()
}

/// Whether the ports have the same endpoints, those of the sets of a release, too.
pub(super) fn same_ports(new: &ServiceEntry, old: &ServiceEntry) -> bool {
    let same_sets = match (&new.sets, &old.sets) {
        (None, None) => true,
        (Some(new), Some(old)) => {
            same_ports(&new.stable, &old.stable) && same_ports(&new.candidate, &old.candidate)
        }
        _ => false,
    };
    same_sets
        && new.ports.len() == old.ports.len()
        && new
            .ports
            .iter()
            .zip(&old.ports)
            .all(|((n, new), (o, old))| {
                n == o && new.protocol == old.protocol && new.candidates == old.candidates
            })
}

fn same_service(index: &Index, before: &Index, new: &ServiceEntry, old: &ServiceEntry) -> bool {
    // A backend has a share on the ports that it has.
    let same_backend = |backend: &ObjectKey| {
        let ports = |index: &Index| {
            let entry = index.backend(backend)?;
            Some(entry.ports.keys().copied().collect::<Vec<u16>>())
        };
        ports(index) == ports(before)
    };
    let mut backends = new.splits.iter().flat_map(|split| &split.backends);
    same_ports(new, old)
        && new.facts == old.facts
        && new.splits == old.splits
        && new.routes == old.routes
        && backends.all(|(backend, _)| same_backend(backend))
}

/// Whether a Service stands for the same outside the mesh, if for anything.
fn same_outside(index: &Index, before: &Index, key: &ObjectKey) -> bool {
    index.externals.behind(key) == before.externals.behind(key)
}

/// Pods with other facts, protocols, surroundings or targets, or with other hosts outside.
fn pods_that_differ(index: &Index, before: &Index) -> HashSet<ObjectKey> {
    let (outside, outside_before) = (&index.externals, &before.externals);
    let same_outside = outside == outside_before;
    let same_gateways = Arc::ptr_eq(&index.gateways, &before.gateways);
    let same_targets = index.targets.same(&before.targets);
    let same_groups = same_targets && index.names.same(&before.names);
    differing(&index.pods, &before.pods, |key, new, old| {
        let facts = |world: &World| world.pods.get(key).cloned();
        let (Some(now), Some(then)) = (facts(&index.world), facts(&before.world)) else {
            return false;
        };
        (Arc::ptr_eq(&now, &then) || now == then)
            && new.declared == old.declared
            && new.headless == old.headless
            && same_surroundings(index, before, key, &now)
            && same_guard(index, before, new, old)
            && (same_outside
                || outside.same_for(outside_before, &key.namespace, &now.service_account)
                    && index.gateway_of(key, &now).is_none_or(|(gateway, _)| {
                        outside.same_for_gateway(outside_before, gateway)
                    }))
            && (same_gateways || same_gateway(index, before, key, &now))
            && index.counts_early(new) == before.counts_early(old)
            && (same_groups && new.serves == old.serves
                || same_names([index, before], key, &now, [new, old]))
            && (same_targets || rules_are_unused(old) || same_rules(index, before, key, &now))
    })
}

/// Whether a pod serves the same as one of a Gateway, if it is any.
fn same_gateway(index: &Index, before: &Index, key: &ObjectKey, facts: &PodFacts) -> bool {
    let [now, then] = [index, before].map(|index| index.gateway_of(key, facts));
    now.map(|(_, one)| one) == then.map(|(_, one)| one)
}

/// Whether policies mean the same for requests to the pod.
fn same_guard(index: &Index, before: &Index, new: &PodEntry, old: &PodEntry) -> bool {
    let (now, then) = (&index.policies, &before.policies);
    let same_parts = new.serves == old.serves && now.shares_guard(then, &new.serves);
    same_parts || now.guard(&new.serves) == then.guard(&old.serves)
}

/// Whether requests to the pod are named alike, as far as a proxy subscribed.
fn same_names(
    [index, before]: [&Index; 2],
    key: &ObjectKey,
    facts: &PodFacts,
    [new, old]: [&PodEntry; 2],
) -> bool {
    if old.routes.get().is_none() {
        return true;
    }
    let now = index.route_groups(key, facts, &new.serves);
    let then = before.route_groups(key, facts, &old.serves);
    now == then && index.names.same_matches(&before.names, &now)
}

/// No proxy has subscribed to the pod's rules, so a change of them reaches none.
fn rules_are_unused(entry: &PodEntry) -> bool {
    entry.workload.get().is_none()
}

/// Whether what stands around a pod means the same for it.
fn same_surroundings(index: &Index, before: &Index, key: &ObjectKey, facts: &PodFacts) -> bool {
    let (now, then) = (&index.world, &before.world);
    now.namespace(&key.namespace) == then.namespace(&key.namespace)
        && (Arc::ptr_eq(&now.nodes, &then.nodes) || now.zone(&facts.node) == then.zone(&facts.node))
}

fn same_rules(index: &Index, before: &Index, key: &ObjectKey, facts: &PodFacts) -> bool {
    let mut now = index.targets.of(key, facts);
    let mut then = before.targets.of(key, facts);
    loop {
        match (now.next(), then.next()) {
            (None, None) => return true,
            (Some(now), Some(then)) if now.same(then) => {}
            _ => return false,
        }
    }
}

/// Pods by address, Services and pods.
type Places = (
    Arc<HashMap<IpAddr, ObjectKey>>,
    BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    Arc<BTreeMap<ObjectKey, Arc<PodEntry>>>,
);

/// The Index after a change of pods and endpoints alone; everything else is the previous one's.
/// `same_proxies`: no pod with a proxy changed.
pub(super) fn with_places(
    before: &Index,
    world: &World,
    (pods_by_ip, services, pods): Places,
    same_proxies: bool,
) -> Index {
    Index {
        world: world.clone(),
        defaults: before.defaults.clone(),
        pods_by_ip,
        services_by_ip: before.services_by_ip.clone(),
        services_by_outer: before.services_by_outer.clone(),
        machine_ips: before.machine_ips.clone(),
        services,
        pods,
        targets: before.targets.clone(),
        bindings: before.bindings.clone(),
        policies: before.policies.clone(),
        names: before.names.clone(),
        releases: before.releases.clone(),
        externals: before.externals.clone(),
        revocations: before.revocations.clone(),
        gateways: before.gateways.clone(),
        // The pods of each Service decide which policies apply.
        dependents: if before.policies.is_empty() {
            before.dependents.clone()
        } else {
            Arc::default()
        },
        running: if same_proxies {
            before.running.clone()
        } else {
            Arc::default()
        },
        peers: if same_proxies {
            before.peers.clone()
        } else {
            Arc::default()
        },
        shared: before.shared.clone(),
    }
}
