//! Joins the endpoints of EndpointSlices with the pods that serve them.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
};

use crate::{
    model::{Defaults, Served, identity_at},
    world::{EndpointFacts, ObjectKey, PodFacts, ServiceFacts, SliceFacts, TopologyHints, World},
};

/// A Service and the number of one of its ports.
type ServicePortKey = (ObjectKey, u16);

/// An endpoint before its protocol is known.
#[derive(Clone, Debug)]
pub(super) struct SliceEndpoint {
    pub(super) ip: IpAddr,
    /// Container port.
    pub(super) port: u16,
    pub(super) pod: Option<ObjectKey>,
    /// Uid of that pod; empty without one.
    pub(super) pod_uid: Arc<str>,
    pub(super) identity: String,
    pub(super) zone: String,
    pub(super) node: Arc<str>,
    pub(super) ready: bool,
    /// Since when, as of [`PodFacts::ready_since`].
    pub(super) ready_since: u64,
    pub(super) serving: bool,
    pub(super) terminating: bool,
    pub(super) hints: Option<Arc<TopologyHints>>,
    /// It has a hostname of its own.
    pub(super) named: bool,
    /// As `EndpointState` has it.
    pub(super) gated: Option<u64>,
}

/// All endpoints by Service port, sorted by address.
pub(super) type ByPort = BTreeMap<ServicePortKey, Vec<SliceEndpoint>>;

/// Reads all slices.
pub(super) fn by_port(
    world: &World,
    defaults: &Defaults,
    by_ip: &HashMap<IpAddr, ObjectKey>,
) -> ByPort {
    read(world.slices.iter(), world, defaults, by_ip)
}

/// Reads the slices of one Service.
pub(super) fn of_service(
    world: &World,
    defaults: &Defaults,
    by_ip: &HashMap<IpAddr, ObjectKey>,
    service: &ObjectKey,
) -> ByPort {
    let start = ObjectKey {
        namespace: service.namespace.clone(),
        name: "".into(),
    };
    let slices = world
        .slices
        .range(start..)
        .take_while(|(key, _)| key.namespace == service.namespace)
        .filter(|(_, slice)| slice.service == service.name);
    read(slices, world, defaults, by_ip)
}

/// Whether both have the same pods at the same ports, in whatever state: then
/// everything but the endpoints themselves follows alike from them.
pub(super) fn same_addresses(one: &ByPort, other: &ByPort) -> bool {
    fn addresses(found: &[SliceEndpoint]) -> BTreeSet<(Option<&ObjectKey>, u16)> {
        found
            .iter()
            .map(|found| (found.pod.as_ref(), found.port))
            .collect()
    }
    one.len() == other.len()
        && one
            .iter()
            .zip(other)
            .all(|((one_key, one), (other_key, other))| {
                one_key == other_key && addresses(one) == addresses(other)
            })
}

fn read<'a>(
    slices: impl Iterator<Item = (&'a ObjectKey, &'a Arc<SliceFacts>)>,
    world: &World,
    defaults: &Defaults,
    by_ip: &HashMap<IpAddr, ObjectKey>,
) -> ByPort {
    let mut found: BTreeMap<ServicePortKey, BTreeMap<(IpAddr, u16), SliceEndpoint>> =
        BTreeMap::new();
    for (slice_key, slice) in slices {
        let key = ObjectKey {
            namespace: slice_key.namespace.clone(),
            name: slice.service.clone(),
        };
        let Some(service) = world.services.get(&key) else {
            continue;
        };
        for slice_port in &slice.ports {
            // The slice's number already is the target port, named ones resolved.
            for port in service
                .ports
                .iter()
                .filter(|port| port.name == slice_port.name)
            {
                let at = found.entry((key.clone(), port.number)).or_default();
                for endpoint in &slice.endpoints {
                    let Some(new) =
                        look_up(world, defaults, by_ip, service, endpoint, slice_port.number)
                    else {
                        continue;
                    };
                    // While slices are rearranged an endpoint may be in two of them.
                    at.entry((new.ip, new.port))
                        .and_modify(|known| {
                            known.ready |= new.ready;
                            known.ready_since = known.ready_since.max(new.ready_since);
                            known.serving |= new.serving;
                            known.terminating &= new.terminating;
                            known.named |= new.named;
                            known.gated = known.gated.or(new.gated);
                            if known.hints.is_none() {
                                known.hints.clone_from(&new.hints);
                            }
                        })
                        .or_insert(new);
                }
            }
        }
    }
    found
        .into_iter()
        .map(|(key, at)| (key, one_per_pod(at.into_values())))
        .collect()
}

