//! The merged table of routes of one Service port, as one audience gets it.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The response to `routetables/SERVICE`: every table of one Service, or with `kind=Gateway` of one
/// Gateway.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteTable {
    pub api_version: String,
    pub kind: String,
    pub metadata: RouteTableMetadata,
    /// One for each port and audience, those for everybody first.
    pub tables: Vec<RouteRules>,
    /// Tables for callers of namespaces whose tables the reader may not get; of a Gateway rules of
    /// routes of such namespaces.
    #[serde(skip_serializing_if = "is_zero")]
    pub hidden: u32,
}

/// Which Service or Gateway it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(default)]
pub struct RouteTableMetadata {
    pub namespace: String,
    pub name: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// Rules in the order in which they are tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RouteRules {
    /// `namespace/name` of the Service, or of the Gateway.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// Of a Gateway the listener.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub listener: String,
    /// Of a Gateway the host, `*` for every one. The most specific one comes first.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub host: String,
    /// The namespace whose callers the table is for; empty for those of every other one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audience: String,
    /// First that fits, first that decides.
    pub rules: Vec<TableRule>,
    /// What becomes of a call that fits none.
    pub otherwise: String,
}

/// One line of the table: one match of one rule, or one split.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TableRule {
    /// `HTTPRoute namespace/name`.
    pub object: String,
    /// Which of the object's rules, from 0; absent for a split.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Which calls, such as `path below /api, method GET`.
    pub matches: String,
    /// Where they go.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<RuleBackend>,
    /// What becomes of them where they go to no backend, such as `redirect 302` or
    /// `refused: invalid-route`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub answer: String,
    /// What is changed of the call and its answer, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<String>,
}

/// A backend of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RuleBackend {
    /// `namespace/name` of the Service.
    pub service: String,
    /// Its port.
    pub port: u16,
    /// Of the calls that fit, 0 to 1.
    pub share: f64,
    /// Its share is answered with a refusal: there is no such Service or port, or the reference is
    /// not permitted.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub invalid: bool,
}
