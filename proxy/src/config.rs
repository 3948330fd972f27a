//! What the controller said, and which of it this proxy asks for.
//!
//! Imports `endpoints` and `telemetry`.

pub(crate) mod apply;
pub(crate) mod guard;
pub(crate) mod overload;
pub(crate) mod policies;
mod shares;
pub(crate) mod snapshot;
pub(crate) mod store;
pub(crate) mod summary;
mod telemetry;
pub(crate) mod trial;
