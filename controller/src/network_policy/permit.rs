//! The UDP ports and callers that one TrafficTarget allows.
//!
//! Whatever is unclear allows less, as for TCP: a reference to nothing allows nothing, and a
//! target that is wrong still closes the account that it names.

use std::{collections::BTreeSet, sync::Arc};

use crds::smi::validation::{DestinationKind, PortLimit, Rule, RuleKind, Source, SourceKind};
use model::bindings::Bindings;
use model::world::{BindingFacts, ObjectKey, TargetFacts, World};

use super::{
    pods::{Pods, account_of},
    selector::{Labels, can_be_label, is_value},
};

/// The pods that may send.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// Pods of an account.
    Account(ObjectKey),
    /// Pods of a namespace that carry these labels, and an account's.
    Labelled(Arc<str>, Labels),
    /// Every pod that carries an account's label.
    Mesh,
    /// Every address.
    Any,
}

/// Ports of containers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Ports {
    Any,
    Only(BTreeSet<u16>),
}

impl Ports {
    pub(super) fn is_none(&self) -> bool {
        matches!(self, Self::Only(ports) if ports.is_empty())
    }
}

/// Whether the target has a rule about UDP.
pub(crate) fn names_udp(facts: &TargetFacts) -> bool {
    facts.spec.rules.iter().any(is_udp)
}

fn is_udp(rule: &Rule) -> bool {
    rule.kind == RuleKind::UdpRoute
}

/// The UDPRoutes that a target names and that exist, with their generations.
pub(crate) fn udp_routes<'a>(
    world: &'a World,
    target: &'a ObjectKey,
    facts: &'a TargetFacts,
) -> impl Iterator<Item = (Arc<str>, i64)> + 'a {
    let named = facts.spec.rules.iter().filter(|rule| is_udp(rule));
    named.filter_map(|rule| {
        let key = ObjectKey {
            namespace: target.namespace.clone(),
            name: rule.name.clone(),
        };
        let route = world.udp_routes.get(&key)?;
        Some((key.name, route.meta.generation))
    })
}

/// What a target protects: an account, or those of its pods that carry labels.
pub(super) type Destination = (ObjectKey, Option<Labels>);

/// What a target says about UDP.
#[derive(Clone, Debug)]
pub(super) struct Permit {
    pub(super) destinations: BTreeSet<Destination>,
    /// Whether it closes its destination in mode auto.
    pub(super) closes: bool,
    pub(super) peers: BTreeSet<Peer>,
    pub(super) ports: Ports,
}

/// Reads a target. `None` when it protects no account.
pub(super) fn read(
    world: &World,
    pods: &Pods<'_>,
    bindings: &Bindings,
    key: &ObjectKey,
    facts: &TargetFacts,
) -> Option<Permit> {
    let reader = TargetReader {
        world,
        pods,
        bindings,
        key,
        facts,
    };
    let (destinations, usable) = reader.destinations()?;
    // One that names no traffic at all, or cannot be read, may have named UDP a moment ago.
    let closes = facts.spec.rules.is_empty() || names_udp(facts);
    let (peers, ports) = if usable {
        (reader.peers(), reader.ports())
    } else {
        (BTreeSet::new(), Ports::Only(BTreeSet::new()))
    };
    Some(Permit {
        destinations,
        closes,
        peers,
        ports,
    })
}

struct TargetReader<'a> {
    world: &'a World,
    pods: &'a Pods<'a>,
    bindings: &'a Bindings,
    key: &'a ObjectKey,
    facts: &'a TargetFacts,
}

