//! Probes and hooks: rewritten so that they pass the proxy, or left alone.

use super::*;

#[test]
fn late_probe_of_another_webhook_is_rewritten() {
    let mut pod = injected(&one_container(json!({
        "livenessProbe": { "httpGet": { "port": 8080 } },
    })))
    .pod;
    let late = json!({ "name": "late", "livenessProbe": { "tcpSocket": { "port": 9000 } } });
    pod["spec"]["containers"].as_array_mut().unwrap().push(late);
    let init = pod["spec"]["initContainers"].as_array_mut().unwrap();
    init.insert(0, json!({ "name": "theirs-first" }));

    let again = injected(&pod).pod;
    let probes = probes_of(&again);
    assert_eq!(probes["app/liveness"]["httpGet"]["port"], 8080);
    assert_eq!(probes["late/liveness"]["tcpSocket"]["port"], 9000);
    assert_eq!(again["spec"]["initContainers"][0]["name"], "weft-capture");
    assert_eq!(again["spec"]["initContainers"][2]["name"], "theirs-first");
}

#[test]
fn http_probe_keeps_headers_host_scheme_and_timing() {
    let pod = injected(&one_container(json!({
        "ports": [{ "name": "web", "containerPort": 8443 }],
        "readinessProbe": {
            "httpGet": {
                "port": "web", "path": "/r?x=1", "scheme": "HTTPS", "host": "10.0.0.1",
                "httpHeaders": [{ "name": "Host", "value": "shop.example" }],
            },
            "initialDelaySeconds": 2, "timeoutSeconds": 5, "periodSeconds": 7,
            "failureThreshold": 9, "terminationGracePeriodSeconds": 11,
        },
    })))
    .pod;
    assert_eq!(
        pod["spec"]["containers"][0]["readinessProbe"],
        json!({
            "httpGet": { "path": "/probe/app/readiness", "port": 15190, "scheme": "HTTP" },
            "initialDelaySeconds": 2, "timeoutSeconds": 5, "periodSeconds": 7,
            "failureThreshold": 9, "terminationGracePeriodSeconds": 11,
        })
    );
    assert_eq!(
        probes_of(&pod),
        json!({ "app/readiness": {
            "httpGet": {
                "port": 8443, "path": "/r?x=1", "scheme": "HTTPS", "host": "10.0.0.1",
                "httpHeaders": [{ "name": "Host", "value": "shop.example" }],
            },
            "timeoutSeconds": 5,
        }})
    );
}

#[test]
fn native_sidecar_probes_are_rewritten_except_exec() {
    let exec = json!({ "exec": { "command": ["true"] } });
    let pod = injected(&pod(json!({
        "initContainers": [
            { "name": "agent", "restartPolicy": "Always",
              "startupProbe": { "grpc": { "port": 9000 } }, "livenessProbe": exec },
        ],
        "containers": [{ "name": "app" }],
    })))
    .pod;
    let agent = &pod["spec"]["initContainers"][2];
    assert_eq!(
        agent["startupProbe"]["httpGet"]["path"],
        "/probe/agent/startup"
    );
    assert!(agent["startupProbe"].get("grpc").is_none());
    assert_eq!(agent["livenessProbe"], exec);
    assert_eq!(
        probes_of(&pod),
        json!({ "agent/startup": { "grpc": { "port": 9000 }, "timeoutSeconds": 1 } })
    );
    assert!(
        agent.get("lifecycle").is_none(),
        "only applications get a drain delay"
    );
}

#[test]
fn http_hooks_go_through_an_unguessable_path() {
    let pod = injected(&one_container(json!({
        "lifecycle": {
            "postStart": { "httpGet": { "port": 8080, "path": "/hello" } },
            "preStop": { "exec": { "command": ["bye"] } },
        },
    })))
    .pod;
    let lifecycle = &pod["spec"]["containers"][0]["lifecycle"];
    let path = format!("/hook/{TOKEN}/app/postStart");
    assert_eq!(lifecycle["postStart"]["httpGet"]["path"], path);
    assert_eq!(lifecycle["postStart"]["httpGet"]["port"], 15190);
    assert_eq!(
        lifecycle["preStop"],
        json!({ "exec": { "command": ["bye"] } })
    );
    let hooks: Value = serde_json::from_str(env_of(&pod, "WEFT_HOOKS")).unwrap();
    assert_eq!(
        hooks[format!("{TOKEN}/app/postStart")],
        json!({ "httpGet": { "port": 8080, "path": "/hello", "scheme": "HTTP" } })
    );
    assert_eq!(TOKEN.to_string().len(), 32);
}

#[test]
fn pre_stop_sleep_is_limited_to_half_grace_period() {
    let sleep = |grace: Value, delay: Option<&str>| {
        let mut pod = one_container(json!({}));
        if !grace.is_null() {
            pod["spec"]["terminationGracePeriodSeconds"] = grace;
        }
        if let Some(delay) = delay {
            pod["metadata"]["annotations"] = json!({ labels::DRAIN_DELAY: delay });
        }
        let injected = injected(&pod);
        let lifecycle = &injected.pod["spec"]["containers"][0]["lifecycle"];
        (
            lifecycle["preStop"]["sleep"]["seconds"].as_i64(),
            injected.warnings.len(),
        )
    };
    assert_eq!(sleep(Value::Null, None), (Some(3), 0));
    assert_eq!(sleep(json!(5), None), (Some(2), 0));
    assert_eq!(sleep(json!(1), None), (None, 0));
    assert_eq!(sleep(json!(0), None), (None, 0));
    assert_eq!(sleep(Value::Null, Some("0")), (None, 0));
    assert_eq!(sleep(Value::Null, Some("10")), (Some(10), 0));
    assert_eq!(sleep(json!(10), Some("60")), (Some(5), 1));
}
