//! Runs that wait: for a command, or for calls that do not come. What waits may still be rolled
//! back, and no forged name or status moves it.

use anyhow::ensure;
use e2e::harness::{Namespace, Outcome, Rollout, eventually, rollout::SETTLED};
use serde_json::{Value, json};

use super::RUN;

/// The controller, as the API server knows it.
const CONTROLLER: &str = "--as=system:serviceaccount:weft-system:weft-controller";

#[test]
fn paused_run_is_rolled_back_when_version_turns_bad() -> Outcome {
    let steps = json!({"steps": [{"weight": 20, "duration": "5s", "pause": true}, {"weight": 50}],
        "minRequests": 30});
    let rollout = Rollout::begin("release-paused", &steps)?;
    let callers = rollout.load(&[])?;
    rollout.deploy(&Rollout::app("v2"))?;
    let status = rollout.await_phase("Paused")?;
    let candidate = e2e::harness::rollout::revision(&status, "candidate")?;
    let wrong = json!({"percent": 50, "only": "/items"});
    for pod in rollout.pods_of(&candidate)? {
        rollout.api.set_fault(&pod, &wrong)?;
    }
    rollout.until_rolled_back(RUN)?;
    callers.end()?;
    Ok(())
}

fn weft(rollout: &Rollout, verb: &str) -> anyhow::Result<()> {
    let words = ["release", verb, "web", "-n", &rollout.ns.name];
    rollout.ns.cluster.weft(&words)?.with_status(0).map(drop)
}

fn has_event(rollout: &Rollout, reason: &str) -> anyhow::Result<()> {
    eventually(SETTLED, "there is an Event", || {
        let selector = format!("--field-selector=reason={reason}");
        let events = rollout
            .ns
            .kubectl(&["get", "events", &selector, "-o", "name"])?;
        ensure!(!events.is_empty(), "no Event {reason}");
        Ok(())
    })
}

#[test]
fn run_without_calls_waits_until_user_promotes_it() -> Outcome {
    let steps = json!({"steps": [{"weight": 20, "duration": "2s"}]});
    let rollout = Rollout::begin("release-silent", &steps)?;
    rollout.deploy(&Rollout::app("v2"))?;
    rollout.await_candidate_after("")?;
    has_event(&rollout, "NotEnoughRequests")?;
    assert_eq!(rollout.status()?["phase"], "Progressing");
    // A command of long ago is ignored.
    let old = "weft.dev/command=promote@2026-01-01T00:00:00Z";
    rollout.ns.kubectl(&["annotate", "crel/web", old])?;
    has_event(&rollout, "CommandIgnored")?;
    assert_eq!(rollout.status()?["phase"], "Progressing");
    weft(&rollout, "promote")?;
    let status = rollout.await_result("Promoted")?;
    assert_eq!(status["history"][0]["by"], "weft", "{status}");
    let release = rollout.ns.json(&["get", "crel", "web"])?;
    let command = &release["metadata"]["annotations"]["weft.dev/command"];
    assert!(command.is_null(), "it is carried out and stays: {command}");
    Ok(())
}

/// Why something was not taken.
fn refusal(outcome: anyhow::Result<impl std::fmt::Debug>) -> anyhow::Result<String> {
    match outcome {
        Ok(taken) => anyhow::bail!("it was taken: {taken:?}"),
        Err(error) => Ok(format!("{error:#}")),
    }
}

/// A user with ClusterRole `edit` may write releases, and no status of them or of pods.
fn editor_may_write_no_status(ns: &Namespace) -> anyhow::Result<()> {
    let editor = ["--clusterrole=edit", "--user=tenant"];
    ns.kubectl(&[&["create", "rolebinding", "tenant"], &editor[..]].concat())?;
    let may_patch = |resource: &str, subresource: &str| {
        let words = ["--as=tenant", "auth", "can-i", "patch", resource];
        let part = format!("--subresource={subresource}");
        ns.kubectl(&[&words[..], &[part.as_str()]].concat())
    };
    let releases = "canaryreleases.weft.dev";
    eventually(SETTLED, "the editor may write releases", || {
        may_patch(releases, "")
    })?;
    for resource in [releases, "pods"] {
        refusal(may_patch(resource, "status"))?;
    }
    Ok(())
}

#[test]
fn forged_backend_name_and_pod_status_are_refused() -> Outcome {
    let steps = json!({"steps": [{"weight": 20, "duration": "10m"}]});
    let rollout = Rollout::begin("release-forged", &steps)?;
    rollout.deploy(&Rollout::app("v2"))?;
    let candidate = rollout.await_candidate_after("")?;
    let split = json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": "forged"}, "spec": {"service": "web",
        "backends": [{"service": "web@candidate", "weight": 1}]}});
    refusal(rollout.ns.apply_all(&[split]))?;

    // Even the controller's own account may set that one condition alone.
    let pods = rollout.pods_of(&candidate)?;
    let Some(pod) = pods.first() else {
        panic!("the candidate has no pod");
    };
    // By server-side apply, since `kubectl patch` reads the status first, which the account may not.
    let write = |condition: &Value| {
        let object = json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": pod.name},
            "status": {"conditions": [condition]}});
        let how = [
            "--server-side",
            "--force-conflicts",
            "--subresource=status",
            "--validate=false",
            CONTROLLER,
        ];
        let ns = &rollout.ns;
        ns.cluster.apply_with(&ns.name, &how, &object.to_string())
    };
    let forged = json!({"type": "Ready", "status": "True"});
    let why = refusal(write(&forged))?;
    assert!(why.contains("weft-pod-status"), "{why}");
    write(&json!({"type": "weft.dev/released", "status": "False"}))?;
    let image = json!({"spec": {"containers": [{"name": "app", "image": "evil"}]}}).to_string();
    let words = ["patch", "pod", &pod.name, CONTROLLER, "-p", &image];
    let why = refusal(rollout.ns.kubectl(&words))?;
    assert!(why.contains("forbidden"), "{why}");
    editor_may_write_no_status(&rollout.ns)?;
    assert_eq!(rollout.status()?["phase"], "Progressing");
    Ok(())
}
