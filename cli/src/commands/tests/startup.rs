//! A controller that will respond in a moment: it is starting up and does not have the data yet, or
//! has no capacity for the response.
//!
//! Claims: observe-10, observe-15

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const BEGINS: &str = "this controller is starting up";
const AWAY: &str = "no controller of Weft answers";

/// An API that refuses so often before it responds. `soon`: the refusal has the seconds after which
/// to retry.
fn starting_up(refusals: usize, soon: bool) -> Client {
    refusing(503, refusals, soon)
}

/// The same with this status.
fn refusing(refused: u16, refusals: usize, soon: bool) -> Client {
    let asked = AtomicUsize::new(0);
    Client::new(
        tower::service_fn(move |_: Request<Body>| {
            let details = json!({"retryAfterSeconds": usize::from(soon)});
            let refusal = json!({"kind": "Status", "status": "Failure", "code": refused,
                "message": BEGINS, "details": details});
            let node = |name: &str| {
                json!({"id": name, "kind": "Deployment", "namespace": "shop", "name": name,
                    "pods": 1, "meshed": 1})
            };
            let graph = json!({"metadata": {"windowSeconds": 60, "complete": true},
                "nodes": [node("web"), node("cart")],
                "edges": [{"id": "1", "from": "web", "to": "cart", "port": 80,
                    "protocol": "http1", "requests": 60, "success": 60}]});
            let begins = asked.fetch_add(1, Ordering::Relaxed) < refusals;
            let (code, body) = if begins {
                (refused, refusal)
            } else {
                (200, graph)
            };
            let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        }),
        "shop",
    )
}

#[tokio::test(start_paused = true)]
async fn starting_controller_is_retried_and_distinguished_from_absent_one() {
    const EVER: usize = usize::MAX;
    for (refusals, soon, ends_with, words) in [
        (0, true, 0, ""),
        (2, true, 0, ""),
        (EVER, true, 3, BEGINS),
        (EVER, false, 3, AWAY),
        // A controller that is away for a moment is not waited for.
        (1, false, 3, AWAY),
    ] {
        let client = starting_up(refusals, soon);
        let (code, out, err) = run(client, "weft stat deploy -n shop").await;
        assert_eq!(code, ends_with, "{refusals}, {soon}: {err}");
        assert!(err.contains(words), "{refusals}, {soon}: {err}");
        assert_eq!(out.contains("cart"), code == 0, "{refusals}, {soon}: {out}");
        assert!(!soon || !err.contains(AWAY), "{refusals}: {err}");
    }
}

#[tokio::test(start_paused = true)]
async fn throttled_query_is_retried_like_starting_controller() {
    for (refusals, soon, ends_with) in [
        (2, true, 0),
        (usize::MAX, true, 3),
        // A refusal without a time is not retried.
        (1, false, 3),
    ] {
        let client = refusing(429, refusals, soon);
        let (code, out, err) = run(client, "weft stat deploy -n shop").await;
        assert_eq!(code, ends_with, "{refusals}, {soon}: {err}");
        assert_eq!(out.contains("cart"), code == 0, "{refusals}, {soon}: {out}");
    }
}

#[tokio::test(start_paused = true)]
async fn streams_and_raw_reads_are_retried_too() {
    let global = Cli::try_parse_from(["weft", "version"]).unwrap().global;
    for (refusals, soon, answered) in [
        (0, true, true),
        (2, true, true),
        (usize::MAX, true, false),
        // A controller that is away for a moment is not waited for.
        (1, false, false),
    ] {
        let cluster = Cluster::of(starting_up(refusals, soon), &global);
        let tap = cluster.lines("taps of shop", "/taps").await;
        assert_eq!(tap.is_ok(), answered, "{refusals}, {soon}: {tap:?}");
        let cluster = Cluster::of(starting_up(refusals, soon), &global);
        let request = Request::post("/dryruns").body(Vec::new()).unwrap();
        let trial = cluster.lines_of("dryruns", request).await;
        assert_eq!(trial.is_ok(), answered, "{refusals}, {soon}: {trial:?}");
        let cluster = Cluster::of(starting_up(refusals, soon), &global);
        let graph = cluster
            .try_read_bytes("graphs of shop", "/graphs", 1 << 20)
            .await;
        assert_eq!(graph.is_ok(), answered, "{refusals}, {soon}: {graph:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn occupied_stream_fails_immediately_and_throttled_stream_is_retried() {
    let global = Cli::try_parse_from(["weft", "version"]).unwrap().global;
    for (soon, seconds) in [(false, 0), (true, 1)] {
        let cluster = Cluster::of(refusing(429, 1, soon), &global);
        let asked = tokio::time::Instant::now();
        let tap = cluster.lines("taps of shop", "/taps").await;
        assert_eq!(tap.is_ok(), soon, "{tap:?}");
        assert_eq!(asked.elapsed().as_secs(), seconds, "{tap:?}");
    }
}
