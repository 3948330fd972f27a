//! The endpoints of Services, with what this proxy has measured of each: latency, health and load.
//!
//! Imports `telemetry::cell`, for the cells of calls to an address.

pub(crate) mod circuit;
pub(crate) mod endpoint;
pub(crate) mod learned;
pub(crate) mod location;
mod part;
mod presence;
pub(crate) mod registry;
pub(crate) mod set;
pub(crate) mod throttle;
