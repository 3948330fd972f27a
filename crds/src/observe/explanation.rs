//! The request and result of an explanation: whether one call passes, what decided, and what would
//! have to change.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Created with `spec`; the answer to the create holds `status`. Nothing is stored.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Explanation {
    pub api_version: String,
    pub kind: String,
    pub spec: ExplanationSpec,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<ExplanationStatus>,
}

/// The call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ExplanationSpec {
    pub from: From,
    pub to: To,
    /// GET without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
    /// With or without a query, which decides in routes of the Gateway API alone; `/` without it.
    /// Of a call to a Gateway the whole URL.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<Header>,
    /// A connection of bytes, no request.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub tcp: bool,
}

/// The caller: an object whose pods call, or a client without an identity.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct From {
    /// A kind that has pods, `Pod`, or `ServiceAccount`.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// A caller without a proxy and therefore without an identity; instead of a name.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub outside: bool,
}

/// What is called: a Service, a kind that has pods, `Pod`, `External`, or by clients outside a
/// `Gateway`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct To {
    pub kind: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    pub name: String,
    /// Of a Service its own port, of pods the container's; a Gateway's stands in the URL. Where there is one only, it
    /// need not be named.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// One header of the request.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Header {
    pub name: String,
    pub value: String,
}

/// What becomes of the call.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
)]
pub enum ExplanationVerdict {
    Allowed,
    Refused,
    /// It depends on the backend or on the pod; `backends` has each.
    Mixed,
    /// It is unknown; `reason` gives the cause.
    #[default]
    #[serde(other)]
    Unknown,
}

impl ExplanationVerdict {
    /// As JSON writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "Allowed",
            Self::Refused => "Refused",
            Self::Mixed => "Mixed",
            Self::Unknown => "Unknown",
        }
    }
}

/// The answer. A user that may not create explanations in the called side's namespace gets
/// `verdict`, `reason`, `httpStatus` and `owner` alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExplanationStatus {
    pub verdict: ExplanationVerdict,
    /// Of a refusal as in header `weft-reason`; of Unknown a sentence.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// What a refused caller gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub http_status: Option<u16>,
    /// Namespace of the called side.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub owner: String,
    /// Whose proxies refuse, `Kind namespace/name`, 64 at most: what owns the called pods, or the
    /// caller as it was asked about where its own proxies find no endpoint to call.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub refused_by: Vec<String>,
    /// In the order in which a call goes through them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub steps: Vec<Step>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub backends: Vec<BackendVerdict>,
    /// The rule of a route of the Gateway API that decides where the call goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<ExplainedRule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seen: Option<RecentCalls>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub programmed: Option<Programmed>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fix: Option<Fix>,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Step {
    /// `gateway` for its listener, `who`, `route`, `wire`, `access`, `rule` for each rule below
    /// `access`, or `see` for a line of the manual that the call meets.
    pub step: String,
    pub text: String,
    /// `Kind namespace/name` of what decided.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<String>,
}

/// A rule of a route that decides where a call goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ExplainedRule {
    /// `HTTPRoute namespace/name`.
    pub object: String,
    /// Which of the object's rules, from 0; absent where no rule of any route fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rule: Option<u32>,
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// The namespace whose callers it is for; empty for all.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub audience: String,
    /// What is changed of the call and its answer, a line each.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub edits: Vec<String>,
    /// Rules that were tried before, 64 at most, and why the call does not fit.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<EarlierRule>,
    /// How many more were tried before.
    #[serde(skip_serializing_if = "is_zero")]
    pub more_earlier: u32,
}

/// A rule that a call does not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EarlierRule {
    /// `HTTPRoute namespace/name`.
    pub object: String,
    /// Which of the object's rules, from 0.
    pub rule: u32,
    /// Its name, if it has one.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// What the rule wants, such as `path below /api`.
    pub wants: String,
    /// Why the call does not fit, such as `the path does not fit`.
    pub fails: String,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// One Service that takes a share of the calls, or those of its pods that judge alike where
/// others judge differently.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendVerdict {
    /// `namespace/name`; of an address without a Service the workload.
    pub service: String,
    /// Of all calls, 0 to 1; among endpoints of one backend as if each got as many.
    pub share: f64,
    pub verdict: ExplanationVerdict,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Endpoints of the backend that may take calls, and all of it.
    pub ready: u32,
    pub endpoints: u32,
    /// At how many endpoints it is so; 0 where it is decided before one is called.
    pub judged: u32,
    /// The first eight of these: `namespace/name` of a pod, or an address where none stands
    /// behind it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pods: Vec<String>,
}

/// What was counted between these two in the last minutes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RecentCalls {
    pub window_seconds: u64,
    pub requests: u64,
    pub failure: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub refused: BTreeMap<String, u64>,
    /// RFC 3339; to the slot of five seconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last: Option<String>,
}

/// Whether the proxies that judge have what was judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Programmed {
    /// Proxies that have all of it.
    pub proxies: u32,
    /// Proxies that judge.
    pub of: u32,
    /// What proxies refused: they judge by the version before.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub nacks: Vec<String>,
}

/// What would let the call pass. Objects are added, none is changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Fix {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub objects: Vec<Value>,
    /// Where no object helps.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub commands: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<String>,
}
