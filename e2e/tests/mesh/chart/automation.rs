//! Rights and switches in the chart: of releases, experiments, and the certificate authority.

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

/// The controller reads the Secret that is named, and no other one besides its own.
#[test]
fn issuer_secret_is_named_to_controller_with_its_rights() -> Outcome {
    let readable = |objects: &[Value], resource: &str| {
        let mut names = BTreeSet::new();
        let roles = of_kind(objects, "Role").into_iter();
        for role in roles.filter(|role| role["metadata"]["name"] == "weft-controller") {
            let rules = role["rules"].as_array().into_iter().flatten();
            for rule in rules.filter(|rule| rule["resources"][0] == resource) {
                let named = rule["resourceNames"].as_array().into_iter().flatten();
                names.extend(named.filter_map(Value::as_str).map(ToOwned::to_owned));
            }
        }
        names
    };
    let names = |all: &[&str]| -> BTreeSet<String> {
        let all = all.iter();
        all.map(|name| (*name).to_owned()).collect()
    };
    let of_controller = |objects: &[Value], name: &str| variable(objects, "weft-controller", name);
    // Values of a chart that had no issuer are those of the generated one.
    for settings in [&[][..], &["identity.issuer=null", "identity.rotation=null"]] {
        let objects = rendered(settings)?;
        assert_eq!(readable(&objects, "secrets"), names(&["weft-ca"]));
        assert!(readable(&objects, "configmaps").is_empty());
        let source = of_controller(&objects, "WEFT_ISSUER_SOURCE");
        assert_eq!(source.as_deref(), Some("generated"), "{settings:?}");
        let settle = of_controller(&objects, "WEFT_ROTATION_SETTLE");
        assert_eq!(settle.as_deref(), Some("120s"), "{settings:?}");
    }
    let own = rendered(&[
        "identity.issuer.source=secret",
        "identity.issuer.secretName=mesh-issuer",
        "identity.issuer.roots.configMap=corporate-roots",
    ])?;
    let secrets = names(&["mesh-issuer", "weft-ca"]);
    assert_eq!(readable(&own, "secrets"), secrets);
    assert_eq!(readable(&own, "configmaps"), names(&["corporate-roots"]));
    for (name, value) in [
        ("WEFT_ISSUER_SOURCE", "secret"),
        ("WEFT_ISSUER_SECRET", "mesh-issuer"),
        ("WEFT_ISSUER_ROOTS", "corporate-roots"),
        ("WEFT_ISSUER_ROOTS_KEY", "ca.crt"),
    ] {
        assert_eq!(of_controller(&own, name).as_deref(), Some(value), "{name}");
    }
    for (settings, field) in [
        (&["identity.issuer.source=secret"][..], "secretName"),
        (&["identity.issuer.source=vault"], "source"),
        (&["identity.rootLife=1h"], "rootLife"),
        (&["identity.rotation.settle=1s"], "settle"),
    ] {
        let error = refused(settings)?;
        assert!(error.contains(field), "{settings:?}: {error}");
    }
    Ok(())
}

/// The controller reads a folder without a right to another Secret.
#[test]
fn issuer_folder_is_named_and_mounted_without_rights() -> Outcome {
    let objects = rendered(&[
        "identity.issuer.source=files",
        "identity.issuer.directory=/issuer",
        "identity.issuer.roots.configMap=corporate-roots",
        "controller.extraVolumes[0].name=issuer",
        "controller.extraVolumes[0].secret.secretName=mesh-issuer",
        "controller.extraVolumeMounts[0].name=issuer",
        "controller.extraVolumeMounts[0].mountPath=/issuer",
    ])?;
    let of_controller = |name: &str| variable(&objects, "weft-controller", name);
    assert_eq!(
        of_controller("WEFT_ISSUER_SOURCE").as_deref(),
        Some("files")
    );
    let directory = of_controller("WEFT_ISSUER_DIRECTORY");
    assert_eq!(directory.as_deref(), Some("/issuer"));
    let roles = of_kind(&objects, "Role").into_iter();
    let mut roles = roles.filter(|role| role["metadata"]["name"] == "weft-controller");
    let rights = roles.next().context("no Role of the controller")?["rules"].to_string();
    assert!(rights.contains("corporate-roots"), "{rights}");
    assert!(!rights.contains("mesh-issuer"), "{rights}");
    for settings in [
        &["identity.issuer.source=files"][..],
        &[
            "identity.issuer.source=files",
            "identity.issuer.directory=issuer",
        ],
    ] {
        let error = refused(settings)?;
        assert!(error.contains("directory"), "{settings:?}: {error}");
    }
    Ok(())
}

/// A rotation or a Revocation concerns the whole mesh: editors of namespaces only see it.
#[test]
fn rotation_and_revocation_are_rights_that_are_bound_nowhere() -> Outcome {
    let objects = rendered(&[])?;
    let patch = "patch certificateauthorities";
    assert!(rights(&objects, "weft-incident").contains(patch));
    // `kubectl get wca`, and `kubectl wait wca/weft`.
    for verb in ["get", "list", "watch"] {
        let read = format!("{verb} certificateauthorities");
        assert!(rights(&objects, "weft-incident").contains(&read), "{read}");
    }
    assert!(!rights(&objects, "weft-smi-edit").contains(patch));
    assert!(rights(&objects, "weft-smi-view").contains("get certificateauthorities"));
    let create = "create revocations";
    assert!(rights(&objects, "weft-incident").contains(create));
    assert!(!rights(&objects, "weft-smi-edit").contains(create));
    assert!(rights(&objects, "weft-smi-view").contains("get revocations"));
    let bound = of_kind(&objects, "ClusterRoleBinding").into_iter();
    let mut bound = bound.chain(of_kind(&objects, "RoleBinding"));
    assert!(bound.all(|binding| binding["roleRef"]["name"] != "weft-incident"));
    Ok(())
}
