//! The shop in the cluster: its objects, its pods, and what the mesh counts of it.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use serde_json::Value;

use super::{
    breakage::{self, Breakage, Rested},
    call::{self, Call},
    ledger::{Ledger, Proxy},
    link::Link,
    names::NAMESPACE,
    progress::Progress,
    promise::View,
    table,
};
use crate::harness::{Cluster, Forward, app, cluster::root, eventually, metrics::Samples};

/// Says that a namespace of that name is the demo's, and may be changed.
const OWN: &str = "weft-demo";
/// Five small pods on three nodes; images are there already.
const READY: &str = "--timeout=120s";
/// The Deployments that make the load, in their order of start: web calls cart at once.
const LOADERS: [&str; 2] = ["cart", "web"];
/// Their programs refuse more than half an hour, by the clocks of their nodes.
const LOAD_FOR: Duration = Duration::from_secs(27 * 60);
/// The load's pods must be given their destinations.
const FIRST_REQUEST: Duration = Duration::from_secs(90);
/// A pod that ends between the list and the look misses one; a broken one more.
const MISSES: u32 = 3;
/// After the weights changed, looks until what is counted is theirs alone.
const SETTLE: u32 = 2;

/// Makes the shop as the files in e2e/demo say, without load.
pub fn open(cluster: &Cluster, progress: Progress) -> anyhow::Result<()> {
    claim_namespace(cluster)?;
    let in_shop = |args: &[&str]| cluster.kubectl(&[&["-n", NAMESPACE], args].concat());
    apply(cluster, "shop.yaml")?;
    // A release would gate the pods that begin the load anew: they differ from its stable ones.
    let release = [
        "delete",
        "canaryreleases.weft.dev",
        "cart",
        "--ignore-not-found",
    ];
    in_shop(&release)?;
    // Counts begin anew with the load.
    progress.step("ending the load of an earlier demo", || {
        let wait = [
            "--ignore-not-found",
            "--cascade=foreground",
            "--timeout=60s",
        ];
        let words = [&["delete", "deployments"][..], &LOADERS, &wait].concat();
        in_shop(words.as_slice())
    })?;
    apply(cluster, "policy.yaml")?;
    progress.step("starting catalog v1 and v2, and payments", || {
        for name in ["catalog-v1", "catalog-v2", "payments"] {
            in_shop(&["rollout", "status", &format!("deployment/{name}"), READY])?;
        }
        anyhow::Ok(())
    })?;
    progress.step("waiting until the proxies hold the policy", || {
        in_shop(&[
            "wait",
            "--for=condition=Programmed",
            "traffictarget",
            "--all",
            "--timeout=60s",
        ])?;
        in_shop(&[
            "wait",
            "--for=condition=ResolvedRefs",
            "trafficsplit",
            "--all",
            "--timeout=60s",
        ])
    })?;
    Ok(())
}

/// Starts web and cart, which make the load, and says when that ends by itself.
pub fn start_load(cluster: &Cluster) -> anyhow::Result<Instant> {
    let ends = Instant::now() + LOAD_FOR;
    let second = (SystemTime::now() + LOAD_FOR).duration_since(UNIX_EPOCH)?;
    let second = second.as_secs().to_string();
    for name in LOADERS {
        let file = format!("{name}.yaml");
        let text = objects(&file)?.replace("$ENDS", &second);
        apply_text(cluster, &file, &text)?;
        let deployment = format!("deployment/{name}");
        cluster.kubectl(&["-n", NAMESPACE, "rollout", "status", &deployment, READY])?;
    }
    Ok(ends)
}

/// A user's own namespace of that name must not be touched.
fn claim_namespace(cluster: &Cluster) -> anyhow::Result<()> {
    let existing = cluster.kubectl(&[
        "get",
        "namespace",
        NAMESPACE,
        "--ignore-not-found",
        "-o",
        "json",
    ])?;
    if existing.trim().is_empty() {
        return Ok(());
    }
    let existing: Value = serde_json::from_str(&existing)?;
    ensure!(
        existing["metadata"]["labels"][OWN] == NAMESPACE,
        "namespace {NAMESPACE} exists and is not the demo's: remove it or use another cluster"
    );
    ensure!(
        existing["metadata"]["deletionTimestamp"].is_null(),
        "namespace {NAMESPACE} is being deleted: try again when it is gone"
    );
    Ok(())
}

/// Applies a file of e2e/demo.
pub fn apply(cluster: &Cluster, file: &str) -> anyhow::Result<()> {
    apply_text(cluster, file, &objects(file)?)
}

