//! `weft`: what people ask of the mesh from their own machine.
//!
//! A client like any other: it speaks to the API server with its user's rights, by his
//! kubeconfig, and knows nothing that he could not read himself. Judgement, injection and
//! matching are those of `crds` and `policy`, the same code that runs in the cluster.

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
mod files;
mod global;
mod kinds;
mod line;
mod namespace;
mod output;
pub mod reference;
mod run;
mod settings;
mod traffic;
mod yaml;

pub use args::command;
pub use commands::validate::judged;
pub use run::{main, run};
