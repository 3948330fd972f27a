//! Decides which pod or Service has an IP address, where several claim it.
//!
//! A cluster reports it in the wrong order often enough: an address passes to a new pod while the
//! former one still has it in its status. A call that went to the wrong one would be evaluated by
//! another pod's rules.

use std::{collections::HashMap, net::IpAddr};

use crate::world::{ObjectKey, World};

/// Pods by address. An address passes from pod to pod: the one that has not ended
/// counts, of several the one not being deleted, of several the newest.
pub(super) fn pods_by_ip(world: &World) -> HashMap<IpAddr, ObjectKey> {
    holders(world, |_| true)
}

/// The same for these addresses.
pub(super) fn holders(
    world: &World,
    wanted: impl Fn(&IpAddr) -> bool,
) -> HashMap<IpAddr, ObjectKey> {
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
pub(super) fn services_by_ip(world: &World) -> HashMap<IpAddr, ObjectKey> {
    let services = world.services.iter();
    services
        .flat_map(|(key, facts)| facts.cluster_ips.iter().map(|ip| (*ip, key.clone())))
        .collect()
}

/// Services by outer address and port; the oldest Service that claims one has it.
pub(super) fn services_by_outer(world: &World) -> HashMap<(IpAddr, u16), ObjectKey> {
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
