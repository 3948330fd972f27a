//! Sockets and bytes: what a connection is made of, whatever is spoken on it.
//!
//! Imports nothing of this crate, so that everything else may stand on it.

pub mod abort;
pub mod budget;
pub mod chunk;
pub mod coalesce;
pub mod connect;
pub mod linger;
pub mod original_dst;
pub mod prefixed;
pub mod relay;
pub mod sniff;
pub mod tuning;
pub mod unread;
