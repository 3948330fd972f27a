//! The egress configuration of each pod: the ExternalServices that admit it, and which of the
//! resolved addresses lie outside the mesh.
//!
//! Compiled without addresses: those of hosts change by themselves, and pods, Services and nodes
//! come and go at addresses. What is outside is read from the World when a proxy is served, so an
//! address that a host had for long is taken away as soon as a pod has it.

use std::{collections::HashSet, net::IpAddr, sync::Arc};

use gateway_api::gateway::resource_name;
use policy::{
    egress::{
        Egress, ExternalObject, ExternalPort, ExternalProtocol, ExternalTarget, OriginateTls,
        behind_nat64, may_be_outside,
    },
    name::ObjectRef,
};

use super::externals::{ExternalEntry, let_out};
use super::{Index, Model, PodId, modes};
use crate::world::{ObjectKey, PodFacts, ResolvedName};

/// Addresses of one host that count. No answer of DNS that serves callers has as many, and each is
/// an endpoint in every proxy that may call the host.
const MOST_ADDRESSES: usize = 64;

/// How calls of a Service go to a host outside.
#[derive(Debug)]
pub(crate) struct ExternalRoute<'a> {
    pub(crate) target: ExternalTarget,
    /// Of the object.
    pub(crate) port: &'a ExternalPort,
    /// By whose pods they leave, alone.
    pub(crate) gateway: Option<&'a ObjectKey>,
    /// Where they may go; empty where the object does not admit the caller.
    pub(crate) addresses: Vec<IpAddr>,
}

impl Model {
    /// The host behind a subscription `external/<host>:<port>` of a pod's proxy: `None` where the
    /// name is no such subscription, or no object that admits the pod covers the host at that port.
    pub fn queried_host<'a>(&self, pod: &PodId, name: &'a str) -> Option<&'a str> {
        let (host, port) = super::published::external_host(name)?;
        let facts = self.index.world.pods.get(pod)?;
        let index = &self.index;
        let gateway = index.gateway_of(pod, facts).map(|(gateway, _)| gateway);
        let mut entries = index.sent_externals(gateway, pod, facts);
        entries
            .any(|entry| entry.dials(gateway, host, port))
            .then_some(host)
    }

    /// The objects that give an account, by namespace and name, calls to the host behind a
    /// subscription `external/<host>:<port>`; none where the name is no such subscription.
    pub fn givers<'a>(
        &'a self,
        (namespace, account): (&'a str, &'a str),
        name: &'a str,
    ) -> impl Iterator<Item = &'a ObjectRef> {
        let parts = super::published::external_host(name);
        let index = &self.index;
        // Pods of the account of a Gateway dial what that lets out.
        let gateway = index.gateway_of_account(namespace, account);
        let admitted = index.externals.of(namespace, account);
        let let_out = gateway.map(|gateway| index.externals.of_gateway(gateway));
        let giving = let_out.into_iter().flatten().chain(admitted);
        let giving = giving.filter(move |entry| {
            parts.is_some_and(|(host, port)| entry.dials(gateway, host, port))
        });
        giving.map(|entry| &entry.origin.0)
    }
}

impl Index {
    /// What a pod may call outside the mesh, and the objects that say so; `None` where all calls
    /// pass and no object admits it.
    pub(crate) fn egress(
        &self,
        pod: &ObjectKey,
        facts: &PodFacts,
    ) -> Option<(Egress, Vec<(ObjectRef, i64)>)> {
        let namespace = self.world.namespace(&pod.namespace);
        let mode = modes::egress(&self.defaults, namespace, &facts.annotations);
        let gateway = self.gateway_of(pod, facts).map(|(gateway, _)| gateway);
        let entries = self.sent_externals(gateway, pod, facts);
        let sent = entries.map(|entry| {
            let object = self.with_resolved(&entry.object);
            let object = match gateway {
                Some(_) => let_out(entry, object),
                None => object,
            };
            (object, entry.origin.clone())
        });
        let (objects, origins) = sent.unzip();
        let egress = Egress { mode, objects };
        (!egress.is_idle()).then_some((egress, origins))
    }

