//! FaultExperiment: a fault that a share of calls meets for a time, and what must hold meanwhile.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::{HOUR, between};
use super::share::percent;
use super::{CheckCounts, FAULT_EXPERIMENTS, GROUP, RouteRef, SourceRef, VERSION};
use crate::{
    kind::{kind, status_words},
    smi::{conditions_schema, without_defaults},
};

kind! {
    /// Makes a share of the calls to a Service fail or wait for a time, and ends by itself.
    FaultExperiment, spec FaultExperimentSpec, status FaultExperimentStatus,
    group GROUP, version VERSION, plural FAULT_EXPERIMENTS
}

/// What a FaultExperiment asks for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("required" = ["targetRef", "share", "fault", "duration", "checks"]),
    extend("x-kubernetes-validations" = [
        { "rule": "!self.checks.exists(check, has(check.errorRate.tolerance)) || double(self.share.replace('%', '')) <= 50.0", "message": "share must be at most 50% beside a check with a tolerance" },
    ]),
    transform = without_defaults
)]
pub struct FaultExperimentSpec {
    /// What the experiment is to show, in a sentence of at most 256 characters. None when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub hypothesis: Option<String>,
    /// The Service whose callers meet the fault.
    pub target_ref: FaultTargetRef,
    /// Limits the fault to requests that fit one of these HTTPRouteGroups of this namespace, 1 to
    /// 16. All requests and connections when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 16))]
    pub routes: Option<Vec<RouteRef>>,
    /// Limits the fault to these callers, 1 to 64, as in a TrafficTarget. All callers whose
    /// namespaces allow it when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub sources: Option<Vec<SourceRef>>,
    /// Limits the fault to calls that go to these pods. All pods when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<FaultEndpoints>,
    /// Share of the calls that meet the fault, from 0.01% to 100%; checks with a tolerance need
    /// at most 50%.
    #[schemars(schema_with = "percent::<1, 10_000>")]
    pub share: String,
    /// What happens to these calls.
    pub fault: FaultEffect,
    /// Longest time of a run, from 10s to 1h.
    #[schemars(schema_with = "between::<10_000, HOUR>")]
    pub duration: String,
    /// Requests that each check must have seen for a verdict of `Tolerated`, from 0 to 1000000.
    /// 100 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_requests: Option<i64>,
    /// What must hold during the run, 1 to 4, one for a Service; a check that fails ends the run.
    #[schemars(
        length(min = 1, max = 4),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["service"])
    )]
    pub checks: Vec<ExperimentCheck>,
    /// When runs start by themselves. Only by the command `run` when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub schedule: Option<ExperimentSchedule>,
    /// Ends the run and lets none start. false when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,
}

/// The Service that an experiment is about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["kind", "name"]), transform = without_defaults)]
pub struct FaultTargetRef {
    /// `Service`.
    #[schemars(extend("enum" = ["Service"]))]
    pub kind: String,
    /// Name of the Service, in this namespace.
    #[schemars(length(min = 1, max = 63))]
    pub name: String,
    /// One port of the Service, by the number that callers use. All ports when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i64>,
}

/// Pods of the Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct FaultEndpoints {
    /// Labels that a pod must have, at most 8. Any when empty or left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 8))]
    pub labels: Option<BTreeMap<String, String>>,
    /// Zone that a pod's node must be in. Any when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub zone: Option<String>,
}

/// What happens to a call.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "[has(self.abort), has(self.refuse), has(self.reset)].filter(set, set).size() <= 1", "message": "must hold at most one of abort, refuse and reset" },
        { "rule": "has(self.delay) || has(self.abort) || has(self.refuse) || has(self.reset)", "message": "must hold delay, abort, refuse or reset" },
    ]),
    transform = without_defaults
)]
pub struct FaultEffect {
    /// How long the call waits first, from 1ms to 30s. No wait when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "between::<1, 30_000>")]
    pub delay: Option<String>,
    /// The caller's proxy answers with an error. Not when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abort: Option<FaultAbort>,
    /// As if nothing listened at the address. Not when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub refuse: Option<NoSettings>,
    /// As if the connection were lost before an answer. Not when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reset: Option<NoSettings>,
}

/// An error in the place of the answer.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct FaultAbort {
    /// Status of HTTP, from 400 to 599. 503 when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 400, max = 599))]
    pub http_status: Option<i64>,
    /// Status of gRPC, from 1 to 16. When left out, what gRPC reads from `httpStatus`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 16))]
    pub grpc_status: Option<i64>,
}

/// An object without fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct NoSettings {}

/// What must hold for one Service.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["service", "errorRate"]), transform = without_defaults)]
pub struct ExperimentCheck {
    /// The Service whose answers are judged, in this namespace.
    #[schemars(length(min = 1, max = 63))]
    pub service: String,
    /// How many of its calls may fail.
    pub error_rate: CheckedErrorRate,
}

/// How many calls may fail.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-validations" = [
        { "rule": "has(self.max) || has(self.tolerance)", "message": "must hold max, tolerance or both" },
    ]),
    transform = without_defaults
)]
pub struct CheckedErrorRate {
    /// Most failed calls of all, from 0.01% to 90%. No bound when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "percent::<1, 9000>")]
    pub max: Option<String>,
    /// Points of percent by which calls of requests that meet the fault may fail more often than
    /// those of an equal share that do not, from 0.01% to 90%. Not compared when left out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "percent::<1, 9000>")]
    pub tolerance: Option<String>,
}

