//! What happens beside a run: a third version, an undo, other numbers of pods, pods that go, and
//! the release itself that goes. No call fails by any of it.

use anyhow::ensure;
use e2e::harness::{Outcome, Rollout, eventually, rollout::SETTLED};
use serde_json::json;

/// One long step: what is changed meanwhile is changed within it.
fn long_step() -> serde_json::Value {
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

#[test]
fn scaling_lost_pods_and_deletion_fail_no_call() -> Outcome {
    let rollout = Rollout::begin("release-pods", &long_step())?;
    let callers = rollout.load(&[])?;
    rollout.deploy(&Rollout::app("v2"))?;
    let candidate = rollout.await_candidate_after("")?;
    let scale = |replicas: u32| {
        let replicas = format!("--replicas={replicas}");
        rollout.ns.kubectl(&["scale", "deployment/web", &replicas])
    };
    scale(5)?;
    eventually(
        SETTLED,
        "there are more pods of the stable revision",
        || {
            let status = rollout.status()?;
            let stable = status["stable"]["pods"].as_u64();
            ensure!(stable > Some(3), "{status}");
            Ok(())
        },
    )?;
    scale(3)?;
    // The candidate is without a pod for a moment, and its weight with it.
    for set in ["candidate", "stable"] {
        let status = rollout.status()?;
        let of = e2e::harness::rollout::revision(&status, set)?;
        let lost = rollout.pods_of(&of)?.into_iter().next();
        if let Some(lost) = lost {
            evict(&rollout, &lost.name)?;
        }
        eventually(SETTLED, "the pod is replaced", || {
            let status = rollout.status()?;
            ensure!(status["phase"] == "Progressing", "{status}");
            ensure!(status[set]["pods"].as_u64() > Some(0), "{status}");
            Ok(())
        })?;
    }
    let status = rollout.status()?;
    assert_eq!(
        status["candidate"]["revision"],
        candidate.as_str(),
        "{status}"
    );
    rollout.ns.kubectl(&["delete", "crel", "web"])?;
    rollout.ns.ready(&["web"])?;
    let calls = callers.end()?;
    assert_eq!(calls.failed, 0, "{calls:?}");
    assert!(calls.by_version.get("v2") > Some(&0), "{calls:?}");
    Ok(())
}
