//! Keys of shared rate limits and of a pod's quota share, converted from and to wire messages.

use std::collections::BTreeMap;
use std::sync::Arc;

use model::world::ObjectKey;
use policy::limit::offered::Offered;
use policy::name::Kind;
use policy::origin::Origin;
use wire::v1;

/// A limit of one port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LimitKey {
    pub(super) of: NamedLimit,
    pub(super) service: ObjectKey,
    pub(super) port: u16,
}

/// A limit by the policy that says it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct NamedLimit {
    pub(super) policy: ObjectKey,
    pub(super) limit: Arc<str>,
}

/// A limit at a port of a pod.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ShareOf {
    /// Of the container.
    pub(super) port: u16,
    pub(super) of: NamedLimit,
}

impl LimitKey {
    /// The least of all keys with this name.
    pub(super) fn first(of: &NamedLimit) -> Self {
        Self {
            of: of.clone(),
            service: ObjectKey::new("", ""),
            port: 0,
        }
    }
}

impl NamedLimit {
    /// `None` for a rule that is none of a limit.
    pub(super) fn by(origin: &Origin) -> Option<Self> {
        Some(Self {
            policy: ObjectKey {
                namespace: Arc::clone(origin.namespace()),
                name: Arc::clone(origin.name()),
            },
            limit: origin.rule_name()?.into(),
        })
    }
}

impl ShareOf {
    /// `None` for what names no limit at a port.
    pub(crate) fn read(message: &v1::ShareOf) -> Option<Self> {
        let policy = message.origin.as_ref()?;
        Some(Self {
            port: u16::try_from(message.port).ok()?,
            of: NamedLimit {
                policy: ObjectKey::new(&policy.namespace, &policy.name),
                limit: message.limit.as_str().into(),
            },
        })
    }

    pub(crate) fn message(&self) -> v1::ShareOf {
        v1::ShareOf {
            port: self.port.into(),
            origin: Some(v1::ObjectRef {
                kind: Kind::TrafficPolicy.to_string(),
                namespace: self.of.policy.namespace.to_string(),
                name: self.of.policy.name.to_string(),
            }),
            limit: self.of.limit.to_string(),
        }
    }
}

/// A share as it was given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Given {
    /// The term of the divider; a later one counts.
    pub(super) term: u64,
    pub(super) number: u64,
    pub(super) thousandths: u64,
}

pub(super) fn message(of: &ShareOf, given: Given) -> v1::Share {
    v1::Share {
        of: Some(of.message()),
        thousandths: given.thousandths,
        term: given.term,
        number: given.number,
    }
}

pub(super) fn pod_shares(uid: &str, shares: &BTreeMap<ShareOf, Given>) -> v1::PodShares {
    v1::PodShares {
        uid: uid.to_owned(),
        gone: false,
        shares: shares
            .iter()
            .map(|(of, given)| message(of, *given))
            .collect(),
        offered: Vec::new(),
    }
}

pub(super) fn loads(offered: &BTreeMap<ShareOf, Offered>) -> Vec<v1::OfferedLoad> {
    let loads = offered.iter().map(|(of, load)| v1::OfferedLoad {
        of: Some(of.message()),
        thousandths: load.thousandths,
        refused: load.refused,
    });
    loads.collect()
}

pub(super) fn read_offered(loads: &[v1::OfferedLoad]) -> impl Iterator<Item = (ShareOf, Offered)> {
    loads.iter().filter_map(|load| {
        let offered = Offered {
            thousandths: load.thousandths,
            refused: load.refused,
        };
        Some((ShareOf::read(load.of.as_ref()?)?, offered))
    })
}

pub(super) fn read(reported: &v1::PodShares) -> impl Iterator<Item = (ShareOf, Given)> {
    reported.shares.iter().filter_map(|share| {
        let given = Given {
            term: share.term,
            number: share.number,
            thousandths: share.thousandths,
        };
        Some((ShareOf::read(share.of.as_ref()?)?, given))
    })
}
