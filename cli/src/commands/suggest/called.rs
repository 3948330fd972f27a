//! The called side of an edge of the service graph: its pods, their ports, and the names of both in
//! messages.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::Edge;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use policy::release::service_of;

use crate::traffic::IndexedGraph;
use crate::traffic::select::{self, account_of};

/// Namespace and name of a service account.
pub(super) type Account = (String, String);

/// The account of a SPIFFE id; nothing where it is none of an account.
pub(super) fn account(id: &str) -> Option<Account> {
    let (namespace, name) = account_of(id)?;
    Some((namespace.to_owned(), name.to_owned()))
}

/// Both ends, the port as `weft edges` shows it, and the Service that was called, with the
/// backend that took the calls where that is another one.
pub(super) fn named(traffic: &IndexedGraph, edge: &Edge, here: Option<&str>) -> String {
    let from = select::shown(traffic, &edge.from, here);
    let to = select::shown(traffic, &edge.to, here);
    let port = match edge.port {
        0 => "-".to_owned(),
        port => port.to_string(),
    };
    let mut text = format!("{from} to {to} port {port}");
    if !edge.service.is_empty() {
        text.push_str(&format!(" of {}", shown_service(&edge.service, here)));
    }
    if !edge.backend.is_empty() && service_of(&edge.backend) != edge.service {
        text.push_str(&format!(" by {}", shown_service(&edge.backend, here)));
    }
    text
}

/// `namespace/name` of a Service as people type it.
fn shown_service(service: &str, here: Option<&str>) -> String {
    match service.split_once('/') {
        Some((namespace, name)) if Some(namespace) == here => format!("svc/{name}"),
        Some((namespace, name)) => format!("svc/{name}.{namespace}"),
        None => format!("svc/{service}"),
    }
}

/// The called pods, and their own ports.
///
/// # Errors
/// Why one of the two is not known.
pub(super) fn called(
    traffic: &IndexedGraph,
    edge: &Edge,
    ports: &Ports,
) -> Result<(Account, BTreeSet<u16>), String> {
    let to = traffic.node(&edge.to);
    let accounts = to.map(|node| node.accounts.as_slice()).unwrap_or_default();
    let id = match accounts {
        [id] => id,
        [] => {
            return Err(
                "no meshed pod of the called is known now, so its account is not".to_owned(),
            );
        }
        several => {
            return Err(format!(
                "the called pods have {} service accounts",
                several.len()
            ));
        }
    };
    let destination = account(id).ok_or("its identity is no service account")?;
    let found = ports_at(&destination.0, edge, ports)?;
    Ok((destination, found))
}

/// On which of their own ports pods of a namespace are called.
///
/// # Errors
/// Why that is not known.
pub(super) fn ports_at(
    namespace: &str,
    edge: &Edge,
    ports: &Ports,
) -> Result<BTreeSet<u16>, String> {
    let service = if edge.backend.is_empty() {
        &*edge.service
    } else {
        service_of(&edge.backend)
    };
    // An author of Services in another namespace could direct one to any port.
    let there = service.split_once('/').map(|(there, _)| there);
    if there.is_some_and(|there| there != namespace) {
        return Err(format!(
            "{service} is of another namespace and does not say which port of the called pods \
             this is"
        ));
    }
    // A pod that was called by its own address was called on its own port.
    let found = if service.is_empty() {
        BTreeSet::from([edge.port])
    } else {
        ports.behind(service, edge.port)
    };
    if found.is_empty() {
        return Err(format!(
            "no endpoint of {service} says which container port this is"
        ));
    }
    Ok(found)
}

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
