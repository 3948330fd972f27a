//! `weft diagnostics`: what somebody needs who shall find a fault from afar.

mod archive;

use clap::Args;
use serde_json::Value;

use self::archive::Archive;
use crate::cluster::{Cluster, Refusal};
use crate::commands::check::probes;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::kinds;

/// What is put into the bundle beside the objects that users wrote for the mesh: its name
/// there and its path at the API server. Secrets are
/// not among it, nor what could hold one: environments of users' pods, their ConfigMaps.
const READ: &[(&str, &str)] = &[
    ("version.json", "/version"),
    (
        "weft/deployments.json",
        "/apis/apps/v1/namespaces/{weft}/deployments",
    ),
    ("weft/pods.json", "/api/v1/namespaces/{weft}/pods"),
    ("weft/services.json", "/api/v1/namespaces/{weft}/services"),
    (
        "weft/events.json",
        "/apis/events.k8s.io/v1/namespaces/{weft}/events",
    ),
    (
        "weft/leases.json",
        "/apis/coordination.k8s.io/v1/namespaces/{weft}/leases",
    ),
    (
        "webhooks/mutating.json",
        "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector",
    ),
    (
        "webhooks/validating.json",
        "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weft-validator",
    ),
    (
        "api-services.json",
        "/apis/apiregistration.k8s.io/v1/apiservices",
    ),
    ("namespaces.json", "/api/v1/namespaces"),
    ("nodes.json", "/api/v1/nodes"),
    (
        "mesh/proxies.json",
        "/apis/observe.weft.dev/v1alpha1/proxies",
    ),
    (
        "mesh/graph.json",
        "/apis/observe.weft.dev/v1alpha1/graphs/live?window=300s",
    ),
];
/// Lines of each log.
const LOG_LINES: u32 = 2_000;
/// Most pods of the control plane whose logs are read.
const MOST_PODS: usize = 10;
/// Keys whose values are left out wherever they stand.
const HIDDEN: [&str; 3] = [
    "managedFields",
    "kubectl.kubernetes.io/last-applied-configuration",
    "token",
];

/// Arguments of `weft diagnostics`.
#[derive(Args, Debug)]
#[command(
    about = "Write a bundle for whoever shall find a fault from afar",
    long_about = "Writes an archive (-o FILE.tgz) with the objects, Events and logs of the control \
                  plane, SMI objects and TrafficPolicies, proxies and the graph. No Secrets, no tokens, nothing of the \
                  users' pods but what their proxies say. What the user may not read is named in \
                  left-out.txt. Names of objects and service accounts are in it: look before you \
                  give it away.",
    after_help = "Example:\n  weft diagnostics -o weft.tgz"
)]
pub(crate) struct Diagnostics {}

impl Diagnostics {
    /// Writes the bundle.
    ///
    /// # Errors
    /// When no file is named, or it cannot be written.
    pub(crate) async fn run(
        &self,
        global: &Global,
        console: &mut Console<'_>,
    ) -> Result<Conclusion, Failure> {
        let file = global
            .output
            .as_deref()
            .filter(|file| !file.is_empty())
            .ok_or_else(|| {
                Failure::usage("say where the bundle goes: -o FILE.tgz, or - for the output")
            })?;
        let cluster = Cluster::connect(global).await?;
        let (bundle, left) = bundle(&cluster).await?;
        if file == "-" {
            console.out.write_all(&bundle)?;
        } else {
            std::fs::write(file, &bundle)
                .map_err(|error| Failure::usage(format!("{file}: {error}")))?;
            console.word(&format!(
                "{file}: {} KiB, {left} parts left out",
                bundle.len() >> 10
            ))?;
        }
        Ok(Conclusion::Yes)
    }
}

/// The archive, and how many parts it is without.
///
/// # Errors
/// When nobody answers or the user is not known, or it cannot be packed.
pub(crate) async fn bundle(cluster: &Cluster) -> Result<(Vec<u8>, usize), Failure> {
    // Nobody is told of an empty archive that it is one.
    probes::version(cluster)
        .await
        .map_err(Refusal::into_failure)?;
    let mut archive = Archive::default();
    let mut left = Vec::new();
    let mut pods = Vec::new();
    let own = READ.iter().map(|(name, path)| {
        let path = path.replace("{weft}", cluster.weft_namespace());
        ((*name).to_owned(), path)
    });
    let kinds = kinds::all().into_iter();
    let kinds = kinds.map(|kind| (format!("objects/{}.json", kind.plural), kind.path()));
    for (name, path) in own.chain(kinds) {
        match cluster.try_read::<Value>(&name, &path).await {
            Ok(mut value) => {
                hide(&mut value);
                if name == "weft/pods.json" {
                    pods = names(&value);
                }
                let text = serde_json::to_vec_pretty(&value)
                    .map_err(|error| Failure::unknown(format!("{name}: {error}")))?;
                archive.add(&name, &text)?;
            }
            Err(refusal) => left.push(refusal.into_failure().to_string()),
        }
    }
    for pod in pods.iter().take(MOST_PODS) {
        let weft = cluster.weft_namespace();
        let path = format!("/api/v1/namespaces/{weft}/pods/{pod}/log?tailLines={LOG_LINES}");
        let request = http::Request::get(&path)
            .body(Vec::new())
            .map_err(|error| Failure::unknown(error.to_string()))?;
        let client = cluster.client();
        match cluster
            .try_ask(&format!("log of {pod}"), client.request_text(request))
            .await
        {
            Ok(text) => archive.add(&format!("logs/{pod}.log"), text.as_bytes())?,
            Err(refusal) => left.push(refusal.into_failure().to_string()),
        }
    }
    let count = left.len();
    archive.add("left-out.txt", (left.join("\n") + "\n").as_bytes())?;
    Ok((archive.packed()?, count))
}

fn names(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().into_iter().flatten();
    items
        .filter_map(|item| item["metadata"]["name"].as_str())
        .map(ToOwned::to_owned)
        .collect()
}

/// Takes out what nobody needs or nobody may see. A Secret that somebody put under another
/// path is emptied, too.
fn hide(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|key, _| !HIDDEN.contains(&key.as_str()));
            if fields.get("kind").is_some_and(|kind| kind == "Secret") {
                fields.remove("data");
                fields.remove("stringData");
            }
            for value in fields.values_mut() {
                hide(value);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(hide),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn secrets_and_tokens_are_taken_out_wherever_they_stand() {
        let mut value = json!({"items": [
            {"kind": "Secret", "data": {"a": "c2VjcmV0"}, "stringData": {"b": "secret"}, "metadata": {"name": "s"}},
            {"spec": {"token": "secret", "list": [[{"token": "secret"}]]}, "metadata": {"managedFields": ["secret"],
             "annotations": {"kubectl.kubernetes.io/last-applied-configuration": "secret", "a": "kept"}}},
        ]});
        hide(&mut value);
        let text = value.to_string();
        assert!(
            !text.contains("secret") && !text.contains("c2VjcmV0"),
            "{text}"
        );
        assert!(text.contains("kept") && text.contains("\"s\""), "{text}");
    }
}
