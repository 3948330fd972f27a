//! Decides which changes of a resource are sent at once, without waiting to be batched with
//! others.

use policy::release::ReleaseSet;
use wire::v1::{self, resource::Content};

use crate::model::published::EncodedResource;

/// Whether going from `old` to `new` takes something away: an endpoint that left,
/// a rule that changed or went, a mode that became tighter, a pod that left its address, a right
/// to harm calls, a part of the calls of a release's candidate, a way out of the mesh, a certificate
/// that is revoked. Such a change is sent at once; all
/// others may wait for company.
pub fn must_not_wait(old: Option<&EncodedResource>, new: Option<&EncodedResource>) -> bool {
    fn content(published: Option<&EncodedResource>) -> Option<&Content> {
        published?.resource.content.as_ref()
    }
    match (content(old), content(new)) {
        (Some(Content::Endpoints(old)), Some(Content::Endpoints(new))) => {
            let kept = |removed: &v1::Endpoint| {
                let mut now = new.endpoints.iter();
                // Lists are long, and addresses tell almost all apart.
                now.any(|now| {
                    now.ip == removed.ip && without_readiness(now) == without_readiness(removed)
                })
            };
            // Calls that leave the mesh in another way than they should.
            let leave_as_before = old.external.is_none() || old.external == new.external;
            !leave_as_before || !old.endpoints.iter().all(kept)
        }
        (Some(Content::Endpoints(_) | Content::Rule(_) | Content::ExtendedRule(_)), None) => true,
        (None, Some(Content::Revocations(_))) | (Some(Content::Revocations(_)), None) => true,
        (Some(Content::Revocations(old)), Some(Content::Revocations(new))) => old != new,
        (Some(Content::Rule(old)), Some(Content::Rule(new)))
        | (Some(Content::ExtendedRule(old)), Some(Content::ExtendedRule(new))) => old != new,
        // A candidate that gets less may harm what it gets.
        (Some(Content::Service(old)), Some(Content::Service(new))) => {
            candidate_weight(new) < candidate_weight(old)
        }
        (Some(Content::Workload(old)), Some(Content::Workload(new))) => {
            let closed = |range: &v1::PortRange| !new.permissive_ports.contains(range);
            // Lower numbers are tighter in both enums. A permissive pod names no ports.
            new.enforcement < old.enforcement
                || new.mtls < old.mtls
                || new.fault_limit < old.fault_limit
                || new.mtls == old.mtls && old.permissive_ports.iter().any(closed)
        }
        (Some(Content::Egress(old)), Some(Content::Egress(new))) => {
            let kept = |object: &v1::ExternalObject| new.objects.contains(object);
            // Lower numbers are tighter.
            new.mode < old.mode || !old.objects.iter().all(kept)
        }
        (None, Some(Content::Egress(new))) => new.mode() != v1::egress::Mode::Allow,
        // Connections to a pod that is gone end by this.
        (Some(Content::Destination(old)), Some(Content::Destination(new))) => {
            let pod = pod_uid(old);
            pod.is_some() && pod != pod_uid(new)
        }
        _ => false,
    }
}

/// What the candidate of a release gets, by all rules together.
fn candidate_weight(of: &v1::Service) -> u32 {
    let backends = of.splits.iter().flat_map(|split| &split.backends);
    let candidate = backends.filter(|backend| {
        let set = ReleaseSet::parse(&backend.service);
        set.is_some_and(|(_, set)| set == ReleaseSet::Candidate)
    });
    candidate.map(|backend| backend.weight).sum()
}

/// Of the pod at a destination.
fn pod_uid(of: &v1::Destination) -> Option<&str> {
    match of.target.as_ref()? {
        v1::destination::Target::Pod(pod) => Some(&pod.endpoint.as_ref()?.pod_uid),
        _ => None,
    }
}

/// All but since when it is ready, and whose callers it is meant for.
fn without_readiness(of: &v1::Endpoint) -> (&str, u32, bool, [&str; 6]) {
    let v1::Endpoint {
        ip,
        port,
        identity,
        namespace,
        pod,
        zone,
        opaque,
        node,
        ready_since: _,
        pod_uid,
        for_zones: _,
        for_nodes: _,
    } = of;
    let names = [identity, namespace, pod, zone, node, pod_uid];
    (ip.as_str(), *port, *opaque, names.map(String::as_str))
}

#[cfg(test)]
mod tests;
