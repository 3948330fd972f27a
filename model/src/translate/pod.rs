//! Translates Pods: addresses, readiness, the gate of releases, and the proxy that a pod carries.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crds::labels;
use ipnet::IpNet;
use k8s_openapi::{
    api::core::v1::{Container, Pod, PodCondition, PodSpec, PodStatus},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::DynamicObject;
use policy::{protocol::PortRange, well_known::MESH_PORT};

use super::core::{addresses, annotations, is_tcp, pairs, parse, port_number};
use super::metadata::{Unusable, annotation, created, text};
use crate::world::{Gate, Owner, PodFacts, Proxy};

/// Arguments of the capture container that list what it leaves alone.
const SKIP_INBOUND_ARGUMENT: &str = "--skip-inbound-ports";
const SKIP_OUTBOUND_PORTS_ARGUMENT: &str = "--skip-outbound-ports";
const SKIP_OUTBOUND_NETS_ARGUMENT: &str = "--skip-outbound-cidrs";

/// A pod.
pub fn pod(object: DynamicObject) -> Result<PodFacts, Unusable> {
    let Pod {
        metadata: meta,
        spec,
        status,
    } = parse(object)?;
    let (spec, status) = (spec.unwrap_or_default(), status.unwrap_or_default());
    let mut ips: Vec<IpAddr> = addresses(
        status
            .pod_ips
            .iter()
            .flatten()
            .map(|ip| ip.ip.as_str())
            .chain(status.pod_ip.as_deref()),
    );
    ips.sort_unstable();
    ips.dedup();
    let account = spec
        .service_account_name
        .as_deref()
        .filter(|name| !name.is_empty());
    Ok(PodFacts {
        uid: text(meta.uid.as_deref()),
        ips,
        ended: matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")),
        terminating: meta.deletion_timestamp.is_some(),
        service_account: account.unwrap_or("default").into(),
        node: text(spec.node_name.as_deref()),
        host_network: spec.host_network.unwrap_or(false),
        ready_since: ready_since(&status),
        unready: readiness(&status).is_some_and(|one| one.status == "False"),
        gate: gate(&spec, &status),
        owner: owner(&meta),
        labels: pairs(meta.labels.as_ref()),
        ports: container_ports(&spec),
        annotations: annotations(&meta),
        proxy: proxy(&meta, &spec, &status),
        created: created(&meta),
    })
}

/// The owner that controls an object; there is at most one.
pub fn owner(meta: &ObjectMeta) -> Option<Owner> {
    let mut owners = meta.owner_references.iter().flatten();
    let owner = owners.find(|owner| owner.controller == Some(true))?;
    Some(Owner {
        api_version: owner.api_version.as_str().into(),
        kind: owner.kind.as_str().into(),
        name: owner.name.as_str().into(),
    })
}

fn ready_since(status: &PodStatus) -> u64 {
    readiness(status).map_or(0, true_since)
}

/// 0 where the condition is not true, or does not say since when.
fn true_since(condition: &PodCondition) -> u64 {
    let since = condition
        .last_transition_time
        .as_ref()
        .filter(|_| condition.status == "True");
    since.map_or(0, |time| u64::try_from(time.0.as_second()).unwrap_or(0))
}

fn readiness(status: &PodStatus) -> Option<&PodCondition> {
    condition(status, "Ready")
}

fn condition<'a>(status: &'a PodStatus, named: &str) -> Option<&'a PodCondition> {
    let mut conditions = status.conditions.iter().flatten();
    conditions.find(|one| one.type_ == named)
}

/// The gate of releases; the pod's spec decides whether it has one. A gate of users that is shut
/// keeps the pod from its callers, with a release as without.
fn gate(spec: &PodSpec, status: &PodStatus) -> Option<Gate> {
    let gates = spec.readiness_gates.iter().flatten();
    let gates = gates.map(|gate| gate.condition_type.as_str());
    let (ours, others): (Vec<&str>, Vec<&str>) =
        gates.partition(|named| *named == labels::RELEASED_CONDITION);
    ours.first()?;
    let is_true = |named: &str| condition(status, named).is_some_and(|one| one.status == "True");
    let mut needed = others;
    needed.push("ContainersReady");
    let ready = needed.iter().all(|named| is_true(named));
    let since = needed
        .iter()
        .filter_map(|named| condition(status, named).map(true_since));
    let containers = status.container_statuses.iter().flatten();
    let restarts = containers.map(|one| u32::try_from(one.restart_count).unwrap_or(0));
    Some(Gate {
        containers_ready: ready,
        ready_since: since.max().filter(|_| ready).unwrap_or(0),
        released: is_true(labels::RELEASED_CONDITION),
        restarts: restarts.fold(0, u32::saturating_add),
    })
}

