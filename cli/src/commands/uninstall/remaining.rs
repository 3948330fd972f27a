//! Finds what in the cluster still needs the mesh, and prints the commands that end this:
//! definitions that its injector converts for, and pods with its proxy.
//!
//! The commands are printed and not run, as the manifests are. A patch names the versions that it
//! expects, so that the API server refuses it for a definition that has changed since.

use std::collections::BTreeSet;

use crds::label_syntax::is_dns_subdomain;
use crds::objects::{GATEWAY_CONTAINER, PROXY_CONTAINER};
use crds::restart::Owner;
use crds::smi::CONVERSION_SERVICE;
use gateway_api::gateway::NAME_LABEL;
use serde_json::{Value, json};

use crate::cluster::Cluster;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::kinds;

/// Pods per request, as kubectl does.
const PAGE: &str = "500";

/// Prints to the error stream what still needs the mesh. No: pods still have a proxy.
///
/// # Errors
/// When the error stream cannot be written.
pub(super) async fn report(
    cluster: &Cluster,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let mut conclusion = Conclusion::Yes;
    match conversions(cluster).await {
        Ok(lines) => {
            for line in lines {
                console.word(&line)?;
            }
        }
        Err(failure) => {
            conclusion = unknown("which definitions the mesh converts for", &failure, console)?;
        }
    }
    match Meshed::read(cluster).await {
        Ok(meshed) if meshed.pods == 0 => console.word("no pod has a proxy")?,
        Ok(meshed) => {
            for line in meshed.lines() {
                console.word(&line)?;
            }
            conclusion = Conclusion::No;
        }
        Err(failure) => conclusion = unknown("which pods have a proxy", &failure, console)?,
    }
    Ok(conclusion)
}

/// Prints that something was not found out. What the command has printed is the same without it.
///
/// # Errors
/// As [`report`].
pub(super) fn unknown(
    what: &str,
    failure: &Failure,
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    console.word(&format!("{what} is not known: {failure}"))?;
    Ok(Conclusion::Unknown)
}

/// What is to be done with the definitions that the injector converts for.
async fn conversions(cluster: &Cluster) -> Result<Vec<String>, Failure> {
    let mut lines = Vec::new();
    for kind in kinds::all() {
        let name = kind.definition();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let what = format!("definition {name}");
        match cluster.try_read::<Value>(&what, &path).await {
            Ok(definition) => lines.extend(conversion(&name, &definition)),
            Err(refusal) if refusal.is_missing() => {}
            Err(refusal) => return Err(refusal.into_failure()),
        }
    }
    Ok(lines)
}

/// The same of one definition.
fn conversion(name: &str, definition: &Value) -> Vec<String> {
    let spec = &definition["spec"];
    if spec["conversion"]["webhook"]["clientConfig"]["service"]["name"] != CONVERSION_SERVICE {
        return Vec::new();
    }
    let versions = || each(&spec["versions"]);
    let storage = versions().find(|version| version["storage"] == true);
    let storage = storage.map_or(&Value::Null, |version| &version["name"]);
    let stored = each(&definition["status"]["storedVersions"]);
    let older: Vec<&str> = stored
        .filter(|version| *version != storage)
        .filter_map(Value::as_str)
        .collect();
    let mut lines = Vec::new();
    if !older.is_empty() {
        let status = json!({"status": {"storedVersions": [storage]}});
        lines.push(format!(
            "objects of {name} may be stored in {}, which no client can read without the injector; \
             while it runs, this writes them anew, and only then notes it:",
            older.join(", ")
        ));
        lines.push(format!(
            "  (test -z \"$(kubectl get {name} -A -o name)\" || kubectl get {name} -A -o json | \
             kubectl replace -f -) && \
             kubectl patch crd {name} --subresource=status --type=merge -p '{status}'"
        ));
    }
    // What was read still holds, and every object is stored in the version that stays.
    let mut operations = vec![
        json!({"op": "test", "path": "/metadata/generation", "value": definition["metadata"]["generation"]}),
        json!({"op": "test", "path": "/status/storedVersions", "value": [storage]}),
    ];
    for (index, version) in versions().enumerate() {
        if version["name"] != *storage && version["served"] == true {
            let path = |field: &str| format!("/spec/versions/{index}/{field}");
            let (name, served) = (path("name"), path("served"));
            operations.push(json!({"op": "test", "path": name, "value": version["name"]}));
            operations.push(json!({"op": "replace", "path": served, "value": false}));
        }
    }
    let none = json!({"strategy": "None"});
    operations.push(json!({"op": "replace", "path": "/spec/conversion", "value": none}));
    lines.push(format!(
        "objects of {name} are converted by the mesh, and lists of other versions fail without it; \
         this serves {} alone:",
        storage.as_str().unwrap_or_default()
    ));
    lines.push(format!(
        "  kubectl patch crd {name} --type=json -p '{}'",
        Value::Array(operations)
    ));
    lines
}

