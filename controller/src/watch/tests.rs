//! Watches gather a World, and survive their ends.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures::{StreamExt as _, stream::BoxStream};
use http::{Request, Response, StatusCode};
use http_body_util::StreamBody;
use hyper::body::Frame;
use kube::client::Body;
use serde_json::{Value, json};
use tokio::time::{Instant, advance, timeout};

use super::*;
use crate::testing::cluster;

mod served;

type Worlds = watch::Receiver<Option<Arc<World>>>;
/// What is said in answer to one call.
type Frames = BoxStream<'static, Result<Frame<Bytes>, std::io::Error>>;

fn started() -> (mpsc::Sender<AnyStep>, Worlds) {
    let (steps, received) = mpsc::channel(STEPS);
    let (publish, worlds) = watch::channel(None);
    tokio::spawn(collect(received, publish));
    (steps, worlds)
}

async fn send(
    steps: &mpsc::Sender<AnyStep>,
    step: impl FnOnce(&mut Collector) -> News + Send + 'static,
) {
    assert!(steps.send(Box::new(step)).await.is_ok());
}

async fn list_all(steps: &mpsc::Sender<AnyStep>) {
    for absent in cluster::ABSENT {
        send(steps, absent).await;
    }
}

async fn apply(steps: &mpsc::Sender<AnyStep>, object: Value) {
    send(steps, move |c| cluster::apply(c, &object)).await;
}

async fn no_world(worlds: &mut Worlds, during: Duration) {
    assert!(timeout(during, worlds.changed()).await.is_err());
}

/// The World that there is as soon as every kind has been listed.
async fn first_world(worlds: &mut Worlds) -> Arc<World> {
    let changed = timeout(Duration::from_secs(20), worlds.changed()).await;
    changed.unwrap().unwrap();
    worlds.borrow().clone().unwrap()
}

fn start_on(client: Client) -> Worlds {
    start(
        client,
        Arc::default(),
        GatewayApi::Gateways,
        WorldMetrics::default(),
        Ready::new(),
    )
    .0
}

#[tokio::test(start_paused = true)]
async fn no_world_before_every_kind_has_been_listed() {
    let (steps, mut worlds) = started();
    apply(&steps, cluster::node("a", "z")).await;
    send(&steps, |c| c.pods.take(Step::Absent)).await;
    no_world(&mut worlds, Duration::from_secs(60)).await;
    list_all(&steps).await;
    worlds.changed().await.unwrap();
    assert!(worlds.borrow().is_some());
}

#[tokio::test(start_paused = true)]
async fn change_after_quiet_is_immediate_and_later_ones_batched() {
    let (steps, mut worlds) = started();
    list_all(&steps).await;
    worlds.changed().await.unwrap();
    advance(Duration::from_secs(1)).await;
    let start = Instant::now();
    apply(&steps, cluster::service("a", "10.0.0.1", &[])).await;
    worlds.changed().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
    apply(&steps, cluster::service("b", "10.0.0.2", &[])).await;
    tokio::task::yield_now().await;
    apply(&steps, cluster::service("c", "10.0.0.3", &[])).await;
    worlds.changed().await.unwrap();
    assert!(
        start.elapsed() >= PAUSE && start.elapsed() < 2 * PAUSE,
        "{:?}",
        start.elapsed()
    );
    let world = worlds.borrow_and_update().clone().unwrap();
    assert_eq!(world.services.len(), 3, "both in one World");
}

