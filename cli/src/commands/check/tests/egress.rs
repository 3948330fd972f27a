//! Pods that get past the wall of their namespace.

use super::*;

const CONTROLLER: &str = "WEFT_EGRESS_DEFAULT";

/// Result and message of the check.
async fn of_walls(api: &FakeApi) -> (String, String) {
    let (_, report, _) = checked(api, WELL, &[]).await;
    let checks = report["checks"].as_array().unwrap();
    let found = checks.iter().find(|one| one["id"] == "egress-walls");
    let text = |field: &str| found.unwrap()[field].as_str().unwrap().to_owned();
    (text("result"), text("message"))
}

/// The namespace of the pod with this mode.
fn namespace(mode: &str) -> Value {
    json!({"metadata": {"name": "shop", "labels": {"weft.dev/inject": "enabled"},
        "annotations": {"weft.dev/egress": mode}}})
}

fn skipping(name: &str) -> Value {
    let mut pod = pod();
    pod["metadata"]["annotations"][name] = json!("5432");
    pod
}

fn bare() -> Value {
    json!({"metadata": {"name": "bare", "namespace": "shop"}, "spec": {},
        "status": {"phase": "Running"}})
}

#[tokio::test]
async fn pod_past_denied_egress_is_found() {
    const BARE: &str = "/api/v1/namespaces/shop/pods/bare";
    for (mode, other, result, words) in [
        ("deny", None, "ok", "1 pods whose egress is denied"),
        ("audit", Some((BARE, bare())), "ok", "0 pods"),
        (
            "deny",
            Some((BARE, bare())),
            "warning",
            "shop/bare has no proxy",
        ),
        // A value that cannot be read is the tightest.
        ("block", Some((BARE, bare())), "warning", "has no proxy"),
        (
            "deny",
            Some((POD, skipping("weft.dev/skip-outbound-ports"))),
            "warning",
            "weft.dev/skip-outbound-ports",
        ),
    ] {
        let api = healthy();
        api.put(NAMESPACE, namespace(mode));
        if let Some((path, pod)) = other {
            api.put(path, pod);
        }
        let (found, message) = of_walls(&api).await;
        assert_eq!(found, result, "{mode}: {message}");
        assert!(message.contains(words), "{mode}: {message}");
    }
}

#[tokio::test]
async fn mode_of_the_chart_counts_where_nothing_is_annotated() {
    let api = healthy();
    let mut closed = controller(true, true);
    let env = closed.pointer_mut("/spec/template/spec/containers/0/env");
    let env = env.and_then(Value::as_array_mut).unwrap();
    env.push(json!({"name": CONTROLLER, "value": "deny"}));
    api.put(&format!("{WEFT}/weft-controller"), closed);
    let (_, message) = of_walls(&api).await;
    assert!(message.starts_with("1 pods"), "{message}");
}
