//! The program of a Gateway: takes what clients outside the mesh send to its listeners into the mesh.
//!
//! A Gateway's pod is a proxy of the mesh without an application: it has an identity, gets its
//! configuration as each proxy does, and calls Services by the same code, the crate `proxy`. What is
//! here lies before that: listeners that open and close as the configuration says, TLS with
//! certificates of the cluster's users, and what makes a client's request one that may be passed on.
//!
//! The way of a request: `ports` accepts the connection, `connection` finds its listener and ends TLS,
//! `ListenerConnection::handle` of the crate `proxy` takes each request and runs
//! `outbound/request.rs`, as for a request of an application. There `receive` calls back
//! `entrance`, which edits the head, and `outbound/listener_route.rs` finds the route. Bytes go by
//! `ListenerConnection::relay`.
//!
//! Calls that other proxies hand over, to leave the mesh by this Gateway, come in by `handing_over`.
//! `run` puts the parts together; `serving` is what the listeners are now.

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
