//! The read API's rights, permits and responses.
//!
//! Claims: observe-20

use std::convert::Infallible;
use std::time::Duration;

use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use kube::client::Body as KubeBody;
use model::{Model, problem::Problems};
use prometheus_client::metrics::counter::Counter;
use runtime::limit::Reached;
use serde_json::json;
use tokio::sync::watch;

use super::*;
use crate::aggregated::access::Gate;
use crate::aggregated::bodies::AnswerBudget;
use crate::apiserver::events::EventRecorder;
use crate::graph::follow::Graph;
use crate::inventory::follow::Followed;
use crate::metrics::{GraphMetrics, ObserveMetrics};
use crate::observe::acknowledged::Observed;
use crate::observe::live_queries::LiveQueries;
use crate::observe::reports::{INTERVAL, Reports, interval_of};
use crate::testing::cluster::{Cluster, group, shop, target};
use crate::testing::topology::{inventory, reports, seen_by_client};

mod command_line;
mod documents;
mod dry_runs;
mod explanations;
mod gateways;
mod live_dry_runs;
mod proxies;
mod route_tables;
mod starting_up;
mod streams;
mod taps;

/// An API server that grants users the `rights`: user, verb, resource, namespace.
fn judge(
    rights: &'static [(&str, &str, &str, &str)],
    reviewed: Arc<Mutex<Vec<String>>>,
) -> kube::Client {
    let service = tower::service_fn(move |request: Request<KubeBody>| {
        let reviewed = Arc::clone(&reviewed);
        async move {
            let body = request.into_body().collect_bytes().await.unwrap();
            let mut review: Value = serde_json::from_slice(&body).unwrap();
            let spec = review["spec"].clone();
            let about = &spec["resourceAttributes"];
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let question = [
                &spec["user"],
                &about["verb"],
                &about["resource"],
                &about["namespace"],
            ];
            let question = question.map(text);
            reviewed.lock().push(question.join(" "));
            // Core, SMI's, and the API's own.
            let group = about["group"].as_str().unwrap_or_default();
            assert!(group.is_empty() || group == GROUP || group.ends_with("smi-spec.io"));
            let allowed = rights.iter().any(|(user, verb, resource, namespace)| {
                question == [*user, *verb, *resource, *namespace]
            });
            review["status"] = json!({"allowed": allowed, "reason": "by the test"});
            Ok::<_, Infallible>(Response::new(KubeBody::from(
                review.to_string().into_bytes(),
            )))
        }
    });
    kube::Client::new(service, "default")
}

struct Bench {
    api: Arc<ObserveApi>,
    reports: Reports,
    reviewed: Arc<Mutex<Vec<String>>>,
    /// Events, as they were written.
    recorded: Arc<Mutex<Vec<String>>>,
    /// What it knows of the cluster.
    models: watch::Sender<Option<Arc<Compiled>>>,
}

