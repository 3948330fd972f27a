//! Pods whose proxy is taken out again.
//!
//! Claims: observe-53

use super::*;
use crate::objects::ARCHITECTURES;

/// The pod, with the processor of its nodes, which removal leaves.
fn pinned(pod: &Value) -> Value {
    let mut pod = pod.clone();
    pod["spec"]["nodeSelector"][placement::ARCH] = json!(ARCHITECTURES[0]);
    pod
}

/// Pods of which injection writes every part, in the words in which they come back.
fn pods() -> Vec<Value> {
    let probes = one_container(json!({
        "livenessProbe": { "httpGet": { "port": 8080, "path": "/live" }, "timeoutSeconds": 4 },
        "readinessProbe": { "grpc": { "port": 8080, "service": "ready" }, "periodSeconds": 5 },
        "startupProbe": { "tcpSocket": { "port": 9000 } },
        "lifecycle": {
            "postStart": { "httpGet": { "port": 8443, "path": "/hi", "scheme": "HTTPS" } },
            "preStop": { "exec": { "command": ["true"] } },
        },
    }));
    let mut delayed = one_container(json!({}));
    delayed["metadata"]["annotations"] = json!({ labels::DRAIN_DELAY: "7" });
    delayed["metadata"]["labels"] = json!({ "app": "web" });
    let full = pod(json!({
        "nodeSelector": { "disk": "fast" },
        "initContainers": [
            { "name": "migrate" },
            { "name": "agent", "restartPolicy": "Always",
              "livenessProbe": { "httpGet": { "port": 9000, "path": "/" } } },
        ],
        "containers": [{ "name": "app" }, { "name": "second" }],
        "volumes": [{ "name": "data", "emptyDir": {} }],
    }));
    let bare = json!({ "spec": { "containers": [{ "name": "app" }] } });
    vec![one_container(json!({})), probes, delayed, full, bare]
}

#[test]
fn removal_leaves_what_injection_found_and_nothing_to_remove() {
    for pod in pods() {
        let with = injected(&pod).pod;
        assert_ne!(with, pod);
        assert_eq!(remove(&with).unwrap(), Some(pinned(&pod)));
        assert_eq!(remove(&pod).unwrap(), None);
    }
}

#[test]
fn sleep_and_default_container_that_are_not_injections_stay() {
    let mut pod = one_container(json!({
        "lifecycle": { "preStop": { "sleep": { "seconds": 20 } } },
    }));
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({ "name": "second" }));
    pod["metadata"]["annotations"] = json!({ labels::DEFAULT_CONTAINER: "second" });
    let with = injected(&pod).pod;
    assert_eq!(remove(&with).unwrap(), Some(pinned(&pod)));
}

#[test]
fn user_requested_node_architecture_survives_removal() {
    let pod = pinned(&one_container(json!({})));
    let with = injected(&pod).pod;
    assert_eq!(remove(&with).unwrap(), Some(pod));
}

#[test]
fn sleep_that_the_namespace_asked_for_goes_too() {
    let mut namespace = meshed();
    let delay = (labels::DRAIN_DELAY.to_owned(), "9".to_owned());
    namespace.annotations.extend([delay]);
    let pod = one_container(json!({}));
    let outcome = inject(&pod, &namespace, &settings(), TOKEN);
    let Ok(InjectionOutcome::Injected(with)) = outcome else {
        panic!("{outcome:?}")
    };
    let hook = "/spec/containers/0/lifecycle/preStop/sleep/seconds";
    assert_eq!(with.pod.pointer(hook), Some(&json!(9)));
    // What it was stays said, as all that the namespace gave the pod does.
    let mut left = pinned(&pod);
    left["metadata"]["annotations"] = json!({ labels::DRAIN_DELAY: "9" });
    assert_eq!(remove(&with.pod).unwrap(), Some(left));
}

#[test]
fn removal_with_unknown_probes_is_refused() {
    let pod = one_container(json!({ "livenessProbe": { "tcpSocket": { "port": 80 } } }));
    let mut with = injected(&pod).pod;
    let env = with["spec"]["initContainers"][1]["env"].as_array_mut();
    let probes = env.into_iter().flatten();
    for entry in probes.filter(|entry| entry["name"] == "WEFT_PROBES") {
        entry["value"] = json!("{}");
    }
    let refusal = remove(&with).unwrap_err().to_string();
    assert!(refusal.contains("WEFT_PROBES"), "{refusal}");
}
