//! Compiles a World with the help of what the World before it compiled to.
//!
//! Three ways lead there. If nothing but the state of endpoints changed, which is by far
//! the commonest news, only their Services are read again. If pods came, went or changed,
//! or endpoints with them, those pods and the Services whose slices name them are. After
//! anything else all is read again, and what came out the same is replaced by what was
//! there, so that resources stay encoded and proxies can be left alone.
//!
//! The second way is for pods of which nobody has to be told anything and about which
//! every policy says what is written in it. Others change what a policy means: a pod whose
//! labels a binding asks for, one for which the port of a rule is a Service's, one with an
//! annotation that cannot be read. They go the long way.
//!
//! Invariant: the outcome says what compiling from nothing says.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    hash::Hash,
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use super::{
    access::ports::as_written,
    annotations, bindings,
    endpoints::{self, ByPort},
    protocols,
};
use crate::{
    model::{Changes, Defaults, Index, PodEntry, Served, ServiceEntry},
    problem::Problems,
    world::{ObjectKey, PodFacts, World},
};

/// Compiles; see the module header. `problems` belong to `before`.
pub(crate) fn compile_after(
    world: &World,
    defaults: &Defaults,
    before: &Index,
    problems: &Arc<Problems>,
) -> (Index, Arc<Problems>, Changes) {
    if let Some((index, changes)) = states_only(world, before) {
        return (index, problems.clone(), changes);
    }
    if let Some((index, changes)) = pods_and_places(world, before) {
        return (index, problems.clone(), changes);
    }
    let (mut index, fresh) = super::compile(world, defaults);
    let changes = take_over(&mut index, before);
    let problems = if fresh == **problems {
        problems.clone()
    } else {
        Arc::new(fresh)
    };
    (index, problems, changes)
}

/// The shorter way: `None` if more has changed than the state of endpoints.
fn states_only(world: &World, before: &Index) -> Option<(Index, Changes)> {
    let old = &before.world;
    if !same_besides_pods_and_slices(world, old) || !Arc::ptr_eq(&world.pods, &old.pods) {
        return None;
    }
    let defaults = &before.defaults;
    let mut services = before.services.clone();
    let affected = services_of_changed_slices(world, old);
    for key in &affected {
        // Slices without a Service mean nothing.
        let Some(entry) = before.services.get(key) else {
            continue;
        };
        let was = endpoints::of_service(old, defaults, &before.pods_by_ip, key);
        let is = endpoints::of_service(world, defaults, &before.pods_by_ip, key);
        if !endpoints::same_places(&was, &is) {
            return None;
        }
        let new = ServiceEntry {
            facts: entry.facts.clone(),
            ports: endpoints::ports(world, key, &entry.facts, &is, &before.pods),
            splits: entry.splits.clone(),
        };
        services.insert(key.clone(), Arc::new(new));
    }
    let index = Index {
        world: world.clone(),
        defaults: defaults.clone(),
        pods_by_ip: before.pods_by_ip.clone(),
        services_by_ip: before.services_by_ip.clone(),
        services_by_outer: before.services_by_outer.clone(),
        services,
        pods: before.pods.clone(),
        targets: before.targets.clone(),
        uses: before.uses.clone(),
        running: before.running.clone(),
    };
    let changes = Changes {
        states_only: true,
        services: affected.into_iter().collect(),
        ..Changes::default()
    };
    Some((index, changes))
}

