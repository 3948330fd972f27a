//! What `weft uninstall` prints of a cluster, and how it ends.

use clap::Parser as _;
use fake_api::FakeApi;

use super::*;
use crate::args::Cli;
use crate::console::Streams;
use crate::failure::status;

const DEFINITION: &str = "trafficsplits.split.smi-spec.io";

/// Exit status and messages.
async fn reported(api: &FakeApi) -> (u8, String) {
    let cli = Cli::try_parse_from(["weft", "uninstall"]).unwrap();
    let cluster = Cluster::of(api.client(), &cli.global);
    let mut streams = Streams::default();
    let ended = report(&cluster, &mut streams.console()).await;
    let (out, err) = streams.texts();
    assert_eq!(out, "", "messages stand beside the manifests");
    (status(&ended), err)
}

fn definition(service: &str, stored: &[&str]) -> Value {
    let version = |name: &str| json!({"name": name, "served": true, "storage": name == "v1alpha4"});
    let versions = ["v1alpha1", "v1alpha2", "v1alpha4"].map(version);
    json!({
        "metadata": {"name": DEFINITION, "generation": 3},
        "spec": {
            "versions": versions,
            "conversion": {"strategy": "Webhook", "webhook": {"clientConfig": {"service":
                {"name": service, "namespace": "weft-system"}}}},
        },
        "status": {"storedVersions": stored},
    })
}

fn with_definition(definition: Value) -> FakeApi {
    let api = FakeApi::default();
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{DEFINITION}");
    api.put(&path, definition);
    api
}

/// The patch of a command.
fn patch(line: &str) -> Value {
    let (_, text) = line.split_once(" -p '").unwrap();
    serde_json::from_str(text.strip_suffix('\'').unwrap()).unwrap()
}

fn pod(name: &str, owner: Option<(&str, &str)>, proxy: &str) -> Value {
    let mut pod = json!({
        "metadata": {"name": name, "namespace": "shop", "labels": {"pod-template-hash": "7f9"}},
        "spec": {"containers": [{"name": "app"}], "initContainers": [{"name": proxy}]},
    });
    if let Some((kind, owner)) = owner {
        pod["metadata"]["ownerReferences"] =
            json!([{"apiVersion": "apps/v1", "kind": kind, "name": owner, "controller": true}]);
    }
    pod
}

fn with_pods(pods: &[Value]) -> FakeApi {
    let api = FakeApi::default();
    for pod in pods {
        let name = pod["metadata"]["name"].as_str().unwrap();
        api.put(&format!("/api/v1/namespaces/shop/pods/{name}"), pod.clone());
    }
    api
}

#[tokio::test]
async fn definition_that_the_mesh_converts_gets_an_exact_patch() {
    let mut definition = definition(CONVERSION_SERVICE, &["v1alpha4"]);
    let (status, err) = reported(&with_definition(definition.clone())).await;
    assert_eq!(status, 0, "{err}");
    let command = format!("  kubectl patch crd {DEFINITION} --type=json -p '");
    let line = err.lines().find(|line| line.starts_with(&command));
    let operations: json_patch::Patch = serde_json::from_value(patch(line.unwrap())).unwrap();
    json_patch::patch(&mut definition, &operations).unwrap();
    let spec = &definition["spec"];
    assert_eq!(spec["conversion"], json!({"strategy": "None"}));
    let served = each(&spec["versions"]).map(|version| version["served"] == true);
    assert_eq!(served.collect::<Vec<_>>(), [false, false, true]);
    assert!(!err.contains("replace -f -"), "{err}");

    // A definition that is another one by now is not touched.
    for (at, value) in [
        ("/spec/versions/0/name", json!("v1alpha0")),
        ("/status/storedVersions", json!(["v1alpha1", "v1alpha4"])),
        ("/metadata/generation", json!(4)),
    ] {
        let mut other = definition.clone();
        *other.pointer_mut(at).unwrap() = value;
        assert!(json_patch::patch(&mut other, &operations).is_err(), "{at}");
    }
}

#[tokio::test]
async fn objects_in_older_versions_are_rewritten_before_the_patch() {
    let api = with_definition(definition(CONVERSION_SERVICE, &["v1alpha2", "v1alpha4"]));
    let (status, err) = reported(&api).await;
    assert_eq!(status, 0, "{err}");
    let commands: Vec<&str> = err.lines().filter(|line| line.starts_with("  ")).collect();
    let rewrite =
        format!("kubectl get {DEFINITION} -A -o json | kubectl replace -f -) && kubectl patch crd");
    assert!(commands[0].contains(&rewrite), "{err}");
    let wanted = json!({"status": {"storedVersions": ["v1alpha4"]}});
    assert_eq!(patch(commands[0]), wanted);
    assert!(commands[1].contains("--type=json"), "{err}");
    assert!(err.contains("may be stored in v1alpha2,"), "{err}");
}