#[tokio::test(start_paused = true)]
async fn removed_endpoint_and_changed_policy_are_published_immediately() {
    let (steps, mut worlds) = started();
    list_all(&steps).await;
    let ready = cluster::endpoint("p", "10.0.0.9");
    let ports = [("http", 80)];
    apply(
        &steps,
        cluster::slice("s", "svc", &ports, std::slice::from_ref(&ready)),
    )
    .await;
    worlds.changed().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    worlds.borrow_and_update();
    let start = Instant::now();
    apply(&steps, cluster::slice("s", "svc", &ports, &[])).await;
    worlds.changed().await.unwrap();
    apply(&steps, cluster::target("t", "x", &[], json!([]))).await;
    worlds.changed().await.unwrap();
    let closed = cluster::annotate(cluster::namespace("shop"), "weft.dev/access", "deny");
    apply(&steps, closed).await;
    worlds.changed().await.unwrap();
    assert_eq!(start.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn irrelevant_write_produces_no_new_world() {
    let (steps, mut worlds) = started();
    list_all(&steps).await;
    let split = cluster::split("s", "r", &[("a", 1)]);
    apply(&steps, split.clone()).await;
    worlds.changed().await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    worlds.borrow_and_update();
    let rewritten = cluster::set(split.clone(), "/metadata/resourceVersion", json!("2"));
    apply(
        &steps,
        cluster::set(rewritten, "/status/summary", json!("x")),
    )
    .await;
    no_world(&mut worlds, Duration::from_secs(10)).await;
    apply(
        &steps,
        cluster::set(split, "/spec/backends/0/weight", json!(2)),
    )
    .await;
    worlds.changed().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn collecting_ends_without_a_reader() {
    let (steps, worlds) = started();
    drop(worlds);
    timeout(Duration::from_secs(1), steps.closed())
        .await
        .unwrap();
}

/// Stands for as many levels of nesting as fit into one object of etcd.
const WITHOUT_END: &str = "(without end)";

/// An API server that lists what `answer` gives for a path, and whose watches
/// never say anything.
fn server(answer: fn(&str) -> Result<Vec<Value>, StatusCode>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| async move {
        if request.uri().query().unwrap_or_default().contains("watch=") {
            std::future::pending::<()>().await;
        }
        let (code, body) = match answer(request.uri().path()) {
            Ok(items) => {
                let meta = json!({"resourceVersion": "1"});
                (
                    StatusCode::OK,
                    json!({"kind": "List", "metadata": meta, "items": items}),
                )
            }
            Err(code) => {
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
                    "code": code.as_u16(), "message": "no", "reason": "no"});
                (code, status)
            }
        };
        let text = format!("{}1{}", r#"{"a":"#.repeat(200_000), "}".repeat(200_000));
        let body = body.to_string().replace(&format!("{WITHOUT_END:?}"), &text);
        let mut response = Response::new(Body::from(body.into_bytes()));
        *response.status_mut() = code;
        Ok::<_, std::convert::Infallible>(response)
    });
    Client::new(service, "default")
}

#[tokio::test(start_paused = true)]
async fn unknown_kind_and_unreadable_object_stop_nothing() {
    let client = server(|path| match path {
        "/api/v1/pods" => Ok(vec![
            cluster::set(
                cluster::plain_pod("bad", "10.0.0.2", "x"),
                "/spec",
                json!("none"),
            ),
            cluster::plain_pod("good", "10.0.0.1", "x"),
        ]),
        path if path.contains("smi-spec.io") => Err(StatusCode::NOT_FOUND),
        _ => Ok(Vec::new()),
    });
    let metrics = WorldMetrics::default();
    let (mut worlds, _) = start(
        client,
        Arc::default(),
        GatewayApi::Routes,
        metrics.clone(),
        Ready::new(),
    );
    let world = first_world(&mut worlds).await;
    let names: Vec<&str> = world.pods.keys().map(|key| &*key.name).collect();
    assert_eq!(names, ["good"]);
    assert_eq!(metrics.times_left_out("Pod"), 1);
    assert_eq!(metrics.times_left_out("Service"), 0);
}

#[tokio::test(start_paused = true)]
async fn endlessly_nested_objects_disable_only_their_own_meaning() {
    let client = server(|path| match path {
        "/apis/specs.smi-spec.io/v1alpha4/httproutegroups" => Ok(["deep", "good"]
            .map(|name| {
                let value = if name == "deep" { WITHOUT_END } else { "y" };
                cluster::group(name, json!([{"name": "m", "headers": {"x": value}}]))
            })
            .to_vec()),
        "/api/v1/pods" => Ok(vec![
            cluster::set(
                cluster::plain_pod("deep", "10.0.0.1", "x"),
                "/metadata/managedFields",
                json!([{"manager": "m", "fieldsV1": WITHOUT_END}]),
            ),
            cluster::plain_pod("good", "10.0.0.2", "x"),
        ]),
        _ => Ok(Vec::new()),
    });
    let mut worlds = start_on(client);
    let world = first_world(&mut worlds).await;
    assert_eq!(world.pods.len(), 2);
    let bad: Vec<_> = world
        .groups
        .iter()
        .map(|(key, group)| (&*key.name, group.spec.matches[0].criteria.is_none()))
        .collect();
    assert_eq!(bad, [("deep", true), ("good", false)]);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_cannot_answer_yet_is_waited_for() {
    let client = server(|path| match path {
        "/apis/access.smi-spec.io/v1alpha4/traffictargets" => Err(StatusCode::SERVICE_UNAVAILABLE),
        _ => Ok(Vec::new()),
    });
    let mut worlds = start_on(client);
    no_world(&mut worlds, Duration::from_secs(600)).await;
}

/// An API server with empty lists, whose watches of Pods are answered with what `pods` holds.
/// Where that is nothing, and of all other kinds, they never say anything.
fn server_that_fails(pods: watch::Receiver<Option<(StatusCode, Value)>>) -> Client {
    let service = tower::service_fn(move |request: Request<Body>| {
        let pods = pods.borrow().clone();
        async move {
            let watches = request
                .uri()
                .query()
                .is_some_and(|query| query.contains("watch="));
            let of_pods = request.uri().path() == "/api/v1/pods";
            let (code, body) = match pods {
                Some(answer) if watches && of_pods => answer,
                _ if watches => std::future::pending().await,
                _ => {
                    let meta = json!({"resourceVersion": "1"});
                    let list = json!({"kind": "List", "metadata": meta, "items": []});
                    (StatusCode::OK, list)
                }
            };
            let mut response = Response::new(Body::from(body.to_string().into_bytes()));
            *response.status_mut() = code;
            Ok::<_, std::convert::Infallible>(response)
        }
    });
    Client::new(service, "default")
}

// Claims: attack-88
#[tokio::test(start_paused = true)]
async fn failing_watch_is_reported_while_readiness_stays() {
    let status = |code: u16, reason: &str| {
        json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "code": code, "message": "no", "reason": reason})
    };
    let expired = json!({"type": "ERROR", "object": status(410, "Expired")});
    for answer in [
        (StatusCode::FORBIDDEN, status(403, "Forbidden")),
        // After each of these comes a list, which is answered.
        (StatusCode::OK, expired),
    ] {
        let (answers, pods) = watch::channel(Some(answer));
        let (client, ready) = (server_that_fails(pods), Ready::new());
        let metrics = WorldMetrics::default();
        let (mut worlds, _) = start(
            client,
            Arc::default(),
            GatewayApi::Routes,
            metrics.clone(),
            ready.clone(),
        );
        first_world(&mut worlds).await;
        assert_eq!(ready.noted(), None);
        tokio::time::sleep(Duration::from_secs(200)).await;
        let seconds = metrics.failing_seconds("Pod");
        assert!((60..=200).contains(&seconds), "{seconds} s");
        assert_eq!(metrics.failing_seconds("Service"), 0);
        assert!(ready.is_ready() && ready.noted().is_some());

        answers.send_replace(None);
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert_eq!((metrics.failing_seconds("Pod"), ready.noted()), (0, None));
    }
}

