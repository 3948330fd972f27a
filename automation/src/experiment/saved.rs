//! Writes the progress of an experiment's run as a text of at most 1 KiB for the status, and reads
//! it: all that no other field of the status has. So a controller that takes over neither forgets
//! nor counts twice.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Check, GroupCounts, Run, State};
use crate::judge::{Counts, Judge};

/// Bytes that the field may have.
const MOST: usize = 1024;

/// For `run.state`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Saved {
    /// The last time of the schedule that is done with, in seconds since 1970.
    #[serde(rename = "s", skip_serializing_if = "Option::is_none")]
    scheduled: Option<u64>,
    #[serde(rename = "g")]
    generation: i64,
    /// When it was written, in milliseconds since 1970: so each write differs from the one before,
    /// by which other replicas see that the run is driven.
    #[serde(rename = "w")]
    written: u64,
    /// Since when the checks are looked at, in milliseconds since 1970.
    #[serde(rename = "l", skip_serializing_if = "Option::is_none")]
    looking: Option<u64>,
    /// All calls, and the two judges, of each check.
    #[serde(rename = "c")]
    checks: Vec<(Counts, Judge, Judge)>,
}

impl Saved {
    /// Of a state with a run.
    #[must_use]
    pub fn of(state: &State, run: &Run, now: Duration) -> Self {
        let millis = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let checks = run.checks.iter();
        let checks = checks
            .map(|check| (check.counts.all, check.max.clone(), check.tolerance.clone()))
            .collect();
        Self {
            scheduled: state.scheduled.map(|time| time.as_secs()),
            generation: run.generation,
            written: millis(now),
            looking: run.looking.map(millis),
            checks,
        }
    }

    /// As text. Evidence that has no room begins anew after a takeover.
    #[must_use]
    pub fn to_text(&self) -> String {
        let text = |saved: &Self| serde_json::to_string(saved).unwrap_or_default();
        let whole = text(self);
        if whole.len() <= MOST {
            return whole;
        }
        text(&Self {
            checks: Vec::new(),
            ..self.clone()
        })
    }

    /// From a text; what cannot be read begins anew.
    #[must_use]
    pub fn of_text(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_default()
    }

    /// The last time of the schedule that is done with.
    #[must_use]
    pub fn scheduled(&self) -> Option<Duration> {
        self.scheduled.map(Duration::from_secs)
    }

    /// The generation that the run is about.
    #[must_use]
    pub fn generation(&self) -> i64 {
        self.generation
    }

    /// When it was written.
    #[must_use]
    pub fn written(&self) -> Duration {
        Duration::from_millis(self.written)
    }

    /// Since when the checks are looked at.
    #[must_use]
    pub fn looking(&self) -> Option<Duration> {
        self.looking.map(Duration::from_millis)
    }

    /// The checks, with what the status has of the groups: of each the spared and the harmed
    /// calls.
    #[must_use]
    pub fn checks(&self, groups: &[(Counts, Counts)]) -> Vec<Check> {
        let saved = self.checks.iter().map(Some);
        let saved = saved.chain(std::iter::repeat(None));
        let checks = groups.iter().zip(saved).map(|(groups, saved)| {
            let (control, harmed) = *groups;
            let (all, max, tolerance) = saved.cloned().unwrap_or_default();
            Check {
                counts: GroupCounts {
                    all,
                    control,
                    harmed,
                },
                max,
                tolerance,
            }
        });
        checks.collect()
    }
}
