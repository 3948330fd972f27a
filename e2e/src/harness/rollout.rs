//! A Deployment under a CanaryRelease, with callers: what tests of releases begin with, and what
//! they see of a new version.
//!
//! Calls are counted where they arrive, by the application itself, and where they are made. No
//! proxy retries, so what fails at a pod fails at its caller.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::{Value, json};

use super::{Api, App, Load, Namespace, Pod, UNTIL_ENDED, eventually};
use crate::echo::{load::Summary, request_log, request_log::LogSnapshot};

/// Release, Service and Deployment have one name.
pub const NAME: &str = "web";
/// Pods of the Deployment.
pub const PODS: u32 = 3;
/// Callers, and what each of them sends in a second: a hundred together.
const CALLERS: u32 = 3;
const RATE: &str = "34";
const ITEMS: &str = "/items";
/// The conformance port for callers outside the mesh: it has the log of requests.
const OUTSIDE_CALL: u16 = 9092;
/// From one state to the next: pods start and end, steps of seconds pass.
pub const SETTLED: Duration = Duration::from_secs(120);
/// So long a version that was rolled back gets no call.
const STILL: Duration = Duration::from_secs(5);
/// Between two looks.
const GLANCE: Duration = Duration::from_millis(200);

/// A namespace with Deployment, release and callers.
#[derive(Debug)]
pub struct Rollout {
    pub ns: Namespace,
    pub api: Api,
}

/// Calls that arrived at the pods of one revision.
#[derive(Clone, Debug, Default)]
pub struct Arrivals {
    pub calls: u64,
    /// Answered with 500 or more.
    pub failed: u64,
    /// From the first to the last.
    pub between: Duration,
}

/// The loads of all callers.
#[derive(Debug)]
pub struct Callers(Vec<Load>);

/// What became of the calls of all callers.
#[derive(Clone, Debug, Default)]
pub struct Calls {
    pub planned: u64,
    /// Not answered with 200.
    pub failed: u64,
    pub by_version: BTreeMap<String, u64>,
    /// For messages.
    pub summaries: Vec<Summary>,
}

impl Rollout {
    /// Version 1 runs, and a release with these fields is idle. `fields`: of its spec, beside
    /// Service and Deployment.
    pub fn begin(claim: &str, fields: &Value) -> anyhow::Result<Self> {
        let ns = Namespace::meshed(claim)?.without_retries()?;
        let api = Api::open(&ns.cluster)?;
        let rollout = Self { ns, api };
        let mut objects = Self::app("v1").objects();
        objects.extend(App::new("client").replicas(CALLERS).objects());
        rollout.ns.apply_all(&objects)?;
        rollout.ns.ready(&[NAME, "client"])?;
        rollout.release(fields)?;
        rollout.await_phase("Idle")?;
        Ok(rollout)
    }

    /// A version of the Deployment.
    pub fn app(version: &str) -> App {
        App::new(NAME).replicas(PODS).version(version)
    }

    /// Writes the release.
    pub fn release(&self, fields: &Value) -> anyhow::Result<()> {
        let mut spec = json!({"service": NAME, "deployment": NAME});
        for (field, value) in fields.as_object().into_iter().flatten() {
            spec[field] = value.clone();
        }
        self.ns.apply_all(&[json!({
            "apiVersion": "weft.dev/v1alpha1", "kind": "CanaryRelease",
            "metadata": {"name": NAME}, "spec": spec,
        })])
    }

    /// Applies a version of the Deployment.
    pub fn deploy(&self, app: &App) -> anyhow::Result<()> {
        self.ns.apply_all(&app.objects())
    }

    /// The status of the release.
    pub fn status(&self) -> anyhow::Result<Value> {
        let path = format!(
            "/apis/weft.dev/v1alpha1/namespaces/{}/canaryreleases/{NAME}",
            self.ns.name
        );
        Ok(self.api.read(&path)?["status"].clone())
    }

    /// Waits for a status.
    pub fn await_status(&self, what: &str, fits: impl Fn(&Value) -> bool) -> anyhow::Result<Value> {
        eventually(SETTLED, what, || {
            let status = self.status()?;
            ensure!(fits(&status), "the status is {status}");
            Ok(status)
        })
    }

    /// Waits for a phase.
    pub fn await_phase(&self, phase: &str) -> anyhow::Result<Value> {
        self.await_status(&format!("the release is {phase}"), |status| {
            status["phase"] == phase
        })
    }

    /// Waits until the newest run of the history has this result.
    pub fn await_result(&self, result: &str) -> anyhow::Result<Value> {
        self.await_status(&format!("the last run is {result}"), |status| {
            status["history"][0]["result"] == result
        })
    }

    /// Waits until another candidate than this revision is in a step.
    pub fn await_candidate_after(&self, before: &str) -> anyhow::Result<String> {
        let status = self.await_status("a new candidate is in a step", |status| {
            let candidate = &status["candidate"]["revision"];
            status["phase"] == "Progressing"
                && status["run"]["step"].as_u64().is_some_and(|step| step > 0)
                && candidate
                    .as_str()
                    .is_some_and(|candidate| candidate != before)
        })?;
        revision(&status, "candidate")
    }

    /// Waits until a new version is rolled back and has got no call for a while. At every look
    /// all pods of the stable revision must be ready.
    pub fn until_rolled_back(&self, limit: Duration) -> anyhow::Result<Value> {
        let began = Instant::now();
        let mut since = None;
        loop {
            let status = self.status()?;
            self.stable_is_ready(&status)?;
            if status["phase"] == "RolledBack"
                && since.get_or_insert_with(Instant::now).elapsed() >= STILL
            {
                return Ok(status);
            }
            ensure!(
                began.elapsed() < limit,
                "not rolled back after {limit:?}: {status}"
            );
            thread::sleep(GLANCE);
        }
    }

