//! A healthy mesh, in an API server in memory, and faults planted in it one by one: each
//! fails at its own check and at no other.
//!
//! Claims: observe-152, observe-73

mod apis;
mod applications;
mod ca_bundles;
mod egress;
mod faults;
mod kinds;
mod lifetimes;
mod names;
mod namespaces;
mod patience;
mod releases;
mod routes;
mod server;
mod unreported;
mod versions;

use std::time::Duration;

use clap::Parser as _;
use fake_api::FakeApi;
use serde_json::{Value, json};

use self::server::{WELL, Webhooks, client};
use super::*;
use crate::args::{Cli, Command};
use crate::console::Streams;

fn root(ends: i32) -> String {
    let key = rcgen::KeyPair::generate().unwrap();
    let mut parameters = rcgen::CertificateParams::default();
    parameters.not_after = rcgen::date_time_ymd(ends, 1, 1);
    parameters.self_signed(&key).unwrap().pem()
}

fn secret(pem: &str) -> Value {
    serde_json::to_value(k8s_openapi::ByteString(pem.as_bytes().to_vec())).unwrap()
}

fn deployment(name: &str, replicas: u64) -> Value {
    json!({
        "metadata": {"name": name, "labels": {"app.kubernetes.io/version": env!("CARGO_PKG_VERSION")}},
        "spec": {"replicas": replicas}, "status": {"readyReplicas": replicas},
    })
}

/// The controller, which serves these APIs.
fn controller(metrics: bool, observe: bool) -> Value {
    let mut controller = deployment("weft-controller", 2);
    let env = json!([
        {"name": "WEFT_METRICS_API", "value": metrics.to_string()},
        {"name": "WEFT_OBSERVE", "value": observe.to_string()},
    ]);
    let containers = json!([{"name": "controller", "env": env}]);
    controller["spec"]["template"] = json!({"spec": {"containers": containers}});
    controller
}

fn put_api_service(api: &FakeApi, name: &str, available: &str) {
    let (_, group) = name.split_once('.').unwrap();
    let conditions = json!([{"type": "Available", "status": available}]);
    let service = json!({"metadata": {"name": name}, "spec": {"group": group},
        "status": {"conditions": conditions}});
    api.put(&format!("{API}/{name}"), service);
}

const WEFT: &str = "/apis/apps/v1/namespaces/weft-system/deployments";
const LEASE: &str = "/apis/coordination.k8s.io/v1/namespaces/weft-system/leases/weft-controller";
const MUTATING: &str =
    "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations/weft-injector";
const VALIDATING: &str =
    "/apis/admissionregistration.k8s.io/v1/validatingwebhookconfigurations/weft-validator";
const AUTHORITY: &str = "/apis/weft.dev/v1alpha1/certificateauthorities/weft";
const SECRET: &str = "/api/v1/namespaces/weft-system/secrets/weft-ca";
const BUNDLE: &str = "/api/v1/namespaces/shop/configmaps/weft-trust-bundle";
const API: &str = "/apis/apiregistration.k8s.io/v1/apiservices";
const API_SERVICES: [&str; 3] = [
    "v1alpha1.metrics.smi-spec.io",
    "v1alpha2.metrics.smi-spec.io",
    "v1alpha1.observe.weft.dev",
];
const POD: &str = "/api/v1/namespaces/shop/pods/web-1";
const PROXY: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/proxies/web-1";
const SPLIT: &str = "/apis/split.smi-spec.io/v1alpha4/namespaces/shop/trafficsplits/cart";
const NAMESPACE: &str = "/api/v1/namespaces/shop";

fn pod() -> Value {
    json!({
        "metadata": {"name": "web-1", "namespace": "shop", "annotations": {"weft.dev/proxy-version": "0.1.0"}},
        "spec": {"initContainers": [{"name": "weft-proxy"}]}, "status": {"phase": "Running"},
    })
}

fn proxy() -> Value {
    json!({
        "metadata": {"name": "web-1", "namespace": "shop"},
        "status": {"connected": true, "acknowledged": 4, "needed": 4,
                   "certificate": {"notAfter": "2999-01-01T00:00:00Z"}, "clockAheadMs": 3},
    })
}

