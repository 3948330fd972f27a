//! A good version is promoted without a failed call, and other tools see an ordinary rollout.

use std::fs;

use anyhow::ensure;
use e2e::harness::{App, Namespace, Outcome, Pod, Rollout, eventually, rollout::PODS};
use serde_json::{Value, json};

use super::{RUN, steps};

/// Calls of a caller outside the mesh in one look: of Ready pods alone it gets none of v2.
const LOOK: &str = "30";

/// Whether a caller outside the mesh reached the new version.
fn reaches_v2(caller: &Pod, url: &str) -> anyhow::Result<bool> {
    let seen = caller.get(url, &["-n", LOOK])?;
    ensure!(seen.by_status.get("200") == Some(&seen.planned), "{seen:?}");
    Ok(seen.by_version.contains_key("v2"))
}

fn in_step(status: &Value) -> bool {
    status["phase"] == "Progressing"
}

#[test]
fn good_version_is_promoted_and_no_call_fails() -> Outcome {
    let rollout = Rollout::begin("release-good", &steps())?;
    let outside = Namespace::unmeshed("release-outside")?;
    outside.run(&["client"])?;
    let (caller, url) = (outside.pod("client")?, rollout.url_from_elsewhere());
    let callers = rollout.load(&[])?;
    rollout.deploy(&Rollout::app("v2"))?;

    rollout.await_status("the new version gets calls", in_step)?;
    let mut looks = 0;
    loop {
        let reached = reaches_v2(&caller, &url)?;
        // Only while the step lasted all the time it says something.
        if !in_step(&rollout.status()?) {
            break;
        }
        assert!(!reached, "a caller outside the mesh is at v2");
        looks += 1;
    }
    assert!(looks > 0, "no look was in a step");
    let limit = format!("--timeout={}s", RUN.as_secs());
    let words = ["rollout", "status", "deployment/web", &limit];
    rollout.ns.kubectl(&words)?;
    let status = rollout.await_result("Promoted")?;
    assert_eq!(status["history"][0]["bad"].as_u64().unwrap_or_default(), 0);
    let status = rollout.await_phase("Idle")?;
    let stable = status["stable"]["revision"].as_str().unwrap_or_default();
    let pods = rollout.pods_of(stable)?;
    assert_eq!(pods.len() as u64, u64::from(PODS), "{status}");
    assert!(reaches_v2(&caller, &url)?);
    let calls = callers.end()?;
    assert_eq!(calls.failed, 0, "{calls:?}");
    assert!(calls.by_version.get("v2") > Some(&0), "{calls:?}");
    rollout.nothing_of_others_is_ours()?;
    Ok(())
}

/// The Deployment as a chart.
fn chart(version: &str) -> anyhow::Result<tempfile::TempDir> {
    let folder = tempfile::tempdir()?;
    fs::write(
        folder.path().join("Chart.yaml"),
        "apiVersion: v2\nname: shop\nversion: 0.1.0\n",
    )?;
    let templates = folder.path().join("templates");
    fs::create_dir(&templates)?;
    let objects = App::new("helmed").replicas(2).version(version).objects();
    for (at, object) in objects.iter().enumerate() {
        fs::write(templates.join(format!("{at}.yaml")), object.to_string())?;
    }
    Ok(folder)
}

#[test]
fn helm_wait_returns_when_release_is_promoted() -> Outcome {
    let ns = Namespace::meshed("release-helm")?;
    let upgrade = |version: &str| -> anyhow::Result<()> {
        let folder = chart(version)?;
        let path = folder.path().to_string_lossy().into_owned();
        let words = ["upgrade", "--install", "shop", &path, "-n", &ns.name];
        let wait = ["--wait", "--timeout", "3m"];
        ns.cluster.helm(&[&words[..], &wait].concat()).map(drop)
    };
    upgrade("v1")?;
    // Without a request a step ends by its time alone.
    ns.apply_all(&[json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "CanaryRelease", "metadata": {"name": "helmed"},
        "spec": {"service": "helmed", "deployment": "helmed", "minRequests": 0,
            "checks": {"latency": {"percentile": 0}}, "steps": [{"weight": 50, "duration": "5s"}]},
    })])?;
    let released = |result: &str| -> anyhow::Result<()> {
        let release = ns.json(&["get", "crel", "helmed"])?;
        let status = &release["status"];
        let last = &status["history"][0]["result"];
        ensure!(status["phase"] == "Idle", "{status}");
        ensure!(last.as_str().unwrap_or_default() == result, "{status}");
        Ok(())
    };
    eventually(RUN, "the release is idle", || released(""))?;
    upgrade("v2")?;
    eventually(RUN, "v2 is promoted", || released("Promoted"))?;
    let pod = ns.pod("helmed")?;
    assert!(pod.is_ready(), "{}", pod.object["status"]);
    Ok(())
}
