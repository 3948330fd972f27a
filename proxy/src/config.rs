//! What the controller said, and which of it this proxy asks for.
//!
//! Imports `endpoints` and `telemetry`.

pub mod apply;
pub mod snapshot;
pub mod store;
