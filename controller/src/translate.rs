//! Turns Kubernetes objects into facts. Pure: one object in, one fact out.
//!
//! An object that cannot be read gives an error (or, for SMI kinds, a fact that
//! says so) and never disturbs its neighbours.
//!
//! May import `world`.

mod core;
mod metadata;
mod smi;
mod traffic;

#[cfg(test)]
pub(crate) use self::core::config_map;
pub use self::{
    core::{namespace, node, owner, pod, service, slice},
    metadata::{Unusable, key},
    smi::{binding, group, split, target, tcp_route, udp_route},
    traffic::traffic_policy,
};
#[cfg(test)]
mod tests;
