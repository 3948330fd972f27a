//! A controller that has just begun and does not know yet what it is asked about.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;

const BEGINS: &str = "this controller has just begun";
const AWAY: &str = "no controller of Weft answers";

/// An API that refuses so often before it answers. `soon`: it says after how long to ask again.
fn young(refusals: usize, soon: bool) -> Client {
    let asked = AtomicUsize::new(0);
    Client::new(
        tower::service_fn(move |_: Request<Body>| {
            let details = json!({"retryAfterSeconds": usize::from(soon)});
            let refusal = json!({"kind": "Status", "status": "Failure", "code": 503,
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
            let (code, body) = if begins { (503, refusal) } else { (200, graph) };
            let mut answer = Response::new(Body::from(body.to_string().into_bytes()));
            *answer.status_mut() = StatusCode::from_u16(code).unwrap();
            async move { Ok::<_, Infallible>(answer) }
        }),
        "shop",
    )
}

#[tokio::test(start_paused = true)]
async fn who_begins_is_asked_again_for_a_moment_and_told_from_who_is_away() {
    const EVER: usize = usize::MAX;
    for (refusals, soon, ends_with, words) in [
        (0, true, 0, ""),
        (2, true, 0, ""),
        (EVER, true, 3, BEGINS),
        (EVER, false, 3, AWAY),
        // Whoever is away for a moment is not waited for.
        (1, false, 3, AWAY),
    ] {
        let client = young(refusals, soon);
        let (code, out, err) = run(client, "weft stat deploy -n shop").await;
        assert_eq!(code, ends_with, "{refusals}, {soon}: {err}");
        assert!(err.contains(words), "{refusals}, {soon}: {err}");
        assert_eq!(out.contains("cart"), code == 0, "{refusals}, {soon}: {out}");
        assert!(!soon || !err.contains(AWAY), "{refusals}: {err}");
    }
}
