//! It answers writes as the real one does.

use json_patch::merge;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::{ApiResource, DynamicObject, GroupVersionKind};

use super::*;

const SPLIT: &str = "/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits/s";
const SECRET: &str = "/api/v1/namespaces/shop/secrets/s";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/shop/leases/s";

fn of(path: &str) -> (FakeApi, Api<DynamicObject>) {
    let api = FakeApi::default();
    api.put(
        path,
        json!({"metadata": {"name": "s", "namespace": "shop", "uid": "one"}, "spec": {"a": 1},
            "status": {"said": 1}}),
    );
    let (group, version, kind) = match path {
        SPLIT => ("split.smi-spec.io", "v1alpha4", "TrafficSplit"),
        LEASE => ("coordination.k8s.io", "v1", "Lease"),
        _ => ("", "v1", "Secret"),
    };
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let objects = Api::namespaced_with(api.client(), "shop", &kind);
    (api, objects)
}

fn object(meta: &Value, spec: u8) -> DynamicObject {
    let mut metadata = json!({"name": "s", "namespace": "shop"});
    merge(&mut metadata, meta);
    let object = json!({"metadata": metadata, "spec": {"a": spec}, "status": {"said": spec}});
    serde_json::from_value(object).unwrap()
}

fn code<T>(answer: kube::Result<T>) -> u16 {
    match answer {
        Ok(_) => 200,
        Err(kube::Error::Api(status)) => status.code,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn required_resource_version_depends_on_kind() {
    for (path, without) in [(SPLIT, 422), (LEASE, 422), (SECRET, 200)] {
        let (api, objects) = of(path);
        let version = api.read(path).unwrap()["metadata"]["resourceVersion"].clone();
        let params = PostParams::default();
        let put = async |meta: Value| code(objects.replace("s", &params, &object(&meta, 2)).await);
        assert_eq!(put(json!({"resourceVersion": "7"})).await, 409, "{path}");
        assert_eq!(
            put(json!({"uid": "two"})).await,
            if without == 422 { 422 } else { 409 }
        );
        assert_eq!(api.read(path).unwrap()["spec"]["a"], 1, "{path}");
        assert_eq!(put(json!({})).await, without, "{path}");
        let now = if without == 422 {
            &version
        } else {
            &Value::Null
        };
        assert_eq!(put(json!({"resourceVersion": now})).await, 200, "{path}");
        assert_eq!(api.read(path).unwrap()["spec"]["a"], 2, "{path}");
    }
}

#[tokio::test]
async fn status_is_written_separately_with_current_version_only() {
    let (api, objects) = of(SPLIT);
    let version = api.read(SPLIT).unwrap()["metadata"]["resourceVersion"].clone();
    let now = json!({"resourceVersion": version});
    let params = PostParams::default();
    let replaced = objects.replace_status("s", &params, &object(&now, 2)).await;
    assert_eq!(code(replaced), 200);
    let stored = api.read(SPLIT).unwrap();
    assert_eq!(
        (&stored["spec"]["a"], &stored["status"]["said"]),
        (&json!(1), &json!(2))
    );
    // The version has moved on, and without one nothing is written.
    for stale in [now, json!({})] {
        let replaced = objects
            .replace_status("s", &params, &object(&stale, 3))
            .await;
        assert!([409, 422].contains(&code(replaced)), "{stale}");
    }
    let patch = Patch::Merge(json!({"spec": {"a": 4}, "status": {"said": 4}}));
    let params = PatchParams::default();
    assert_eq!(code(objects.patch_status("s", &params, &patch).await), 200);
    let stored = api.read(SPLIT).unwrap();
    assert_eq!(
        (&stored["spec"]["a"], &stored["status"]["said"]),
        (&json!(1), &json!(4))
    );
    assert_eq!(code(objects.patch("s", &params, &patch).await), 200);
    let stored = api.read(SPLIT).unwrap();
    assert_eq!(
        (&stored["spec"]["a"], &stored["status"]["said"]),
        (&json!(4), &json!(4))
    );
}

#[tokio::test]
async fn metadata_only_read_omits_rest_and_counts_separately() {
    let (api, objects) = of(SECRET);
    let object = objects.get_metadata("s").await.unwrap();
    assert_eq!(object.metadata.uid.as_deref(), Some("one"));
    let kind = object.types.map(|types| types.kind);
    assert_eq!(kind.as_deref(), Some("PartialObjectMetadata"));
    assert_eq!((api.reads(SECRET), api.whole_reads(SECRET)), (1, 0));
    assert_eq!(objects.get("s").await.unwrap().data["spec"]["a"], 1);
    assert_eq!((api.reads(SECRET), api.whole_reads(SECRET)), (2, 1));
    assert!(objects.get_metadata_opt("t").await.unwrap().is_none());
}

#[tokio::test]
async fn strategic_patch_keeps_conditions_of_other_types() {
    let api = FakeApi::default();
    let path = "/api/v1/namespaces/shop/pods/web-1";
    let conditions = json!([{"type": "Ready", "status": "False"}, {"type": "ours"}]);
    let meta = json!({"name": "web-1", "namespace": "shop"});
    api.put(
        path,
        json!({"metadata": meta, "status": {"conditions": conditions}}),
    );
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let pods: Api<DynamicObject> = Api::namespaced_with(api.client(), "shop", &kind);
    let patch = json!({"status": {"conditions": [{"type": "ours", "status": "True"}]}});
    let params = PatchParams::default();
    let patch = Patch::Strategic(patch);
    let patched = pods.patch_status("web-1", &params, &patch);
    patched.await.unwrap();
    let expected =
        json!([{"type": "Ready", "status": "False"}, {"type": "ours", "status": "True"}]);
    assert_eq!(api.read(path).unwrap()["status"]["conditions"], expected);
}
