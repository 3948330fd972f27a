//! The control plane: reads the cluster, compiles it into what proxies need, and sends it to them.
//!
//! `watch` follows the API server and hands on one immutable `world` after another, made
//! of objects by `translate`; `compile` turns each into a `model`, purely; `resources`
//! picks what one proxy gets of it and `serve` sends that; `observe` collects what proxies
//! acknowledge, and `status` writes back what became of it. `run` starts all of that.
//!
//! What a folder may import stands at its head, and for all of them in
//! docs/architecture.md.

#![cfg_attr(
    not(test),
    warn(
        clippy::disallowed_methods,
        clippy::disallowed_types,
        clippy::large_futures
    )
)]

// First, for the macro in it.
#[macro_use]
mod apiserver;

mod admin;
mod aggregated;
mod authority;
mod compile;
mod explain;
mod fleet;
mod graph;
mod inventory;
mod metrics;
mod metrics_api;
mod model;
mod network_policy;
mod observe;
mod observe_api;
mod problem;
mod resources;
mod run;
mod serve;
mod settings;
mod shares;
mod status;
mod storage_migration;
// The test that compares decisions with a second reader takes a cluster in as this
// crate does.
pub mod translate;
mod trust_bundle;
mod uninstall;
mod watch;
pub mod world;

#[cfg(test)]
mod testing;

// What `main` starts.
pub use self::{
    apiserver::client::bounded,
    run::run,
    settings::{Settings, caps::Caps},
    uninstall::hook::leave,
};
// What tests of the whole crate, and of its agreement with the webhook, name.
pub use self::{
    explain::{
        BadQuestion, CallerSet, CallerView, Callers, Calls, Explained, Meaning, ModelComparison,
        Owner, SeenCallers, Share,
    },
    metrics::{CertifyResult, Metrics, ReportOutcome},
    model::{Defaults, Model, PodId},
    problem::{ConditionType, Problem, Reason, Severity},
};
