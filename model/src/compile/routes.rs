//! Compiles HTTPRouteGroups, TCPRoutes and UDPRoutes, to which other objects refer.

use std::collections::{BTreeMap, BTreeSet};

use crds::smi::validation::{self, Criteria};
use policy::{
    http_match::HttpMatch,
    name::{Kind, ObjectRef},
};

use super::findings::Findings;
use crate::{
    model::{Defaults, published},
    problem::{Reason, few},
    world::{GroupFacts, Meta, ObjectKey, TcpRouteFacts, UdpRouteFacts, World, object, origin},
};

/// Most bytes of HTTP matches that the splits of one Service, or one step of a release, may add up
/// to; they are repeated on every port of the root, and for every proxy that calls it.
pub(super) const MOST_BYTES: usize = 512 * 1024;

/// Most bytes that the expressions of one table may take when they are compiled: those of four
/// objects, each as large as an object may be. The proxy of every caller holds them, for each port.
pub(super) const MOST_COMPILED: usize = 16 * 1024 * 1024;

/// The usable part of every route object.
#[derive(Debug)]
pub(super) struct Routes {
    groups: BTreeMap<ObjectKey, Group>,
    tcp: BTreeMap<ObjectKey, RoutePorts>,
    udp: BTreeMap<ObjectKey, RoutePorts>,
}

/// An HTTPRouteGroup.
#[derive(Debug)]
pub(super) struct Group {
    pub(super) origin: (ObjectRef, i64),
    /// By name; `None` for a match that can never match. In order.
    pub(super) matches: Vec<(String, Option<Usable>)>,
}

/// A match that some request can fit.
#[derive(Debug)]
pub(super) struct Usable {
    pub(super) one: HttpMatch,
    /// What it takes in a resource.
    pub(super) bytes: usize,
}

impl Group {
    /// Every match that can match.
    pub(super) fn all(&self) -> impl Iterator<Item = &Usable> {
        self.matches
            .iter()
            .filter_map(|(_, usable)| usable.as_ref())
    }
}

/// A TCPRoute or a UDPRoute.
#[derive(Debug)]
pub(super) struct RoutePorts {
    pub(super) origin: (ObjectRef, i64),
    /// `None` means every port. Empty means that no given port was usable.
    pub(super) ports: Option<BTreeSet<u16>>,
}

impl Routes {
    pub(super) fn new(world: &World, defaults: &Defaults, findings: &mut Findings) -> Self {
        let groups = world.groups.iter();
        let groups = groups.map(|(key, facts)| (key.clone(), group(key, facts, findings)));
        let groups = groups.collect();
        let tcp = world.tcp_routes.iter();
        let tcp = tcp.map(|(key, facts)| (key.clone(), tcp_ports(key, facts, findings)));
        let tcp = tcp.collect();
        let udp = world.udp_routes.iter();
        let udp = udp.map(|(key, facts)| (key.clone(), udp_ports(key, facts, defaults, findings)));
        let udp = udp.collect();
        Self { groups, tcp, udp }
    }

    pub(super) fn group(&self, namespace: &str, name: &str) -> Option<&Group> {
        self.groups.get(&ObjectKey::new(namespace, name))
    }

    /// Every match that can match, by group.
    pub(super) fn matches(&self) -> BTreeMap<ObjectKey, Vec<HttpMatch>> {
        let groups = self.groups.iter();
        groups
            .map(|(key, group)| {
                (
                    key.clone(),
                    group.all().map(|one| one.one.clone()).collect(),
                )
            })
            .collect()
    }

    pub(super) fn tcp(&self, namespace: &str, name: &str) -> Option<&RoutePorts> {
        self.tcp.get(&ObjectKey::new(namespace, name))
    }

    pub(super) fn udp(&self, namespace: &str, name: &str) -> Option<&RoutePorts> {
        self.udp.get(&ObjectKey::new(namespace, name))
    }
}

fn group(key: &ObjectKey, facts: &GroupFacts, findings: &mut Findings) -> Group {
    let this = object(Kind::HttpRouteGroup, key);
    let matches = &facts.spec.matches;
    findings.seen(
        this.clone(),
        &facts.meta,
        few(matches.iter().map(|one| &one.name)),
    );
    let mut about = findings.about(&this, facts.meta.generation);
    about.add_mistakes(&facts.meta.mistakes);
    let matches = matches.iter().map(|one| {
        let criteria = one.criteria.as_ref();
        let usable = criteria.map(|criteria| usable(&one.name, criteria));
        (one.name.to_string(), usable)
    });
    Group {
        origin: origin(Kind::HttpRouteGroup, key, &facts.meta),
        matches: matches.collect(),
    }
}

fn usable(name: &str, criteria: &Criteria) -> Usable {
    let path = criteria.path_regex.as_deref();
    let Criteria {
        methods, headers, ..
    } = criteria;
    let one = HttpMatch::as_charged(criteria.compiled, name, path, methods, headers);
    let bytes = published::match_len(&one);
    Usable { one, bytes }
}

fn tcp_ports(key: &ObjectKey, facts: &TcpRouteFacts, findings: &mut Findings) -> RoutePorts {
    route_ports(Kind::TcpRoute, key, &facts.meta, &facts.ports, findings)
}

/// The message of every UDPRoute and every rule about one while no proxy enforces it.
pub(super) const UDP_NOT_ENFORCED: &str = "UDP does not pass through the mesh, and nothing filters \
     it; chart value access.udpNetworkPolicies=true has it written as NetworkPolicies";

fn udp_ports(
    key: &ObjectKey,
    facts: &UdpRouteFacts,
    defaults: &Defaults,
    findings: &mut Findings,
) -> RoutePorts {
    if !defaults.udp_network_policies {
        let mut about = findings.about(&object(Kind::UdpRoute, key), facts.meta.generation);
        about.warn(Reason::NotEnforced, "", UDP_NOT_ENFORCED.to_owned());
    }
    route_ports(Kind::UdpRoute, key, &facts.meta, &facts.ports, findings)
}

fn route_ports(
    kind: Kind,
    key: &ObjectKey,
    meta: &Meta,
    validation::RoutePorts(written): &validation::RoutePorts,
    findings: &mut Findings,
) -> RoutePorts {
    let this = object(kind, key);
    let ports = written.iter().flatten();
    findings.seen(this.clone(), meta, few(ports.map(ToString::to_string)));
    findings
        .about(&this, meta.generation)
        .add_mistakes(&meta.mistakes);
    RoutePorts {
        origin: origin(kind, key, meta),
        ports: written
            .as_ref()
            .map(|ports| ports.iter().copied().collect()),
    }
}
