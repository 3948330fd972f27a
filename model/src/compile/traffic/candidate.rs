//! A TrafficPolicy that may apply at a Service port, and the lookup tables by which that is
//! evaluated.

use std::{collections::BTreeMap, sync::Arc};

use policy::{name::ObjectRef, traffic::Policy};

use crate::{
    compile::{members::Members, routes::Routes},
    model::{
        Defaults, PodEntry, ServiceEntry, bindings::Bindings, has_say, traffic::ServicePodFacts,
    },
    world::{ObjectKey, World},
};

/// What policies are looked up in.
pub(in crate::compile) struct Named<'a> {
    pub(in crate::compile) world: &'a World,
    pub(in crate::compile) defaults: &'a Defaults,
    pub(in crate::compile) routes: &'a Routes,
    pub(in crate::compile) bindings: &'a Bindings,
    pub(in crate::compile) members: &'a Members<'a>,
    pub(in crate::compile) services: &'a BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    pub(in crate::compile) pods: &'a BTreeMap<ObjectKey, Arc<PodEntry>>,
}

/// A policy that may decide something.
pub(super) struct PolicyCandidate {
    pub(super) policy: Policy,
    pub(super) object: ObjectRef,
    pub(super) generation: i64,
    /// About what it adds to the rules of a port.
    pub(super) bytes: usize,
    /// What the expressions of its matches take at a proxy that has compiled them.
    pub(super) compiled: usize,
    /// What it was made from.
    pub(super) origins: Vec<(ObjectRef, i64)>,
}

/// What is reported about the pods of a Service.
pub(in crate::compile) fn surroundings(
    key: &ObjectKey,
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    pods: &BTreeMap<ObjectKey, Arc<PodEntry>>,
) -> ServicePodFacts {
    let Some(entry) = services.get(key) else {
        return ServicePodFacts::default();
    };
    let endpoints = entry.ports.values().flat_map(|port| &port.candidates);
    let mut found = ServicePodFacts {
        empty: true,
        ..ServicePodFacts::default()
    };
    for candidate in endpoints {
        found.empty = false;
        found.plain |= candidate.endpoint.identity.is_empty();
        let pod = candidate.endpoint.pod.as_ref();
        found.foreign |= pod.is_some_and(|pod| !has_say(key, pod));
        let pod = pod.and_then(|pod| pods.get(pod));
        let mut serves = pod.into_iter().flat_map(|pod| &pod.serves);
        found.shared |= serves.any(|(service, ..)| service != key);
    }
    found
}
