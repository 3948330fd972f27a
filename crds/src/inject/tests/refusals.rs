//! Pods that are refused: they would take the proxy's place, or run past it.
//!
//! Claims: attack-13

use super::*;

// Claims: A7
#[test]
fn foreign_init_container_with_our_name_is_refused() {
    for name in ["weft-capture", "weft-proxy"] {
        let theirs = json!({
            "name": name, "image": "theirs",
            "volumeMounts": [{ "name": "data", "mountPath": "/data" }],
        });
        let pod = pod(json!({
            "initContainers": [{ "name": "migrate" }, theirs],
            "containers": [{ "name": "app" }],
        }));
        let message = refusal(&pod);
        let field = format!("spec.initContainers[1].name {name:?} is a name");
        assert!(message.starts_with(&field), "{message}");
    }
    // Beside ours, and twice.
    let mut pod = injected(&one_container(json!({}))).pod;
    let init = pod["spec"]["initContainers"].as_array_mut().unwrap();
    init.push(json!({ "name": "weft-capture", "image": "theirs" }));
    assert!(refusal(&pod).contains("weft-capture"));
}

// Claims: A7
#[test]
fn pod_with_processes_in_proxy_group_is_refused() {
    for (field, context) in [
        ("fsGroup", json!({ "fsGroup": 15190 })),
        (
            "supplementalGroups[1]",
            json!({ "supplementalGroups": [1, 15190] }),
        ),
    ] {
        let mut pod = one_container(json!({}));
        pod["spec"]["securityContext"] = context;
        let message = refusal(&pod);
        let field = format!("spec.securityContext.{field} is 15190");
        assert!(message.starts_with(&field), "{message}");
        assert!(message.contains("choose another group"), "{message}");
    }
    let mut other = one_container(json!({}));
    other["spec"]["securityContext"] = json!({ "fsGroup": 2000, "supplementalGroups": [1, 2] });
    injected(&other);
}

#[test]
fn malformed_annotation_error_names_field_and_allowed_values() {
    for (name, value, expected) in [
        (labels::SKIP_INBOUND_PORTS, "http", "ports or ranges"),
        (labels::SKIP_OUTBOUND_CIDRS, "10.0.0.1", "networks"),
        (labels::PROXY_MEMORY_LIMIT, "lots", "quantity"),
        (labels::DRAIN_DELAY, "3s", "whole number of seconds"),
        (labels::DRAIN_DELAY, "+3", "whole number of seconds"),
        (labels::ACCESS_LOG, "text", "\",errors\""),
        (labels::LOG_LEVEL, "loud", "debug"),
    ] {
        let mut pod = one_container(json!({}));
        pod["metadata"]["annotations"] = json!({ name: value });
        let message = refusal(&pod);
        assert!(
            message.contains(&format!("metadata.annotations[{name}]")),
            "{message}"
        );
        assert!(message.contains(expected), "{message}");
    }
    let mut namespace = meshed();
    namespace
        .annotations
        .insert(labels::DRAIN_DELAY.into(), "x".into());
    let message = inject(&one_container(json!({})), &namespace, &settings(), TOKEN)
        .unwrap_err()
        .to_string();
    assert!(message.contains("of namespace shop"), "{message}");
}

#[test]
fn container_that_would_run_as_the_proxy_is_refused() {
    let own = one_container(json!({ "securityContext": { "runAsUser": 15190 } }));
    assert!(refusal(&own).starts_with("spec.containers[0].securityContext.runAsUser is 15190"));
    let group = one_container(json!({ "securityContext": { "runAsGroup": 15190 } }));
    assert!(refusal(&group).contains("runAsGroup"));

    let mut inherited = one_container(json!({}));
    inherited["spec"]["securityContext"] = json!({ "runAsUser": 15190 });
    assert!(refusal(&inherited).starts_with("spec.securityContext.runAsUser is 15190"));
    inherited["spec"]["containers"][0]["securityContext"] = json!({ "runAsUser": 1000 });
    injected(&inherited);
}

#[test]
fn proxy_port_is_refused_wherever_it_is_used() {
    for port in [15101, 15106, 15108, 15190] {
        let pod = one_container(json!({ "ports": [{ "containerPort": port }] }));
        let message = refusal(&pod);
        assert!(
            message.starts_with("spec.containers[0].ports[0].containerPort is"),
            "{message}"
        );
    }
    let host = one_container(json!({ "ports": [{ "containerPort": 80, "hostPort": 15108 }] }));
    assert!(refusal(&host).contains("hostPort is 15108"));
    let probe = one_container(json!({ "livenessProbe": { "httpGet": { "port": 15190 } } }));
    assert!(refusal(&probe).contains("livenessProbe.httpGet.port is 15190"));
    let copied = one_container(json!({
        "livenessProbe": { "httpGet": { "port": 15190, "path": "/probe/app/liveness" } },
    }));
    assert!(
        refusal(&copied).contains("livenessProbe.httpGet.port"),
        "no original is known"
    );
}

#[test]
fn names_of_the_proxy_cannot_be_taken() {
    let container = pod(json!({ "containers": [{ "name": "weft-proxy" }] }));
    assert!(refusal(&container).starts_with("spec.containers[0].name \"weft-proxy\""));
    let volume = pod(json!({
        "containers": [{ "name": "app" }],
        "volumes": [{ "name": "weft-token", "emptyDir": {} }],
    }));
    assert!(refusal(&volume).starts_with("spec.volumes[0].name \"weft-token\""));
}

#[test]
fn probe_of_undeclared_port_is_refused() {
    let pod = one_container(json!({ "livenessProbe": { "tcpSocket": { "port": "web" } } }));
    let message = refusal(&pod);
    assert!(
        message.contains("livenessProbe.tcpSocket.port \"web\""),
        "{message}"
    );
    assert!(message.contains("container \"app\""), "{message}");
}

/// It would wait for its certificate for ever: a node's name servers know no Service.
// Claims: attack-111
#[test]
fn pod_that_cannot_resolve_controller_is_refused() {
    let asking = |policy: Value| {
        let mut pod = one_container(json!({}));
        pod["spec"]["dnsPolicy"] = policy;
        pod
    };
    let mut node = asking("Default".into());
    let message = refusal(&node);
    assert!(
        message.starts_with("spec.dnsPolicy is Default"),
        "{message}"
    );
    assert!(message.contains("ClusterFirst"), "{message}");
    // It gets no proxy.
    node["spec"]["hostNetwork"] = true.into();
    assert!(matches!(run(&node), Ok(InjectionOutcome::Skipped { .. })));

    // Servers of its own may know the Service.
    let warnings = injected(&asking("None".into())).warnings;
    let text = warnings.first().map(String::as_str).unwrap_or_default();
    assert!(
        text.contains("spec.dnsPolicy is None") && text.contains("weft-controller.weft-system"),
        "{warnings:?}"
    );
    let quiet = ["ClusterFirst", "ClusterFirstWithHostNet"].map(Value::from);
    for policy in quiet.into_iter().chain([Value::Null]) {
        assert!(
            injected(&asking(policy.clone())).warnings.is_empty(),
            "{policy}"
        );
    }
    assert!(injected(&one_container(json!({}))).warnings.is_empty());
}
