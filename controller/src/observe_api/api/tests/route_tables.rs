//! The merged rules of a Service, as far as a user may see them.

use super::*;

fn route(namespace: &str, name: &str, path: &str) -> Value {
    json!({
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": name, "namespace": namespace, "uid": name, "generation": 1},
        "spec": {
            "parentRefs": [{"group": "", "kind": "Service", "namespace": "shop", "name": "api"}],
            "rules": [{
                "matches": [{"path": {"type": "PathPrefix", "value": path}}],
                "backendRefs": [{"name": "api", "namespace": "shop", "port": 80}],
            }],
        },
    })
}

/// A shop with a route of its own, and one that the bank's callers get instead.
fn bench() -> Bench {
    let cluster = shop()
        .with(route("shop", "own", "/own"))
        .with(route("bank", "theirs", "/theirs"));
    Bench::of(&cluster)
}

async fn table(user: &str, at: &str) -> (u16, Value) {
    let path = format!("/apis/{API_VERSION}/namespaces/shop/routetables/{at}");
    bench().get(user, &path).await
}

/// Objects of all rules, with the audience that they are for.
fn objects(table: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut objects = Vec::new();
    for table in table["tables"].as_array().unwrap() {
        for rule in table["rules"].as_array().unwrap() {
            objects.push((text(&table["audience"]), text(&rule["object"])));
        }
    }
    objects.dedup();
    objects
}

#[tokio::test]
async fn rules_for_other_namespaces_need_a_right_there() {
    let own = (String::new(), "HTTPRoute shop/own".to_owned());
    let theirs = ("bank".to_owned(), "HTTPRoute bank/theirs".to_owned());
    let (status, shown) = table("root", "api").await;
    assert_eq!(status, 200, "{shown}");
    assert_eq!(objects(&shown), [own.clone(), theirs.clone()], "{shown}");
    assert!(shown.get("hidden").is_none(), "{shown}");

    let (status, shown) = table("viewer", "api").await;
    assert_eq!((status, objects(&shown)), (200, vec![own]), "{shown}");
    assert_eq!(shown["hidden"], 1, "{shown}");

    let (status, shown) = table("root", "api?from=bank").await;
    assert_eq!((status, objects(&shown)), (200, vec![theirs]), "{shown}");
    let (status, refusal) = table("viewer", "api?from=bank").await;
    assert_eq!(status, 403, "{refusal}");
    assert!(!refusal.to_string().contains("theirs"), "{refusal}");
}

#[tokio::test]
async fn table_of_an_unknown_service_is_not_found() {
    let (status, refusal) = table("viewer", "nothing").await;
    assert_eq!(status, 404, "{refusal}");
    let message = refusal["message"].as_str().unwrap();
    assert!(message.contains("no Service shop/nothing"), "{message}");
}
