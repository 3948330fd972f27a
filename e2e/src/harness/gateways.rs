//! Gateways of tests. All stand in one namespace, with which the mesh is installed.

use std::{thread, time::Duration};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::{Cluster, eventually, gateway_api, mesh};

pub use super::gateway_api::{GATEWAYS as NAMESPACE, SECRETS as OF_OTHERS};

/// A pod of the Gateway starts, and the cluster gives its Service an address.
const PROGRAMMED: Duration = Duration::from_secs(120);
/// On all objects of a test's Gateway.
const LABEL: &str = "weft-e2e-gateway";
/// Kinds of which a test's Gateway may have objects.
const KINDS: &str = "gateways.gateway.networking.k8s.io,configmaps,secrets,referencegrants.gateway.networking.k8s.io";

/// A Gateway with what belongs to it, which go when this is dropped.
#[derive(Debug)]
pub struct Gateway {
    pub name: String,
    pub cluster: Cluster,
}

impl Gateway {
    /// A name for one. There is no Gateway before [`Gateway::listen`].
    pub fn named(claim: &str) -> anyhow::Result<Self> {
        gateway_api::installed()?;
        mesh::installed()?;
        Ok(Self {
            name: format!("{claim}-{:06x}", rand::random::<u32>() & 0xff_ffff),
            cluster: Cluster::connect()?,
        })
    }

