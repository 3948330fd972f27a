//! An object that another product stored, and that has no form in the storage version.

use tokio::time::timeout;

use super::*;
use crate::metrics::WorldMetrics;

const ODD: &str = "/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits/odd";
/// Every kind has been listed by then.
const LISTED: Duration = Duration::from_secs(20);

/// What the API server lists of a split of v1alpha1 whose weights do not fit side by side.
fn odd() -> Value {
    let stored = cluster::split("odd", "other", &[("a", 1), ("b", 1)]);
    let stored = cluster::set(stored, "/apiVersion", json!("split.smi-spec.io/v1alpha1"));
    let stored = cluster::set(stored, "/spec/backends/0/weight", json!("1n"));
    let stored = cluster::set(stored, "/spec/backends/1/weight", json!("2147483647"));
    let listed = crds::convert::convert(&stored, "split.smi-spec.io/v1alpha4").unwrap();
    assert_eq!(listed["spec"]["backends"][0]["weight"], json!("1n"));
    listed
}

/// Where an object of [`cluster::shop`] stands.
fn path(object: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let collection = match &*text(&object["kind"]) {
        "Namespace" => "/api/v1/namespaces",
        "Node" => "/api/v1/nodes",
        "Pod" => "/api/v1/namespaces/shop/pods",
        "Service" => "/api/v1/namespaces/shop/services",
        "EndpointSlice" => "/apis/discovery.k8s.io/v1/namespaces/shop/endpointslices",
        kind => panic!("{kind} stands nowhere"),
    };
    format!("{collection}/{}", text(&object["metadata"]["name"]))
}

// Claims: C5, attack-92
#[tokio::test(start_paused = true)]
async fn unconvertible_stored_weight_is_reported_without_stopping_others() {
    let mut bench = Bench::new(&[("api", 1)]);
    for object in cluster::shop().objects() {
        bench.api.put(&path(object), object.clone());
    }
    bench.api.put(ODD, odd());

    let client = bench.api.client();
    let (worlds, _) = crate::watch::start(
        client,
        Arc::default(),
        true,
        WorldMetrics::default(),
        runtime::ready::Ready::new(),
    );
    let (publish, mut latest) = watch::channel(None);
    let (_, signing) = watch::channel(BTreeSet::new());
    tokio::spawn(crate::latest_model::run(
        worlds,
        publish,
        Defaults::default(),
        signing,
    ));
    // The controller is ready with the first model.
    let ready = timeout(LISTED, latest.wait_for(Option::is_some)).await;
    let compiled = ready.unwrap().unwrap().clone().unwrap();

    let resolved = cluster::resolve_newest(&compiled.model, "client", &["10.96.0.1:80"]);
    let splits = resolved.service("service/shop/api:80").splits;
    assert_eq!(splits.len(), 1, "its neighbour: {splits:?}");

    bench.models.send_replace(Some(compiled));
    bench.round().await;
    assert_eq!(bench.condition("Accepted")["status"], json!("True"));
    let object = bench.api.read(ODD).unwrap();
    let conditions = object["status"]["conditions"].as_array().unwrap();
    let accepted = conditions.iter().find(|one| one["type"] == "Accepted");
    let accepted = accepted.unwrap();
    assert_eq!(accepted["status"], json!("False"));
    assert_eq!(accepted["reason"], json!("Unreadable"));
    let message = accepted["message"].as_str().unwrap();
    assert!(message.contains("spec.backends[0].weight"), "{message}");
}
