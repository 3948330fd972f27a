//! Pods before and after injection.
//!
//! Claims: attack-13

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::*;

mod by_node;
mod guaranteed;
mod handlers;
mod nodes;
mod pod_resources;
mod refusals;
mod removal;

const TOKEN: HookToken = HookToken([0xab; 16]);

fn settings() -> Settings {
    Settings {
        proxy_image: "example/weft/proxy:0.1.0".into(),
        proxy_pull_policy: "IfNotPresent".into(),
        architectures: Architectures::default(),
        controller_address: "weft-controller.weft-system.svc.cluster.local.:8443".into(),
        controller_namespace: "weft-system".into(),
        trust_domain: "cluster.local".into(),
        version: "0.1.0".into(),
        compatibility_series: String::new(),
        guaranteed_cpu: Settings::GUARANTEED_CPU.into(),
        guaranteed_memory: Settings::GUARANTEED_MEMORY.into(),
        limits: DefaultLimits::default(),
        capture: CaptureMode::Init,
    }
}

fn meshed() -> Namespace {
    Namespace {
        name: "shop".into(),
        labels: [(labels::INJECT.to_owned(), labels::ENABLED.to_owned())].into(),
        annotations: BTreeMap::new(),
        releases: Releases::Ignored,
    }
}

#[expect(
    clippy::needless_pass_by_value,
    reason = "keeps the tests' json! plain"
)]
fn pod(spec: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "web" }, "spec": spec })
}

fn one_container(extra: Value) -> Value {
    let mut container = json!({ "name": "app", "image": "app" });
    containers::overlay(&mut container, extra);
    pod(json!({ "containers": [container] }))
}

fn run(pod: &Value) -> Result<InjectionOutcome, Refusal> {
    inject(pod, &meshed(), &settings(), TOKEN)
}

fn injected(pod: &Value) -> Injected {
    match run(pod) {
        Ok(InjectionOutcome::Injected(injected)) => *injected,
        other => panic!("not injected: {other:?}"),
    }
}

fn refusal(pod: &Value) -> String {
    run(pod).expect_err("must be refused").to_string()
}

fn proxy_of(pod: &Value) -> &Value {
    &pod["spec"]["initContainers"][1]
}

fn env_of<'a>(pod: &'a Value, name: &str) -> &'a str {
    let env = proxy_of(pod)["env"].as_array().unwrap();
    env.iter().find(|entry| entry["name"] == name).unwrap()["value"]
        .as_str()
        .unwrap()
}

fn probes_of(pod: &Value) -> Value {
    serde_json::from_str(env_of(pod, "WEFT_PROBES")).unwrap()
}

#[test]
fn capture_and_proxy_come_first_and_in_this_order() {
    let pod = pod(json!({
        "initContainers": [{ "name": "migrate" }],
        "containers": [{ "name": "app" }],
    }));
    let init = injected(&pod).pod["spec"]["initContainers"].clone();
    let names: Vec<_> = init
        .as_array()
        .unwrap()
        .iter()
        .map(|c| c["name"].clone())
        .collect();
    assert_eq!(names, ["weft-capture", "weft-proxy", "migrate"]);
    assert_eq!(init[1]["restartPolicy"], "Always");
    assert!(init[0].get("restartPolicy").is_none());
}

#[test]
fn proxy_has_no_privilege_and_capture_has_one() {
    let pod = injected(&one_container(json!({}))).pod;
    let capture = &pod["spec"]["initContainers"][0]["securityContext"];
    assert_eq!(
        capture["capabilities"],
        json!({ "drop": ["ALL"], "add": ["NET_ADMIN"] })
    );
    assert_eq!(capture["runAsUser"], 0);
    assert_eq!(capture["runAsNonRoot"], false);
    let proxy = &proxy_of(&pod)["securityContext"];
    assert_eq!(proxy["capabilities"], json!({ "drop": ["ALL"] }));
    assert_eq!(proxy["runAsUser"], 15190);
    assert_eq!(proxy["runAsNonRoot"], true);
    for context in [capture, proxy] {
        assert_eq!(context["allowPrivilegeEscalation"], false);
        assert_eq!(context["readOnlyRootFilesystem"], true);
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    }
}

