//! What the dry run at the end of a suggestion says.

use super::*;

const API: &str = "/apis/observe.weft.dev/v1alpha1/namespaces/shop";

/// `web` has called `cart` by its own address.
fn graph() -> Value {
    let id = |name: &str| format!("shop/Deployment/{name}");
    let account = |name: &str| format!("spiffe://cluster.local/ns/shop/sa/{name}");
    let node = |name: &str| {
        json!({"id": id(name), "kind": "Deployment", "namespace": "shop", "name": name,
            "accounts": [account(name)]})
    };
    let edge = json!({"id": "1", "from": id("web"), "to": id("cart"), "port": 8080,
        "protocol": "http1", "requests": 5, "success": 5, "mtls": 1.0,
        "identities": [account("web")]});
    json!({"metadata": {"windowSeconds": 300, "complete": true},
        "nodes": [node("web"), node("cart")], "edges": [edge]})
}

#[tokio::test]
async fn what_cannot_be_told_is_followed_by_a_way_that_this_command_has() {
    let depends = json!({"change": "depends", "from": "shop/Deployment/web",
        "to": "shop/Deployment/cart", "port": 8080, "podPorts": [8080]});
    for (status, advice) in [
        (
            json!({"changed": [depends]}),
            "`weft dry-run -f FILE --watch 60s`",
        ),
        (json!({"kept": 1, "uncompared": 2}), "--to RES suggests"),
    ] {
        let api = FakeApi::default();
        api.put(&format!("{API}/graphs/live"), graph());
        api.judge(&format!("{API}/dryruns"), status);
        let (code, out, err) = run(api.client(), "weft suggest -n shop").await;
        assert_eq!(code, 0, "{err}");
        assert!(out.contains("kind: TrafficTarget"), "{out}{err}");
        assert!(err.contains(advice), "{err}");
        assert!(!err.contains("; --watch"), "{err}");
    }
}
