//! What TrafficPolicies say, encoded for callers and for each pod: as much of it as their
//! proxies carry out.

use std::sync::Arc;

use policy::{name::ObjectRef, traffic::part::Parts};
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
    /// What callers of the port get whose proxies carry out these parts.
    pub(super) fn for_callers(&self, key: &ObjectKey, port: u16, parts: Parts) -> PolicyResource {
        let needs = self.caller_needs();
        // Parts that no object needs make no difference.
        let parts = all(needs).within(parts);
        let resource = self.cuts.of(parts, || {
            let message = convert::policy_message(&self.traffic.for_callers(parts));
            (!message.rules.is_empty()).then(|| {
                EncodedResource::new(
                    names::policy(&key.namespace, &key.name, port),
                    v1::resource::Content::Policy(message),
                    carried(needs, parts),
                )
            })
        });
        PolicyResource {
            resource,
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
        let parts = all(needs).within(parts);
        let resource = entry.guard_cuts.of(parts, || {
            let cut = guard.cut(parts)?;
            Some(EncodedResource::new(
                names::GUARD.to_owned(),
                v1::resource::Content::Guard((&cut).into()),
                carried(needs, parts),
            ))
        });
        PolicyResource {
            resource,
            left_out: left_out(needs, parts),
        }
    }
}

fn all(needs: &RequiredParts) -> Parts {
    needs.values().copied().collect()
}

/// The objects of which something is carried out.
fn carried(needs: &RequiredParts, parts: Parts) -> Vec<(ObjectRef, i64)> {
    let carried = needs
        .iter()
        .filter(|(_, needed)| !needed.within(parts).is_empty());
    carried.map(|(object, _)| object.clone()).collect()
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
