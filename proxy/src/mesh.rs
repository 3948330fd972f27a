//! The messages between two proxies, and the connections that carry them.
//!
//! Imports `failure`, `http` and `net`.

pub(crate) mod load;
mod open;
pub(crate) mod peer;
pub(crate) mod protocol;
pub(crate) mod tls;
