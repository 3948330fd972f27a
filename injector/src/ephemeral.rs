//! Judges containers that are added to a running pod for debugging: they come without
//! injection, into the network that the proxy guards.

use crds::inject;

use crate::review::{AdmissionResponse, Request};

/// The answer for one write of `pods/ephemeralcontainers`.
pub(crate) fn check(request: &Request) -> AdmissionResponse {
    match inject::ephemeral(&request.object, &request.old_object) {
        Ok(()) => AdmissionResponse::allow(),
        Err(refusal) => AdmissionResponse::refuse(format!(
            "weft refuses this container in pod {}/{}: {refusal}",
            request.namespace, request.name
        )),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn refused(debugger: &Value) -> Option<String> {
        let pod = |more: Value| {
            json!({"spec": {
                "initContainers": [{"name": "weft-capture"}, {"name": "weft-proxy"}],
                "containers": [{"name": "app"}], "ephemeralContainers": more,
            }})
        };
        let request = json!({
            "uid": "u", "kind": {"group": "", "kind": "Pod"}, "namespace": "shop",
            "name": "web", "operation": "UPDATE", "subResource": "ephemeralcontainers",
            "object": pod(json!([debugger])), "oldObject": pod(json!([])),
        });
        check(&serde_json::from_value(request).unwrap()).refusal
    }

    #[test]
    fn only_debugger_running_as_proxy_user_is_refused() {
        let as_proxy = json!({"name": "d", "securityContext": {"runAsUser": 15190}});
        let why = refused(&as_proxy).unwrap();
        assert!(
            why.contains("pod shop/web: spec.ephemeralContainers[0].securityContext.runAsUser"),
            "{why}"
        );
        assert_eq!(refused(&json!({"name": "d", "image": "shell"})), None);
    }
}
