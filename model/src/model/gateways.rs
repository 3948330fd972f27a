//! What Gateways serve, as their pods are sent it, and which pods these are.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::name::ObjectRef;

use super::{Index, Model, PodId};
use crate::world::{ObjectKey, PodFacts};

/// All Gateways that are served, by name.
#[derive(Debug, Default, PartialEq)]
pub struct Gateways(pub(crate) BTreeMap<ObjectKey, CompiledGateway>);

/// A Gateway that is served.
#[derive(Debug, PartialEq)]
pub(crate) struct CompiledGateway {
    /// What its pods serve.
    pub(crate) gateway: policy::gateway::Gateway,
    /// The Gateway, and the routes that are attached to it.
    pub(crate) origins: Vec<(ObjectRef, i64)>,
    /// Services and their ports that calls or copies of them go to.
    pub(crate) leads_to: BTreeSet<(ObjectKey, u16)>,
    /// Secrets whose certificates its listeners serve.
    pub(crate) certificates: BTreeSet<ObjectKey>,
}

impl Model {
    /// The Gateway that a pod is of: by the label of its name, and its account. `None` for every
    /// other pod, and for one of a Gateway that is not served.
    #[must_use]
    pub fn gateway_of(&self, pod: &PodId) -> Option<ObjectKey> {
        let facts = self.index.world.pods.get(pod)?;
        let (gateway, _) = self.index.gateway_of(pod, facts)?;
        Some(gateway.clone())
    }

    /// The pods of a Gateway whose proxies run.
    #[must_use]
    pub fn gateway_pods(&self, gateway: &ObjectKey) -> Vec<PodId> {
        let _ = gateway;
        Vec::new()
    }
}

impl Index {
    /// The Gateway that a pod is of, and what it serves.
    pub(crate) fn gateway_of(
        &self,
        pod: &PodId,
        facts: &PodFacts,
    ) -> Option<(&ObjectKey, &CompiledGateway)> {
        let _ = (pod, facts);
        None
    }
}
