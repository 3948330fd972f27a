//! Carries out releases while this replica holds the Lease.
//!
//! The crate `automation` decides. This folder reads what it decides by, writes the status first,
//! and then opens gates and records Events. A new holder of the Lease goes on from the status.
//!
//! May import `apiserver`, `fleet`, `latest_model`, `metrics`, `observe` and `status`.

mod aside;
mod calls;
pub(crate) mod commands;
pub(crate) mod context;
mod counts;
mod driven;
mod gates;
mod plan;
pub(crate) mod releases;
mod rollouts;
mod seen;
mod standing;
mod stored;
#[cfg(test)]
mod tests;
