//! What TrafficPolicies say, encoded once for callers and once for each pod.

use std::sync::Arc;

use wire::{convert, names, v1};

use crate::model::{Index, published::EncodedResource, traffic::PortPolicies};
use crate::world::ObjectKey;

impl PortPolicies {
    /// What callers of the port are told; `None` if nothing.
    pub(super) fn for_callers(&self, key: &ObjectKey, port: u16) -> Option<&Arc<EncodedResource>> {
        let published = self.published.get_or_init(|| {
            let message = convert::policy_message(&self.traffic);
            (!message.rules.is_empty()).then(|| {
                Arc::new(EncodedResource::new(
                    names::policy(&key.namespace, &key.name, port),
                    v1::resource::Content::Policy(message),
                    self.caller_origins().into_iter().collect(),
                ))
            })
        });
        published.as_ref()
    }
}

impl Index {
    /// What the proxy of a pod is told of requests to it; `None` if nothing.
    pub(super) fn guard(&self, pod: &ObjectKey) -> Option<&Arc<EncodedResource>> {
        let entry = self.pods.get(pod)?;
        let guard = entry.guard.get_or_init(|| {
            let said = self.policies.guard(&entry.serves)?;
            Some(Arc::new(EncodedResource::new(
                names::GUARD.to_owned(),
                v1::resource::Content::Guard((&said.guard).into()),
                said.origins.into_iter().collect(),
            )))
        });
        guard.as_ref()
    }
}
