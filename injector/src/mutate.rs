//! Answers for pods: fetches the namespace, asks `crds::inject`, says it to the
//! API server.

use crds::inject::{self, HookToken, Outcome};
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, Client};
use serde_json::Value;
use tracing::info;

use crate::review::{AdmissionResponse, Request};

/// Gives pods their proxies.
#[derive(Clone)]
pub(crate) struct Mutator {
    namespaces: Api<Namespace>,
    settings: inject::Settings,
}

/// An answer, with what is counted about it.
#[derive(Debug)]
pub(crate) struct Mutation {
    pub(crate) answer: AdmissionResponse,
    /// `injected`, `unchanged`, `skipped`, `refused` or `ignored`.
    pub(crate) outcome: &'static str,
    /// From the closed lists of `crds::inject`, or empty.
    pub(crate) reason: &'static str,
}

impl Mutator {
    pub(crate) fn new(client: Client, settings: inject::Settings) -> Self {
        Self {
            namespaces: Api::all(client),
            settings,
        }
    }

    /// # Errors
    /// When the namespace cannot be read. The call then has no answer, so that the
    /// webhook's failure policy decides, and not this code.
    pub(crate) async fn mutate(&self, request: &Request) -> Result<Mutation, kube::Error> {
        let pod_is_made = request.kind.kind == "Pod"
            && request.kind.group.is_empty()
            && request.operation == "CREATE"
            && request.sub_resource.as_deref().is_none_or(str::is_empty);
        if !pod_is_made {
            return Ok(Mutation {
                answer: AdmissionResponse::allow(),
                outcome: "ignored",
                reason: "",
            });
        }
        let namespace = self.namespace(&request.namespace).await?;
        let token = HookToken(rand::random());
        let outcome = inject::inject(&request.object, &namespace, &self.settings, token);
        Ok(self.answer(request, outcome))
    }

    /// Read anew for every pod. A cache would be behind a namespace that was labelled a
    /// moment ago, and its first pods would come up without a proxy.
    async fn namespace(&self, name: &str) -> Result<inject::Namespace, kube::Error> {
        let metadata = self.namespaces.get_metadata(name).await?.metadata;
        Ok(inject::Namespace {
            name: name.to_owned(),
            labels: metadata.labels.unwrap_or_default(),
            annotations: metadata.annotations.unwrap_or_default(),
        })
    }

    fn answer(&self, request: &Request, outcome: Result<Outcome, inject::Refusal>) -> Mutation {
        match outcome {
            Ok(Outcome::Injected(injected)) if injected.patch.0.is_empty() => Mutation {
                answer: AdmissionResponse {
                    warnings: injected.warnings,
                    ..AdmissionResponse::allow()
                },
                outcome: "unchanged",
                reason: "",
            },
            Ok(Outcome::Injected(injected)) => match serde_json::to_value(&injected.patch) {
                Ok(patch) => Mutation {
                    answer: AdmissionResponse {
                        patch: Some(patch),
                        warnings: injected.warnings,
                        ..AdmissionResponse::allow()
                    },
                    outcome: "injected",
                    reason: "",
                },
                // A patch is plain JSON; should it not be, the pod must not come up bare.
                Err(error) => Mutation {
                    answer: AdmissionResponse::refuse(format!(
                        "the patch could not be written: {error}"
                    )),
                    outcome: "refused",
                    reason: "internal",
                },
            },
            Ok(Outcome::Skipped { reason, warning }) => Mutation {
                answer: AdmissionResponse {
                    warnings: warning.into_iter().collect(),
                    ..AdmissionResponse::allow()
                },
                outcome: "skipped",
                reason: reason.as_str(),
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
                }
            }
        }
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