const RIGHTS: &[(&str, &str, &str, &str)] = &[
    ("admin", "get", "graphs", ""),
    ("admin", "get", "scopes", ""),
    ("admin", "list", "proxies", ""),
    ("viewer", "get", "graphs", "shop"),
    ("viewer", "get", "scopes", ""),
    ("viewer", "list", "proxies", "shop"),
    ("viewer", "get", "proxies", "shop"),
    ("viewer", "create", "explanations", "shop"),
    ("viewer", "get", "taps", "shop"),
    ("auditor", "get", "proxies", "shop"),
    ("auditor", "get", "graphs", "bank"),
    ("tapper", "get", "taps", "shop"),
    ("tapper", "create", "taps", "shop"),
    ("watcher", "get", "taps", "shop"),
    ("watcher", "create", "taps", "shop"),
    ("watcher", "get", "graphs", "bank"),
    ("editor", "create", "dryruns", "shop"),
    ("editor", "get", "graphs", "shop"),
    ("editor", "create", "traffictargets", "shop"),
    ("editor", "update", "traffictargets", "shop"),
    ("editor", "delete", "traffictargets", "shop"),
    ("editor", "update", "namespaces", ""),
    ("author", "get", "graphs", "shop"),
    ("author", "create", "dryruns", "shop"),
    ("author", "create", "tcproutes", "shop"),
    ("author", "create", "traffictargets", "shop"),
    ("owner", "create", "dryruns", "shop"),
    ("owner", "get", "graphs", "shop"),
    ("owner", "create", "taps", "shop"),
    ("owner", "update", "traffictargets", "shop"),
    ("owner", "create", "httproutegroups", "shop"),
    ("owner", "update", "httproutegroups", "shop"),
    ("owner", "get", "taps", "shop"),
    ("half", "create", "dryruns", "shop"),
    ("half", "get", "graphs", "shop"),
    ("half", "create", "taps", "shop"),
    ("half", "update", "traffictargets", "shop"),
    ("router", "create", "dryruns", "shop"),
    ("router", "update", "httproutegroups", "shop"),
    ("blind", "create", "dryruns", "shop"),
    ("blind", "update", "traffictargets", "shop"),
    ("writer", "create", "dryruns", "shop"),
    ("writer", "update", "traffictargets", "shop"),
    ("writer", "get", "graphs", "bank"),
    ("tenant", "create", "dryruns", "other"),
    ("tenant", "create", "identitybindings", "other"),
    ("reader", "create", "dryruns", "other"),
    ("reader", "create", "identitybindings", "other"),
    ("reader", "get", "graphs", "shop"),
    ("patcher", "create", "dryruns", "shop"),
    ("patcher", "patch", "traffictargets", "shop"),
    ("patcher", "patch", "namespaces", ""),
    ("remover", "create", "dryruns", "shop"),
    ("remover", "delete", "traffictargets", "shop"),
    ("prober", "create", "dryruns", "shop"),
    ("knower", "create", "dryruns", "shop"),
    ("knower", "get", "traffictargets", "bank"),
    ("knower", "delete", "traffictargets", "bank"),
    ("maker", "create", "dryruns", "shop"),
    ("maker", "create", "traffictargets", "bank"),
    ("neighbour", "create", "explanations", "bank"),
    ("both", "create", "explanations", "shop"),
    ("both", "create", "explanations", "bank"),
    ("root", "get", "graphs", ""),
    ("root", "get", "graphs", "shop"),
    ("root", "get", "scopes", ""),
    ("root", "list", "proxies", ""),
    ("root", "list", "proxies", "shop"),
    ("root", "get", "proxies", "shop"),
    ("root", "create", "explanations", ""),
    ("root", "create", "explanations", "shop"),
    ("root", "get", "taps", "shop"),
    ("root", "create", "taps", "shop"),
    ("root", "create", "dryruns", ""),
    ("root", "create", "dryruns", "shop"),
    ("root", "get", "routetables", "shop"),
    ("root", "get", "routetables", "bank"),
    ("viewer", "get", "routetables", "shop"),
    ("root", "delete", "traffictargets", "shop"),
];

/// A shop whose `api` lets itself be read.
fn read_only() -> Cluster {
    let read = json!([{"name": "read", "pathRegex": "/items", "methods": ["GET"]}]);
    let rules = json!([{"kind": "HTTPRouteGroup", "name": "routes"}]);
    shop()
        .with(group("routes", read))
        .with(target("read", "api", &["web"], rules))
}

impl Bench {
    fn new() -> Self {
        Self::of(&read_only())
    }

    fn of(cluster: &Cluster) -> Self {
        Self::of_compiled(cluster, cluster.compile())
    }

    fn of_compiled(cluster: &Cluster, (model, problems): (Model, Problems)) -> Self {
        let compiled = Compiled::new(Arc::new(cluster.world()), model, problems);
        let (models, latest) = watch::channel(Some(Arc::new(compiled)));
        let followed = Followed::default();
        let mut known = inventory();
        let client = crate::inventory::InventoryObject {
            uid: "uid-client".into(),
            ..Default::default()
        };
        let pod = model::world::ObjectKey::new("shop", "client");
        known.put(
            crate::inventory::kind::MetricsKind::Pod,
            pod,
            Arc::new(client),
        );
        *followed.inventory.write() = known;
        let reports = reports();
        let graph = Graph::new(
            reports.clone(),
            Arc::clone(&followed.inventory),
            latest.clone(),
            Duration::from_secs(3600),
            GraphMetrics::default(),
        );
        graph.startup().set_loaded();
        let reviewed = Arc::default();
        let recorded = Arc::default();
        let client = taps::recorder(Arc::clone(&recorded));
        let (events, writer) = EventRecorder::new(client, "me", Counter::default());
        tokio::spawn(writer.run(std::future::pending()));
        let context = ObserveContext {
            graph,
            latest,
            followed,
            observed: Observed::default(),
            live_queries: LiveQueries::default(),
            tap_headers: Arc::new(["user-agent".to_owned()].into()),
            leaf_ttl: Duration::from_secs(900),
            cluster: crds::smi::validation::Cluster::default(),
            gateway_api: true,
            events,
            gate: Gate::new(judge(RIGHTS, Arc::clone(&reviewed))),
            answers: AnswerBudget::new(&Reached::default()),
            metrics: ObserveMetrics::default(),
        };
        Self {
            api: Arc::new(ObserveApi::new(context)),
            reports,
            reviewed,
            recorded,
            models,
        }
    }

