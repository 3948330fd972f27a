//! What ends the runs of experiments in the whole mesh: the kill switch, and the end of the
//! controllers.
//!
//! Bounds in seconds are five times those of the promise.

use std::time::{Duration, Instant};

use anyhow::ensure;
use e2e::harness::{Api, App, Cluster, Namespace, Outcome, Pod, controllers, eventually, settled};
use serde_json::{Value, json};

use super::{
    altered::{Altered, own_ready, scale},
    url,
};

/// Until a run harms: the look before it, and a busy machine.
const RUN: Duration = Duration::from_secs(120);
const RATE: u32 = 50;
const PODS: u32 = 4;
/// Far longer than from one harmed call of a pod to the next.
const NO_HARM: Duration = Duration::from_millis(1500);
/// From the kill switch, and from the end of all controllers, to the last harmed call.
const STOPPED: Duration = Duration::from_secs(5);
const ALONE: Duration = Duration::from_secs(20);

/// Takes the kill switch away, however the test ends.
struct Switch<'a>(&'a Cluster);

impl Drop for Switch<'_> {
    fn drop(&mut self) {
        let allowed = self.0.weft(&["fault", "allow", "--all"]);
        if let Err(error) = allowed.and_then(|output| output.with_status(0)) {
            eprintln!("experiments are still stopped: {error:#}");
        }
    }
}

/// Clients whose calls to `payments` a run harms.
struct Scene {
    ns: Namespace,
    api: Api,
    clients: Vec<Pod>,
}

impl Scene {
    fn begin() -> anyhow::Result<Self> {
        let ns = Namespace::meshed("faults-end")?;
        ns.annotate("weft.dev/faults", Some("allowed"))?;
        ns.run(&["payments"])?;
        let target = url("payments", 8080, "/pay");
        let clients = App::new("client")
            .replicas(PODS)
            .calling(&[(&target, RATE)]);
        ns.apply_all(&clients.objects())?;
        ns.ready(&["client"])?;
        ns.apply_all(&[json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "FaultExperiment",
            "metadata": {"name": "long"},
            "spec": {
                "targetRef": {"kind": "Service", "name": "payments"}, "share": "20%",
                "fault": {"abort": {"httpStatus": 500}}, "duration": "10m",
                "checks": [{"service": "payments", "errorRate": {"max": "90%"}}],
            },
        })])?;
        ns.await_condition("fexp/long", "Accepted", "True")?;
        Ok(Self {
            api: Api::open(&ns.cluster)?,
            clients: ns.pods("client")?,
            ns,
        })
    }

    fn start(&self) -> anyhow::Result<()> {
        let words = ["fault", "run", "long", "-n", &self.ns.name];
        self.ns.cluster.weft(&words)?.with_status(0)?;
        let before = self.harmed()?;
        eventually(RUN, "calls of every client are harmed", || {
            let now = self.harmed()?;
            let mut all = now.iter().zip(&before);
            ensure!(all.all(|(now, before)| now > before), "{now:?}");
            Ok(())
        })
    }

    fn harmed(&self) -> anyhow::Result<Vec<f64>> {
        self.api.sums(&self.clients, "weft_faults_total", &[])
    }

    fn ends(&self, since: Instant, within: Duration) -> anyhow::Result<()> {
        let (last, _) = settled(RUN, NO_HARM, || self.harmed())?;
        let took = last.saturating_duration_since(since);
        println!("the last call was harmed after {took:?}");
        ensure!(took <= within, "the last call was harmed after {took:?}");
        Ok(())
    }

    fn status(&self) -> anyhow::Result<Value> {
        Ok(self.ns.json(&["get", "fexp", "long"])?["status"].clone())
    }
}

#[test]
fn kill_switch_and_lost_controllers_end_every_run() -> Outcome {
    let altered = Altered::begin()?;
    let scene = Scene::begin()?;
    let cluster = &scene.ns.cluster;
    scene.start()?;
    let switch = Switch(cluster);
    let at = Instant::now();
    cluster.weft(&["fault", "stop", "--all"])?.with_status(0)?;
    scene.ends(at, STOPPED)?;
    eventually(RUN, "the run is stopped", || {
        let status = scene.status()?;
        ensure!(status["verdict"] == "Stopped", "{status}");
        Ok(())
    })?;
    drop(switch);

    // One holder less changes no verdict, and begins nothing anew.
    scene.start()?;
    controllers::kill(cluster, &[controllers::leader(cluster)?])?;
    own_ready(cluster)?;
    let number = scene.status()?["run"]["number"].clone();
    assert_eq!(number, 2, "{number}");

    if scene.status()?["phase"] != "Running" {
        scene.start()?;
    }
    let all = controllers::all(cluster)?.into_iter();
    let all: Vec<String> = all.map(|pod| pod.name).collect();
    // None takes their place: a run goes on with controllers that return at once.
    scale(cluster, &["deployment/weft-controller"], 0)?;
    let at = Instant::now();
    controllers::kill(cluster, &all)?;
    scene.ends(at, ALONE)?;
    altered.restore()?;
    Ok(())
}
