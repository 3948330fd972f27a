//! Compiles a World incrementally, from the previous World and its compiled Model.
//!
//! There are three ways. If nothing but the state of endpoints changed, or whether and since when
//! their pods are ready, only their Services are compiled again; so where hosts outside the mesh
//! have other addresses, which are read when proxies are served. If pods came, went or changed, or
//! endpoints with them, those pods and the Services whose slices name them are. After any other
//! change all is compiled again, and equal results are replaced by the previous ones, so that
//! resources stay encoded and proxies that need no change are skipped.
//!
//! The second way is for pods without problems, where every policy means what is written in it.
//! Other pods change what a policy means: one whose labels a binding selects, one for which the
//! port of a rule is a Service's, one with an annotation that cannot be read, the first or last
//! one that certain Services share. These take the third way.
//!
//! Invariant: the outcome equals that of compiling from nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet},
    net::IpAddr,
    sync::{Arc, OnceLock},
};

use super::{
    access::ports::as_written,
    annotations, bindings,
    differences::{
        changed_hosts, changed_pods, only_readiness_differs, same_besides_pods_and_slices,
        same_ports, services_of_changed_slices, take_over, with_places,
    },
    endpoints, protocols, release_findings, releases, revocations, service_routes,
    slices::{self, ByPort},
    traffic,
};
use crate::{
    model::{
        Defaults, Index, PodEntry, PortEntry, Served, ServiceEntry, by_say, changes::Changes,
        peers, traffic::ServicePodFacts,
    },
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
    // The shorter ways go by the defaults of before.
    if defaults.revocation == before.defaults.revocation {
        let shorter = states_only(world, before).or_else(|| pods_and_places(world, before));
        if let Some((index, changes)) = shorter {
            return (index, problems.clone(), changes);
        }
    }
    let (mut index, fresh) = super::whole::compile(world, defaults);
    let changes = take_over(&mut index, before);
    let problems = match fresh == **problems {
        true => problems.clone(),
        false => Arc::new(fresh),
    };
    (index, problems, changes)
}

/// The shorter way: `None` if more has changed than states of endpoints and readiness of pods.
fn states_only(world: &World, before: &Index) -> Option<(Index, Changes)> {
    let old = &before.world;
    if !same_besides_pods_and_slices(world, old) {
        return None;
    }
    let dirty = changed_pods(world, old);
    let only_readiness = |pod| only_readiness_differs(world, old, pod);
    if !dirty.iter().all(only_readiness) || release_findings::differ_by_state(world, before) {
        return None;
    }
    let defaults = &before.defaults;
    let mut services = before.services.clone();
    let mut affected = services_of_changed_slices(world, old);
    let ips = addresses_of(&dirty, [world, old]);
    affected.extend(services_that_name(world, &dirty, &ips));
    let mut moved = HashSet::new();
    for key in &affected {
        // Slices without a Service mean nothing.
        let Some(entry) = before.services.get(key) else {
            continue;
        };
        let was = slices::of_service(old, defaults, &before.pods_by_ip, key);
        let is = slices::of_service(world, defaults, &before.pods_by_ip, key);
        if !slices::same_addresses(&was, &is) {
            return None;
        }
        let revocations = &*before.revocations;
        let ports = endpoints::ports((world, revocations), key, &entry.facts, &is, &before.pods);
        let new = with_ports(world, key, entry, ports);
        if !same_ports(&new, entry) {
            services.insert(key.clone(), Arc::new(new));
            moved.insert(key.clone());
        }
    }
    let index = Index {
        world: world.clone(),
        defaults: defaults.clone(),
        pods_by_ip: before.pods_by_ip.clone(),
        services_by_ip: before.services_by_ip.clone(),
        services_by_outer: before.services_by_outer.clone(),
        machine_ips: before.machine_ips.clone(),
        services,
        pods: before.pods.clone(),
        targets: before.targets.clone(),
        bindings: before.bindings.clone(),
        policies: before.policies.clone(),
        names: before.names.clone(),
        releases: before.releases.clone(),
        externals: before.externals.clone(),
        revocations: before.revocations.clone(),
        gateways: before.gateways.clone(),
        dependents: before.dependents.clone(),
        running: before.running.clone(),
        peers: before.peers.clone(),
        shared: before.shared.clone(),
    };
    let hosts = changed_hosts(world, old);
    let changes = Changes {
        states_only: hosts.is_empty(),
        services: moved,
        hosts,
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
        let mut facts = facts.into_iter().flatten();
        facts.any(|facts| annotations::has_problem(facts))
            || bindings::differ_about(world, old, pod)
    };
    if dirty.iter().any(means_more) || revocations::differ(world, defaults, &before.revocations) {
        return None;
    }
    let ips = addresses_of(&dirty, [world, old]);
    let (pods_by_ip, addresses) = new_holders(world, before, &ips);
    let mut affected = services_of_changed_slices(world, old);
    affected.extend(services_that_name(world, &dirty, &ips));
    // Then a run of an experiment may harm other pods.
    if before.policies.faults.are_selective(&affected) {
        return None;
    }
    let mut found = ByPort::new();
    let known = |key: &&ObjectKey| before.services.contains_key(*key);
    for key in affected.iter().filter(known) {
        found.append(&mut slices::of_service(world, defaults, &pods_by_ip, key));
    }

    let change = Change {
        world,
        before,
        dirty: &dirty,
        affected: &affected,
    };
    let Pods {
        pods,
        changed,
        reread,
    } = change.pods(&found)?;
    for key in reread.iter().filter(|key| !affected.contains(*key)) {
        found.append(&mut slices::of_service(world, defaults, &pods_by_ip, key));
    }
    let (services, moved) = change.services(&reread, &found, &pods);
    // Then the conditions of policies and releases may change, too.
    let watched = &before.policies.watched;
    let differs = |(key, was): (&ObjectKey, &ServicePodFacts)| {
        traffic::surroundings(key, &services, &pods) != *was
    };
    if watched.iter().any(differs)
        || release_findings::differ(&before.releases, world, &services, &pods)
        || moved
            .iter()
            .any(|key| service_routes::may_differ(world, key, [&before.services, &services]))
    {
        return None;
    }
    let meshed = |pod: &ObjectKey| {
        let facts = [world.pods.get(pod), old.pods.get(pod)];
        let mut facts = facts.into_iter().flatten();
        facts.any(|facts| facts.proxy.is_some())
    };
    let same_proxies = !dirty.iter().any(meshed);
    let index = with_places(before, world, (pods_by_ip, services, pods), same_proxies);
    let workloads = peers::changed([world, old], dirty.iter());
    let changes = Changes {
        states_only: false,
        services: moved,
        pods: changed,
        addresses,
        hosts: changed_hosts(world, old),
        resized: index.resized(&workloads, before),
        workloads,
        revocations: false,
    };
    Some((index, changes))
}

