//! Kinds that are Weft's own, and namespaces that the webhooks pass over.
//!
//! Claims: observe-46

use std::convert::Infallible;

use http::{Request, Response};
use kube::Client;
use kube::client::Body;

use super::*;

const POLICY: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/trafficpolicies/cart";
const POLICIES: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trafficpolicies.weft.dev";

#[tokio::test]
async fn unaccepted_or_unserved_policy_is_found() {
    let api = healthy();
    api.put(POLICY, split("Accepted", "False"));
    let (ended, report, _) = checked(&api, WELL, &[]).await;
    assert_eq!(ended.unwrap(), Conclusion::No, "{report:#}");
    assert_eq!(with(&report, &["warning", "error"]), ["accepted"]);
    let api = healthy();
    api.remove(POLICIES);
    let (ended, report, _) = checked(&api, WELL, &[]).await;
    assert_eq!(ended.unwrap(), Conclusion::No, "{report:#}");
    assert_eq!(with(&report, &["warning", "error"]), ["definitions"]);
}

#[tokio::test]
async fn condition_reasons_are_reported_with_matching_advice() {
    let api = healthy();
    let with_reason = |name: &str, reason: &str| {
        let mut split = split("ResolvedRefs", "False");
        split["metadata"]["name"] = json!(name);
        split["status"]["conditions"][0]["reason"] = json!(reason);
        api.put(&SPLIT.replace("cart", name), split);
    };
    with_reason("stranded", "NoUsableBackend");
    with_reason("stranded-too", "NoUsableBackend");
    with_reason("orphan", "RefNotFound");
    with_reason("newer", "OfALaterVersion");
    let (_, report, _) = checked(&api, WELL, &[]).await;
    let checks = report["checks"].as_array().unwrap();
    let resolved = checks.iter().find(|one| one["id"] == "resolved").unwrap();
    let message = resolved["message"].as_str().unwrap();
    assert!(
        message.starts_with("4 refer to what is missing or does not fit: trafficsplits shop/"),
        "{message}"
    );
    assert_eq!(
        message.matches("; NoUsableBackend: calls get 503").count(),
        1,
        "{message}"
    );
    assert!(message.contains("; RefNotFound: create what"), "{message}");
    assert!(!message.contains("OfALaterVersion:"), "{message}");
}

#[tokio::test]
async fn webhooks_are_not_probed_in_namespaces_they_skip() {
    let silent = Webhooks {
        injects: false,
        validates: false,
        ..WELL
    };
    let api = healthy();
    for path in [MUTATING, VALIDATING] {
        let mut webhooks = api.read(path).unwrap();
        let name = json!({"key": "kubernetes.io/metadata.name", "operator": "NotIn",
            "values": ["kube-system", "weft-system"]});
        webhooks["webhooks"][0]["namespaceSelector"] = json!({"matchExpressions": [name]});
        api.put(path, webhooks);
    }
    let system = json!({"metadata": {"name": "weft-system"}});
    api.put("/api/v1/namespaces/weft-system", system);
    let (ended, report, table) = checked(&api, silent, &["-n", "weft-system"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let skipped = with(&report, &["skipped"]);
    // It has no copy of the roots either.
    let expected = ["certificate-authority", "injection", "validation"];
    assert_eq!(skipped, expected, "{report:#}");
    assert!(table.contains("weft-system is left out"), "{table}");
    // A webhook that should respond there and does not is found.
    let (_, report, _) = checked(&api, silent, &["-n", "shop"]).await;
    assert_eq!(with(&report, &["error"]), ["injection", "validation"]);
}

/// The right to experiments is in no role that a namespace's readers have.
#[tokio::test]
async fn experiments_out_of_sight_skip_no_check_of_objects() {
    let well = client(&healthy(), WELL);
    let hidden = Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let well = well.clone();
            async move {
                if !request.uri().path().ends_with("/faultexperiments") {
                    return Ok::<_, Infallible>(well.send(request).await.unwrap());
                }
                let refused = json!({"kind": "Status", "status": "Failure", "code": 403,
                    "message": "faultexperiments.weft.dev is forbidden"});
                let body = Body::from(refused.to_string().into_bytes());
                Ok(Response::builder().status(403).body(body).unwrap())
            }
        }),
        "default",
    );
    let (ended, report, _) = checked_by(hidden, &["--fail-on", "warning"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let skipped = with(&report, &["skipped"]);
    for id in ["accepted", "resolved", "annotations", "labels"] {
        assert!(!skipped.iter().any(|one| one == id), "{id}: {skipped:?}");
    }
}
