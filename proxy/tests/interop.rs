//! Clients and servers from other projects, through this proxy.
//!
//! The harness is e2e/interop, which needs root, and installs what is missing where it can. A row
//! that cannot run fails this test: the short form consists of programs that every machine with
//! tests must have.

// Helpers of tests are tests to us; clippy sees only functions marked so.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::process::{Command, Stdio};

/// What installing and building takes the first time, and then what the short form has for its
/// trials and keeps to by itself.
const PATIENCE: &str = "1200";

#[test]
fn foreign_clients_and_servers_work_through_two_proxies() {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../e2e/interop/run");
    let output = Command::new("timeout")
        .args(["--kill-after=10", PATIENCE, script, "--short", "--all"])
        .env("PROXY", env!("CARGO_BIN_EXE_weft-proxy"))
        .stdin(Stdio::null())
        .output()
        .expect("the program `timeout` (coreutils) is needed");
    assert!(
        output.status.success(),
        "{}:\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr),
    );
}
