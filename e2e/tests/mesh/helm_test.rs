//! The chart's own test: it has a namespace of its own, and changes nothing of others.
//!
//! Claims: mesh-20

use std::time::Duration;

use anyhow::ensure;
use e2e::harness::{Cluster, Outcome, eventually, mesh};

/// Until its namespace goes.
const REMOVED: Duration = Duration::from_secs(30);

#[test]
fn chart_proves_itself_with_a_request_through_two_proxies() -> Outcome {
    mesh::installed()?;
    let cluster = Cluster::connect()?;
    let output = cluster.helm(&["test", "weft", "-n", mesh::NAMESPACE, "--timeout", "3m"])?;
    assert!(output.contains("Succeeded"), "{output}");
    eventually(REMOVED, "the test's namespace is removed", || {
        let left = cluster.kubectl(&["get", "namespace", "weft-test", "--ignore-not-found"])?;
        ensure!(left.is_empty() || left.contains("Terminating"), "{left}");
        Ok(())
    })?;
    Ok(())
}
