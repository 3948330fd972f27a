//! What two proxies say to each other, and the connections that carry it.
//!
//! Imports `failure`, `http`, `net` and `ports`.

pub mod peer;
pub mod peers;
pub mod protocol;
pub mod tls;
