//! The chart's hooks: Jobs and rights that exist only while helm runs them.

use anyhow::Context as _;
use e2e::harness::Outcome;
use serde_json::{Value, json};

use super::{hook, of_kind, pods, rendered, template_output};

/// Names of the objects that helm makes before the chart goes, or for its test.
fn hooks(objects: &[Value]) -> Vec<String> {
    let hooks = objects
        .iter()
        .filter(|object| hook(object, "helm.sh/hook").is_some());
    hooks
        .map(|object| object["metadata"]["name"].to_string())
        .collect()
}

/// Pods that would take the mesh out of the cluster.
fn leaving(objects: &[Value]) -> Vec<String> {
    let pods = pods(objects).into_iter();
    let leaving = pods.filter(|(_, pod)| pod["containers"][0]["args"] == json!(["leave"]));
    leaving.map(|(name, _)| name).collect()
}

/// `helm template | kubectl apply` takes hooks for objects like any other: the uninstall
/// would begin with the installation.
// Claims: attack-106
#[test]
fn offline_rendering_contains_no_uninstall_or_test_hooks() -> Outcome {
    let (alone, seen) = (template_output(&[])?, rendered(&[])?);
    assert_eq!(leaving(&alone), [] as [&str; 0]);
    assert_eq!(hooks(&alone), [] as [&str; 0]);
    // Controls: nothing else is missing, and with a cluster all of it is there.
    assert_eq!(alone.len() + hooks(&seen).len(), seen.len());
    assert_eq!(of_kind(&alone, "Deployment").len(), 2);
    assert_eq!(leaving(&seen), ["weft-leave"]);
    assert!(hooks(&seen).len() > 8, "{:?}", hooks(&seen));
    Ok(())
}

/// A Job that has succeeded and stays makes each controller that starts step down.
// Claims: attack-106
#[test]
fn uninstall_job_expires_after_helm_has_read_it() -> Outcome {
    let objects = rendered(&[])?;
    let jobs = of_kind(&objects, "Job").into_iter();
    let mut jobs = jobs.filter(|job| job["metadata"]["name"] == "weft-leave");
    let spec = &jobs.next().context("no Job for the uninstall")?["spec"];
    let stays = spec["ttlSecondsAfterFinished"].as_u64();
    assert!(
        stays.is_some_and(|seconds| (300..=3600).contains(&seconds)),
        "{spec}"
    );
    Ok(())
}