fn objects(file: &str) -> anyhow::Result<String> {
    let path = root().join("e2e/demo").join(file);
    let text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
    Ok(text
        .replace("$IMAGE", &app::image())
        .replace("$CONTENT", &content()))
}

fn apply_text(cluster: &Cluster, file: &str, text: &str) -> anyhow::Result<()> {
    // A webhook that has only just been announced may not be reached yet.
    eventually(Duration::from_secs(30), file, || {
        cluster.apply(NAMESPACE, text)
    })?;
    Ok(())
}

/// Images keep their tag while their content changes; `none` when they were packed
/// elsewhere.
fn content() -> String {
    let profile = std::env::var("PROFILE")
        .ok()
        .filter(|profile| !profile.is_empty());
    let folder = root()
        .join("target/images")
        .join(profile.unwrap_or("dev".into()));
    ["proxy", "injector", "echo"]
        .map(|part| short_digest(&folder.join(format!("{part}.digest"))))
        .join("-")
}

fn short_digest(file: &Path) -> String {
    let digest = fs::read_to_string(file).unwrap_or_default();
    let hex = digest.trim().trim_start_matches("sha256:");
    hex.get(..12).unwrap_or("none").to_owned()
}

/// Looks at the shop and keeps the accounts.
#[derive(Debug)]
pub struct Watch {
    link: Link,
    ledger: Ledger,
    since: Instant,
    weights: Vec<(String, f64)>,
    settling: u32,
    misses: BTreeMap<String, (u32, String)>,
    broken: Option<Broken>,
}

/// The instance that is broken on purpose.
#[derive(Debug)]
struct Broken {
    pod: String,
    since: Instant,
    /// Counts from then on.
    ledger: Ledger,
    /// The proxies of those who call it.
    callers: Vec<Forward>,
    rested: Rested,
}

impl Watch {
    /// Counts from here.
    pub fn begin(link: Link) -> anyhow::Result<Self> {
        let mut watch = Self {
            link,
            ledger: Ledger::default(),
            since: Instant::now(),
            weights: Vec::new(),
            settling: 0,
            misses: BTreeMap::new(),
            broken: None,
        };
        watch.weights = watch.weights()?;
        watch.scrape()?;
        watch.rebase();
        Ok(watch)
    }

    /// Waits for the first requests of each call, which must have gone as promised
    /// too, and counts from there.
    pub fn await_load(&mut self) -> anyhow::Result<()> {
        eventually(FIRST_REQUEST, "every call has been made once", || {
            std::thread::sleep(Duration::from_millis(500));
            self.scrape()?;
            let view = self.view();
            for call in &view.allowed {
                ensure!(
                    call.requests > 0.0,
                    "{} has not called {} yet",
                    call.from,
                    call.to
                );
            }
            ensure!(
                view.refused.requests > 0.0 && view.refused.refused_by_server > 0.0,
                "{} has not refused {} yet",
                view.refused.to,
                view.refused.from
            );
            Ok(())
        })?;
        let first = self.view();
        // Some ten requests say nothing about shares.
        let mut judged = first.promises().into_iter();
        ensure!(
            judged.all(|promise| promise.kept || promise.what == "split"),
            "the first calls went wrong:\n{}",
            table::render(&first)
        );
        // Else the rate would count requests from before the clock.
        self.rebase();
        Ok(())
    }

    /// The access to the API server, for others.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Counts from here, and nothing of what was before.
    pub fn begin_again(&mut self) -> anyhow::Result<()> {
        self.scrape()?;
        self.rebase();
        Ok(())
    }

    /// Reads everything once and says how it stands; `None` while too little was
    /// counted since the weights changed.
    pub fn look(&mut self) -> anyhow::Result<Option<View>> {
        let weights = self.weights()?;
        if weights != self.weights {
            // What was counted under other weights must not be judged by these.
            self.weights = weights;
            self.settling = SETTLE;
        }
        self.scrape()?;
        self.note_who_rests();
        if self.settling > 0 {
            self.settling -= 1;
            self.rebase();
            return Ok(None);
        }
        Ok(Some(self.view()))
    }

    /// Breaks one instance of catalog, once; it is well again by itself.
    pub fn break_one(&mut self, cluster: &Cluster) -> anyhow::Result<()> {
        if self.broken.is_some() {
            return Ok(());
        }
        let instances = format!("app%3Dcatalog,version%3D{}", breakage::VERSION);
        let pod = self.running(&instances)?.into_iter().next();
        let pod = pod.context("no instance of catalog runs")?;
        let callers = self.running("app%3Dweb")?.into_iter();
        let callers =
            callers.map(|caller| Forward::open(cluster, NAMESPACE, &caller, breakage::PAGE_PORT));
        let callers = callers.collect::<anyhow::Result<_>>()?;
        self.scrape()?;
        let mut ledger = self.ledger.clone();
        ledger.rebase();
        breakage::make(cluster, &pod)?;
        self.broken = Some(Broken {
            pod,
            since: Instant::now(),
            ledger,
            callers,
            rested: Rested::new(),
        });
        Ok(())
    }

