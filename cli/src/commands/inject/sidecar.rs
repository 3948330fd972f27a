//! `weft inject --manual` and its reverse: adds and removes the sidecar with the webhook's code.

use std::collections::{BTreeMap, BTreeSet};

use crds::inject::{
    self, Architectures, CaptureMode, DefaultLimits, HookToken, InjectionOutcome, Namespace,
    Settings,
};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1 as k8s;
use kube::Api;
use policy::well_known::{CONTROLLER, INJECTOR};
use serde_json::{Value, json};

use super::template::Template;
use crate::cluster::{Cluster, existing};
use crate::failure::Failure;
use crate::global::Global;

/// The injector's variable with what redirects the traffic of pods.
const CAPTURE_MODE: &str = "WEFT_CAPTURE_MODE";
/// Label of every node: its processor.
const ARCH: &str = "kubernetes.io/arch";
/// The default of Kubernetes.
const DEFAULT: &str = "default";
/// Members of an injected pod that a template may have.
const MEMBERS: [&str; 2] = ["metadata", "spec"];

/// What the sidecar depends on beside the pod.
#[derive(Debug)]
pub(super) struct Sidecar {
    settings: Settings,
    /// `-n`.
    named: Option<String>,
    /// Annotations of namespaces, which are defaults for pods; `None` if no cluster was queried.
    annotations: Option<BTreeMap<String, BTreeMap<String, String>>>,
}

impl Sidecar {
    /// As the cluster's webhook has it, for pods of these namespaces; or with this image, without a
    /// query to a cluster.
    ///
    /// # Errors
    /// When the cluster does not respond, or the namespace of Weft that was named does not exist.
    pub(super) async fn of(
        global: &Global,
        image: Option<&str>,
        mut namespaces: BTreeSet<String>,
    ) -> Result<Self, Failure> {
        let named = global.namespace.clone();
        if let Some(image) = image {
            let settings = read_settings(&global.weft_namespace, |name| match name {
                "WEFT_PROXY_IMAGE" => Some(image.to_owned()),
                _ => None,
            });
            return Ok(Self {
                settings: settings?,
                named,
                annotations: None,
            });
        }
        let cluster = Cluster::connect(global).await?;
        let settings = settings(&cluster, &global.weft_namespace).await?;
        namespaces.insert(named.clone().unwrap_or_else(|| DEFAULT.to_owned()));
        let mut annotations = BTreeMap::new();
        for namespace in namespaces {
            let found = of_namespace(&cluster, &namespace).await?;
            annotations.insert(namespace, found);
        }
        Ok(Self {
            settings,
            named,
            annotations: Some(annotations),
        })
    }

    /// The template with the sidecar.
    ///
    /// # Errors
    /// Why it cannot have one, as a clause about it.
    pub(super) fn add(
        &self,
        template: &Template,
        words: &mut Vec<String>,
    ) -> Result<Value, String> {
        let own = template.namespace.as_deref();
        let named = self.named.as_deref();
        if let (Some(own), Some(named)) = (own, named)
            && own != named
        {
            return Err(format!("is of namespace {own}, and -n says {named}"));
        }
        let name = own.or(named);
        if name.is_none() {
            words.push(format!(
                "says no namespace, {DEFAULT} is meant; say another with -n"
            ));
        }
        let name = name.unwrap_or(DEFAULT);
        let annotations = self.annotations.as_ref().and_then(|all| all.get(name));
        if self.annotations.is_none() {
            words.push(format!(
                "annotations of namespace {name} are not looked at, because --proxy-image asks no \
                 cluster"
            ));
        }
        // The command itself requests injection, whatever the namespace has; a pod's own label
        // still counts.
        let label = (
            crds::labels::INJECT.to_owned(),
            crds::labels::ENABLED.to_owned(),
        );
        let namespace = Namespace {
            name: name.to_owned(),
            labels: BTreeMap::from([label]),
            annotations: annotations.cloned().unwrap_or_default(),
            // A template is of every revision.
            releases: inject::Releases::Ignored,
        };
        injected(template, &namespace, &self.settings, words)
    }
}

/// The template without a sidecar.
///
/// # Errors
/// Why it cannot be taken out, as a clause about it.
pub(super) fn take_out(template: &Template, words: &mut Vec<String>) -> Result<Value, String> {
    match inject::remove(&template.value) {
        Err(refusal) => Err(refusal.to_string()),
        Ok(Some(without)) => {
            words.extend(unread_annotations(&template.value, &without));
            Ok(without)
        }
        Ok(None) => {
            words.push("stays as it is: it holds no sidecar of inject --manual".to_owned());
            Ok(template.value.clone())
        }
    }
}