/// When runs start.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(extend("required" = ["cron"]), transform = without_defaults)]
pub struct ExperimentSchedule {
    /// Minute, hour, day of the month, month and day of the week, as in a CronJob.
    #[schemars(length(min = 9, max = 128))]
    pub cron: String,
    /// Name of a time zone in the IANA database, such as `Europe/Berlin`. `Etc/UTC` when left
    /// out.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 64))]
    pub time_zone: Option<String>,
}

/// What the mesh says about a FaultExperiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(
    extend("x-kubernetes-preserve-unknown-fields" = true),
    transform = without_defaults
)]
pub struct FaultExperimentStatus {
    /// `Pending`, `Waiting`, `Running` or `Finished`. Left out until Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// What happens and what comes next, for the columns of `kubectl get`. Left out when there is
    /// nothing to say.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub summary: Option<String>,
    /// What the experiment is about, such as `payments:8080`, for the columns of `kubectl get`.
    /// Left out until Weft has seen the object.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// The verdict of the last run that ended. Left out before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// The run, also after its end until the next. Left out before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<ExperimentRun>,
    /// The calls of that run. Left out before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<ExperimentCalls>,
    /// What each check found in that run. Empty before the first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub checks: Vec<ExperimentCheckStatus>,
    /// The last runs, the newest first, at most 10. Empty before the first has ended.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    pub history: Vec<ExperimentHistory>,
    /// The last command that was honoured, as its annotation had it. Left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_command: Option<String>,
    /// `Accepted`, `ResolvedRefs`, `Programmed`, `Ready` and `Stalled`, each with its reason.
    /// Empty until Weft has seen the object.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "conditions_schema")]
    pub conditions: Vec<Condition>,
}

/// One run of an experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct ExperimentRun {
    /// Counts the runs of the experiment from 1. Not known when left out.
    #[schemars(range(min = 0))]
    pub number: i64,
    /// When the command or the schedule was honoured, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requested_at: Option<String>,
    /// When the fault began, RFC 3339. Left out before.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When the fault ends at the latest, RFC 3339. Left out before it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at: Option<String>,
    /// Field manager of the command that started it, or `schedule`. Left out when it is not
    /// known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// The evidence of the checks, for the controller that takes over. Left out without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub state: Option<String>,
}

/// What an experiment did to calls.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct ExperimentCalls {
    /// Calls that the experiment is about. 0 when left out.
    #[schemars(range(min = 0))]
    pub total: i64,
    /// Those of them that met the fault. 0 when left out.
    #[schemars(range(min = 0))]
    pub harmed: i64,
    /// Those that were spared because the caller's namespace does not allow faults. 0
    /// when left out.
    #[schemars(range(min = 0))]
    pub excluded: i64,
    /// Those that were spared because the caller's proxy held as many as it may. 0 when left out.
    #[schemars(range(min = 0))]
    pub beyond_limit: i64,
    /// Those without a trace, which meet the fault by chance. 0 when left out.
    #[schemars(range(min = 0))]
    pub untraced: i64,
}

/// What one check of an experiment found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct ExperimentCheckStatus {
    /// Service and check, such as `checkout errorRate`. Never left out.
    pub name: String,
    /// What it says, in one word. Left out until it says something.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
    /// What speaks for that, such as `0.4 of 400`. Left out without any.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub evidence: Option<String>,
    /// Calls of requests that were spared. Left out when they are not compared.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub control: Option<CheckCounts>,
    /// Calls of requests that met the fault. Left out before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub harmed: Option<CheckCounts>,
}

/// A run that has ended.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
#[schemars(transform = without_defaults)]
pub struct ExperimentHistory {
    /// Number of the run. Not known when left out.
    #[schemars(range(min = 0))]
    pub number: i64,
    /// `Tolerated`, `Harmful`, `Inconclusive`, `Stopped` or `NotStarted`. Never left out.
    pub verdict: String,
    /// Why, in one sentence. Left out when the verdict says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Field manager of the command that started it, or `schedule`. Left out when it is not
    /// known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    /// When it began, RFC 3339. Left out when the fault never began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_at: Option<String>,
    /// When it ended, RFC 3339. Left out when it is not known.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<String>,
    /// The hypothesis that the run had. Left out without one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hypothesis: Option<String>,
    /// What its calls were. Left out when the fault never began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub calls: Option<ExperimentCalls>,
    /// What its checks found. Empty when the fault never began.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    pub checks: Vec<ExperimentCheckStatus>,
}

status_words! {
    /// What an experiment does, as its status has it.
    #[derive(Default)]
    ExperimentPhase {
        /// It has not run yet.
        #[default]
        Pending,
        /// A run was asked for, and something stands against its start.
        Waiting,
        /// Calls meet the fault.
        Running,
        /// The last run has ended.
        Finished,
    }
}

impl ExperimentPhase {
    /// Whether it has a run that has not ended.
    #[must_use]
    pub const fn is_under_way(self) -> bool {
        match self {
            Self::Waiting | Self::Running => true,
            Self::Pending | Self::Finished => false,
        }
    }
}

status_words! {
    /// How a run of an experiment ended.
    ExperimentVerdict {
        /// Every check held, with enough requests.
        Tolerated,
        /// A check failed.
        Harmful,
        /// There were not enough requests.
        Inconclusive,
        /// A user, an annotation or a release ended it before.
        Stopped,
        /// The fault never began.
        NotStarted,
    }
}
