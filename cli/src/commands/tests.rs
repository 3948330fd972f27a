//! The output of commands for scripted clusters, in process.
//!
//! Claims: observe-33, observe-40, observe-5

use std::convert::Infallible;
use std::time::{Duration, SystemTime};

use clap::Parser as _;
use fake_api::FakeApi;
use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use serde_json::{Value, json};

use super::ClusterCommand;
use crate::args::{Cli, Command};
use crate::cluster::Cluster;
use crate::console::{Console, Streams};
use crate::failure::{Conclusion, Failure, status};
use crate::global::Global;

mod absent;
mod bare;
mod clock;
mod convert;
mod dry_run;
mod explain;
mod fault;
mod identity;
mod names;
mod pods;
mod release;
mod revoke;
mod rules;
mod startup;
mod stat;
mod suggest;
mod unanswered;
mod validate;
mod watch;

/// 2026-11-02T09:00:00Z.
fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_793_610_000)
}

/// Exit status, output and messages.
async fn run(client: Client, line: &str) -> (u8, String, String) {
    let cli = Cli::try_parse_from(line.split(' ')).unwrap();
    let cluster = Cluster::of(client, &cli.global);
    let mut streams = Streams::default();
    let mut console = streams.console();
    let to = (&cli.global, &cluster);
    let ended = match cli.command {
        Command::Routes(command) => ask(&command, to, &mut console).await,
        Command::Identity(command) => ask(&command, to, &mut console).await,
        Command::Stat(command) => ask(&command, to, &mut console).await,
        Command::Suggest(command) => ask(&command, to, &mut console).await,
        Command::DryRun(command) => ask(&command, to, &mut console).await,
        Command::Edges(command) => ask(&command, to, &mut console).await,
        Command::Proxies(command) => ask(&command, to, &mut console).await,
        Command::Explain(command) => ask(&command, to, &mut console).await,
        Command::ProxyConfig(command) => ask(&command, to, &mut console).await,
        Command::Release(command) => ask(&command, to, &mut console).await,
        Command::Fault(command) => ask(&command, to, &mut console).await,
        Command::LogLevel(command) => command.write(&cluster, &mut console).await,
        other => panic!("{other:?}"),
    };
    if let Some(text) = ended.as_ref().err().and_then(Failure::words) {
        console.word(text).unwrap();
    }
    let code = status(&ended);
    let (out, err) = streams.texts();
    (code, out, err)
}

/// What a command prints of this cluster.
async fn ask<C: ClusterCommand>(
    command: &C,
    (global, cluster): (&Global, &Cluster),
    console: &mut Console<'_>,
) -> Result<Conclusion, Failure> {
    let format = global.format(C::FORMATS)?;
    command.print(cluster, format, now(), console).await
}

#[tokio::test]
async fn missing_object_error_differs_from_unserved_api_error() {
    let global = Cli::try_parse_from(["weft", "version"]).unwrap().global;
    let outcome = async |status: Value| {
        let cluster = Cluster::of(explaining(vec![("shop", 404, status)]), &global);
        let observing = cluster.observe::<Value>(
            crds::observe::Resource::Proxies,
            Some("shop"),
            Some("web-9"),
            "",
        );
        observing.await.unwrap_err().to_string()
    };
    let message = "proxies.observe.weft.dev \"web-9\" not found";
    let missing = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
        "message": message, "details": {"name": "web-9", "kind": "proxies"}});
    let words = outcome(missing).await;
    assert!(words.contains(message), "{words}");
    assert!(!words.contains("observe.enabled"), "{words}");
    let unserved = json!({"kind": "Status", "status": "Failure", "code": 404, "reason": "NotFound",
        "message": "the server could not find the requested resource", "details": {}});
    let words = outcome(unserved).await;
    assert!(words.contains("observe.enabled"), "{words}");
}

#[tokio::test]
async fn fix_of_unknown_verdict_is_inconclusive() {
    let unknown = json!({"status": {"verdict": "Unknown", "reason": "no such Service"}});
    let client = explaining(vec![("shop", 201, unknown)]);
    let (code, out, err) = run(client, "weft explain deploy/web svc/cart -o fix").await;
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("no such Service"), "{err}");
}

