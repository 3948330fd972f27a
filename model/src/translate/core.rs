//! Translates Services, EndpointSlices, Namespaces, Nodes and ServiceAccounts.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use crds::labels;
use k8s_openapi::{
    api::{
        core::v1::{Namespace, Node, Service, ServiceAccount, ServiceSpec},
        discovery::v1::{Endpoint, EndpointHints, EndpointSlice},
    },
    apimachinery::pkg::{apis::meta::v1::ObjectMeta, util::intstr::IntOrString},
};
use kube::core::DynamicObject;
use policy::traffic::endpoint::Locality;
use serde::de::DeserializeOwned;

use super::metadata::{Unusable, annotation, created, text};
use crate::world::{
    Annotations, EndpointFacts, NamespaceFacts, NodeFacts, ObjectKey, ServiceAccountFacts,
    ServiceFacts, ServicePort, SliceFacts, SlicePort, TopologyHints,
};

/// Label that ties a slice to its Service.
const SERVICE_NAME_LABEL: &str = "kubernetes.io/service-name";
/// Label that names the keeper of a slice, and what Kubernetes' own controller puts there.
const MANAGED_BY_LABEL: &str = "endpointslice.kubernetes.io/managed-by";
const KUBERNETES: &str = "endpointslice-controller.k8s.io";
/// Label of a node's zone.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";
/// What Kubernetes assumes when ClientIP affinity names no time.
const DEFAULT_AFFINITY_SECONDS: u32 = 10_800;

pub(super) fn parse<K>(object: DynamicObject) -> Result<K, Unusable>
where
    K: kube::Resource + DeserializeOwned,
{
    object
        .try_parse()
        .map_err(|error| Unusable::Shape(error.to_string()))
}

/// A Service.
pub fn service(object: DynamicObject) -> Result<ServiceFacts, Unusable> {
    let Service {
        metadata: meta,
        spec,
        status,
    } = parse(object)?;
    let spec = spec.unwrap_or_default();
    let external = spec.type_.as_deref() == Some("ExternalName");
    let headless = !external && spec.cluster_ip.as_deref() == Some("None");
    let listed = spec.cluster_ips.iter().flatten().map(String::as_str);
    let mut cluster_ips = addresses(listed.chain(spec.cluster_ip.as_deref()));
    cluster_ips.sort_unstable();
    cluster_ips.dedup();
    let balancers = status
        .and_then(|status| status.load_balancer)
        .and_then(|lb| lb.ingress);
    let balancers = balancers.unwrap_or_default();
    let mut outer_ips = addresses(
        spec.external_ips
            .iter()
            .flatten()
            .map(String::as_str)
            .chain(
                // A balancer in mode Proxy wants the packets itself.
                balancers
                    .iter()
                    .filter(|ingress| ingress.ip_mode.as_deref() != Some("Proxy"))
                    .filter_map(|ingress| ingress.ip.as_deref()),
            ),
    );
    outer_ips.sort_unstable();
    outer_ips.dedup();
    Ok(ServiceFacts {
        uid: text(meta.uid.as_deref()),
        cluster_ips: if external { Vec::new() } else { cluster_ips },
        outer_ips: if external { Vec::new() } else { outer_ips },
        ports: service_ports(&spec),
        headless,
        has_selector: spec
            .selector
            .as_ref()
            .is_some_and(|selector| !selector.is_empty()),
        internal_local: spec.internal_traffic_policy.as_deref() == Some("Local"),
        affinity_seconds: affinity(&spec),
        locality: locality(&spec),
        publish_not_ready: spec.publish_not_ready_addresses.unwrap_or(false),
        external_name: external.then(|| text(spec.external_name.as_deref())),
        annotations: annotations(&meta),
        routes: annotation(&meta, labels::ROUTES),
        created: created(&meta),
        generation: meta.generation.unwrap_or(0),
    })
}

