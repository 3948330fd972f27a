//! Looks up the parents of routes: Services, their ports, and whose calls a route is for there.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_api::route::{ParentRef, Route, RouteKind};
use policy::{
    name::{Kind, ObjectRef},
    protocol::Protocol,
};

use crate::{
    compile::findings::Finding,
    model::{ServiceEntry, protocols::spoken},
    problem::{Reason, few},
    world::{GatewayRouteFacts, Meta, ObjectKey, Store, World, object},
};

/// A route with at least one Service as parent.
pub(super) struct Candidate<'a> {
    pub(super) kind: Kind,
    pub(super) key: &'a ObjectKey,
    pub(super) meta: &'a Meta,
    pub(super) route: &'a Route,
    /// The Services among its parents, in the order of the object.
    pub(super) parents: Vec<Parent<'a>>,
}

/// A Service that a route is for.
pub(super) struct Parent<'a> {
    pub(super) reference: &'a ParentRef,
    /// Which of the object's references it is, such as `spec.parentRefs[0]`.
    pub(super) field: String,
    pub(super) service: ObjectKey,
    /// The namespace whose callers the route is for there; empty for everyone.
    pub(super) audience: Arc<str>,
    /// Ports that it is for.
    pub(super) ports: BTreeSet<u16>,
    /// Why it is for none.
    pub(super) refused: Option<Finding>,
    /// Ports at which something else decides, and why.
    pub(super) lost: BTreeMap<u16, Lost>,
}

/// Why a route does not decide at a port.
#[derive(Clone, Debug)]
pub(super) struct Lost {
    pub(super) reason: Reason,
    pub(super) message: String,
}

/// A port of a Service, and whose calls to it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) service: ObjectKey,
    pub(super) port: u16,
    /// As in [`Parent`].
    pub(super) audience: Arc<str>,
}

/// All routes with a Service as parent, the oldest first.
pub(super) fn candidates<'a>(
    world: &'a World,
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
) -> Vec<Candidate<'a>> {
    let mut candidates = Vec::new();
    for (kind, store) in stores(world) {
        for (key, facts) in store.iter() {
            let candidate = Candidate::new((kind, key), facts, services);
            if !candidate.parents.is_empty() {
                candidates.push(candidate);
            }
        }
    }
    candidates.sort_by_key(|one| (one.meta.created, one.key, one.kind));
    candidates
}

/// Whether some route has this Service as parent, whichever ports of it.
pub(super) fn is_parent(world: &World, service: &ObjectKey) -> bool {
    let mut routes = stores(world)
        .into_iter()
        .flat_map(|(_, store)| store.values());
    routes.any(|facts| {
        let mut parents = facts.route.parents.iter();
        parents.any(|parent| {
            let parent = parent.service();
            parent.is_some_and(|parent| ObjectKey::from(&parent) == *service)
        })
    })
}

fn stores(world: &World) -> [(Kind, &Store<GatewayRouteFacts>); 3] {
    [
        (Kind::GrpcRoute, &world.grpc_routes),
        (Kind::HttpRoute, &world.http_routes),
        (Kind::GatewayTcpRoute, &world.gateway_tcp_routes),
    ]
}

impl<'a> Candidate<'a> {
    fn new(
        (kind, key): (Kind, &'a ObjectKey),
        facts: &'a GatewayRouteFacts,
        services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    ) -> Self {
        let references = facts.route.parents.iter().enumerate();
        let parents = references.filter_map(|(nth, reference)| {
            let service = ObjectKey::from(&reference.service()?);
            let field = format!("spec.parentRefs[{nth}]");
            let is_producer = service.namespace == key.namespace;
            let audience = if is_producer {
                Arc::default()
            } else {
                Arc::clone(&key.namespace)
            };
            let (ports, refused) = match ports(facts.route.kind, reference, &service, services) {
                Ok(ports) => (ports, None),
                Err((reason, message)) => {
                    let refused = Finding::refuse(reason, &field, message);
                    (BTreeSet::new(), Some(refused))
                }
            };
            Some(Parent {
                reference,
                field,
                service,
                audience,
                ports,
                refused,
                lost: BTreeMap::new(),
            })
        });
        Self {
            kind,
            key,
            meta: &facts.meta,
            route: &facts.route,
            parents: parents.collect(),
        }
    }

    pub(super) fn object(&self) -> ObjectRef {
        object(self.kind, self.key)
    }

    /// As messages name it.
    pub(super) fn words(&self) -> String {
        format!("{} {}", self.kind.word(), self.key)
    }

    /// Notes that something else decides at a place.
    pub(super) fn lose(&mut self, place: &Place, lost: &Lost) {
        let here = self.parents.iter_mut().filter(|parent| {
            parent.service == place.service
                && parent.audience == place.audience
                && parent.ports.contains(&place.port)
        });
        for parent in here {
            parent.lost.insert(place.port, lost.clone());
        }
    }
}

impl Parent<'_> {
    /// Ports at which the route decides.
    pub(super) fn in_force(&self) -> impl Iterator<Item = u16> {
        let ports = self.ports.iter().copied();
        ports.filter(|port| !self.lost.contains_key(port))
    }
}

/// The ports of a Service that a reference means, or why there are none.
fn ports(
    kind: RouteKind,
    reference: &ParentRef,
    service: &ObjectKey,
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
) -> Result<BTreeSet<u16>, (Reason, String)> {
    let Some(entry) = services.get(service) else {
        let message = format!("there is no Service {service}; the route has no effect there");
        return Err((Reason::NoMatchingParent, message));
    };
    let facts = &entry.facts;
    let unfit = if facts.external_name.is_some() {
        Some("is of type ExternalName, whose calls the mesh does not carry")
    } else if facts.headless {
        Some("is headless, so its clients choose the pods")
    } else {
        None
    };
    if let Some(why) = unfit {
        let message = format!("Service {service} {why}; name a Service with a cluster address");
        return Err((Reason::UnsupportedValue, message));
    }
    let is_meant = |number: u16, name: &str| {
        reference.port.is_none_or(|port| port == number)
            && reference
                .section_name
                .as_deref()
                .is_none_or(|section| section == name)
    };
    let meant = facts.ports.iter();
    let meant = meant.filter(|port| is_meant(port.number, &port.name));
    let meant: BTreeSet<u16> = meant.map(|port| port.number).collect();
    if meant.is_empty() {
        let message = format!(
            "Service {service} has no such port; it has {}",
            few(facts.ports.iter().map(|port| match &*port.name {
                "" => port.number.to_string(),
                name => format!("{} ({name})", port.number),
            }))
        );
        return Err((Reason::NoMatchingParent, message));
    }
    let protocol = |port: &u16| entry.ports.get(port).map(|at| at.protocol);
    let carried = meant.iter().copied();
    let carried =
        carried.filter(|port| kind == RouteKind::Tcp || protocol(port).is_some_and(may_carry_http));
    let carried: BTreeSet<u16> = carried.collect();
    if carried.is_empty() {
        let spoken = meant
            .iter()
            .find_map(|port| Some((port, spoken(protocol(port)?))));
        let (port, spoken) = spoken.unwrap_or((&0, "nothing"));
        let message = format!(
            "port {port} of Service {service} carries {spoken}, by its declaration, and no HTTP; \
             name another port, or change the declaration"
        );
        return Err((Reason::UnsupportedProtocol, message));
    }
    Ok(carried)
}

fn may_carry_http(protocol: Protocol) -> bool {
    protocol == Protocol::Detect || protocol.is_http()
}