impl TargetReader<'_> {
    /// What the target protects, and whether it may allow something there.
    fn destinations(&self) -> Option<(BTreeSet<Destination>, bool)> {
        let own = &self.key.namespace;
        let to = self.facts.spec.destination.as_ref()?;
        if to.kind != DestinationKind::IdentityBinding {
            let usable = to.kind == DestinationKind::ServiceAccount;
            return Some((
                BTreeSet::from([(self.account(own, &to.name), None)]),
                usable,
            ));
        }
        let named = self.account(own, &to.name);
        let binding = self.bindings.get(&named)?;
        let accounts = binding.accounts.iter();
        let mut found: BTreeSet<Destination> = accounts
            .map(|name| (self.account(own, name), None))
            .collect();
        if let Some(labels) = self.labels_of(&named) {
            let carries = |labels: &Labels, of: &Labels| {
                labels
                    .iter()
                    .all(|(name, value)| of.get(name) == Some(value))
            };
            let pods = self.pods.within(own);
            let pods = pods.filter(|(_, facts)| carries(labels, &facts.labels));
            found.extend(pods.map(|pod| (account_of(pod), Some(labels.clone()))));
        }
        Some((found, binding.usable))
    }

    fn peers(&self) -> BTreeSet<Peer> {
        let sources = self.facts.spec.sources.iter();
        sources.flat_map(|source| self.peers_of(source)).collect()
    }

    fn peers_of(&self, source: &Source) -> Vec<Peer> {
        let namespace = match &*source.namespace {
            "" => &self.key.namespace,
            _ => &source.namespace,
        };
        // No policy can hold such a name.
        if !is_value(namespace) {
            return Vec::new();
        }
        let named = || self.account(namespace, &source.name);
        match source.kind {
            Some(SourceKind::ServiceAccount) => vec![Peer::Account(named())],
            Some(SourceKind::Authenticated) => vec![Peer::Mesh],
            Some(SourceKind::Unauthenticated) => vec![Peer::Any],
            Some(SourceKind::IdentityBinding) => self.bound(&named()),
            None => Vec::new(),
        }
    }

    fn bound(&self, named: &ObjectKey) -> Vec<Peer> {
        let binding = self.bindings.get(named).filter(|binding| binding.usable);
        let Some(binding) = binding else {
            return Vec::new();
        };
        let namespace = &named.namespace;
        let accounts = binding.accounts.iter();
        let accounts = accounts.map(|name| Peer::Account(self.account(namespace, name)));
        let labels = self.labels_of(named);
        let labels = labels.map(|labels| Peer::Labelled(namespace.clone(), labels.clone()));
        accounts.chain(labels).collect()
    }

    fn labels_of(&self, binding: &ObjectKey) -> Option<&Labels> {
        usable_labels(self.world.bindings.get(binding)?)
    }

    fn ports(&self) -> Ports {
        let mut ports = Ports::Only(BTreeSet::new());
        for rule in self.facts.spec.rules.iter().filter(|rule| is_udp(rule)) {
            let key = self.account(&self.key.namespace, &rule.name);
            let Some(route) = self.world.udp_routes.get(&key) else {
                continue;
            };
            match (&mut ports, &route.ports.0) {
                (_, None) => ports = Ports::Any,
                (Ports::Only(ports), Some(more)) => ports.extend(more),
                (Ports::Any, Some(_)) => {}
            }
        }
        // A limit of the oldest versions, on whatever the target is about.
        let limit = self.facts.spec.destination.as_ref().map(|to| to.limit);
        match (limit.unwrap_or_default(), &ports) {
            (PortLimit::Any, _) => ports,
            (PortLimit::Only(limit), Ports::Only(ports)) if !ports.contains(&limit) => {
                Ports::Only(BTreeSet::new())
            }
            (PortLimit::Only(limit), _) => Ports::Only(BTreeSet::from([limit])),
            (PortLimit::Nothing, _) => Ports::Only(BTreeSet::new()),
        }
    }

    /// Namespace and name of an account or of another object.
    fn account(&self, namespace: &Arc<str>, name: &str) -> ObjectKey {
        ObjectKey {
            namespace: namespace.clone(),
            name: name.into(),
        }
    }
}

/// The binding's labels, if pods can carry them all. Without any it would be every
/// pod, which a binding cannot mean.
fn usable_labels(binding: &BindingFacts) -> Option<&Labels> {
    let labels = binding.spec.labels.as_ref()?;
    let mut each = labels.iter();
    (!labels.is_empty() && each.all(|(name, value)| can_be_label(name, value))).then_some(labels)
}
