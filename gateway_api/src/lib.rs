//! The part of the Gateway API that Weft carries out: its kinds as the API server sends them, what
//! one object means by itself, and what is written into its status.
//!
//! Weft reads these kinds and never installs them. Nothing here does I/O or knows the time, so the
//! controller and a command line share every decision. What several objects mean together is
//! decided in `model`.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

pub mod conditions;
pub mod convert;
pub mod findings;
pub mod gateway;
pub mod grants;
mod kinds;
pub mod listeners;
pub mod order;
mod parents;
mod reader;
pub mod route;

pub use kinds::{
    GROUP, GRPCRoute, Gateway, GatewayClass, HTTPRoute, ReferenceGrant, TCPRoute, TLSRoute,
};
