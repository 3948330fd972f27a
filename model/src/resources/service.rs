//! Encodes a Service port, once for all callers that get the same: with its splits, and with its
//! routes for each audience.

use std::sync::{Arc, OnceLock};

use wire::{convert, names, v1};

use crate::model::published::EncodedResource;
use crate::model::service_routes::RoutedTable;
use crate::model::{Audience, Index, PortEntry, ServiceEntry};
use crate::world::ObjectKey;

/// A Service port with its routes.
pub(super) struct RoutedResource<'a> {
    pub(super) resource: &'a Arc<EncodedResource>,
    /// What it was made from.
    pub(super) table: &'a RoutedTable,
}

impl Index {
    /// With its splits, whether or not routes decide in their place.
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
                splits,
                ..service(key, entry, port, at)
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

/// With the routes that decide for an audience; `None` where none do.
pub(super) fn routed<'a>(
    key: &ObjectKey,
    entry: &'a ServiceEntry,
    port: u16,
    at: &'a PortEntry,
    audience: Audience<'_>,
) -> Option<RoutedResource<'a>> {
    let routes = entry.routes.as_ref()?.0.get(&port)?;
    let (of, table) = routes.of(audience)?;
    let encoded = at.routed.get_or_init(|| {
        let audiences = routes.tables();
        audiences
            .map(|(of, _)| (Arc::<str>::from(of), OnceLock::new()))
            .collect()
    });
    let resource = encoded.get(of)?.get_or_init(|| {
        let service = service(key, entry, port, at);
        let message = convert::routed_service_message(service, &table.table);
        Arc::new(EncodedResource::new(
            names::service(&key.namespace, &key.name, port),
            v1::resource::Content::RoutedService(message),
            table.origins.clone(),
        ))
    });
    Some(RoutedResource { resource, table })
}

/// The Service without anything that leads its calls elsewhere.
fn service(key: &ObjectKey, entry: &ServiceEntry, port: u16, at: &PortEntry) -> v1::Service {
    v1::Service {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        port: port.into(),
        protocol: v1::Protocol::from(at.protocol).into(),
        affinity_seconds: entry.facts.affinity_seconds,
        splits: Vec::new(),
        endpoints: names::endpoints(&key.namespace, &key.name, port),
    }
}
