//! Finds the Services that stand for a host outside the mesh, and the ConfigMaps that
//! ExternalServices name.

use std::collections::BTreeSet;

use crds::weft::validation::External;

use super::{ObjectKey, World};

impl World {
    /// What a Service stands for: the object of its name, where the Service itself leads nowhere
    /// and the object names a host to which calls can go.
    #[must_use]
    pub(crate) fn external_of(&self, service: &ObjectKey) -> Option<&External> {
        let facts = self.services.get(service)?;
        let leads_elsewhere = facts.has_selector || facts.headless || facts.external_name.is_some();
        let external = self.external_services.get(service)?.effective()?;
        let mut hosts = external.hosts.iter();
        let has_host = hosts.any(|host| host.exact().is_some());
        (has_host && !leads_elsewhere).then_some(external)
    }

    /// The ConfigMaps that objects name for certificates of authorities.
    #[must_use]
    pub fn external_authorities(&self) -> BTreeSet<ObjectKey> {
        let named = self.external_services.iter();
        let named = named.filter_map(|(key, facts)| Some((key, facts.effective()?)));
        let tls = named.flat_map(|(key, external)| {
            let ports = external.ports.iter();
            ports.filter_map(move |port| Some((key, port.tls.as_ref()?)))
        });
        tls.filter_map(|(key, tls)| {
            Some(ObjectKey {
                namespace: key.namespace.clone(),
                name: tls.ca.clone()?,
            })
        })
        .collect()
    }
}
