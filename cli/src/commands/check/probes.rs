//! Probes by a request where nothing can be read: whether the clocks of the API server and this
//! machine agree, whether the API server calls the webhooks, and what the user may do. Every
//! object is created as a dry run.

use std::time::{SystemTime, UNIX_EPOCH};

use crds::labels::{ENABLED, INJECT};
use futures::future::join_all;
use http::{Request, StatusCode, header};
use kube::client::Body;
use serde_json::{Value, json};

use crate::cluster::{self, Cluster, Refusal, response};

/// What came of a dry run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Tried {
    /// The object as it would be stored.
    Taken(Value),
    /// Status and message.
    Refused(u16, String),
    /// Why it was not tried.
    Not(String),
}

/// All of it.
#[derive(Clone, Debug)]
pub(super) struct Probes {
    /// Where pods were tried.
    pub(super) namespace: String,
    pub(super) injection: Tried,
    pub(super) validation: Tried,
    /// What the user may not do, of what an installation needs.
    pub(super) denied: Result<Vec<String>, String>,
}

/// The name of the first request, for messages.
const VERSION: &str = "the API server's version";

/// What an installation creates with the chart's values as they are: group, resource. Helm keeps
/// its own record in a Secret.
const NEEDED: [(&str, &str); 18] = [
    ("", "namespaces"),
    ("", "resourcequotas"),
    ("", "secrets"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("apps", "deployments"),
    ("batch", "jobs"),
    ("policy", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    (
        "admissionregistration.k8s.io",
        "mutatingwebhookconfigurations",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicies",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingadmissionpolicybindings",
    ),
    (
        "admissionregistration.k8s.io",
        "validatingwebhookconfigurations",
    ),
    ("apiregistration.k8s.io", "apiservices"),
];

/// The API server's version, null if the user may not see it, and how far our clock is ahead of
/// its.
///
/// # Errors
/// When it does not respond, or does not know the user.
pub(in crate::commands) async fn version(
    cluster: &Cluster,
) -> Result<(Value, Option<i64>), Refusal> {
    let request = Request::get("/version").body(Body::empty());
    let request = request.map_err(|error| Refusal::of(VERSION, kube::Error::HttpError(error)))?;
    let client = cluster.client();
    let began = SystemTime::now();
    let answering = async {
        let answer = client.send(request).await?;
        let date = response::date(answer.headers());
        if answer.status() == StatusCode::FORBIDDEN {
            return Ok((date, None));
        }
        let body = cluster::accepted(answer).await?;
        let body = cluster::whole(body, cluster::MOST_ANSWER).await?;
        Ok((date, Some(body)))
    };
    let (theirs, body) = cluster.try_call(VERSION, answering).await?;
    let version = match body {
        Some(body) => serde_json::from_slice(&body)
            .map_err(|error| Refusal::of(VERSION, kube::Error::SerdeError(error)))?,
        None => Value::Null,
    };
    let ours = began
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let ahead = theirs.and_then(|theirs| i64::try_from(ours).ok()?.checked_sub(theirs));
    Ok((version, ahead))
}

/// Tries out.
pub(super) async fn all(cluster: &Cluster, pre: bool) -> Probes {
    let namespace = cluster.namespace().to_owned();
    let not = || Tried::Not("was not requested".to_owned());
    let mut probes = Probes {
        injection: not(),
        validation: not(),
        denied: Err("was not requested".to_owned()),
        namespace,
    };
    if pre {
        probes.denied = denied(cluster).await;
        return probes;
    }
    let (pods, groups) = (
        format!("/api/v1/namespaces/{}/pods", probes.namespace),
        format!(
            "/apis/specs.smi-spec.io/v1alpha4/namespaces/{}/httproutegroups",
            probes.namespace
        ),
    );
    let (pod, group) = (pod(), nonsense());
    let (injection, validation) = futures::join!(
        create(cluster, &pods, &pod),
        create(cluster, &groups, &group)
    );
    probes.injection = injection;
    probes.validation = validation;
    probes
}

/// A pod that requests a proxy, and would pass the strictest security level without one.
fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"generateName": "weft-check-", "labels": {INJECT: ENABLED}},
        "spec": {
            "securityContext": {"runAsNonRoot": true, "runAsUser": 65532, "seccompProfile": {"type": "RuntimeDefault"}},
            "containers": [{
                "name": "check", "image": "weft-check",
                "resources": {"requests": {"cpu": "1m", "memory": "1Mi"}, "limits": {"cpu": "1m", "memory": "1Mi"}},
                "securityContext": {"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}},
            }],
        },
    })
}

/// A match that no request can fit, because its expression is none.
fn nonsense() -> Value {
    json!({
        "apiVersion": "specs.smi-spec.io/v1alpha4", "kind": "HTTPRouteGroup",
        "metadata": {"generateName": "weft-check-"},
        "spec": {"matches": [{"name": "check", "pathRegex": "("}]},
    })
}

async fn create(cluster: &Cluster, collection: &str, object: &Value) -> Tried {
    let request = Request::post(format!("{collection}?dryRun=All"))
        .header(header::CONTENT_TYPE, "application/json")
        .body(object.to_string().into_bytes());
    let request = match request {
        Ok(request) => request,
        Err(error) => return Tried::Not(error.to_string()),
    };
    match cluster.try_request("a dry run", request).await {
        Ok(taken) => Tried::Taken(taken),
        Err(refusal) => refused(refusal),
    }
}

