//! `weft inject --manual`: the sidecar itself, by the code of the webhook.

use crds::inject::{self, HookToken, Namespace, Outcome, Settings};
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use policy::well_known::{CONTROLLER, INJECTOR};
use serde_json::{Value, json};

use super::template::Template;
use crate::cluster::Cluster;
use crate::failure::Failure;
use crate::global::Global;

/// Members of an injected pod that a template may have.
const MEMBERS: [&str; 2] = ["metadata", "spec"];

/// What the installation puts into every proxy: as its injector was told, or with this
/// image and all else as the chart has it.
pub(super) async fn settings(global: &Global, image: Option<&str>) -> Result<Settings, Failure> {
    let namespace = global.weft_namespace.clone();
    if let Some(image) = image {
        return told(&namespace, |name| match name {
            "WEFT_PROXY_IMAGE" => Some(image.to_owned()),
            _ => None,
        });
    }
    let cluster = Cluster::connect(global).await?;
    let deployments: Api<Deployment> = Api::namespaced(cluster.client(), &namespace);
    let what = format!("Deployment {namespace}/{INJECTOR}");
    let deployment = cluster.ask(&what, deployments.get(INJECTOR)).await?;
    let environment = deployment
        .spec
        .and_then(|spec| spec.template.spec)
        .and_then(|spec| spec.containers.into_iter().next())
        .and_then(|container| container.env)
        .unwrap_or_default();
    told(&namespace, |name| {
        let variable = environment.iter().find(|variable| variable.name == name)?;
        variable.value.clone()
    })
}

fn told(namespace: &str, read: impl Fn(&str) -> Option<String>) -> Result<Settings, Failure> {
    let proxy_image = read("WEFT_PROXY_IMAGE").ok_or_else(|| {
        Failure::unknown(format!(
            "Deployment {namespace}/{INJECTOR} does not say the proxy's image; say it with \
             --proxy-image"
        ))
    })?;
    let or = |name: &str, default: String| read(name).unwrap_or(default);
    let domain = or("WEFT_CLUSTER_DOMAIN", "cluster.local".to_owned());
    Ok(Settings {
        proxy_image,
        proxy_pull_policy: or("WEFT_PROXY_PULL_POLICY", "IfNotPresent".to_owned()),
        controller_address: or(
            "WEFT_CONTROLLER_ADDRESS",
            format!("{CONTROLLER}.{namespace}.svc.{domain}.:8443"),
        ),
        controller_namespace: namespace.to_owned(),
        trust_domain: or("WEFT_TRUST_DOMAIN", "cluster.local".to_owned()),
        version: or("WEFT_VERSION", env!("CARGO_PKG_VERSION").to_owned()),
        compatibility_series: or("WEFT_COMPATIBILITY_SERIES", String::new()),
    })
}

/// The template with the sidecar.
///
/// # Errors
/// Why it cannot have one, as a clause about it.
pub(super) fn add(
    template: &Template,
    namespace: Option<&str>,
    settings: &Settings,
    words: &mut Vec<String>,
) -> Result<Value, String> {
    let name = namespace.or(template.namespace.as_deref());
    let mut asking = Namespace {
        name: name.unwrap_or("default").to_owned(),
        ..Namespace::default()
    };
    // Who types the command asks for it, whatever the namespace says; a pod's own word
    // still counts.
    let enabled = crds::labels::ENABLED.to_owned();
    asking
        .labels
        .insert(crds::labels::INJECT.to_owned(), enabled);
    if name.is_none() {
        words.push("says no namespace, default is meant; say another with -n".to_owned());
    }
    let mut pod = template.value.clone();
    if let Some(pod) = pod.as_object_mut() {
        pod.insert("apiVersion".to_owned(), json!("v1"));
        pod.insert("kind".to_owned(), json!("Pod"));
    }
    let token = HookToken(rand::random());
    match inject::inject(&pod, &asking, settings, token) {
        Err(refusal) => Err(refusal.to_string()),
        Ok(Outcome::Skipped { reason, warning }) => {
            words.push(warning.unwrap_or_else(|| format!("stays as it is: {}", reason.as_str())));
            Ok(template.value.clone())
        }
        Ok(Outcome::Injected(injected)) => {
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
