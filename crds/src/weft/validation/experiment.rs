//! Validates a FaultExperiment and parses its meaning.
//!
//! A mistake anywhere costs the whole experiment: a fault that is wider than its author meant is
//! worse than none.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use policy::name::ServiceId;

use super::{Route, release::RateCheck};
use crate::smi::validation::Source;

/// The content of a FaultExperiment.
#[derive(Clone, Debug, PartialEq)]
pub struct Experiment {
    /// What it is to show; empty without one.
    pub hypothesis: Arc<str>,
    /// The Service whose callers meet the fault.
    pub target: ServiceId,
    /// One port of it, as callers know it; `None` for all.
    pub port: Option<u16>,
    /// The requests that it is about. Without any, all.
    pub routes: Vec<Route>,
    /// The callers that it is about. Without any, all.
    pub sources: Vec<Source>,
    /// The pods that it is about.
    pub endpoints: ExperimentEndpoints,
    /// Part of the calls that meet the fault, above 0 and at most 1; at most a half where a check
    /// has a tolerance.
    pub share: f64,
    /// What happens to them.
    pub fault: ExperimentFault,
    /// Longest time of a run.
    pub duration: Duration,
    /// Requests that each check must have seen.
    pub min_requests: u64,
    /// What must hold, 1 to 4, each of another Service.
    pub checks: Vec<ServiceCheck>,
    /// When runs start by themselves.
    pub schedule: Option<Schedule>,
    /// Whether no run may be.
    pub suspend: bool,
}

/// Pods of the target. Empty means all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExperimentEndpoints {
    /// Labels that a pod must have.
    pub labels: BTreeMap<Arc<str>, Arc<str>>,
    /// Zone that a pod's node must be in.
    pub zone: Option<Arc<str>>,
}

/// What happens to a call. There is a delay or an ending, or both.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExperimentFault {
    /// How long the call waits first.
    pub delay: Option<Duration>,
    /// How it ends; `None` when it goes on.
    pub ending: Option<FaultEnding>,
}

/// How a call ends that meets a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultEnding {
    /// The caller's proxy answers.
    Abort {
        /// Status of HTTP, 400 to 599.
        http_status: u16,
        /// Status of gRPC, 1 to 16; what gRPC reads from the status of HTTP when `None`.
        grpc_status: Option<u8>,
    },
    /// As if nobody listened.
    Refuse,
    /// As if the connection were lost before an answer.
    Reset,
}

/// What must hold for one Service.
#[derive(Clone, Debug, PartialEq)]
pub struct ServiceCheck {
    /// The Service whose answers are judged.
    pub service: ServiceId,
    /// How many of them may fail.
    pub error_rate: RateCheck,
}

/// When runs start by themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    /// Five fields, as in a CronJob: numbers, names of months and weekdays, `*`, lists, ranges,
    /// steps.
    pub cron: Arc<str>,
    /// Name in the IANA database; whether it exists is not known here.
    pub time_zone: Arc<str>,
}