/// Renewed now, by a clock that is so many seconds ahead of ours.
fn lease(ahead: i64) -> Value {
    let now = k8s_openapi::jiff::Timestamp::now().as_second() + ahead;
    let now = k8s_openapi::jiff::Timestamp::from_second(now).unwrap();
    json!({"metadata": {}, "spec": {"holderIdentity": "one", "renewTime": now.to_string()}})
}

fn split(condition: &str, status: &str) -> Value {
    let conditions = json!([{"type": condition, "status": status, "reason": "Because"}]);
    json!({"metadata": {"name": "cart", "namespace": "shop"}, "status": {"conditions": conditions}})
}

fn definition(kind: crds::smi::SmiKind, served: bool) -> (String, Value) {
    let name = kind.definition();
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
    let versions = json!([{"name": "v1alpha4", "served": served}]);
    let labels = json!({"app.kubernetes.io/part-of": "weft"});
    (
        path,
        json!({"metadata": {"name": name, "labels": labels}, "spec": {"group": kind.group(), "versions": versions}}),
    )
}

fn healthy() -> FakeApi {
    let api = FakeApi::default();
    let pem = root(2999);
    api.put(
        "/version",
        json!({"major": "1", "minor": "33", "gitVersion": "v1.33.2"}),
    );
    api.put(&format!("{WEFT}/weft-controller"), controller(true, true));
    api.put(
        &format!("{WEFT}/weft-injector"),
        deployment("weft-injector", 2),
    );
    api.put(LEASE, lease(0));
    let webhooks = json!({"metadata": {}, "webhooks": [{"name": "a", "clientConfig": {"caBundle": secret(&pem)}}]});
    api.put(MUTATING, webhooks.clone());
    api.put(VALIDATING, webhooks);
    api.put(
        SECRET,
        json!({"metadata": {}, "data": {"issuer.crt": secret(&pem)}}),
    );
    let bundle = |namespace: &str| json!({"metadata": {"name": "weft-trust-bundle", "namespace": namespace}, "data": {"ca.crt": pem}});
    api.put(BUNDLE, bundle("shop"));
    for namespace in ["a", "b"] {
        api.put(&BUNDLE.replace("shop", namespace), bundle(namespace));
    }
    for name in API_SERVICES {
        put_api_service(&api, name, "True");
    }
    for kind in crds::smi::SmiKind::ALL {
        let (path, definition) = definition(kind, true);
        api.put(&path, definition);
    }
    for plural in [
        "trafficpolicies",
        "canaryreleases",
        "faultexperiments",
        "externalservices",
    ] {
        let name = format!("{plural}.weft.dev");
        let versions = json!([{"name": "v1alpha1", "served": true}]);
        api.put(
            &format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}"),
            json!({"metadata": {"name": name, "labels": {"app.kubernetes.io/part-of": "weft"}},
                "spec": {"group": "weft.dev", "versions": versions}}),
        );
    }
    api.put(
        "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication",
        json!({"metadata": {}, "data": {"requestheader-client-ca-file": pem}}),
    );
    api.put(
        NAMESPACE,
        json!({"metadata": {"name": "shop", "labels": {"weft.dev/inject": "enabled"}}}),
    );
    api.put(POD, pod());
    api.put(PROXY, proxy());
    api.put(SPLIT, split("Accepted", "True"));
    api
}

async fn checked(
    api: &FakeApi,
    webhooks: Webhooks,
    arguments: &[&str],
) -> (Result<Conclusion, Failure>, Value, String) {
    checked_by(client(api, webhooks), arguments).await
}

async fn checked_by(
    client: kube::Client,
    arguments: &[&str],
) -> (Result<Conclusion, Failure>, Value, String) {
    let arguments = ["weft", "check", "-o", "json"].iter().chain(arguments);
    let cli = Cli::try_parse_from(arguments).unwrap();
    let Command::Check(check) = cli.command else {
        panic!("another command");
    };
    let cluster = Cluster::of(client, &cli.global);
    let mut streams = Streams::default();
    let mut console = streams.console();
    let now = SystemTime::now();
    let ended = check.print(&cluster, Format::Json, now, &mut console).await;
    let mut table = Vec::new();
    console.out = &mut table;
    if ended.is_ok() {
        check
            .print(&cluster, Format::Table, now, &mut console)
            .await
            .unwrap();
    }
    let (out, _) = streams.texts();
    let report = serde_json::from_str(&out).unwrap_or_default();
    (ended, report, String::from_utf8(table).unwrap())
}

