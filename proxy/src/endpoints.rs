//! Where Services are served, with what this proxy has learned of each address.
//!
//! Imports nothing of this crate.

pub(crate) mod affinity;
pub(crate) mod endpoint;
pub(crate) mod registry;
pub(crate) mod set;
