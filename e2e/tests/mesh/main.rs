//! The whole mesh in a real cluster, claim by claim.
//!
//! Each test has a namespace of its own, so they run in parallel; none of them
//! changes what others share. Run with `cargo test -p e2e --test mesh`, after
//! `make cluster` and `make images`; `KEEP_NAMESPACES=1` leaves the namespaces.

mod access;
mod additive;
mod balance;
mod chains;
mod chart;
mod conformance;
mod egress;
mod examples;
mod faults;
mod gateway_api;
mod helm_test;
mod identity;
mod identity_binding;
mod injection;
mod limits;
mod metrics_api;
mod mirror;
mod modes;
mod observe;
mod oracle;
mod placement;
mod protocols;
mod releases;
mod revocation;
mod split;
mod status;
mod traffic;
mod traffic_policy;
mod versions;

use std::time::Duration;

/// A change of policy or mode takes effect within 2 s; kubectl's own time and a
/// busy machine come on top.
const SOON: Duration = Duration::from_secs(10);

/// The URL of one of the test application's ports, by Service name.
fn url(service: &str, port: u16, path: &str) -> String {
    format!("http://{service}:{port}{path}")
}
