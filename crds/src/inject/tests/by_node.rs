//! Pods whose node redirects their traffic: nothing of theirs has a privilege.

use super::*;

fn by_node() -> Settings {
    Settings {
        capture: CaptureMode::Node,
        ..settings()
    }
}

fn injected_by(settings: &Settings, pod: &Value) -> Injected {
    match inject(pod, &meshed(), settings, TOKEN) {
        Ok(InjectionOutcome::Injected(injected)) => *injected,
        other => panic!("{other:?}"),
    }
}

#[test]
fn containers_of_captured_pod_pass_level_restricted() {
    let mut pod = one_container(json!({}));
    pod["metadata"]["annotations"] = json!({ labels::SKIP_OUTBOUND_PORTS: "443" });
    let pod = injected_by(&by_node(), &pod).pod;
    let init = pod["spec"]["initContainers"].as_array().unwrap();
    assert_eq!(init.len(), 2);
    for container in init {
        let context = &container["securityContext"];
        assert_eq!(context["runAsNonRoot"], true, "{context}");
        assert_ne!(context["runAsUser"], 0, "{context}");
        assert_eq!(context["allowPrivilegeEscalation"], false, "{context}");
        assert_eq!(context["capabilities"], json!({ "drop": ["ALL"] }));
        assert_eq!(context["seccompProfile"]["type"], "RuntimeDefault");
    }
    let capture = &init[0];
    // Neither the proxy's user, which no rule redirects, nor a known one.
    assert_eq!(capture["securityContext"]["runAsUser"], 65534);
    assert_eq!(capture["securityContext"]["runAsGroup"], 65534);
    let args = json!(["capture", "--by-node", "--skip-outbound-ports=443"]);
    assert_eq!(capture["args"], args);
    let node = &capture["env"][1];
    assert_eq!(node["name"], "WEFT_NODE_NAME");
    assert_eq!(node["valueFrom"]["fieldRef"]["fieldPath"], "spec.nodeName");
}

#[test]
fn change_of_mode_leaves_no_privilege_behind() {
    let pod = one_container(json!({}));
    let first = injected_by(&settings(), &pod).pod;
    let changed = injected_by(&by_node(), &first).pod;
    assert_eq!(changed, injected_by(&by_node(), &pod).pod);
    assert!(injected_by(&by_node(), &changed).patch.0.is_empty());
    assert_eq!(injected_by(&settings(), &changed).pod, first);
}

#[test]
fn runtime_class_is_warned_of_only_by_node() {
    let mut pod = one_container(json!({}));
    let warned = |pod: &Value, settings: &Settings| injected_by(settings, pod).warnings;
    assert!(warned(&pod, &by_node()).is_empty());
    pod["spec"]["runtimeClassName"] = json!("gvisor");
    let warnings = warned(&pod, &by_node());
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    let words = "spec.runtimeClassName is gvisor";
    assert!(warnings[0].contains(words), "{warnings:?}");
    assert!(warned(&pod, &settings()).is_empty());
}
