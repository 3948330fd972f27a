//! Structural schemas, made from the Rust types.

use kube::core::schema::{OptionalEnum, StructuralSchemaRewriter};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::Value;

/// The structural schema of one type, in the subset of OpenAPI v3 that the API
/// server accepts.
pub(crate) fn schema<S: JsonSchema>() -> Value {
    let schema = SchemaSettings::openapi3()
        .with(|settings| {
            settings.inline_subschemas = true;
            settings.meta_schema = None;
        })
        .with_transform(StructuralSchemaRewriter)
        .with_transform(OptionalEnum)
        .into_generator()
        .into_root_schema_for::<S>();
    let mut value = schema.to_value();
    tidy(&mut value);
    value
}

/// Removes what schemars adds and the API server ignores or warns about: titles,
/// and formats that Kubernetes does not know. Joins the lines of doc comments.
fn tidy(schema: &mut Value) {
    let Some(map) = schema.as_object_mut() else {
        return;
    };
    if map.get("title").is_some_and(Value::is_string) {
        map.remove("title");
    }
    if let Some(Value::String(text)) = map.get_mut("description") {
        *text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    }
    if let Some(Value::Object(properties)) = map.get_mut("properties") {
        properties.values_mut().for_each(tidy);
    }
    if let Some(items) = map.get_mut("items") {
        tidy(items);
    }
}
