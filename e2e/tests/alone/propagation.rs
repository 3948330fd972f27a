//! From the write of a TrafficSplit until every proxy that needs it has it.

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, ensure};
use e2e::harness::{Api, App, Forward, Namespace, Outcome, Pod, app, eventually, mesh};
use serde_json::{Value, json};

use super::url;

const PODS: usize = 50;
const CHANGES: usize = 100;
/// Of the changes, how many must be everywhere within a second.
const WITHIN_A_SECOND: usize = 95;
const LONGEST: Duration = Duration::from_secs(5);
/// Between two looks at a change: looking costs the controllers time, so it starts when most
/// changes are everywhere. The controllers' own clock dates their arrival.
const BETWEEN_LOOKS: Duration = Duration::from_millis(250);
/// A change that takes longer than this is abandoned, and has failed.
const PATIENCE: Duration = Duration::from_secs(10);
/// Fifty pods on two processors.
const START: &str = "--timeout=300s";
/// First calls that are made at the same time.
const CALLERS: usize = 8;

// Claims: mesh-6
#[test]
fn hundred_split_changes_reach_fifty_proxies_within_second() -> Outcome {
    let ns = Namespace::meshed("propagation")?;
    for backend in ["stable", "canary"] {
        ns.apply_all(&App::new(backend).label("part", "shop").objects())?;
    }
    ns.apply_all(&[app::service("shop", &json!({"part": "shop"}))])?;
    weigh(&ns, 50)?;
    ns.apply_all(&fleet())?;
    ns.ready(&["stable", "canary"])?;
    ns.kubectl(&["rollout", "status", "deployment/fleet", START])?;
    let pods = ns.pods("fleet")?;
    assert_eq!(pods.len(), PODS);
    let mut nodes: Vec<&Value> = pods
        .iter()
        .map(|pod| &pod.object["spec"]["nodeName"])
        .collect();
    nodes.sort_by_key(|node| node.to_string());
    nodes.dedup();
    assert!(nodes.len() >= 3, "the pods are on {nodes:?} only");
    each_calls_the_root(&pods)?;

    let record = Record::open(&ns)?;
    eventually(Duration::from_secs(20), "all proxies are counted", || {
        let needed = record.entries(1)?;
        ensure!(
            needed.iter().all(|entry| entry["needed"] == PODS),
            "{needed:?}"
        );
        Ok(())
    })?;

    let mut took = Vec::with_capacity(CHANGES);
    for change in 0..CHANGES {
        // Never the weight that is set, which would be no change.
        took.push(record.time_change(1 + (change as i64 % 99))?);
    }
    // What was acknowledged is also what the proxies do.
    record.time_change(0)?;
    for pod in pods.iter().step_by(PODS / 5) {
        let seen = pod.get(&url("shop", 8080, "/"), &["-n", "20"])?;
        assert_eq!(seen.by_version.get("stable"), Some(&20), "{seen:?}");
    }
    judge(took)?;
    // What follows must not be timed beside fifty pods that end.
    ns.kubectl(&["delete", "deployment", "fleet"])?;
    ns.kubectl(&["wait", "--for=delete", "pod", "-l", "app=fleet", START])?;
    Ok(())
}

fn judge(mut took: Vec<Duration>) -> Outcome {
    took.sort_unstable();
    let at = |percent: usize| took[(CHANGES * percent).div_ceil(100).saturating_sub(1)];
    let quick = took.partition_point(|took| *took <= Duration::from_secs(1));
    println!(
        "{CHANGES} changes to {PODS} proxies: {quick} within 1 s; min {:?}, p50 {:?}, p90 {:?}, p95 {:?}, p99 {:?}, max {:?}",
        took[0],
        at(50),
        at(90),
        at(95),
        at(99),
        at(100)
    );
    assert!(
        quick >= WITHIN_A_SECOND,
        "only {quick} within 1 s: {took:?}"
    );
    assert!(at(100) <= LONGEST, "one took {:?}", at(100));
    Ok(())
}

/// Fifty small pods over all nodes.
fn fleet() -> Vec<Value> {
    let mut objects = App::new("fleet")
        .replicas(PODS as u32)
        .annotation("weft.dev/proxy-cpu-request", "1m")
        .annotation("weft.dev/proxy-memory-request", "1Mi")
        .readiness(Value::Null)
        .container(json!({"resources": {"requests": {"cpu": "1m", "memory": "1Mi"}}}))
        .objects();
    for object in &mut objects {
        if object["kind"] == "Deployment" {
            let spec = &mut object["spec"];
            spec["strategy"] = json!({"type": "Recreate"});
            // The test waits for the end of all of them.
            spec["template"]["spec"]["terminationGracePeriodSeconds"] = json!(1);
            spec["template"]["spec"]["topologySpreadConstraints"] = json!([{
                "maxSkew": 1, "topologyKey": "kubernetes.io/hostname",
                "whenUnsatisfiable": "ScheduleAnyway", "labelSelector": {"matchLabels": {"app": "fleet"}}}]);
        }
    }
    objects
}

