//! Selects what a Gateway's pods get: what they serve, and the Services that their calls go to.

use std::sync::Arc;

use wire::{capability::Capability, names, v1};

use super::resolve::CollectedResources;
use crate::model::published::EncodedResource;
use crate::world::PodFacts;

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
