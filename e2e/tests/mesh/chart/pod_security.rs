//! What the chart must render for API servers to admit its pods: Pod Security, and quotas of priorities.

use anyhow::Context as _;
use e2e::harness::Outcome;
use serde_json::{Value, json};

use super::automation::variable;
use super::{hook, of_kind, refused, rendered};

/// An API server may enforce `baseline` where no level is set, and then refuses uid 0
/// with `NET_ADMIN`.
// Claims: attack-99
#[test]
fn helm_test_namespace_admits_meshed_init_container() -> Outcome {
    let objects = rendered(&[])?;
    let namespaces = of_kind(&objects, "Namespace").into_iter();
    let mut namespaces = namespaces.filter(|one| one["metadata"]["name"] == "weft-test");
    let namespace = namespaces.next().context("no namespace for the test")?;
    let labels = &namespace["metadata"]["labels"];
    assert_eq!(
        labels["pod-security.kubernetes.io/enforce"], "privileged",
        "{labels}"
    );
    // Control: it is still made by the test, with the labels of everything else.
    assert_eq!(hook(namespace, "helm.sh/hook"), Some("test"));
    assert_eq!(labels["app.kubernetes.io/component"], "test", "{labels}");
    Ok(())
}

const BY_NODE: &str = "capture.mode=node";

#[test]
fn node_agent_has_exactly_the_privileges_it_needs() -> Outcome {
    let objects = rendered(&[BY_NODE])?;
    let sets = of_kind(&objects, "DaemonSet");
    let set = sets.first().context("no DaemonSet")?;
    assert_eq!(set["metadata"]["name"], "weft-node");
    let update = &set["spec"]["updateStrategy"]["rollingUpdate"];
    assert_eq!(*update, json!({"maxSurge": 1, "maxUnavailable": 0}));
    let pod = &set["spec"]["template"]["spec"];
    assert_eq!(pod["priorityClassName"], "system-node-critical");
    assert_eq!(pod["automountServiceAccountToken"], false);
    assert_eq!(pod["tolerations"], json!([{"operator": "Exists"}]));
    for of_the_node in ["hostNetwork", "hostPID", "hostIPC", "initContainers"] {
        assert_eq!(pod[of_the_node], Value::Null, "{of_the_node}");
    }
    let path = json!({"path": "/var/run/netns", "type": "DirectoryOrCreate"});
    assert_eq!(pod["volumes"], json!([{"name": "netns", "hostPath": path}]));
    let container = &pod["containers"][0];
    let mount = &container["volumeMounts"][0];
    assert_eq!(
        (&mount["readOnly"], &mount["mountPropagation"]),
        (&json!(true), &json!("HostToContainer"))
    );
    assert_eq!(
        container["securityContext"],
        json!({
            "privileged": false,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"], "add": ["SYS_ADMIN", "NET_ADMIN"]},
        })
    );
    // Nothing in the cluster is its to read or write.
    for kind in ["RoleBinding", "ClusterRoleBinding"] {
        let bindings = of_kind(&objects, kind);
        let mut subjects = bindings.iter().map(|one| one["subjects"].to_string());
        assert!(subjects.all(|all| !all.contains("weft-node")), "{kind}");
    }
    let mode = variable(&objects, "weft-injector", "WEFT_CAPTURE_MODE");
    assert_eq!(mode.as_deref(), Some("node"));
    Ok(())
}

#[test]
fn capture_values_reach_the_agent_and_init_has_none() -> Outcome {
    let set = rendered(&[
        BY_NODE,
        "capture.node.netnsDir=/run/netns",
        "capture.node.seLinuxOptions.type=spc_t",
        "capture.node.tolerations[0].key=gpu",
        "image.architectures={arm64,amd64}",
        "priorityClassName=",
    ])?;
    let sets = of_kind(&set, "DaemonSet");
    let pod = &sets.first().context("no DaemonSet")?["spec"]["template"]["spec"];
    assert_eq!(pod["volumes"][0]["hostPath"]["path"], "/run/netns");
    assert_eq!(pod["tolerations"][0]["key"], "gpu");
    assert_eq!(pod["priorityClassName"], Value::Null);
    let required = "requiredDuringSchedulingIgnoredDuringExecution";
    let terms = &pod["affinity"]["nodeAffinity"][required]["nodeSelectorTerms"];
    let built = json!(["arm64", "amd64"]);
    assert_eq!(terms[0]["matchExpressions"][0]["values"], built);
    let context = &pod["containers"][0]["securityContext"];
    assert_eq!(context["seLinuxOptions"], json!({"type": "spc_t"}));
    assert!(of_kind(&set, "ResourceQuota").is_empty());
    // By default, and with the values of a chart that had no capture, all is as it was.
    for setting in ["capture.mode=init", "capture=null"] {
        let objects = rendered(&[setting, "networkPolicy.enabled=true"])?;
        assert!(
            !json!(objects).to_string().contains("weft-node"),
            "{setting}"
        );
        let mode = variable(&objects, "weft-injector", "WEFT_CAPTURE_MODE");
        assert_eq!(mode.as_deref(), Some("init"), "{setting}");
    }
    for (setting, field) in [
        ("capture.mode=cni", "mode"),
        ("capture.node.netnsDir=run/netns", "netnsDir"),
        ("capture.node.netnsDir=/run/../etc", "netnsDir"),
        ("capture.node.seLinuxOptions.kind=x", "kind"),
        ("capture.nodes.netnsDir=/x", "nodes"),
    ] {
        let error = refused(&[setting])?;
        assert!(error.contains(field), "{setting}: {error}");
    }
    Ok(())
}

// Claims: C9
#[test]
fn system_priority_class_comes_with_admitting_quota() -> Outcome {
    let class = "system-cluster-critical";
    let objects = rendered(&[])?;
    let quotas = of_kind(&objects, "ResourceQuota");
    assert_eq!(quotas.len(), 1);
    let scope = &quotas[0]["spec"]["scopeSelector"]["matchExpressions"][0];
    assert_eq!(
        (&scope["scopeName"], &scope["values"][0]),
        (&"PriorityClass".into(), &class.into())
    );
    for other in ["priorityClassName=", "priorityClassName=high"] {
        let objects = rendered(&[other])?;
        assert!(of_kind(&objects, "ResourceQuota").is_empty(), "{other}");
    }
    Ok(())
}
