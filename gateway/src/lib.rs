//! The program of a Gateway: takes what clients outside the mesh send to its listeners into the mesh.
//!
//! A Gateway's pod is a proxy of the mesh without an application: it has an identity, gets its
//! configuration as each proxy does, and calls Services by the same code, the crate `proxy`. What is
//! here lies before that: listeners that open and close as the configuration says, TLS with
//! certificates of the cluster's users, and what makes a client's request one that may be passed on.
//!
//! `run` puts the parts together; `ports` accepts, `connection` serves one connection. What proxies hand
//! over that is to leave the mesh comes in by `handing_over`.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

mod certificates;
mod connection;
mod entrance;
mod handing_over;
mod ports;
mod run;
mod serving;
mod settings;

pub use crate::run::{Gateway, run};
pub use crate::settings::GatewaySettings;
