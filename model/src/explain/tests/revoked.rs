//! Calls of and to what a Revocation ends.

use super::*;

fn revoked(subject: &Value) -> Cluster {
    let spec = json!({"reason": "test", "subjects": [subject]});
    shop().with(revocation("leak", spec))
}

fn asked(subject: &Value, to: &str) -> ExplanationStatus {
    explain(&revoked(subject), &spec("Pod/client", to, "GET", "/"))
}

fn account(name: &str) -> Value {
    json!({"serviceAccount": {"namespace": "shop", "name": name}})
}

/// Of the fix, which names the object and how it is lifted.
fn warning(status: ExplanationStatus) -> String {
    let fix = status.fix.unwrap();
    assert_eq!(fix.commands, ["kubectl describe rev leak"]);
    assert!(fix.objects.is_empty(), "{fix:?}");
    fix.warnings.join("; ")
}

#[test]
fn calls_of_revoked_pods_are_refused_by_the_revocation() {
    let client = json!({"pod": {"namespace": "shop", "name": "client"}});
    for (subject, named) in [(account("web"), "sa shop/web"), (client, "pod shop/client")] {
        let status = asked(&subject, "Service/api");
        let verdict = (status.verdict, status.reason.as_str(), status.http_status);
        let refused = (ExplanationVerdict::Refused, "revoked", Some(403));
        assert_eq!(verdict, refused);
        assert_eq!(status.refused_by, ["Pod shop/client"]);
        let by = format!("Revocation leak revokes {named}");
        let access = texts(&status, "access");
        assert!(access[0].ends_with(&by), "{access:?}");
        assert!(warning(status).contains(&by));
    }
    // Control: others call as before.
    let status = asked(&account("other"), "Service/api");
    assert_eq!(status.verdict, ExplanationVerdict::Allowed, "{status:?}");
}

#[test]
fn revoked_called_pods_are_named_with_the_revocation() {
    let status = asked(&account("api"), "Service/api");
    assert_eq!(status.reason, "no-endpoint", "pods get no calls");
    let by = "Revocation leak revokes sa shop/api";
    let route = texts(&status, "route");
    assert!(route[0].contains(by), "{route:?}");
    assert!(warning(status).contains(by));
    let status = asked(&account("api"), "Pod/api-1");
    assert_eq!(status.reason, "revoked", "by its own address");
    assert!(warning(status).contains(by));
}
