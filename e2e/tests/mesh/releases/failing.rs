//! Versions that fail, are slower than the stable one, or never answer are rolled back, and no other
//! part of the cluster is.

use e2e::harness::{Outcome, Rollout, rollout::revision};
use serde_json::{Value, json};

use super::{RUN, harmed_little, steps};

/// Half of the calls fail, and no probe.
const HALF: &str = r#"{"percent": 50, "only": "/items"}"#;
/// The promise about slow ones: seconds from the first call to the last.
const SLOW_WITHIN: u64 = 15;

#[test]
fn failing_version_is_rolled_back_while_stable_stays_ready() -> Outcome {
    let rollout = Rollout::begin("release-fails", &steps())?;
    let callers = rollout.load(&[])?;
    rollout.deploy(&Rollout::app("v2").env("FAULT", HALF))?;
    let status = rollout.until_rolled_back(RUN)?;
    let candidate = revision(&status, "candidate")?;
    let arrived = rollout.arrivals(&candidate)?;
    let calls = callers.end()?;
    harmed_little(&arrived, &calls, 10);
    assert!(calls.failed > 0, "{calls:?}");
    assert_eq!(calls.failed, arrived.failed, "only v2 failed: {calls:?}");

    let last = &status["history"][0];
    assert_eq!(last["result"], "RolledBack", "{status}");
    let reason = last["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("errorRate"), "{status}");
    // Its pods stay, behind their gate.
    let pods = rollout.pods_of(&candidate)?;
    assert!(!pods.is_empty() && pods.iter().all(|pod| !pod.is_ready()));
    let weft = ["release", "status", "web", "-n", &rollout.ns.name];
    let shown = rollout.ns.cluster.weft(&weft)?.with_status(1)?;
    assert!(shown.out.contains("RolledBack"), "{shown:?}");
    let events = rollout.ns.kubectl(&["get", "events"])?;
    for object in ["canaryrelease/web", "deployment/web"] {
        let mut events = events.lines();
        let is_reported = events.any(|line| line.contains("RolledBack") && line.contains(object));
        assert!(is_reported, "no Event at {object}");
    }
    rollout.nothing_of_others_is_ours()?;

    rollout.ns.kubectl(&["rollout", "undo", "deployment/web"])?;
    rollout.await_phase("Idle")?;
    Ok(())
}

/// Releases a version with this fault, and returns the status with the rollback.
fn rolled_back(claim: &str, spec: &Value, fault: &str, args: &[&str]) -> anyhow::Result<Value> {
    let rollout = Rollout::begin(claim, spec)?;
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
    // Where tests run beside each other, the slowest hundredth of the stable calls takes as long.
    let mut spec = steps();
    spec["checks"] = json!({"latency": {"percentile": 90, "tolerance": "20%"}});
    let status = rolled_back("release-slow", &spec, fault, &[])?;
    let reason = status["history"][0]["reason"].as_str().unwrap_or_default();
    assert!(reason.starts_with("latency"), "{status}");
    Ok(())
}

/// Its calls end when their callers have waited long enough, so none of them counts as failed.
#[test]
fn version_that_never_answers_is_rolled_back() -> Outcome {
    let fault = r#"{"delay": "10m", "only": "/items"}"#;
    rolled_back(
        "release-hangs",
        &steps(),
        fault,
        &["--timeout", "2s", "-c", "20"],
    )?;
    Ok(())
}
