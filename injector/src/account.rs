//! Refuses pods whose account label is not that of their service account.
//!
//! NetworkPolicies admit UDP by this label ([`labels::ACCOUNT`]), so it must be as hard to forge as
//! the account itself: only a user who may run a pod as an account may set its label. That holds in
//! every namespace, for pods with and without a proxy, and for every way to write a pod's labels:
//! creation, update, `pods/status`, and the labels of a Binding, which the API server copies.

use crds::labels::{ACCOUNT, account_hash, account_of};
use serde_json::Value;

use crate::review::{AdmissionResponse, Request};

/// The answer for one write.
pub(crate) fn check(request: &Request) -> AdmissionResponse {
    if !matches!(request.operation.as_str(), "CREATE" | "UPDATE") {
        return AdmissionResponse::allow();
    }
    let (label, before) = (label(&request.object), label(&request.old_object));
    // A pod from before this webhook must stay changeable and deletable; the
    // controller leaves its account out of every policy.
    if request.operation == "UPDATE" && label == before {
        return AdmissionResponse::allow();
    }
    if request.kind.kind != "Pod" || !request.kind.group.is_empty() {
        return match label {
            None => AdmissionResponse::allow(),
            Some(_) => AdmissionResponse::refuse(format!(
                "metadata.labels[{ACCOUNT}] of this {} would end up on a pod; leave it out: \
                 weft writes it when the pod is made",
                request.kind.kind
            )),
        };
    }
    let pod = format!("{}/{}", request.namespace, request.name);
    let account = account_of(request.object.get("spec").unwrap_or(&Value::Null));
    let right = account_hash(&request.namespace, account);
    match (label, before) {
        (Some(label), _) if *label == *right => AdmissionResponse::allow(),
        (Some(label), _) => AdmissionResponse::refuse(format!(
            "metadata.labels[{ACCOUNT}] of pod {pod} is {label}, but {right:?} belongs to its \
             service account {account:?}; remove the label, weft writes it when the pod is made"
        )),
        (None, Some(before)) if *before == *right => AdmissionResponse::refuse(format!(
            "metadata.labels[{ACCOUNT}] of pod {pod} must not be removed: NetworkPolicies that \
             protect the pod know it by this label"
        )),
        (None, _) => AdmissionResponse::allow(),
    }
}

fn label(object: &Value) -> Option<&Value> {
    object
        .pointer("/metadata/labels")?
        .get(ACCOUNT)
        .filter(|label| !label.is_null())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod(account: &str, label: Option<&str>) -> Value {
        let mut pod = json!({"metadata": {"labels": {"app": "x"}}, "spec": {}});
        if !account.is_empty() {
            pod["spec"]["serviceAccountName"] = account.into();
        }
        if let Some(label) = label {
            pod["metadata"]["labels"][ACCOUNT] = label.into();
        }
        pod
    }

    fn refused(operation: &str, kind: &str, object: &Value, old: &Value) -> Option<String> {
        let request = json!({
            "uid": "u", "kind": {"group": "", "kind": kind}, "namespace": "shop", "name": "p",
            "operation": operation, "object": object, "oldObject": old,
        });
        check(&serde_json::from_value(request).unwrap()).refusal
    }

    #[test]
    fn new_pod_may_carry_only_own_account_label() {
        let web = account_hash("shop", "web");
        let create = |pod: &Value| refused("CREATE", "Pod", pod, &Value::Null);
        assert_eq!(create(&pod("web", Some(&web))), None);
        assert_eq!(create(&pod("web", None)), None);
        let default = account_hash("shop", "default");
        assert_eq!(
            create(&pod("", Some(&default))),
            None,
            "no account is default"
        );
        for label in [&account_hash("other", "web"), &default, ""] {
            let why = create(&pod("web", Some(label))).unwrap();
            assert!(why.contains(&web) && why.contains("shop/p"), "{why}");
        }
    }

    #[test]
    fn account_label_of_running_pod_cannot_change() {
        let (web, api) = (account_hash("shop", "web"), account_hash("shop", "api"));
        let update = |old: &Value, new: &Value| refused("UPDATE", "Pod", new, old);
        let right = pod("web", Some(&web));
        assert_eq!(update(&right, &right), None);
        assert!(update(&right, &pod("web", Some(&api))).is_some());
        assert!(update(&right, &pod("web", None)).is_some(), "unprotected");
        assert!(update(&pod("web", None), &pod("web", Some(&api))).is_some());
        assert_eq!(update(&pod("web", None), &right), None);
        // From before the webhook: changeable, and mendable.
        let wrong = pod("web", Some(&api));
        assert_eq!(update(&wrong, &wrong), None);
        assert_eq!(update(&wrong, &right), None);
        assert_eq!(update(&wrong, &pod("web", None)), None);
    }

    #[test]
    fn a_binding_brings_no_label() {
        let bound = json!({"metadata": {"labels": {ACCOUNT: account_hash("shop", "web")}}});
        assert!(refused("CREATE", "Binding", &bound, &Value::Null).is_some());
        assert_eq!(refused("CREATE", "Binding", &json!({}), &Value::Null), None);
        assert_eq!(
            refused("CREATE", "Eviction", &json!({}), &Value::Null),
            None
        );
    }
}