    fn stable_is_ready(&self, status: &Value) -> anyhow::Result<()> {
        let pods = self.pods_of(&revision(status, "stable")?)?;
        let ready = pods.iter().filter(|pod| pod.is_ready()).count();
        ensure!(
            u32::try_from(ready)? >= PODS,
            "only {ready} pods of the stable revision are ready: {status}"
        );
        Ok(())
    }

    /// The pods of one revision that are not being deleted.
    pub fn pods_of(&self, revision: &str) -> anyhow::Result<Vec<Pod>> {
        let path = format!(
            "/api/v1/namespaces/{}/pods?labelSelector=app%3D{NAME},pod-template-hash%3D{revision}",
            self.ns.name
        );
        let list = self.api.read(&path)?;
        let pods = list["items"].as_array().into_iter().flatten();
        let pods = pods.filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        let pods = pods.map(|pod| Pod::listed(&self.ns.cluster, &self.ns.name, pod));
        Ok(pods.collect())
    }

    /// Calls that the pods of a revision got, as their applications have them.
    pub fn arrivals(&self, revision: &str) -> anyhow::Result<Arrivals> {
        let path = format!("{}?only={ITEMS}", request_log::PATH);
        let mut arrivals = Arrivals::default();
        let mut began = BTreeSet::new();
        for pod in self.pods_of(revision)? {
            let (status, text) = self
                .api
                .ask_pod(&pod, OUTSIDE_CALL, &Method::GET, &path, "")?;
            ensure!(status == 200, "{} answered {status}: {text}", pod.name);
            let log: LogSnapshot = serde_json::from_str(&text)?;
            ensure!(log.lost == 0, "{} has lost {} records", pod.name, log.lost);
            arrivals.calls += log.records.len() as u64;
            let failed = log
                .records
                .iter()
                .filter(|record| record.status.is_some_and(|status| status >= 500));
            arrivals.failed += failed.count() as u64;
            began.extend(log.records.iter().map(|record| record.began));
        }
        if let (Some(first), Some(last)) = (began.first(), began.last()) {
            arrivals.between = Duration::from_micros(last - first);
        }
        Ok(arrivals)
    }

    /// Each caller begins to call, with these arguments more.
    pub fn load(&self, args: &[&str]) -> anyhow::Result<Callers> {
        let url = format!("http://{NAME}:8080{ITEMS}");
        let plan = ["--rate", RATE, "--duration", UNTIL_ENDED, "-c", "4"];
        let words = [&plan[..], args].concat();
        let callers = self.ns.pods("client")?.into_iter();
        let loads = callers.map(|caller| caller.start_load(&url, &words));
        Ok(Callers(loads.collect::<anyhow::Result<_>>()?))
    }

    /// The URL for callers in other namespaces.
    pub fn url_from_elsewhere(&self) -> String {
        format!("http://{NAME}.{}:8080{ITEMS}", self.ns.name)
    }

    /// Fails when the mesh wrote an object of another author, or made one of its own, but for the
    /// status of the release and the condition of pods.
    pub fn nothing_of_others_is_ours(&self) -> anyhow::Result<()> {
        let kinds = "deployments,replicasets,services,endpointslices,serviceaccounts,pods,\
                     trafficsplits,traffictargets,httproutegroups,trafficpolicies";
        let list = self.ns.json(&["get", kinds, "--show-managed-fields"])?;
        let mut names = BTreeSet::new();
        for object in list["items"].as_array().into_iter().flatten() {
            let (kind, metadata) = (&object["kind"], &object["metadata"]);
            let name = metadata["name"].as_str().unwrap_or_default();
            if ["Deployment", "Service", "TrafficSplit"]
                .iter()
                .any(|own| *kind == *own)
            {
                names.insert(format!("{} {name}", kind.as_str().unwrap_or_default()));
            }
            for entry in metadata["managedFields"].as_array().into_iter().flatten() {
                let manager = entry["manager"].as_str().unwrap_or_default();
                let is_condition = *kind == "Pod" && entry["subresource"] == "status";
                // The status of policies is the mesh's own.
                let is_own = *kind == "TrafficPolicy";
                ensure!(
                    !manager.starts_with("weft") || is_condition || is_own,
                    "{kind} {name} has fields of {manager}: {entry}"
                );
            }
        }
        let own =
            ["client", NAME].map(|name| [format!("Deployment {name}"), format!("Service {name}")]);
        let own: BTreeSet<String> = own.into_iter().flatten().collect();
        ensure!(names == own, "there are {names:?}");
        Ok(())
    }
}

/// The revision of one set of a status.
pub fn revision(status: &Value, set: &str) -> anyhow::Result<String> {
    let revision = status[set]["revision"].as_str();
    let revision = revision.with_context(|| format!("no revision is {set}: {status}"))?;
    Ok(revision.to_owned())
}

impl Callers {
    /// Ends the loads.
    pub fn end(self) -> anyhow::Result<Calls> {
        let mut calls = Calls::default();
        for load in self.0 {
            let summary = load.end()?;
            let good = summary.by_status.get("200").copied().unwrap_or_default();
            calls.planned += summary.planned;
            calls.failed += summary.planned.saturating_sub(good);
            for (version, count) in &summary.by_version {
                *calls.by_version.entry(version.clone()).or_default() += count;
            }
            calls.summaries.push(summary);
        }
        Ok(calls)
    }
}
