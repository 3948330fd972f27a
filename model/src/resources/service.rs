//! Encodes a Service port with its splits, once for all callers.

use std::sync::Arc;

use wire::{names, v1};

use crate::model::published::EncodedResource;
use crate::model::{Index, PortEntry, ServiceEntry};
use crate::world::ObjectKey;

impl Index {
    pub(super) fn service<'a>(
        &self,
        key: &ObjectKey,
        entry: &ServiceEntry,
        port: u16,
        at: &'a PortEntry,
    ) -> &'a Arc<EncodedResource> {
        at.service.get_or_init(|| {
            let rules = self.split_rules(entry, port);
            let splits = rules.map(|rule| v1::Split::from(&rule)).collect();
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
}
