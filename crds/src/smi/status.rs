//! The status that Weft writes into every policy object: its conditions.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::{JsonSchema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

/// Condition: the object can be understood as it is written.
pub const ACCEPTED: &str = "Accepted";
/// Condition: everything the object names exists.
pub const RESOLVED_REFS: &str = "ResolvedRefs";
/// Condition: the proxies that need this version of the object serve it.
pub const PROGRAMMED: &str = "Programmed";

/// What the mesh says about an object.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(
    extend("x-kubernetes-preserve-unknown-fields" = true),
    transform = super::without_defaults
)]
pub struct Status {
    /// The object in a few words, for the columns of `kubectl get`. Left out when there is
    /// nothing to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// `Accepted`, `ResolvedRefs` and `Programmed`, each with its reason. Empty until Weft
    /// has seen the object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// The standard condition list; a map by type, so that server-side apply merges it.
pub(crate) fn conditions_schema(_: &mut SchemaGenerator) -> schemars::Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["type", "status", "lastTransitionTime", "reason", "message"],
            "properties": {
                "type": {
                    "type": "string",
                    "maxLength": 316,
                    "description": "Name of the condition."
                },
                "status": {
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                    "description": "Whether it holds."
                },
                "observedGeneration": {
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                    "description": "The generation of the object that this was said about; left out when unknown."
                },
                "lastTransitionTime": {
                    "type": "string",
                    "format": "date-time",
                    "description": "When the status last changed."
                },
                "reason": {
                    "type": "string",
                    "maxLength": 1024,
                    "description": "The reason in one word."
                },
                "message": {
                    "type": "string",
                    "maxLength": 32768,
                    "description": "The reason in a sentence."
                }
            }
        }
    })
}
