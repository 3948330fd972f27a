//! Resolves Service names without an address of their own: external names and headless Services.

use std::collections::BTreeSet;

use crds::names::few;

use crate::model::{Index, PodId, PortEntry, ServiceEntry};
use crate::world::ObjectKey;

/// The Service that an ExternalName is another name of; nothing where it leads out of the
/// cluster.
///
/// # Errors
/// Why nothing can be said of it. Services of other namespaces are queried by their own names:
/// whether the user may know of them is decided by these.
pub(super) fn stands_for(
    index: &Index,
    alias: &ObjectKey,
    name: &str,
) -> Result<Option<ObjectKey>, &'static str> {
    let name = name.trim_end_matches('.').to_ascii_lowercase();
    let domain = &*index.defaults.cluster_domain;
    let inside = name.strip_suffix(domain);
    let inside = inside.and_then(|name| name.strip_suffix('.'));
    let Some(inside) = inside.or(Some(&*name).filter(|name| name.ends_with(".svc"))) else {
        return Ok(None);
    };
    let service = inside.strip_suffix(".svc");
    let service = service.and_then(|name| name.split_once('.'));
    let (service, namespace) = service
        .filter(|(_, namespace)| !namespace.contains('.'))
        .ok_or("a name of the cluster that is no Service's")?;
    if *namespace != *alias.namespace {
        return Err("a Service of another namespace; ask about that one");
    }
    let service = ObjectKey::new(namespace, service);
    let entry = index.services.get(&service);
    let entry = entry.ok_or("and there is no such Service")?;
    if entry.facts.external_name.is_some() {
        return Err("which stands for another name itself");
    }
    Ok(Some(service))
}

/// Where clients of a headless Service end up that call a port. Its name leads to the addresses of
/// pods, and nothing maps ports there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum HeadlessPort {
    /// At the pods' own port behind this port of the Service.
    Served(u16),
    /// Past the Service, at a port of these pods that is behind none of its ports.
    Past(BTreeSet<PodId>),
}

/// `None`: the Service has no pod, or no such port.
pub(super) fn headless_port(entry: &ServiceEntry, called: u16) -> Option<HeadlessPort> {
    let mut ports = entry.ports.iter();
    if let Some((number, _)) = ports.find(|(_, at)| own_ports(at).contains(&called)) {
        return Some(HeadlessPort::Served(*number));
    }
    let candidates = &entry.ports.get(&called)?.candidates;
    let pods = candidates.iter().filter_map(|one| one.endpoint.pod.clone());
    let pods: BTreeSet<PodId> = pods.collect();
    (!pods.is_empty()).then_some(HeadlessPort::Past(pods))
}

/// What is to be said of a port of a headless Service behind which its pods have another one.
pub(super) fn unmapped(index: &Index, service: &ObjectKey, port: u16) -> Option<String> {
    let entry = index.services.get(service)?;
    let own = own_ports(entry.ports.get(&port)?);
    if !entry.facts.headless || own.is_empty() || own == BTreeSet::from([port]) {
        return None;
    }
    let own: Vec<String> = own.iter().map(ToString::to_string).collect();
    Some(format!(
        "its name leads to the pods' own addresses, where port {port} of the Service is port {}, \
         which clients have to call",
        few(&own, own.len())
    ))
}

fn own_ports(at: &PortEntry) -> BTreeSet<u16> {
    let candidates = at.candidates.iter();
    candidates.map(|one| one.endpoint.port).collect()
}
