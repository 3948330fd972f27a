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

/// As `run`, where the proxy's image is for both processors.
fn run_with_both(pod: &Value) -> Result<InjectionOutcome, Refusal> {
    let architectures = "arm64, amd64".parse().unwrap();
    let settings = Settings {
        architectures,
        ..settings()
    };
    inject(pod, &meshed(), &settings, TOKEN)
}

fn injected_with_both(pod: &Value) -> Value {
    match run_with_both(pod) {
        Ok(InjectionOutcome::Injected(injected)) => injected.pod,
        other => panic!("not injected: {other:?}"),
    }
}

#[test]
fn two_architectures_are_required_in_every_node_term() {
    let arch = "kubernetes.io/arch";
    let both = json!({ "key": arch, "operator": "In", "values": ["amd64", "arm64"] });
    let ssd = json!({ "key": "disk", "operator": "In", "values": ["ssd"] });
    let gpu = json!({ "key": "gpu", "operator": "Exists" });
    let field = json!({ "key": "metadata.name", "operator": "In", "values": ["node-1"] });
    for (terms, wanted) in [
        (json!(null), json!([{ "matchExpressions": [both] }])),
        (
            // Either of them would do for the scheduler.
            json!([{ "matchExpressions": [ssd] }, { "matchExpressions": [gpu] }]),
            json!([{ "matchExpressions": [ssd, both] }, { "matchExpressions": [gpu, both] }]),
        ),
        (
            // As the DaemonSet controller writes it.
            json!([{ "matchFields": [field] }]),
            json!([{ "matchFields": [field], "matchExpressions": [both] }]),
        ),
        (
            // An empty one matches no node, and one more expression would change that.
            json!([{}, { "matchExpressions": null, "matchFields": [] }]),
            json!([{}, { "matchExpressions": null, "matchFields": [] }]),
        ),
        (
            json!([
                term(arch, "In", &["arm64"]),
                term(arch, "NotIn", &["s390x"])
            ]),
            json!([
                term(arch, "In", &["arm64"]),
                { "matchExpressions": [
                    { "key": arch, "operator": "NotIn", "values": ["s390x"] }, both
                ] },
            ]),
        ),
    ] {
        let pod = on_nodes(json!({ "disk": "ssd" }), terms);
        let once = injected_with_both(&pod);
        let nodes = &once["spec"]["affinity"]["nodeAffinity"];
        let found = &nodes["requiredDuringSchedulingIgnoredDuringExecution"];
        assert_eq!(found["nodeSelectorTerms"], wanted, "{pod}");
        assert_eq!(once["spec"]["nodeSelector"], json!({ "disk": "ssd" }));
        assert_eq!(injected_with_both(&once), once, "{pod}");
    }
}

#[test]
fn pod_that_selects_a_built_architecture_keeps_its_affinity() {
    for label in ["kubernetes.io/arch", "beta.kubernetes.io/arch"] {
        for arch in ["amd64", "arm64"] {
            let pod = on_nodes(json!({ label: arch }), json!(null));
            let spec = injected_with_both(&pod)["spec"].clone();
            assert_eq!(spec["nodeSelector"], json!({ label: arch }));
            assert_eq!(spec.get("affinity"), None, "{pod}");
        }
    }
}

#[test]
fn pod_without_a_built_architecture_is_refused_by_all() {
    let label = "kubernetes.io/arch";
    for (pod, found) in [
        (on_nodes(json!({ label: "s390x" }), json!(null)), "s390x"),
        (
            on_nodes(
                json!({}),
                json!([term(label, "NotIn", &["amd64", "arm64", "ppc64le"])]),
            ),
            "anything but amd64, arm64, ppc64le",
        ),
        (
            // Two expressions of one term count together.
            on_nodes(
                json!({}),
                json!([{ "matchExpressions": [
                    { "key": label, "operator": "NotIn", "values": ["amd64"] },
                    { "key": label, "operator": "NotIn", "values": ["arm64"] },
                ] }]),
            ),
            "anything but amd64",
        ),
    ] {
        let message = run_with_both(&pod)
            .expect_err("must be refused")
            .to_string();
        for words in [found, "built for amd64 and arm64"] {
            assert!(message.contains(words), "{message}");
        }
    }
    // The control: a term that leaves one of them.
    let pod = on_nodes(json!({}), json!([term(label, "NotIn", &["amd64"])]));
    assert!(run_with_both(&pod).is_ok());
}

#[test]
fn architectures_are_read_in_one_order_or_refused() {
    let read = |text: &str| text.parse::<Architectures>();
    assert_eq!(read("arm64,amd64"), read("amd64, arm64"));
    assert_eq!(read("amd64"), Ok(Architectures::default()));
    for text in ["", "amd64,", "x86_64", "amd64 arm64"] {
        let error = read(text).unwrap_err().to_string();
        assert!(error.contains("one of amd64, arm64"), "{error}");
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
