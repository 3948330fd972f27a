//! Writes the statistical evidence of a run as a text of at most 1 KiB for the release's status,
//! and reads it: so a controller that takes over neither forgets nor counts twice.

use serde::{Deserialize, Serialize};

use crate::judge::latency::Threshold;
use crate::judge::{Counts, Judge};

/// Statistical checks that a release can have.
pub(super) const TESTS: usize = 4;

/// What is counted and found in a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Evidence {
    #[serde(rename = "t")]
    pub(super) tests: [Test; TESTS],
    /// Calls of the candidate in the run, and those of them that failed.
    #[serde(rename = "n")]
    pub(super) total: Counts,
    /// Calls of the candidate in the step.
    #[serde(rename = "s")]
    pub(super) in_step: u64,
    /// By which the tolerance of latency is judged.
    #[serde(rename = "l")]
    pub(super) threshold: Option<Threshold>,
    /// When a pod of the candidate became ready last, in milliseconds since 1970, and how many
    /// were.
    #[serde(rename = "p")]
    pub(super) progressed: u64,
    #[serde(rename = "r")]
    pub(super) ready: usize,
    /// Restarts that an earlier run of the same candidate has been rolled back for.
    #[serde(rename = "b")]
    pub(super) restarts_before: u32,
    /// Since when the Service or the Deployment has been missing, in seconds since 1970.
    #[serde(rename = "a", skip_serializing_if = "Option::is_none")]
    pub(super) absent: Option<u64>,
    /// `short_hash` of the name of the Deployment that the run is of; empty in runs of older
    /// versions.
    #[serde(rename = "d", skip_serializing_if = "String::is_empty")]
    pub(super) deployment: String,
}

/// One statistical check of a run.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Test {
    #[serde(rename = "j")]
    pub(super) judge: Judge,
    #[serde(rename = "s")]
    pub(super) stable: Counts,
    #[serde(rename = "c")]
    pub(super) candidate: Counts,
    /// The step's first look has been.
    #[serde(rename = "f")]
    pub(super) looked: bool,
}

impl Evidence {
    /// For `run.state`: JSON of at most 1024 bytes.
    #[must_use]
    pub fn to_text(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// From `run.state`; what cannot be read begins anew.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }
}