/// Pods that still have a proxy, or are one, and what takes it out of them.
#[derive(Debug, Default)]
struct Meshed {
    pods: usize,
    /// Of these, the pods of Gateways.
    of_gateways: usize,
    /// Namespace and name of these Gateways. Their Deployments would make the pods anew.
    gateways: BTreeSet<(String, String)>,
    /// Namespace, and a workload as `kubectl rollout restart` has it.
    workloads: BTreeSet<(String, String)>,
    /// Namespace, and a pod of no such workload.
    alone: BTreeSet<(String, String)>,
}

impl Meshed {
    /// Of all namespaces.
    async fn read(cluster: &Cluster) -> Result<Self, Failure> {
        let mut meshed = Self::default();
        let mut next = String::new();
        loop {
            let mut query = form_urlencoded::Serializer::new(String::new());
            query.append_pair("limit", PAGE);
            if !next.is_empty() {
                query.append_pair("continue", &next);
            }
            let path = format!("/api/v1/pods?{}", query.finish());
            let page: Value = cluster.read("pods", &path).await?;
            for pod in each(&page["items"]) {
                meshed.add(pod);
            }
            let token = page["metadata"]["continue"].as_str();
            match token.filter(|token| !token.is_empty()) {
                Some(token) => token.clone_into(&mut next),
                None => return Ok(meshed),
            }
        }
    }

    fn add(&mut self, pod: &Value) {
        let has = |containers: &str, name: &str| {
            let mut containers = each(&pod["spec"][containers]);
            containers.any(|container| container["name"] == name)
        };
        let has_proxy = has("initContainers", PROXY_CONTAINER);
        let is_gateway = !has_proxy && has("containers", GATEWAY_CONTAINER);
        let phase = pod["status"]["phase"].as_str();
        if !(has_proxy || is_gateway) || matches!(phase, Some("Succeeded" | "Failed")) {
            return;
        }
        self.pods += 1;
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let namespace = text(&pod["metadata"]["namespace"]);
        let gateway = pod["metadata"]["labels"][NAME_LABEL].as_str();
        // As of workloads, the pod's author chooses the name, and an administrator pastes this.
        let gateway = gateway.filter(|name| is_gateway && is_dns_subdomain(name));
        if let Some(gateway) = gateway {
            self.of_gateways += 1;
            self.gateways.insert((namespace, gateway.to_owned()));
            return;
        }
        match Owner::of(pod).and_then(|owner| owner.restartable()) {
            Some(workload) => self.workloads.insert((namespace, workload)),
            None => {
                let name = text(&pod["metadata"]["name"]);
                self.alone.insert((namespace, name))
            }
        };
    }

    fn lines(&self) -> Vec<String> {
        let workloads = self.workloads.iter();
        let alone = self.alone.iter();
        let first = format!(
            "{} pods have a proxy until they are made anew; once what is printed above is deleted and \
             label weft.dev/inject is taken from their namespaces, these do it:",
            self.pods
        );
        let note = (!self.alone.is_empty()).then(|| {
            "nothing may make these anew, and a pod of a Job counts as failed:".to_owned()
        });
        let gateways = self.gateways.iter();
        let of_gateways = (!self.gateways.is_empty()).then(|| {
            format!(
                "{} of them are pods of Gateways, which go with their Gateway:",
                self.of_gateways
            )
        });
        [first]
            .into_iter()
            .chain(workloads.map(|(namespace, workload)| {
                format!("  kubectl -n {namespace} rollout restart {workload}")
            }))
            .chain(note)
            .chain(
                alone.map(|(namespace, pod)| format!("  kubectl -n {namespace} delete pod {pod}")),
            )
            .chain(of_gateways)
            .chain(gateways.map(|(namespace, gateway)| {
                format!(
                    "  kubectl -n {namespace} delete gateways.gateway.networking.k8s.io {gateway}"
                )
            }))
            .collect()
    }
}

fn each(list: &Value) -> impl Iterator<Item = &Value> {
    list.as_array().into_iter().flatten()
}

#[cfg(test)]
mod tests;
