//! Revocations that are made from the command line, and what controllers make of them.

use super::identity::usage_error;
use super::*;

const REVOCATIONS: &str = "/apis/weft.dev/v1alpha1/revocations";

/// A controller judges the object of this name once it is made.
fn judge(api: &FakeApi, name: &str, conditions: &Value) {
    let (api, path) = (api.clone(), format!("{REVOCATIONS}/{name}"));
    let status = json!({"conditions": conditions});
    tokio::spawn(async move {
        loop {
            if let Some(mut object) = api.read(&path) {
                object["status"] = status;
                api.put(&path, object);
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message,
        "lastTransitionTime": "2026-11-02T09:00:00Z"})
}

fn accepted() -> Value {
    condition("Accepted", "True", "Accepted", "")
}

#[tokio::test(start_paused = true)]
async fn revocation_is_made_as_it_was_typed() {
    for (line, name, subject, before) in [
        (
            "sa/web -n shop --id leak",
            "leak",
            json!({"serviceAccount": {"namespace": "shop", "name": "web"}}),
            Value::Null,
        ),
        (
            "pod/db-0 -n shop --keep-healthy",
            "revoke-2026-11-02-090000",
            json!({"pod": {"namespace": "shop", "name": "db-0"}}),
            json!("2026-11-02T09:00:00Z"),
        ),
        (
            "node/node-2 --id gone",
            "gone",
            json!({"node": {"name": "node-2"}}),
            Value::Null,
        ),
        (
            "certificate/5f:3a:90 --id one",
            "one",
            json!({"certificate": {"serial": "5f3a90"}}),
            Value::Null,
        ),
    ] {
        let api = FakeApi::default();
        judge(&api, name, &json!([accepted()]));
        let line = format!("weft identity revoke {line} --reason test");
        let (code, out, err) = run(api.client(), &line).await;
        assert_eq!((code, out.as_str()), (0, ""), "{line}: {err}");
        let made = api.read(&format!("{REVOCATIONS}/{name}"));
        let spec = made.unwrap_or_else(|| panic!("{line}: {err}"))["spec"].clone();
        assert_eq!(spec["reason"], "test");
        assert_eq!(spec["subjects"], json!([subject]), "{line}");
        assert_eq!(spec["issuedBefore"], before, "{line}");
        assert!(err.contains(&format!("kubectl delete rev {name}")), "{err}");
        let (code, _, err) = run(api.client(), &line).await;
        assert_eq!(code, 2, "{line}: {err}");
        assert!(err.contains("is there already"), "{line}: {err}");
    }
}

#[tokio::test(start_paused = true)]
async fn revoke_reports_what_a_controller_makes_of_it() {
    let in_use = condition("Accepted", "False", "IssuerInUse", "signs now");
    let missing = condition("ResolvedRefs", "False", "NoSuchAccount", "there is no web");
    for (conditions, code, words) in [
        (
            json!([in_use]),
            1,
            "revokes nothing: IssuerInUse: signs now",
        ),
        (
            json!([accepted(), missing]),
            0,
            "NoSuchAccount: there is no web",
        ),
        (json!([]), 3, "no controller has judged it within 5 s"),
    ] {
        let api = FakeApi::default();
        judge(&api, "leak", &conditions);
        let line = "weft identity revoke sa/web -n shop --id leak --reason test";
        let (found, _, err) = run(api.client(), line).await;
        assert_eq!(found, code, "{err}");
        assert!(err.contains(words), "{err}");
    }
}

#[tokio::test]
async fn revoke_dry_run_refuses_what_controllers_refuse() {
    let api = FakeApi::default();
    let signs = "12".repeat(16);
    api.put(
        "/apis/weft.dev/v1alpha1/certificateauthorities/weft",
        json!({"metadata": {"name": "weft"}, "spec": {}, "status": {"issuers":
            [{"fingerprint": "sha256:1", "authority": format!("sha256:{signs}")}]}}),
    );
    api.put(
        "/api/v1/namespaces/weft-system/pods/weft-controller-1",
        json!({"metadata": {"name": "weft-controller-1", "namespace": "weft-system",
                "labels": {"app.kubernetes.io/component": "controller"}},
            "spec": {"containers": [], "serviceAccountName": "weft-controller",
                "nodeName": "node-1"}}),
    );
    let subjects = [
        (format!("issuer/{signs}"), 1),
        (format!("issuer/{}", "34".repeat(16)), 0),
        ("node/node-1".to_owned(), 1),
        ("node/node-2".to_owned(), 0),
        ("sa/weft-controller -n weft-system".to_owned(), 1),
        ("pod/weft-controller-1 -n weft-system".to_owned(), 1),
        ("pod/weft-controller-1 -n shop".to_owned(), 0),
    ];
    for (at, (subject, code)) in subjects.into_iter().enumerate() {
        let line =
            format!("weft identity revoke {subject} --id tried-{at} --reason test --dry-run");
        let (found, _, err) = run(api.client(), &line).await;
        assert_eq!(found, code, "{subject}: {err}");
        assert!(!err.contains("not judged"), "{subject}: {err}");
    }
    // What cannot be looked at is named.
    let line = "weft identity revoke node/node-1 --reason test --dry-run";
    let (code, _, err) = run(FakeApi::default().client(), line).await;
    assert_eq!(code, 0, "{err}");
    assert!(err.contains("not judged: whether"), "{err}");
}

/// So many older objects with so many certificates each, as a controller has judged them.
fn older(objects: usize, subjects: usize, judged: &Value) -> FakeApi {
    let api = FakeApi::default();
    let subjects = vec![json!({"certificate": {"serial": "5f3a90"}}); subjects];
    for number in 0..objects {
        let name = format!("old-{number}");
        let object = json!({"metadata": {"name": name}, "spec": {"subjects": subjects},
            "status": {"conditions": [judged]}});
        api.put(&format!("{REVOCATIONS}/{name}"), object);
    }
    api
}

#[tokio::test]
async fn revocation_without_a_place_is_refused_and_not_made() {
    for (objects, subjects) in [(256, 1), (64, 64)] {
        for option in ["", " --dry-run"] {
            let api = older(objects, subjects, &accepted());
            let line = format!("weft identity revoke certificate/12ab --reason test{option}");
            let (code, _, err) = run(api.client(), &line).await;
            assert_eq!(code, 1, "{line}: {err}");
            assert!(err.contains("has no place (TooMany)"), "{line}: {err}");
            assert_eq!(api.below(REVOCATIONS).len(), objects, "{line}: {err}");
        }
    }
    // What got no place itself, or may hold none, leaves it open.
    let too_many = condition("Accepted", "False", "TooMany", "");
    let in_part = condition("Accepted", "False", "ControlPlane", "");
    for (objects, judged, is_known) in [
        (255, accepted(), true),
        (256, too_many, true),
        (256, in_part, false),
    ] {
        let api = older(objects, 1, &judged);
        let line = "weft identity revoke certificate/12ab --reason test --dry-run";
        let (code, _, err) = run(api.client(), line).await;
        assert_eq!(code, 0, "{judged}: {err}");
        assert_eq!(!err.contains("not judged"), is_known, "{judged}: {err}");
    }
}

#[test]
fn what_cannot_be_revoked_is_refused_with_its_form() {
    for (line, words) in [
        ("revoke --reason x", "name what to revoke"),
        ("revoke sa/web", "name what to revoke"),
        ("revoke web --reason x", "sa/NAME"),
        ("revoke deploy/web --reason x", "sa/NAME"),
        ("revoke cert/xyz --reason x", "hex digits"),
        ("revoke issuer/12 --reason x", "32 hex digits"),
        ("revoke sa/web --reason x --id A/B", "no name of an object"),
        (
            "revoke sa/web --reason x --compromise",
            "weft identity rotate",
        ),
        ("revoke sa/web --reason x -A", "-n NAME"),
        ("rotate --keep-healthy", "weft identity revoke"),
        ("pod/web --reason x", "weft identity revoke"),
    ] {
        let text = usage_error(&format!("weft identity {line}"));
        assert!(text.contains(words), "{line}: {text}");
    }
}
