//! HTTPRouteGroups, TCPRoutes and UDPRoutes: what other objects refer to.

use std::collections::{BTreeMap, BTreeSet};

use policy::name::{Kind, ObjectRef};
use wire::v1;

use super::findings::Findings;
use crate::{
    model::Defaults,
    problem::{Reason, few},
    world::{
        GroupFacts, MatchFacts, Meta, ObjectKey, TcpRouteFacts, UdpRouteFacts, World, object,
        origin,
    },
};

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
    pub(super) matches: Vec<(String, Option<v1::HttpMatch>)>,
}

impl Group {
    /// Every match that can match.
    pub(super) fn all(&self) -> impl Iterator<Item = &v1::HttpMatch> {
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

    pub(super) fn tcp(&self, namespace: &str, name: &str) -> Option<&RoutePorts> {
        self.tcp.get(&ObjectKey::new(namespace, name))
    }

    pub(super) fn udp(&self, namespace: &str, name: &str) -> Option<&RoutePorts> {
        self.udp.get(&ObjectKey::new(namespace, name))
    }
}

fn group(key: &ObjectKey, facts: &GroupFacts, findings: &mut Findings) -> Group {
    let this = object(Kind::HttpRouteGroup, key);
    findings.seen(
        this.clone(),
        &facts.meta,
        few(facts.matches.iter().map(|m| &m.name)),
    );
    let mut about = findings.about(&this, facts.meta.generation);
    if let Some(why) = &facts.meta.unreadable {
        about.refuse(Reason::Unreadable, "", why.to_string());
    }
    let mut matches: Vec<(String, Option<v1::HttpMatch>)> = Vec::new();
    for (i, facts) in facts.matches.iter().enumerate() {
        // The name is the key: a second match of one name could be meant by nobody.
        if matches.iter().any(|(name, _)| *name == *facts.name) {
            let message = format!("{:?} is the name of an earlier match; ignored", facts.name);
            about.refuse(Reason::Invalid, &format!("spec.matches[{i}].name"), message);
            continue;
        }
        let usable = match http_match(facts) {
            Ok(usable) => Some(usable),
            Err((field, message)) => {
                let message = format!("{message}; this match never matches");
                about.refuse(
                    Reason::Invalid,
                    &format!("spec.matches[{i}].{field}"),
                    message,
                );
                None
            }
        };
        matches.push((facts.name.to_string(), usable));
    }
    Group {
        origin: origin(Kind::HttpRouteGroup, key, &facts.meta),
        matches,
    }
}

/// A match as the proxy reads it, or the field that spoils it and why.
fn http_match(facts: &MatchFacts) -> Result<v1::HttpMatch, (&str, &str)> {
    if facts.name.is_empty() {
        return Err(("name", "must not be empty"));
    }
    if let Some((field, reason)) = &facts.bad {
        return Err((field, reason));
    }
    Ok(v1::HttpMatch {
        name: facts.name.to_string(),
        path_regex: facts.path_regex.as_deref().map(str::to_owned),
        methods: facts.methods.iter().map(ToString::to_string).collect(),
        headers: facts
            .headers
            .iter()
            .map(|header| v1::HeaderMatch {
                name: header.name.to_string(),
                regex: header.regex.to_string(),
            })
            .collect(),
    })
}

fn tcp_ports(key: &ObjectKey, facts: &TcpRouteFacts, findings: &mut Findings) -> RoutePorts {
    route_ports(Kind::TcpRoute, key, &facts.meta, &facts.ports, findings)
}

/// What every UDPRoute and every rule about one says while nobody enforces it.
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
    let ports = facts.ports.as_deref().unwrap_or_default();
    route_ports(Kind::UdpRoute, key, &facts.meta, ports, findings)
}

fn route_ports(
    kind: Kind,
    key: &ObjectKey,
    meta: &Meta,
    written: &[i64],
    findings: &mut Findings,
) -> RoutePorts {
    let this = object(kind, key);
    findings.seen(
        this.clone(),
        meta,
        few(written.iter().map(ToString::to_string)),
    );
    let mut about = findings.about(&this, meta.generation);
    let origin = origin(kind, key, meta);
    if let Some(why) = &meta.unreadable {
        let message = format!("{why}; it stands for no port");
        about.refuse(Reason::Unreadable, "", message);
        return RoutePorts {
            origin,
            ports: Some(BTreeSet::new()),
        };
    }
    if written.is_empty() {
        return RoutePorts {
            origin,
            ports: None,
        };
    }
    let mut ports = BTreeSet::new();
    for (i, port) in written.iter().enumerate() {
        match u16::try_from(*port) {
            Ok(port) if port != 0 => {
                ports.insert(port);
            }
            _ => {
                let field = format!("spec.matches.ports[{i}]");
                about.refuse(
                    Reason::Invalid,
                    &field,
                    format!("{port} is no port; ignored"),
                );
            }
        }
    }
    RoutePorts {
        origin,
        ports: Some(ports),
    }
}
