//! How long the Job that runs before the chart is deleted may take.

use anyhow::Context as _;
use e2e::harness::Outcome;

use super::{of_kind, rendered};

/// Helm's own, where `--timeout` says nothing else.
const HELM_WAITS: u64 = 300;

/// What a Job does after helm has given up, it does to a mesh that stays.
// Claims: attack-97
#[test]
fn job_of_the_uninstall_fails_before_helm_gives_up() -> Outcome {
    let objects = rendered(&[])?;
    let jobs = of_kind(&objects, "Job").into_iter();
    let mut jobs = jobs.filter(|job| job["metadata"]["name"] == "weft-leave");
    let spec = &jobs.next().context("no Job for the uninstall")?["spec"];
    let within = spec["activeDeadlineSeconds"].as_u64();
    // Roles and the pod's start take their time, too.
    assert!(
        within.is_some_and(|within| within + 30 < HELM_WAITS),
        "{spec}"
    );
    Ok(())
}
