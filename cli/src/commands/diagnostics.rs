//! `weft diagnostics`: collects a bundle of the mesh's state and logs for support.
//!
//! Claims: observe-64

mod archive;
mod clean;

use clap::Args;
use crds::observe::Resource;
use serde_json::Value;

use self::archive::Archive;
use self::clean::clean;
use crate::cluster::{Cluster, MOST_ANSWER, Refusal, existing};
use crate::commands::check::probes;
use crate::console::Console;
use crate::failure::{Conclusion, Failure};
use crate::global::Global;
use crate::kinds;
use crate::output::Format;

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
        "weft/certificateauthorities.json",
        "/apis/weft.dev/v1alpha1/certificateauthorities",
    ),
    (
        "weft/revocations.json",
        "/apis/weft.dev/v1alpha1/revocations",
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
/// Lists of objects that could hold a secret in their environment. Others than Weft's may stand in
/// its namespace.
const OWN: [&str; 2] = ["weft/deployments.json", "weft/pods.json"];
/// Lines of each log.
const LOG_LINES: u32 = 2_000;
/// Max pods of the control plane whose logs are read.
const MOST_PODS: usize = 10;
/// Components of the chart that have logs. Where there are too many pods the controllers' are
/// read first.
const COMPONENTS: [&str; 2] = ["controller", "injector"];

/// Arguments of `weft diagnostics`.
#[derive(Args, Debug)]
#[command(
    about = "Write a bundle with which a fault is found from afar",
    long_about = "Writes an archive (-o FILE.tgz) with the objects, Events and logs of the control \
                  plane, SMI objects and TrafficPolicies, proxies and the graph. No Secrets, no tokens, nothing of the \
                  users' pods but what their proxies say. What the user may not read, and what has no \
                  place in it, is named in left-out.txt. Names of objects and service accounts are in it: look before you \
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
        if Format::is_name(file) {
            return Err(Failure::usage(format!(
                "-o {file}: the bundle is an archive, and -o says where it goes: -o FILE.tgz, or \
                 ./{file} for a file of this name"
            )));
        }
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
/// When the cluster does not respond or does not know the user, the namespace of Weft that was
/// named does not exist, or the bundle cannot be packed.
pub(crate) async fn bundle(cluster: &Cluster) -> Result<(Vec<u8>, usize), Failure> {
    // Otherwise the bundle would be empty without a message.
    probes::version(cluster)
        .await
        .map_err(Refusal::into_failure)?;
    // Otherwise a misspelt namespace of Weft would give empty lists without a message.
    existing::must_have_weft_namespace(cluster).await?;
    let mut bundle = Bundle::default();
    let mut pods = Vec::new();
    let own = READ.iter().map(|(name, path)| {
        let path = path.replace("{weft}", cluster.weft_namespace());
        ((*name).to_owned(), path)
    });
    let kinds = kinds::all().into_iter();
    let kinds = kinds.map(|kind| (format!("objects/{}.json", kind.plural), kind.path()));
    for (name, path) in own.chain(kinds) {
        match cluster
            .try_read::<Value>(&asked_as(&name, &path), &path)
            .await
        {
            Ok(mut value) => {
                clean(&path, &mut value);
                if OWN.contains(&name.as_str()) {
                    let others = keep_own(&mut value);
                    let why = format!("{name}: {others} of others than Weft in its namespace");
                    bundle.left.extend((others > 0).then_some(why));
                }
                if name == "weft/pods.json" {
                    pods = control_plane(&value);
                }
                let text = serde_json::to_vec_pretty(&value)
                    .map_err(|error| Failure::unknown(format!("{name}: {error}")))?;
                bundle.put(&name, &text);
            }
            Err(refusal) => bundle.left.push(refusal.into_failure().to_string()),
        }
    }
    logs(cluster, &pods, &mut bundle).await?;
    bundle.packed()
}

/// The name under which a part is requested. Our own read API is requested by its resource, as by
/// all commands: a controller that will respond in a moment is retried, and an absent one is
/// distinguished from an API that is not served.
fn asked_as(name: &str, path: &str) -> String {
    let mut ours = Resource::ALL.into_iter();
    match ours.find(|resource| path.starts_with(&resource.path(None, None))) {
        Some(resource) => format!("{} for {name}", resource.plural()),
        None => name.to_owned(),
    }
}

/// What is put together, and why parts are not in it. One that does not fit takes no other
/// with it.
#[derive(Debug, Default)]
struct Bundle {
    archive: Archive,
    left: Vec<String>,
}

impl Bundle {
    fn put(&mut self, name: &str, content: &[u8]) {
        if let Err(why) = self.archive.add(name, content) {
            self.left.push(why.to_string());
        }
    }

    fn packed(mut self) -> Result<(Vec<u8>, usize), Failure> {
        let words = self.left.join("\n") + "\n";
        self.archive.add("left-out.txt", words.as_bytes())?;
        Ok((self.archive.packed()?, self.left.len()))
    }
}

/// Adds the logs of these pods, as many as there may be.
async fn logs(cluster: &Cluster, pods: &[String], bundle: &mut Bundle) -> Result<(), Failure> {
    let weft = cluster.weft_namespace();
    for (number, pod) in pods.iter().enumerate() {
        if number >= MOST_PODS {
            let why = format!("log of {pod}: logs of {MOST_PODS} pods are read, and no more");
            bundle.left.push(why);
            continue;
        }
        let path = format!("/api/v1/namespaces/{weft}/pods/{pod}/log?tailLines={LOG_LINES}");
        let what = format!("log of {pod}");
        match cluster.try_read_bytes(&what, &path, MOST_ANSWER).await {
            Ok(text) => bundle.put(&format!("logs/{pod}.log"), &text),
            Err(refusal) => bundle.left.push(refusal.into_failure().to_string()),
        }
    }
    Ok(())
}

/// Names of the pods of the control plane, by component. Pods of others may stand in the same
/// namespace, and before them in the list.
fn control_plane(list: &Value) -> Vec<String> {
    let items = list["items"].as_array().map_or(&[][..], Vec::as_slice);
    let of = |component: &'static str| {
        let own = items.iter().filter(move |item| {
            is_own(item) && item["metadata"]["labels"]["app.kubernetes.io/component"] == component
        });
        own.filter_map(|item| item["metadata"]["name"].as_str())
    };
    let names = COMPONENTS.into_iter().flat_map(of);
    names.map(ToOwned::to_owned).collect()
}

