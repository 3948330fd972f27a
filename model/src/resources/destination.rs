//! Finds the Service or pod that an address and port belong to.

use std::{collections::BTreeSet, net::IpAddr};

use policy::{name::ObjectRef, protocol::Protocol};
use wire::{names, v1};

use super::endpoints::message;
use crate::model::{Endpoint, Index, Model, has_say, identity_at};
use crate::world::{ObjectKey, PodFacts};

impl Model {
    /// The destination resources through which callers get this object.
    pub fn called_through(&self, object: &ObjectRef) -> BTreeSet<String> {
        let addresses = self.index.called_at(object);
        addresses
            .map(|(ip, port)| names::destination(ip, port))
            .collect()
    }

    /// Whether callers of a namespace get this object through a destination resource, of those
    /// through which some callers do: routes are for some namespaces alone, and in their place
    /// splits are for none. A proxy that cannot carry out routes gets the splits all the same.
    pub fn reaches(&self, object: &ObjectRef, namespace: &str, destination: &str) -> bool {
        let Some(names::Name::Destination { ip, port }) = names::parse(destination) else {
            return true;
        };
        let index = &*self.index;
        let Some(service) = index.service_at(ip, port) else {
            return true;
        };
        let entry = index.services.get(service);
        let routed = entry.and_then(|entry| entry.routes.as_ref()?.0.get(&port));
        // Without routes all callers get the same.
        routed.is_none() || index.is_sent_to_callers(object, (service, port), namespace)
    }
}

impl Index {
    /// What stands at `ip:port`. A Service's own address wins over a pod's, and a
    /// pod's over addresses that a Service merely claims (external and load balancer
    /// addresses): otherwise a Service could draw other pods' traffic to itself.
    ///
    /// Node ports and pods that share their node's address are external: plain
    /// relaying to them works. That they are inside the cluster counts for its Gateways, which let
    /// no call out to them.
    pub(crate) fn destination(&self, ip: IpAddr, port: u16) -> v1::Destination {
        use v1::destination::Target;
        let target = if let Some(key) = self.services_by_ip.get(&ip) {
            let known = self
                .services
                .get(key)
                .is_some_and(|s| s.ports.contains_key(&port));
            if known {
                Target::Service(names::service(&key.namespace, &key.name, port))
            } else {
                let reason = format!("Service {key} has no TCP port {port}");
                let service = key.to_string();
                Target::Refused(v1::Refused { reason, service })
            }
        } else if let Some((key, facts)) = self.pod_at(ip) {
            Target::Pod(self.pod_target(key, facts, ip, port))
        } else if let Some(key) = self.services_by_outer.get(&(ip, port)) {
            Target::Service(names::service(&key.namespace, &key.name, port))
        } else {
            Target::External(v1::External {
                inside: self.is_inside(ip, port),
            })
        };
        v1::Destination {
            target: Some(target),
        }
    }

    /// The Service whose address this is. None of those that pods stand for: a headless Service has
    /// no routes.
    fn service_at(&self, ip: IpAddr, port: u16) -> Option<&ObjectKey> {
        let outer = || {
            let is_pods = self.pods_by_ip.contains_key(&ip);
            let outer = self.services_by_outer.get(&(ip, port));
            outer.filter(|_| !is_pods)
        };
        self.services_by_ip.get(&ip).or_else(outer)
    }

    fn pod_at(&self, ip: IpAddr) -> Option<(&ObjectKey, &PodFacts)> {
        let (key, facts) = self.world.pods.get_key_value(self.pods_by_ip.get(&ip)?)?;
        Some((key, facts))
    }

    fn pod_target(
        &self,
        key: &ObjectKey,
        facts: &PodFacts,
        ip: IpAddr,
        port: u16,
    ) -> v1::PodTarget {
        let protocol = self.pod_protocols(key, facts).lookup(port);
        let entry = self.pods.get(key);
        let headless = entry.into_iter().flat_map(|entry| &entry.headless);
        let headless = headless.filter(|(own_port, ..)| *own_port == port);
        let endpoint = Endpoint {
            ip,
            port,
            identity: identity_at(&self.defaults, key, facts, port),
            pod: Some(key.clone()),
            pod_uid: facts.uid.clone(),
            zone: self.world.zone(&facts.node).to_owned(),
            // A caller of one pod has no other to spare it with.
            ready_since: 0,
            opaque: matches!(protocol, Protocol::Opaque | Protocol::Tls),
        };
        v1::PodTarget {
            endpoint: Some(message(&endpoint, &facts.node)),
            protocol: v1::Protocol::from(protocol).into(),
            headless: headless
                .map(|(_, service, service_port)| v1::Headless {
                    service: names::service(&service.namespace, &service.name, *service_port),
                    hosts: self.hosts(service, key),
                })
                .collect(),
        }
    }

    /// The names that mean a Service at the address of a pod. The bare name is one: a caller that
    /// reached one of its pods resolved it rightly. Not so of a Service of another namespace: there
    /// it may be that of one which has a say over the pod.
    fn hosts(&self, service: &ObjectKey, pod: &ObjectKey) -> Vec<String> {
        let ObjectKey { namespace, name } = service;
        let domain = &self.defaults.cluster_domain;
        let bare = has_say(service, pod).then(|| name.to_lowercase());
        let full = [
            format!("{name}.{namespace}"),
            format!("{name}.{namespace}.svc"),
            format!("{name}.{namespace}.svc.{domain}").to_lowercase(),
        ];
        bare.into_iter().chain(full).collect()
    }
}
