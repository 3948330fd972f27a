//! Where the caller may read graphs, so that a client offers nothing that it cannot show.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The answer to `scopes/live`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Scope {
    pub api_version: String,
    pub kind: String,
    /// He may read the graph of the whole cluster. Namespaces are all listed then.
    pub cluster: bool,
    /// Namespaces whose graph he may read, in order.
    pub namespaces: Vec<String>,
    /// There are more namespaces than are asked about.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub truncated: bool,
    /// Some were not checked yet, because the API server answers slowly: a later request
    /// gets more.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub incomplete: bool,
}