/// Fields that the user may have written with the same value as injection.
fn unread_annotations(with: &Value, without: &Value) -> Vec<String> {
    let mut words = Vec::new();
    let nodes = without.pointer("/spec/nodeSelector");
    if let Some(arch) = nodes.and_then(|nodes| nodes.get(ARCH)?.as_str()) {
        words.push(format!(
            "keeps nodeSelector {ARCH}: {arch}; remove it if it was not yours"
        ));
    }
    if is_limited_by_affinity(without) {
        words.push(format!(
            "keeps nodeAffinity for {ARCH}; remove it if it was not yours"
        ));
    }
    for (with, without) in containers(with).iter().zip(containers(without)) {
        let sleep = with.pointer("/lifecycle/preStop/sleep/seconds");
        if let Some(seconds) = sleep
            && without.pointer("/lifecycle/preStop").is_none()
        {
            let name = with["name"].as_str().unwrap_or_default();
            words.push(format!(
                "container {name} loses its preStop hook, a sleep of {seconds} s; write it again \
                 if it was yours"
            ));
        }
    }
    words
}

/// Whether required node affinity names the processor.
fn is_limited_by_affinity(pod: &Value) -> bool {
    let required = &pod["spec"]["affinity"]["nodeAffinity"];
    let required = &required["requiredDuringSchedulingIgnoredDuringExecution"];
    let terms = required["nodeSelectorTerms"].as_array();
    let mut expressions = terms
        .into_iter()
        .flatten()
        .flat_map(|term| term["matchExpressions"].as_array().into_iter().flatten());
    expressions.any(|one| one["key"] == ARCH)
}

fn containers(pod: &Value) -> &[Value] {
    let containers = pod.pointer("/spec/containers");
    containers
        .and_then(Value::as_array)
        .map_or(&[], Vec::as_slice)
}

/// The annotations of a namespace; none of one that is yet to be made.
async fn of_namespace(cluster: &Cluster, name: &str) -> Result<BTreeMap<String, String>, Failure> {
    let api: Api<k8s::Namespace> = Api::all(cluster.client());
    let what = format!("Namespace {name}");
    match cluster.try_call(&what, api.get(name)).await {
        Ok(namespace) => Ok(namespace.metadata.annotations.unwrap_or_default()),
        Err(refusal) if refusal.is_missing() => Ok(BTreeMap::new()),
        Err(refusal) => Err(refusal.into_failure()),
    }
}

/// What the installation puts into every proxy, as its injector is configured.
async fn settings(cluster: &Cluster, namespace: &str) -> Result<Settings, Failure> {
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), namespace);
    let what = format!("Deployment {namespace}/{INJECTOR}");
    let deployment = match cluster.try_call(&what, deployments.get(INJECTOR)).await {
        Ok(deployment) => deployment,
        Err(refusal) => {
            // A misspelt namespace of Weft is reported as that, and not as a missing object there.
            if refusal.is_missing() || refusal.is_forbidden() {
                existing::must_have_weft_namespace(cluster).await?;
            }
            return Err(refusal.into_failure());
        }
    };
    let environment = deployment
        .spec
        .and_then(|spec| spec.template.spec)
        .and_then(|spec| spec.containers.into_iter().next())
        .and_then(|container| container.env)
        .unwrap_or_default();
    read_settings(namespace, |name| {
        let variable = environment.iter().find(|variable| variable.name == name)?;
        variable.value.clone()
    })
}