fn container_ports(spec: &PodSpec) -> BTreeMap<u16, Arc<str>> {
    // Native sidecars may serve too, so init containers count.
    let containers = spec
        .containers
        .iter()
        .chain(spec.init_containers.iter().flatten());
    containers
        .flat_map(|container| container.ports.iter().flatten())
        .filter(|port| is_tcp(port.protocol.as_deref()))
        .filter_map(|port| {
            Some((
                port_number(port.container_port)?,
                text(port.name.as_deref()),
            ))
        })
        .collect()
}

fn proxy(meta: &ObjectMeta, spec: &PodSpec, status: &PodStatus) -> Option<Proxy> {
    let version = annotation(meta, labels::PROXY_VERSION)?;
    if let Some(running) = gateway(spec, status) {
        return Some(Proxy {
            version,
            running,
            is_gateway: true,
            skip_inbound_ports: all_but(MESH_PORT),
            skip_outbound_ports: Vec::new(),
            skip_outbound_nets: Vec::new(),
        });
    }
    let init = spec.init_containers.as_deref().unwrap_or_default();
    if spec.host_network == Some(true)
        || !init
            .iter()
            .any(|c| c.name == crds::objects::PROXY_CONTAINER)
    {
        return None;
    }
    let running = status
        .init_container_statuses
        .iter()
        .flatten()
        .filter(|container| container.name == crds::objects::PROXY_CONTAINER)
        .any(|container| {
            container
                .state
                .as_ref()
                .is_some_and(|state| state.running.is_some())
        });
    // The arguments and not the annotation: that one may have been edited since, and
    // a port that is captured after all must never be called in plaintext.
    let capture = init
        .iter()
        .find(|container| container.name == crds::objects::CAPTURE_CONTAINER);
    let skipped = |argument| capture.and_then(|capture| argument_value(capture, argument));
    let ports = |argument| {
        let list = skipped(argument);
        let list = list.and_then(|list| PortRange::parse_list(&list).ok());
        list.unwrap_or_default()
    };
    let nets = skipped(SKIP_OUTBOUND_NETS_ARGUMENT).unwrap_or_default();
    Some(Proxy {
        version,
        running,
        is_gateway: false,
        skip_inbound_ports: ports(SKIP_INBOUND_ARGUMENT),
        skip_outbound_ports: ports(SKIP_OUTBOUND_PORTS_ARGUMENT),
        skip_outbound_nets: nets.split(',').filter_map(net).collect(),
    })
}

/// Whether the program of a Gateway runs in the pod; `None` if the pod has none. It needs no
/// sidecar and no capture: it is the pod's application.
fn gateway(spec: &PodSpec, status: &PodStatus) -> Option<bool> {
    let is_named = |name: &str| name == crds::objects::GATEWAY_CONTAINER;
    if spec.host_network == Some(true) || !spec.containers.iter().any(|one| is_named(&one.name)) {
        return None;
    }
    let mut states = status.container_statuses.iter().flatten();
    let running = states.find(|one| is_named(&one.name));
    let state = running.and_then(|one| one.state.as_ref());
    Some(state.is_some_and(|state| state.running.is_some()))
}

/// All ports but one.
fn all_but(port: u16) -> Vec<PortRange> {
    let ranges = [(1, port - 1), (port + 1, u16::MAX)];
    let ranges = ranges.into_iter();
    ranges
        .filter_map(|(first, last)| PortRange::new(first, last))
        .collect()
}

/// A net, or an address as the net that holds nothing else.
fn net(text: &str) -> Option<IpNet> {
    let text = text.trim();
    let alone = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse().ok().or_else(alone)
}

/// What the capture container was started with for this argument.
fn argument_value(capture: &Container, argument: &str) -> Option<String> {
    let mut words = capture
        .command
        .iter()
        .flatten()
        .chain(capture.args.iter().flatten());
    while let Some(word) = words.next() {
        if word == argument {
            return words.next().cloned();
        }
        let joined = word
            .strip_prefix(argument)
            .and_then(|w| w.strip_prefix('='));
        if let Some(list) = joined {
            return Some(list.to_owned());
        }
    }
    None
}
