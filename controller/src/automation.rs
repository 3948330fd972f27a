//! Carries out releases while this replica holds the Lease.
//!
//! The crate `automation` decides; this folder reads what it decides by, writes the status first,
//! and then opens gates and records Events. A new holder of the Lease goes on from the status.
//!
//! May import `apiserver`, `latest_model`, `metrics`, `observe` and `status`.

pub(crate) mod commands;
