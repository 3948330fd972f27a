//! What stays of the definitions when the mesh goes.

use http::Method;
use serde_json::{Value, json};

use super::*;
use crate::storage_migration::tests::{MESH, SPLITS, TARGETS, definition};
use crate::testing::api_server::FakeApi;

#[tokio::test(start_paused = true)]
async fn uninstall_with_older_stored_versions_changes_nothing() {
    let api = FakeApi::default();
    definition(&api, TARGETS, "weft-injector", &["v1alpha4"]);
    definition(&api, SPLITS, "weft-injector", &["v1alpha1", "v1alpha4"]);
    let refusal = serve_storage_only(&api.client(), MESH).await.unwrap_err();
    let message = refusal.to_string();
    for word in ["trafficsplits.split.smi-spec.io", "v1alpha1", "try again"] {
        assert!(message.contains(word), "{message}");
    }
    assert_eq!(api.writes(), []);
}

// Claims: attack-97
#[tokio::test(start_paused = true)]
async fn failed_definition_write_leaves_all_definitions_unchanged() {
    // Whichever comes first.
    for refused in [TARGETS, SPLITS] {
        let api = FakeApi::default();
        let specs = || [TARGETS, SPLITS].map(|path| api.read(path).unwrap()["spec"].clone());
        for path in [TARGETS, SPLITS] {
            definition(&api, path, "weft-injector", &["v1alpha4"]);
        }
        let before = specs();
        api.refuse(refused);
        let refusal = serve_storage_only(&api.client(), MESH).await.unwrap_err();
        assert!(matches!(refusal, Refusal::Definition(_)), "{refusal}");
        assert_eq!(specs(), before);
    }
}

#[tokio::test(start_paused = true)]
async fn uninstall_leaves_one_version_and_no_conversion() {
    let api = FakeApi::default();
    definition(&api, TARGETS, "weft-injector", &["v1alpha4"]);
    definition(&api, SPLITS, "smi-webhook", &["v1alpha1"]);
    assert_eq!(serve_storage_only(&api.client(), MESH).await.unwrap(), 1);
    let spec = api.read(TARGETS).unwrap()["spec"].clone();
    assert_eq!(spec["conversion"], json!({"strategy": "None"}));
    let versions = spec["versions"].as_array().unwrap();
    let served: Vec<&Value> = versions.iter().map(|version| &version["served"]).collect();
    assert_eq!(served, [false, false, false, true]);
    assert_eq!(
        api.writes(),
        [(Method::PATCH, TARGETS.to_owned())],
        "others stay"
    );
    assert_eq!(
        serve_storage_only(&api.client(), MESH).await.unwrap(),
        0,
        "and once is enough"
    );
}
