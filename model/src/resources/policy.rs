//! Encodes TrafficPolicies for callers and for each pod, and finds the parts that their proxies do
//! not carry out.

use std::sync::Arc;

use policy::traffic::part::Parts;
use wire::{convert, names, v1};

use super::left_out::LeftOut;
use crate::model::{
    Index,
    published::EncodedResource,
    traffic::{PortPolicies, RequiredParts},
};
use crate::world::ObjectKey;

/// What a proxy gets, and what it does not.
#[derive(Default)]
pub(super) struct PolicyResource {
    pub(super) resource: Option<Arc<EncodedResource>>,
    pub(super) left_out: Vec<LeftOut>,
}

impl PortPolicies {
    /// What callers of the port get whose proxies carry out these parts: nothing, if they are older
    /// than policies.
    pub(super) fn for_callers(&self, key: &ObjectKey, port: u16, parts: Parts) -> PolicyResource {
        let needs = self.caller_needs();
        let encode = || {
            let message = convert::policy_message(&self.traffic.for_callers());
            (!message.rules.is_empty()).then(|| {
                Arc::new(EncodedResource::new(
                    names::policy(&key.namespace, &key.name, port),
                    v1::resource::Content::Policy(message),
                    needs.keys().cloned().collect(),
                ))
            })
        };
        PolicyResource {
            resource: of_kind(parts, || self.resource.get_or_init(encode).clone()),
            left_out: left_out(needs, parts),
        }
    }
}

impl Index {
    /// What the proxy of a pod gets about requests to it, if it carries out these parts.
    pub(super) fn guard(&self, pod: &ObjectKey, parts: Parts) -> PolicyResource {
        let Some(entry) = self.pods.get(pod) else {
            return PolicyResource::default();
        };
        let Some(guard) = self.guard_of(entry) else {
            return PolicyResource::default();
        };
        let needs = &guard.needs;
        let encode = || {
            let sent = guard.sent()?;
            Some(Arc::new(EncodedResource::new(
                names::GUARD.to_owned(),
                v1::resource::Content::Guard((&sent).into()),
                needs.keys().cloned().collect(),
            )))
        };
        PolicyResource {
            resource: of_kind(parts, || entry.guard_resource.get_or_init(encode).clone()),
            left_out: left_out(needs, parts),
        }
    }
}

/// The resource for a proxy that carries out these parts, unless it is older than policies.
fn of_kind(
    parts: Parts,
    resource: impl FnOnce() -> Option<Arc<EncodedResource>>,
) -> Option<Arc<EncodedResource>> {
    if parts.is_empty() { None } else { resource() }
}

/// The objects of which something is not carried out.
fn left_out(needs: &RequiredParts, parts: Parts) -> Vec<LeftOut> {
    let lacking = needs.iter().filter_map(|((object, generation), needed)| {
        let lacks = needed.without(parts);
        (!lacks.is_empty()).then(|| LeftOut {
            object: object.clone(),
            generation: *generation,
            lacks,
        })
    });
    lacking.collect()
}