fn service_ports(spec: &ServiceSpec) -> Vec<ServicePort> {
    let ports = spec
        .ports
        .iter()
        .flatten()
        .filter(|port| is_tcp(port.protocol.as_deref()));
    ports
        .filter_map(|port| {
            Some(ServicePort {
                name: text(port.name.as_deref()),
                number: port_number(port.port)?,
                target: match &port.target_port {
                    Some(IntOrString::Int(0)) | None => "".into(),
                    Some(IntOrString::Int(number)) => number.to_string().into(),
                    Some(IntOrString::String(name)) => name.as_str().into(),
                },
                app_protocol: port.app_protocol.as_deref().map(Arc::from),
            })
        })
        .collect()
}

/// What is not known prefers nothing, as Kubernetes says of it.
fn locality(spec: &ServiceSpec) -> Locality {
    match spec.traffic_distribution.as_deref() {
        Some("PreferClose" | "PreferSameZone") => Locality::PreferSameZone,
        Some("PreferSameNode") => Locality::PreferSameNode,
        Some(_) | None => Locality::None,
    }
}

fn affinity(spec: &ServiceSpec) -> u32 {
    if spec.session_affinity.as_deref() != Some("ClientIP") {
        return 0;
    }
    let config = spec
        .session_affinity_config
        .as_ref()
        .and_then(|c| c.client_ip.as_ref());
    let seconds = config.and_then(|client| client.timeout_seconds);
    seconds
        .and_then(|s| u32::try_from(s).ok())
        .unwrap_or(DEFAULT_AFFINITY_SECONDS)
}

/// An EndpointSlice. Slices of FQDNs, without a Service or without a TCP port are
/// not ours.
pub fn slice(object: DynamicObject) -> Result<SliceFacts, Unusable> {
    let EndpointSlice {
        metadata: meta,
        address_type,
        endpoints,
        ports,
    } = parse(object)?;
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name));
    let service: Arc<str> = label(SERVICE_NAME_LABEL)
        .ok_or(Unusable::NotOurs)?
        .as_str()
        .into();
    let ports: Vec<SlicePort> = ports
        .iter()
        .flatten()
        .filter(|port| is_tcp(port.protocol.as_deref()))
        .filter_map(|port| {
            let number = port_number(port.port?)?;
            Some(SlicePort {
                name: text(port.name.as_deref()),
                number,
            })
        })
        .collect();
    if address_type == "FQDN" || ports.is_empty() {
        return Err(Unusable::NotOurs);
    }
    let namespace = text(meta.namespace.as_deref());
    let kept = label(MANAGED_BY_LABEL).is_some_and(|by| by == KUBERNETES);
    let endpoints = endpoints
        .iter()
        .filter_map(|e| endpoint(e, &namespace, kept))
        .collect();
    Ok(SliceFacts {
        service,
        ports,
        endpoints,
    })
}

fn endpoint(
    endpoint: &Endpoint,
    slice_namespace: &Arc<str>,
    follows_pod: bool,
) -> Option<EndpointFacts> {
    // "Consumers must handle the case of several by using the first."
    let ip = endpoint.addresses.first()?.parse().ok()?;
    let conditions = endpoint.conditions.as_ref();
    // An absent condition counts as true, except terminating.
    let ready = conditions.and_then(|c| c.ready).unwrap_or(true);
    let pod = endpoint
        .target_ref
        .as_ref()
        .filter(|to| to.kind.as_deref() == Some("Pod"));
    Some(EndpointFacts {
        ip,
        ready,
        serving: conditions.and_then(|c| c.serving).unwrap_or(ready),
        terminating: conditions.and_then(|c| c.terminating).unwrap_or(false),
        pod: pod.map(|pod| ObjectKey {
            namespace: pod
                .namespace
                .as_deref()
                .map_or_else(|| slice_namespace.clone(), Arc::from),
            name: text(pod.name.as_deref()),
        }),
        follows_pod,
        zone: text(endpoint.zone.as_deref()),
        node: text(endpoint.node_name.as_deref()),
        hints: endpoint.hints.as_ref().and_then(hints),
        named: endpoint
            .hostname
            .as_ref()
            .is_some_and(|name| !name.is_empty()),
    })
}

