//! The data plane: a proxy beside every pod, and the redirection that brings
//! the pod's traffic to it.
//!
//! `outbound` and `inbound` tell the story of a connection; everything else is
//! a step of one of the two. `app` puts the parts together.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

pub mod admin;
pub mod capture;
pub mod config;
pub mod control;
pub mod drain;
pub mod endpoints;
pub mod failure;
pub mod http;
pub mod inbound;
pub mod mesh;
pub mod net;
pub mod outbound;
pub mod ports;
pub mod probe;
pub mod process;
pub mod proxy;
pub mod settings;
pub mod telemetry;
