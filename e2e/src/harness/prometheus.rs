//! Debian's Prometheus beside the cluster, set up as docs/monitoring.md says: it scrapes the
//! proxies of a namespace and the mesh's own parts, keeps exemplars and has the chart's rules.
//!
//! Debian builds it without the discovery of Kubernetes, so a thread here writes the addresses
//! into the files that it watches, with the labels that discovery would give.

use std::{
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::Context as _;
use serde_json::{Value, json};

use super::{
    Beside, Cluster, Namespace,
    beside::free_address,
    cluster::root,
    eventually,
    mesh::{self, chart},
};

/// Where targets are found: the job, the list of containers that is looked through, and the
/// name of the port that is scraped.
const PROXIES: (&str, &str, &str) = ("weft-proxies", "initContainers", "weft-admin");
const OWN: (&str, &str, &str) = ("weft-control-plane", "containers", "admin");
/// Between two looks for pods; a new one is scraped this much later.
const DISCOVERY: Duration = Duration::from_secs(2);

/// A running Prometheus, which ends when this is dropped.
#[derive(Debug)]
pub struct Prometheus {
    program: Beside,
    stop: Arc<AtomicBool>,
}

impl Prometheus {
    /// Starts one that scrapes the proxies of this namespace, and controllers and injectors,
    /// every 2 s.
    pub fn watching(ns: &Namespace) -> anyhow::Result<Self> {
        let folder = root().join("target/prometheus").join(&ns.name);
        fs::create_dir_all(&folder)?;
        write_targets(&ns.cluster, &ns.name, &folder)?;
        let address = free_address()?;
        // JSON is YAML.
        let config = folder.join("prometheus.json");
        fs::write(&config, configuration(&folder).to_string())?;
        let mut command = Command::new("prometheus");
        command
            .arg(format!("--config.file={}", config.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--storage.tsdb.retention.time=1h")
            .arg("--enable-feature=exemplar-storage");
        let program = Beside::start(&mut command, &address, &folder)
            .context("Debian: apt-get install prometheus")?;
        let stop = Arc::new(AtomicBool::new(false));
        discover(ns, folder, stop.clone());
        let prometheus = Self { program, stop };
        eventually(Duration::from_secs(30), "Prometheus is ready", || {
            prometheus.program.get("/-/ready")
        })?;
        Ok(prometheus)
    }

    /// `http://host:port`, from within pods and from here.
    pub fn url(&self) -> String {
        format!("http://{}", self.program.address())
    }

    /// The one number that a query gives now; `None` for none.
    pub fn query(&self, query: &str) -> anyhow::Result<Option<f64>> {
        Ok(self.values(query)?.first().copied())
    }

    /// All numbers that a query gives now, those among them that are none too.
    pub fn values(&self, query: &str) -> anyhow::Result<Vec<f64>> {
        let answer = self.read(&format!("query?query={}", encoded(query)))?;
        let samples = answer["data"]["result"].as_array().into_iter().flatten();
        samples
            .map(|sample| {
                let value = sample["value"][1].as_str();
                let value = value.with_context(|| format!("{query} gave {sample}"))?;
                value
                    .parse::<f64>()
                    .with_context(|| format!("{query} gave {value}"))
            })
            .collect()
    }

    /// Exemplars of the series of a selector in the last hour, each with its labels.
    pub fn exemplars(&self, selector: &str) -> anyhow::Result<Vec<Value>> {
        let now = self.query("vector(time())")?;
        let now = now.context("Prometheus has no clock")?;
        let path = format!(
            "query_exemplars?query={}&start={:.0}&end={now:.0}",
            encoded(selector),
            now - 3600.0
        );
        let answer = self.read(&path)?;
        let series = answer["data"].as_array().into_iter().flatten();
        let exemplars = series.filter_map(|series| series["exemplars"].as_array());
        Ok(exemplars.flatten().cloned().collect())
    }

    /// What its API answers below `/api/v1/`.
    pub fn read(&self, path: &str) -> anyhow::Result<Value> {
        let text = self.program.get(&format!("/api/v1/{path}"))?;
        serde_json::from_str(&text).with_context(|| format!("{path} answered {text}"))
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// As part of a URL.
fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() {
            encoded.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}

fn configuration(folder: &Path) -> Value {
    let job = |(name, _, _): (&str, &str, &str)| {
        json!({
            "job_name": name,
            // One metric of the controllers is about a namespace.
            "honor_labels": name == OWN.0,
            "file_sd_configs": [{"files": [targets_of(folder, name)], "refresh_interval": "2s"}],
        })
    };
    json!({
        "global": {
            "scrape_interval": "2s", "scrape_timeout": "2s", "evaluation_interval": "5s",
        },
        "rule_files": [format!("{}/monitoring/rules.yaml", chart())],
        "scrape_configs": [job(PROXIES), job(OWN)],
    })
}

fn targets_of(folder: &Path, job: &str) -> PathBuf {
    folder.join(job).with_extension("json")
}

/// Looks for pods until `stop` is set. A look that fails is repeated; what is not scraped
/// shows as a query without a value.
fn discover(ns: &Namespace, folder: PathBuf, stop: Arc<AtomicBool>) {
    let (cluster, name) = (ns.cluster.clone(), ns.name.clone());
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = write_targets(&cluster, &name, &folder) {
                eprintln!("Prometheus keeps its old targets: {error:#}");
            }
            thread::sleep(DISCOVERY);
        }
    });
}

fn write_targets(cluster: &Cluster, namespace: &str, folder: &Path) -> anyhow::Result<()> {
    for ((job, containers, port), namespace) in [(PROXIES, namespace), (OWN, mesh::NAMESPACE)] {
        let list = cluster.json(&["-n", namespace, "get", "pods"])?;
        let pods = list["items"].as_array().into_iter().flatten();
        let targets = pods.filter_map(|pod| target(pod, containers, port));
        let targets: Vec<Value> = targets.collect();
        let file = targets_of(folder, job);
        let part = file.with_extension("part");
        fs::write(&part, Value::from(targets).to_string())?;
        fs::rename(&part, &file).context("replace the targets")?;
    }
    Ok(())
}

/// The address of a pod's port of this name, with the labels that rules and dashboards
/// count on.
fn target(pod: &Value, containers: &str, port: &str) -> Option<Value> {
    let containers = pod["spec"][containers].as_array()?;
    let ports = containers
        .iter()
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    let port = ports.into_iter().find(|one| one["name"] == port)?["containerPort"].as_u64()?;
    let address = format!("{}:{port}", pod["status"]["podIP"].as_str()?);
    let (namespace, name) = (&pod["metadata"]["namespace"], &pod["metadata"]["name"]);
    let labels = json!({"namespace": namespace, "pod": name, "workload": workload(pod)});
    Some(json!({"targets": [address], "labels": labels}))
}

/// What made the pod: a ReplicaSet's name without its hash, any other owner's, else its own.
fn workload(pod: &Value) -> &str {
    let owner = &pod["metadata"]["ownerReferences"][0];
    let name = owner["name"].as_str();
    let name = name.or(pod["metadata"]["name"].as_str());
    let name = name.unwrap_or_default();
    if owner["kind"] == "ReplicaSet" {
        name.rsplit_once('-').map_or(name, |(made, _)| made)
    } else {
        name
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_have_the_labels_that_dashboards_count_on() {
        let owned = |kind: &str, name: &str| {
            json!({"metadata": {"namespace": "shop", "name": "web-7d9-x2x4z",
                    "ownerReferences": [{"kind": kind, "name": name}]},
                "spec": {"initContainers": [{"ports": [{"name": "weft-admin", "containerPort": 15190}]}]},
                "status": {"podIP": "10.244.1.7"}})
        };
        for (kind, name, workload) in [
            ("ReplicaSet", "web-7d9", "web"),
            ("StatefulSet", "my-db", "my-db"),
        ] {
            let labels = json!({"namespace": "shop", "pod": "web-7d9-x2x4z", "workload": workload});
            let expected = json!({"targets": ["10.244.1.7:15190"], "labels": labels});
            let found = target(&owned(kind, name), PROXIES.1, PROXIES.2);
            assert_eq!(found, Some(expected));
        }
        let unmeshed = json!({"spec": {"containers": []}});
        assert_eq!(target(&unmeshed, PROXIES.1, PROXIES.2), None);
        assert_eq!(encoded("a_b{c=\"d\"}"), "a%5Fb%7Bc%3D%22d%22%7D");
    }
}
