//! CanaryRelease: how calls go over to a new revision of a Deployment, step by step, and by which
//! checks the mesh takes them back.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{DAY, WEEK, between};
use super::share::percent;
use super::{CANARY_RELEASES, GROUP, VERSION};
use crate::{
    kind::{kind, status_words},
    smi::{SplitMatch, conditions_schema, without_defaults},
};

kind! {
    /// Gives a new revision of a Deployment its calls step by step, and takes them back.
    CanaryRelease, spec CanaryReleaseSpec, status CanaryReleaseStatus,
    group GROUP, version VERSION, plural CANARY_RELEASES
}

/// What a CanaryRelease asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["service", "deployment"]),
    extend("x-kubernetes-validations" = [
        { "rule": "!has(self.steps) || self.steps.filter(step, !has(step.matches) || step.matches.size() == 0).map(step, has(step.weight) ? step.weight : 0).isSorted()", "message": "weights of steps never fall, but by matches" },
    ]),
    transform = without_defaults
)]
pub struct CanaryReleaseSpec {
    /// The Service whose calls are shared out, in this namespace. It has a selector, is not
    /// headless and publishes no addresses that are not ready.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// The Deployment whose new revisions are released, in this namespace. Its pods are in the
    /// mesh and its strategy is RollingUpdate.
    #[schemars(length(min = 1, max = 253))]
    pub deployment: String,
    /// What the new revision gets, one step after the other, 1 to 20. Steps of 5, 20, 50 and 100
    /// percent, 1m each, when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 20))]
    pub steps: Option<Vec<CanaryStep>>,
    /// Requests that the new revision must have got in a step before the step can end, from 0 to
    /// 1000000. 100 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_requests: Option<i64>,
    /// What the new revision is judged by. As an empty one says when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub checks: Option<CanaryChecks>,
    /// Longest time of a run, without its pauses, from 1m to 168h; a run that takes longer is
    /// rolled back. 24h when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<60_000, WEEK>")]
    pub deadline: Option<String>,
    /// Switches the release off: updates of the Deployment are ordinary rolling updates. false
    /// when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// What the new revision gets for a time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "has(self.mirror) != has(self.weight)", "message": "must hold one of mirror and weight" },
        { "rule": "!has(self.mirror) || !has(self.matches) || self.matches.size() == 0", "message": "matches limits weight only, not mirror" },
    ]),
    transform = without_defaults
)]
pub struct CanaryStep {
    /// Copies of GET, HEAD and OPTIONS requests that the new revision gets, in percent from 1 to
    /// 100; answers to copies are thrown away, and it gets no calls. No copies when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub mirror: Option<i64>,
    /// Share of calls that the new revision gets, in percent from 1 to 100; at most its share of
    /// the pods. No calls when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub weight: Option<i64>,
    /// Shortest time of the step, from 1s to 24h. 1m when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<1000, DAY>")]
    pub duration: Option<String>,
    /// Waits for the command `resume` at the end of the step. false when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<bool>,
    /// HTTPRouteGroups of this namespace, at most 16. The weight is for requests only that fit
    /// one of them; all others keep the weight of the step before. All requests when empty or
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub matches: Option<Vec<SplitMatch>>,
}

/// What the new revision is judged by. A check that is set is taken as a whole.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct CanaryChecks {
    /// Calls that fail. As an empty one says when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_rate: Option<CanaryErrorRate>,
    /// Calls that are slow. As an empty one says when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency: Option<CanaryLatency>,
    /// Containers that start again. As an empty one says when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub restarts: Option<CanaryRestarts>,
}

/// How many calls may fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct CanaryErrorRate {
    /// Points of percent above the stable revision's share of failed calls, from 0.01% to 90%.
    /// "1%" when left out and `max` is too; not compared when `max` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "percent::<1, 9000>")]
    pub tolerance: Option<String>,
    /// Most failed calls whatever the stable revision does, from 0.01% to 90%. No bound when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "percent::<1, 9000>")]
    pub max: Option<String>,
}

/// How many calls may be slow.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct CanaryLatency {
    /// The percentile of the time to the end of an answer: 50, 90, 95 or 99; 0 is off. 99 when
    /// left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 99), extend("enum" = [0, 50, 90, 95, 99]))]
    pub percentile: Option<i64>,
    /// How far it may be above the stable revision's, of that one, from 1% to 900%. "20%" when
    /// left out and `max` is too; not compared when `max` is set.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "percent::<100, 90_000>")]
    pub tolerance: Option<String>,
    /// Longest it may be whatever the stable revision does, from 1ms to 1m. No bound when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<1, 60_000>")]
    pub max: Option<String>,
}

/// How often containers may start again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct CanaryRestarts {
    /// Most restarts of containers of the new revision in a run, from 0 to 1000. 0 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub max: Option<i64>,
}

