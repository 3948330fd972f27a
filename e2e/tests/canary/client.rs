//! Installs a delivery controller as its own project publishes it: definitions,
//! account, role, and one pod.

use std::fs;

use anyhow::Context as _;
use e2e::harness::{Namespace, Prometheus};
use serde_json::{Value, json};

use super::prepared;

/// A controller in a namespace of its own, outside the mesh, with its cluster-wide
/// objects removed when it goes. Definitions stay, as after any uninstall.
#[derive(Debug)]
pub(crate) struct Client {
    ns: Namespace,
    name: &'static str,
}

/// What is installed.
pub(crate) struct Parts<'a> {
    pub(crate) name: &'static str,
    /// Files with its CustomResourceDefinitions.
    pub(crate) definitions: Vec<String>,
    /// File with a ClusterRole, and whatever else stands in it.
    pub(crate) role: String,
    pub(crate) image: String,
    pub(crate) args: Vec<&'a str>,
    /// Where `GET` answers 200 when it is ready: path and port.
    pub(crate) ready: (&'a str, u16),
    /// The one namespace, besides its own, in which it may do anything.
    pub(crate) works_in: &'a str,
}

impl Client {
    /// Flagger that writes for this provider, with the metrics of a Prometheus, in one namespace.
    pub(crate) fn flagger(
        works_in: &Namespace,
        provider: &str,
        prometheus: &Prometheus,
    ) -> anyhow::Result<Self> {
        let source = prepared("FLAGGER_SOURCE")?;
        let provider = format!("-mesh-provider={provider}");
        let metrics_server = format!("-metrics-server={}", prometheus.url());
        let only = format!("-namespace={}", works_in.name);
        Self::install(&Parts {
            name: "flagger",
            definitions: vec![format!("{source}/artifacts/flagger/crd.yaml")],
            role: format!("{source}/artifacts/flagger/account.yaml"),
            image: prepared("FLAGGER_IMAGE")?,
            args: vec![
                "-log-level=debug",
                &provider,
                "-enable-config-tracking=false",
                "-control-loop-interval=5s",
                &metrics_server,
                &only,
            ],
            ready: ("/healthz", 8080),
            works_in: &works_in.name,
        })
    }

    pub(crate) fn install(parts: &Parts<'_>) -> anyhow::Result<Self> {
        let name = parts.name;
        let ns = Namespace::unmeshed(name)?;
        for file in &parts.definitions {
            // Their schemas are too long for the annotation of a client-side apply.
            ns.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", file])?;
        }
        let cluster_role = format!("weft-e2e-{}", ns.name);
        let client = Self { ns, name };
        let ns = &client.ns;
        ns.apply_all(&[
            json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}}),
            json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                "metadata": {"name": cluster_role}, "rules": rules(&parts.role)?}),
        ])?;
        // A RoleBinding: its rules hold where it works and where it runs (its own
        // settings), and nowhere else.
        let subjects = json!([{"kind": "ServiceAccount", "name": name, "namespace": ns.name}]);
        let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole",
            "name": cluster_role});
        let binding = json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding",
            "metadata": {"name": name}, "roleRef": role, "subjects": subjects});
        for namespace in [parts.works_in, &ns.name] {
            ns.cluster.apply(namespace, &binding.to_string())?;
        }
        ns.apply_all(&[deployment(parts)])?;
        ns.ready(&[name])?;
        Ok(client)
    }

    /// What it has logged so far.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        let deployment = format!("deployment/{}", self.name);
        self.ns.kubectl(&["logs", &deployment, "--tail=-1"])
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let role = format!("weft-e2e-{}", self.ns.name);
        if let Err(error) = self.ns.kubectl(&["delete", "clusterrole", &role]) {
            eprintln!("{role} stays: {error:#}");
        }
    }
}

/// The rules of the ClusterRole in a file of YAML documents, read by kubectl.
fn rules(file: &str) -> anyhow::Result<Value> {
    fs::metadata(file).with_context(|| file.to_owned())?;
    let cluster = e2e::harness::Cluster::connect()?;
    let words = ["create", "--dry-run=client", "-f", file];
    let text = cluster.kubectl(&[&words[..], &["-o", "json"]].concat())?;
    // Several documents are printed one after another.
    for object in serde_json::Deserializer::from_str(&text).into_iter::<Value>() {
        let object = object?;
        if object["kind"] == "ClusterRole" {
            return Ok(object["rules"].clone());
        }
    }
    anyhow::bail!("{file} holds no ClusterRole")
}

fn deployment(parts: &Parts<'_>) -> Value {
    let (path, port) = parts.ready;
    let labels = json!({"app": parts.name});
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": parts.name}, "spec": {
        "replicas": 1, "selector": {"matchLabels": labels}, "template": {
            "metadata": {"labels": labels},
            "spec": {"serviceAccountName": parts.name, "terminationGracePeriodSeconds": 2,
                "containers": [{"name": "controller", "image": parts.image,
                    "imagePullPolicy": "IfNotPresent", "args": parts.args,
                    "readinessProbe": {"httpGet": {"path": path, "port": port}, "periodSeconds": 1},
                    "securityContext": {"readOnlyRootFilesystem": true,
                        "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}}}]}}}})
}
