//! All Revocations together: whose certificates are refused, which pods serve no calls any more,
//! and the resource that every proxy gets of it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

use policy::name::{ObjectRef, SpiffeId};
use policy::origin::Origin;
use policy::revoked::{ISSUER_LENGTH, PeerFacts, Revocation, Revocations, Revoked};

use super::published::EncodedResource;
use crate::world::{ObjectKey, PodFacts};

/// What compiling of Revocations needs besides the World.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RevocationContext {
    /// Service account of the controllers, which no Revocation may be about. `None`: not known.
    pub controller: Option<ObjectKey>,
    /// What signs certificates now: no Revocation may be about it. Empty: not known yet, and no
    /// issuer is revoked before it is.
    pub signing: BTreeSet<[u8; ISSUER_LENGTH]>,
    /// Uids of the Revocations that are announced and not in force yet.
    pub announced: BTreeSet<Arc<str>>,
}

/// See the module header.
#[derive(Debug, Default)]
pub struct RevocationSet {
    pub(crate) content: RevokedContent,
    lookup: Revocations,
    resource: OnceLock<Option<Arc<EncodedResource>>>,
}

/// What decides about everything: sets with the same content are the same.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct RevokedContent {
    /// In the order of the objects, the oldest first.
    pub(crate) all: Vec<Revocation>,
    /// Nodes whose pods get no certificates, or none of before a time.
    pub(crate) nodes: BTreeMap<Arc<str>, Revoked>,
    /// Objects in force, with their generations.
    pub(crate) in_force: Vec<(ObjectRef, i64)>,
    /// Objects that are announced.
    pub(crate) announced: BTreeSet<ObjectRef>,
    /// Uids of pods that are revoked for good: they serve no calls, and no proxy of theirs is
    /// waited for.
    pub(crate) ended: BTreeSet<Arc<str>>,
    /// The pods that subjects mean, by object.
    pub(crate) found: BTreeMap<ObjectKey, Vec<FoundPods>>,
    /// Subjects that name what is not there, by object.
    pub(crate) unresolved: BTreeMap<ObjectKey, Vec<usize>>,
    /// Objects of which nothing is in force, since others hold all places.
    pub(crate) beyond: BTreeSet<ObjectKey>,
    /// What takes plaintext.
    pub(crate) plaintext: Plaintext,
}

/// The pods that one subject means, as the status of the object has them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundPods {
    /// The subject as text.
    pub subject: Arc<str>,
    /// Uids of the pods.
    pub uids: Vec<Arc<str>>,
}

/// What revokes an account or a pod for good. As text: `Revocation leak revokes sa shop/web`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EndedBy {
    pub(crate) by: Origin,
    /// As the object's status has it.
    subject: String,
}

impl fmt::Display for EndedBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} revokes {}", self.by, self.subject)
    }
}

/// What takes calls without a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Plaintext {
    /// Workloads that take plaintext at every port.
    pub(crate) workloads: usize,
    /// Ports of the others that do.
    pub(crate) ports: usize,
}

impl Plaintext {
    /// What a user reads of it; `None` where all calls need a certificate.
    pub(crate) fn warning(self) -> Option<String> {
        let Self { workloads, ports } = self;
        (workloads + ports > 0).then(|| {
            format!(
                "{workloads} workloads, and {ports} ports of others, take plaintext, which needs \
                 no certificate: set weft.dev/mtls to strict and take ports out of \
                 weft.dev/permissive-ports, or close them by NetworkPolicies"
            )
        })
    }
}

impl RevokedContent {
    /// Adds what is said of a node; the stricter of two decides.
    pub(crate) fn add_node(&mut self, node: Arc<str>, revoked: Revoked) {
        let Some(known) = self.nodes.get_mut(&node) else {
            self.nodes.insert(node, revoked);
            return;
        };
        let is_stricter = match (known.issued_before, revoked.issued_before) {
            (None, _) => false,
            (Some(_), None) => true,
            (Some(known), Some(before)) => known < before,
        };
        if is_stricter {
            *known = revoked;
        }
    }
}

impl RevocationSet {
    pub(crate) fn new(content: RevokedContent) -> Self {
        Self {
            lookup: Revocations::of(content.all.iter().cloned()),
            content,
            resource: OnceLock::new(),
        }
    }

    /// The object that revokes a certificate, if one does.
    #[must_use]
    pub fn revoked(&self, peer: &PeerFacts<'_>) -> Option<&Origin> {
        self.lookup.revoked(peer)
    }

    /// Whether a certificate may be issued to this account, pod and node: if so, not as of an
    /// earlier time than this.
    ///
    /// # Errors
    /// With the object that revokes any that could be issued.
    pub fn issuance(
        &self,
        id: &SpiffeId,
        pod: Option<&str>,
        node: Option<&str>,
    ) -> Result<Option<SystemTime>, &Origin> {
        let soonest = self.lookup.issuance(id, pod)?;
        let of_node = node.and_then(|node| self.content.nodes.get(node));
        match of_node.map(|revoked| (&revoked.by, revoked.issued_before)) {
            Some((by, None)) => Err(by),
            Some((_, before)) => Ok(soonest.max(before)),
            None => Ok(soonest),
        }
    }

    /// Whether a pod is revoked for good, whatever certificate it has.
    #[must_use]
    pub fn has_ended(&self, uid: &str) -> bool {
        self.content.ended.contains(uid)
    }

    /// What revokes every certificate of an account, or of one pod of it.
    pub(crate) fn ended_by(
        &self,
        id: &SpiffeId,
        pod: Option<(&ObjectKey, &PodFacts)>,
    ) -> Option<EndedBy> {
        if let Err(by) = self.lookup.issuance(id, None) {
            let (namespace, name) = (id.namespace(), id.service_account());
            let (namespace, name) = (namespace.unwrap_or_default(), name.unwrap_or_default());
            return Some(EndedBy {
                by: by.clone(),
                subject: format!("sa {namespace}/{name}"),
            });
        }
        let (pod, facts) = pod?;
        let by = self.lookup.issuance(id, Some(&facts.uid)).err()?;
        let of_node = self.content.nodes.get(&facts.node);
        let subject = match of_node.filter(|revoked| revoked.by == *by) {
            Some(_) => format!("node {}", facts.node),
            None => format!("pod {pod}"),
        };
        Some(EndedBy {
            by: by.clone(),
            subject,
        })
    }

    /// The pods that the subjects of an object mean.
    #[must_use]
    pub fn found(&self, object: &ObjectRef) -> &[FoundPods] {
        let key = ObjectKey {
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        };
        self.content.found.get(&key).map_or(&[], Vec::as_slice)
    }

    /// Whether proxies need the object: at the latest once it is in force.
    pub(crate) fn has(&self, object: &ObjectRef) -> bool {
        let mut in_force = self.content.in_force.iter();
        self.content.announced.contains(object) || in_force.any(|(known, _)| known == object)
    }

    /// What every proxy gets; `None` without any Revocation.
    ///
    /// It is made from the objects in force: what is announced refuses nothing yet, so a proxy that
    /// has it does not count for it.
    pub(crate) fn published(&self) -> Option<Arc<EncodedResource>> {
        let content = &self.content;
        let publish = || {
            let is_empty = content.in_force.is_empty() && content.announced.is_empty();
            (!is_empty).then(|| {
                let origins = content.in_force.clone();
                Arc::new(EncodedResource::revocations(&content.all, origins))
            })
        };
        self.resource.get_or_init(publish).clone()
    }
}
