//! Pods that say on which nodes they run, by the labels of nodes or by their deprecated names.
//!
//! Claims: attack-117

use super::*;

/// A pod with this selector, and these terms of required affinity unless they are null.
fn on_nodes(selector: Value, terms: Value) -> Value {
    let mut pod = one_container(json!({}));
    pod["spec"]["nodeSelector"] = selector;
    if !terms.is_null() {
        let affinity = &mut pod["spec"]["affinity"]["nodeAffinity"];
        affinity["requiredDuringSchedulingIgnoredDuringExecution"]["nodeSelectorTerms"] = terms;
    }
    pod
}

fn term(key: &str, operator: &str, values: &[&str]) -> Value {
    json!({ "matchExpressions": [{ "key": key, "operator": operator, "values": values }] })
}

// Claims: C9
#[test]
fn pod_runs_where_its_proxy_can() {
    let (arch, beta) = ("kubernetes.io/arch", "beta.kubernetes.io/arch");
    let mut pods = vec![
        on_nodes(json!(null), json!(null)),
        on_nodes(json!({ "disk": "ssd" }), json!(null)),
    ];
    for label in [arch, beta] {
        pods.extend([
            on_nodes(json!({ label: "amd64" }), json!(null)),
            on_nodes(
                json!({}),
                json!([
                    term(label, "In", &["arm64"]),
                    term(label, "In", &["arm64", "amd64"])
                ]),
            ),
            on_nodes(json!({}), json!([term(label, "NotIn", &["arm64"])])),
        ]);
    }
    for pod in pods {
        let nodes = injected(&pod).pod["spec"]["nodeSelector"].clone();
        assert_eq!(nodes[arch], "amd64", "{pod}");
        for theirs in ["disk", beta] {
            assert_eq!(nodes[theirs], pod["spec"]["nodeSelector"][theirs], "{pod}");
        }
    }
}

// Claims: C9
#[test]
fn pod_is_refused_where_its_proxy_could_only_fail() {
    let (arch, beta) = ("kubernetes.io/arch", "beta.kubernetes.io/arch");
    let affinity = "spec.affinity.nodeAffinity";
    for (label, other) in [(arch, beta), (beta, arch)] {
        for (pod, field) in [
            (
                on_nodes(json!({ label: "arm64" }), json!(null)),
                format!("spec.nodeSelector[{label}]"),
            ),
            (
                on_nodes(json!({}), json!([term(label, "In", &["arm64", "s390x"])])),
                affinity.to_owned(),
            ),
            (
                on_nodes(
                    json!({}),
                    json!([
                        term(label, "NotIn", &["amd64"]),
                        term(other, "In", &["arm64"])
                    ]),
                ),
                affinity.to_owned(),
            ),
        ] {
            let message = refusal(&pod);
            assert!(message.starts_with(&field), "{message}");
            for words in ["built for amd64", "weft.dev/inject=disabled"] {
                assert!(message.contains(words), "{message}");
            }
        }
    }
}

// Claims: C9
#[test]
fn windows_pod_is_skipped_naming_its_node_field() {
    for label in ["kubernetes.io/os", "beta.kubernetes.io/os"] {
        for (pod, field) in [
            (
                on_nodes(json!({ label: "windows" }), json!(null)),
                format!("spec.nodeSelector[{label}]"),
            ),
            (
                on_nodes(json!({}), json!([term(label, "In", &["windows"])])),
                "spec.affinity.nodeAffinity".to_owned(),
            ),
        ] {
            let outcome = run(&pod);
            let Ok(InjectionOutcome::Skipped {
                reason: Skip::Windows,
                warning: Some(warning),
            }) = &outcome
            else {
                panic!("{label}: {outcome:?}");
            };
            assert!(warning.contains(&field), "{warning}");
        }
        let linux = on_nodes(json!({ label: "linux" }), json!(null));
        assert!(
            matches!(run(&linux), Ok(InjectionOutcome::Injected(_))),
            "{label}"
        );
    }
}
