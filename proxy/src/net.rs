//! Sockets and bytes: what a connection is made of, whatever is spoken on it.
//!
//! Imports nothing of this crate, so that everything else may stand on it.

pub(crate) mod abort;
pub(crate) mod admission;
pub(crate) mod budget;
pub(crate) mod chunk;
pub(crate) mod coalesce;
pub(crate) mod connect;
pub(crate) mod forward;
pub(crate) mod given_up;
pub(crate) mod headroom;
pub(crate) mod idle;
pub(crate) mod linger;
pub(crate) mod memory;
pub(crate) mod opaque_scan;
pub(crate) mod original_dst;
pub(crate) mod prefixed;
pub(crate) mod relay;
pub(crate) mod server_name;
pub(crate) mod sniff;
pub(crate) mod ticket;