#[test]
fn applying_the_patch_gives_the_changed_pod() {
    for pod in [
        one_container(json!({ "livenessProbe": { "tcpSocket": { "port": 80 } } })),
        json!({ "metadata": { "annotations": { "a/b~c": "1" } }, "spec": { "containers": [{}] } }),
        json!({ "spec": { "containers": [{ "name": "app" }], "volumes": null } }),
        json!({ "metadata": { "labels": null }, "spec": { "containers": [{ "name": "app" }] } }),
        json!({ "metadata": { "labels": { "a/b~c": "1" } }, "spec": { "containers": [{}] } }),
    ] {
        let injected = injected(&pod);
        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &injected.patch).unwrap();
        assert_eq!(patched, injected.pod);
    }
}

// Claims: observability-8
#[test]
fn second_run_changes_nothing_even_with_another_token() {
    let pod = one_container(json!({
        "ports": [{ "name": "web", "containerPort": 8080 }],
        "livenessProbe": { "httpGet": { "port": "web", "path": "/live" }, "timeoutSeconds": 4 },
        "readinessProbe": { "grpc": { "port": 8080, "service": "ready" } },
        "startupProbe": { "tcpSocket": { "port": "web" } },
        "lifecycle": { "preStop": { "httpGet": { "port": 8080, "path": "/bye" } } },
    }));
    let first = injected(&pod);
    let again = inject(&first.pod, &meshed(), &settings(), HookToken([1; 16])).unwrap();
    let InjectionOutcome::Injected(again) = again else {
        panic!("{again:?}")
    };
    assert_eq!(again.patch, Patch(vec![]));
    assert_eq!(again.pod, first.pod);
}

#[test]
fn api_server_defaults_and_foreign_variables_survive_reinjection() {
    let mut pod = injected(&one_container(json!({}))).pod;
    let proxy = &mut pod["spec"]["initContainers"][1];
    proxy["terminationMessagePath"] = "/dev/termination-log".into();
    let env = proxy["env"].as_array_mut().unwrap();
    env.insert(0, json!({ "name": "HTTP_PROXY", "value": "x" }));
    assert_eq!(injected(&pod).patch, Patch(vec![]));
}

// Claims: A7
#[test]
fn proxy_containers_mount_nothing_of_application() {
    let token = "/var/run/secrets/kubernetes.io/serviceaccount";
    let mut pod = injected(&one_container(json!({}))).pod;
    for index in [0, 1] {
        // Where something is mounted already, the API server mounts no token.
        let mounts = pod["spec"]["initContainers"][index]["volumeMounts"].clone();
        let there = mounts.as_array().into_iter().flatten();
        let empty: Vec<_> = there.filter(|mount| mount["mountPath"] == token).collect();
        assert!(empty.len() == 1, "container {index} mounts {mounts}");
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        let volume = volumes.iter().find(|v| v["name"] == empty[0]["name"]);
        let empty = json!({ "defaultMode": 0o644, "sources": [] });
        assert_eq!(volume.unwrap()["projected"], empty);
    }
    let clean = pod.clone();
    // What another webhook, or the user, puts into them later goes again.
    for index in [0, 1] {
        let container = &mut pod["spec"]["initContainers"][index];
        let mounts = container["volumeMounts"].as_array_mut().unwrap();
        mounts.push(json!({ "name": "data", "mountPath": "/data" }));
        container["envFrom"] = json!([{ "secretRef": { "name": "password" } }]);
        container["lifecycle"]["postStart"] = json!({ "exec": { "command": ["x"] } });
        container["securityContext"]["capabilities"]["add"] = json!(["SYS_ADMIN"]);
        if let Some(env) = container["env"].as_array_mut() {
            env.push(json!({ "name": "WEFT_SECRET_SWITCH", "value": "1" }));
        }
    }
    assert_eq!(injected(&pod).pod, clean);
}

/// `kubectl drain` and the cluster autoscaler refuse a pod for each of these.
#[test]
fn no_volume_of_the_proxy_is_local_storage() {
    let pod = injected(&one_container(json!({}))).pod;
    let volumes = pod["spec"]["volumes"].as_array().unwrap();
    assert_eq!(volumes.len(), 3);
    for volume in volumes {
        for local in ["emptyDir", "hostPath"] {
            assert_eq!(volume.get(local), None, "{volume}");
        }
    }
}

fn no_token_volume(pod: &mut Value) -> &mut Value {
    let volumes = pod["spec"]["volumes"].as_array_mut().unwrap();
    let mut named = volumes.iter_mut();
    named.find(|v| v["name"] == "weft-no-api-token").unwrap()
}

