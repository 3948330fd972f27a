//! Attaches routes to the listeners of Gateways.

use std::collections::{BTreeMap, BTreeSet};

use gateway_api::{
    listeners::{Attached, Detached, HostSet, attach},
    route::{ParentRef, Route, RouteKind},
};
use policy::name::{Kind, ObjectRef};

use super::own::OwnGateway;
use crate::{
    compile::{findings::Finding, service_routes::reports::counting},
    problem::Reason,
    world::{GatewayRouteFacts, Meta, ObjectKey, Store, World, object},
};

/// A route with at least one Gateway of Weft as parent.
pub(super) struct Candidate<'a> {
    pub(super) kind: Kind,
    pub(super) key: &'a ObjectKey,
    pub(super) meta: &'a Meta,
    pub(super) route: &'a Route,
    /// The Gateways of Weft among its parents, in the order of the object.
    pub(super) references: Vec<Reference<'a>>,
    /// Parts of its rules that policies decide.
    pub(super) overridden: Vec<Finding>,
}

/// One of a route's references, to a Gateway of Weft.
pub(super) struct Reference<'a> {
    pub(super) reference: &'a ParentRef,
    /// Which of the object's references it is, such as `spec.parentRefs[0]`.
    pub(super) field: String,
    /// Place of the Gateway among all.
    pub(super) gateway: usize,
    pub(super) attached: Vec<Attached>,
    /// Why it is attached to none.
    pub(super) refused: Option<Finding>,
    /// Listeners at which it does not decide although it is attached, and why.
    pub(super) lost: BTreeMap<usize, Finding>,
}

