//! Updates that are no release: of a Deployment that is recreated, and restarts.

use std::{thread, time::Duration};

use e2e::harness::{Namespace, Outcome, Rollout};
use serde_json::json;

/// So long a restarted Deployment is looked at for a run that must not begin.
const LOOKED_AT: Duration = Duration::from_secs(5);

#[test]
fn restarted_deployment_begins_no_run_and_shuts_no_gate() -> Outcome {
    let rollout = Rollout::begin("release-restart", &json!({}))?;
    let callers = rollout.load(&[])?;
    rollout
        .ns
        .kubectl(&["rollout", "restart", "deployment/web"])?;
    rollout.ns.ready(&["web"])?;
    let status = rollout.await_phase("Idle")?;
    assert!(status["history"].is_null(), "{status}");
    thread::sleep(LOOKED_AT);
    let status = rollout.status()?;
    assert!(
        status["phase"] == "Idle" && status["history"].is_null(),
        "{status}"
    );
    let calls = callers.end()?;
    assert_eq!(calls.failed, 0, "{calls:?}");
    Ok(())
}

#[test]
fn release_of_recreated_deployment_is_not_accepted() -> Outcome {
    let ns = Namespace::meshed("release-recreate")?;
    let version = |version: &str| -> anyhow::Result<()> {
        let mut objects = Rollout::app(version).objects();
        for object in &mut objects {
            if object["kind"] == "Deployment" {
                object["spec"]["strategy"] = json!({"type": "Recreate"});
            }
        }
        ns.apply_all(&objects)?;
        ns.ready(&["web"])
    };
    version("v1")?;
    ns.apply_all(&[json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "CanaryRelease", "metadata": {"name": "web"},
        "spec": {"service": "web", "deployment": "web"},
    })])?;
    let condition = ns.await_condition("crel/web", "Accepted", "False")?;
    assert_eq!(condition["reason"], "UnsupportedStrategy", "{condition}");
    // An ordinary update: its pods become ready by themselves.
    version("v2")?;
    Ok(())
}
