//! Compiles ExternalServices: which callers each admits, and which authorities it means.
//!
//! Objects only give, so one that is not in force opens nothing. Where a ConfigMap with authorities
//! is missing, no server is believed: calls fail, and do not leave in another way.

use std::{
    collections::{BTreeMap, BTreeSet, HashSet},
    net::IpAddr,
    sync::Arc,
};

use crds::weft::validation::{External, ExternalPort as WrittenPort, Tls};
use policy::{
    egress::{ExternalObject, ExternalPort, MAX_OBJECTS, OriginateTls, Roots},
    name::{Kind, ObjectRef},
};

use super::findings::{About, Findings};
use crate::{
    model::{
        externals::{Callers, ExternalEntry, Externals, let_out},
        gateways::Gateways,
        published::external_len,
    },
    problem::{Reason, few},
    world::{self, ExternalFacts, ObjectKey, World, object, origin},
};

/// Bytes that objects of one pod take at most in its resource: what a proxy reads in one message.
const MOST_BYTES: usize = 1 << 20;
/// Bytes of the certificates of one ConfigMap. The bundle of the public web has four times as many,
/// and needs no ConfigMap.
const MOST_PEM: usize = 64 * 1024;

/// Reads all of them. `gateways`: those that are served.
pub(super) fn externals(world: &World, gateways: &Gateways, findings: &mut Findings) -> Externals {
    let mut read: Vec<(i64, &ObjectKey, ExternalEntry)> = Vec::new();
    for (key, facts) in world.external_services.iter() {
        let this = object(Kind::ExternalService, key);
        findings.seen(this.clone(), &facts.meta, summary(facts));
        findings.targeted(&this, ports(facts));
        let mut about = findings.about(&this, facts.meta.generation);
        about.add_mistakes(&facts.meta.mistakes);
        let Some(external) = facts.effective() else {
            continue;
        };
        check_service(world, key, &mut about);
        let gateway = external
            .gateway
            .as_ref()
            .map(|(namespace, name)| ObjectKey {
                namespace: namespace.clone(),
                name: name.clone(),
            });
        check_gateway(gateway.as_ref(), gateways, &mut about);
        let entry = ExternalEntry {
            origin: origin(Kind::ExternalService, key, &facts.meta),
            object: ExternalObject {
                origin: world::named(&this),
                hosts: external.hosts.clone(),
                addresses: external.addresses.clone(),
                resolved: Vec::new(),
                ports: read_ports(world, key, external, &mut about),
                gateway: gateway.as_ref().map(|gateway| gateway.to_string().into()),
                callers: Vec::new(),
            },
            callers: callers(key, external),
            has_gateway: gateway
                .as_ref()
                .is_some_and(|gateway| gateways.0.contains_key(gateway)),
            gateway,
        };
        read.push((facts.meta.created, key, entry));
    }
    // The oldest first, as everywhere.
    read.sort_by_key(|(created, key, _)| (*created, *key));
    let services = read.iter().enumerate().filter_map(|(at, (_, key, _))| {
        world.external_of(key)?;
        Some(((*key).clone(), at))
    });
    let services = services.collect();
    let entries: Vec<ExternalEntry> = read.into_iter().map(|(.., entry)| entry).collect();
    Externals {
        by_namespace: by_namespace(&entries, findings),
        by_gateway: by_gateway(&entries, findings),
        services,
        entries,
    }
}

/// The addresses of all nodes, and of the API server.
pub(super) fn machine_ips(world: &World) -> HashSet<IpAddr> {
    let nodes = world.nodes.values();
    let nodes = nodes.flat_map(|node| &node.ips).copied();
    nodes.chain(api_server(world)).collect()
}

/// The addresses of the API server: Kubernetes keeps them as endpoints of Service
/// `default/kubernetes`.
pub(super) fn api_server(world: &World) -> BTreeSet<IpAddr> {
    let start = ObjectKey::new("default", "");
    let slices = world.slices.range(start..);
    slices
        .take_while(|(key, _)| &*key.namespace == "default")
        .filter(|(_, slice)| &*slice.service == "kubernetes")
        .flat_map(|(_, slice)| slice.endpoints.iter().map(|endpoint| endpoint.ip))
        .collect()
}

/// What is named, for `kubectl get`.
fn summary(facts: &ExternalFacts) -> String {
    let hosts = facts.spec.hosts.iter().map(ToString::to_string);
    let addresses = facts.spec.addresses.iter().map(ToString::to_string);
    few(hosts.chain(addresses))
}

fn ports(facts: &ExternalFacts) -> String {
    let ports = facts.spec.ports.iter();
    few(ports.map(|port| format!("{}/{}", port.port, port.protocol.as_str())))
}

/// A Gateway that is not served: calls are refused and leave in no other way.
fn check_gateway(gateway: Option<&ObjectKey>, gateways: &Gateways, about: &mut About<'_>) {
    let Some(gateway) = gateway.filter(|gateway| !gateways.0.contains_key(*gateway)) else {
        return;
    };
    let message = format!(
        "Gateway {gateway} is not there, or Weft does not serve it: create it with a \
         gatewayClassName of Weft in a namespace of value gateway.namespaces; until then every call \
         by this object is refused"
    );
    about.unresolved(Reason::RefNotFound, "spec.gateway.name", message);
}

