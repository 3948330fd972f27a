//! CanaryReleases in a real cluster: new versions get their calls step by step, bad ones are taken
//! back, and nothing else of the cluster is touched.
//!
//! Bounds in seconds and in calls are five times those of the promise.

mod changes;
mod failing;
mod good;
mod held;
mod ordinary;

use std::time::Duration;

use e2e::harness::rollout::{Arrivals, Calls};
use serde_json::{Value, json};

/// Of a test that looks at a whole run.
const RUN: Duration = Duration::from_secs(180);

/// Two steps of ten seconds.
fn steps() -> Value {
    json!({
        "steps": [{"weight": 5, "duration": "10s"}, {"weight": 20, "duration": "10s"}],
        "minRequests": 30,
    })
}

/// The promise about a bad version: `seconds` from the first to the last call, and 40 calls that
/// fail at their callers.
#[track_caller]
fn harmed_little(arrived: &Arrivals, calls: &Calls, seconds: u64) {
    println!(
        "{} calls in {:?}, {} failed of {}",
        arrived.calls, arrived.between, calls.failed, calls.planned
    );
    assert!(arrived.calls > 0, "no call at the new version");
    assert!(
        arrived.between <= 5 * Duration::from_secs(seconds),
        "{arrived:?}"
    );
    assert!(calls.failed <= 5 * 40, "{calls:?}");
}
