//! Sockets and bytes: what a connection is made of, whatever is spoken on it.
//!
//! Imports nothing of this crate, so that everything else may stand on it.

pub mod budget;
pub mod chunk;
pub mod coalesce;
pub mod linger;
pub mod original_dst;
pub mod relay;
pub mod sniff;
