//! A Service port with its splits, encoded once.

use std::sync::Arc;

use policy::{
    name::ServiceId,
    route::{Backend, Rule},
};
use wire::{names, v1};

use crate::model::published::EncodedResource;
use crate::model::{Index, PortEntry, ServiceEntry, Split};
use crate::world::{self, ObjectKey};

impl Index {
    pub(super) fn service<'a>(
        &self,
        key: &ObjectKey,
        entry: &ServiceEntry,
        port: u16,
        at: &'a PortEntry,
    ) -> &'a Arc<EncodedResource> {
        at.service.get_or_init(|| {
            let splits = entry
                .splits
                .iter()
                .map(|split| self.split_at(split, port))
                .collect();
            let service = v1::Service {
                namespace: key.namespace.to_string(),
                name: key.name.to_string(),
                port: port.into(),
                protocol: v1::Protocol::from(at.protocol).into(),
                affinity_seconds: entry.facts.affinity_seconds,
                splits,
                endpoints: names::endpoints(&key.namespace, &key.name, port),
            };
            let origins = entry
                .splits
                .iter()
                .flat_map(|split| split.origins.clone())
                .collect();
            Arc::new(EncodedResource::new(
                names::service(&key.namespace, &key.name, port),
                v1::resource::Content::Service(service),
                origins,
            ))
        })
    }

    /// A split as one port sees it: a backend without that port has no share.
    fn split_at(&self, split: &Split, port: u16) -> v1::Split {
        let has_port = |backend: &ObjectKey| {
            self.services
                .get(backend)
                .is_some_and(|entry| entry.ports.contains_key(&port))
        };
        let backends = split
            .backends
            .iter()
            .filter(|(backend, _)| has_port(backend));
        let backends = backends.map(|(backend, weight)| {
            let endpoints = names::endpoints(&backend.namespace, &backend.name, port);
            let service = ServiceId::new(backend.namespace.clone(), backend.name.clone());
            Backend::new(service, *weight, endpoints)
        });
        (&Rule {
            origin: world::named(&split.origin),
            when: split.when.clone(),
            then: backends.collect(),
        })
            .into()
    }
}