    /// Names of the pods that run, of those with these labels.
    fn running(&self, labels: &str) -> anyhow::Result<Vec<String>> {
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods?labelSelector={labels}");
        let pods = self.link.json(&path)?;
        let runs = |pod: &&Value| {
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        };
        let pods = pods["items"].as_array().into_iter().flatten().filter(runs);
        let names = pods.filter_map(|pod| pod["metadata"]["name"].as_str());
        Ok(names.map(str::to_owned).collect())
    }

    /// A rest lasts for more than one look. A caller that ends says no more, and takes
    /// nothing back.
    fn note_who_rests(&mut self) {
        let Some(broken) = &mut self.broken else {
            return;
        };
        for caller in &broken.callers {
            let page = caller.get(breakage::PAGE).ok();
            let page = page.and_then(|page| serde_json::from_str(&page).ok());
            if let Some(page) = page {
                broken.rested.extend(breakage::resting(&page));
            }
        }
    }

    fn view(&self) -> View {
        let ledger = &self.ledger;
        View {
            seconds: self.since.elapsed().as_secs_f64(),
            allowed: [("web", "catalog"), ("web", "cart"), ("cart", "payments")]
                .map(|(from, to)| Call::read(ledger, from, to))
                .into(),
            refused: Call::read(ledger, "web", "payments"),
            protected: call::protected(ledger),
            weights: self.weights.clone(),
            broken: self.broken.as_ref().map(|broken| {
                let seconds = broken.since.elapsed().as_secs_f64();
                Breakage::read(&broken.ledger, &broken.pod, seconds, &broken.rested)
            }),
            unread: self
                .misses
                .iter()
                .filter(|(_, (misses, _))| *misses >= MISSES)
                .map(|(pod, (_, reason))| format!("{pod}: {reason}"))
                .collect(),
        }
    }

    fn rebase(&mut self) {
        self.ledger.rebase();
        self.since = Instant::now();
    }

    fn weights(&self) -> anyhow::Result<Vec<(String, f64)>> {
        let path = format!(
            "/apis/split.smi-spec.io/v1alpha4/namespaces/{NAMESPACE}/trafficsplits/catalog"
        );
        let split = self.link.json(&path)?;
        let backends = split["spec"]["backends"].as_array();
        Ok(backends
            .into_iter()
            .flatten()
            .map(|backend| {
                let name = backend["service"].as_str().unwrap_or_default().to_owned();
                (name, backend["weight"].as_f64().unwrap_or_default())
            })
            .collect())
    }

    fn scrape(&mut self) -> anyhow::Result<()> {
        let pods = self
            .link
            .json(&format!("/api/v1/namespaces/{NAMESPACE}/pods"))?;
        let mut before = std::mem::take(&mut self.misses);
        for pod in pods["items"].as_array().into_iter().flatten() {
            let meta = &pod["metadata"];
            let name = meta["name"].as_str().unwrap_or_default();
            let service = meta["labels"]["app"].as_str();
            let runs = pod["status"]["phase"] == "Running" && meta["deletionTimestamp"].is_null();
            let (Some(service), true) = (service, runs) else {
                continue;
            };
            if let Err(error) = self.read(name, service, pod) {
                let (misses, _) = before.remove(name).unwrap_or_default();
                self.misses
                    .insert(name.into(), (misses + 1, format!("{error:#}")));
            }
        }
        Ok(())
    }

    fn read(&mut self, name: &str, service: &str, pod: &Value) -> anyhow::Result<()> {
        let statuses = pod["status"]["initContainerStatuses"].as_array();
        let proxy = statuses
            .into_iter()
            .flatten()
            .find(|status| status["name"] == "weft-proxy");
        let Some(proxy) = proxy else {
            bail!("it has no proxy");
        };
        let path = format!("/api/v1/namespaces/{NAMESPACE}/pods/{name}:15190/proxy/metrics");
        let samples = Samples::parse(&self.link.text(&path)?);
        let proxy = Proxy {
            pod: name.into(),
            restarts: proxy["restartCount"].as_u64().unwrap_or_default(),
        };
        if let Some(broken) = &mut self.broken {
            broken.ledger.note(proxy.clone(), service, samples.clone());
        }
        self.ledger.note(proxy, service, samples);
        Ok(())
    }
}
