//! The CustomResourceDefinitions with every version of every kind served.
//!
//! The schema of an older version is the one of storage, changed in what that
//! version has otherwise. A field that a version does not have yet but that makes a
//! rule narrower is refused instead of silently removed: without it the object
//! would allow more than its author wrote.

use kube::Resource;
use schemars::JsonSchema;
use serde_json::{Map, Value, json};

use super::{
    HTTPRouteGroup, HttpRouteGroupSpec, IdentityBinding, IdentityBindingSpec, Status, TCPRoute,
    TcpRouteSpec, TrafficSplit, TrafficSplitSpec, TrafficTarget, TrafficTargetSpec, UDPRoute,
    UdpRouteSpec,
    definition::{Column, SUMMARY_PATH, column, printer_columns, schema},
};
use crate::convert::{
    SmiKind,
    SmiVersion::{self, V1alpha1, V1alpha3},
};

#[cfg(test)]
pub(super) mod tests;

/// What a quantity that can be a weight looks like.
const QUANTITY: &str =
    r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([KMGTPE]i|[numkMGTPE]|[eE][+-]?[0-9]{1,3})?$";
/// Longest text of a quantity, in bytes.
const QUANTITY_LENGTH: usize = 64;
/// A port as the oldest clients write it: a number in quotes.
const PORT_TEXT: &str =
    r"^([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])$";

/// How the API server reaches the conversion webhook.
const CONVERSION_SERVICE: &str = "weft-injector";
const CONVERSION_PATH: &str = "/convert";

/// What a kind's definition needs beyond its types.
struct Kind {
    kind: SmiKind,
    plural: String,
    short_name: &'static str,
    description: &'static str,
    spec_description: &'static str,
    spec: Value,
    columns: fn(SmiVersion) -> Vec<Column>,
}

/// The CustomResourceDefinitions of all SMI kinds in all their versions, each with
/// its plural, converted by the webhook in `namespace`. The webhook's own CA is not
/// in them; whoever serves it writes `spec.conversion.webhook.clientConfig.caBundle`.
pub fn crds_all_versions(namespace: &str) -> Vec<(String, Value)> {
    let kinds = [
        kind::<HTTPRouteGroup, HttpRouteGroupSpec>(
            SmiKind::HttpRouteGroup,
            "htr",
            "Names sets of HTTP requests, for TrafficTargets and TrafficSplits to refer to.",
            "Which requests belong to the group.",
            |_| vec![column("Matches", SUMMARY_PATH, "Names of the matches.")],
        ),
        kind::<IdentityBinding, IdentityBindingSpec>(
            SmiKind::IdentityBinding,
            "ib",
            "Gives workloads of its namespace a name that TrafficTargets refer to.",
            "Which workloads it means.",
            |_| vec![column("Workloads", SUMMARY_PATH, "Whom it means.")],
        ),
        kind::<TCPRoute, TcpRouteSpec>(
            SmiKind::TcpRoute,
            "tr",
            "Names TCP ports, for TrafficTargets to refer to.",
            "Which ports belong to the route.",
            ports_column,
        ),
        kind::<TrafficSplit, TrafficSplitSpec>(
            SmiKind::TrafficSplit,
            "ts",
            "Shares the traffic of one Service out among several, by weight.",
            "The root Service and who shares its traffic.",
            |_| {
                vec![
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
                ]
            },
        ),
        kind::<TrafficTarget, TrafficTargetSpec>(
            SmiKind::TrafficTarget,
            "tt",
            "Allows some callers to reach one destination with some traffic.",
            "Who may call whom, and with what.",
            target_columns,
        ),
        kind::<UDPRoute, UdpRouteSpec>(
            SmiKind::UdpRoute,
            "ur",
            "Names UDP ports, for TrafficTargets to refer to.",
            "Which ports belong to the route.",
            ports_column,
        ),
    ];
    kinds
        .into_iter()
        .map(|kind| (kind.plural.clone(), kind.definition(namespace)))
        .collect()
}

