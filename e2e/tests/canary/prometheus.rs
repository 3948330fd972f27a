//! Debian's Prometheus beside the cluster: pods reach it at the host's address,
//! and it reaches the pods.

use std::{
    fs,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use e2e::harness::{Cluster, Namespace, cluster::root, eventually};
use serde_json::json;

/// The host, as pods of the local cluster see it.
const HOST: &str = "10.199.0.1";
/// The name of the proxies' port in every meshed pod.
const ADMIN_PORT: &str = "weft-admin";

/// A running Prometheus, which ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Prometheus {
    child: Child,
    address: String,
}

impl Prometheus {
    /// Starts one that scrapes the proxies of this namespace every 2 s.
    pub(crate) fn watching(ns: &Namespace) -> anyhow::Result<Self> {
        let folder = root().join("target/prometheus").join(&ns.name);
        fs::create_dir_all(&folder)?;
        let kubeconfig = folder.join("kubeconfig");
        fs::write(&kubeconfig, limited_kubeconfig(ns)?)?;
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
  kubernetes_sd_configs:
  - role: pod
    kubeconfig_file: {}
    namespaces: {{names: [{}]}}
  relabel_configs:
  - {{source_labels: [__meta_kubernetes_pod_container_port_name], regex: {ADMIN_PORT}, action: keep}}
  - {{source_labels: [__meta_kubernetes_namespace], target_label: namespace}}
  - {{source_labels: [__meta_kubernetes_pod_name], target_label: pod}}
",
            kubeconfig.display(),
            ns.name
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
        let prometheus = Self { child, address };
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
                encoded.push_str(&format!("%{byte:02X}"));
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
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A kubeconfig that may list and watch the pods of one namespace.
fn limited_kubeconfig(ns: &Namespace) -> anyhow::Result<String> {
    let account = json!([{"kind": "ServiceAccount", "name": "prometheus", "namespace": ns.name}]);
    ns.apply_all(&[
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "prometheus"}}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
            "metadata": {"name": "prometheus"},
            "rules": [{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]}),
        json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": "prometheus"}, "subjects": account, "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "prometheus"}}),
    ])?;
    let token = ns.kubectl(&["create", "token", "prometheus", "--duration=1h"])?;
    let cluster: &Cluster = &ns.cluster;
    let text = cluster.kubectl(&["config", "view", "--raw", "--minify", "-o", "json"])?;
    let mut config: serde_json::Value = serde_json::from_str(&text)?;
    config["users"][0]["user"] = json!({"token": token.trim()});
    Ok(config.to_string())
}
