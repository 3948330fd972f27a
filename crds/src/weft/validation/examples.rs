//! Tests that an API server and the mesh accept the examples of the documentation.
//!
//! Claims: calls-73

use std::{fs, path::Path};

use serde::Deserialize as _;
use serde_json::Value;

use crate::{
    smi::{
        validation::{Cluster, spec},
        violations,
    },
    weft::{
        CanaryReleaseSpec, ExternalServiceSpec, FaultExperimentSpec, KINDS, TrafficPolicySpec,
        definitions,
    },
};

/// Pages with examples.
const PAGES: [&str; 4] = ["resilience.md", "releases.md", "faults.md", "egress.md"];

/// Every object of our group in the folder of examples and in the pages, with its place.
fn examples() -> Vec<(String, Value)> {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let mut texts = Vec::new();
    for entry in fs::read_dir(docs.join("examples")).unwrap() {
        let path = entry.unwrap().path();
        texts.push((
            path.display().to_string(),
            fs::read_to_string(&path).unwrap(),
        ));
    }
    for name in PAGES {
        let page = fs::read_to_string(docs.join(name)).unwrap_or_default();
        let blocks = page.split("```yaml\n").skip(1);
        for (n, block) in blocks.enumerate() {
            let (text, _) = block.split_once("```").unwrap();
            texts.push((format!("{name}, example {}", n + 1), text.to_owned()));
        }
    }
    let mut examples = Vec::new();
    for (location, text) in texts {
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).unwrap();
            let kind = object["kind"].as_str().unwrap_or_default();
            if KINDS.contains(&kind) {
                examples.push((location.clone(), object));
            }
        }
    }
    examples
}

#[test]
fn every_documented_example_validates_without_warning() {
    let definitions = definitions();
    let examples = examples();
    assert!(examples.len() >= 10, "{}", examples.len());
    let cluster = Cluster::default();
    for (location, object) in examples {
        assert_eq!(object["apiVersion"], "weft.dev/v1alpha1", "{location}");
        let kind = object["kind"].as_str().unwrap();
        let mut all = definitions.iter().map(|(_, definition)| definition);
        let definition = all.find(|one| one["spec"]["names"]["kind"] == kind);
        let version = &definition.unwrap()["spec"]["versions"][0];
        let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
        assert_eq!(
            violations(schema, &object["spec"]),
            Vec::<String>::new(),
            "{location}"
        );
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("shop");
        let at = cluster.around(namespace);
        let written = object.get("spec");
        let mistakes = match kind {
            "CanaryRelease" => spec::<CanaryReleaseSpec>(written, &at).1,
            "FaultExperiment" => spec::<FaultExperimentSpec>(written, &at).1,
            "ExternalService" => spec::<ExternalServiceSpec>(written, &at).1,
            _ => spec::<TrafficPolicySpec>(written, &at).1,
        };
        assert_eq!(mistakes, [], "{location}");
    }
}
