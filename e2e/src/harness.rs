//! The harness of tests in a real cluster: everything that a user does with kubectl
//! and helm, and nothing beyond that.
//!
//! It blocks on purpose. A test is a list of steps, and parallel tests are
//! threads, each in a namespace of its own.

pub mod api;
pub mod app;
pub mod authority;
pub mod beside;
pub mod cluster;
pub mod controllers;
mod endpoints;
pub mod eventually;
pub mod everything;
pub mod forward;
pub mod gateway_api;
pub mod gateways;
pub mod mesh;
pub mod metrics;
pub mod namespace;
pub mod outside;
pub mod pod;
pub mod processes;
pub mod prometheus;
pub mod rollout;
mod unready;
pub mod watch;
pub mod weft;

pub use api::Api;
pub use app::App;
pub use beside::Beside;
pub use cluster::Cluster;
pub use eventually::{eventually, settled};
pub use forward::Forward;
pub use gateways::Gateway;
pub use namespace::{Namespace, Outcome};
pub use outside::Outside;
pub use pod::{Load, Pod, UNTIL_ENDED};
pub use processes::{Process, Stopped};
pub use prometheus::Prometheus;
pub use rollout::Rollout;
pub use watch::Watch;
pub use weft::CommandOutput;
