//! The messages between two proxies, and the connections that carry them.
//!
//! Imports `failure`, `http`, `net` and `ports`.

pub(crate) mod load;
pub(crate) mod peer;
pub(crate) mod protocol;
pub(crate) mod tls;
