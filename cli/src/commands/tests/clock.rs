//! A machine whose clock is wrong. `now()` is ten minutes ahead of the cluster here.
//!
//! Claims: observe-73

use super::*;

/// Ten minutes before `now()`, as a response's header has it.
const DATE: &str = "Mon, 02 Nov 2026 08:50:00 GMT";

/// An API server that sends only this, and its time.
fn telling(answer: &Value) -> Client {
    let text = answer.to_string();
    Client::new(
        tower::service_fn(move |_: Request<Body>| {
            let mut answer = Response::new(Body::from(text.clone().into_bytes()));
            answer.headers_mut().insert("date", DATE.parse().unwrap());
            async move { Ok::<_, Infallible>(answer) }
        }),
        "shop",
    )
}

#[tokio::test]
async fn recent_calls_ignore_skew_of_local_clock() {
    let node =
        |name: &str| json!({"id": name, "kind": "Deployment", "namespace": "shop", "name": name});
    let graph = json!({
        "metadata": {"end": "2026-11-02T08:50:00Z", "windowSeconds": 300, "complete": true},
        "nodes": [node("web"), node("cart")],
        "edges": [{"id": "1", "from": "web", "to": "cart", "port": 80, "protocol": "http1",
            "requests": 3, "failure": 3, "refused": {"not-allowed": 3},
            "lastSeen": "2026-11-02T08:49:30Z"}],
    });
    let line = "weft edges --refused --since 5m -n shop";
    let (code, out, err) = run(telling(&graph), line).await;
    assert_eq!((code, err.as_str()), (0, ""), "{out}");
    let row = out.lines().nth(1).unwrap();
    assert!(row.ends_with(" 30s"), "{out}");
}

#[tokio::test]
async fn proxy_of_revoked_pod_is_revoked_not_lost() {
    let proxies = json!({"kind": "ProxyList", "items": [{
        "metadata": {"name": "web-1", "namespace": "shop"},
        "status": {"connected": false, "revokedBy": "leak"},
    }]});
    let (code, out, err) = run(telling(&proxies), "weft proxies -n shop").await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(" revoked "), "{out}");
}

#[tokio::test]
async fn ages_and_expiry_use_clock_of_cluster() {
    let proxies = json!({"kind": "ProxyList", "items": [{
        "metadata": {"name": "web-1", "namespace": "shop"},
        "status": {"connected": true, "certificate": {"notAfter": "2026-11-02T08:55:00Z"}},
    }]});
    let (code, out, err) = run(telling(&proxies), "weft proxies -n shop").await;
    assert_eq!(code, 0, "{err}");
    assert!(out.contains(" 5m") && !out.contains("ended"), "{out}");
    let mut refused = refused();
    refused["status"]["seen"]["last"] = json!("2026-11-02T08:49:56Z");
    let line = "weft explain deploy/web svc/cart:80";
    let (code, out, err) = run(telling(&refused), line).await;
    assert_eq!(code, 1, "{err}");
    assert!(out.contains(", last 4s ago"), "{out}");
}
