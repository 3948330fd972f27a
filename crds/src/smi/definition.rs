//! The CustomResourceDefinitions, made from the Rust types.

use kube::{
    Resource,
    core::schema::{OptionalEnum, StructuralSchemaRewriter},
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

use super::{
    HTTPRouteGroup, HttpRouteGroupSpec, STORAGE_VERSION, Status, TCPRoute, TcpRouteSpec,
    TrafficSplit, TrafficSplitSpec, TrafficTarget, TrafficTargetSpec,
};

/// One column of `kubectl get`.
#[derive(Clone, Copy)]
pub(super) struct Column {
    name: &'static str,
    path: &'static str,
    kind: &'static str,
    description: &'static str,
}

pub(super) const SUMMARY_PATH: &str = ".status.summary";

pub(super) const fn column(
    name: &'static str,
    path: &'static str,
    description: &'static str,
) -> Column {
    Column {
        name,
        path,
        kind: "string",
        description,
    }
}

/// The CustomResourceDefinitions of all SMI kinds, each with the name of its file,
/// as the API server takes them.
///
/// TrafficTarget is also served as v1alpha3: both versions have one shape, so no
/// conversion is needed.
pub fn definitions() -> Vec<(String, Value)> {
    vec![
        definition::<HTTPRouteGroup, HttpRouteGroupSpec>(
            "htr",
            &[],
            &[column("Matches", SUMMARY_PATH, "Names of the matches.")],
            "Names sets of HTTP requests, for TrafficTargets and TrafficSplits to refer to.",
            "Which requests belong to the group.",
        ),
        definition::<TCPRoute, TcpRouteSpec>(
            "tr",
            &[],
            &[column(
                "Ports",
                ".spec.matches.ports",
                "Allowed ports; empty means all.",
            )],
            "Names TCP ports, for TrafficTargets to refer to.",
            "Which ports belong to the route.",
        ),
        definition::<TrafficSplit, TrafficSplitSpec>(
            "ts",
            &[],
            &[
                column(
                    "Service",
                    ".spec.service",
                    "The root Service, which clients call.",
                ),
                column(
                    "Backends",
                    SUMMARY_PATH,
                    "The Services that share it, with their weights.",
                ),
            ],
            "Shares the traffic of one Service out among several, by weight.",
            "The root Service and who shares its traffic.",
        ),
        definition::<TrafficTarget, TrafficTargetSpec>(
            "tt",
            &["v1alpha3"],
            &[
                column(
                    "Destination",
                    ".spec.destination.name",
                    "Whose pods may be called.",
                ),
                column("Sources", SUMMARY_PATH, "Who may call."),
            ],
            "Allows some callers to reach one destination with some traffic.",
            "Who may call whom, and with what.",
        ),
    ]
}

fn definition<K, S>(
    short_name: &str,
    older: &[&str],
    columns: &[Column],
    description: &str,
    spec_description: &str,
) -> (String, Value)
where
    K: Resource<DynamicType = ()>,
    S: JsonSchema,
{
    let (kind, group, plural) = (K::kind(&()), K::group(&()), K::plural(&()));
    let name = format!("{plural}.{group}");

    let mut spec = schema::<S>();
    spec["description"] = spec_description.into();
    let mut status = schema::<Status>();
    status["description"] = "What the mesh says about it.".into();
    let whole = json!({
        "type": "object",
        "description": description,
        "required": ["spec"],
        "properties": { "spec": spec, "status": status },
    });

    let version = |name: &str| {
        json!({
            "name": name,
            "served": true,
            "storage": name == STORAGE_VERSION,
            "additionalPrinterColumns": printer_columns(columns),
            "schema": { "openAPIV3Schema": whole },
            "subresources": { "status": {} },
        })
    };
    let versions: Vec<Value> = older
        .iter()
        .copied()
        .chain([STORAGE_VERSION])
        .map(version)
        .collect();

    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": { "name": name },
        "spec": {
            "group": group,
            "scope": "Namespaced",
            "names": {
                "kind": kind,
                "listKind": format!("{kind}List"),
                "plural": plural,
                "singular": kind.to_lowercase(),
                "shortNames": [short_name],
                "categories": ["weft", "smi"],
            },
            "conversion": { "strategy": "None" },
            "versions": versions,
        },
    });
    (plural.into_owned(), definition)
}

pub(super) fn printer_columns(own: &[Column]) -> Vec<Value> {
    let programmed = Column {
        name: "Programmed",
        path: r#".status.conditions[?(@.type=="Programmed")].status"#,
        kind: "string",
        description: "Whether the proxies that need it serve it.",
    };
    // Only -o wide shows what has a priority above 0.
    let message = Column {
        name: "Message",
        path: r#".status.conditions[?(@.type=="Programmed")].message"#,
        kind: "string",
        description: "How many proxies serve it.",
    };
    let accepted = Column {
        name: "Accepted",
        path: r#".status.conditions[?(@.type=="Accepted")].status"#,
        kind: "string",
        description: "Whether it can be understood as it is written.",
    };
    let resolved = Column {
        name: "ResolvedRefs",
        path: r#".status.conditions[?(@.type=="ResolvedRefs")].status"#,
        kind: "string",
        description: "Whether everything that it names exists and fits.",
    };
    let age = Column {
        name: "Age",
        path: ".metadata.creationTimestamp",
        kind: "date",
        description: "Time since it was made.",
    };
    let json = |column: &Column, priority: u8| {
        json!({
            "name": column.name,
            "type": column.kind,
            "jsonPath": column.path,
            "description": column.description,
            "priority": priority,
        })
    };
    own.iter()
        .map(|column| json(column, 0))
        .chain([
            json(&accepted, 0),
            json(&resolved, 0),
            json(&programmed, 0),
            json(&message, 1),
            json(&age, 0),
        ])
        .collect()
}

/// The structural schema of one type, in the subset of OpenAPI v3 that the API
/// server accepts.
pub(super) fn schema<S: JsonSchema>() -> Value {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_shows_every_condition_and_at_most_six_columns() {
        for (plural, definition) in definitions() {
            let versions = definition["spec"]["versions"].as_array().unwrap();
            for version in versions {
                let columns = version["additionalPrinterColumns"].as_array().unwrap();
                let shown = columns.iter().filter(|column| column["priority"] == 0);
                let names: Vec<&str> = shown.filter_map(|c| c["name"].as_str()).collect();
                for condition in ["Accepted", "ResolvedRefs", "Programmed"] {
                    assert!(names.contains(&condition), "{plural}: {names:?}");
                }
                assert!(names.len() <= 6, "{plural}: {names:?}");
                assert!(!names.contains(&"Message"), "{plural}: {names:?}");
            }
        }
    }
}