/// Checks whose result is one of these.
fn with(report: &Value, results: &[&str]) -> Vec<String> {
    let checks = report["checks"].as_array().unwrap().iter();
    let found = checks.filter(|check| results.contains(&check["result"].as_str().unwrap()));
    found
        .map(|check| check["id"].as_str().unwrap().to_owned())
        .collect()
}

// Claims: observability-7
#[tokio::test]
async fn a_healthy_mesh_passes_every_check_and_skips_none() {
    let (ended, report, table) = checked(&healthy(), WELL, &[]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    assert_eq!(
        with(&report, &["warning", "error", "skipped"]),
        [] as [String; 0],
        "{report:#}"
    );
    let after = list::CHECKS.iter().filter(|check| !check.pre).count();
    assert_eq!(report["checks"].as_array().unwrap().len(), after);
    assert!(table.contains("control-plane\n  ok"), "{table}");
}

fn plant_proxy(api: &FakeApi, field: &str, value: Value) {
    let mut proxy = proxy();
    proxy["status"][field] = value;
    api.put(PROXY, proxy);
}

#[tokio::test]
async fn a_warning_fails_only_when_asked_to() {
    let api = healthy();
    api.put(SPLIT, split("ResolvedRefs", "False"));
    assert_eq!(checked(&api, WELL, &[]).await.0.unwrap(), Conclusion::Yes);
    let strict = checked(&api, WELL, &["--fail-on", "warning"]).await;
    assert_eq!(strict.0.unwrap(), Conclusion::No);
}

#[tokio::test]
async fn pre_install_checks_cover_permissions_crds_and_aggregation() {
    let api = healthy();
    let (ended, report, _) = checked(&api, WELL, &["--pre"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let ids = with(&report, &["ok"]);
    assert_eq!(
        ids,
        [
            "kubernetes-version",
            "clocks",
            "rights",
            "foreign-definitions",
            "aggregation"
        ],
        "{report:#}"
    );

    let foreign = json!({"metadata": {"name": "trafficsplits.split.smi-spec.io"}, "spec": {"group": "split.smi-spec.io"}});
    api.put(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/trafficsplits.split.smi-spec.io",
        foreign,
    );
    api.remove("/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication");
    let poor = Webhooks {
        injects: false,
        ..WELL
    };
    let (ended, report, _) = checked(&api, poor, &["--pre"]).await;
    assert_eq!(ended.unwrap(), Conclusion::No);
    assert_eq!(
        with(&report, &["error"]),
        ["rights", "aggregation"],
        "{report:#}"
    );
    assert_eq!(
        with(&report, &["warning"]),
        ["foreign-definitions"],
        "{report:#}"
    );
}

// Claims: observe-112, observe-29
#[tokio::test(start_paused = true)]
async fn unreachable_api_server_is_reported_within_ten_seconds() {
    let api = healthy();
    api.vanish(true);
    let started = Instant::now();
    let (ended, report, _) = checked(&api, WELL, &[]).await;
    let Err(Failure::Unknown(words)) = ended else {
        panic!("{ended:?}");
    };
    assert!(words.contains("did not answer"), "{words}");
    // What reads JSON has some.
    let outcome = json!({"success": false, "checks": [], "error": words});
    assert_eq!(report, outcome);
    assert!(
        started.elapsed() <= Duration::from_secs(10),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test(start_paused = true)]
async fn waiting_ends_when_nothing_fails_any_more() {
    let api = healthy();
    let webhooks = api.read(VALIDATING).unwrap();
    api.remove(VALIDATING);
    let mending = api.clone();
    let mend = tokio::spawn(async move {
        sleep(Duration::from_secs(31)).await;
        mending.put(VALIDATING, webhooks);
    });
    let started = Instant::now();
    let (ended, ..) = checked(&api, WELL, &["--wait", "2m"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes);
    let took = started.elapsed();
    assert!((31..40).contains(&took.as_secs()), "{took:?}");
    mend.await.unwrap();
}
