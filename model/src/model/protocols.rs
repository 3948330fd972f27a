//! The declared protocols of a pod's ports, in order of precedence: the pod's annotation,
//! declarations of Services, the lists of opaque ports.

use std::{collections::BTreeMap, sync::Arc};

use policy::protocol::{DEFAULT_OPAQUE_PORTS, MAX_PORT_RANGES, PortProtocols, PortRange, Protocol};

use super::service_ports::Served;
use crate::world::{NamespaceFacts, ObjectKey, PodFacts, ServiceFacts, World};

/// Declared protocols of a pod's ports, in order of precedence.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared(PortProtocols);

impl Declared {
    /// The protocol of one port.
    pub fn lookup(&self, port: u16) -> Protocol {
        self.0.lookup(port)
    }

    /// What a proxy gets: the first range that holds a port decides. Ports that the pod's
    /// containers name come last, to be detected: from them the proxy learns that they are there,
    /// so that it counts them apart.
    pub(crate) fn ranges(
        &self,
        containers: &BTreeMap<u16, Arc<str>>,
    ) -> impl Iterator<Item = (PortRange, Protocol)> {
        let named = containers.keys().filter_map(|port| single(*port));
        let named = named.take(MAX_PORT_RANGES);
        self.0
            .iter()
            .chain(named.map(|range| (range, Protocol::Detect)))
    }
}

/// The protocols of a pod's ports. `declared`: by Services.
pub(crate) fn of_pod(
    pod: &PodFacts,
    namespace: Option<&NamespaceFacts>,
    declared: Option<&BTreeMap<u16, Protocol>>,
) -> Declared {
    let own = ranges(pod.annotations.opaque_ports.as_deref());
    let declared = declared.into_iter().flatten();
    let declared = declared.filter_map(|(port, protocol)| Some((single(*port)?, *protocol)));
    Declared(PortProtocols::new(
        own.into_iter()
            .map(|range| (range, Protocol::Opaque))
            .chain(declared)
            .chain(
                opaque_list(namespace)
                    .into_iter()
                    .map(|range| (range, Protocol::Opaque)),
            ),
    ))
}

/// By what a Service says which protocol one of its ports speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Declares<'a> {
    /// Its annotation about opaque ports.
    Annotation,
    AppProtocol(&'a str),
    PortName(&'a str),
}

/// What a Service itself says about one of its ports, and by what; `None`: nothing.
pub fn declaration(service: &ServiceFacts, number: u16) -> Option<(Protocol, Declares<'_>)> {
    if holds(&ranges(service.annotations.opaque_ports.as_deref()), number) {
        return Some((Protocol::Opaque, Declares::Annotation));
    }
    let port = service.ports.iter().find(|port| port.number == number)?;
    let app_protocol = port.app_protocol.as_deref();
    let by = app_protocol.map_or(Declares::PortName(&port.name), Declares::AppProtocol);
    let protocol = Protocol::declared(app_protocol, Some(&port.name));
    (protocol != Protocol::Detect).then_some((protocol, by))
}

/// What a Service declares for a port of a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServiceClaim<'a> {
    pub service: &'a ObjectKey,
    /// Port of the Service.
    pub number: u16,
    pub protocol: Protocol,
    pub by: Declares<'a>,
}

/// What Services declare for a pod's own port, the oldest first: that one decides unless the port
/// is detected.
pub fn claims<'a>(world: &'a World, serves: &'a [Served], own: u16) -> Vec<ServiceClaim<'a>> {
    let here = serves.iter().filter(|(_, _, port)| *port == own);
    let claims = here.filter_map(|(key, number, _)| {
        let service = world.services.get(key)?;
        let (protocol, by) = declaration(service, *number)?;
        let claim = ServiceClaim {
            service: key,
            number: *number,
            protocol,
            by,
        };
        Some((service.created, claim))
    });
    let mut claims: Vec<(i64, ServiceClaim<'a>)> = claims.collect();
    claims.sort_by_key(|(created, claim)| (*created, claim.service, claim.number));
    claims.into_iter().map(|(_, claim)| claim).collect()
}

/// What a port carries, in the words of the field.
pub(crate) const fn spoken(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Detect => "whatever its first bytes say",
        Protocol::Http1 => "HTTP/1.1",
        Protocol::Http2 => "HTTP/2",
        Protocol::Grpc => "gRPC",
        Protocol::Opaque => "bytes",
        Protocol::Tls => "TLS of the applications",
    }
}

/// The namespace's list and the default list.
pub(crate) fn opaque_list(namespace: Option<&NamespaceFacts>) -> Vec<PortRange> {
    let mut list = ranges(namespace.and_then(|n| n.annotations.opaque_ports.as_deref()));
    list.extend(DEFAULT_OPAQUE_PORTS.into_iter().filter_map(single));
    list
}

fn single(port: u16) -> Option<PortRange> {
    PortRange::new(port, port)
}

/// The ports of an annotation. One that cannot be read declares nothing;
/// `compile::annotations` says so.
pub(crate) fn ranges(list: Option<&str>) -> Vec<PortRange> {
    list.and_then(|list| PortRange::parse_list(list).ok())
        .unwrap_or_default()
}

pub(crate) fn holds(list: &[PortRange], port: u16) -> bool {
    list.iter().any(|range| range.contains(port))
}
