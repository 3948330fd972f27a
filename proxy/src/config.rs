//! The configuration that the controller sent, and the proxy's subscriptions to it.
//!
//! Imports `endpoints` and `telemetry`.

pub(crate) mod apply;
pub(crate) mod dry_run;
pub(crate) mod gateway;
pub(crate) mod grants;
pub(crate) mod guard;
mod names;
pub(crate) mod overload;
mod own_pod;
pub(crate) mod policies;
mod revoked;
mod shares;
mod sharing;
pub(crate) mod snapshot;
pub(crate) mod store;
pub(crate) mod vouched;