#[test]
fn older_volume_gets_only_its_new_source() {
    let right = injected(&one_container(json!({}))).pod;
    let mut earlier = right.clone();
    *no_token_volume(&mut earlier) = json!({ "name": "weft-no-api-token", "emptyDir": {} });
    assert_eq!(injected(&earlier).pod, right);
}

#[test]
fn stored_null_list_equals_empty_list_in_reinjection() {
    let mut stored = injected(&one_container(json!({}))).pod;
    no_token_volume(&mut stored)["projected"]["sources"] = Value::Null;
    assert_eq!(injected(&stored).patch, Patch(vec![]));
}

#[test]
fn quantity_that_the_api_server_rewrote_is_no_difference() {
    let mut pod = one_container(json!({}));
    pod["metadata"]["annotations"] = json!({ labels::PROXY_CPU_LIMIT: "0.5" });
    let mut stored = injected(&pod).pod;
    for index in [0, 1] {
        stored["spec"]["initContainers"][index]["resources"]["limits"]["cpu"] = "500m".into();
    }
    assert_eq!(injected(&stored).patch, Patch(vec![]));
    stored["metadata"]["annotations"][labels::PROXY_CPU_LIMIT] = "0.6".into();
    assert_ne!(injected(&stored).patch, Patch(vec![]));
}