fn read_settings(
    namespace: &str,
    read: impl Fn(&str) -> Option<String>,
) -> Result<Settings, Failure> {
    let proxy_image = read("WEFT_PROXY_IMAGE").ok_or_else(|| {
        Failure::unknown(format!(
            "Deployment {namespace}/{INJECTOR} does not say the proxy's image; say it with \
             --proxy-image"
        ))
    })?;
    let or = |name: &str, default: String| read(name).unwrap_or(default);
    let domain = or("WEFT_CLUSTER_DOMAIN", "cluster.local".to_owned());
    let mode = or(CAPTURE_MODE, "init".to_owned());
    let capture = mode.parse::<CaptureMode>().map_err(|reason| {
        Failure::unknown(format!(
            "{CAPTURE_MODE} of Deployment {namespace}/{INJECTOR} is {mode:?} and {reason}; use the \
             command of its version"
        ))
    })?;
    // An injector of a newer version may know more of them.
    let architectures = read("WEFT_PROXY_ARCHITECTURES").map(|text| text.parse::<Architectures>());
    let architectures = architectures.transpose().map_err(|error| {
        Failure::unknown(format!(
            "Deployment {namespace}/{INJECTOR}: WEFT_PROXY_ARCHITECTURES: {error}"
        ))
    })?;
    Ok(Settings {
        proxy_image,
        architectures: architectures.unwrap_or_default(),
        proxy_pull_policy: or("WEFT_PROXY_PULL_POLICY", "IfNotPresent".to_owned()),
        controller_address: or(
            "WEFT_CONTROLLER_ADDRESS",
            format!("{CONTROLLER}.{namespace}.svc.{domain}.:8443"),
        ),
        controller_namespace: namespace.to_owned(),
        trust_domain: or("WEFT_TRUST_DOMAIN", "cluster.local".to_owned()),
        version: or("WEFT_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
        compatibility_series: or("WEFT_COMPATIBILITY_SERIES", String::new()),
        guaranteed_cpu: or("WEFT_GUARANTEED_CPU", Settings::GUARANTEED_CPU.to_owned()),
        guaranteed_memory: or(
            "WEFT_GUARANTEED_MEMORY",
            Settings::GUARANTEED_MEMORY.to_owned(),
        ),
        limits: DefaultLimits {
            cpu: read("WEFT_PROXY_CPU_LIMIT"),
            memory: read("WEFT_PROXY_MEMORY_LIMIT"),
        },
        capture,
    })
}

fn injected(
    template: &Template,
    namespace: &Namespace,
    settings: &Settings,
    words: &mut Vec<String>,
) -> Result<Value, String> {
    let mut pod = template.value.clone();
    if let Some(pod) = pod.as_object_mut() {
        pod.insert("apiVersion".to_owned(), json!("v1"));
        pod.insert("kind".to_owned(), json!("Pod"));
    }
    let token = HookToken(rand::random());
    match inject::inject(&pod, namespace, settings, token) {
        Err(refusal) => Err(refusal.to_string()),
        Ok(InjectionOutcome::Skipped { reason, warning }) => {
            words.push(warning.unwrap_or_else(|| format!("stays as it is: {}", reason.as_str())));
            Ok(template.value.clone())
        }
        Ok(InjectionOutcome::Injected(injected)) => {
            words.extend(injected.warnings.iter().cloned());
            let mut new = template.value.clone();
            for member in MEMBERS {
                if let (Some(value), Some(new)) = (injected.pod.get(member), new.as_object_mut()) {
                    new.insert(member.to_owned(), value.clone());
                }
            }
            Ok(new)
        }
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;
    use fake_api::FakeApi;

    use super::*;
    use crate::args::Cli;

    #[test]
    fn architectures_of_the_injector_count_for_the_command() {
        let read = |architectures: Option<&str>| {
            read_settings("mesh", |name| match name {
                "WEFT_PROXY_IMAGE" => Some("registry.example/weft/proxy:1".to_owned()),
                "WEFT_PROXY_ARCHITECTURES" => architectures.map(str::to_owned),
                _ => None,
            })
        };
        let both = read(Some("amd64,arm64")).unwrap().architectures;
        assert_eq!(both.to_string(), "amd64 and arm64");
        // An injector of an older version, whose images are for one.
        assert_eq!(read(None).unwrap().architectures, Architectures::default());
        let words = read(Some("amd64,riscv64")).unwrap_err().to_string();
        for part in ["mesh/weft-injector", "riscv64"] {
            assert!(words.contains(part), "{words}");
        }
    }

    #[test]
    fn kept_node_affinity_for_the_processor_is_reported() {
        let keeps = |key: &str| {
            let terms = json!([{"matchFields": []}, {"matchExpressions": [{"key": key}]}]);
            let required = json!({"nodeSelectorTerms": terms});
            let nodes = json!({"requiredDuringSchedulingIgnoredDuringExecution": required});
            let pod = json!({"spec": {"affinity": {"nodeAffinity": nodes}}});
            unread_annotations(&pod, &pod)
        };
        let words = keeps(ARCH).join("\n");
        assert!(
            words.contains("keeps nodeAffinity for kubernetes.io/arch"),
            "{words}"
        );
        assert_eq!(keeps("disk"), [""; 0]);
    }

    #[tokio::test]
    async fn weft_namespace_is_verified_only_without_injector() {
        let api = FakeApi::default();
        let namespace = |name: &str| format!("/api/v1/namespaces/{name}");
        for name in ["weft-system", "mesh", "empty"] {
            api.put(&namespace(name), json!({"metadata": {"name": name}}));
        }
        let env = json!([{"name": "WEFT_PROXY_IMAGE", "value": "registry.example/weft/proxy:1"}]);
        let containers = json!([{"name": "injector", "env": env}]);
        api.put(
            "/apis/apps/v1/namespaces/mesh/deployments/weft-injector",
            json!({"metadata": {"name": "weft-injector"}, "spec": {"selector": {},
                "template": {"spec": {"containers": containers}}}}),
        );
        let asked = async |weft: &str| {
            let line = ["weft", "version", "--weft-namespace", weft];
            let global = Cli::try_parse_from(line).unwrap().global;
            settings(&Cluster::of(api.client(), &global), weft).await
        };
        let ended = asked("weft-sytem").await;
        let Err(Failure::Usage(words)) = ended else {
            panic!("{ended:?}");
        };
        assert_eq!(
            words,
            "there is no namespace weft-sytem; you may mean weft-system"
        );
        // Control: one that is there without Weft, and the usual one.
        for there in ["empty", "weft-system"] {
            let words = asked(there).await.unwrap_err().to_string();
            let missing = format!("Deployment {there}/weft-injector: ");
            assert!(words.starts_with(&missing), "{words}");
        }
        assert!(asked("mesh").await.is_ok());
        let reads = ["weft-system", "mesh", "empty"].map(|name| api.reads(&namespace(name)));
        assert_eq!(reads, [0, 0, 1]);
    }
}
