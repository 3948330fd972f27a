//! Lines of the manual that pods meet.

use super::*;

const HPA: &str = "/apis/autoscaling/v2/namespaces/shop/horizontalpodautoscalers/web";

/// A running pod with a proxy that carries out its liveness probe, of Deployment `web`.
fn meshed() -> Value {
    let mut pod = pod();
    pod["metadata"]["labels"] = json!({"pod-template-hash": "7d4"});
    pod["metadata"]["ownerReferences"] = json!([{"kind": "ReplicaSet", "name": "web-7d4"}]);
    let probe = json!({"httpGet": {"port": 15190, "path": "/probe/app/liveness"}});
    pod["spec"]["containers"] = json!([{"name": "app", "livenessProbe": probe}]);
    pod["status"]["initContainerStatuses"] = json!([{"name": "weft-proxy", "restartCount": 0}]);
    pod["status"]["qosClass"] = json!("Burstable");
    pod
}

fn autoscaler(metric: &Value) -> Value {
    let target = json!({"kind": "Deployment", "name": "web"});
    json!({"metadata": {"name": "web", "namespace": "shop"},
        "spec": {"scaleTargetRef": target, "metrics": [metric]}})
}

/// The check's message for a mesh with this pod, which is well in any case.
async fn said(api: &FakeApi, pod: Value) -> String {
    api.put(POD, pod);
    let (ended, report, _) = checked(api, WELL, &["--fail-on", "warning"]).await;
    assert_eq!(ended.unwrap(), Conclusion::Yes, "{report:#}");
    let mut checks = report["checks"].as_array().unwrap().iter();
    let found = checks.find(|check| check["id"] == "applications").unwrap();
    assert_eq!(found["result"], "ok", "{found}");
    found["message"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn pod_that_meets_a_line_is_named_with_it() {
    let api = healthy();
    assert_eq!(said(&api, meshed()).await, "none");
    let changed = |pointer: &str, value: Value| {
        let mut pod = meshed();
        *pod.pointer_mut(pointer).unwrap() = value;
        pod
    };
    let amounts = json!({"cpu": "1", "memory": "1Gi"});
    let mut bounded = meshed();
    bounded["spec"]["containers"][0]["resources"] = json!({"limits": amounts});
    let mut networks = meshed();
    networks["metadata"]["annotations"]["k8s.v1.cni.cncf.io/networks"] = json!("macvlan");
    for (pod, anchor) in [
        (
            changed("/metadata/ownerReferences", json!([])),
            "bare-pod-probes",
        ),
        (
            changed("/status/initContainerStatuses/0/restartCount", json!(2)),
            "liveness-by-proxy",
        ),
        (
            changed("/status/qosClass", json!("Guaranteed")),
            "guaranteed-pod",
        ),
        (bounded, "guaranteed-pod"),
        (networks.clone(), "second-interface"),
    ] {
        let message = said(&api, pod).await;
        assert!(message.starts_with("1 "), "{message}");
        let end = format!(": shop/web-1 (docs/applications.md#{anchor})");
        assert!(message.ends_with(&end), "{anchor}: {message}");
    }
    // What the annotations of the pod or of its namespace let pass is looked after.
    networks["metadata"]["annotations"]["weft.dev/skip-inbound-ports"] = json!("9000");
    assert_eq!(said(&api, networks).await, "none");
    // The kubelet carries out `exec` by itself.
    let mut exec = changed("/metadata/ownerReferences", json!([]));
    exec["spec"]["containers"][0]["livenessProbe"] = json!({"exec": {"command": ["true"]}});
    assert_eq!(said(&api, exec).await, "none");
}

#[tokio::test]
async fn autoscaler_by_cpu_of_meshed_pods_is_named() {
    let cpu = json!({"type": "Resource", "resource": {"name": "cpu"}});
    let memory = json!({"type": "Resource", "resource": {"name": "memory"}});
    let of_container = json!({"type": "ContainerResource",
        "containerResource": {"name": "cpu", "container": "app"}});
    let api = healthy();
    for metric in [memory, of_container] {
        api.put(HPA, autoscaler(&metric));
        assert_eq!(said(&api, meshed()).await, "none");
    }
    api.put(HPA, autoscaler(&cpu));
    let message = said(&api, meshed()).await;
    let end = ": shop/web (docs/applications.md#autoscaler-by-cpu)";
    assert!(message.ends_with(end), "{message}");
    let mut other = autoscaler(&cpu);
    other["spec"]["scaleTargetRef"]["name"] = json!("cart");
    api.put(HPA, other);
    assert_eq!(said(&api, meshed()).await, "none");
}
