//! Sockets and bytes: what a connection is made of, in whatever protocol.
//!
//! Imports nothing of the proxy, so that all its other parts may use this.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

pub mod abandon_limiter;
pub mod abort;
pub mod admission;
pub mod budget;
pub mod chunk;
pub mod coalesce;
pub mod connect;
pub mod forward;
pub mod idle;
pub mod linger;
pub mod memory;
pub mod opaque_scan;
pub mod original_dst;
pub mod prefixed;
pub mod relay;
pub mod server_name;
pub mod sniff;
pub mod ticket;