#[tokio::test]
async fn unknown_result_is_printed_once() {
    let unknown = json!({"status": {"verdict": "Unknown", "reason": "no such Service"}});
    let client = explaining(vec![("shop", 201, unknown)]);
    let (code, out, err) = run(client, "weft explain deploy/web svc/cart").await;
    let output = (code, out.as_str(), err.as_str());
    assert_eq!(output, (3, "UNKNOWN no such Service\n", ""));
}

/// One that responds to created objects so, by namespace.
fn explaining(answers: Vec<(&'static str, u16, Value)>) -> Client {
    Client::new(
        tower::service_fn(move |request: Request<Body>| {
            let path = request.uri().path().to_owned();
            let in_namespace =
                |namespace: &str| path.contains(&format!("/namespaces/{namespace}/"));
            let found = answers
                .iter()
                .find(|(namespace, ..)| in_namespace(namespace));
            let (_, code, body) = found.unwrap_or_else(|| panic!("{path}"));
            let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
            *answer.status_mut() = StatusCode::from_u16(*code).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        }),
        "shop",
    )
}

fn refused() -> Value {
    json!({"spec": {"to": {"kind": "Service", "name": "cart"}}, "status": {
        "verdict": "Refused", "reason": "not-allowed", "httpStatus": 403, "owner": "shop",
        "steps": [{"step": "who", "text": "shop/web, 3 pods, meshed"}, {"step": "access", "text": "auto, closed"},
                  {"step": "rule", "text": "shop/cart-read  method DELETE fits no match\u{1b}[2J"}],
        "seen": {"windowSeconds": 300, "requests": 40, "failure": 37, "refused": {"not-allowed": 37}, "last": "2026-11-02T08:59:56Z"},
        "programmed": {"proxies": 3, "of": 4, "nacks": ["shop/cart-1: TrafficTarget shop/cart-read: too long\u{1b}[2J"]},
        "fix": {"objects": [{"apiVersion": "x/v1", "kind": "TrafficTarget", "metadata": {"name": "fix"}}], "warnings": ["closes others"]},
    }})
}

#[tokio::test]
async fn refusal_shows_identities_reason_last_seen_and_fix() {
    let line = "weft explain deploy/web svc/cart:80 DELETE /items/7";
    let (code, out, _) = run(explaining(vec![("shop", 201, refused())]), line).await;
    assert_eq!(code, 1);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "REFUSED 403 not-allowed");
    assert!(lines[1].starts_with(" who     shop/web"), "{out}");
    assert!(
        out.contains(
            "5 min: 40 calls on this edge, 37 failed, 37 refused not-allowed, last 4s ago"
        ),
        "{out}"
    );
    assert!(out.contains("\n waiting 3 of 4 proxies"), "{out}");
    let nack = " nack    shop/cart-1: TrafficTarget shop/cart-read: too long";
    assert!(out.contains(nack), "{out}");
    assert!(out.contains("-o fix prints"), "{out}");
    assert!(!out.contains('\x1b'), "{out:?}");
    let mut many = refused();
    many["status"]["programmed"]["nacks"] = json!(vec!["shop/cart-1: alike"; 7]);
    let (_, out, _) = run(explaining(vec![("shop", 201, many)]), line).await;
    assert_eq!(out.matches(" nack ").count(), 6, "{out}");
    assert!(out.contains(" 2 more"), "{out}");

    let (code, out, err) = run(
        explaining(vec![("shop", 201, refused())]),
        &format!("{line} -o fix"),
    )
    .await;
    assert_eq!(code, 0);
    assert!(
        out.starts_with("---\napiVersion: x/v1\nkind: TrafficTarget\n"),
        "{out}"
    );
    assert!(err.contains("warning: closes others"), "{err}");
}

#[tokio::test]
async fn explain_falls_back_to_callers_namespace_without_permission() {
    let denied = json!({"kind": "Status", "status": "Failure", "reason": "Forbidden", "code": 403,
        "message": "explanations.observe.weft.dev is forbidden: User \"eve\" cannot create resource \"explanations\" in API group \"observe.weft.dev\" in the namespace \"bank\""});
    let little = json!({"status": {"verdict": "Refused", "reason": "not-allowed", "httpStatus": 403, "owner": "bank"}});
    let line = "weft explain deploy/web svc/vault --to-namespace bank";
    let client = explaining(vec![("bank", 403, denied.clone()), ("shop", 201, little)]);
    let (code, out, _) = run(client, line).await;
    assert_eq!(code, 1);
    assert!(out.contains("by namespace bank"), "{out}");
    let client = explaining(vec![("bank", 403, denied.clone()), ("shop", 403, denied)]);
    let (code, _, err) = run(client, line).await;
    assert_eq!(code, 3);
    assert!(err.contains("ClusterRole view"), "{err}");
}