/// A Service of the object's name whose calls go to pods of the cluster.
fn check_service(world: &World, key: &ObjectKey, about: &mut About<'_>) {
    let Some(service) = world.services.get(key) else {
        return;
    };
    if service.has_selector {
        let message = format!(
            "Service {key} has a selector, so its calls go to its pods and not to these hosts; \
             take the selector out, or give the object another name"
        );
        about.warn(Reason::FieldIgnored, "metadata.name", message);
    }
}

fn read_ports(
    world: &World,
    key: &ObjectKey,
    external: &External,
    about: &mut About<'_>,
) -> Vec<ExternalPort> {
    let written = external.ports.iter().enumerate();
    let read = written.map(|(i, port): (usize, &WrittenPort)| ExternalPort {
        port: port.port,
        protocol: port.protocol,
        target_port: port.target_port,
        tls: port.tls.as_ref().map(|tls| {
            Arc::new(OriginateTls {
                server_name: tls.server_name.clone(),
                roots: roots(world, key, (i, tls), about),
            })
        }),
    });
    read.collect()
}

fn roots(world: &World, key: &ObjectKey, (i, tls): (usize, &Tls), about: &mut About<'_>) -> Roots {
    let Some(ca) = &tls.ca else {
        return Roots::Public;
    };
    let map = ObjectKey {
        namespace: key.namespace.clone(),
        name: ca.clone(),
    };
    let bundle = world.ca_bundles.get(&map);
    let pem = bundle.and_then(|bundle| bundle.pem.as_ref());
    let wrong = match (bundle, pem) {
        (None, _) => "does not exist: create it",
        (Some(_), None) => "has no certificate under ca.crt: write one in PEM",
        (Some(_), Some(pem)) if pem.len() > MOST_PEM => {
            "has more than 64 KiB under ca.crt: leave the authorities of this host alone there"
        }
        (Some(_), Some(pem)) => return Roots::Pem(pem.clone()),
    };
    let message = format!("ConfigMap {map} {wrong}; until then every call by this port fails");
    about.unresolved(
        Reason::RefNotFound,
        &format!("spec.ports[{i}].tls.caRef.name"),
        message,
    );
    Roots::Pem("".into())
}

fn callers(key: &ObjectKey, external: &External) -> Callers {
    if external.sources.is_empty() {
        return Callers::Namespace(key.namespace.clone());
    }
    let sources = external.sources.iter();
    let accounts: BTreeSet<ObjectKey> = sources
        .map(|source| ObjectKey {
            namespace: source.namespace.clone(),
            name: source.name.clone(),
        })
        .collect();
    Callers::Accounts(accounts)
}

/// The objects that admit accounts of each namespace, as many as a proxy may hold.
fn by_namespace(
    entries: &[ExternalEntry],
    findings: &mut Findings,
) -> BTreeMap<Arc<str>, Vec<usize>> {
    let mut places: BTreeMap<Arc<str>, (Vec<usize>, usize)> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let size = external_len(&entry.object);
        for namespace in entry.callers.namespaces() {
            let (held, bytes) = places.entry(namespace.clone()).or_default();
            if held.len() < MAX_OBJECTS && *bytes + size <= MOST_BYTES {
                held.push(at);
                *bytes += size;
            } else {
                beyond(&entry.origin, namespace, findings);
            }
        }
    }
    let places = places.into_iter();
    places
        .map(|(namespace, (held, _))| (namespace, held))
        .collect()
}

/// The objects that name each Gateway, as many as its proxies may hold.
fn by_gateway(
    entries: &[ExternalEntry],
    findings: &mut Findings,
) -> BTreeMap<ObjectKey, Vec<usize>> {
    let mut places: BTreeMap<ObjectKey, (Vec<usize>, usize)> = BTreeMap::new();
    for (at, entry) in entries.iter().enumerate() {
        let Some(gateway) = &entry.gateway else {
            continue;
        };
        let (held, bytes) = places.entry(gateway.clone()).or_default();
        let size = external_len(&let_out(entry, entry.object.clone()));
        if held.len() < MAX_OBJECTS && *bytes + size <= MOST_BYTES {
            held.push(at);
            *bytes += size;
            continue;
        }
        let message = format!(
            "more ExternalServices than {MAX_OBJECTS}, or than 1 MiB, name Gateway {gateway}: the \
             oldest count, and calls of this one are refused; put hosts that belong together into \
             one, or name another Gateway"
        );
        let (this, generation) = &entry.origin;
        let mut about = findings.about(this, *generation);
        about.warn(Reason::Conflicted, "spec.gateway", message);
    }
    let places = places.into_iter();
    places.map(|(gateway, (held, _))| (gateway, held)).collect()
}

fn beyond((this, generation): &(ObjectRef, i64), namespace: &str, findings: &mut Findings) {
    let message = format!(
        "more ExternalServices than {MAX_OBJECTS}, or than 1 MiB, admit callers of namespace \
         {namespace:?}: the oldest count, and this one admits none of that namespace; delete some, \
         or put hosts that belong together into one"
    );
    let mut about = findings.about(this, *generation);
    about.warn(Reason::Conflicted, "spec.sources", message);
}
