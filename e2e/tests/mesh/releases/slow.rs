//! Versions that are slower than the stable one, or never answer, are rolled back.

use e2e::harness::{Outcome, Rollout, rollout::revision};
use serde_json::Value;

use super::{RUN, harmed_little, steps};

/// The promise: seconds from the first call to the last.
const SLOW_WITHIN: u64 = 15;

/// Releases a version with this fault, and returns the status with the rollback.
fn rolled_back(claim: &str, fault: &str, args: &[&str]) -> anyhow::Result<Value> {
    let rollout = Rollout::begin(claim, &steps())?;
    let callers = rollout.load(args)?;
    rollout.deploy(&Rollout::app("v2").env("FAULT", fault))?;
    let status = rollout.until_rolled_back(RUN)?;
    let arrived = rollout.arrivals(&revision(&status, "candidate")?)?;
    harmed_little(&arrived, &callers.end()?, SLOW_WITHIN);
    Ok(status)
}

#[test]
fn version_slower_by_200_ms_is_rolled_back() -> Outcome {
    let fault = r#"{"delay": "200ms", "only": "/items"}"#;
    let status = rolled_back("release-slow", fault, &[])?;
    let reason = status["history"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("latency"), "{status}");
    Ok(())
}

/// Its calls end when their callers have waited long enough, so none of them counts as failed.
#[test]
fn version_that_never_answers_is_rolled_back() -> Outcome {
    let fault = r#"{"delay": "10m", "only": "/items"}"#;
    rolled_back("release-hangs", fault, &["--timeout", "2s", "-c", "20"])?;
    Ok(())
}