#[tokio::test]
async fn unknown_result_is_neither_yes_nor_no() {
    let unknown = json!({"status": {"verdict": "Perhaps", "reason": "no proxy says"}});
    let (code, out, _) = run(
        explaining(vec![("shop", 201, unknown)]),
        "weft explain outside svc/cart",
    )
    .await;
    assert_eq!(code, 3);
    assert!(out.contains("no proxy says"), "{out}");
    let allowed = json!({"status": {"verdict": "Allowed"}});
    let (code, out, _) = run(
        explaining(vec![("shop", 201, allowed)]),
        "weft explain outside svc/cart",
    )
    .await;
    assert_eq!((code, out.as_str()), (0, "ALLOWED\n"));
    for bad in [
        "weft explain deploy svc/cart",
        "weft explain outside external/api.example",
        "weft explain deploy/web svc/cart GET items",
    ] {
        let (code, _, err) = run(explaining(Vec::new()), bad).await;
        assert_eq!(code, 2, "{bad}: {err}");
    }
}

#[tokio::test]
async fn service_routes_are_those_of_pods_behind_it() {
    let api = FakeApi::default();
    let routes = json!([{"route": "cart/read", "requests": 60, "failure": 6, "ms": {"p50": 1.0, "p95": 2.0, "p99": 3.0}}, {"route": "", "requests": 6}]);
    let graph = json!({"metadata": {"windowSeconds": 60, "complete": true}, "nodes": [
        {"id": "shop/Deployment/cart", "kind": "Deployment", "namespace": "shop", "name": "cart-v1", "services": ["shop/cart"], "routes": routes},
        {"id": "shop/Deployment/web", "kind": "Deployment", "namespace": "shop", "name": "web", "routes": [{"route": "web/all", "requests": 9}]},
    ], "edges": []});
    api.put(
        "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live",
        graph,
    );
    let (code, out, _) = run(api.client(), "weft routes svc/cart -n shop").await;
    assert_eq!(code, 0);
    let rows: Vec<Vec<&str>> = out
        .lines()
        .map(|line| line.split_whitespace().collect())
        .collect();
    assert_eq!(rows[1][..3], ["-", "100%", "0.1"], "{out}");
    assert_eq!(
        rows[2],
        ["cart/read", "90.00%", "1.0", "1.0ms", "2.0ms", "3.0ms"],
        "{out}"
    );
    assert!(!out.contains("web/all"), "{out}");
}

#[tokio::test]
async fn suggestion_from_a_graph_that_is_cut_says_so() {
    let api = FakeApi::default();
    let node = json!({"id": "shop/Deployment/web", "kind": "Deployment", "namespace": "shop", "name": "web"});
    let mut graph = json!({"metadata": {"windowSeconds": 300, "complete": true}, "nodes": [node]});
    let path = "/apis/observe.weft.dev/v1alpha1/namespaces/shop/graphs/live";
    for (left_out, words) in [
        (0, ""),
        (3, "3 edges and nodes had no place in the answer\n"),
    ] {
        graph["metadata"]["leftOut"] = json!(left_out);
        api.put(path, graph.clone());
        let (code, out, err) = run(api.client(), "weft suggest -n shop").await;
        assert_eq!((code, out.as_str()), (0, ""), "{err}");
        let nothing = "no calls that were proven and served, nothing to suggest\n";
        assert_eq!(err, format!("{nothing}{words}"));
    }
}