fn each_calls_the_root(pods: &[Pod]) -> anyhow::Result<()> {
    let next = AtomicUsize::new(0);
    let call = || {
        while let Some(pod) = pods.get(next.fetch_add(1, Ordering::Relaxed)) {
            eventually(Duration::from_secs(20), "the root answers", || {
                pod.report(&url("shop", 8080, "/"), &[])
            })?;
        }
        Ok(())
    };
    thread::scope(|scope| {
        let callers: Vec<_> = (0..CALLERS).map(|_| scope.spawn(call)).collect();
        callers.into_iter().try_for_each(|caller| {
            caller
                .join()
                .map_err(|_| anyhow::anyhow!("a caller panicked"))?
        })
    })
}

fn weigh(ns: &Namespace, canary: i64) -> anyhow::Result<()> {
    ns.apply_all(&[
        json!({"apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
        "metadata": {"name": "shop"}, "spec": {"service": "shop", "backends": backends(canary)}}),
    ])
}

fn backends(canary: i64) -> Value {
    json!([{"service": "stable", "weight": 100 - canary}, {"service": "canary", "weight": canary}])
}

/// The controllers' records of acknowledgements, and the split that is changed.
struct Record {
    api: Api,
    namespace: String,
    /// By the controller's name. The record is shown on loopback only.
    controllers: Vec<(String, Forward)>,
}

impl Record {
    fn open(ns: &Namespace) -> anyhow::Result<Self> {
        let list = ns.cluster.json(&[
            "-n",
            mesh::NAMESPACE,
            "get",
            "pods",
            "-l",
            "app.kubernetes.io/component=controller",
            "--field-selector=status.phase=Running",
        ])?;
        let open = |name: &str| {
            let forward = Forward::open(&ns.cluster, mesh::NAMESPACE, name, 8080)?;
            Ok((name.to_owned(), forward))
        };
        let controllers: Vec<(String, Forward)> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .filter_map(|pod| pod["metadata"]["name"].as_str())
            .map(open)
            .collect::<anyhow::Result<_>>()?;
        ensure!(!controllers.is_empty(), "no controller runs");
        Ok(Self {
            api: Api::open(&ns.cluster)?,
            namespace: ns.name.clone(),
            controllers,
        })
    }

    /// What each controller has noted about one generation of the split. Each
    /// answers for all proxies, its peers' included.
    fn entries(&self, generation: i64) -> anyhow::Result<Vec<Value>> {
        let of = |(controller, forward): &(String, Forward)| {
            let record: Value = serde_json::from_str(&forward.get("/acks")?)?;
            record["acks"]
                .as_array()
                .into_iter()
                .flatten()
                .rev()
                .find(|entry| {
                    entry["kind"] == "TrafficSplit"
                        && entry["namespace"] == self.namespace
                        && entry["name"] == "shop"
                        && entry["generation"] == generation
                })
                .cloned()
                .with_context(|| format!("{controller} has not seen generation {generation}"))
        };
        self.controllers.iter().map(of).collect()
    }

    /// Writes a weight and waits until every controller knows that every proxy
    /// has it. From just before the write to the later of their times.
    fn time_change(&self, canary: i64) -> anyhow::Result<Duration> {
        let path = format!(
            "/apis/split.smi-spec.io/v1alpha4/namespaces/{}/trafficsplits/shop",
            self.namespace
        );
        let (written, start) = (SystemTime::now(), Instant::now());
        let object = self
            .api
            .merge(&path, &json!({"spec": {"backends": backends(canary)}}))?;
        let generation = object["metadata"]["generation"]
            .as_i64()
            .context("the split has no generation")?;
        let look = || {
            let entries = self.entries(generation)?;
            let times = entries.iter().map(|entry| {
                ensure!(entry["needed"] == PODS, "not all are counted: {entry}");
                entry["completeAt"]
                    .as_u64()
                    .with_context(|| format!("not complete: {entry}"))
            });
            let last = times
                .collect::<anyhow::Result<Vec<u64>>>()?
                .into_iter()
                .max();
            last.context("no controller")
        };
        let complete = loop {
            thread::sleep(BETWEEN_LOOKS);
            match look() {
                Ok(complete) => break UNIX_EPOCH + Duration::from_millis(complete),
                Err(error) if start.elapsed() > PATIENCE => {
                    return Err(error)
                        .with_context(|| format!("weight {canary} after {PATIENCE:?}"));
                }
                Err(_) => {}
            }
        };
        // The record is in whole milliseconds, so it may seem to be earlier.
        Ok(complete.duration_since(written).unwrap_or_default())
    }
}