#[test]
fn pods_label_wins_over_the_namespaces() {
    let mut pod = one_container(json!({}));
    pod["metadata"]["labels"] = json!({ labels::INJECT: "disabled" });
    let skipped = InjectionOutcome::Skipped {
        reason: Skip::NotRequested,
        warning: None,
    };
    assert_eq!(run(&pod), Ok(skipped.clone()));

    let unlabelled = Namespace::default();
    assert_eq!(
        inject(&one_container(json!({})), &unlabelled, &settings(), TOKEN),
        Ok(skipped)
    );
    pod["metadata"]["labels"] = json!({ labels::INJECT: "enabled" });
    let outcome = inject(&pod, &unlabelled, &settings(), TOKEN);
    assert!(matches!(outcome, Ok(InjectionOutcome::Injected(_))));

    pod["metadata"]["labels"] = json!({ labels::INJECT: "true" });
    assert!(refusal(&pod).contains(r#"metadata.labels[weft.dev/inject] is "true""#));
}

#[test]
fn host_network_pod_is_skipped_with_a_warning() {
    let mut pod = one_container(json!({}));
    pod["spec"]["hostNetwork"] = true.into();
    let Ok(InjectionOutcome::Skipped { reason, warning }) = run(&pod) else {
        panic!("not skipped")
    };
    assert_eq!(reason, Skip::HostNetwork);
    assert!(warning.unwrap().contains("spec.hostNetwork"));
}

#[test]
fn pod_annotations_override_namespace_and_reach_containers() {
    let mut namespace = meshed();
    for (name, value) in [
        (labels::SKIP_OUTBOUND_PORTS, "443"),
        (labels::PROXY_CPU_REQUEST, "50m"),
        (labels::LOG_LEVEL, "debug"),
    ] {
        namespace.annotations.insert(name.into(), value.into());
    }
    let mut pod = one_container(json!({}));
    pod["metadata"]["annotations"] = json!({
        labels::PROXY_CPU_REQUEST: "20m",
        labels::PROXY_MEMORY_LIMIT: "64Mi",
        labels::SKIP_INBOUND_PORTS: "9000-9010",
    });
    let outcome = inject(&pod, &namespace, &settings(), TOKEN);
    let Ok(InjectionOutcome::Injected(injected)) = outcome else {
        panic!("{outcome:?}")
    };
    let pod = injected.pod;
    assert_eq!(
        pod["spec"]["initContainers"][0]["args"],
        json!([
            "capture",
            "--check",
            "--skip-inbound-ports=9000-9010",
            "--skip-outbound-ports=443"
        ])
    );
    assert_eq!(
        proxy_of(&pod)["resources"],
        json!({ "requests": { "cpu": "20m", "memory": "20Mi" }, "limits": { "memory": "64Mi" } })
    );
    assert_eq!(env_of(&pod, "WEFT_LOG"), "debug");
    let annotations = &pod["metadata"]["annotations"];
    assert_eq!(
        annotations[labels::SKIP_OUTBOUND_PORTS],
        "443",
        "the pod says what it skips"
    );
    assert_eq!(annotations[labels::PROXY_VERSION], "0.1.0");
    assert_eq!(annotations[labels::DEFAULT_CONTAINER], "app");
}

#[test]
fn shared_process_namespace_and_unknown_fields_come_through() {
    let mut before = one_container(json!({ "aFieldOfTomorrow": [1, { "x": null }] }));
    before["spec"]["shareProcessNamespace"] = true.into();
    before["spec"]["anotherOne"] = json!({ "y": 2 });
    let after = injected(&before).pod;
    assert_eq!(
        after["spec"]["containers"][0]["aFieldOfTomorrow"],
        json!([1, { "x": null }])
    );
    assert_eq!(after["spec"]["anotherOne"], json!({ "y": 2 }));
}

#[test]
fn odd_shapes_never_panic() {
    for spec in [
        json!(null),
        json!([]),
        json!({}),
        json!({ "containers": 1 }),
        json!({ "containers": [1, null, [], "x"] }),
        json!({ "containers": [{ "livenessProbe": 3, "lifecycle": [], "ports": {} }] }),
        json!({ "containers": [{ "livenessProbe": { "httpGet": [] }, "lifecycle": { "preStop": 1 } }] }),
        json!({ "initContainers": {}, "volumes": 7, "securityContext": "x" }),
        json!({
            "initContainers": [{
                "name": "weft-proxy", "args": 1, "volumeMounts": {}, "securityContext": null,
                "env": [{ "name": "WEFT_PROBES", "value": "{\"app/liveness\":1}" }],
            }],
            "containers": [{
                "name": "app",
                "livenessProbe": { "httpGet": { "port": 15190, "path": "/probe/app/liveness" } },
            }],
        }),
        json!({ "initContainers": [{ "name": "weft-proxy", "env": 1 }] }),
        json!({ "initContainers": [{ "name": "weft-proxy", "env": [{ "name": "WEFT_PROBES" }] }] }),
        json!({ "initContainers": [{ "name": "weft-proxy", "env": [{ "name": "WEFT_HOOKS", "value": "{\"\":1}" }] }] }),
    ] {
        let pod = json!({ "metadata": { "annotations": 1, "labels": [] }, "spec": spec });
        let _ = run(&pod);
    }
    for pod in [
        json!(null),
        json!([]),
        json!("x"),
        json!({ "metadata": 1, "spec": {} }),
    ] {
        let _ = run(&pod);
    }
}

#[test]
fn account_label_is_written_and_must_match() {
    let account = |pod: &Value| pod["metadata"]["labels"][labels::ACCOUNT].clone();
    let bare = injected(&one_container(json!({})));
    assert_eq!(account(&bare.pod), labels::account_hash("shop", "default"));
    let mut pod = pod(json!({ "serviceAccountName": "web", "containers": [{ "name": "app" }] }));
    pod["metadata"]["labels"] = json!({ "app": "web" });
    let mut made = injected(&pod).pod;
    assert_eq!(account(&made), labels::account_hash("shop", "web"));
    assert_eq!(made["metadata"]["labels"]["app"], "web", "others stay");

    pod["metadata"]["labels"][labels::ACCOUNT] = account(&bare.pod);
    let refusal = refusal(&pod);
    assert!(
        refusal.contains("weft.dev/account") && refusal.contains("\"web\""),
        "{refusal}"
    );
    // Another webhook may choose the account after the first run.
    made["spec"]["serviceAccountName"] = json!("api");
    assert_eq!(
        account(&injected(&made).pod),
        labels::account_hash("shop", "api")
    );
}

#[test]
fn workload_is_recorded_only_for_compatibility_series() {
    let mut pod = one_container(json!({}));
    pod["metadata"]["labels"]["pod-template-hash"] = json!("abc");
    pod["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-abc", "controller": true
    }]);
    let none = injected(&pod);
    let names = proxy_of(&none.pod)["env"].to_string();
    assert!(
        !names.contains("WEFT_WORKLOAD") && !names.contains("COMPATIBILITY"),
        "{names}"
    );

    let mut settings = settings();
    settings.compatibility_series = "linkerd,osm".into();
    let Ok(InjectionOutcome::Injected(some)) = inject(&pod, &meshed(), &settings, TOKEN) else {
        panic!("the pod must be injected");
    };
    assert_eq!(
        env_of(&some.pod, "WEFT_COMPATIBILITY_SERIES"),
        "linkerd,osm"
    );
    assert_eq!(env_of(&some.pod, "WEFT_WORKLOAD_KIND"), "Deployment");
    assert_eq!(env_of(&some.pod, "WEFT_WORKLOAD_NAME"), "web");
}
