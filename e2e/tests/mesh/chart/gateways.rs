//! Rights for Gateways in the chart: none where they are switched off, and where they are run what
//! makes pods or reads a key in the namespaces that are named, and in no other.

use std::collections::BTreeSet;

use e2e::harness::{Outcome, gateway_api, mesh};
use serde_json::Value;

use super::{automation::variable, of_kind, refused, rendered};

const ON: &str = "gateway.enabled=true";
const EDGE: &str = "gateway.namespaces={edge,edge-2}";
/// What no ClusterRole may write or read for Gateways.
const BY_NAMESPACE: [&str; 4] = ["deployments", "services", "serviceaccounts", "secrets"];
const WRITING: [&str; 6] = [
    "create",
    "update",
    "patch",
    "delete",
    "deletecollection",
    "*",
];

/// `verb resource` of every role of a kind, with the namespace and the name of the role.
fn rights(objects: &[Value], kind: &str) -> BTreeSet<(String, String, String)> {
    let mut found = BTreeSet::new();
    for role in of_kind(objects, kind) {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &role["metadata"];
        let of = (text(&metadata["namespace"]), text(&metadata["name"]));
        for rule in role["rules"].as_array().into_iter().flatten() {
            for resource in rule["resources"].as_array().into_iter().flatten() {
                for verb in rule["verbs"].as_array().into_iter().flatten() {
                    let right = format!("{} {}", text(verb), text(resource));
                    found.insert((of.0.clone(), of.1.clone(), right));
                }
            }
        }
    }
    found
}

// Claims: gateways-6
#[test]
fn disabled_gateways_leave_no_right_and_no_class() -> Outcome {
    mesh::installed()?;
    gateway_api::installed()?;
    let off = rendered(&[])?;
    let on = rendered(&[ON, EDGE])?;
    for kind in ["GatewayClass", "Gateway"] {
        assert!(of_kind(&off, kind).is_empty(), "{kind}");
    }
    assert_eq!(of_kind(&on, "GatewayClass").len(), 1);
    let about = |objects: &[Value]| -> BTreeSet<String> {
        let all = [rights(objects, "ClusterRole"), rights(objects, "Role")];
        let rights = all.into_iter().flatten().map(|(_, _, right)| right);
        rights
            .filter(|right| right.contains("gateway") || right.contains("tlsroutes"))
            .collect()
    };
    assert_eq!(about(&off), BTreeSet::new());
    for right in ["watch gateways", "patch gateways/status", "list tlsroutes"] {
        assert!(about(&on).contains(right), "{right}: {:?}", about(&on));
    }
    // A Gateway is its owner's: the mesh writes its status alone.
    for right in ["patch gateways", "update gateways", "delete gateways"] {
        assert!(!about(&on).contains(right), "{right}");
    }
    let switch =
        |objects: &[Value]| variable(objects, "weft-controller", "WEFT_GATEWAY_NAMESPACES");
    assert_eq!(switch(&off), None);
    assert_eq!(switch(&on).as_deref(), Some("edge,edge-2"));
    Ok(())
}

// Claims: gateways-6
#[test]
fn gateway_rights_stand_in_named_namespaces_alone() -> Outcome {
    mesh::installed()?;
    gateway_api::installed()?;
    let (off, on) = (rendered(&[])?, rendered(&[ON, EDGE])?);
    // What is not bound to a namespace gets no right to write or to read a key with Gateways.
    let new = |kind: &str| -> Vec<(String, String, String)> {
        let before = rights(&off, kind);
        let all = rights(&on, kind).into_iter();
        all.filter(|right| !before.contains(right)).collect()
    };
    for (_, role, right) in new("ClusterRole") {
        let (verb, resource) = right.split_once(' ').unwrap_or_default();
        let is_kept = BY_NAMESPACE.contains(&resource) || resource.contains('*');
        assert!(!is_kept, "{role}: {right}");
        let writes = WRITING.contains(&verb) && !resource.ends_with("/status");
        assert!(!writes, "{role}: {right}");
    }
    let mut namespaces = BTreeSet::new();
    for (namespace, role, right) in new("Role") {
        let (verb, resource) = right.split_once(' ').unwrap_or_default();
        assert!(BY_NAMESPACE.contains(&resource), "{role}: {right}");
        // Of Secrets one at a time, by its name: no list shows which there are.
        let is_right = resource != "secrets" || verb == "get";
        // Objects of a Gateway that is another class's by now are deleted, each by its name.
        assert!(
            is_right && !["deletecollection", "*"].contains(&verb),
            "{role}: {right}"
        );
        namespaces.insert(namespace);
    }
    assert_eq!(namespaces, ["edge", "edge-2"].map(String::from).into());
    let wrong: [(&[&str], &str); 5] = [
        (&[ON], "namespaces"),
        (&[ON, "gateway.namespaces={}"], "namespaces"),
        (&[ON, EDGE, "gateway.namespace=edge"], "namespace"),
        (&["gateway.enabled=maybe"], "enabled"),
        (
            &[ON, EDGE, "gatewayApi.enabled=false"],
            "gatewayApi.enabled",
        ),
    ];
    for (settings, field) in wrong {
        let error = refused(settings)?;
        assert!(error.contains(field), "{settings:?}: {error}");
    }
    Ok(())
}