// Claims: attack-88
#[tokio::test(start_paused = true)]
async fn silently_dead_watch_is_reopened_after_65_s() {
    let opened = Arc::new(AtomicUsize::new(0));
    let counted = opened.clone();
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default();
        let frames: Frames = if query.contains("watch=") {
            if request.uri().path() == "/api/v1/pods" {
                counted.fetch_add(1, Ordering::Relaxed);
            }
            futures::stream::pending().boxed()
        } else {
            let list = json!({"kind": "List", "metadata": {"resourceVersion": "1"}, "items": []});
            let frame = Frame::data(Bytes::from(list.to_string()));
            futures::stream::iter([Ok(frame)]).boxed()
        };
        async move { Ok::<_, std::convert::Infallible>(Response::new(StreamBody::new(frames))) }
    });
    let mut worlds = start_on(Client::new(service, "default"));
    first_world(&mut worlds).await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(opened.load(Ordering::Relaxed), 1);
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(opened.load(Ordering::Relaxed), 2);
}

/// ConfigMap is in the table of kinds in tests only, and named nowhere outside of it but
/// by its facts and its translation.
#[tokio::test(start_paused = true)]
async fn a_kind_is_followed_because_it_has_a_row() {
    let client = server(|path| match path {
        "/api/v1/configmaps" => {
            let meta = json!({"name": "m", "namespace": "shop"});
            Ok(vec![
                json!({"metadata": meta, "data": {"a": "1", "b": "2"}}),
            ])
        }
        _ => Ok(Vec::new()),
    });
    let mut worlds = start_on(client);
    let world = first_world(&mut worlds).await;
    let found: Vec<_> = world.config_maps.iter().collect();
    assert_eq!(found.len(), 1);
    assert_eq!((&*found[0].0.name, found[0].1.entries), ("m", 2));

    let client = server(|path| match path {
        "/api/v1/configmaps" => Err(StatusCode::SERVICE_UNAVAILABLE),
        _ => Ok(Vec::new()),
    });
    let mut worlds = start_on(client);
    no_world(&mut worlds, Duration::from_secs(600)).await;
}
