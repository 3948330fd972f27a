//! What happens beside a run: a third version, an undo, other numbers of pods, pods that go, and
//! the release itself that goes. No call fails by any of it.

use anyhow::Context as _;
use e2e::harness::{Outcome, Rollout, rollout::revision};
use serde_json::{Value, json};

/// One long step: what is changed meanwhile is changed within it.
fn long_step() -> Value {
    json!({"steps": [{"weight": 20, "duration": "10m"}], "minRequests": 0})
}

/// As `kubectl drain` has a pod leave.
fn evict(rollout: &Rollout, pod: &str) -> anyhow::Result<()> {
    let path = format!("/api/v1/namespaces/{}/pods/{pod}/eviction", rollout.ns.name);
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
        "metadata": {"name": pod, "namespace": rollout.ns.name}});
    rollout.api.create(&path, &eviction).map(drop)
}

#[test]
fn third_version_and_undo_end_run_without_failed_call() -> Outcome {
    let rollout = Rollout::begin("release-changes", &long_step())?;
    let callers = rollout.load(&[])?;
    rollout.deploy(&Rollout::app("v2"))?;
    let second = rollout.await_candidate_after("")?;
    rollout.deploy(&Rollout::app("v3"))?;
    let third = rollout.await_candidate_after(&second)?;
    let status = rollout.await_result("Superseded")?;
    assert_eq!(
        status["history"][0]["revision"],
        second.as_str(),
        "{status}"
    );
    rollout.deploy(&Rollout::app("v1"))?;
    let status = rollout.await_result("Aborted")?;
    assert_eq!(status["history"][0]["revision"], third.as_str(), "{status}");
    rollout.await_phase("Idle")?;
    let calls = callers.end()?;
    assert_eq!(calls.failed, 0, "{calls:?}");
    Ok(())
}

/// The version, with two pods more than there are replicas: of a candidate that is without any pod
/// for ten seconds nothing can be known, and it is rolled back.
fn with_two_more(version: &str) -> Vec<Value> {
    let mut objects = Rollout::app(version).objects();
    for object in &mut objects {
        if object["kind"] == "Deployment" {
            object["spec"]["strategy"]["rollingUpdate"]["maxSurge"] = json!(2);
        }
    }
    objects
}

/// Waits until so many pods of a set serve in the step.
fn serve(rollout: &Rollout, set: &str, pods: u64) -> anyhow::Result<Value> {
    rollout.await_status(&format!("{pods} pods are {set}"), |status| {
        status["phase"] == "Progressing" && status[set]["pods"].as_u64() >= Some(pods)
    })
}

#[test]
fn scaling_lost_pods_and_deletion_fail_no_call() -> Outcome {
    let rollout = Rollout::begin("release-pods", &long_step())?;
    let callers = rollout.load(&[])?;
    rollout.ns.apply_all(&with_two_more("v2"))?;
    let candidate = rollout.await_candidate_after("")?;
    let scale = |replicas: u32| {
        let replicas = format!("--replicas={replicas}");
        rollout.ns.kubectl(&["scale", "deployment/web", &replicas])
    };
    scale(5)?;
    serve(&rollout, "stable", 4)?;
    scale(3)?;
    for (set, pods) in [("candidate", 2), ("stable", 3)] {
        let status = serve(&rollout, set, pods)?;
        let lost = rollout.pods_of(&revision(&status, set)?)?;
        let lost = lost.first().context("the set has no pod")?;
        evict(&rollout, &lost.name)?;
        serve(&rollout, set, pods)?;
    }
    let status = rollout.status()?;
    let still = revision(&status, "candidate")?;
    assert_eq!(still, candidate, "{status}");
    assert!(status["history"].is_null(), "{status}");
    rollout.ns.kubectl(&["delete", "crel", "web"])?;
    rollout.ns.ready(&["web"])?;
    let calls = callers.end()?;
    assert_eq!(calls.failed, 0, "{calls:?}");
    assert!(calls.by_version.get("v2") > Some(&0), "{calls:?}");
    Ok(())
}
