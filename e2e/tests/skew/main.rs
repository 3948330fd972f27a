//! This version of the mesh and an older one beside each other, as an upgrade and a rollback
//! leave them: proxies of one with controllers of the other, and with each other.
//!
//! Not part of `make test`: the older one is built from its sources for it. `make skew` makes
//! what these tests need, names it in the environment and runs them one after another; what
//! the two say to each other is tested in process by `serve/tests/older.rs` of the controller
//! and `control/tests/older.rs` of the proxy.

#[path = "../alone/altered.rs"]
#[expect(dead_code, reason = "nothing is scaled here")]
mod altered;
mod copies;
mod previous;
mod reported;
mod revocation;
mod rollback;
mod rotation;
mod routes;
mod shop;
mod upgrade;

use std::time::Duration;

/// From one state of the whole to the next, with patience for a busy machine: proxies come
/// back to other controllers, and those wait for all of them.
const SOON: Duration = Duration::from_secs(120);

/// The URL of one of the test application's ports, by Service name.
fn url(service: &str, port: u16, path: &str) -> String {
    format!("http://{service}:{port}{path}")
}
