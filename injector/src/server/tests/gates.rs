//! Tests of the readiness gate that pods of a new revision get.

use super::*;

/// The readiness gates of a pod of this revision of Deployment `web`.
async fn gates(harness: &Harness, revision: &str) -> Value {
    let mut request = pod(json!({ "containers": [{ "name": "app" }] }));
    request["object"]["metadata"] = json!({
        "generateName": format!("web-{revision}-"),
        "labels": { "pod-template-hash": revision },
        "ownerReferences": [{
            "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("web-{revision}"),
            "controller": true,
        }],
    });
    let review = harness.review("/mutate", request.clone()).await;
    let patch = review["response"]["patch"].as_str().unwrap();
    let patch = STANDARD.decode(patch).unwrap();
    let patch: json_patch::Patch = serde_json::from_slice(&patch).unwrap();
    json_patch::patch(&mut request["object"], &patch).unwrap();
    request["object"]["spec"]["readinessGates"].clone()
}

#[tokio::test]
async fn pod_of_no_deployment_reads_no_releases() {
    let harness = Harness::start().await;
    let path = "/apis/weft.dev/v1alpha1/namespaces/shop/canaryreleases";
    let request = pod(json!({ "containers": [{ "name": "app" }] }));
    harness.review("/mutate", request).await;
    assert_eq!(harness.api.reads(path), 0);
    gates(&harness, "bbb").await;
    assert_eq!(harness.api.reads(path), 1, "control");
}

#[tokio::test]
async fn new_revision_of_released_deployment_is_gated() {
    let harness = Harness::start().await;
    assert_eq!(gates(&harness, "bbb").await, Value::Null, "no release");
    let path = "/apis/weft.dev/v1alpha1/namespaces/shop/canaryreleases/web";
    let mut release = json!({
        "metadata": { "name": "web", "namespace": "shop" },
        "spec": { "service": "web", "deployment": "web" },
    });
    harness.api.put(path, release.clone());
    assert_eq!(gates(&harness, "bbb").await, Value::Null, "not seen yet");
    release["status"] = json!({ "stable": { "revision": "aaa", "pods": 2 } });
    harness.api.put(path, release.clone());
    let gate = json!([{ "conditionType": "weft.dev/released" }]);
    assert_eq!(gates(&harness, "bbb").await, gate);
    assert_eq!(gates(&harness, "aaa").await, Value::Null, "stable");
    // A suspended release gates none from the next admission on.
    release["spec"]["suspend"] = json!(true);
    harness.api.put(path, release);
    assert_eq!(gates(&harness, "bbb").await, Value::Null, "suspended");
}
