//! Applies the objects of a dry run to a World, which gives the cluster as it would be.

use std::sync::Arc;

use crds::smi::validation::Cluster;
use kube::core::DynamicObject;
use policy::mode::AccessMode;
use policy::name::Kind;

use super::external::external_service;
use super::gateway::{gateway_tcp_route, grpc_route, http_route, reference_grant};
use super::metadata::key;
use super::smi::traffic_policy;
use super::smi::{binding, group, split, target, tcp_route, udp_route};
use crate::world::{Meta, ObjectKey, World};

/// What would be changed, all at once.
#[derive(Clone, Debug, Default)]
pub struct Change {
    /// In the version that is stored.
    pub objects: Vec<(Kind, DynamicObject)>,
    pub delete: Vec<(Kind, ObjectKey)>,
    /// Mode of these namespaces, as their annotation would say it.
    pub access: Vec<(ObjectKey, AccessMode)>,
}

/// Puts or takes an object of one store.
macro_rules! lay {
    ($store:expr, $key:expr, $object:expr, $translate:ident) => {{
        let store = Arc::make_mut(&mut $store);
        match $object {
            Some((object, cluster, now)) => {
                let existing = store.get($key).map(|existing| existing.meta.clone());
                let mut facts = $translate(object, cluster);
                facts.meta = written(facts.meta, existing, now);
                store.insert($key.clone(), Arc::new(facts));
            }
            None => {
                store.remove($key);
            }
        }
    }};
}

impl Change {
    /// The World as it would be if this were done at `now`, in seconds since 1970.
    #[must_use]
    pub fn over(&self, world: &World, cluster: &Cluster, now: i64) -> World {
        let mut changed = world.clone();
        for (kind, object) in &self.objects {
            put(
                &mut changed,
                *kind,
                &key(&object.metadata),
                Some((object, cluster, now)),
            );
        }
        for (kind, key) in &self.delete {
            put(&mut changed, *kind, key, None);
        }
        for (namespace, mode) in &self.access {
            let namespaces = Arc::make_mut(&mut changed.namespaces);
            if let Some(facts) = namespaces.get_mut(namespace) {
                Arc::make_mut(facts).annotations.access = Some(mode.as_str().into());
            }
        }
        changed
    }
}

/// Whether there is such an object.
#[must_use]
pub fn exists(world: &World, kind: Kind, key: &ObjectKey) -> bool {
    match kind {
        Kind::TrafficTarget => world.targets.contains_key(key),
        Kind::TrafficSplit => world.splits.contains_key(key),
        Kind::HttpRouteGroup => world.groups.contains_key(key),
        Kind::TcpRoute => world.tcp_routes.contains_key(key),
        Kind::UdpRoute => world.udp_routes.contains_key(key),
        Kind::IdentityBinding => world.bindings.contains_key(key),
        Kind::TrafficPolicy => world.policies.contains_key(key),
        Kind::ExternalService => world.external_services.contains_key(key),
        Kind::HttpRoute => world.http_routes.contains_key(key),
        Kind::GrpcRoute => world.grpc_routes.contains_key(key),
        Kind::GatewayTcpRoute => world.gateway_tcp_routes.contains_key(key),
        Kind::ReferenceGrant => world.grants.contains_key(key),
        // One that is made does nothing before its status orders it, or is in no namespace.
        Kind::CanaryRelease
        | Kind::FaultExperiment
        | Kind::Revocation
        | Kind::Service
        | Kind::Pod
        | Kind::Namespace => false,
    }
}

type Put<'a> = Option<(&'a DynamicObject, &'a Cluster, i64)>;

/// Puts the object there, or takes the one that is there away.
fn put(world: &mut World, kind: Kind, key: &ObjectKey, object: Put<'_>) {
    match kind {
        Kind::TrafficTarget => lay!(world.targets, key, object, target),
        Kind::TrafficSplit => lay!(world.splits, key, object, split),
        Kind::HttpRouteGroup => lay!(world.groups, key, object, group),
        Kind::TcpRoute => lay!(world.tcp_routes, key, object, tcp_route),
        Kind::UdpRoute => lay!(world.udp_routes, key, object, udp_route),
        Kind::IdentityBinding => lay!(world.bindings, key, object, binding),
        Kind::TrafficPolicy => lay!(world.policies, key, object, traffic_policy),
        Kind::ExternalService => lay!(world.external_services, key, object, external_service),
        Kind::HttpRoute => lay!(world.http_routes, key, object, http_route),
        Kind::GrpcRoute => lay!(world.grpc_routes, key, object, grpc_route),
        Kind::GatewayTcpRoute => lay!(world.gateway_tcp_routes, key, object, gateway_tcp_route),
        Kind::ReferenceGrant => lay!(world.grants, key, object, reference_grant),
        Kind::CanaryRelease
        | Kind::FaultExperiment
        | Kind::Revocation
        | Kind::Service
        | Kind::Pod
        | Kind::Namespace => {}
    }
}

/// The older object wins conflicts, so what changes keeps its age, and what is new is the youngest.
fn written(made: Meta, existing: Option<Meta>, now: i64) -> Meta {
    let (generation, created, uid) = match existing {
        Some(existing) => (existing.generation + 1, existing.created, existing.uid),
        None => (1, now, made.uid),
    };
    Meta {
        generation,
        created,
        uid,
        mistakes: made.mistakes,
    }
}

#[cfg(test)]
mod tests;
