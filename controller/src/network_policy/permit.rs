//! What one TrafficTarget says about UDP.
//!
//! Every doubt is settled towards allowing less, as for TCP: what leads nowhere
//! stands for nothing, and a target that is wrong still closes whom it names.

use std::{collections::BTreeSet, sync::Arc};

use crds::smi::{
    GROUP_AUTHENTICATED, GROUP_UNAUTHENTICATED, SUBJECT_GROUP, SUBJECT_IDENTITY_BINDING,
    SUBJECT_SERVICE_ACCOUNT,
};
use policy::name::SpiffeId;

use super::{
    pods::{Pods, account_of},
    selector::{Labels, can_be_label, is_value},
};
use crate::world::{BindingFacts, ObjectKey, SubjectFacts, TargetFacts, World};

/// Kind of the rules that this is about.
const UDP_ROUTE: &str = "UDPRoute";
const SCHEME: &str = "spiffe://";

/// Who may send.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// Pods of an account.
    Account(ObjectKey),
    /// Pods of a namespace that carry these labels, and an account's.
    Labelled(Arc<str>, Labels),
    /// Every pod that carries an account's label.
    Mesh,
    /// Every address.
    Anybody,
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
    facts.rules.iter().any(|rule| *rule.kind == *UDP_ROUTE)
}

/// Whom a target protects: an account, or those of its pods that carry labels.
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