    /// A workload of `shop` called `api` in the interval before this one.
    async fn call(&self) {
        self.called_by(&["shop/web"]).await;
    }

    /// Each of these, `namespace/name` of a Deployment, did, and its proxy reported it.
    async fn called_by(&self, callers: &[&str]) {
        self.called_in(interval_of(SystemTime::now()) - 1, callers)
            .await;
    }

    /// The same in this interval.
    async fn called_in(&self, interval: u64, callers: &[&str]) {
        let now = SystemTime::now();
        for caller in callers {
            let (namespace, name) = caller.split_once('/').unwrap();
            let reporter = crate::observe::reports::Reporter {
                uid: format!("{namespace}-{name}").into(),
                pod: model::world::ObjectKey::new(namespace, &format!("{name}-1")),
                account: None,
            };
            let report = wire::v1::Report {
                process: 1,
                slot: interval * INTERVAL,
                edges: vec![seen_by_client("shop/api", 3, 1)],
                ..wire::v1::Report::default()
            };
            self.reports.take(&reporter, report, true, now);
        }
        self.api.context.graph.look(now, true).await;
    }

    /// The cluster becomes this one.
    fn becomes(&self, cluster: &Cluster) {
        let (model, problems) = cluster.compile();
        let compiled = Compiled::new(Arc::new(cluster.world()), model, problems);
        self.models.send_replace(Some(Arc::new(compiled)));
    }

    async fn send(&self, user: &str, method: Method, path: &str, body: String) -> ApiResponse {
        let user = User {
            name: user.to_owned(),
            ..User::default()
        };
        let path = if path.starts_with('/') {
            path.to_owned()
        } else {
            format!("/apis/{API_VERSION}/{path}")
        };
        let request = Request::builder().method(method).uri(path);
        let request = request.body(Full::new(Bytes::from(body))).unwrap();
        self.api.respond(&user, request).await
    }

    async fn get(&self, user: &str, path: &str) -> (u16, Value) {
        read(self.send(user, Method::GET, path, String::new()).await).await
    }

    async fn explain(&self, user: &str, path: &str, spec: Value) -> (u16, Value) {
        let body = json!({"apiVersion": API_VERSION, "kind": "Explanation", "spec": spec});
        read(self.send(user, Method::POST, path, body.to_string()).await).await
    }
}

async fn read(answer: ApiResponse) -> (u16, Value) {
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap())
}

async fn line(body: &mut server::Body) -> Option<Value> {
    let frame = body.frame().await?.unwrap();
    let data = frame.into_data().unwrap();
    assert!(data.ends_with(b"\n"));
    Some(serde_json::from_slice(&data).unwrap())
}

#[tokio::test]
async fn graph_is_served_only_within_read_permissions() {
    let bench = Bench::new();
    bench.call().await;
    let (status, body) = bench.get("viewer", "namespaces/shop/graphs/live").await;
    assert_eq!(status, 200, "{body}");
    assert_eq!(
        (&body["kind"], &body["metadata"]["complete"]),
        (&json!("Graph"), &json!(false))
    );
    assert_eq!(body["edges"][0]["requests"], 4);
    let nodes = body["nodes"].as_array().unwrap();
    let web = nodes
        .iter()
        .find(|node| node["id"] == "shop/Deployment/api");
    assert!(web.is_some(), "{nodes:?}");
    for (user, path) in [
        ("viewer", "graphs/live"),
        ("viewer", "namespaces/bank/graphs/live"),
        ("stranger", "namespaces/shop/graphs/live"),
    ] {
        let (status, body) = bench.get(user, path).await;
        assert_eq!(
            (status, &body["reason"]),
            (403, &json!("Forbidden")),
            "{user} {path}"
        );
    }
    assert_eq!(bench.get("admin", "graphs/live").await.0, 200);
    let reviewed = bench.reviewed.lock().clone();
    assert_eq!(reviewed[0], "viewer get graphs shop");
}