    /// The objects that a pod's proxy is sent: to a pod of this Gateway those whose calls leave by it,
    /// to any other those that admit it.
    pub(crate) fn sent_externals<'a>(
        &'a self,
        gateway: Option<&ObjectKey>,
        pod: &'a ObjectKey,
        facts: &'a PodFacts,
    ) -> impl Iterator<Item = &'a ExternalEntry> + use<'a> {
        let let_out = gateway.map(|gateway| self.externals.of_gateway(gateway));
        let account = gateway.is_none().then_some(&*facts.service_account);
        let admitted = account.map(|account| self.externals.of(&pod.namespace, account));
        let let_out = let_out.into_iter().flatten();
        let_out.chain(admitted.into_iter().flatten())
    }

    /// The Gateway whose pods have an account.
    fn gateway_of_account(&self, namespace: &str, account: &str) -> Option<&ObjectKey> {
        let mut gateways = self.gateways.0.keys();
        gateways.find(|key| *key.namespace == *namespace && resource_name(&key.name) == account)
    }

    /// The Service that selects the pods of a Gateway.
    pub(crate) fn service_of_gateway(gateway: &ObjectKey) -> ObjectKey {
        ObjectKey {
            namespace: gateway.namespace.clone(),
            name: resource_name(&gateway.name).into(),
        }
    }

    /// The addresses of a host that may be called at a port; `None` while it is not resolved.
    pub(crate) fn outside(&self, host: &str, port: u16) -> Option<Vec<IpAddr>> {
        let name = self.world.names.get(&ResolvedName::key(host))?;
        let outside = name.addresses.iter().copied();
        let outside = outside.filter(|ip| self.is_outside(*ip, port));
        Some(outside.take(MOST_ADDRESSES).collect())
    }

    /// How calls of an account to a port of a Service leave the mesh; `None` where the Service
    /// stands for nothing outside.
    pub(crate) fn external_route(
        &self,
        (service, port): (&ObjectKey, u16),
        pod: &ObjectKey,
        account: &str,
    ) -> Option<ExternalRoute<'_>> {
        let (entry, port) = self.externals.of_service(service, port)?;
        let host = entry.object.exact_hosts().next()?;
        let mut admitted = self.externals.of(&pod.namespace, account);
        let denied = !admitted.any(|one| one.origin == entry.origin);
        let named = |tls: &Arc<OriginateTls>| {
            let server_name = tls.server_name.clone().unwrap_or_else(|| host.clone());
            Arc::new(OriginateTls {
                server_name: Some(server_name),
                roots: tls.roots.clone(),
            })
        };
        // The Gateway has what it needs.
        let gateway = entry.gateway.as_ref().filter(|_| !denied);
        let addresses = if denied || gateway.is_some() {
            Vec::new()
        } else {
            self.outside(host, port.target_port).unwrap_or_default()
        };
        Some(ExternalRoute {
            target: ExternalTarget {
                object: entry.object.origin.clone(),
                host: host.clone(),
                // What the object says of authorities is none of the business of others.
                tls: port
                    .tls
                    .as_ref()
                    .filter(|_| !denied && gateway.is_none())
                    .map(named),
                denied,
                gateway: entry.object.gateway.clone().filter(|_| !denied),
            },
            port,
            gateway,
            addresses,
        })
    }

    /// The hosts whose addresses a pod's proxy is sent without a query.
    pub(crate) fn hosts_of<'a>(&'a self, pod: &'a PodId) -> impl Iterator<Item = &'a Arc<str>> {
        let facts = self.world.pods.get(pod).into_iter();
        let entries = facts.flat_map(move |facts| {
            let gateway = self.gateway_of(pod, facts).map(|(gateway, _)| gateway);
            self.sent_externals(gateway, pod, facts)
        });
        entries.flat_map(|entry| entry.object.exact_hosts())
    }

    /// The addresses that a host has, whether or not they may be called.
    pub(crate) fn addresses_of_host(&self, host: &str) -> &[IpAddr] {
        let name = self.world.names.get(&ResolvedName::key(host));
        name.map_or(&[][..], |name| &name.addresses[..])
    }

    /// The object with the addresses by which calls of its TCP ports are recognised.
    pub(crate) fn with_resolved(&self, object: &ExternalObject) -> ExternalObject {
        let ports = object.ports.iter();
        let tcp: Vec<&ExternalPort> = ports
            .filter(|port| port.protocol == ExternalProtocol::Tcp)
            .collect();
        let mut resolved: Vec<IpAddr> = Vec::new();
        for host in object.exact_hosts().filter(|_| !tcp.is_empty()) {
            let addresses = self.addresses_of_host(host).iter().copied();
            let outside = addresses.filter(|ip| {
                let mut tcp = tcp.iter();
                tcp.all(|port| self.is_outside(*ip, port.target_port))
            });
            resolved.extend(outside.take(MOST_ADDRESSES));
        }
        resolved.sort_unstable();
        resolved.dedup();
        ExternalObject {
            resolved,
            ..object.clone()
        }
    }

    /// Whether an answer of DNS may be called.
    fn is_outside(&self, ip: IpAddr, port: u16) -> bool {
        may_be_outside(ip) && !self.is_inside(ip, port)
    }

    /// Whether something of the cluster stands at an address, or at the one that NAT64 makes of it.
    pub(crate) fn is_inside(&self, ip: IpAddr, port: u16) -> bool {
        let inner = |ip: IpAddr| {
            self.pods_by_ip.contains_key(&ip)
                || self.services_by_ip.contains_key(&ip)
                || self.services_by_outer.contains_key(&(ip, port))
                || self.machine_ips.contains(&ip)
        };
        inner(ip) || behind_nat64(ip).is_some_and(inner)
    }
}

/// Addresses that only one of the two has.
pub(crate) fn moved_machines(now: &HashSet<IpAddr>, then: &HashSet<IpAddr>) -> Vec<IpAddr> {
    now.symmetric_difference(then).copied().collect()
}
