//! Claims that need the mesh for themselves: what changes the whole mesh, and
//! what has a time bound or a fixed load.
//!
//! One after another: `cargo test -p e2e --test alone -- --test-threads=1`, after
//! `make cluster` and `make images`. Every test leaves the mesh as the chart's
//! defaults make it, also when it fails.

mod altered;
mod away;
mod breaker;
mod by_node;
mod chains;
mod check;
#[path = "../mesh/metrics_api/direct.rs"]
#[expect(dead_code, reason = "no client is refused here")]
mod direct;
mod faults;
mod gateways;
mod grant;
mod graph;
mod latency;
mod lifecycle;
mod modes;
mod policy_change;
mod propagation;
mod releases;
mod renewal;
mod restart;
mod revocation;
mod revoked;
mod rotation;
mod runbooks;
mod sniffer;
mod takeover;
mod tokens;
mod traces;
mod udp;
mod unmeasured;
mod upgraded;
mod uploads;
mod websocket;
mod wire_capture;

/// The URL of one of the test application's ports, by Service name.
fn url(service: &str, port: u16, path: &str) -> String {
    format!("http://{service}:{port}{path}")
}
