//! What conversion must keep, over examples and random objects.
//!
//! Claims: smi-2

mod edits;
mod generate;
mod identity;
mod losses;
mod meaning;
mod reviews;
mod schemas;
mod written_annotations;

use serde_json::{Value, json};

use super::{SmiKind, SmiVersion, convert};
use crate::labels::SMI_LOSSLESS;

const VERSIONS: [SmiVersion; 4] = SmiVersion::ALL;

/// An object with what its author wrote in `content`.
fn object(kind: SmiKind, version: SmiVersion, mut content: Value) -> Value {
    let mut object = json!({
        "apiVersion": kind.api_version(version),
        "kind": kind.name(),
        "metadata": {"name": "x", "namespace": "shop"},
    });
    let fields = object.as_object_mut().unwrap();
    fields.append(content.as_object_mut().unwrap());
    object
}

fn to(object: &Value, version: SmiVersion) -> Value {
    let api_version = object["apiVersion"].as_str().unwrap();
    let (group, _) = api_version.split_once('/').unwrap();
    convert(object, &format!("{group}/{version}")).unwrap()
}

fn stored(object: &Value) -> Value {
    to(object, SmiVersion::STORAGE)
}

fn annotation(object: &Value) -> Option<String> {
    let text = object["metadata"]["annotations"].get(SMI_LOSSLESS)?;
    Some(text.as_str().unwrap().to_owned())
}

fn with_annotation(mut object: Value, text: &str) -> Value {
    object["metadata"]["annotations"][SMI_LOSSLESS] = text.into();
    object
}

fn without_annotation(mut object: Value) -> Value {
    if let Some(metadata) = object["metadata"].as_object_mut() {
        metadata.remove("annotations");
    }
    object
}
