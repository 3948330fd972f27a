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
    weft::{TrafficPolicySpec, definitions},
};

/// Every TrafficPolicy in the folder of examples and in the page, with its place.
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
    let page = fs::read_to_string(docs.join("resilience.md")).unwrap();
    let blocks = page.split("```yaml\n").skip(1);
    for (n, block) in blocks.enumerate() {
        let (text, _) = block.split_once("```").unwrap();
        texts.push((format!("resilience.md, example {}", n + 1), text.to_owned()));
    }
    let mut examples = Vec::new();
    for (location, text) in texts {
        for document in serde_yaml_ng::Deserializer::from_str(&text) {
            let object = Value::deserialize(document).unwrap();
            if object["kind"] == "TrafficPolicy" {
                examples.push((location.clone(), object));
            }
        }
    }
    examples
}

#[test]
fn every_documented_example_validates_without_warning() {
    let (_, definition) = definitions().remove(0);
    let version = &definition["spec"]["versions"][0];
    let schema = &version["schema"]["openAPIV3Schema"]["properties"]["spec"];
    let examples = examples();
    assert!(examples.len() >= 10, "{}", examples.len());
    let cluster = Cluster::default();
    for (location, object) in examples {
        assert_eq!(object["apiVersion"], "weft.dev/v1alpha1", "{location}");
        assert_eq!(
            violations(schema, &object["spec"]),
            Vec::<String>::new(),
            "{location}"
        );
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("shop");
        let at = cluster.around(namespace);
        let (_, mistakes) = spec::<TrafficPolicySpec>(Some(&object["spec"]), &at);
        assert_eq!(mistakes, [], "{location}");
    }
}