fn hints(hints: &EndpointHints) -> Option<Arc<TopologyHints>> {
    let zones = hints.for_zones.iter().flatten();
    let nodes = hints.for_nodes.iter().flatten();
    let read = TopologyHints {
        zones: zones.map(|zone| zone.name.as_str().into()).collect(),
        nodes: nodes.map(|node| node.name.as_str().into()).collect(),
    };
    (read != TopologyHints::default()).then(|| Arc::new(read))
}

/// A Namespace.
pub fn namespace(object: DynamicObject) -> Result<NamespaceFacts, Unusable> {
    let Namespace { metadata: meta, .. } = parse(object)?;
    Ok(NamespaceFacts {
        uid: text(meta.uid.as_deref()),
        labels: pairs(meta.labels.as_ref()),
        annotations: annotations(&meta),
        terminating: meta.deletion_timestamp.is_some(),
    })
}

/// A Node.
pub fn node(object: DynamicObject) -> Result<NodeFacts, Unusable> {
    let Node {
        metadata: meta,
        status,
        ..
    } = parse(object)?;
    let zone = meta
        .labels
        .as_ref()
        .and_then(|labels| labels.get(ZONE_LABEL));
    let listed = status.and_then(|status| status.addresses);
    let mut ips = addresses(listed.iter().flatten().map(|at| at.address.as_str()));
    ips.sort_unstable();
    ips.dedup();
    Ok(NodeFacts {
        zone: text(zone.map(String::as_str)),
        ips,
    })
}

pub(super) fn annotations(meta: &ObjectMeta) -> Annotations {
    Annotations {
        access: annotation(meta, labels::ACCESS),
        mtls: annotation(meta, labels::MTLS),
        egress: annotation(meta, labels::EGRESS),
        permissive_ports: annotation(meta, labels::PERMISSIVE_PORTS),
        opaque_ports: annotation(meta, labels::OPAQUE_PORTS),
        log_level: annotation(meta, labels::LOG_LEVEL),
        access_log: annotation(meta, labels::ACCESS_LOG),
        trace_sampling: annotation(meta, labels::TRACE_SAMPLING),
        service_name: annotation(meta, labels::SERVICE_NAME),
        service_namespace: annotation(meta, labels::SERVICE_NAMESPACE),
        faults: annotation(meta, labels::FAULTS),
        inject: annotation(meta, labels::INJECT),
    }
}

pub(super) fn pairs(map: Option<&BTreeMap<String, String>>) -> BTreeMap<Arc<str>, Arc<str>> {
    map.into_iter()
        .flatten()
        .map(|(k, v)| (k.as_str().into(), v.as_str().into()))
        .collect()
}

pub(super) fn addresses<'a>(texts: impl Iterator<Item = &'a str>) -> Vec<IpAddr> {
    // "None" and the empty text are how Kubernetes writes that there is no address.
    texts.filter_map(|text| text.parse().ok()).collect()
}

pub(super) fn is_tcp(protocol: Option<&str>) -> bool {
    protocol.unwrap_or("TCP") == "TCP"
}

pub(super) fn port_number(number: i32) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}

/// A service account.
pub fn service_account(object: DynamicObject) -> Result<ServiceAccountFacts, Unusable> {
    parse::<ServiceAccount>(object).map(|_| ServiceAccountFacts)
}

/// What tests keep of a ConfigMap.
#[cfg(any(test, feature = "fixtures"))]
pub fn config_map(object: DynamicObject) -> Result<crate::world::ConfigMapFacts, Unusable> {
    let map: k8s_openapi::api::core::v1::ConfigMap = parse(object)?;
    Ok(crate::world::ConfigMapFacts {
        entries: map.data.map_or(0, |data| data.len()),
    })
}