/// A change of pods and endpoints.
struct Change<'a> {
    world: &'a World,
    before: &'a Index,
    /// Pods that are not what they were.
    dirty: &'a BTreeSet<ObjectKey>,
    /// Services whose endpoints may not be what they were.
    affected: &'a BTreeSet<ObjectKey>,
}

/// The pods after a change.
struct Pods {
    pods: Arc<BTreeMap<ObjectKey, Arc<PodEntry>>>,
    /// Those whose proxies may need another resource.
    changed: HashSet<ObjectKey>,
    /// Services whose pods speak something else now.
    reread: BTreeSet<ObjectKey>,
}

impl Change<'_> {
    /// Reads the pods around the change again; `None` if it means more than itself.
    fn pods(&self, found: &ByPort) -> Option<Pods> {
        let (world, before) = (self.world, self.before);
        let served = slices::served_by_pod(found);
        let mut around = self.dirty.clone();
        around.extend(served.keys().copied().cloned());
        around.extend(
            self.affected
                .iter()
                .flat_map(|key| pods_behind(before, key)),
        );
        let mut read = Pods {
            pods: Arc::clone(&before.pods),
            changed: HashSet::new(),
            reread: BTreeSet::new(),
        };
        let mut shared = traffic::SharedPods::new(before);
        for key in &around {
            let was = before.pods.get(key);
            if let (Some(was), Some(facts)) = (was, before.world.pods.get(key)) {
                shared.note_was(facts, &was.serves);
                let targets = before.targets.of(key, facts);
                protocols::declared_for_pod(&before.world, &was.serves)?;
                if !as_written(targets, facts, &was.serves) {
                    return None;
                }
            }
            let Some(facts) = world.pods.get(key) else {
                if was.is_some() {
                    Arc::make_mut(&mut read.pods).remove(key);
                    read.changed.insert(key.clone());
                }
                continue;
            };
            let all = now_served(was, served.get(key), self.affected);
            let headless = endpoints::headless(world, &all);
            let (serves, elsewhere) = by_say(key, all);
            let declared = protocols::declared_for_pod(world, &serves)?;
            shared.note_now(facts, &serves);
            if !as_written(before.targets.of(key, facts), facts, &serves) {
                return None;
            }
            let now = PodEntry {
                declared,
                headless,
                serves,
                elsewhere,
                workload: OnceLock::new(),
                guard: OnceLock::new(),
                guard_resource: OnceLock::new(),
                routes: OnceLock::new(),
            };
            if was.is_some_and(|was| {
                was.serves != now.serves && self.proxy_config_differs(key, facts, [was, &now])
            }) {
                read.changed.insert(key.clone());
            }
            let same_reports =
                was.is_none_or(|was| before.counts_early(was) == before.counts_early(&now));
            read.replace(key, was, now, self.dirty.contains(key) || !same_reports);
        }
        shared.reports_alike(&around).then_some(read)
    }

    /// Whether the configuration of a pod's proxy differs between these two of what it serves.
    fn proxy_config_differs(
        &self,
        key: &ObjectKey,
        facts: &PodFacts,
        entries: [&PodEntry; 2],
    ) -> bool {
        let before = self.before;
        let [was, now] = entries.map(|entry| {
            let guard = before.policies.guard(&entry.serves);
            (guard, before.route_groups(key, facts, &entry.serves))
        });
        was != now
    }

    /// The Services after the change, and those whose resources may differ.
    fn services(
        &self,
        reread: &BTreeSet<ObjectKey>,
        found: &ByPort,
        pods: &BTreeMap<ObjectKey, Arc<PodEntry>>,
    ) -> (BTreeMap<ObjectKey, Arc<ServiceEntry>>, HashSet<ObjectKey>) {
        let mut services = self.before.services.clone();
        let mut moved = HashSet::new();
        for key in self.affected.union(reread) {
            // Slices without a Service mean nothing.
            let Some(entry) = self.before.services.get(key) else {
                continue;
            };
            let around = (self.world, &*self.before.revocations);
            let ports = endpoints::ports(around, key, &entry.facts, found, pods);
            let new = with_ports(self.world, key, entry, ports);
            if !same_ports(&new, entry) {
                services.insert(key.clone(), Arc::new(new));
                moved.insert(key.clone());
            }
        }
        (services, moved)
    }
}

