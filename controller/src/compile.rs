//! Compiles a World into a Model. Pure: no clock, no randomness, and no memory: where
//! an earlier Model helps (`after`), it is an argument and changes nothing but the time.
//!
//! What users wrote is judged here and nowhere else. A mistake costs the object
//! that holds it as little as is safe, and no other object anything. Where it is
//! unclear what an access rule means, it allows less.

mod access;
mod after;
mod annotations;
pub(crate) mod bindings;
mod differences;
mod endpoints;
pub(crate) mod findings;
pub(crate) mod protocols;
mod routes;
pub(crate) mod run;
mod slices;
mod splits;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use self::findings::Findings;
use crate::{
    model::{Changes, Defaults, Index, Model, PodEntry, ServiceEntry},
    problem::Problems,
    world::{ObjectKey, World},
};

impl Model {
    /// Compiles a World. Never fails: what is wrong is said in the Problems, and
    /// everything else is in force.
    pub fn compile(world: &World, defaults: &Defaults) -> (Self, Problems) {
        let (index, problems) = compile(world, defaults);
        (
            Self {
                index: Arc::new(index),
            },
            problems,
        )
    }

    /// The same as [`Self::compile`], faster: what `before` worked out and the news do not
    /// touch is taken over, encoded resources included. Also tells what differs.
    pub fn compile_after(
        world: &World,
        defaults: &Defaults,
        before: &Self,
        problems: &Arc<Problems>,
    ) -> (Self, Arc<Problems>, Changes) {
        let (index, problems, changes) =
            after::compile_after(world, defaults, &before.index, problems);
        let index = Arc::new(index);
        (Self { index }, problems, changes)
    }
}

/// Compiles; see the module header.
fn compile(world: &World, defaults: &Defaults) -> (Index, Problems) {
    let mut findings = Findings::default();
    let routes = routes::Routes::new(world, defaults, &mut findings);
    let mut splits = splits::by_root(world, defaults, &routes, &mut findings);
    let pods_by_ip = pods_by_ip(world);
    let endpoints = slices::by_port(world, defaults, &pods_by_ip);
    let mut declared = protocols::declared_for_pods(world, &endpoints, &mut findings);

    let mut pods: BTreeMap<ObjectKey, PodEntry> = world
        .pods
        .keys()
        .map(|key| {
            let declared = declared.remove(key).unwrap_or_default();
            (
                key.clone(),
                PodEntry {
                    declared,
                    ..PodEntry::default()
                },
            )
        })
        .collect();
    endpoints::note_services(world, &endpoints, &mut pods);
    let pods: BTreeMap<ObjectKey, Arc<PodEntry>> = pods
        .into_iter()
        .map(|(key, entry)| (key, Arc::new(entry)))
        .collect();
    let bindings = bindings::Bindings::new(world, defaults, &mut findings);
    let named = access::Named {
        defaults,
        routes: &routes,
        bindings: &bindings,
        protocols: protocols::Reader { world, pods: &pods },
    };
    let targets = access::targets(world, &named, &endpoints, &mut findings);
    annotations::check_opaque_ports(world, &mut findings);
    annotations::check_modes(world, &mut findings);

    let services: BTreeMap<ObjectKey, Arc<ServiceEntry>> = world
        .services
        .iter()
        .map(|(key, facts)| {
            let ports = endpoints::ports(world, key, facts, &endpoints, &pods);
            let splits = splits.remove(key).unwrap_or_default();
            (
                key.clone(),
                Arc::new(ServiceEntry {
                    facts: facts.clone(),
                    ports,
                    splits,
                }),
            )
        })
        .collect();

    let index = Index {
        pods_by_ip: Arc::new(pods_by_ip),
        services_by_ip: Arc::new(services_by_ip(world)),
        services_by_outer: Arc::new(services_by_outer(world)),
        services,
        pods: Arc::new(pods),
        targets: Arc::new(targets),
        uses: Arc::default(),
        running: Arc::default(),
        world: world.clone(),
        defaults: defaults.clone(),
    };
    (index, findings.finish())
}

/// Pods by address. An address passes from pod to pod: the one that has not ended
/// counts, of several the one not being deleted, of several the newest.
fn pods_by_ip(world: &World) -> HashMap<IpAddr, ObjectKey> {
    holders(world, |_| true)
}

/// The same for these addresses.
fn holders(world: &World, wanted: impl Fn(&IpAddr) -> bool) -> HashMap<IpAddr, ObjectKey> {
    let mut best: HashMap<IpAddr, (bool, i64, &ObjectKey)> = HashMap::new();
    for (key, facts) in world.pods.iter() {
        if facts.ended || facts.host_network {
            continue;
        }
        let rank = (!facts.terminating, facts.created, key);
        for ip in facts.ips.iter().filter(|ip| wanted(ip)) {
            let holder = best.entry(*ip).or_insert(rank);
            *holder = (*holder).max(rank);
        }
    }
    best.into_iter()
        .map(|(ip, (.., key))| (ip, key.clone()))
        .collect()
}

/// Services by cluster address, which Kubernetes hands out once only.
fn services_by_ip(world: &World) -> HashMap<IpAddr, ObjectKey> {
    let services = world.services.iter();
    services
        .flat_map(|(key, facts)| facts.cluster_ips.iter().map(|ip| (*ip, key.clone())))
        .collect()
}

/// Services by outer address and port; the oldest Service that claims one has it.
fn services_by_outer(world: &World) -> HashMap<(IpAddr, u16), ObjectKey> {
    let mut oldest: HashMap<(IpAddr, u16), (i64, &ObjectKey)> = HashMap::new();
    for (key, facts) in world.services.iter() {
        for ip in &facts.outer_ips {
            for port in &facts.ports {
                let claim = (facts.created, key);
                let holder = oldest.entry((*ip, port.number)).or_insert(claim);
                *holder = (*holder).min(claim);
            }
        }
    }
    oldest
        .into_iter()
        .map(|(at, (_, key))| (at, key.clone()))
        .collect()
}

#[cfg(test)]
mod tests;