    /// Makes the Gateway, or gives it these listeners and parameters.
    pub fn listen(&self, listeners: &[Value], parameters: &[(&str, &str)]) -> anyhow::Result<()> {
        let mut spec = json!({"gatewayClassName": "weft", "listeners": listeners});
        if !parameters.is_empty() {
            let data: serde_json::Map<String, Value> = parameters
                .iter()
                .map(|(field, value)| ((*field).to_owned(), json!(value)))
                .collect();
            let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
                "metadata": {"name": self.name}, "data": data});
            self.apply(NAMESPACE, map)?;
            spec["infrastructure"] = json!({"parametersRef":
                {"group": "", "kind": "ConfigMap", "name": self.name}});
        }
        self.apply(
            NAMESPACE,
            json!({"apiVersion": "gateway.networking.k8s.io/v1", "kind": "Gateway",
                "metadata": {"name": self.name}, "spec": spec}),
        )
    }

    /// Makes or replaces a Secret with a certificate for these names, made now.
    pub fn certify(&self, namespace: &str, names: &[&str]) -> anyhow::Result<()> {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names)?;
        let data = json!({"tls.crt": made.cert.pem(), "tls.key": made.signing_key.serialize_pem()});
        self.apply(
            namespace,
            json!({"apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
                "metadata": {"name": self.name}, "stringData": data}),
        )
    }

    /// Permits this Gateway to use Secrets of that namespace.
    pub fn grant(&self, namespace: &str) -> anyhow::Result<()> {
        self.apply(
            namespace,
            json!({"apiVersion": "gateway.networking.k8s.io/v1beta1", "kind": "ReferenceGrant",
                "metadata": {"name": self.name}, "spec": {
                    "from": [{"group": "gateway.networking.k8s.io", "kind": "Gateway", "namespace": NAMESPACE}],
                    "to": [{"group": "", "kind": "Secret", "name": self.name}]}}),
        )
    }

    /// Takes the grant back.
    pub fn revoke(&self, namespace: &str) -> anyhow::Result<()> {
        let grant = ["delete", "referencegrants", self.name.as_str()];
        let words = [&["-n", namespace], &grant[..]].concat();
        self.cluster.kubectl(&words).map(drop)
    }

    /// Waits until all pods serve the Gateway as it is written now, and it has an address.
    pub fn programmed(&self) -> anyhow::Result<()> {
        let what = format!("Gateway {} is programmed", self.name);
        eventually(PROGRAMMED, &what, || {
            let object = self.object()?;
            let programmed = condition(&object["status"]["conditions"], "Programmed")?;
            ensure!(
                programmed["status"] == "True"
                    && programmed["observedGeneration"] == object["metadata"]["generation"],
                "{}",
                object["status"]
            );
            let addresses = object["status"]["addresses"].as_array();
            ensure!(
                addresses.is_some_and(|addresses| !addresses.is_empty()),
                "it has no address: {}",
                object["status"]
            );
            Ok(())
        })
    }

    /// As the API server has it.
    pub fn object(&self) -> anyhow::Result<Value> {
        let kind = "gateways.gateway.networking.k8s.io";
        self.cluster
            .json(&["-n", NAMESPACE, "get", kind, &self.name])
    }

    /// Name of its ServiceAccount, its Service and its Deployment.
    pub fn account(&self) -> String {
        format!("{}-weft", self.name)
    }

    /// `host:port` of its Service, by name.
    pub fn address(&self, port: u16) -> String {
        format!("{}.{NAMESPACE}:{port}", self.account())
    }

    /// Of its Service.
    pub fn url(&self, scheme: &str, port: u16, path: &str) -> String {
        format!("{scheme}://{}{path}", self.address(port))
    }

    /// A reference of a route to it.
    pub fn parent(&self) -> Value {
        json!({"group": "gateway.networking.k8s.io", "kind": "Gateway", "name": self.name,
            "namespace": NAMESPACE})
    }

    /// `kubectl` about its Deployment.
    pub fn rollout(&self, command: &str) -> anyhow::Result<()> {
        let deployment = format!("deployment/{}", self.account());
        let rollout = ["-n", NAMESPACE, "rollout", command, &deployment];
        self.cluster.kubectl(&rollout).map(drop)
    }

    fn apply(&self, namespace: &str, mut object: Value) -> anyhow::Result<()> {
        object["metadata"]["labels"] = json!({LABEL: self.name});
        self.cluster.apply(namespace, &object.to_string()).map(drop)
    }

    fn show(&self) {
        let pods = format!("gateway.networking.k8s.io/gateway-name={}", self.name);
        for args in [
            &[
                "get",
                "gateways.gateway.networking.k8s.io",
                &self.name,
                "-o",
                "yaml",
            ][..],
            &["get", "pods,services", "-l", &pods, "-o", "wide"],
            &["logs", "-l", &pods, "--prefix", "--tail=40"],
            &["get", "events", "--sort-by=.lastTimestamp"],
        ] {
            let output = self.cluster.kubectl(&[&["-n", NAMESPACE], args].concat());
            eprintln!("{}", output.unwrap_or_else(|error| format!("{error:#}")));
        }
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        if thread::panicking() {
            self.show();
        }
        if std::env::var_os("KEEP_NAMESPACES").is_some() {
            return;
        }
        let of_it = format!("{LABEL}={}", self.name);
        for namespace in [NAMESPACE, OF_OTHERS] {
            let delete = [
                "-n",
                namespace,
                "delete",
                KINDS,
                "-l",
                &of_it,
                "--wait=false",
            ];
            if let Err(error) = self.cluster.kubectl(&delete) {
                eprintln!("Gateway {} stays: {error:#}", self.name);
            }
        }
    }
}

/// A listener that routes of every namespace may attach to, with further fields.
pub fn listener(name: &str, port: u16, protocol: &str, fields: &Value) -> Value {
    let mut listener = json!({"name": name, "port": port, "protocol": protocol,
        "allowedRoutes": {"namespaces": {"from": "All"}}});
    for (key, value) in fields.as_object().into_iter().flatten() {
        listener[key] = value.clone();
    }
    listener
}

/// One of these conditions.
pub fn condition<'a>(conditions: &'a Value, kind: &str) -> anyhow::Result<&'a Value> {
    let mut all = conditions.as_array().into_iter().flatten();
    all.find(|condition| condition["type"] == kind)
        .with_context(|| format!("there is no {kind}: {conditions}"))
}