// Claims: observability-17
#[tokio::test]
async fn invalid_queries_name_parameter_and_unsupported_verbs_list_alternatives() {
    let bench = Bench::new();
    let (status, body) = bench.get("admin", "graphs/live?window=1h").await;
    assert_eq!(status, 400);
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .starts_with("parameter window:"),
        "{body}"
    );
    let (status, body) = bench.get("admin", "graphs/live?windw=5m").await;
    assert_eq!(status, 400, "{body}");
    assert!(
        body["message"]
            .as_str()
            .unwrap()
            .starts_with("parameter windw:"),
        "{body}"
    );
    // As `kubectl get proxies --watch` requests it: a list is nothing that it could read.
    let watched = "proxies?allowWatchBookmarks=true&watch=true&resourceVersion=0";
    let (status, body) = bench.get("admin", watched).await;
    let refusal = (status, &body["kind"], &body["reason"]);
    let expected = (405, &json!("Status"), &json!("MethodNotAllowed"));
    assert_eq!(refusal, expected, "{body}");
    for (method, path) in [
        (Method::DELETE, "graphs/live"),
        (Method::POST, "graphs/live"),
        (Method::GET, "explanations"),
        (Method::PUT, "namespaces/shop/proxies/web-1"),
    ] {
        let answer = bench
            .send("admin", method.clone(), path, String::new())
            .await;
        assert_eq!(answer.status(), 405, "{method} {path}");
    }
    assert_eq!(bench.get("admin", "secrets").await.0, 404);
}

#[tokio::test]
async fn requests_are_refused_until_caches_are_complete() {
    let mut bench = Bench::new();
    let api = Arc::get_mut(&mut bench.api).unwrap();
    api.context.latest = watch::channel(None).1;
    let answer = bench
        .send("admin", Method::GET, "graphs/live", String::new())
        .await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.headers()["retry-after"], "1");
}

#[tokio::test]
async fn discovery_offers_no_watch_or_delete_verbs() {
    let bench = Bench::new();
    let (status, body) = bench.get("anybody", &format!("/apis/{API_VERSION}")).await;
    assert_eq!(status, 200);
    let resources = body["resources"].as_array().unwrap();
    assert_eq!(resources.len(), Resource::ALL.len());
    for resource in resources {
        let verbs: Vec<&str> = resource["verbs"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(Value::as_str)
            .collect();
        assert!(
            !verbs.contains(&"watch") && !verbs.contains(&"delete"),
            "{resource}"
        );
    }
    let v3 = format!("/openapi/v3/apis/{API_VERSION}");
    assert_eq!(bench.get("anybody", &v3).await.0, 200);
    assert!(bench.reviewed.lock().is_empty());
}

#[tokio::test]
async fn scope_review_is_cached_for_one_minute() {
    let bench = Bench::new();
    for _ in 0..2 {
        let (status, body) = bench.get("viewer", "scopes/live").await;
        assert_eq!(status, 200);
        assert_eq!(
            (&body["cluster"], &body["namespaces"]),
            (&json!(false), &json!(["shop"]))
        );
    }
    let reviewed = bench.reviewed.lock().clone();
    assert_eq!(
        reviewed,
        [
            "viewer get scopes ",
            "viewer get graphs ",
            "viewer get graphs shop"
        ]
    );
    let (_, body) = bench.get("admin", "scopes/live").await;
    assert_eq!(
        (&body["cluster"], &body["namespaces"]),
        (&json!(true), &json!(["shop"]))
    );
}

// Claims: observe-13
#[tokio::test]
async fn read_api_response_without_room_counts_as_429() {
    let bench = Bench::new();
    let mut held = Vec::new();
    while let Ok(share) = bench.api.context.answers.reserve(64 * 1024) {
        held.push(share);
    }
    let metrics = &bench.api.context.metrics;
    let answered = || [200, 403, 429].map(|code| metrics.times_answered("proxies", code));
    assert_eq!(bench.get("admin", "proxies").await.0, 429);
    assert_eq!(answered(), [0, 0, 1]);
    // So does a refusal that finds none.
    assert_eq!(bench.get("stranger", "proxies").await.0, 429);
    assert_eq!(answered(), [0, 0, 2]);
    drop(held);
    assert_eq!(bench.get("admin", "proxies").await.0, 200);
    assert_eq!(bench.get("stranger", "proxies").await.0, 403);
    assert_eq!(answered(), [1, 1, 2]);
}
