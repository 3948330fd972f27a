//! The control plane: understands the cluster, compiles it into what proxies need,
//! and tells them.
//!
//! `watch` follows the API server and hands on one immutable `world` after
//! another; `compile` turns each into a `model`, purely; the rest serves that to
//! proxies, collects what they acknowledge, and writes back what became of it.

#[macro_use]
mod opaque;

mod acks;
mod api_client;
mod authority;
mod bundle;
mod caps;
mod certify;
mod compile;
mod compiled;
mod control;
mod departure;
mod events;
mod gauges;
mod herald;
mod lease;
mod leave;
mod metrics;
mod metrics_api;
mod model;
mod network_policy;
mod observed;
mod own_certificate;
mod problem;
mod publish;
mod replica;
mod reports;
mod serve;
mod settings;
mod status;
mod storage;
mod stream;
// The test that compares decisions with a second reader takes a cluster in as this
// crate does.
pub mod translate;
mod watch;
pub mod world;

#[cfg(test)]
mod fake_api;
#[cfg(test)]
mod fixture;

// What `main` starts.
pub use self::{api_client::bounded, caps::Caps, control::run, leave::leave, settings::Settings};
// What tests of the whole crate name.
pub use self::{
    metrics::{Metrics, Outcome, ReportOutcome},
    model::{Defaults, Model, PodId},
};
