//! Stored objects come to the storage version.

use serde_json::{Value, json};

use super::*;
use crate::metrics::Metrics;
use crate::testing::api_server::FakeApi;

pub(crate) const MESH: &str = "weft-system";
pub(crate) const TARGETS: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/traffictargets.access.smi-spec.io";
pub(crate) const SPLITS: &str =
    "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trafficsplits.split.smi-spec.io";

/// A definition that `service` converts, with objects in these versions.
pub(crate) fn definition(api: &FakeApi, path: &str, service: &str, stored: &[&str]) {
    let (_, name) = path.rsplit_once('/').unwrap();
    let (plural, group) = name.split_once('.').unwrap();
    let versions = ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"];
    let versions: Vec<Value> = versions
        .iter()
        .map(|name| json!({"name": name, "served": true, "storage": *name == STORAGE_VERSION}))
        .collect();
    api.put(
        path,
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": name},
            "spec": {
                "group": group, "scope": "Namespaced", "versions": versions,
                "names": {"kind": "X", "plural": plural},
                "conversion": {"strategy": "Webhook", "webhook": {
                    "conversionReviewVersions": ["v1"],
                    "clientConfig": {"service": {"name": service, "namespace": MESH}},
                }},
            },
            "status": {"storedVersions": stored},
        }),
    );
}

fn split(name: &str) -> String {
    format!("/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits/{name}")
}

fn put_split(api: &FakeApi, name: &str) {
    api.put(
        &split(name),
        json!({
            "apiVersion": "split.smi-spec.io/v1alpha4", "kind": "TrafficSplit",
            "metadata": {"name": name, "namespace": "shop", "uid": format!("uid-{name}")},
            "spec": {"service": "web", "backends": []},
        }),
    );
}

fn storage(api: &FakeApi) -> Storage {
    Storage {
        client: api.client(),
        namespace: MESH.into(),
        metrics: Metrics::default().storage,
    }
}

fn stored(api: &FakeApi, path: &str) -> Value {
    api.read(path).unwrap()["status"]["storedVersions"].clone()
}

#[tokio::test(start_paused = true)]
async fn all_objects_are_rewritten_before_version_list_shrinks() {
    let api = FakeApi::default();
    definition(&api, SPLITS, "weft-injector", &["v1alpha2", "v1alpha4"]);
    put_split(&api, "a");
    put_split(&api, "b");
    let before = api.read(&split("a")).unwrap();
    let storage = storage(&api);
    storage.settle(SmiKind::TrafficSplit).await.unwrap();
    assert_eq!(stored(&api, SPLITS), json!(["v1alpha4"]));
    let written: Vec<String> = api.writes().into_iter().map(|(_, at)| at).collect();
    assert_eq!(written, [split("a"), split("b"), SPLITS.to_owned()]);
    assert_eq!(api.read(&split("a")).unwrap()["spec"], before["spec"]);
    assert_eq!(storage.metrics.rewritten.get(), 2);

    storage.settle(SmiKind::TrafficSplit).await.unwrap();
    assert_eq!(api.writes().len(), 3, "a settled kind is left alone");
}

#[tokio::test(start_paused = true)]
async fn definitions_of_others_are_left_alone() {
    let api = FakeApi::default();
    definition(&api, SPLITS, "smi-webhook", &["v1alpha2"]);
    put_split(&api, "a");
    storage(&api).settle(SmiKind::TrafficSplit).await.unwrap();
    assert_eq!(api.writes(), []);
}

#[tokio::test(start_paused = true)]
async fn version_list_stays_while_one_object_is_unwritable() {
    let api = FakeApi::default();
    definition(&api, SPLITS, "weft-injector", &["v1alpha1"]);
    put_split(&api, "a");
    put_split(&api, "odd");
    api.refuse(&split("odd"));
    let storage = storage(&api);
    let error = storage.settle(SmiKind::TrafficSplit).await.unwrap_err();
    assert!(
        error.to_string().contains("TrafficSplit shop/odd: "),
        "{error}"
    );
    assert_eq!(stored(&api, SPLITS), json!(["v1alpha1"]));
    let written: Vec<String> = api.writes().into_iter().map(|(_, at)| at).collect();
    assert!(
        written.contains(&split("a")),
        "its neighbour is written: {written:?}"
    );
    assert_eq!(storage.metrics.failed.get(), 1);
}
