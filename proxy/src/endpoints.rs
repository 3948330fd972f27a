//! Where Services are served, with what this proxy has learned of each address.
//!
//! Imports nothing of this crate.

pub mod affinity;
pub mod endpoint;
pub mod registry;
pub mod set;