fn ports_column(version: SmiVersion) -> Vec<Column> {
    let ports = column(
        "Ports",
        ".spec.matches.ports",
        "Allowed ports; empty means all.",
    );
    if version < SmiVersion::STORAGE {
        vec![]
    } else {
        vec![ports]
    }
}

fn target_columns(version: SmiVersion) -> Vec<Column> {
    let path = match version {
        V1alpha1 => ".destination.name",
        _ => ".spec.destination.name",
    };
    vec![
        column("Destination", path, "Whose pods may be called."),
        column("Sources", SUMMARY_PATH, "Who may call."),
    ]
}

fn kind<K, S>(
    kind: SmiKind,
    short_name: &'static str,
    description: &'static str,
    spec_description: &'static str,
    columns: fn(SmiVersion) -> Vec<Column>,
) -> Kind
where
    K: Resource<DynamicType = ()>,
    S: JsonSchema,
{
    Kind {
        kind,
        plural: K::plural(&()).into_owned(),
        short_name,
        description,
        spec_description,
        spec: schema::<S>(),
        columns,
    }
}

impl Kind {
    fn definition(&self, namespace: &str) -> Value {
        let (kind, group, plural) = (self.kind.name(), self.kind.group(), &self.plural);
        let versions = self.kind.versions();
        let conversion = if versions.len() == 1 {
            json!({ "strategy": "None" })
        } else {
            json!({
                "strategy": "Webhook",
                "webhook": {
                    "conversionReviewVersions": ["v1"],
                    "clientConfig": {
                        "service": {
                            "name": CONVERSION_SERVICE,
                            "namespace": namespace,
                            "path": CONVERSION_PATH,
                            "port": 443,
                        },
                    },
                },
            })
        };
        json!({
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("{plural}.{group}") },
            "spec": {
                "group": group,
                "scope": "Namespaced",
                "names": {
                    "kind": kind,
                    "listKind": format!("{kind}List"),
                    "plural": plural,
                    "singular": kind.to_lowercase(),
                    "shortNames": [self.short_name],
                    "categories": ["weft", "smi"],
                },
                "conversion": conversion,
                "versions": versions.iter().map(|v| self.version(*v)).collect::<Vec<_>>(),
            },
        })
    }

    fn version(&self, version: SmiVersion) -> Value {
        let mut status = schema::<Status>();
        status["description"] = "What the mesh says about it.".into();
        let mut spec = self.spec.clone();
        spec["description"] = self.spec_description.into();
        let mut whole = json!({
            "type": "object",
            "description": self.description,
            "required": ["spec"],
            "properties": { "spec": spec, "status": status },
        });
        match self.kind {
            SmiKind::TrafficTarget => target(version, &mut whole),
            SmiKind::HttpRouteGroup => group(version, &mut whole),
            SmiKind::TcpRoute => route(version, &mut whole),
            SmiKind::TrafficSplit => split(version, &mut whole),
            SmiKind::IdentityBinding | SmiKind::UdpRoute => {}
        }
        json!({
            "name": version.name(),
            "served": true,
            "storage": version == SmiVersion::STORAGE,
            "additionalPrinterColumns": printer_columns(&(self.columns)(version)),
            "schema": { "openAPIV3Schema": whole },
            "subresources": { "status": {} },
        })
    }
}

fn target(version: SmiVersion, whole: &mut Value) {
    if version == SmiVersion::STORAGE {
        return;
    }
    for pointer in ["/destination", "/sources/items"] {
        let pointer = format!("/properties/spec/properties{pointer}");
        let Some(subject) = whole.pointer_mut(&pointer) else {
            continue;
        };
        remove(subject, "group");
        match version {
            V1alpha3 => refuse(
                subject,
                "port",
                "port is no field of v1alpha3: name the port in a TCPRoute, or use v1alpha2",
            ),
            V1alpha1 => {
                let port = &mut subject["properties"]["port"];
                *port = json!({
                    "description": port["description"],
                    "x-kubernetes-int-or-string": true,
                    "minimum": 1,
                    "maximum": 65535,
                    "pattern": PORT_TEXT,
                });
            }
            _ => {}
        }
    }
    // Only from v1alpha3 on must sources and rules be written, even if empty.
    if version < V1alpha3 {
        whole["properties"]["spec"]["required"] = json!(["destination"]);
    }
    if version == V1alpha1 {
        rename(&mut whole["properties"]["spec"], "rules", "specs");
        to_the_top(whole);
    }
}

