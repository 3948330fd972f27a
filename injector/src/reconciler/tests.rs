//! What is put right in the cluster, and when.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use fake_api::FakeApi;
use http::Method;
use prometheus_client::registry::Registry;
use serde_json::{Value, json};

use super::*;

const MUTATING: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector";
const VALIDATING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weft-validator";

fn reconciler(api: &FakeApi) -> Reconciler {
    let metrics = Metrics::register(&mut Registry::default());
    Reconciler::new(
        &api.client(),
        "weft-system",
        ServingHandle::empty(),
        metrics,
    )
}

fn configuration(api: &FakeApi, path: &str, webhooks: &[&str]) {
    let webhooks: Value = webhooks
        .iter()
        .map(|name| json!({ "name": name, "clientConfig": {} }))
        .collect();
    let (_, name) = path.rsplit_once('/').unwrap();
    api.put(
        path,
        json!({ "metadata": { "name": name }, "webhooks": webhooks }),
    );
}

fn bundle_of(api: &FakeApi, path: &str, index: usize) -> String {
    let object = api.read(path).unwrap();
    let encoded = object["webhooks"][index]["clientConfig"]["caBundle"]
        .as_str()
        .unwrap();
    String::from_utf8(STANDARD.decode(encoded).unwrap()).unwrap()
}

#[tokio::test]
async fn every_webhook_gets_bundle_without_repeated_writes() {
    let api = FakeApi::default();
    configuration(&api, MUTATING, &["pods.weft.dev", "namespaces.weft.dev"]);
    configuration(&api, VALIDATING, &["smi.weft.dev"]);
    let mut reconciler = reconciler(&api);
    let now = SystemTime::now();
    reconciler.pass(now).await.unwrap();
    assert!(bundle_of(&api, MUTATING, 1).contains("BEGIN CERTIFICATE"));
    assert_eq!(bundle_of(&api, MUTATING, 0), bundle_of(&api, VALIDATING, 0));

    let before = api.writes();
    reconciler.pass(now).await.unwrap();
    assert_eq!(api.writes(), before);
}

#[tokio::test]
async fn bundle_that_an_upgrade_emptied_is_written_again() {
    let api = FakeApi::default();
    configuration(&api, MUTATING, &["pods.weft.dev"]);
    configuration(&api, VALIDATING, &["smi.weft.dev"]);
    let mut reconciler = reconciler(&api);
    reconciler.pass(SystemTime::now()).await.unwrap();
    configuration(&api, MUTATING, &["pods.weft.dev"]);
    let before = api.writes().len();
    reconciler.pass(SystemTime::now()).await.unwrap();
    assert_eq!(
        api.writes()[before..],
        [(Method::PATCH, MUTATING.to_owned())]
    );
}

#[tokio::test]
async fn only_crds_calling_this_injector_get_bundle() {
    let api = FakeApi::default();
    configuration(&api, MUTATING, &["pods.weft.dev"]);
    configuration(&api, VALIDATING, &["smi.weft.dev"]);
    let path =
        |name: &str| format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    let definition = |name: &str, service: &str| {
        let service = json!({"name": service, "namespace": "weft-system"});
        api.put(
            &path(name),
            json!({"metadata": {"name": name}, "spec": {"conversion": {"strategy": "Webhook",
                "webhook": {"clientConfig": {"service": service}}}}}),
        );
    };
    let ours = "traffictargets.access.smi-spec.io";
    definition(ours, "weft-injector");
    definition("trafficsplits.split.smi-spec.io", "smi-webhook");
    let mut reconciler = reconciler(&api);
    reconciler.pass(SystemTime::now()).await.unwrap();
    let written: Vec<String> = api.writes().into_iter().map(|(_, at)| at).collect();
    assert!(written.contains(&path(ours)), "{written:?}");
    assert!(!written.contains(&path("trafficsplits.split.smi-spec.io")));
    let object = api.read(&path(ours)).unwrap();
    let encoded = &object["spec"]["conversion"]["webhook"]["clientConfig"]["caBundle"];
    let text = STANDARD.decode(encoded.as_str().unwrap()).unwrap();
    assert_eq!(
        String::from_utf8(text).unwrap(),
        bundle_of(&api, MUTATING, 0)
    );

    definition(ours, "weft-injector");
    let before = written.len();
    reconciler.pass(SystemTime::now()).await.unwrap();
    assert_eq!(
        api.writes()[before..],
        [(Method::PATCH, path(ours))],
        "emptied by an upgrade"
    );
}

#[tokio::test]
async fn pass_fails_on_missing_configuration_but_updates_other() {
    let api = FakeApi::default();
    configuration(&api, VALIDATING, &["smi.weft.dev"]);
    let error = reconciler(&api).pass(SystemTime::now()).await.unwrap_err();
    assert!(
        error.to_string().contains("weft-injector does not exist"),
        "{error}"
    );
    assert!(bundle_of(&api, VALIDATING, 0).contains("BEGIN CERTIFICATE"));
}

#[tokio::test]
async fn leaf_is_reissued_before_expiry_and_on_authority_change() {
    let api = FakeApi::default();
    configuration(&api, MUTATING, &["pods.weft.dev"]);
    configuration(&api, VALIDATING, &["smi.weft.dev"]);
    let mut reconciler = reconciler(&api);
    let now = SystemTime::now();
    reconciler.pass(now).await.unwrap();
    let first = reconciler.leaf.as_ref().unwrap().renew_at;
    assert!(first < now + LEAF_LIFE);
    reconciler
        .pass(now + Duration::from_secs(60))
        .await
        .unwrap();
    assert_eq!(
        reconciler.leaf.as_ref().unwrap().renew_at,
        first,
        "not before it is due"
    );
    reconciler.pass(first).await.unwrap();
    assert!(reconciler.leaf.as_ref().unwrap().renew_at > first);
}

#[tokio::test(start_paused = true)]
async fn process_is_unready_until_the_bundle_is_in_place() {
    let api = FakeApi::default();
    configuration(&api, VALIDATING, &["smi.weft.dev"]);
    let ready = runtime::ready::Ready::new();
    let running = tokio::spawn(reconciler(&api).run(ready.hold("caBundle")));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(!ready.is_ready());
    configuration(&api, MUTATING, &["pods.weft.dev"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(ready.is_ready());
    running.abort();
}
