//! The API server removes after every conversion what the schema does not name, so
//! the schemas and the conversion must agree.

use proptest::prelude::*;
use serde_json::Value;

use super::{VERSIONS, generate, to};
use crate::{
    convert::SmiKind,
    smi::{definitions, violations},
};

fn schemas() -> Vec<(String, Value)> {
    definitions("weft-system")
        .into_iter()
        .flat_map(|(_, definition)| {
            let spec = definition["spec"].clone();
            let versions = spec["versions"].as_array().unwrap().clone();
            versions.into_iter().map(move |version| {
                let text = |value: &Value| value.as_str().unwrap().to_owned();
                let name = format!(
                    "{}/{} {}",
                    text(&spec["group"]),
                    text(&version["name"]),
                    text(&spec["names"]["kind"])
                );
                (name, version["schema"]["openAPIV3Schema"].clone())
            })
        })
        .collect()
}

#[test]
fn version_schema_prunes_no_converted_field() {
    let schemas = schemas();
    let config = ProptestConfig::with_cases(500);
    let written = generate::kinds().prop_flat_map(|(k, v)| generate::written(k, v));
    let mut runner = proptest::test_runner::TestRunner::new(config);
    runner
        .run(&written, |written| {
            let kind = written["kind"].as_str().unwrap();
            for version in VERSIONS {
                let known = SmiKind::ALL.into_iter().find(|known| known.name() == kind);
                if !known.unwrap().versions().contains(&version) {
                    continue;
                }
                let mut read = to(&written, version);
                let name = format!("{} {kind}", read["apiVersion"].as_str().unwrap());
                let (_, schema) = schemas.iter().find(|(n, _)| *n == name).unwrap();
                for key in ["apiVersion", "kind", "metadata"] {
                    read.as_object_mut().unwrap().remove(key);
                }
                let found = violations(schema, &read);
                // The generator leaves out what one version requires and another not.
                let lost = found.iter().filter(|text| !text.contains(": lacks "));
                prop_assert_eq!(lost.count(), 0, "{} {:?} {}", name, found, read);
            }
            Ok(())
        })
        .unwrap();
}