#[tokio::test]
async fn definitions_of_other_products_are_left_alone() {
    let (status, err) = reported(&with_definition(definition("other", &["v1alpha2"]))).await;
    assert_eq!((status, err.as_str()), (0, "no pod has a proxy\n"));
}

#[tokio::test]
async fn remaining_proxies_get_commands_and_status_one() {
    let proxy = PROXY_CONTAINER;
    let mut ended = pod("ended", Some(("ReplicaSet", "old-7f9")), proxy);
    ended["status"]["phase"] = json!("Succeeded");
    let mut clone = pod("clone-0", Some(("StatefulSet", "clone")), proxy);
    clone["metadata"]["ownerReferences"][0]["apiVersion"] = json!("apps.example/v1");
    let (status, err) = reported(&with_pods(&[
        pod("web-7f9-a", Some(("ReplicaSet", "web-7f9")), proxy),
        pod("web-7f9-b", Some(("ReplicaSet", "web-7f9")), proxy),
        pod("db-0", Some(("StatefulSet", "db")), proxy),
        pod("log-x", Some(("DaemonSet", "log")), proxy),
        pod("set-x", Some(("ReplicaSet", "set")), proxy),
        pod("bare", None, proxy),
        pod("forged", Some(("StatefulSet", "x;reboot;#")), proxy),
        pod("plain", None, "setup"),
        clone,
        ended,
    ]))
    .await;
    assert_eq!(status, 1, "{err}");
    assert!(err.starts_with("8 pods have a proxy"), "{err}");
    let commands: Vec<&str> = err
        .lines()
        .filter_map(|line| line.strip_prefix("  "))
        .collect();
    assert_eq!(
        commands,
        [
            "kubectl -n shop rollout restart daemonset/log",
            "kubectl -n shop rollout restart deployment/web",
            "kubectl -n shop rollout restart statefulset/db",
            "kubectl -n shop delete pod bare",
            "kubectl -n shop delete pod clone-0",
            "kubectl -n shop delete pod forged",
            "kubectl -n shop delete pod set-x",
        ]
    );
}

#[tokio::test]
async fn gateway_pods_count_and_go_with_their_gateways() {
    let of = |name: &str, gateway: &str| {
        let mut pod = pod(name, Some(("ReplicaSet", "edge-weft-7f9")), "setup");
        pod["spec"]["containers"] = json!([{"name": GATEWAY_CONTAINER}]);
        pod["metadata"]["labels"][NAME_LABEL] = json!(gateway);
        pod
    };
    let mut ended = of("edge-weft-7f9-c", "other");
    ended["status"]["phase"] = json!("Failed");
    let (status, err) = reported(&with_pods(&[
        of("edge-weft-7f9-a", "edge"),
        of("edge-weft-7f9-b", "edge"),
        of("forged", "x;reboot;#"),
        ended,
    ]))
    .await;
    assert_eq!(status, 1, "{err}");
    assert!(err.starts_with("3 pods have a proxy"), "{err}");
    assert!(err.contains("2 of them are pods of Gateways"), "{err}");
    let commands = err.lines().filter_map(|line| line.strip_prefix("  "));
    assert_eq!(
        commands.collect::<Vec<_>>(),
        [
            "kubectl -n shop rollout restart deployment/edge-weft",
            "kubectl -n shop delete gateways.gateway.networking.k8s.io edge",
        ]
    );
}

#[tokio::test]
async fn every_page_of_pods_is_read() {
    let pods: Vec<Value> = (0..1001)
        .map(|number| pod(&format!("bare-{number}"), None, PROXY_CONTAINER))
        .collect();
    let api = with_pods(&pods);
    let (status, err) = reported(&api).await;
    assert_eq!(status, 1);
    assert!(err.starts_with("1001 pods have a proxy"), "{err}");
    assert_eq!(api.largest_list(), 500);
}

#[tokio::test]
async fn cluster_without_response_is_an_unknown_result() {
    let api = FakeApi::default();
    api.break_down();
    let (status, err) = reported(&api).await;
    assert_eq!(status, 3);
    for what in [
        "which definitions the mesh converts for",
        "which pods have a proxy",
    ] {
        assert!(err.contains(&format!("{what} is not known: ")), "{err}");
    }
}
