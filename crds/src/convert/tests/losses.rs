//! What the official conversions lose, row by row, and that it is not lost here.

use serde_json::{Value, json};

use super::{SmiKind, SmiVersion, VERSIONS, object, stored, to};
use crate::convert::{ConversionError, convert};
use SmiVersion::{V1alpha1, V1alpha2, V1alpha3, V1alpha4};

fn split(version: SmiVersion, weights: &[Value]) -> Value {
    let backends: Vec<Value> = weights
        .iter()
        .map(|weight| json!({"service": "s", "weight": weight}))
        .collect();
    let content = json!({"spec": {"service": "root", "backends": backends}});
    object(SmiKind::TrafficSplit, version, content)
}

#[test]
fn ports_of_subjects_reach_storage_and_come_back() {
    let subject = json!({"kind": "ServiceAccount", "name": "a", "port": 8080});
    let first = json!({"destination": subject, "sources": [subject], "specs": []});
    let second = json!({"spec": {"destination": subject, "sources": [subject], "rules": []}});
    for (version, content) in [(V1alpha1, first), (V1alpha2, second)] {
        let target = object(SmiKind::TrafficTarget, version, content);
        for through in VERSIONS {
            let read = to(&target, through);
            assert_eq!(stored(&read)["spec"]["destination"]["port"], 8080);
            assert_eq!(stored(&read)["spec"]["sources"][0]["port"], 8080);
            assert_eq!(to(&read, version), target);
        }
    }
}

#[test]
fn group_of_a_subject_survives_versions_without_it() {
    let subject = json!({"kind": "IdentityBinding", "group": "access.smi-spec.io", "name": "a"});
    let content = json!({"spec": {"destination": subject, "sources": [subject], "rules": []}});
    let target = object(SmiKind::TrafficTarget, V1alpha4, content);
    for version in [V1alpha1, V1alpha2, V1alpha3] {
        let view = to(&target, version);
        let spec = view.get("spec").unwrap_or(&view);
        assert_eq!(spec["destination"].get("group"), None);
        assert_eq!(stored(&view), target);
    }
}

#[test]
fn weights_of_v1alpha1_keep_their_ratio() {
    for (written, wanted) in [
        (
            ["10m", "100m", "1500m"].as_slice(),
            [10, 100, 1500].as_slice(),
        ),
        (&["1", "500m"], &[1000, 500]),
        (&["1.5", "0.5"], &[1500, 500]),
        (&["1k", "1e3"], &[1000, 1000]),
    ] {
        let raw: Vec<Value> = written.iter().map(|w| json!(w)).collect();
        let stored_split = stored(&split(V1alpha1, &raw));
        let weights: Vec<&Value> = stored_split["spec"]["backends"]
            .as_array()
            .unwrap()
            .iter()
            .map(|backend| &backend["weight"])
            .collect();
        assert_eq!(weights, *wanted, "{written:?}");
        assert_eq!(to(&stored_split, V1alpha1), split(V1alpha1, &raw));
    }
}

#[test]
fn missing_or_unparsable_weight_does_not_fail_conversion() {
    let mut left_out = split(V1alpha1, &[json!("1"), json!("500m")]);
    left_out["spec"]["backends"][0]
        .as_object_mut()
        .unwrap()
        .remove("weight");
    assert_eq!(stored(&left_out)["spec"]["backends"][0].get("weight"), None);
    assert_eq!(to(&stored(&left_out), V1alpha1), left_out);
    let percent = split(V1alpha1, &[json!("50%"), json!("1")]);
    assert_eq!(
        stored(&percent)["spec"],
        percent["spec"],
        "unreadable, so without effect"
    );
    assert_eq!(to(&stored(&percent), V1alpha1), percent);
    let vast = split(V1alpha1, &[json!("1n"), json!("2147483647")]);
    assert_eq!(stored(&vast)["spec"], vast["spec"], "so is this one");
    assert_eq!(to(&stored(&vast), V1alpha1), vast);
}

#[test]
fn conditions_of_a_split_survive_versions_without_them() {
    let mut conditional = split(V1alpha4, &[json!(1)]);
    conditional["spec"]["matches"] =
        json!([{"apiGroup": "specs.smi-spec.io", "kind": "HTTPRouteGroup", "name": "g"}]);
    for version in [V1alpha1, V1alpha2, V1alpha3] {
        assert_eq!(stored(&to(&conditional, version)), conditional);
    }
}

#[test]
fn the_version_that_comes_back_names_its_group() {
    for kind in SmiKind::ALL {
        for from in kind.versions() {
            for wanted in kind.versions() {
                let read = to(&object(kind, *from, json!({})), *wanted);
                assert_eq!(read["apiVersion"], kind.api_version(*wanted));
                assert_eq!(read["kind"], kind.name());
            }
        }
    }
}

#[test]
fn headers_and_ports_survive_versions_without_them() {
    let matches = json!([{"name": "m", "headers": {"x": "1"}}]);
    let group = object(
        SmiKind::HttpRouteGroup,
        V1alpha4,
        json!({"spec": {"matches": matches}}),
    );
    assert_eq!(stored(&to(&group, V1alpha1)), group);
    let route = object(
        SmiKind::TcpRoute,
        V1alpha4,
        json!({"spec": {"matches": {"ports": [80]}}}),
    );
    for version in [V1alpha1, V1alpha2, V1alpha3] {
        assert_eq!(stored(&to(&route, version)), route);
    }
}

#[test]
fn route_without_ports_gets_explicit_empty_list() {
    for (version, content) in [(V1alpha1, json!({})), (V1alpha3, json!({"spec": {}}))] {
        let route = object(SmiKind::TcpRoute, version, content);
        assert_eq!(stored(&route)["spec"], json!({"matches": {"ports": []}}));
    }
}

#[test]
fn unknown_kinds_and_versions_are_refused_by_name() {
    let binding = object(SmiKind::IdentityBinding, V1alpha4, json!({"spec": {}}));
    let wanted = "access.smi-spec.io/v1alpha3".to_owned();
    let error = convert(&binding, &wanted).unwrap_err();
    assert_eq!(
        error.to_string(),
        format!("IdentityBinding has no version {wanted}")
    );
    let mut foreign = binding;
    foreign["apiVersion"] = json!("split.smi-spec.io/v1alpha4");
    let error = convert(&foreign, &wanted).unwrap_err();
    assert!(matches!(error, ConversionError::UnknownKind { .. }));
    let error = convert(&json!([]), &wanted).unwrap_err();
    assert_eq!(error.to_string(), "object must be a JSON object");
}
