//! Values, rights and switches of calls that leave the mesh.

use e2e::harness::Outcome;
use serde_json::{Value, json};

use super::automation::{rights, variable};
use super::{refused, rendered};

fn mode(objects: &[Value]) -> [Option<String>; 2] {
    let of = |name: &str| variable(objects, "weft-controller", name);
    [of("WEFT_EGRESS_DEFAULT"), of("WEFT_EGRESS_PODS_MAY_LOOSEN")]
}

#[test]
fn egress_values_reach_the_controller_and_others_are_refused() -> Outcome {
    let text = |text: &str| Some(text.to_owned());
    assert_eq!(mode(&rendered(&[])?), [text("allow"), text("false")]);
    let closed = rendered(&["egress.default=deny", "egress.podsMayLoosen=true"])?;
    assert_eq!(mode(&closed), [text("deny"), text("true")]);
    for (setting, field) in [
        ("egress.default=open", "default"),
        ("egress.podMayLoosen=true", "podMayLoosen"),
    ] {
        let error = refused(&[setting])?;
        assert!(error.contains(field), "{setting}: {error}");
    }
    // Values of a chart that had no egress: the controller's own default is allow.
    assert_eq!(mode(&rendered(&["egress=null"])?), [None, None]);
    Ok(())
}

#[test]
fn external_services_are_read_admitted_and_edited() -> Outcome {
    let objects = rendered(&[])?;
    let controller = rights(&objects, "weft-controller");
    for right in ["watch externalservices", "patch externalservices/status"] {
        assert!(controller.contains(right), "{right}");
    }
    // The controller reads what an object names in caRef, and lists no ConfigMap but its own.
    assert!(controller.contains("get configmaps"), "{controller:?}");
    let edit = rights(&objects, "weft-smi-edit");
    assert!(edit.contains("create externalservices"), "{edit:?}");
    let mut webhooks = objects
        .iter()
        .filter(|one| one["metadata"]["name"] == "weft-validator")
        .filter_map(|one| one["webhooks"].as_array())
        .flatten()
        .filter_map(|webhook| webhook["rules"].as_array())
        .flatten();
    let is_judged = webhooks.any(|rule| {
        let resources = rule["resources"].as_array();
        resources.is_some_and(|all| all.contains(&json!("externalservices")))
    });
    assert!(is_judged, "no webhook judges ExternalServices");
    Ok(())
}