#[tokio::test]
async fn proxies_that_are_away_or_refuse_are_a_no() {
    let api = FakeApi::default();
    let at = |name: &str| format!("/apis/observe.weft.dev/v1alpha1/namespaces/shop/proxies/{name}");
    let proxy = |name: &str, connected: bool| {
        json!({"metadata": {"name": name, "namespace": "shop"}, "status": {"workload": "Deployment/web", "connected": connected,
               "acknowledged": 3, "needed": 4, "memory": 10_485_760, "certificate": {"notAfter": "2026-11-02T11:00:00Z"}}})
    };
    api.put(&at("web-1"), proxy("web-1", true));
    let (code, out, _) = run(api.client(), "weft proxies -n shop").await;
    assert_eq!(code, 0);
    let row: Vec<&str> = out.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(
        row,
        [
            "web-1",
            "Deployment/web",
            "-",
            "yes",
            "3/4",
            "0",
            "2h",
            "10.0Mi"
        ],
        "{out}"
    );
    api.put(&at("web-2"), proxy("web-2", false));
    assert_eq!(run(api.client(), "weft proxies -n shop").await.0, 1);
    let mut refusing = proxy("web-2", true);
    refusing["status"]["nacks"] =
        json!([{"object": "TrafficSplit shop/cart", "reason": "too long"}]);
    api.put(&at("web-2"), refusing);
    let (code, _, err) = run(api.client(), "weft proxies -n shop").await;
    assert_eq!(code, 1);
    assert!(
        err.contains("web-2 refused TrafficSplit shop/cart: too long"),
        "{err}"
    );
}

#[tokio::test]
async fn proxies_of_all_pages_are_judged() {
    let api = FakeApi::default();
    let put = |number: usize, connected: bool| {
        let name = format!("web-{number:04}");
        let path = format!("/apis/observe.weft.dev/v1alpha1/namespaces/shop/proxies/{name}");
        let proxy = json!({"metadata": {"name": name, "namespace": "shop"},
            "status": {"workload": "Deployment/web", "connected": connected}});
        api.put(&path, proxy);
    };
    for number in 0..1100 {
        put(number, true);
    }
    let (code, out, _) = run(api.client(), "weft proxies -n shop").await;
    assert_eq!((code, out.lines().count()), (0, 1101));
    assert_eq!(api.largest_list(), 500);
    put(1099, false);
    assert_eq!(run(api.client(), "weft proxies -n shop").await.0, 1);
}

#[tokio::test]
async fn log_level_annotation_is_set_and_removed_on_pod() {
    let api = FakeApi::default();
    let path = "/api/v1/namespaces/shop/pods/web-1";
    api.put(
        path,
        json!({"metadata": {"name": "web-1", "namespace": "shop", "annotations": {"a": "b"}}}),
    );
    let annotations = || api.read(path).unwrap()["metadata"]["annotations"].clone();
    let (code, ..) = run(
        api.client(),
        "weft log-level web-1 proxy=debug,info -n shop",
    )
    .await;
    assert_eq!(code, 0);
    assert_eq!(
        annotations(),
        json!({"a": "b", "weft.dev/log-level": "proxy=debug,info"})
    );
    assert_eq!(
        run(api.client(), "weft log-level pod/web-1 - -n shop")
            .await
            .0,
        0
    );
    assert_eq!(annotations(), json!({"a": "b"}));
    let (code, _, err) = run(api.client(), "weft log-level web-1 loud -n shop").await;
    assert_eq!(code, 2);
    assert!(err.contains("off, error, warn"), "{err}");
    let (code, _, err) = run(api.client(), "weft log-level web-9 info -n shop").await;
    assert_eq!(code, 2, "{err}");
    assert!(err.ends_with("; you may mean po/web-1\n"), "{err}");
}

#[tokio::test]
async fn log_level_without_proxy_warns_of_no_effect() {
    let api = FakeApi::default();
    let path = "/api/v1/namespaces/shop/pods/web-1";
    for (container, followed) in [("weft-proxy", true), ("migrate", false)] {
        let containers = json!([{"name": container}]);
        api.put(
            path,
            json!({"metadata": {"name": "web-1", "namespace": "shop"},
                "spec": {"containers": [], "initContainers": containers}}),
        );
        let (code, _, err) = run(api.client(), "weft log-level web-1 info -n shop").await;
        assert_eq!(code, 0, "{err}");
        assert_eq!(err.contains("nothing logs by this"), !followed, "{err}");
        // Without it nothing is missed.
        let (code, _, err) = run(api.client(), "weft log-level web-1 - -n shop").await;
        assert_eq!((code, err.lines().count()), (0, 1), "{err}");
    }
}
