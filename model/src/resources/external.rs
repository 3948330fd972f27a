//! Encodes what a pod may call outside the mesh: its egress, addresses of hosts, and Services that
//! stand for one.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use policy::{
    egress::{Egress, EgressMode, ExternalProtocol, MAX_NAMES},
    name::ObjectRef,
    traffic::part::Parts,
};
use wire::{capability::Capability, names, v1};

use super::{left_out::LeftOut, resolve::CollectedResources};
use crate::model::external::ExternalRoute;
use crate::model::published::EncodedResource;
use crate::world::{ObjectKey, PodFacts};

impl CollectedResources<'_> {
    /// What the pod may call, with the addresses of every host that it may call by name. Of
    /// `subscribed` names only those count that an object covers, and no more than a pod may
    /// query.
    pub(super) fn egress(&mut self, facts: &PodFacts, subscribed: &BTreeSet<String>) {
        let index = self.index;
        let Some((egress, origins)) = index.egress(self.pod, facts) else {
            return;
        };
        let gateway = index
            .gateway_of(self.pod, facts)
            .map(|(gateway, _)| gateway);
        let hands_over = self.capabilities.has(Capability::EgressGateways);
        if !hands_over && gateway.is_some() {
            return self.leave_out_gateways(&origins);
        }
        let (egress, lacks) = match hands_over {
            true => (egress, false),
            false => without_gateways(egress),
        };
        // What the proxy cannot read at all is left out by that.
        if lacks && self.capabilities.has(Capability::Egress) {
            self.leave_out_gateways(&origins);
        }
        let key = format!(
            "{}/{}/{}/{}/{}/{lacks}",
            names::EGRESS,
            egress.mode,
            self.pod.namespace,
            facts.service_account,
            gateway.is_some(),
        );
        let content = v1::resource::Content::Egress(v1::Egress::from(&egress));
        let resource = index
            .shared
            .of_objects(&key, names::EGRESS, content, origins);
        self.add(resource);
        if !self.capabilities.has(Capability::Egress) {
            return;
        }
        for name in egress.exact_endpoints() {
            self.host(&name);
        }
        let entries = index.sent_externals(gateway, self.pod, facts);
        for gateway in entries.filter_map(|entry| entry.gateway.as_ref()) {
            self.pods_of(gateway);
        }
        let is_named = |name: &&String| {
            let parts = names::parse(name);
            matches!(parts, Some(names::Name::External { host, port }) if egress.names(host, port))
        };
        for name in subscribed.iter().filter(is_named).take(MAX_NAMES) {
            self.host(name);
        }
    }

    /// What a proxy of an older version is not sent of these objects.
    fn leave_out_gateways(&mut self, origins: &[(ObjectRef, i64)]) {
        let entries = self.index.externals.entries.iter();
        let by_gateway: BTreeSet<&ObjectRef> = entries
            .filter(|entry| entry.gateway.is_some())
            .map(|entry| &entry.origin.0)
            .collect();
        let origins = origins.iter();
        let left_out = origins.filter(|(object, _)| by_gateway.contains(object));
        let left_out = left_out.map(|(object, generation)| LeftOut {
            object: object.clone(),
            generation: *generation,
            lacks: Parts::NONE,
        });
        self.set.left_out.extend(left_out);
    }

    /// The pods of a Gateway to which calls are handed over. None where there is no such Gateway.
    fn pods_of(&mut self, gateway: &ObjectKey) {
        let name = names::handing_over(&gateway.to_string());
        if self.set.resources.contains_key(&name)
            || !self.capabilities.has(Capability::EgressGateways)
        {
            return;
        }
        let content = v1::resource::Content::Endpoints(v1::Endpoints {
            endpoints: self.index.handing_over(gateway),
            ..v1::Endpoints::default()
        });
        self.add(self.index.shared.of(&name, content));
    }

    /// The addresses of a host, once they are known.
    fn host(&mut self, name: &str) {
        let Some(names::Name::External { host, port }) = names::parse(name) else {
            return;
        };
        if self.set.resources.contains_key(name) {
            return;
        }
        if let Some(addresses) = self.index.outside(host, port) {
            let endpoints = addresses.into_iter().map(|ip| endpoint(ip, port, false));
            let content = v1::resource::Content::Endpoints(v1::Endpoints {
                endpoints: endpoints.collect(),
                ..v1::Endpoints::default()
            });
            self.add(self.index.shared.of(name, content));
        }
    }

    /// The endpoints of a Service port that stands for a host outside; `None` where it does not. A
    /// proxy that cannot carry that out gets none.
    pub(super) fn external_endpoints(
        &self,
        service: &ObjectKey,
        port: u16,
    ) -> Option<Arc<EncodedResource>> {
        let account = self.index.world.pods.get(self.pod);
        let account = account.map_or("", |facts| &*facts.service_account);
        let route = self
            .index
            .external_route((service, port), self.pod, account)?;
        let name = names::endpoints(&service.namespace, &service.name, port);
        let needed = match route.gateway {
            Some(_) => Capability::EgressGateways,
            None => Capability::Egress,
        };
        let (variant, message) = if !self.capabilities.has(needed) {
            ("none", v1::Endpoints::default())
        } else if route.target.denied {
            ("denied", message(&route))
        } else if let Some(gateway) = route.gateway {
            let handing_over = v1::Endpoints {
                endpoints: self.index.handing_over(gateway),
                ..message(&route)
            };
            ("", handing_over)
        } else {
            ("", message(&route))
        };
        let key = format!("{name} {variant}");
        let content = v1::resource::Content::Endpoints(message);
        let shared = &self.index.shared;
        Some(shared.of_objects(&key, &name, content, Vec::new()))
    }
}

/// What a proxy is sent that cannot hand calls over: of a port that such an object has nothing, and
/// what no object gives is refused. So none of its calls leaves in another way. And whether that
/// differs.
fn without_gateways(egress: Egress) -> (Egress, bool) {
    let by_gateway = egress.objects.iter().filter(|one| one.gateway.is_some());
    let ports = by_gateway.flat_map(|one| one.ports.iter().map(|port| port.port));
    let ports: BTreeSet<u16> = ports.collect();
    if ports.is_empty() {
        return (egress, false);
    }
    let mut objects = egress.objects;
    for object in &mut objects {
        object.ports.retain(|port| !ports.contains(&port.port));
    }
    objects.retain(|object| object.gateway.is_none() && !object.ports.is_empty());
    let mode = EgressMode::Deny;
    (Egress { mode, objects }, true)
}

fn message(route: &ExternalRoute<'_>) -> v1::Endpoints {
    let opaque = route.port.protocol != ExternalProtocol::Http;
    let addresses = route.addresses.iter();
    v1::Endpoints {
        endpoints: addresses
            .map(|ip| endpoint(*ip, route.port.target_port, opaque))
            .collect(),
        external: Some((&route.target).into()),
        ..v1::Endpoints::default()
    }
}

/// An address that no proxy serves.
fn endpoint(ip: IpAddr, port: u16, opaque: bool) -> v1::Endpoint {
    v1::Endpoint {
        ip: ip.to_string(),
        port: port.into(),
        opaque,
        ..v1::Endpoint::default()
    }
}
