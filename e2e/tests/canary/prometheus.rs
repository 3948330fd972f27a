//! Debian's Prometheus beside the cluster: pods reach it at the host's address,
//! and it reaches the pods.
//!
//! Debian builds it without the discovery of Kubernetes, so a thread here writes the
//! proxies' addresses into the file that it watches.

use std::{
    fmt::Write as _,
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use anyhow::{Context as _, ensure};
use e2e::harness::{Cluster, Namespace, cluster::root, eventually};
use serde_json::{Value, json};

/// The host, as pods of the local cluster see it.
const HOST: &str = "10.199.0.1";
/// The name of the proxies' port in every meshed pod.
const ADMIN_PORT: &str = "weft-admin";
/// Between two looks for pods; a new one is scraped this much later.
const DISCOVERY: Duration = Duration::from_secs(2);

/// A running Prometheus, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    address: String,
    stop: Arc<AtomicBool>,
}

impl Prometheus {
    /// Starts one that scrapes the proxies of this namespace every 2 s.
    pub(crate) fn watching(ns: &Namespace) -> anyhow::Result<Self> {
        let folder = root().join("target/prometheus").join(&ns.name);
        fs::create_dir_all(&folder)?;
        let targets = folder.join("targets.json");
        write_targets(&ns.cluster, &ns.name, &targets)?;
        // Free at this moment; Prometheus has no way to tell a port that it chose.
        let port = TcpListener::bind((HOST, 0))
            .with_context(|| format!("{HOST} is no address here: is the local cluster up?"))?
            .local_addr()?
            .port();
        let address = format!("{HOST}:{port}");
        let config = format!(
            "global: {{scrape_interval: 2s, scrape_timeout: 2s}}
scrape_configs:
- job_name: weft-proxies
  file_sd_configs: [{{files: ['{}'], refresh_interval: 2s}}]
",
            targets.display(),
        );
        let config_file = folder.join("prometheus.yaml");
        fs::write(&config_file, config)?;
        let log = fs::File::create(folder.join("log"))?;
        let child = Command::new("prometheus")
            .arg(format!("--config.file={}", config_file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                folder.join("data").display()
            ))
            .arg(format!("--web.listen-address={address}"))
            .arg("--storage.tsdb.retention.time=1h")
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .context("start prometheus (Debian: apt-get install prometheus)")?;
        let stop = Arc::new(AtomicBool::new(false));
        discover(ns, targets, stop.clone());
        let prometheus = Self {
            child,
            address,
            stop,
        };
        eventually(Duration::from_secs(30), "Prometheus is ready", || {
            let answer = prometheus.get("/-/ready")?;
            ensure!(answer.starts_with("HTTP/1.1 200"), "it answered {answer}");
            Ok(())
        })?;
        Ok(prometheus)
    }

    /// `http://host:port`, from within pods and from here.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The one number that a query gives now; `None` for none.
    pub(crate) fn query(&self, query: &str) -> anyhow::Result<Option<f64>> {
        let mut encoded = String::new();
        for byte in query.bytes() {
            if byte.is_ascii_alphanumeric() {
                encoded.push(char::from(byte));
            } else {
                // Writing to a String cannot fail.
                let _ = write!(encoded, "%{byte:02X}");
            }
        }
        let answer = self.get(&format!("/api/v1/query?query={encoded}"))?;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
        ensure!(head.starts_with("HTTP/1.1 200"), "{query}: {answer}");
        let json: serde_json::Value = serde_json::from_str(body).context(answer.clone())?;
        let value = json["data"]["result"][0]["value"][1].as_str();
        value
            .map(|value| value.parse().with_context(|| answer.clone()))
            .transpose()
    }

    fn get(&self, path: &str) -> anyhow::Result<String> {
        let mut stream = TcpStream::connect(&self.address)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        let host = &self.address;
        write!(
            stream,
            "GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Looks for proxies until it is told to stop. A look that fails is repeated; what
/// is not scraped shows as a canary without a value.
fn discover(ns: &Namespace, targets: PathBuf, stop: Arc<AtomicBool>) {
    let (cluster, name) = (ns.cluster.clone(), ns.name.clone());
    thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            if let Err(error) = write_targets(&cluster, &name, &targets) {
                eprintln!("Prometheus keeps its old targets: {error:#}");
            }
            thread::sleep(DISCOVERY);
        }
    });
}

fn write_targets(cluster: &Cluster, namespace: &str, file: &Path) -> anyhow::Result<()> {
    let list = cluster.json(&["-n", namespace, "get", "pods"])?;
    let pods = list["items"].as_array().into_iter().flatten();
    let targets: Vec<Value> = pods.filter_map(target).collect();
    let part = file.with_extension("part");
    fs::write(&part, Value::from(targets).to_string())?;
    fs::rename(&part, file).context("replace the targets")
}

/// The address of a pod's proxy, with the labels that discovery gives.
fn target(pod: &Value) -> Option<Value> {
    let containers = pod["spec"]["initContainers"].as_array()?;
    let ports = containers
        .iter()
        .filter_map(|container| container["ports"].as_array())
        .flatten();
    let port =
        ports.into_iter().find(|port| port["name"] == ADMIN_PORT)?["containerPort"].as_u64()?;
    let address = format!("{}:{port}", pod["status"]["podIP"].as_str()?);
    let (namespace, name) = (&pod["metadata"]["namespace"], &pod["metadata"]["name"]);
    Some(json!({"targets": [address], "labels": {"namespace": namespace, "pod": name}}))
}
