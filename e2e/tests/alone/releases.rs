//! Releases while controllers are killed, and when the mesh is removed.
//!
//! Bounds in seconds are five times those of the promise.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::harness::{
    Cluster, Outcome, Rollout, controllers, eventually,
    rollout::{SETTLED, revision},
};
use serde_json::{Value, json};

use super::{
    altered::{Altered, own_ready},
    lifecycle::uninstall,
};

/// The promises: so soon after its holder was killed a run is led again, and so soon after that a
/// version that has turned bad is rolled back.
const LED_WITHIN: Duration = Duration::from_secs(5 * 20);
const ROLLED_BACK_WITHIN: Duration = Duration::from_secs(5 * 10);

/// A run in its first step, of ten minutes.
fn in_first_step(claim: &str) -> anyhow::Result<(Rollout, String)> {
    let steps = json!({"steps": [{"weight": 20, "duration": "10m"}], "minRequests": 30});
    let rollout = Rollout::begin(claim, &steps)?;
    rollout.deploy(&Rollout::app("v2"))?;
    let candidate = rollout.await_candidate_after("")?;
    Ok((rollout, candidate))
}

/// Step and number of the run, and its candidate.
fn place(status: &Value) -> [Value; 3] {
    let run = &status["run"];
    [
        &run["number"],
        &run["step"],
        &status["candidate"]["revision"],
    ]
    .map(Value::clone)
}

/// Waits until a controller that is none of these leads.
fn led_by_another(cluster: &Cluster, before: &[String]) -> anyhow::Result<Instant> {
    eventually(LED_WITHIN, "another controller leads", || {
        let leader = controllers::leader(cluster)?;
        ensure!(!before.contains(&leader), "{leader} holds the Lease");
        Ok(Instant::now())
    })
}

#[test]
fn killed_holder_leaves_run_at_same_step() -> Outcome {
    let (rollout, _) = in_first_step("release-holder")?;
    let cluster = &rollout.ns.cluster;
    let altered = Altered::begin()?;
    let callers = rollout.load(&[])?;
    let before = place(&rollout.status()?);
    let holder = controllers::leader(cluster)?;
    let killed = Instant::now();
    controllers::kill(cluster, &[holder])?;
    // What is carried out shows that the run is led.
    let words = ["release", "pause", "web", "-n", &rollout.ns.name];
    cluster.weft(&words)?.with_status(0)?;
    eventually(LED_WITHIN, "the run is paused by its next holder", || {
        let status = rollout.status()?;
        ensure!(status["phase"] == "Paused", "{status}");
        Ok(())
    })?;
    println!("led again after {:?}", killed.elapsed());
    let status = rollout.status()?;
    assert_eq!(place(&status), before, "{status}");
    assert!(status["history"].is_null(), "{status}");
    let calls = callers.end()?;
    assert_eq!(calls.failed, 0, "{calls:?}");
    own_ready(cluster)?;
    altered.nothing_to_restore();
    Ok(())
}

#[test]
fn version_turned_bad_without_controllers_is_rolled_back() -> Outcome {
    let (rollout, candidate) = in_first_step("release-away")?;
    let cluster = &rollout.ns.cluster;
    let altered = Altered::begin()?;
    let callers = rollout.load(&[])?;
    let all = controllers::all(cluster)?.into_iter();
    let all: Vec<String> = all.map(|pod| pod.name).collect();
    controllers::kill(cluster, &all)?;
    let wrong = json!({"percent": 50, "only": "/items"});
    for pod in rollout.pods_of(&candidate)? {
        rollout.api.set_fault(&pod, &wrong)?;
    }
    let led = led_by_another(cluster, &all)?;
    eventually(ROLLED_BACK_WITHIN, "the bad version is rolled back", || {
        let status = rollout.status()?;
        ensure!(status["phase"] == "RolledBack", "{status}");
        Ok(())
    })?;
    println!("rolled back {:?} after one led", led.elapsed());
    callers.end()?;
    own_ready(cluster)?;
    altered.nothing_to_restore();
    Ok(())
}

#[test]
fn uninstall_opens_gates_of_run_under_way() -> Outcome {
    let (rollout, candidate) = in_first_step("release-uninstall")?;
    let cluster = &rollout.ns.cluster;
    let altered = Altered::begin()?;
    let shut = rollout.pods_of(&candidate)?;
    ensure_shut(&shut)?;
    let callers = rollout.load(&[])?;
    uninstall(cluster)?;
    eventually(SETTLED, "the pods of the new version are ready", || {
        let pods = rollout.pods_of(&candidate)?;
        let ready = pods.iter().filter(|pod| pod.is_ready()).count();
        ensure!(ready >= shut.len(), "{ready} of {} are ready", pods.len());
        Ok(())
    })?;
    rollout.ns.ready(&["web"])?;
    let calls = callers.end()?;
    assert_eq!(calls.failed, 0, "{calls:?}");
    altered.restore()?;
    // What was v2 is the stable revision of the new installation.
    let status = rollout.await_phase("Idle")?;
    assert_eq!(revision(&status, "stable")?, candidate, "{status}");
    Ok(())
}

fn ensure_shut(pods: &[e2e::harness::Pod]) -> anyhow::Result<()> {
    ensure!(!pods.is_empty(), "the new version has no pod");
    let open = pods.iter().find(|pod| pod.is_ready());
    ensure!(open.is_none(), "a gate is open: {open:?}");
    Ok(())
}