/// All routes with such a parent, the oldest first.
pub(super) fn candidates<'a>(world: &'a World, own: &[OwnGateway<'a>]) -> Vec<Candidate<'a>> {
    let by_key: BTreeMap<&ObjectKey, usize> = own
        .iter()
        .enumerate()
        .map(|(nth, one)| (one.key, nth))
        .collect();
    if by_key.is_empty() {
        return Vec::new();
    }
    let mut candidates = Vec::new();
    for (kind, store) in stores(world) {
        for (key, facts) in store.iter() {
            let references = references(world, facts, key, (own, &by_key));
            if !references.is_empty() {
                candidates.push(Candidate {
                    kind,
                    key,
                    meta: &facts.meta,
                    route: &facts.route,
                    references,
                    overridden: Vec::new(),
                });
            }
        }
    }
    candidates.sort_by_key(|one| (one.meta.created, one.key, one.kind));
    candidates
}

fn stores(world: &World) -> [(Kind, &Store<GatewayRouteFacts>); 4] {
    [
        (Kind::GrpcRoute, &world.grpc_routes),
        (Kind::HttpRoute, &world.http_routes),
        (Kind::GatewayTcpRoute, &world.gateway_tcp_routes),
        (Kind::TlsRoute, &world.tls_routes),
    ]
}

fn references<'a>(
    world: &World,
    facts: &'a GatewayRouteFacts,
    key: &ObjectKey,
    (own, by_key): (&[OwnGateway<'_>], &BTreeMap<&ObjectKey, usize>),
) -> Vec<Reference<'a>> {
    let nothing = BTreeMap::new();
    let namespace = world.namespace(&key.namespace);
    let labels = namespace.map_or(&nothing, |namespace| &namespace.labels);
    let references = facts.route.parents.iter().enumerate();
    let references = references.filter_map(|(nth, reference)| {
        let (namespace, name) = reference.gateway()?;
        let parent = ObjectKey {
            namespace: namespace.clone(),
            name: name.clone(),
        };
        let gateway = *by_key.get(&parent)?;
        let field = format!("spec.parentRefs[{nth}]");
        let served = (&*own[gateway].facts.spec, &*own[gateway].states);
        let (attached, refused) = match attach(&facts.route, reference, served, labels) {
            Ok(attached) => (attached, None),
            Err(why) => (Vec::new(), Some(detached(why, &field, &parent, reference))),
        };
        Some(Reference {
            reference,
            field,
            gateway,
            attached,
            refused,
            lost: BTreeMap::new(),
        })
    });
    references.collect()
}

fn detached(why: Detached, field: &str, gateway: &ObjectKey, reference: &ParentRef) -> Finding {
    let (reason, message) = match why {
        Detached::NoMatchingParent => {
            let name = reference.section_name.as_ref();
            let name = name.map(|name| format!(" named {name}"));
            let port = reference.port.map(|port| format!(" at port {port}"));
            let message = format!(
                "Gateway {gateway} has no listener{}{}; name one that it has",
                name.unwrap_or_default(),
                port.unwrap_or_default()
            );
            (Reason::NoMatchingParent, message)
        }
        Detached::NotAllowedByListeners => {
            let message = format!(
                "no listener of Gateway {gateway} that is meant allows routes of this kind and \
                 namespace; see allowedRoutes and protocol of its listeners"
            );
            (Reason::NotAllowedByListeners, message)
        }
        Detached::NoMatchingListenerHostname => {
            let message = format!(
                "no listener of Gateway {gateway} that is meant is for one of spec.hostnames; name \
                 a host that a listener is for"
            );
            (Reason::NoMatchingListenerHostname, message)
        }
    };
    Finding::refuse(reason, field, message)
}

/// Of HTTPRoutes and GRPCRoutes that are for the same host of a listener the older one decides, and
/// the other is not attached there. Of TCPRoutes the oldest decides; all of them are attached.
pub(super) fn settle_kinds(own: &[OwnGateway<'_>], candidates: &mut [Candidate<'_>]) {
    let with_both = with_both_kinds(candidates);
    let mut hosts: BTreeMap<(usize, usize), KindsAtHosts> = BTreeMap::new();
    for candidate in candidates {
        let (kind, words) = (candidate.route.kind, candidate.words());
        for reference in &mut candidate.references {
            let gateway = reference.gateway;
            let listeners = &own[gateway].facts.spec.listeners;
            let Reference {
                attached,
                refused,
                lost,
                field,
                ..
            } = reference;
            let had_some = !attached.is_empty();
            attached.retain(|one| {
                let place = (gateway, one.listener);
                if kind != RouteKind::Tcp && !with_both.contains(&place) {
                    return true;
                }
                let at = hosts.entry(place).or_default();
                let Some((reason, message)) = at.add(kind, &words, one) else {
                    return true;
                };
                let listener = &listeners[one.listener].name;
                let message = format!(
                    "at listener {listener} of Gateway {}: {message}",
                    own[gateway].key
                );
                lost.insert(one.listener, Finding::warn(reason, field, message));
                kind == RouteKind::Tcp
            });
            if had_some && attached.is_empty() {
                let finding = lost.values().next().cloned();
                *refused = finding.map(|one| Finding::refuse(one.reason, &one.field, one.message));
                lost.clear();
            }
        }
    }
}

/// The listeners at which there are HTTPRoutes and GRPCRoutes, by place of the Gateway and of the
/// listener. At others no host is to be kept.
fn with_both_kinds(candidates: &[Candidate<'_>]) -> BTreeSet<(usize, usize)> {
    let places = |kind: RouteKind| -> BTreeSet<(usize, usize)> {
        let of_kind = candidates.iter().filter(|one| one.route.kind == kind);
        let references = of_kind.flat_map(|one| &one.references);
        let places = references.flat_map(|reference| {
            let attached = reference.attached.iter();
            attached.map(move |one| (reference.gateway, one.listener))
        });
        places.collect()
    };
    let (http, grpc) = (places(RouteKind::Http), places(RouteKind::Grpc));
    http.intersection(&grpc).copied().collect()
}

/// The routes of a listener so far.
#[derive(Default)]
struct KindsAtHosts {
    http: HostSet,
    grpc: HostSet,
    /// The oldest TCPRoute.
    tcp: Option<String>,
}

impl KindsAtHosts {
    /// Adds a route that is younger than the others; returns why it does not decide, if so.
    fn add(&mut self, kind: RouteKind, words: &str, one: &Attached) -> Option<(Reason, String)> {
        let (own, other, theirs) = match kind {
            RouteKind::Http => (&mut self.http, &self.grpc, RouteKind::Grpc),
            RouteKind::Grpc => (&mut self.grpc, &self.http, RouteKind::Http),
            RouteKind::Tls => return None,
            RouteKind::Tcp => {
                let oldest = self.tcp.get_or_insert_with(|| words.to_owned());
                return (oldest != words).then(|| {
                    let message = format!(
                        "{oldest} decides: it is older, or as old and the first by name, and \
                         connections have nothing to tell routes apart by; delete one of them"
                    );
                    (Reason::Conflicted, message)
                });
            }
        };
        let hostnames = one.hostnames.iter();
        if hostnames.clone().any(|host| other.meets(host.as_ref())) {
            let message = format!(
                "a {} that is older, or as old and the first by name, is for a host of this {}; \
                 name other hosts, or delete one of them",
                theirs.word(),
                kind.word()
            );
            return Some((Reason::Conflicted, message));
        }
        for host in hostnames {
            own.insert(host.as_ref());
        }
        None
    }
}

impl Candidate<'_> {
    pub(super) fn object(&self) -> ObjectRef {
        object(self.kind, self.key)
    }

    /// As messages name it.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.kind.word(), self.key)
    }

    /// How many of its rules decide about calls.
    pub(super) fn counting(&self) -> usize {
        counting(self.route).len()
    }

    /// Notes that it does not decide at a listener although it is attached there.
    pub(super) fn lose(
        &mut self,
        (gateway, listener): (usize, usize),
        reason: Reason,
        message: &str,
    ) {
        for reference in &mut self.references {
            let is_there = reference.gateway == gateway
                && reference
                    .attached
                    .iter()
                    .any(|one| one.listener == listener);
            if is_there {
                let finding = Finding::warn(reason, &reference.field, message.to_owned());
                reference.lost.insert(listener, finding);
            }
        }
    }
}
