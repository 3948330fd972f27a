//! What a change of objects does to calls.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What becomes of the calls of one edge.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    /// None passes any longer, of one caller or to one pod at least.
    Refused,
    /// Some are judged otherwise than before: it depends on the request.
    Depends,
    /// They take another way.
    Rerouted,
    /// Calls pass that did not.
    #[default]
    Allowed,
    /// The result is unknown.
    Unknown,
}

impl Change {
    /// As JSON writes it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Depends => "depends",
            Self::Rerouted => "rerouted",
            Self::Allowed => "allowed",
            Self::Unknown => "unknown",
        }
    }
}
