//! The pods of a Gateway, and what each of them is sent.
//!
//! A Gateway's pods are clients of the mesh: they have an identity, and what they call is a Service
//! with its splits, as for any other client. Routes of that Service are not looked at.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use gateway_api::gateway::{NAME_LABEL, resource_name};
use policy::name::ObjectRef;

use super::gateways::CompiledGateway;
use super::{Audience, Index, Model, PodId};
use crate::world::{ObjectKey, PodFacts};

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
        let account = resource_name(&gateway.name);
        let pods = self.running_pods_of(&gateway.namespace, &account).iter();
        pods.filter(|pod| self.gateway_of(pod).as_ref() == Some(gateway))
            .cloned()
            .collect()
    }

    /// The ports of a Gateway's listeners that its pods serve, each with the port on which they
    /// listen for it; empty where the Gateway is not served.
    #[must_use]
    pub fn gateway_ports(&self, gateway: &ObjectKey) -> BTreeMap<u16, u16> {
        let compiled = self.index.gateways.0.get(gateway);
        let listeners = compiled.into_iter().flat_map(|one| &one.gateway.listeners);
        listeners
            .map(|listener| (listener.port, listener.target_port))
            .collect()
    }
}

impl Index {
    /// The Gateway that a pod is of, and what it serves.
    pub(crate) fn gateway_of(
        &self,
        pod: &PodId,
        facts: &PodFacts,
    ) -> Option<(&ObjectKey, &Arc<CompiledGateway>)> {
        let is_gateway = facts.proxy.as_ref().is_some_and(|proxy| proxy.is_gateway);
        if !is_gateway || self.gateways.0.is_empty() {
            return None;
        }
        let name = facts.labels.get(NAME_LABEL)?;
        let key = ObjectKey {
            namespace: pod.namespace.clone(),
            name: name.clone(),
        };
        let found = self.gateways.0.get_key_value(&key)?;
        (*facts.service_account == *resource_name(name)).then_some(found)
    }

    /// Whether what a Gateway's pods get is made from an object: itself, its routes, or what shares
    /// out and guards the calls of their backends.
    pub(crate) fn gateway_is_made_from(&self, object: &ObjectRef, one: &CompiledGateway) -> bool {
        one.origins.iter().any(|(origin, _)| origin == object)
            || one
                .leads_to
                .iter()
                .any(|at| self.backend_origins(at).contains(object))
    }

    /// The accounts of Gateways, each with the objects that what their pods get is made from.
    pub(super) fn gateway_origins(&self) -> impl Iterator<Item = (ObjectKey, &ObjectRef)> {
        self.gateways.0.iter().flat_map(move |(gateway, one)| {
            let account = ObjectKey {
                namespace: gateway.namespace.clone(),
                name: resource_name(&gateway.name).into(),
            };
            let own = one.origins.iter().map(|(object, _)| object);
            let behind = one
                .leads_to
                .iter()
                .flat_map(move |at| self.backend_origins(at));
            own.chain(behind)
                .map(move |object| (account.clone(), object))
        })
    }

    /// The objects that clients of a Service port get without its routes.
    fn backend_origins(&self, at: &(ObjectKey, u16)) -> BTreeSet<&ObjectRef> {
        let entry = self.services.get(&at.0).into_iter();
        let splits = entry.flat_map(|entry| &entry.splits);
        let origins = splits.flat_map(|split| &split.origins);
        let mut found: BTreeSet<&ObjectRef> = origins.map(|(object, _)| object).collect();
        let policies = self.policies_for_callers(at, Audience::Direct).into_iter();
        let policies = policies.filter_map(|at| self.policies.ports.get(at));
        for port in policies {
            found.extend(port.caller_needs().keys().map(|(object, _)| object));
        }
        found
    }
}