/// Takes the objects of others out of a list, and returns how many there were.
fn keep_own(list: &mut Value) -> usize {
    let items = list.get_mut("items").and_then(Value::as_array_mut);
    let Some(items) = items else {
        return 0;
    };
    let all = items.len();
    items.retain(is_own);
    all - items.len()
}

/// Whether the chart made it.
fn is_own(object: &Value) -> bool {
    object["metadata"]["labels"]["app.kubernetes.io/name"] == "weft"
}

#[cfg(test)]
mod startup;

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use clap::Parser as _;
    use fake_api::FakeApi;
    use flate2::read::GzDecoder;
    use serde_json::json;

    use super::clean::hide;
    use super::*;
    use crate::args::Cli;

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

    #[test]
    fn secrets_are_emptied_by_requested_or_declared_kind() {
        let list = |kind: &str| {
            let item = json!({"metadata": {"name": "s"}, "data": {"a": "c2VjcmV0"},
                "stringData": {"b": "secret"}});
            json!({"kind": kind, "items": [item]})
        };
        let cleaned = |path: &str, mut answer: Value| {
            clean(path, &mut answer);
            answer.to_string()
        };
        for (path, kind, hidden) in [
            ("/api/v1/namespaces/weft-system/secrets", "List", true),
            ("/api/v1/secrets?limit=5", "List", true),
            ("/apis/other.example/v1/things", "SecretList", true),
            // Control: what has a field of that name and is none.
            ("/api/v1/namespaces/secrets/configmaps", "List", false),
            ("/apis/other.example/v1/secrets", "List", false),
        ] {
            let text = cleaned(path, list(kind));
            let shown = text.contains("c2VjcmV0") || text.contains("secret");
            assert_eq!(!shown, hidden, "{path}: {text}");
            assert!(text.contains("\"s\""), "{path}: {text}");
        }
        let one = json!({"metadata": {"name": "s"}, "data": {"a": "c2VjcmV0"}});
        let text = cleaned("/api/v1/namespaces/shop/secrets/s", one);
        assert!(!text.contains("c2VjcmV0"), "{text}");
    }

    /// The contents of a bundle of a cluster with these pods in the namespace of the mesh.
    async fn unpacked(pods: &[(String, &str)]) -> String {
        let api = FakeApi::default();
        api.put(
            "/version",
            json!({"major": "1", "minor": "33", "gitVersion": "v1.33.2"}),
        );
        let all = "/api/v1/namespaces/weft-system/pods";
        let items = pods.iter().map(|(name, component)| {
            api.put(&format!("{all}/{name}/log"), json!({"said": name}));
            let labels = json!({"app.kubernetes.io/name": if component.is_empty() { "other" } else { "weft" },
                "app.kubernetes.io/component": component});
            json!({"metadata": {"name": name, "labels": labels}})
        });
        let items: Vec<Value> = items.collect();
        api.put(all, json!({ "items": items }));
        let global = Cli::try_parse_from(["weft", "version"]).unwrap().global;
        let (packed, left) = bundle(&Cluster::of(api.client(), &global)).await.unwrap();
        let mut text = Vec::new();
        GzDecoder::new(&*packed).read_to_end(&mut text).unwrap();
        let text = String::from_utf8_lossy(&text).into_owned();
        let words = text.split("weft-diagnostics/left-out.txt").nth(1).unwrap();
        assert!(words.matches('\n').count() >= left, "{words}");
        text
    }

    // Claims: observe-154
    #[tokio::test]
    async fn controller_logs_are_collected_beside_many_other_pods() {
        let mut pods: Vec<(String, &str)> = (0..12).map(|at| (format!("a-{at}"), "")).collect();
        pods.extend((0..9).map(|at| (format!("injector-{at}"), "injector")));
        pods.push(("weft-controller-1".to_owned(), "controller"));
        pods.push(("weft-controller-2".to_owned(), "controller"));
        let text = unpacked(&pods).await;
        for log in ["weft-controller-1", "weft-controller-2", "injector-7"] {
            assert!(text.contains(&format!("logs/{log}.log")), "{log}");
        }
        assert!(!text.contains("logs/a-0.log"), "it is not of the mesh");
        assert!(text.contains("log of injector-8: logs of 10 pods"), "cut");
        assert!(!text.contains("logs/injector-8.log"));
    }

    #[tokio::test]
    async fn foreign_objects_in_mesh_namespace_are_only_counted() {
        let api = FakeApi::default();
        api.put(
            "/version",
            json!({"major": "1", "minor": "33", "gitVersion": "v1.33.2"}),
        );
        for (folder, kind) in [("/api/v1", "pods"), ("/apis/apps/v1", "deployments")] {
            let of = |owner: &str, env: &str| {
                let env = json!([{"name": "A", "value": env}]);
                json!({"metadata": {"name": owner, "labels": {"app.kubernetes.io/name": owner}},
                    "spec": {"containers": [{"name": "a", "env": env}]}})
            };
            let items = [of("weft", "kept"), of("shop", "hunter2")];
            let path = format!("{folder}/namespaces/weft-system/{kind}");
            api.put(&path, json!({ "items": items }));
        }
        let global = Cli::try_parse_from(["weft", "version"]).unwrap().global;
        let (packed, _) = bundle(&Cluster::of(api.client(), &global)).await.unwrap();
        let mut text = String::new();
        GzDecoder::new(&*packed).read_to_string(&mut text).unwrap();
        assert_eq!(text.matches("kept").count(), 2, "{text}");
        assert!(!text.contains("hunter2"), "{text}");
        for list in OWN {
            assert!(text.contains(&format!("{list}: 1 of others")), "{text}");
        }
    }

    // Claims: observe-154
    #[tokio::test]
    async fn name_too_long_for_archive_is_skipped_alone() {
        let long = "weft-controller-".to_owned() + &"x".repeat(100);
        let pods = [
            (long.clone(), "controller"),
            ("weft-controller-2".to_owned(), "controller"),
        ];
        let text = unpacked(&pods).await;
        assert!(text.contains("logs/weft-controller-2.log"));
        assert!(text.contains(&format!("{long}.log is too long a name")));
    }

    #[tokio::test]
    async fn misspelt_weft_namespace_is_reported_without_empty_bundle() {
        let api = FakeApi::default();
        api.put(
            "/version",
            json!({"major": "1", "minor": "33", "gitVersion": "v1.33.2"}),
        );
        for name in ["weft-system", "mesh"] {
            let path = format!("/api/v1/namespaces/{name}");
            api.put(&path, json!({"metadata": {"name": name}}));
        }
        let bundled = async |namespace: &str| {
            let line = ["weft", "version", "--weft-namespace", namespace];
            let global = Cli::try_parse_from(line).unwrap().global;
            bundle(&Cluster::of(api.client(), &global)).await
        };
        let Err(Failure::Usage(words)) = bundled("weft-sytem").await else {
            panic!("a bundle");
        };
        assert_eq!(
            words,
            "there is no namespace weft-sytem; you may mean weft-system"
        );
        for there in ["weft-system", "mesh"] {
            assert!(bundled(there).await.is_ok(), "{there}");
        }
    }
}
