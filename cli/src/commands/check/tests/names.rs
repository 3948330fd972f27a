//! Labels and annotations of ours that have no effect where they stand.
//!
//! Claims: attack-115

use super::*;

const SERVICE: &str = "/api/v1/namespaces/shop/services/cart";

fn message<'a>(report: &'a Value, id: &str) -> &'a str {
    let checks = report["checks"].as_array().unwrap();
    let check = checks.iter().find(|check| check["id"] == id).unwrap();
    check["message"].as_str().unwrap()
}

fn put_namespace(api: &FakeApi, annotations: &Value) {
    let labels = json!({"weft.dev/inject": "enabled"});
    let metadata = json!({"name": "shop", "labels": labels, "annotations": annotations});
    api.put(NAMESPACE, json!({"metadata": metadata}));
}

#[tokio::test]
async fn misspelt_or_misplaced_names_are_found_with_suggestion() {
    let api = healthy();
    put_namespace(&api, &json!({"weft.dev/acess": "deny"}));
    let mut service = json!({"metadata": {"name": "cart", "namespace": "shop"}});
    service["metadata"]["annotations"] = json!({"weft.dev/access": "deny"});
    api.put(SERVICE, service);
    let mut split = split("Accepted", "True");
    split["metadata"]["labels"] = json!({"weft.dev/inject": "enabled"});
    api.put(SPLIT, split);
    let (ended, report, _) = checked(&api, WELL, &["--fail-on", "warning"]).await;
    assert_eq!(ended.unwrap(), Conclusion::No, "{report:#}");
    let found = with(&report, &["warning", "error", "skipped"]);
    assert_eq!(found, ["annotations", "labels"], "{report:#}");
    assert_eq!(
        message(&report, "annotations"),
        "2 are not understood: weft.dev/acess of Namespace shop is no annotation of Weft; you may \
         mean weft.dev/access, weft.dev/access of Service shop/cart is not read on kind Service; \
         it is an annotation of Namespace and Pod"
    );
    assert_eq!(
        message(&report, "labels"),
        "1 have no effect: weft.dev/inject of TrafficSplit shop/cart is not read on kind \
         TrafficSplit; it is a label of Namespace and Pod"
    );
}

#[tokio::test]
async fn misspelt_names_are_truncated_and_effective_names_pass() {
    let api = healthy();
    let many = (0..40).map(|i| (format!("weft.dev/x-{i}"), json!("")));
    let many: serde_json::Map<String, Value> = many.collect();
    put_namespace(&api, &many.into());
    let (_, report, _) = checked(&api, WELL, &[]).await;
    let reported = message(&report, "annotations");
    assert!(
        reported.starts_with("40 are not understood: "),
        "{reported}"
    );
    assert!(reported.ends_with(" and 37 more"), "{reported}");
    // Control: each where it acts, and what injection wrote.
    put_namespace(&api, &json!({"weft.dev/access": "deny"}));
    let mut service = json!({"metadata": {"name": "cart", "namespace": "shop"}});
    service["metadata"]["annotations"] = json!({"weft.dev/routes": "cart"});
    api.put(SERVICE, service);
    let mut pod = pod();
    pod["metadata"]["labels"] = json!({"weft.dev/account": "97375646b1deb3d2"});
    api.put(POD, pod);
    let (_, report, _) = checked(&api, WELL, &[]).await;
    let found = with(&report, &["warning", "error", "skipped"]);
    assert_eq!(found, [] as [String; 0], "{report:#}");
}
