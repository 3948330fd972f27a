//! What is reported of a route stands beside what other controllers report.

use http::{Method, Request, Response};
use kube::client::Body;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const ROUTE: &str = "/apis/gateway.networking.k8s.io/v1/namespaces/shop/httproutes/web";

fn web() -> ObjectRef {
    ObjectRef::new(Kind::HttpRoute, "shop", "web")
}

/// A route of `api` whose parents are these.
fn route(parents: &Value) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "web", "namespace": "shop", "uid": "uid-web", "generation": 1},
        "spec": {
            "parentRefs": parents,
            "rules": [{"backendRefs": [{"name": "api", "port": 80}]}],
        },
    })
}

fn service(name: &str) -> Value {
    json!({"group": "", "kind": "Service", "name": name})
}

/// What another controller reports.
fn foreign(message: &str) -> Value {
    json!({
        "controllerName": "example.com/ingress",
        "parentRef": {"name": "door"},
        "conditions": [{
            "type": "Accepted", "status": "False", "reason": "Other", "message": message,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        }],
    })
}

fn compiled_with(route: &Value) -> Arc<Compiled> {
    let world = Arc::new(cluster::shop().with(route.clone()).world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    Arc::new(Compiled::new(world, model, problems))
}

/// A bench with the route, whose status has these entries.
fn bench(route: &Value, parents: &[Value]) -> Bench {
    let bench = Bench::new(&[("api", 1)]);
    put(&bench, route, parents);
    bench.models.send_replace(Some(compiled_with(route)));
    bench
}

fn put(bench: &Bench, route: &Value, parents: &[Value]) {
    let mut stored = route.clone();
    stored["status"] = json!({"parents": parents});
    bench.api.put(ROUTE, stored);
}

fn parents(bench: &Bench) -> Vec<Value> {
    let route = bench.api.read(ROUTE).unwrap();
    route["status"]["parents"].as_array().unwrap().clone()
}

/// Status and reason of a condition.
fn condition(entry: &Value, name: &str) -> (String, String) {
    let conditions = entry["conditions"].as_array().unwrap();
    let found = conditions.iter().find(|one| one["type"] == name);
    let text = |field: &str| found.unwrap()[field].as_str().unwrap().to_owned();
    (text("status"), text("reason"))
}

fn is(found: &(String, String), status: &str, reason: &str) {
    assert_eq!((&*found.0, &*found.1), (status, reason));
}

#[tokio::test(start_paused = true)]
async fn each_service_parent_has_an_entry_beside_others() {
    let route = route(&json!([service("api"), {"name": "door"}, service("nothing")]));
    let mut bench = bench(&route, &[foreign("theirs")]);
    bench.round().await;
    let entries = parents(&bench);
    assert_eq!(entries.len(), 3, "{entries:?}");
    assert_eq!(entries[0], foreign("theirs"), "as it is, and where it is");
    for entry in &entries[1..] {
        assert_eq!(entry["controllerName"], "weft.dev/mesh");
    }
    assert_eq!(entries[1]["parentRef"]["name"], "api");
    is(&condition(&entries[1], "Accepted"), "True", "Accepted");
    is(
        &condition(&entries[1], "ResolvedRefs"),
        "True",
        "ResolvedRefs",
    );
    is(
        &condition(&entries[1], "weft.dev/Programmed"),
        "True",
        "NoProxies",
    );
    assert_eq!(entries[2]["parentRef"]["name"], "nothing");
    is(
        &condition(&entries[2], "Accepted"),
        "False",
        "NoMatchingParent",
    );
    is(
        &condition(&entries[2], "weft.dev/Programmed"),
        "False",
        "Pending",
    );
    // Without any news it is not even read.
    let (reads, writes) = (bench.api.reads(ROUTE), bench.api.writes().len());
    bench.round().await;
    assert_eq!(
        (bench.api.reads(ROUTE), bench.api.writes().len()),
        (reads, writes)
    );
}

/// One entry for each Gateway of Weft, of another controller than those for Services.
#[tokio::test(start_paused = true)]
async fn gateway_parent_has_entry_of_its_own_controller() {
    let object = |kind: &str, metadata: Value, spec: Value| {
        json!({
            "apiVersion": "gateway.networking.k8s.io/v1", "kind": kind, "metadata": metadata,
            "spec": spec,
        })
    };
    let class = json!({"controllerName": "weft.dev/gateway"});
    let listeners = json!([{"name": "http", "port": 80, "protocol": "HTTP"}]);
    let door = json!({"gatewayClassName": "weft", "listeners": listeners});
    let route = route(&json!([service("api"), {"name": "door"}, {"name": "theirs"}]));
    let mut bench = bench(&route, &[foreign("theirs")]);
    let world = cluster::shop()
        .with(object(
            "GatewayClass",
            json!({"name": "weft", "uid": "uid-weft"}),
            class,
        ))
        .with(object(
            "Gateway",
            json!({"name": "door", "namespace": "shop", "uid": "uid-door", "generation": 1}),
            door,
        ))
        .with(route.clone())
        .world();
    let defaults = Defaults {
        gateway_namespaces: Some(Arc::new(["shop".to_owned()].into())),
        ..Defaults::default()
    };
    let world = Arc::new(world);
    let (model, problems) = Model::compile(&world, &defaults);
    let compiled = Compiled::new(world, model, problems);
    bench.models.send_replace(Some(Arc::new(compiled)));
    bench.round().await;
    let entries = parents(&bench);
    let of = |controller: &str| -> Vec<&Value> {
        let entries = entries.iter();
        entries
            .filter(|one| one["controllerName"] == controller)
            .collect()
    };
    assert_eq!(of("example.com/ingress"), [&foreign("theirs")]);
    assert_eq!(of("weft.dev/mesh").len(), 1, "{entries:?}");
    let ours = of("weft.dev/gateway");
    assert_eq!(ours.len(), 1, "{entries:?}");
    assert_eq!(ours[0]["parentRef"], json!({"name": "door"}));
    is(&condition(ours[0], "Accepted"), "True", "Accepted");
    // No pod of it runs.
    is(
        &condition(ours[0], "weft.dev/Programmed"),
        "False",
        "Pending",
    );
}

/// A client of the API before whose first writes another controller writes.
fn disturbed(api: &FakeApi, route: &Value, times: usize) -> Client {
    let (api, route, inner) = (api.clone(), route.clone(), api.client());
    let written = Arc::new(AtomicUsize::new(0));
    let service = tower::service_fn(move |request: Request<Body>| {
        let (api, inner) = (api.clone(), inner.clone());
        if *request.method() == Method::PATCH && request.uri().path().starts_with(ROUTE) {
            let before = written.fetch_add(1, Ordering::Relaxed);
            if before < times {
                let mut stored = route.clone();
                let newer = foreign(&format!("write {before}"));
                stored["status"] = json!({"parents": [newer]});
                api.put(ROUTE, stored);
            }
        }
        async move {
            let answer: Result<Response<Body>, kube::Error> = inner.send(request).await;
            answer
        }
    });
    Client::new(service, "default")
}

#[tokio::test(start_paused = true)]
async fn write_of_another_controller_is_never_undone() {
    let route = route(&json!([service("api")]));
    let mut bench = bench(&route, &[foreign("first")]);
    bench.writer.client = disturbed(&bench.api, &route, 2);
    assert_eq!(bench.round().await, None);
    let entries = parents(&bench);
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(entries[0], foreign("write 1"), "the newest one");
    is(&condition(&entries[1], "Accepted"), "True", "Accepted");
}

#[tokio::test(start_paused = true)]
async fn list_that_others_write_constantly_is_retried_later() {
    let route = route(&json!([service("api")]));
    let mut bench = bench(&route, &[]);
    bench.writer.client = disturbed(&bench.api, &route, 1000);
    let again = bench.round().await.unwrap();
    assert!(again > Instant::now());
    let of_route = |(method, path): &(Method, String)| *method == Method::PATCH && path == ROUTE;
    let writes = bench.api.writes();
    assert!(writes.iter().filter(|write| of_route(write)).count() <= 5);
}

#[tokio::test(start_paused = true)]
async fn entry_goes_with_its_parent_reference() {
    let before = route(&json!([service("api")]));
    let mut bench = bench(&before, &[]);
    bench.round().await;
    assert_eq!(parents(&bench).len(), 1);
    let ours = parents(&bench);

    let after = route(&json!([{"name": "door"}]));
    let after = cluster::set(after, "/metadata/generation", json!(2));
    put(&bench, &after, &[ours[0].clone(), foreign("theirs")]);
    bench.models.send_replace(Some(compiled_with(&after)));
    bench.round().await;
    assert_eq!(parents(&bench), [foreign("theirs")]);
    // Nothing of it is ours any more.
    let reads = bench.api.reads(ROUTE);
    bench.round().await;
    assert_eq!(bench.api.reads(ROUTE), reads);
}

#[tokio::test(start_paused = true)]
async fn new_lease_holder_removes_entries_without_a_parent() {
    let stale = {
        let mut bench = bench(&route(&json!([service("api")])), &[]);
        bench.round().await;
        parents(&bench)
    };
    let route = route(&json!([{"name": "door"}]));
    let mut bench = bench(&route, &stale);
    bench.written = bench.writer.read_all().await;
    bench.round().await;
    assert_eq!(parents(&bench), Vec::<Value>::new());
}

#[tokio::test(start_paused = true)]
async fn entry_that_another_controller_drops_is_restored() {
    let route = route(&json!([service("api")]));
    let bench = bench(&route, &[]);
    let writing = tokio::spawn(bench.writer.clone().write());
    sleep(Duration::from_secs(1)).await;
    assert_eq!(parents(&bench).len(), 1);
    put(&bench, &route, &[foreign("alone")]);
    sleep(2 * super::super::parents::RECHECK).await;
    let entries = parents(&bench);
    assert_eq!(entries.len(), 2, "{entries:?}");
    assert_eq!(entries[0], foreign("alone"));
    writing.abort();
}

#[tokio::test(start_paused = true)]
async fn route_without_service_parents_is_never_written() {
    let mut bench = bench(&route(&json!([{"name": "door"}])), &[foreign("theirs")]);
    bench.round().await;
    assert_eq!(parents(&bench), [foreign("theirs")]);
    assert_eq!(bench.api.reads(ROUTE), 0);
    assert!(!bench.written.contains_key(&web()));
}

#[tokio::test(start_paused = true)]
async fn route_that_was_not_found_is_written_later() {
    let route = route(&json!([service("api")]));
    let mut bench = bench(&route, &[]);
    // As while its definition is replaced.
    bench.api.remove(ROUTE);
    let again = bench.round().await.unwrap();
    assert!(again > Instant::now());
    put(&bench, &route, &[]);
    bench.round().await;
    assert_eq!(parents(&bench).len(), 1);
}

#[tokio::test(start_paused = true)]
async fn written_routes_are_read_page_by_page() {
    let route = route(&json!([service("api")]));
    let mut bench = bench(&route, &[]);
    bench.round().await;
    let ours = parents(&bench);
    for number in 0..600 {
        let name = format!("web-{number}");
        let mut other = cluster::set(route.clone(), "/metadata/name", json!(name));
        other["status"] = json!({"parents": ours});
        bench
            .api
            .put(&ROUTE.replace("/web", &format!("/{name}")), other);
    }
    let written = bench.writer.read_all().await;
    let routes = written
        .keys()
        .filter(|object| object.kind == Kind::HttpRoute);
    assert_eq!(routes.count(), 601);
    assert!(bench.api.largest_list() <= 500);
}

#[tokio::test(start_paused = true)]
async fn disabled_gateway_api_lists_no_routes() {
    const LIST: &str = "/apis/gateway.networking.k8s.io/v1/httproutes";
    const TLS_LIST: &str = "/apis/gateway.networking.k8s.io/v1/tlsroutes";
    for (gateway_api, lists) in [
        (GatewayApi::Off, 0),
        (GatewayApi::Routes, 1),
        (GatewayApi::Gateways, 1),
    ] {
        let mut bench = Bench::new(&[("api", 1)]);
        bench.writer.gateway_api = gateway_api;
        let writing = tokio::spawn(bench.writer.clone().write());
        // Where nothing is written, nothing is looked after.
        sleep(5 * super::super::parents::RECHECK).await;
        assert_eq!(bench.api.reads(LIST), lists, "{gateway_api:?}");
        let of_gateways = usize::from(gateway_api == GatewayApi::Gateways);
        assert_eq!(bench.api.reads(TLS_LIST), of_gateways, "{gateway_api:?}");
        writing.abort();
    }
}

#[tokio::test(start_paused = true)]
async fn route_of_a_namespace_without_proxies_is_not_programmed() {
    let route = route(&json!([service("api")]));
    let mut bench = bench(&route, &[]);
    let bare = [("client", "10.0.0.1", "web"), ("api-1", "10.0.0.11", "api")];
    let mut shop = cluster::shop().with(cluster::plain_pod("api-2", "10.0.0.12", "api"));
    for (name, ip, account) in bare {
        shop = shop.with(cluster::plain_pod(name, ip, account));
    }
    let world = Arc::new(shop.with(route).world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    let compiled = Arc::new(Compiled::new(world, model, problems));
    bench.models.send_replace(Some(compiled));
    bench.round().await;
    let programmed = condition(&parents(&bench)[0], "weft.dev/Programmed");
    is(&programmed, "False", "NotMeshed");
}
