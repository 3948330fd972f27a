//! A test of a lower tier, run by itself for what it prints.

use std::process::{Command, Stdio};

use anyhow::Context as _;

use crate::harness::cluster::root;

/// The test's output, and whether it passed. `target`: cargo's arguments that locate it.
pub fn proof(target: &[&str], test: &str) -> anyhow::Result<(String, bool)> {
    // Of the packages that all tiers are built of (e2e/cluster/lib/cargo.sh): one package
    // alone has other features of the same dependencies, and they would compile once more.
    let output = Command::new("cargo")
        .args(["test", "-q", "--workspace", "--exclude", "bench"])
        .args(target)
        .args(["--", test, "--exact", "--nocapture"])
        .current_dir(root())
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run the test {test}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    // A filter that fits no test also ends with success.
    let ran = text.contains("test result: ok. 1 passed");
    Ok((text, output.status.success() && ran))
}
