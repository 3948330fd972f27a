//! Deletes the APIServices of the mesh before its replicas end.
//!
//! An APIService without a server blocks the deletion of every namespace: the API server cannot
//! know what is in it.

use std::fmt::Write as _;

use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::DeleteParams;
use kube::{Api, Client};

use crate::aggregated::certificate::ServedApi;
use crate::{metrics_api, observe_api};

/// Every API that the mesh serves.
const SERVED: [ServedApi; 2] = [metrics_api::SERVED, observe_api::SERVED];

/// Deletes the APIServices that lead to the mesh and says so in `report`. It
/// never fails, as leaving does not.
pub(crate) async fn delete_all(client: &Client, report: &mut String) {
    let api: Api<APIService> = Api::all(client.clone());
    for (name, service) in names() {
        let outcome = match delete(&api, &name, service).await {
            Ok(false) => continue,
            Ok(true) => "no longer served".to_owned(),
            // The chart gives the right only where it serves the API.
            Err(kube::Error::Api(status)) if status.is_forbidden() => continue,
            Err(error) => format!(
                "not withdrawn: {error}. Namespaces cannot be deleted until `kubectl delete apiservice {name}`"
            ),
        };
        let _ = writeln!(report, "{name}: {outcome}.");
    }
}

/// Names of the APIServices that a mesh which stays should have and has not.
///
/// # Errors
/// When the API server does not answer.
pub(super) async fn missing(client: &Client) -> Result<Vec<String>, kube::Error> {
    let api: Api<APIService> = Api::all(client.clone());
    let mut missing = Vec::new();
    for (name, _) in names() {
        match api.get_opt(&name).await {
            Ok(None) => missing.push(name),
            Ok(Some(_)) => {}
            // As above: such an API is not wanted.
            Err(kube::Error::Api(status)) if status.is_forbidden() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(missing)
}

/// Every APIService of the chart, and the Service that it leads to.
fn names() -> impl Iterator<Item = (String, &'static str)> {
    SERVED.iter().flat_map(|served| {
        let names = served.api_services();
        names.map(|name| (name, served.service))
    })
}

async fn delete(api: &Api<APIService>, name: &str, served_by: &str) -> Result<bool, kube::Error> {
    let Some(existing) = api.get_opt(name).await? else {
        return Ok(false);
    };
    let service = existing.spec.and_then(|spec| spec.service);
    let ours = service.is_some_and(|service| service.name.as_deref() == Some(served_by));
    if ours {
        api.delete(name, &DeleteParams::default()).await?;
    }
    Ok(ours)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::metrics_api::query::GROUP;
    use crate::testing::api_server::FakeApi;

    fn path(version: &str) -> String {
        format!("/apis/apiregistration.k8s.io/v1/apiservices/{version}.{GROUP}")
    }

    fn service(version: &str, name: &str) -> serde_json::Value {
        json!({
            "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService",
            "metadata": {"name": format!("{version}.{GROUP}")},
            "spec": {"group": GROUP, "version": version, "groupPriorityMinimum": 100,
                "versionPriority": 100, "service": {"name": name, "namespace": "weft-system"}},
        })
    }

    #[tokio::test]
    async fn api_service_deletion_names_failures_except_missing_api() {
        for (code, words) in [(403, ""), (500, "kubectl delete apiservice v1alpha1")] {
            let service =
                tower::service_fn(move |_: http::Request<kube::client::Body>| async move {
                    let status = json!({"kind": "Status", "status": "Failure", "code": code,
                    "message": "no", "reason": if code == 403 { "Forbidden" } else { "x" }});
                    let body = kube::client::Body::from(status.to_string().into_bytes());
                    http::Response::builder().status(code).body(body)
                });
            let mut report = String::new();
            delete_all(&Client::new(service, "default"), &mut report).await;
            assert!(report.contains(words), "{report}");
            assert_eq!(report.is_empty(), words.is_empty(), "{report}");
        }
    }

    // Claims: observability-17
    #[tokio::test]
    async fn ours_go_and_those_of_others_stay() {
        let api = FakeApi::default();
        let ours = service("v1alpha1", metrics_api::SERVED.service);
        api.put(&path("v1alpha1"), ours);
        api.put(&path("v1alpha2"), service("v1alpha2", "smi-metrics"));
        let observe = "/apis/apiregistration.k8s.io/v1/apiservices/v1alpha1.observe.weft.dev";
        api.put(observe, service("v1alpha1", observe_api::SERVED.service));
        let mut report = String::new();
        delete_all(&api.client(), &mut report).await;
        assert_eq!(
            report,
            "v1alpha1.metrics.smi-spec.io: no longer served.\n\
             v1alpha1.observe.weft.dev: no longer served.\n"
        );
        assert!(api.read(&path("v1alpha1")).is_none());
        assert!(api.read(observe).is_none());
        assert!(api.read(&path("v1alpha2")).is_some());
    }
}