/// Why it was not taken; of a right that is missing with the role that grants it.
fn refused(refusal: Refusal) -> Tried {
    match refusal.code() {
        Some(code) => Tried::Refused(code, refusal.message_with_role()),
        None => Tried::Not(refusal.into_failure().to_string()),
    }
}

async fn denied(cluster: &Cluster) -> Result<Vec<String>, String> {
    let reviews = NEEDED.map(|(group, resource)| async move {
        let review = json!({
            "apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {"verb": "create", "group": group, "resource": resource}},
        });
        let request = Request::post("/apis/authorization.k8s.io/v1/selfsubjectaccessreviews")
            .header(header::CONTENT_TYPE, "application/json")
            .body(review.to_string().into_bytes())
            .map_err(|error| error.to_string())?;
        let answer: Value = cluster
            .try_request("the user's rights", request)
            .await
            .map_err(|refusal| refusal.into_failure().to_string())?;
        let allowed = answer["status"]["allowed"].as_bool().unwrap_or_default();
        Ok::<_, String>((!allowed).then(|| resource.to_owned()))
    });
    let answers: Result<Vec<Option<String>>, String> =
        join_all(reviews).await.into_iter().collect();
    Ok(answers?.into_iter().flatten().collect())
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::path::{Path, PathBuf};

    use super::*;

    /// What the chart creates only if a value requests it, which is off: its place in the values,
    /// group, resource. Not every cluster has these kinds.
    const OFF: [(&str, &str, &str); 7] = [
        ("/capture/mode", "apps", "daemonsets"),
        (
            "/gateway/enabled",
            "gateway.networking.k8s.io",
            "gatewayclasses",
        ),
        ("/monitoring/grafanaDashboards", "", "configmaps"),
        (
            "/monitoring/podMonitor",
            "monitoring.coreos.com",
            "podmonitors",
        ),
        (
            "/monitoring/prometheusRule",
            "monitoring.coreos.com",
            "prometheusrules",
        ),
        (
            "/monitoring/serviceMonitor",
            "monitoring.coreos.com",
            "servicemonitors",
        ),
        (
            "/networkPolicy/enabled",
            "networking.k8s.io",
            "networkpolicies",
        ),
    ];

    fn chart() -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../charts/weft")
    }

    /// Group and resource of every object that the templates of a folder hold.
    fn made(folder: &Path, all: &mut BTreeSet<(String, String)>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                made(&path, all);
                continue;
            }
            let text = std::fs::read_to_string(&path).unwrap();
            let mut group = None;
            for line in text.lines() {
                if let Some(version) = line.strip_prefix("apiVersion: ") {
                    group = Some(version.split_once('/').map_or("", |(group, _)| group));
                }
                if let Some(kind) = line.strip_prefix("kind: ") {
                    let lower = kind.trim().to_lowercase();
                    let plural = match lower.strip_suffix('y') {
                        Some(stem) => format!("{stem}ies"),
                        None if lower.ends_with("ss") => format!("{lower}es"),
                        None => format!("{lower}s"),
                    };
                    let group = group.take().unwrap_or_else(|| panic!("{path:?}: {line}"));
                    all.insert((group.to_owned(), plural));
                }
            }
        }
    }

    #[test]
    fn dry_run_refusal_names_role_but_quotes_webhook_unchanged() {
        let outcome = |message: &str| {
            let status = kube::core::Status::failure(message, "Forbidden").with_code(403);
            refused(Refusal::of("a dry run", kube::Error::Api(status.boxed())))
        };
        for resource in ["pods", "httproutegroups"] {
            let message = format!(
                "{resource} is forbidden: User \"eve\" cannot create resource \"{resource}\" in \
                 API group \"\" in the namespace \"shop\""
            );
            let words = format!("{message}; ClusterRole edit grants this");
            assert_eq!(outcome(&message), Tried::Refused(403, words));
        }
        let words = "admission webhook \"inject.weft.dev\" denied the request: no";
        assert_eq!(outcome(words), Tried::Refused(403, words.to_owned()));
    }

    #[test]
    fn checked_permissions_cover_all_objects_of_default_chart() {
        let mut all = BTreeSet::new();
        made(&chart().join("templates"), &mut all);
        let pair = |group: &str, resource: &str| (group.to_owned(), resource.to_owned());
        let off = OFF.map(|(_, group, resource)| pair(group, resource));
        for known in &off {
            assert!(all.remove(known), "{known:?}: no template makes it");
        }
        let needed = NEEDED.map(|(group, resource)| pair(group, resource));
        assert_eq!(BTreeSet::from(needed), all);
        // Control: what is skipped is off.
        let values = std::fs::read_to_string(chart().join("values.yaml")).unwrap();
        let values: Value = serde_yaml_ng::from_str(&values).unwrap();
        for (value, ..) in OFF {
            let off = match value {
                "/capture/mode" => json!("init"),
                _ => json!(false),
            };
            assert_eq!(values.pointer(value), Some(&off), "{value}");
        }
    }
}
