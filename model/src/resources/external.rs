//! Encodes what a pod may call outside the mesh: its egress, addresses of hosts, and Services that
//! stand for one.

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use policy::egress::{ExternalProtocol, MAX_NAMES};
use wire::{capability::Capability, names, v1};

use super::resolve::CollectedResources;
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
        let key = format!(
            "{}/{}/{}/{}",
            names::EGRESS,
            egress.mode,
            self.pod.namespace,
            facts.service_account
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
        let is_named = |name: &&String| {
            let parts = names::parse(name);
            matches!(parts, Some(names::Name::External { host, port }) if egress.names(host, port))
        };
        for name in subscribed.iter().filter(is_named).take(MAX_NAMES) {
            self.host(name);
        }
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
        let (variant, message) = if !self.capabilities.has(Capability::Egress) {
            ("none", v1::Endpoints::default())
        } else if route.target.denied {
            ("denied", message(&route))
        } else {
            ("", message(&route))
        };
        let key = format!("{name} {variant}");
        let content = v1::resource::Content::Endpoints(message);
        let shared = &self.index.shared;
        Some(shared.of_objects(&key, &name, content, Vec::new()))
    }
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
