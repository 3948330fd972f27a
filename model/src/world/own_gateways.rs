//! Finds the Gateways that Weft serves, and the Secrets that they may name for their listeners.

use std::collections::BTreeSet;

use gateway_api::conditions::GATEWAY_CONTROLLER;
use gateway_api::grants::Grants;

use super::{ObjectKey, World};

impl World {
    /// The Secrets that Gateways of these namespaces name for their listeners, where a Gateway is
    /// Weft's and may name them. No other Secret is to be read.
    #[must_use]
    pub fn listener_secrets(&self, namespaces: &BTreeSet<String>) -> BTreeSet<ObjectKey> {
        let grants = Grants::new(self.grants.values().map(|facts| &*facts.grant));
        let mut secrets = BTreeSet::new();
        for (gateway, facts) in self.gateways.iter() {
            if !namespaces.contains(&*gateway.namespace) || !self.is_own_class(&facts.spec.class) {
                continue;
            }
            let listeners = facts.spec.listeners.iter();
            let named = listeners.flat_map(|listener| &listener.certificates);
            let permitted = named.filter(|one| {
                one.is_secret()
                    && grants.allows_secret(&gateway.namespace, &one.namespace, &one.name)
            });
            secrets.extend(permitted.map(|one| ObjectKey {
                namespace: one.namespace.clone(),
                name: one.name.clone(),
            }));
        }
        secrets
    }

    /// Whether Gateways of a class are Weft's.
    pub(crate) fn is_own_class(&self, class: &str) -> bool {
        let class = self.gateway_classes.get(&ObjectKey::new("", class));
        class.is_some_and(|facts| &*facts.spec.controller == GATEWAY_CONTROLLER)
    }
}