/// A pod with addresses of both families is one endpoint: its lowest address,
/// which is the IPv4 one.
fn one_per_pod(found: impl Iterator<Item = SliceEndpoint>) -> Vec<SliceEndpoint> {
    let mut seen: BTreeSet<(ObjectKey, u16)> = BTreeSet::new();
    found
        .filter(|found| match &found.pod {
            Some(pod) => seen.insert((pod.clone(), found.port)),
            None => true,
        })
        .collect()
}

/// An endpoint with what is known about its pod. `None` if the slice and the pods disagree about
/// which pod is behind the address: one of the two is out of date, and sending to it could reach
/// the wrong pod, or a meshed one in plaintext.
fn look_up(
    world: &World,
    defaults: &Defaults,
    by_ip: &HashMap<IpAddr, ObjectKey>,
    service: &ServiceFacts,
    endpoint: &EndpointFacts,
    port: u16,
) -> Option<SliceEndpoint> {
    let pod: Option<(&ObjectKey, &PodFacts)> = match &endpoint.pod {
        Some(claimed) => {
            let (key, facts) = world.pods.get_key_value(claimed)?;
            if facts.ended || !facts.ips.contains(&endpoint.ip) {
                return None;
            }
            Some((key, facts))
        }
        // Written by hand, for a Service without selector.
        None => by_ip
            .get(&endpoint.ip)
            .and_then(|key| world.pods.get_key_value(key))
            .map(|(key, facts)| (key, facts.as_ref())),
    };
    let leaving = pod.is_some_and(|(_, facts)| facts.terminating);
    let terminating = endpoint.terminating || leaving;
    let node = match pod {
        Some((_, facts)) if !facts.node.is_empty() => facts.node.clone(),
        _ => endpoint.node.clone(),
    };
    // The pod may be known to leave, or to be unready, before its slice shows it. Its own
    // state decides then, and what its slice shows after it is no second change.
    let unready = endpoint.follows_pod && pod.is_some_and(|(_, facts)| facts.unready);
    let ready = endpoint.ready && (service.publish_not_ready || !(terminating || unready));
    let zone = match &*endpoint.zone {
        "" => world.zone(&node).to_owned(),
        zone => zone.to_owned(),
    };
    Some(SliceEndpoint {
        ip: endpoint.ip,
        port,
        identity: pod.map_or_else(String::new, |(key, facts)| {
            identity_at(defaults, key, facts, port)
        }),
        pod: pod.map(|(key, _)| key.clone()),
        pod_uid: pod.map_or_else(Arc::default, |(_, facts)| facts.uid.clone()),
        zone,
        node,
        ready,
        // Before its slice is ready no proxy needs it. A slice that is ready whatever the pod
        // reports, or that Kubernetes does not keep, would send it at each change of the pod's
        // state.
        ready_since: pod
            .filter(|_| ready && endpoint.follows_pod && !service.publish_not_ready)
            .map_or(0, |(_, facts)| facts.ready_since),
        serving: endpoint.serving || endpoint.ready,
        terminating,
        hints: endpoint.hints.clone(),
        named: endpoint.named,
        gated: pod
            .filter(|_| endpoint.follows_pod && !terminating)
            .and_then(|(_, facts)| facts.gate)
            .filter(|gate| gate.containers_ready)
            .map(|gate| gate.ready_since),
    })
}

/// What each pod serves, in one order.
pub(super) fn served_by_pod(found: &ByPort) -> BTreeMap<&ObjectKey, Vec<Served>> {
    let mut pods: BTreeMap<&ObjectKey, Vec<Served>> = BTreeMap::new();
    for ((service, number), found) in found {
        for found in found {
            if let Some(pod) = &found.pod {
                let served = (service.clone(), *number, found.port);
                pods.entry(pod).or_default().push(served);
            }
        }
    }
    pods
}
