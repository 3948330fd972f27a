//! Ports of Services to ports of containers, which is what rules speak of.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;

/// Label of an EndpointSlice with the name of its Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// By Service (`namespace/name`) and its port the ports of its endpoints.
#[derive(Clone, Debug, Default)]
pub(super) struct Ports(BTreeMap<(String, u16), BTreeSet<u16>>);

impl Ports {
    pub(super) fn of(services: &[Service], slices: &[EndpointSlice]) -> Self {
        let mut by_name: BTreeMap<(String, String), BTreeSet<u16>> = BTreeMap::new();
        for slice in slices {
            let labels = slice.metadata.labels.as_ref();
            let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) else {
                continue;
            };
            let namespace = slice.metadata.namespace.as_deref().unwrap_or_default();
            let service = format!("{namespace}/{service}");
            for port in slice.ports.iter().flatten() {
                let name = port.name.clone().unwrap_or_default();
                if let Some(number) = port.port.and_then(|port| u16::try_from(port).ok()) {
                    by_name
                        .entry((service.clone(), name))
                        .or_default()
                        .insert(number);
                }
            }
        }
        let mut ports: BTreeMap<(String, u16), BTreeSet<u16>> = BTreeMap::new();
        for service in services {
            let metadata = &service.metadata;
            let (namespace, name) = (metadata.namespace.as_deref(), metadata.name.as_deref());
            let service_name = format!(
                "{}/{}",
                namespace.unwrap_or_default(),
                name.unwrap_or_default()
            );
            let spec = service.spec.as_ref().and_then(|spec| spec.ports.as_ref());
            for port in spec.into_iter().flatten() {
                let key = (service_name.clone(), port.name.clone().unwrap_or_default());
                if let (Ok(number), Some(found)) = (u16::try_from(port.port), by_name.get(&key)) {
                    ports.insert((service_name.clone(), number), found.clone());
                }
            }
        }
        Self(ports)
    }

    /// The ports behind a Service's port; empty if no endpoint has them.
    pub(super) fn behind(&self, service: &str, port: u16) -> BTreeSet<u16> {
        let key = (service.to_owned(), port);
        self.0.get(&key).cloned().unwrap_or_default()
    }
}
