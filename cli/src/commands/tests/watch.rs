//! A watch, while controllers are replaced.
//!
//! Claims: observe-29

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::time::timeout;

use super::*;
use crate::output::Format;

/// The graph of `web` and `cart`, but for questions of these numbers.
fn graph(but: impl Fn(usize) -> Option<u16> + Send + 'static) -> Client {
    let node = |name: &str| {
        json!({"id": name, "kind": "Deployment", "namespace": "shop", "name": name, "pods": 1,
            "meshed": 1})
    };
    let graph = json!({"metadata": {"windowSeconds": 60, "complete": true},
        "nodes": [node("web"), node("cart")],
        "edges": [{"id": "1", "from": "web", "to": "cart", "port": 80, "protocol": "http1",
            "requests": 60, "success": 60}]});
    let refusal = |code: u16| {
        let message = match code {
            403 => {
                "graphs.observe.weft.dev \"live\" is forbidden: User \"eve\" cannot get resource \
                 \"graphs\" in API group \"observe.weft.dev\" in the namespace \"shop\""
            }
            _ => "no endpoints available for service \"weft-controller\"",
        };
        json!({"kind": "Status", "status": "Failure", "code": code, "message": message})
    };
    let request_count = AtomicUsize::new(0);
    Client::new(
        tower::service_fn(move |_: Request<Body>| {
            let (code, body) = match but(request_count.fetch_add(1, Ordering::Relaxed)) {
                Some(code) => (code, refusal(code)),
                None => (200, graph.clone()),
            };
            let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        }),
        "shop",
    )
}

/// How a watch ended within that time, if it did, with its output and words.
async fn watched(
    client: Client,
    within: Duration,
) -> (Option<Result<Conclusion, Failure>>, String, String) {
    let cli = Cli::try_parse_from(["weft", "stat", "deploy", "-w", "-n", "shop"]).unwrap();
    let Command::Stat(stat) = cli.command else {
        panic!("another command");
    };
    let cluster = Cluster::of(client, &cli.global);
    let mut streams = Streams::default();
    let mut console = streams.console();
    let following = stat.follow(&cluster, Format::Table, &mut console);
    let ended = timeout(within, following).await.ok();
    let (out, err) = streams.texts();
    (ended, out, err)
}

#[tokio::test(start_paused = true)]
async fn watch_retries_unanswered_queries_with_growing_pauses() {
    // Looks at once and after 5, 15, 35, 40 and 45 s.
    let away = |question: usize| (1..3).contains(&question).then_some(503);
    for (seconds, tables, failures) in [(34, 1, 2), (36, 2, 2), (46, 4, 2)] {
        let within = Duration::from_secs(seconds);
        let (ended, out, err) = watched(graph(away), within).await;
        assert!(ended.is_none(), "{ended:?}");
        assert_eq!(out.matches("cart").count(), tables, "{seconds} s: {out}");
        let notices = err.matches("no controller of Weft answers").count();
        assert_eq!(notices, failures, "{seconds} s: {err}");
    }
    // However long no response comes, the watch retries each minute: after 5, 15, 35, 75, 135, 195
    // s.
    let gone = |question: usize| (question > 0).then_some(503);
    let (ended, _, err) = watched(graph(gone), Duration::from_secs(200)).await;
    assert!(ended.is_none(), "{ended:?}");
    let notices = err.matches("no controller of Weft answers").count();
    assert_eq!(notices, 6, "{err}");
}

#[tokio::test(start_paused = true)]
async fn watch_stops_when_user_loses_permission() {
    let denied = |question: usize| (question >= 2).then_some(403);
    let (ended, out, err) = watched(graph(denied), Duration::from_secs(3600)).await;
    let ended = ended.expect("it asks for ever");
    assert_eq!(status(&ended), 3, "{ended:?}");
    let words = ended.as_ref().err().and_then(Failure::words);
    let words = words.unwrap_or_default();
    assert!(words.contains("ClusterRole view grants this"), "{words}");
    assert_eq!(out.matches("cart").count(), 2, "{out}");
    // Only the command's end reports it.
    assert_eq!(err, "");
}

#[tokio::test]
async fn a_watch_that_never_began_ends_with_the_reason() {
    let api = FakeApi::default();
    let (code, out, err) = run(api.client(), "weft stat deploy -w -n shop").await;
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
}
