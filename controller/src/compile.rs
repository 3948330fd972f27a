//! Compiles a World into a Model. Pure: no clock, no randomness, and no memory: where
//! an earlier Model helps (`after`), it is an argument and changes nothing but the time.
//!
//! What an object means by itself has been judged when it was read; here it meets the
//! others, and what does not fit is said of it. A mistake costs the object that holds it
//! as little as is safe, and no other object anything. Where it is unclear what an access
//! rule means, it allows less.

mod access;
mod after;
pub(crate) mod bindings;
mod endpoints;
pub(crate) mod modes;
pub(crate) mod protocols;
mod routes;
mod splits;

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use policy::name::{Kind, ObjectRef};

pub(crate) use self::after::compile_after;
use crate::{
    model::{Defaults, Index, PodEntry, ServiceEntry},
    problem::{Findings, Problems},
    world::{Meta, ObjectKey, World},
};

/// Compiles; see the module header.
pub(crate) fn compile(world: &World, defaults: &Defaults) -> (Index, Problems) {
    let mut findings = Findings::default();
    let routes = routes::Routes::new(world, defaults, &mut findings);
    let mut splits = splits::by_root(world, &routes, &mut findings);
    let pods_by_ip = pods_by_ip(world);
    let endpoints = endpoints::by_port(world, defaults, &pods_by_ip);
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
    protocols::check_annotations(world, &mut findings);
    modes::check_annotations(world, &mut findings);

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

/// The name of an object as problems and origins carry it.
fn object(kind: Kind, key: &ObjectKey) -> ObjectRef {
    ObjectRef {
        kind,
        namespace: key.namespace.clone(),
        name: key.name.clone(),
    }
}

/// An object with its generation.
fn origin(kind: Kind, key: &ObjectKey, meta: &Meta) -> (ObjectRef, i64) {
    (object(kind, key), meta.generation)
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

/// Names joined for one line, shortened when there are many.
pub(crate) fn few(names: impl IntoIterator<Item = impl AsRef<str>>) -> String {
    const SHOWN: usize = 5;
    let names: Vec<String> = names
        .into_iter()
        .map(|name| name.as_ref().to_owned())
        .collect();
    let mut text = names[..names.len().min(SHOWN)].join(", ");
    if names.len() > SHOWN {
        text.push_str(&format!(" +{}", names.len() - SHOWN));
    }
    text
}

#[cfg(test)]
mod tests;
