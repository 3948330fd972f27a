//! The webhook for pods, and for containers that are added to a running pod: reads the namespace,
//! lets `crds::inject` decide, and returns the patch to the API server.

use crds::inject::{self, HookToken, InjectionOutcome, PodDemand};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use serde_json::Value;
use tracing::info;

use crate::review::{About, AdmissionResponse, Request};
use crate::{releases, spelling};

/// Gives pods their proxies.
#[derive(Clone)]
pub(crate) struct Mutator {
    client: Client,
    settings: inject::Settings,
    /// Whether releases gate pods.
    with_releases: bool,
}

/// A pod, the one with a proxy, and the patch; later the patch twice.
pub(crate) const COPIES: usize = 3;

/// An answer, with what is counted about it.
#[derive(Debug)]
pub(crate) struct Mutation {
    pub(crate) answer: AdmissionResponse,
    /// `injected`, `unchanged`, `skipped` or `refused`.
    pub(crate) outcome: &'static str,
    /// From the closed lists of `crds::inject`, or empty.
    pub(crate) reason: &'static str,
    /// Of a pod that was given its proxy just now: what its namespace must admit.
    pub(crate) demand: Option<PodDemand>,
}

impl Mutator {
    pub(crate) fn new(client: Client, settings: inject::Settings) -> Self {
        Self {
            client,
            settings,
            with_releases: false,
        }
    }

    /// The same, which gates pods where `on` and their namespace's releases require that.
    pub(crate) fn gating(self, on: bool) -> Self {
        Self {
            with_releases: on,
            ..self
        }
    }

    /// The pod's namespace, read anew for every pod. A cache would be behind a namespace that was labelled a
    /// moment ago, and its first pods would come up without a proxy.
    ///
    /// # Errors
    /// When it cannot be read. The call then has no answer, so that the webhook's failure
    /// policy decides, and not this code.
    pub(crate) async fn namespace(&self, about: &About) -> Result<inject::Namespace, kube::Error> {
        let name = about.namespace.as_str();
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let read = namespaces.get_metadata(name);
        let (metadata, releases) = tokio::join!(read, self.releases(about));
        let metadata = metadata?.metadata;
        Ok(inject::Namespace {
            name: name.to_owned(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
            releases,
        })
    }

    async fn releases(&self, about: &About) -> inject::Releases {
        if self.with_releases && about.has_revision() {
            releases::read(&self.client, &about.namespace).await
        } else {
            inject::Releases::Ignored
        }
    }

    /// The answer for a new pod. Takes up to [`COPIES`] times what the pod takes.
    pub(crate) fn mutate(&self, request: &Request, namespace: &inject::Namespace) -> Mutation {
        let token = HookToken(rand::random());
        let outcome = inject::inject(&request.object, namespace, &self.settings, token);
        let mut mutation = Self::answer(request, outcome);
        if mutation.answer.refusal.is_none() {
            let warnings = &mut mutation.answer.warnings;
            warnings.extend(spelling::unread(request));
        }
        mutation
    }

    fn answer(request: &Request, outcome: Result<InjectionOutcome, inject::Refusal>) -> Mutation {
        match outcome {
            Ok(InjectionOutcome::Injected(injected)) => {
                let inject::Injected {
                    pod,
                    patch,
                    warnings,
                } = *injected;
                let demand = PodDemand::of(&pod);
                drop(pod);
                patched(&patch, warnings, demand)
            }
            Ok(InjectionOutcome::Skipped { reason, warning }) => Mutation {
                answer: AdmissionResponse {
                    warnings: warning.into_iter().collect(),
                    ..AdmissionResponse::allow()
                },
                outcome: "skipped",
                reason: reason.as_str(),
                demand: None,
            },
            Err(refusal) => {
                let pod = name_of(request);
                let namespace = request.namespace.as_str();
                let reason = refusal.as_str();
                info!(namespace, pod, reason, "pod cannot have a proxy");
                Mutation {
                    answer: AdmissionResponse::refuse(format!(
                        "weft cannot add its proxy to pod {namespace}/{pod}: {refusal}"
                    )),
                    outcome: "refused",
                    reason,
                    demand: None,
                }
            }
        }
    }
}

fn patched(patch: &json_patch::Patch, warnings: Vec<String>, demand: PodDemand) -> Mutation {
    let nothing = patch.0.is_empty();
    let patch = match serde_json::to_value(patch) {
        Ok(patch) => (!nothing).then_some(patch),
        // A patch is plain JSON; should it not be, the pod must not come up bare.
        Err(error) => {
            return Mutation {
                answer: AdmissionResponse::refuse(format!(
                    "the patch could not be written: {error}"
                )),
                outcome: "refused",
                reason: "internal",
                demand: None,
            };
        }
    };
    Mutation {
        answer: AdmissionResponse {
            patch,
            warnings,
            ..AdmissionResponse::allow()
        },
        outcome: if nothing { "unchanged" } else { "injected" },
        reason: "",
        demand: (!nothing).then_some(demand),
    }
}

/// The pod's name; what it will begin with while the name is still to be made.
fn name_of(request: &Request) -> &str {
    let generated = request
        .object
        .pointer("/metadata/generateName")
        .and_then(Value::as_str);
    match request.name.as_str() {
        "" => generated.unwrap_or("(without a name)"),
        name => name,
    }
}

/// The answer for one write of `pods/ephemeralcontainers`: containers that are added to a running
/// pod for debugging come without injection, into the network that the proxy guards.
pub(crate) fn ephemeral(request: &Request) -> AdmissionResponse {
    match inject::check_ephemeral(&request.object, &request.old_object) {
        Ok(()) => AdmissionResponse::allow(),
        Err(refusal) => AdmissionResponse::refuse(format!(
            "weft refuses this container in pod {}/{}: {refusal}",
            request.namespace, request.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(debugger: &Value) -> Option<String> {
        let pod = |more: Value| {
            json!({"spec": {
                "initContainers": [{"name": "weft-capture"}, {"name": "weft-proxy"}],
                "containers": [{"name": "app"}], "ephemeralContainers": more,
            }})
        };
        let request = json!({
            "uid": "u", "kind": {"group": "", "kind": "Pod"}, "namespace": "shop",
            "name": "web", "operation": "UPDATE", "subResource": "ephemeralcontainers",
            "object": pod(json!([debugger])), "oldObject": pod(json!([])),
        });
        ephemeral(&serde_json::from_value(request).unwrap()).refusal
    }

    #[test]
    fn only_debugger_running_as_proxy_user_is_refused() {
        let as_proxy = json!({"name": "d", "securityContext": {"runAsUser": 15190}});
        let why = refused(&as_proxy).unwrap();
        assert!(
            why.contains("pod shop/web: spec.ephemeralContainers[0].securityContext.runAsUser"),
            "{why}"
        );
        assert_eq!(refused(&json!({"name": "d", "image": "shell"})), None);
    }
}