/// A Service with other ports. Its splits and routes depend on no endpoint.
fn with_ports(
    world: &World,
    key: &ObjectKey,
    entry: &ServiceEntry,
    ports: BTreeMap<u16, PortEntry>,
) -> ServiceEntry {
    let splits = entry.splits.clone();
    let mut new = ServiceEntry {
        routes: entry.routes.clone(),
        ..releases::service_entry(world, key, &entry.facts, ports, splits)
    };
    for (number, port) in &mut new.ports {
        if let Some(was) = entry.ports.get(number)
            && was.protocol == port.protocol
        {
            port.routed.clone_from(&was.routed);
        }
    }
    new
}

impl Pods {
    /// Puts a pod in the place of what it was. `itself`: not only what is around it has
    /// changed.
    fn replace(
        &mut self,
        key: &ObjectKey,
        was: Option<&Arc<PodEntry>>,
        mut now: PodEntry,
        itself: bool,
    ) {
        let declares_same = was.is_some_and(|was| was.declared == now.declared);
        let same = declares_same && was.is_some_and(|was| was.headless == now.headless);
        if itself || !declares_same {
            let services = now.led_to_by().map(|(service, ..)| service.clone());
            self.reread.extend(services);
        }
        match was {
            Some(was) if same && !itself => {
                now.workload = was.workload.clone();
                // Keeps that a proxy has its names, or a change of them would reach none.
                if !self.changed.contains(key) {
                    now.routes = was.routes.clone();
                }
            }
            _ => drop(self.changed.insert(key.clone())),
        }
        if itself || !same || was.is_none_or(|was| !was.serves_same(&now)) {
            Arc::make_mut(&mut self.pods).insert(key.clone(), Arc::new(now));
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
    let mut holders = super::addresses::holders(world, |ip| ips.contains(ip));
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
    ports
        .flat_map(|port| &port.candidates)
        .filter_map(|candidate| candidate.endpoint.pod.clone())
}

/// What a pod serves, if of these Services it serves what was found.
fn now_served(
    was: Option<&Arc<PodEntry>>,
    found: Option<&Vec<Served>>,
    reread: &BTreeSet<ObjectKey>,
) -> Vec<Served> {
    let was = was.into_iter().flat_map(|was| was.led_to_by());
    let others = was.filter(|(service, ..)| !reread.contains(service));
    let mut served: Vec<Served> = others.chain(found.into_iter().flatten()).cloned().collect();
    // Stable: the ports of one Service stay in their order.
    served.sort_by(|one, other| (&one.0, one.1).cmp(&(&other.0, other.1)));
    served
}

#[cfg(test)]
mod tests;
