//! Pods that are Guaranteed without their proxy.

use super::*;

fn resources(requests: Value, limits: Value) -> Value {
    let mut container = json!({});
    container["resources"]["requests"] = requests;
    container["resources"]["limits"] = limits;
    container
}

/// A container of a pod that is Guaranteed, as people write it.
fn bounded() -> Value {
    resources(
        json!({ "cpu": "1000m", "memory": "1024Mi" }),
        json!({ "cpu": 1, "memory": "1Gi" }),
    )
}

fn annotated(extra: Value, annotations: Value) -> Value {
    let mut pod = one_container(extra);
    pod["metadata"]["annotations"] = annotations;
    pod
}

fn ours(pod: &Value) -> [&Value; 2] {
    [0_usize, 1].map(|index| &pod["spec"]["initContainers"][index]["resources"])
}

fn both(cpu: &str, memory: &str) -> Value {
    let amounts = json!({ "cpu": cpu, "memory": memory });
    json!({ "requests": amounts, "limits": amounts })
}

fn burstable() -> Value {
    json!({ "requests": { "cpu": "10m", "memory": "20Mi" } })
}

#[test]
fn guaranteed_pod_stays_guaranteed_by_limits_of_the_proxy() {
    let mut pod = one_container(bounded());
    // A limit alone is the request as well.
    let limits = json!({ "limits": { "cpu": "2", "memory": "1e9" } });
    pod["spec"]["initContainers"] = json!([{ "name": "migrate", "resources": limits }]);
    let first = injected(&pod).pod;
    let expected = both("200m", "128Mi");
    assert_eq!(ours(&first), [&expected, &expected]);
    assert_eq!(injected(&first).patch, Patch(vec![]));
}

#[test]
fn burstable_pod_has_a_proxy_without_limits() {
    let amounts = || json!({ "cpu": "1", "memory": "1Gi" });
    for extra in [
        json!({}),
        resources(amounts(), json!({})),
        resources(amounts(), json!({ "cpu": "1" })),
        resources(json!({ "cpu": "999m", "memory": "1Gi" }), amounts()),
        resources(json!({ "cpu": "0", "memory": "1Gi" }), amounts()),
        resources(amounts(), json!({ "cpu": "1", "memory": "0" })),
    ] {
        let pod = injected(&one_container(extra.clone())).pod;
        assert_eq!(ours(&pod), [&burstable(), &burstable()], "{extra}");
    }
    let mut second = one_container(bounded());
    let containers = second["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({ "name": "second" }));
    assert_eq!(ours(&injected(&second).pod)[1], &burstable());
}

#[test]
fn annotations_decline_or_raise_what_a_guaranteed_pod_gets() {
    for (annotations, expected) in [
        (json!({ labels::PROXY_GUARANTEED: "disabled" }), burstable()),
        (
            json!({ labels::PROXY_GUARANTEED: "enabled" }),
            both("200m", "128Mi"),
        ),
        (
            json!({ labels::PROXY_CPU_REQUEST: "0.5", labels::PROXY_MEMORY_REQUEST: "64Mi" }),
            both("0.5", "128Mi"),
        ),
        (
            json!({ labels::PROXY_CPU_REQUEST: "50m", labels::PROXY_CPU_LIMIT: "2" }),
            both("2", "128Mi"),
        ),
    ] {
        let pod = annotated(bounded(), annotations.clone());
        let pod = injected(&pod).pod;
        assert_eq!(ours(&pod), [&expected, &expected], "{annotations}");
    }
    let wrong = annotated(bounded(), json!({ labels::PROXY_GUARANTEED: "no" }));
    assert!(refusal(&wrong).contains(labels::PROXY_GUARANTEED));
}

#[test]
fn limits_go_when_another_webhook_adds_an_unbounded_container() {
    let mut pod = injected(&one_container(bounded())).pod;
    let containers = pod["spec"]["containers"].as_array_mut().unwrap();
    containers.push(json!({ "name": "agent" }));
    let again = injected(&pod).pod;
    assert_eq!(ours(&again), [&burstable(), &burstable()]);
    // What a LimitRange gave the proxy stays.
    let mut pod = injected(&one_container(json!({}))).pod;
    pod["spec"]["initContainers"][1]["resources"]["limits"] = json!({ "cpu": "1" });
    assert_eq!(injected(&pod).patch, Patch(vec![]));
}

#[test]
fn pod_level_resources_take_precedence_over_containers() {
    let equal = json!({ "cpu": "1", "memory": "1Gi" });
    let mut pod = one_container(json!({}));
    pod["spec"]["resources"] = json!({ "requests": equal, "limits": equal });
    let with = injected(&pod).pod;
    assert_eq!(ours(&with)[1], &both("200m", "128Mi"));
    assert_eq!(with["spec"]["resources"], both("1200m", "1152Mi"));

    let mut pod = one_container(bounded());
    pod["spec"]["resources"] = json!({ "requests": { "cpu": "1" } });
    assert_eq!(ours(&injected(&pod).pod)[1], &burstable());
}
