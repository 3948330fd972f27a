//! Converting there and back changes nothing.
//!
//! Claims: attack-107

use proptest::prelude::*;

use super::{SmiVersion, VERSIONS, annotation, generate, stored, to, without_annotation};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn object_round_trips_through_storage_and_every_version(
        written in generate::kinds().prop_flat_map(|(k, v)| generate::written(k, v))
    ) {
        comes_back(&written)?;
    }

    // Claims: R10
    #[test]
    fn odd_objects_come_back_as_well(
        written in generate::kinds().prop_flat_map(|(k, v)| generate::odd(k, v))
    ) {
        comes_back(&written)?;
    }

    #[test]
    fn what_is_stored_survives_a_write_through_every_version(
        stored in generate::kinds().prop_flat_map(|(k, _)| generate::written(k, SmiVersion::STORAGE)),
    ) {
        survives(&stored)?;
    }

    #[test]
    fn odd_stored_objects_survive_as_well(
        stored in generate::kinds().prop_flat_map(|(k, _)| generate::odd(k, SmiVersion::STORAGE)),
    ) {
        survives(&stored)?;
    }

    #[test]
    fn object_survives_visit_to_two_other_versions(
        written in generate::kinds().prop_flat_map(|(k, v)| generate::written(k, v)),
        b in proptest::sample::select(&VERSIONS[..]),
        c in proptest::sample::select(&VERSIONS[..]),
    ) {
        let mine = version_of(&written);
        if has(&written, b) && has(&written, c) {
            prop_assert_eq!(to(&to(&to(&written, b), c), mine), written);
        }
    }
}

fn version_of(object: &serde_json::Value) -> SmiVersion {
    let api_version = object["apiVersion"].as_str().unwrap();
    super::SmiKind::read(api_version, object["kind"].as_str().unwrap())
        .unwrap()
        .1
}

fn has(object: &serde_json::Value, version: SmiVersion) -> bool {
    let kind = object["kind"].as_str().unwrap();
    version == SmiVersion::STORAGE || !["UDPRoute", "IdentityBinding"].contains(&kind)
}

fn comes_back(written: &serde_json::Value) -> Result<(), TestCaseError> {
    let mine = version_of(written);
    prop_assert_eq!(&to(&stored(written), mine), written);
    for other in VERSIONS.into_iter().filter(|v| has(written, *v)) {
        let read = to(written, other);
        prop_assert_eq!(&to(&read, mine), written, "through {}: {}", other, read);
    }
    Ok(())
}

fn survives(stored_object: &serde_json::Value) -> Result<(), TestCaseError> {
    for version in VERSIONS.into_iter().filter(|v| has(stored_object, *v)) {
        let view = to(stored_object, version);
        prop_assert_eq!(
            &stored(&view),
            stored_object,
            "through {}: {}",
            version,
            view
        );
    }
    Ok(())
}

// Claims: R10
#[test]
fn fully_visible_object_carries_no_annotation() {
    use serde_json::json;
    let split = super::object(
        super::SmiKind::TrafficSplit,
        SmiVersion::V1alpha1,
        json!({"spec": {"service": "a", "backends": [
            {"service": "a", "weight": "1"}, {"service": "b", "weight": "500m"},
        ]}}),
    );
    let kept = stored(&split);
    assert!(annotation(&kept).is_some(), "storage keeps the words");
    assert_eq!(annotation(&to(&kept, SmiVersion::V1alpha1)), None);
    let whole = json!({"spec": {"service": "a", "backends": [{"service": "a", "weight": 1}]}});
    for version in VERSIONS {
        let split = super::object(super::SmiKind::TrafficSplit, version, whole.clone());
        for other in VERSIONS {
            let read = to(&split, other);
            assert_eq!(without_annotation(read.clone()), read);
        }
    }
}

// Claims: R10
#[test]
fn null_or_absent_weights_survive_beside_textual_ones() {
    use serde_json::json;
    for weights in [
        json!([null, "1"]),
        json!(["-", "1"]),
        json!([null, "500m", "-", 2]),
        json!(["-", null]),
    ] {
        let backends = weights.as_array().unwrap().iter();
        let backends = backends.map(|weight| match weight.as_str() {
            Some("-") => json!({"service": "a"}),
            _ => json!({"service": "a", "weight": weight}),
        });
        let spec = json!({"service": "a", "backends": backends.collect::<Vec<_>>()});
        let split = super::object(
            super::SmiKind::TrafficSplit,
            SmiVersion::V1alpha1,
            json!({"spec": spec}),
        );
        comes_back(&split).unwrap();
        survives(&stored(&split)).unwrap();
    }
}
