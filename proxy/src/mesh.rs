//! The messages between two proxies, and the connections that carry them.
//!
//! Imports `failure`, `http`, `net` and `ports`.

pub(crate) mod accept;
pub(crate) mod certificate_end;
pub(crate) mod load;
pub(crate) mod peer;
pub(crate) mod peers;
pub(crate) mod protocol;
pub(crate) mod tls;