/// The way in the middle: `None` if more has changed than pods and endpoints, or if the
/// change means more than itself.
fn pods_and_places(world: &World, before: &Index) -> Option<(Index, Changes)> {
    let old = &before.world;
    if !same_besides_pods_and_slices(world, old) {
        return None;
    }
    let defaults = &before.defaults;
    let dirty = changed_pods(world, old);
    let means_more = |pod: &ObjectKey| {
        let facts = [world.pods.get(pod), old.pods.get(pod)];
        facts
            .into_iter()
            .flatten()
            .any(|facts| annotations::is_told(facts))
            || bindings::differ_about(world, old, pod)
    };
    if dirty.iter().any(means_more) {
        return None;
    }
    let ips = addresses_of(&dirty, [world, old]);
    let (pods_by_ip, addresses) = new_holders(world, before, &ips);
    let mut affected = services_of_changed_slices(world, old);
    affected.extend(services_that_name(world, &dirty, &ips));
    let mut found = ByPort::new();
    let known = |key: &&ObjectKey| before.services.contains_key(*key);
    for key in affected.iter().filter(known) {
        found.append(&mut endpoints::of_service(
            world,
            defaults,
            &pods_by_ip,
            key,
        ));
    }

    let served = endpoints::served_by_pod(&found);
    let mut around = dirty.clone();
    around.extend(served.keys().copied().cloned());
    around.extend(affected.iter().flat_map(|key| pods_behind(before, key)));
    let mut pods = Arc::clone(&before.pods);
    let mut changed = HashSet::new();
    // Services whose pods speak something else now.
    let mut reread = BTreeSet::new();
    for key in &around {
        let was = before.pods.get(key);
        if let (Some(was), Some(facts)) = (was, old.pods.get(key)) {
            let targets = before.targets.of(key, facts);
            protocols::declared_for_pod(old, key, &was.serves)?;
            if !as_written(targets, key, facts, &was.serves) {
                return None;
            }
        }
        let Some(facts) = world.pods.get(key) else {
            if was.is_some() {
                Arc::make_mut(&mut pods).remove(key);
                changed.insert(key.clone());
            }
            continue;
        };
        let serves = now_served(was, served.get(key), &affected);
        let declared = protocols::declared_for_pod(world, key, &serves)?;
        if !as_written(before.targets.of(key, facts), key, facts, &serves) {
            return None;
        }
        let headless = endpoints::headless(world, &serves);
        let itself = dirty.contains(key);
        let same = was.is_some_and(|was| was.declared == declared && was.headless == headless);
        if itself || was.is_none_or(|was| was.declared != declared) {
            reread.extend(serves.iter().map(|(service, ..)| service.clone()));
        }
        let workload = match was {
            Some(was) if same && !itself => was.workload.clone(),
            _ => {
                changed.insert(key.clone());
                OnceLock::new()
            }
        };
        if itself || !same || was.is_none_or(|was| was.serves != serves) {
            let entry = PodEntry {
                declared,
                headless,
                serves,
                workload,
            };
            Arc::make_mut(&mut pods).insert(key.clone(), Arc::new(entry));
        }
    }

    for key in reread.iter().filter(|key| !affected.contains(*key)) {
        found.append(&mut endpoints::of_service(
            world,
            defaults,
            &pods_by_ip,
            key,
        ));
    }
    let mut services = before.services.clone();
    let mut moved = HashSet::new();
    for key in affected.union(&reread) {
        // Slices without a Service mean nothing.
        let Some(entry) = before.services.get(key) else {
            continue;
        };
        let new = ServiceEntry {
            facts: entry.facts.clone(),
            ports: endpoints::ports(world, key, &entry.facts, &found, &pods),
            splits: entry.splits.clone(),
        };
        if !same_ports(&new, entry) {
            services.insert(key.clone(), Arc::new(new));
            moved.insert(key.clone());
        }
    }
    let meshed = |pod: &ObjectKey| {
        let facts = [world.pods.get(pod), old.pods.get(pod)];
        facts
            .into_iter()
            .flatten()
            .any(|facts| facts.proxy.is_some())
    };
    let index = Index {
        world: world.clone(),
        defaults: defaults.clone(),
        pods_by_ip,
        services_by_ip: before.services_by_ip.clone(),
        services_by_outer: before.services_by_outer.clone(),
        services,
        pods,
        targets: before.targets.clone(),
        uses: before.uses.clone(),
        running: if dirty.iter().any(meshed) {
            Arc::default()
        } else {
            before.running.clone()
        },
    };
    let changes = Changes {
        states_only: false,
        services: moved,
        pods: changed,
        addresses,
    };
    Some((index, changes))
}

