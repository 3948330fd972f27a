//! A namespace per test: made with a random name, described when the test fails,
//! and removed when it ends.

use std::{thread, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{App, Cluster, Pod, endpoints, eventually};

/// Deployments are ready within seconds; a cold node with a full queue takes longer.
const READY: Duration = Duration::from_secs(120);
/// Lines of every container that are shown when a test fails.
const LINES: &str = "--tail=40";

/// What a test returns. `?` on an error panics on the spot, so that the namespaces
/// on the way out know that the test failed and show what they hold.
pub type Outcome = Result<(), Failed>;

/// Never made; see [`Outcome`].
#[derive(Debug)]
pub enum Failed {}

impl<E: Into<anyhow::Error>> From<E> for Failed {
    #[track_caller]
    #[expect(clippy::panic, reason = "this is how a test fails")]
    fn from(error: E) -> Self {
        panic!("{:#}", error.into())
    }
}

/// A namespace that goes when it is dropped. `KEEP_NAMESPACES=1` keeps it.
#[derive(Debug)]
pub struct Namespace {
    pub name: String,
    pub cluster: Cluster,
}

impl Namespace {
    /// A namespace whose pods get a proxy. Installs the mesh first if need be.
    pub fn meshed(claim: &str) -> anyhow::Result<Self> {
        super::mesh::installed()?;
        Self::make(claim, &[("weft.dev/inject", "enabled")])
    }

    /// A namespace that asks for nothing, in a cluster with the mesh.
    pub fn unmeshed(claim: &str) -> anyhow::Result<Self> {
        super::mesh::installed()?;
        Self::make(claim, &[])
    }

    fn make(claim: &str, labels: &[(&str, &str)]) -> anyhow::Result<Self> {
        let cluster = Cluster::connect()?;
        let name = format!("e2e-{claim}-{:06x}", rand::random::<u32>() & 0xff_ffff);
        let mut object = json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": {"weft-e2e": "true"}}});
        for (key, value) in labels {
            object["metadata"]["labels"][*key] = json!(value);
        }
        cluster.apply("default", &object.to_string())?;
        let namespace = Self { name, cluster };
        eventually(
            READY,
            "the namespace has its default service account",
            || namespace.kubectl(&["get", "serviceaccount", "default"]),
        )?;
        Ok(namespace)
    }

    /// The same, in which no proxy sends a request twice: for tests that prove that nothing
    /// is lost, which a retry would hide. Says so before any pod runs.
    pub fn without_retries(self) -> anyhow::Result<Self> {
        self.apply_all(&[
            json!({"apiVersion": "weft.dev/v1alpha1", "kind": "TrafficPolicy",
            "metadata": {"name": "without-retries"},
            "spec": {"targetRef": {"kind": "Namespace"}, "retry": {"attempts": 0}}}),
        ])?;
        self.await_condition("tp/without-retries", "Accepted", "True")?;
        Ok(self)
    }

    /// `kubectl -n NAMESPACE ARGS`.
    pub fn kubectl(&self, args: &[&str]) -> anyhow::Result<String> {
        self.cluster.kubectl(&[&["-n", &self.name], args].concat())
    }

    /// One object or list of this namespace as JSON.
    pub fn json(&self, args: &[&str]) -> anyhow::Result<Value> {
        self.cluster.json(&[&["-n", &self.name], args].concat())
    }

    /// Applies YAML; `$NS` stands for this namespace's name.
    pub fn apply(&self, yaml: &str) -> anyhow::Result<String> {
        self.cluster
            .apply(&self.name, &yaml.replace("$NS", &self.name))
    }

    /// Applies objects that were made here.
    pub fn apply_all(&self, objects: &[Value]) -> anyhow::Result<()> {
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects});
        self.cluster.apply(&self.name, &list.to_string()).map(drop)
    }

    /// Runs test applications of these names, and waits for them.
    pub fn run(&self, apps: &[&str]) -> anyhow::Result<()> {
        let objects = apps.iter().map(|app| App::new(app).objects());
        self.apply_all(&objects.flatten().collect::<Vec<Value>>())?;
        self.ready(apps)
    }

    /// Sets an annotation of the namespace itself; `None` removes it.
    pub fn annotate(&self, key: &str, value: Option<&str>) -> anyhow::Result<()> {
        let change = value.map_or(format!("{key}-"), |value| format!("{key}={value}"));
        self.cluster
            .kubectl(&["annotate", "--overwrite", "namespace", &self.name, &change])
            .map(drop)
    }

    /// Waits until every replica of these Deployments is ready, and until the Service of the
    /// same name has them as endpoints. The two are written by different controllers of the
    /// cluster: on a busy machine a Deployment is complete while its EndpointSlice is still
    /// empty, and who calls then is rightly answered 503 `no-endpoint`.
    pub fn ready(&self, deployments: &[&str]) -> anyhow::Result<()> {
        // Of all of them by one process, which asks for each in turn.
        let limit = format!("--timeout={}s", READY.as_secs());
        let names = deployments.iter().map(|name| format!("deployment/{name}"));
        let names: Vec<String> = names.collect();
        let mut words = vec!["rollout", "status", &limit];
        words.extend(names.iter().map(String::as_str));
        self.kubectl(&words)
            .with_context(|| format!("not all of {deployments:?} become ready"))?;
        eventually(READY, "ready pods are endpoints", || {
            let objects = self.json(&["get", "deployments,services,endpointslices"])?;
            endpoints::published(&objects, deployments)
        })
    }

    /// A running pod with label `app=NAME`.
    pub fn pod(&self, app: &str) -> anyhow::Result<Pod> {
        Ok(self.pods(app)?.remove(0))
    }

    /// All running pods with label `app=NAME` that are not being deleted; at least one.
    pub fn pods(&self, app: &str) -> anyhow::Result<Vec<Pod>> {
        let list = self.json(&[
            "get",
            "pods",
            "-l",
            &format!("app={app}"),
            "--field-selector=status.phase=Running",
        ])?;
        let pods: Vec<Pod> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|pod| pod["metadata"]["deletionTimestamp"].is_null())
            .map(|pod| Pod::listed(&self.cluster, &self.name, pod))
            .collect();
        ensure!(!pods.is_empty(), "no pod of {app} runs in {}", self.name);
        Ok(pods)
    }

    /// Status of one condition of an SMI object, with reason and message.
    pub fn condition(&self, object: &str, kind: &str) -> anyhow::Result<Value> {
        let object_json = self.json(&["get", object])?;
        object_json["status"]["conditions"]
            .as_array()
            .into_iter()
            .flatten()
            .find(|condition| condition["type"] == kind)
            .cloned()
            .with_context(|| {
                format!(
                    "{object} has no condition {kind}: {}",
                    object_json["status"]
                )
            })
    }

    /// Waits until a condition has this status, and returns it.
    pub fn await_condition(&self, object: &str, kind: &str, status: &str) -> anyhow::Result<Value> {
        eventually(
            Duration::from_secs(20),
            &format!("{kind} of {object} is {status}"),
            || {
                let condition = self.condition(object, kind)?;
                ensure!(condition["status"] == status, "it is {condition}");
                Ok(condition)
            },
        )
    }

    /// What a person would look at first.
    fn show(&self) {
        eprintln!("--- {} at the time of the failure", self.name);
        for args in [
            &[
                "get",
                "pods,services,trafficsplits,traffictargets,httproutegroups,tcproutes.specs.smi-spec.io,trafficpolicies,canaryreleases,faultexperiments,externalservices",
                "-o",
                "wide",
            ][..],
            &["get", "events", "--sort-by=.lastTimestamp"],
        ] {
            eprintln!(
                "{}",
                self.kubectl(args)
                    .unwrap_or_else(|error| format!("{error:#}"))
            );
        }
        let pods = self
            .kubectl(&["get", "pods", "-o", "name"])
            .unwrap_or_default();
        for pod in pods.lines() {
            let logs = self.kubectl(&["logs", pod, "--all-containers", "--prefix", LINES]);
            eprintln!("{}", logs.unwrap_or_else(|error| format!("{error:#}")));
        }
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show();
        }
        if std::env::var_os("KEEP_NAMESPACES").is_none() {
            let deleted =
                self.cluster
                    .kubectl(&["delete", "namespace", &self.name, "--wait=false"]);
            if let Err(error) = deleted {
                eprintln!("{} stays: {error:#}", self.name);
            }
        }
    }
}
