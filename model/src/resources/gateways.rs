//! Selects what a Gateway's pods get: what they serve, and the Services that their calls go to.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc};

use policy::well_known::MESH_PORT;
use wire::{capability::Capability, names, v1};

use super::{endpoints::message, resolve::CollectedResources};
use crate::model::published::EncodedResource;
use crate::model::{Index, identity_at};
use crate::world::{ObjectKey, PodFacts};

impl Index {
    /// The pods of a Gateway that take calls which are to leave the mesh: those that its Service
    /// counts as ready, each at the port of its proxy. None without such a Gateway.
    pub(crate) fn handing_over(&self, gateway: &ObjectKey) -> Vec<v1::Endpoint> {
        let entry = self.services.get(&Self::service_of_gateway(gateway));
        let ports = entry.into_iter().flat_map(|entry| entry.ports.values());
        let candidates = ports.flat_map(|port| &port.candidates);
        let ready = candidates.filter(|candidate| candidate.ready);
        let mut found: BTreeMap<IpAddr, v1::Endpoint> = BTreeMap::new();
        for candidate in ready {
            let endpoint = &candidate.endpoint;
            let Some(pod) = &endpoint.pod else { continue };
            let Some(facts) = self.world.pods.get(pod) else {
                continue;
            };
            let is_own = self
                .gateway_of(pod, facts)
                .is_some_and(|(of, _)| of == gateway);
            let identity = identity_at(&self.defaults, pod, facts, MESH_PORT);
            if !is_own || identity.is_empty() {
                continue;
            }
            let endpoint = v1::Endpoint {
                port: MESH_PORT.into(),
                identity,
                opaque: false,
                ..message(endpoint, &candidate.node)
            };
            found.insert(candidate.endpoint.ip, endpoint);
        }
        found.into_values().collect()
    }
}

impl CollectedResources<'_> {
    /// What the pod serves, if it is one of a Gateway, with every Service to which a route leads.
    pub(super) fn gateway(&mut self, facts: &PodFacts) {
        let index = self.index;
        let Some((_, compiled)) = index.gateway_of(self.pod, facts) else {
            return;
        };
        let resource = compiled.encoded.get_or_init(|| {
            let content = v1::resource::Content::Gateway(v1::Gateway::from(&compiled.gateway));
            let (name, origins) = (names::GATEWAY.to_owned(), compiled.origins.clone());
            Arc::new(EncodedResource::new(name, content, origins))
        });
        self.add(resource.clone());
        if !self.capabilities.has(Capability::Gateway) {
            return;
        }
        self.set.certificates.clone_from(&compiled.certificates);
        for (service, port) in &compiled.leads_to {
            let entry = index.services.get(service);
            if let Some((entry, at)) = entry.and_then(|entry| Some((entry, entry.ports.get(port)?)))
            {
                self.with_splits(service, entry, (*port, at));
            }
        }
    }
}