/// What the mesh says about a CanaryRelease.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-preserve-unknown-fields" = true),
    transform = without_defaults
)]
pub struct CanaryReleaseStatus {
    /// `Idle`, `Waiting`, `Progressing`, `Paused`, `Promoting` or `RolledBack`. Left out until
    /// Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What happens and what comes next, for the columns of `kubectl get`. Left out when there is
    /// nothing to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// The step of the run and how many there are, such as `2/4`, for the columns of `kubectl
    /// get`. Left out without a run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub progress: Option<String>,
    /// The revision that all calls went to before the run. Left out until it is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<RevisionStatus>,
    /// The revision that is released, or was rolled back. Left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<RevisionStatus>,
    /// The run. Left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<ReleaseRun>,
    /// What each check found in the run's step. Empty without a run.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub checks: Vec<ReleaseCheck>,
    /// The last runs, the newest first, at most 10. Empty before the first has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<ReleaseHistory>,
    /// The last command that was honoured, as its annotation had it. Left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_command: Option<String>,
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Ready` and `Stalled`, each with its reason.
    /// Empty until Weft has seen the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// One revision of the Deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct RevisionStatus {
    /// Its `pod-template-hash`. Empty when it is not known.
    pub revision: String,
    /// Pods of it that serve. None when left out.
    #[schemars(range(min = 0))]
    pub pods: i64,
}

/// A run: one candidate from its first gated pod to its end.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct ReleaseRun {
    /// Counts the runs of the release from 1. Not known when left out.
    #[schemars(range(min = 0))]
    pub number: i64,
    /// The step, counted from 1; 0 before the first and when left out.
    #[schemars(range(min = 0))]
    pub step: i64,
    /// Percent of calls that the step gives to the candidate, before the cap by pods. 0 when left
    /// out.
    #[schemars(range(min = 0, max = 100))]
    pub weight: i64,
    /// When the run began, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When the step began, RFC 3339. Left out before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step_started_at: Option<String>,
    /// When the pause began, RFC 3339. Left out when the run is not paused.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub paused_at: Option<String>,
    /// Seconds of the pauses that have ended; the deadline does not count them. 0 when left out.
    #[serde(skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0))]
    pub paused_seconds: i64,
    /// Field manager of the command that last changed the run. Left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The evidence of the checks, for the controller that takes over. Left out without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub state: Option<String>,
}

fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// What one check found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct ReleaseCheck {
    /// `errorRate`, `errorRate max`, `latency`, `latency max` or `restarts`. Never left out.
    pub name: String,
    /// What it says of the candidate, in one word. Left out until it says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// What speaks for that, such as `0.4 of 400`. Left out without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// The stable revision's calls. Left out when they are not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stable: Option<CheckCounts>,
    /// The candidate's calls. Left out before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub candidate: Option<CheckCounts>,
}

/// Calls, and those of them that are bad.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct CheckCounts {
    /// Calls. 0 when left out.
    #[schemars(range(min = 0))]
    pub requests: i64,
    /// Those of them that are bad by the check. 0 when left out.
    #[schemars(range(min = 0))]
    pub bad: i64,
}

/// A run that has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct ReleaseHistory {
    /// Number of the run. Not known when left out.
    #[schemars(range(min = 0))]
    pub number: i64,
    /// `pod-template-hash` of its candidate. Empty when it is not known.
    pub revision: String,
    /// `Promoted`, `RolledBack`, `Aborted`, `Superseded` or `Bypassed`. Never left out.
    pub result: String,
    /// Why, in one sentence. Left out when the result says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Field manager of the command that ended it. Left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it began, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// Calls that the candidate got. 0 when left out.
    #[schemars(range(min = 0))]
    pub requests: i64,
    /// Those of them that failed. 0 when left out.
    #[schemars(range(min = 0))]
    pub bad: i64,
}

status_words! {
    /// What a release does, as its status has it.
    #[derive(Default)]
    ReleasePhase {
        /// No run: every pod is of the stable revision.
        #[default]
        Idle,
        /// A new revision has no pod yet that serves, or several revisions are left from before.
        Waiting,
        /// A step runs.
        Progressing,
        /// A run waits for `resume`.
        Paused,
        /// Every step is done: the gates open.
        Promoting,
        /// The candidate gets no calls until revert, new template or `retry`.
        RolledBack,
    }
}

impl ReleasePhase {
    /// The commands that have an effect on a run in this phase.
    #[must_use]
    pub const fn commands(self) -> &'static [&'static str] {
        match self {
            Self::Idle => &[],
            Self::Waiting => &["abort"],
            Self::Progressing => &["pause", "promote", "abort"],
            Self::Paused => &["resume", "promote", "abort"],
            Self::Promoting => &["pause", "resume", "abort"],
            Self::RolledBack => &["retry"],
        }
    }
}

status_words! {
    /// How a run ended.
    ReleaseResult {
        /// The candidate is the stable revision.
        Promoted,
        /// A check, the deadline or a command took the calls back.
        RolledBack,
        /// The template went back to the stable revision's.
        Aborted,
        /// A newer revision took the candidate's place.
        Superseded,
        /// The candidate serves without having been judged to the end.
        Bypassed,
    }
}