fn group(version: SmiVersion, whole: &mut Value) {
    if version == V1alpha1
        && let Some(one) = whole.pointer_mut("/properties/spec/properties/matches/items")
    {
        // Typed, because rules cannot see a field without a type.
        one["properties"]["headers"] = json!({
            "description": "No field of v1alpha1; headers can be matched from v1alpha2 on.",
            "type": "object",
            "x-kubernetes-preserve-unknown-fields": true,
        });
        let message = "headers is no field of v1alpha1: use v1alpha2 or later";
        refuse(one, "headers", message);
    }
    if version < V1alpha3 {
        to_the_top(whole);
    }
}

fn route(version: SmiVersion, whole: &mut Value) {
    if version == SmiVersion::STORAGE {
        return;
    }
    remove_required(whole);
    if version == V1alpha3 {
        let message = "matches is no field of v1alpha3: use v1alpha4 to name ports";
        refuse(&mut whole["properties"]["spec"], "matches", message);
    } else {
        let message = format!("spec is no field of {version}: use v1alpha4 to name ports");
        refuse(whole, "spec", &message);
    }
}

fn split(version: SmiVersion, whole: &mut Value) {
    let spec = &mut whole["properties"]["spec"];
    if version < V1alpha3 {
        let message = format!("matches is no field of {version}: use v1alpha3 or later");
        refuse(spec, "matches", &message);
    }
    if version == V1alpha1
        && let Some(backend) = spec.pointer_mut("/properties/backends/items")
    {
        backend["required"] = json!(["service"]);
        backend["properties"]["weight"] = json!({
            "description": "The share, relative to the sum of all weights, as a quantity: \
                            `500m` is half of `1`. 0 or left out means no traffic.",
            "x-kubernetes-int-or-string": true,
            "minimum": 0,
            "maxLength": QUANTITY_LENGTH,
            "pattern": QUANTITY,
        });
    }
}

/// Makes the API server refuse objects in which `field` of `schema` is set.
fn refuse(schema: &mut Value, field: &str, message: &str) {
    schema["x-kubernetes-validations"] =
        json!([{ "rule": format!("!has(self.{field})"), "message": message }]);
    if let Some(field) = schema["properties"][field].as_object_mut() {
        // A null would count as set or not, depending on the reader.
        field.remove("nullable");
    }
}

/// Moves the fields of `spec` to the top of the object.
fn to_the_top(whole: &mut Value) {
    let Some(properties) = whole["properties"].as_object_mut() else {
        return;
    };
    let Some(Value::Object(mut spec)) = properties.remove("spec") else {
        return;
    };
    if let Some(Value::Object(fields)) = spec.remove("properties") {
        properties.extend(fields);
    }
    match spec.remove("required") {
        Some(required) => whole["required"] = required,
        None => remove_required(whole),
    }
}

fn remove_required(schema: &mut Value) {
    if let Some(schema) = schema.as_object_mut() {
        schema.remove("required");
    }
}

fn remove(schema: &mut Value, field: &str) {
    if let Some(properties) = properties(schema) {
        properties.remove(field);
    }
}

fn rename(schema: &mut Value, from: &str, to: &str) {
    if let Some(properties) = properties(schema)
        && let Some(field) = properties.remove(from)
    {
        properties.insert(to.to_owned(), field);
    }
}

fn properties(schema: &mut Value) -> Option<&mut Map<String, Value>> {
    schema.get_mut("properties")?.as_object_mut()
}