/// Reads a target. `None` when it protects nobody.
pub(super) fn read(
    world: &World,
    pods: &Pods<'_>,
    trust_domain: &str,
    key: &ObjectKey,
    facts: &TargetFacts,
) -> Option<Permit> {
    let reader = Reader {
        world,
        pods,
        trust_domain,
        key,
        facts,
    };
    let (destinations, usable) = reader.destinations()?;
    let rules = &facts.rules;
    let unreadable = facts.meta.unreadable.is_some();
    // One that names no traffic at all may have named UDP a moment ago.
    let closes = unreadable || rules.is_empty() || names_udp(facts);
    let (peers, ports) = if usable && !unreadable {
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

struct Reader<'a> {
    world: &'a World,
    pods: &'a Pods<'a>,
    trust_domain: &'a str,
    key: &'a ObjectKey,
    facts: &'a TargetFacts,
}

impl Reader<'_> {
    /// Whom the target protects, and whether it may allow something there.
    fn destinations(&self) -> Option<(BTreeSet<Destination>, bool)> {
        let own = &self.key.namespace;
        let to = self.facts.destination.as_ref()?;
        if to.name.is_empty() || !(to.namespace.is_empty() || to.namespace == *own) {
            return None;
        }
        if *to.kind != *SUBJECT_IDENTITY_BINDING {
            let usable = *to.kind == *SUBJECT_SERVICE_ACCOUNT;
            return Some((
                BTreeSet::from([(self.account(own, &to.name), None)]),
                usable,
            ));
        }
        let binding = self.world.bindings.get(&self.account(own, &to.name))?;
        let mut found = BTreeSet::new();
        if let Some(name) = binding.service_account.as_deref().filter(|n| !n.is_empty()) {
            found.insert((self.account(own, name), None));
        }
        let ids = self.accounts_of_ids(own, binding);
        found.extend(ids.map(|id| (id, None)));
        if let Some(labels) = usable_labels(binding) {
            let carries = |labels: &Labels, of: &Labels| {
                labels
                    .iter()
                    .all(|(name, value)| of.get(name) == Some(value))
            };
            let pods = self.pods.within(own);
            let pods = pods.filter(|(_, facts)| carries(labels, &facts.labels));
            found.extend(pods.map(|pod| (account_of(pod), Some(labels.clone()))));
        }
        Some((found, is_usable(binding)))
    }

    fn peers(&self) -> BTreeSet<Peer> {
        let sources = self.facts.sources.iter();
        sources.flat_map(|source| self.peers_of(source)).collect()
    }

    fn peers_of(&self, source: &SubjectFacts) -> Vec<Peer> {
        let namespace = match &*source.namespace {
            "" => &self.key.namespace,
            _ => &source.namespace,
        };
        // No namespace has such a name, and no policy can hold it.
        if !is_value(namespace) || source.name.is_empty() {
            return Vec::new();
        }
        match (&*source.kind, &*source.name) {
            (SUBJECT_SERVICE_ACCOUNT, name) => vec![Peer::Account(self.account(namespace, name))],
            (SUBJECT_GROUP, GROUP_AUTHENTICATED) => vec![Peer::Mesh],
            (SUBJECT_GROUP, GROUP_UNAUTHENTICATED) => vec![Peer::Anybody],
            (SUBJECT_IDENTITY_BINDING, name) => {
                let binding = self.world.bindings.get(&self.account(namespace, name));
                binding.map_or_else(Vec::new, |binding| self.bound(namespace, binding))
            }
            _ => Vec::new(),
        }
    }

    fn bound(&self, namespace: &Arc<str>, binding: &BindingFacts) -> Vec<Peer> {
        if !is_usable(binding) {
            return Vec::new();
        }
        let account = binding.service_account.iter().filter(|n| !n.is_empty());
        let account = account.map(|name| Peer::Account(self.account(namespace, name)));
        let ids = self.accounts_of_ids(namespace, binding);
        let ids = ids.map(Peer::Account);
        let labels = usable_labels(binding);
        let labels = labels.map(|labels| Peer::Labelled(namespace.clone(), labels.clone()));
        account.chain(ids).chain(labels).collect()
    }

    /// Accounts that the binding names by SPIFFE id. A binding speaks of its own
    /// namespace only, and identities of other meshes have no pods here.
    fn accounts_of_ids(
        &self,
        own: &Arc<str>,
        binding: &BindingFacts,
    ) -> impl Iterator<Item = ObjectKey> {
        let ids = binding.spiffe_ids.iter().flatten();
        ids.filter_map(|text| {
            let id = match text.starts_with(SCHEME) {
                true => SpiffeId::try_from(&**text),
                false => SpiffeId::try_from(format!("{SCHEME}{text}").as_str()),
            };
            let id = id
                .ok()
                .filter(|id| id.trust_domain() == self.trust_domain)?;
            (id.namespace()? == &**own).then_some(())?;
            Some(self.account(own, id.service_account()?))
        })
    }

    fn ports(&self) -> Ports {
        let mut ports = Ports::Only(BTreeSet::new());
        for rule in self.facts.rules.iter().filter(|r| *r.kind == *UDP_ROUTE) {
            let key = self.account(&self.key.namespace, &rule.name);
            let Some(route) = self.world.udp_routes.get(&key) else {
                continue;
            };
            if route.meta.unreadable.is_some() {
                continue;
            }
            let written = route.ports.as_deref().unwrap_or_default();
            match &mut ports {
                _ if written.is_empty() => ports = Ports::Any,
                Ports::Only(ports) => ports.extend(written.iter().filter_map(|p| port(*p))),
                Ports::Any => {}
            }
        }
        // A limit of the oldest versions, on whatever the target is about.
        match self.facts.destination.as_ref().and_then(|to| to.port) {
            None => ports,
            Some(limit) => {
                let within = |limit: &u16| match &ports {
                    Ports::Any => true,
                    Ports::Only(ports) => ports.contains(limit),
                };
                Ports::Only(port(limit).into_iter().filter(within).collect())
            }
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

/// Whether the binding may allow something: it can be read, and does not name both an
/// account and labels, which exclude each other.
fn is_usable(binding: &BindingFacts) -> bool {
    let both = binding.labels.is_some() && binding.service_account.is_some();
    binding.meta.unreadable.is_none() && !both
}

/// The binding's labels, if pods can carry them all. Without any it would be every
/// pod, which a binding cannot mean.
fn usable_labels(binding: &BindingFacts) -> Option<&Labels> {
    let labels = binding.labels.as_ref()?;
    let mut each = labels.iter();
    (!labels.is_empty() && each.all(|(name, value)| can_be_label(name, value))).then_some(labels)
}

fn port(number: i64) -> Option<u16> {
    u16::try_from(number).ok().filter(|number| *number != 0)
}
