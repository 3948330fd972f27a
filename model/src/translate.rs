//! Translates Kubernetes objects into facts. Pure: one object in, one fact out.
//!
//! An object that cannot be read gives an error (or, for SMI kinds, a fact that holds the error)
//! and never disturbs its neighbours.
//!
//! May import `world`.

mod automation;
pub mod change;
mod core;
mod external;
mod gateway;
mod metadata;
mod pod;
mod revocations;
mod smi;

// Whole, so that nothing here names the kinds one by one.
pub use self::{
    automation::*,
    core::*,
    external::*,
    gateway::*,
    metadata::{Unusable, key},
    pod::*,
    revocations::*,
    smi::*,
};
#[cfg(test)]
mod tests;
