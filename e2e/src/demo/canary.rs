//! The demo's release: version 2 of cart fails half of its calls, and the mesh takes it back.
//!
//! The version differs in one variable of the Deployment's template, as any bad version would:
//! its pods are well for every probe, and only the calls that they answer show what it does.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use super::{kept::Promise, link::Link, names::NAMESPACE, progress::Progress, shop};
use crate::harness::{Cluster, eventually};

const DEPLOYMENT: &str = "deployment/cart";
const RELEASE_PATH: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/canaryreleases/cart";
const DEPLOYMENT_PATH: &str = "/apis/apps/v1/namespaces/shop/deployments/cart";
const PODS_PATH: &str = "/api/v1/namespaces/shop/pods?labelSelector=app%3Dcart";
/// What version 2 has and version 1 has not. No probe asks for that path.
const VERSION_2: &str = r#"FAULT={"percent":50,"only":"/cart"}"#;
/// From one state to the next, with the start of a pod or its end.
const SETTLED: Duration = Duration::from_secs(60);
/// The promise. Most runs need five seconds: five calls in a second are at version 2.
const ROLLED_BACK: Duration = Duration::from_secs(30);
/// Between two looks.
const GLANCE: Duration = Duration::from_millis(200);

/// What became of version 2.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Released {
    /// Calls that its pod got, as its own proxy counted them, and those that it failed.
    pub calls: u64,
    pub failed: u64,
    /// From the first call that may have gone to it.
    pub after: Duration,
    /// Whether some pod of version 1 was ready at every look.
    pub stable_ready: bool,
    /// Whether `weft release status` showed the run, and then its end.
    pub shown: bool,
}

impl Released {
    /// The promise of the release.
    pub fn promise(&self) -> Promise {
        let ready = if self.stable_ready {
            "v1 stayed ready"
        } else {
            "v1 was not always ready"
        };
        Promise {
            what: "release",
            seen: format!(
                "v2 failed {} of {} calls, rolled back after {:.1} s; {ready}",
                self.failed,
                self.calls,
                self.after.as_secs_f64()
            ),
            kept: self.failed > 0 && self.after <= ROLLED_BACK && self.stable_ready && self.shown,
        }
    }

    /// Takes the counts of the last run in a release's status.
    fn count(&mut self, status: &Value) {
        let run = &status["history"][0];
        self.calls = run["requests"].as_u64().unwrap_or_default();
        self.failed = run["bad"].as_u64().unwrap_or_default();
    }
}

/// Releases version 2, waits until it is rolled back, and undoes it.
pub fn run(cluster: &Cluster, link: &Link, progress: Progress) -> anyhow::Result<Released> {
    let in_shop = |args: &[&str]| cluster.kubectl(&[&["-n", NAMESPACE], args].concat());
    progress.step("watching Deployment cart for releases", || {
        shop::apply(cluster, "release.yaml")?;
        eventually(SETTLED, "release cart is idle", || in_phase(link, "Idle"))
    })?;
    let released = progress.step("releasing cart v2, which fails half of its calls", || {
        in_shop(&["set", "env", DEPLOYMENT, "-c", "app", VERSION_2])?;
        until_rolled_back(cluster, link)
    })?;
    progress.step("undoing cart v2 with kubectl rollout undo", || {
        in_shop(&["rollout", "undo", DEPLOYMENT])?;
        eventually(SETTLED, "only version 1 is left", || {
            in_phase(link, "Idle")?;
            let pods = link.json(PODS_PATH)?;
            let pods = pods["items"].as_array().map_or(0, Vec::len);
            ensure!(pods == 1, "cart has {pods} pods");
            Ok(())
        })
    })?;
    Ok(released)
}

fn in_phase(link: &Link, phase: &str) -> anyhow::Result<()> {
    let release = link.json(RELEASE_PATH)?;
    let status = &release["status"];
    ensure!(status["phase"] == phase, "its status is {status}");
    Ok(())
}

fn until_rolled_back(cluster: &Cluster, link: &Link) -> anyhow::Result<Released> {
    let mut released = Released {
        stable_ready: true,
        ..Released::default()
    };
    let began = Instant::now();
    let mut called = None;
    loop {
        let deployment = link.json(DEPLOYMENT_PATH)?;
        let ready = deployment["status"]["readyReplicas"].as_u64();
        released.stable_ready &= ready.is_some_and(|ready| ready > 0);
        let release = link.json(RELEASE_PATH)?;
        let status = &release["status"];
        let weight = status["run"]["weight"].as_u64().unwrap_or_default();
        if status["phase"] == "RolledBack" {
            let called: Instant = called.context("version 2 was rolled back without a call")?;
            released.after = called.elapsed();
            released.count(status);
            released.shown &= show_status(cluster, "RolledBack")?;
            return Ok(released);
        }
        if status["phase"] == "Progressing" && weight > 0 && called.is_none() {
            called = Some(Instant::now());
            released.shown = show_status(cluster, "Progressing")?;
        }
        ensure!(
            began.elapsed() < SETTLED,
            "version 2 is not rolled back after {SETTLED:?}: {status}"
        );
        thread::sleep(GLANCE);
    }
}

/// Shows the release as a user sees it; whether it is in this phase still.
fn show_status(cluster: &Cluster, phase: &str) -> anyhow::Result<bool> {
    let words = ["release", "status", "cart", "-n", NAMESPACE];
    let answer = cluster.weft(&words)?;
    println!("\n$ weft {}\n{}", words.join(" "), answer.out.trim_end());
    // Exit status 1: it is not idle.
    let kept = answer.status == 1 && answer.out.contains(phase);
    if !kept {
        eprint!("{}", answer.err);
        println!(
            "BROKEN  `weft {}` ended with {}, or does not show {phase}",
            words.join(" "),
            answer.status
        );
    }
    Ok(kept)
}