/// Pods that are not the same in both, in one walk along both.
fn changed_pods(one: &World, other: &World) -> BTreeSet<ObjectKey> {
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

fn addresses_of(pods: &BTreeSet<ObjectKey>, worlds: [&World; 2]) -> HashSet<IpAddr> {
    let facts = |pod| {
        worlds
            .into_iter()
            .filter_map(move |world| world.pods.get(pod))
    };
    let ips = pods.iter().flat_map(facts).flat_map(|facts| &facts.ips);
    ips.copied().collect()
}

/// Pods by address, when those of these addresses may have changed, and which have.
fn new_holders(
    world: &World,
    before: &Index,
    ips: &HashSet<IpAddr>,
) -> (Arc<HashMap<IpAddr, ObjectKey>>, HashSet<IpAddr>) {
    let mut pods_by_ip = Arc::clone(&before.pods_by_ip);
    let mut changed = HashSet::new();
    if ips.is_empty() {
        return (pods_by_ip, changed);
    }
    let mut holders = super::holders(world, |ip| ips.contains(ip));
    for ip in ips {
        let holder = holders.remove(ip);
        if before.pods_by_ip.get(ip) == holder.as_ref() {
            continue;
        }
        changed.insert(*ip);
        let pods_by_ip = Arc::make_mut(&mut pods_by_ip);
        match holder {
            Some(pod) => drop(pods_by_ip.insert(*ip, pod)),
            None => drop(pods_by_ip.remove(ip)),
        }
    }
    (pods_by_ip, changed)
}

/// Services with a slice that names one of these pods, or one of these addresses without
/// a pod.
fn services_that_name(
    world: &World,
    pods: &BTreeSet<ObjectKey>,
    ips: &HashSet<IpAddr>,
) -> BTreeSet<ObjectKey> {
    let mut services = BTreeSet::new();
    if pods.is_empty() {
        return services;
    }
    for (key, slice) in world.slices.iter() {
        let named = slice.endpoints.iter().any(|endpoint| match &endpoint.pod {
            Some(pod) => pods.contains(pod),
            None => ips.contains(&endpoint.ip),
        });
        if named {
            services.insert(ObjectKey {
                namespace: key.namespace.clone(),
                name: slice.service.clone(),
            });
        }
    }
    services
}

/// Pods that served a Service.
fn pods_behind(before: &Index, service: &ObjectKey) -> impl Iterator<Item = ObjectKey> {
    let entry = before.services.get(service);
    let ports = entry.into_iter().flat_map(|entry| entry.ports.values());
    let endpoints = ports
        .flat_map(|port| &port.candidates)
        .map(|it| &it.endpoint);
    endpoints
        .filter(|endpoint| !endpoint.pod.is_empty())
        .map(|endpoint| ObjectKey::new(&endpoint.namespace, &endpoint.pod))
}

/// What a pod serves, if of these Services it serves what was found.
fn now_served(
    was: Option<&Arc<PodEntry>>,
    found: Option<&Vec<Served>>,
    reread: &BTreeSet<ObjectKey>,
) -> Vec<Served> {
    let was = was.into_iter().flat_map(|was| &was.serves);
    let others = was.filter(|(service, ..)| !reread.contains(service));
    let mut served: Vec<Served> = others.chain(found.into_iter().flatten()).cloned().collect();
    // Stable: the ports of one Service stay in their order.
    served.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    served
}

fn same_besides_pods_and_slices(one: &World, other: &World) -> bool {
    // Written out in full, so that a new kind cannot be forgotten.
    let World {
        pods: _,
        services,
        slices: _,
        namespaces,
        nodes,
        targets,
        splits,
        groups,
        tcp_routes,
        udp_routes,
        bindings,
    } = one;
    Arc::ptr_eq(services, &other.services)
        && Arc::ptr_eq(namespaces, &other.namespaces)
        && Arc::ptr_eq(nodes, &other.nodes)
        && Arc::ptr_eq(targets, &other.targets)
        && Arc::ptr_eq(splits, &other.splits)
        && Arc::ptr_eq(groups, &other.groups)
        && Arc::ptr_eq(tcp_routes, &other.tcp_routes)
        && Arc::ptr_eq(udp_routes, &other.udp_routes)
        && Arc::ptr_eq(bindings, &other.bindings)
}

fn services_of_changed_slices(one: &World, other: &World) -> BTreeSet<ObjectKey> {
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

/// Replaces what is as it was by what was there, and tells what is not.
fn take_over(index: &mut Index, before: &Index) -> Changes {
    let mut changes = Changes {
        services: differing(&index.services, &before.services, |_, new, old| {
            same_service(index, before, new, old)
        }),
        pods: pods_that_differ(index, before),
        ..Changes::default()
    };
    let pods = by_key(&index.pods_by_ip, &before.pods_by_ip);
    let services = by_key(&index.services_by_ip, &before.services_by_ip);
    let outer = by_key(&index.services_by_outer, &before.services_by_outer);
    changes.addresses = pods.into_iter().chain(services).collect();
    changes
        .addresses
        .extend(outer.into_iter().map(|(ip, _)| ip));

    for (key, entry) in &mut index.services {
        if let Some(old) = before.services.get(key)
            && !changes.services.contains(key)
        {
            *entry = old.clone();
        }
    }
    for (key, entry) in Arc::make_mut(&mut index.pods) {
        // Entries that nobody has used yet are not worth it, and their rules may differ.
        if let Some(old) = before.pods.get(key)
            && !rules_are_unused(old)
            && !changes.pods.contains(key)
        {
            // No resource tells of all that a pod serves, so that may differ alone.
            *entry = if entry.serves == old.serves {
                old.clone()
            } else {
                Arc::new(PodEntry {
                    declared: entry.declared.clone(),
                    headless: entry.headless.clone(),
                    serves: entry.serves.clone(),
                    workload: old.workload.clone(),
                })
            };
        }
    }
    if index.targets.same(&before.targets) {
        index.targets = before.targets.clone();
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

fn same_ports(new: &ServiceEntry, old: &ServiceEntry) -> bool {
    new.ports.len() == old.ports.len()
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
            let entry = index.services.get(backend)?;
            Some(entry.ports.keys().copied().collect::<Vec<u16>>())
        };
        ports(index) == ports(before)
    };
    let mut backends = new.splits.iter().flat_map(|split| &split.backends);
    same_ports(new, old)
        && new.facts == old.facts
        && new.splits == old.splits
        && backends.all(|(backend, _)| same_backend(backend))
}

/// Pods with other facts, protocols, surroundings or targets.
fn pods_that_differ(index: &Index, before: &Index) -> HashSet<ObjectKey> {
    let same_targets = index.targets.same(&before.targets);
    differing(&index.pods, &before.pods, |key, new, old| {
        let facts = |world: &World| world.pods.get(key).cloned();
        let (Some(now), Some(then)) = (facts(&index.world), facts(&before.world)) else {
            return false;
        };
        (Arc::ptr_eq(&now, &then) || now == then)
            && new.declared == old.declared
            && new.headless == old.headless
            && same_surroundings(index, before, key, &now)
            && (same_targets || rules_are_unused(old) || same_rules(index, before, key, &now))
    })
}

/// Nobody has asked for the pod's rules, so nobody can miss that they changed.
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

#[cfg(test)]
mod tests;
