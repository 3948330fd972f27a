//! Carries out releases and experiments while this replica holds the Lease, and grants the runs of
//! experiments on every replica.
//!
//! The crate `automation` decides. This folder reads what it decides by, writes the status first,
//! and then opens gates and records Events. A new holder of the Lease goes on from the status.
//!
//! May import `apiserver`, `fleet`, `grants`, `latest_model`, `metrics`, `observe` and `status`.

mod aside;
mod calls;
pub(crate) mod commands;
mod conditions;
pub(crate) mod context;
mod counts;
mod driven;
pub(crate) mod experiments;
mod fields;
pub(crate) mod followed;
mod gates;
pub(crate) mod granting;
mod plan;
pub(crate) mod releases;
mod rollouts;
mod seen;
mod standing;
mod stored;
#[cfg(test)]
mod tests;
