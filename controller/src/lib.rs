//! The control plane: reads the cluster, compiles it into what proxies need, and sends it to them.
//!
//! `watch` follows the API server and publishes one immutable World after another; `latest_model`
//! compiles each with the crate `model`, and `serve` sends each proxy its part; `observe` collects
//! what proxies acknowledge, and `status` writes it into objects. `run` starts all of that.
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
mod automation;
mod ca_bundles;
mod fleet;
mod gateways;
mod grants;
mod graph;
mod inventory;
mod latest_model;
mod listener_certificates;
mod metrics;
mod metrics_api;
mod names;
mod network_policy;
mod observe;
mod observe_api;
mod reread;
mod run;
mod serve;
mod settings;
mod shares;
mod status;
mod storage_migration;
mod trust_bundle;
mod uninstall;
mod watch;

#[cfg(test)]
mod testing;

// What `main` starts.
pub use self::{
    apiserver::client::bounded,
    run::run,
    settings::{Settings, caps::Caps},
    uninstall::hook::leave,
};
// What tests of the whole crate name.
pub use self::metrics::{CertifyResult, Metrics, ReportOutcome};
