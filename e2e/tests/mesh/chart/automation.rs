//! Rights and switches of releases and experiments in the chart.

use std::collections::BTreeSet;

use anyhow::Context as _;
use e2e::harness::{Outcome, mesh};
use serde_json::Value;

use super::{of_kind, refused, rendered};

/// Every right of a role, as `verb resource`.
pub(super) fn rights(objects: &[Value], role: &str) -> BTreeSet<String> {
    let roles = of_kind(objects, "ClusterRole").into_iter();
    let mut roles = roles.filter(|one| one["metadata"]["name"] == role);
    let rules = roles.next().map(|role| role["rules"].clone());
    let mut rights = BTreeSet::new();
    for rule in rules.iter().filter_map(Value::as_array).flatten() {
        for resource in rule["resources"].as_array().into_iter().flatten() {
            for verb in rule["verbs"].as_array().into_iter().flatten() {
                let (verb, resource) = (verb.as_str(), resource.as_str());
                let right = verb.zip(resource).map(|(v, r)| format!("{v} {r}"));
                rights.extend(right);
            }
        }
    }
    rights
}

/// The value of a variable of a part's container.
pub(super) fn variable(objects: &[Value], part: &str, name: &str) -> Option<String> {
    let deployments = of_kind(objects, "Deployment").into_iter();
    let mut deployments = deployments.filter(|one| one["metadata"]["name"] == part);
    let container = &deployments.next()?["spec"]["template"]["spec"]["containers"][0];
    let mut env = container["env"].as_array()?.iter();
    let variable = env.find(|variable| variable["name"] == name)?;
    variable["value"].as_str().map(ToOwned::to_owned)
}

#[test]
fn automation_switches_reach_parts_and_their_rights() -> Outcome {
    let on = rendered(&[])?;
    let off = rendered(&[
        "automation.releases.enabled=false",
        "automation.faults.enabled=false",
    ])?;
    for (part, name) in [
        ("weft-controller", "WEFT_RELEASES"),
        ("weft-controller", "WEFT_FAULTS"),
        ("weft-injector", "WEFT_RELEASES"),
    ] {
        assert_eq!(variable(&on, part, name).as_deref(), Some("true"), "{name}");
        assert_eq!(
            variable(&off, part, name).as_deref(),
            Some("false"),
            "{name}"
        );
    }
    // Gates that are shut are opened, also where releases have been switched off.
    for right in ["patch pods/status", "list replicasets", "get deployments"] {
        assert!(rights(&off, "weft-controller").contains(right), "{right}");
    }
    for (role, right) in [
        ("weft-injector", "list canaryreleases"),
        ("weft-fault-operator", "create faultexperiments"),
    ] {
        assert!(rights(&on, role).contains(right), "{role}: {right}");
        assert!(!rights(&off, role).contains(right), "{role}: {right}");
    }
    for (setting, field) in [
        ("automation.releases.enabled=maybe", "enabled"),
        ("automation.fault.enabled=false", "fault"),
    ] {
        let error = refused(&[setting])?;
        assert!(error.contains(field), "{setting}: {error}");
    }
    // Values of a chart that had no automation switch nothing off.
    let old = rendered(&["automation=null"])?;
    let releases = variable(&old, "weft-controller", "WEFT_RELEASES");
    assert_eq!(releases.as_deref(), Some("true"));
    Ok(())
}

#[test]
fn disabled_gateway_api_leaves_no_right() -> Outcome {
    let on = rendered(&[])?;
    let off = rendered(&["gatewayApi.enabled=false"])?;
    let of_routes = |objects: &[Value]| {
        let roles = of_kind(objects, "ClusterRole").into_iter();
        let names = roles.filter_map(|role| role["metadata"]["name"].as_str());
        let rights = names.flat_map(|name| rights(objects, name));
        let about = ["grpcroutes", "referencegrants", "httproutes"];
        let found: BTreeSet<String> = rights
            .filter(|right| about.iter().any(|kind| right.contains(kind)))
            .collect();
        found
    };
    let switch = |objects: &[Value]| variable(objects, "weft-controller", "WEFT_GATEWAY_API");
    assert_eq!(switch(&on).as_deref(), Some("true"));
    assert_eq!(switch(&off).as_deref(), Some("false"));
    let rights = of_routes(&on);
    for right in [
        "watch grpcroutes",
        "list referencegrants",
        "patch httproutes/status",
    ] {
        assert!(rights.contains(right), "{right}: {rights:?}");
    }
    // Routes are read: of them the mesh writes statuses alone.
    assert!(!rights.contains("patch httproutes"), "{rights:?}");
    assert_eq!(of_routes(&off), BTreeSet::new());
    let error = refused(&["gatewayApi.enable=false"])?;
    assert!(error.contains("enable"), "{error}");
    let old = rendered(&["gatewayApi=null"])?;
    assert_eq!(switch(&old).as_deref(), Some("true"));
    Ok(())
}

#[test]
fn experiments_are_no_right_of_editors() -> Outcome {
    let objects = rendered(&[])?;
    let edit = rights(&objects, "weft-smi-edit");
    assert!(edit.contains("create canaryreleases"), "{edit:?}");
    for role in of_kind(&objects, "ClusterRole") {
        let name = role["metadata"]["name"].as_str().unwrap_or_default();
        let labels = role["metadata"]["labels"].to_string();
        let rights = rights(&objects, name);
        let is_aggregated = labels.contains("aggregate-to-");
        let mut harming = rights.iter().filter(|one| one.contains("faultexperiments"));
        assert!(!is_aggregated || harming.next().is_none(), "{name}");
        // Statuses are what the mesh decided: only its controller writes them.
        let mut statuses = rights.iter().filter(|one| one.contains("s/status"));
        let own = ["weft-controller", "weft-leave"].contains(&name);
        assert!(own || statuses.next().is_none(), "{name}: {rights:?}");
    }
    Ok(())
}

/// The policy that holds the mesh to its one condition names every account that may write it.
#[test]
fn every_writer_of_pod_status_is_held_by_policy() -> Outcome {
    let objects = rendered(&[])?;
    let policies = of_kind(&objects, "ValidatingAdmissionPolicy").into_iter();
    let mut policies = policies.filter(|one| one["metadata"]["name"] == "weft-pod-status");
    let policy = policies.next().context("no policy weft-pod-status")?;
    let held = policy["spec"]["matchConditions"][0]["expression"].to_string();
    let mut writers = 0;
    for role in of_kind(&objects, "ClusterRole") {
        let name = role["metadata"]["name"].as_str().unwrap_or_default();
        if !rights(&objects, name).contains("patch pods/status") {
            continue;
        }
        writers += 1;
        for binding in of_kind(&objects, "ClusterRoleBinding") {
            if binding["roleRef"]["name"] != name {
                continue;
            }
            for subject in binding["subjects"].as_array().into_iter().flatten() {
                let account = subject["name"].as_str().unwrap_or_default();
                let user = format!("'system:serviceaccount:{}:{account}'", mesh::NAMESPACE);
                assert!(held.contains(&user), "{user} is not in {held}");
            }
        }
    }
    assert_eq!(writers, 2);
    Ok(())
}
