//! What the mesh reports, compared with independent measurements: a load generator for five
//! minutes, a real OpenTelemetry Collector, a real Prometheus.
//!
//! Not part of `make test`: it is long, and the collector is built from source for it.
//! `make eyes` makes what these tests need, names it in the environment and runs them one
//! after another; what they hold is held in lower rings by shorter tests.

#[path = "../alone/altered.rs"]
#[expect(dead_code, reason = "nothing is scaled here")]
mod altered;
mod collector;
#[path = "../mesh/metrics_api/direct.rs"]
#[expect(dead_code, reason = "no client is refused here")]
mod direct;
mod edges;
mod load;
mod monitoring;
#[path = "../monitoring/sources.rs"]
mod sources;
#[path = "../monitoring/thresholds.rs"]
mod thresholds;
mod traces;

use std::time::Duration;

/// From one state of the whole to the next, with patience for a busy machine.
const SOON: Duration = Duration::from_secs(90);

/// The URL of one of the test application's ports, by Service name.
fn url(service: &str, port: u16, path: &str) -> String {
    format!("http://{service}:{port}{path}")
}
