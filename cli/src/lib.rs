//! `weft`: the command line of the mesh, on a user's own machine.
//!
//! A client like any other: it uses the user's kubeconfig and rights with the API server, and knows
//! nothing that the user could not read directly. Validation, injection and matching are those of
//! `crds` and `policy`, the same code that runs in the cluster.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

mod args;
mod cluster;
mod commands;
pub mod console;
mod escape;
pub mod failure;
mod global;
mod kinds;
mod line;
mod output;
pub mod reference;
mod run;
mod traffic;
mod yaml;

pub use args::command;
pub use commands::validate::validated;
pub use run::{main, run};
