//! The control plane: understands the cluster, compiles it into what proxies need,
//! and tells them.
//!
//! `watch` follows the API server and hands on one immutable `world` after
//! another; `compile` turns each into a `model`, purely; the rest serves that to
//! proxies, collects what they acknowledge, and writes back what became of it.

#[macro_use]
mod opaque;

pub mod acks;
pub mod api_client;
pub mod authority;
pub mod bundle;
pub mod caps;
pub mod certify;
pub mod compiled;
pub mod control;
pub mod departure;
pub mod events;
pub mod gauges;
pub mod herald;
pub mod lease;
pub mod leave;
pub mod metrics;
pub mod metrics_api;
pub mod model;
pub mod network_policy;
pub mod observed;
pub mod own_certificate;
pub mod problem;
pub mod publish;
pub mod replica;
pub mod reports;
pub mod serve;
pub mod settings;
pub mod status;
pub mod storage;
pub mod stream;
pub mod translate;
pub mod watch;
pub mod world;

// What tests of the whole crate, and of its agreement with the webhook, name.
pub use self::{
    model::{Defaults, Model},
    problem::{ConditionType, Problem, Reason, Severity},
};

mod compile;
#[cfg(test)]
mod fake_api;

#[cfg(test)]
mod fixture;
