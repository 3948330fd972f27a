//! Validates a FaultExperiment and parses its meaning.
//!
//! A mistake anywhere costs the whole experiment: a fault that is wider than its author meant is
//! worse than none.

use std::ops::RangeInclusive;
use std::{collections::BTreeMap, sync::Arc, sync::LazyLock, time::Duration};

use policy::name::ServiceId;
use serde_json::Value;

use super::reader::{FieldReader, shown};
use super::release::{RATES, REQUESTS, RateCheck};
use super::{Route, cron, objects, scope};
use crate::label_syntax::{is_label_key, is_label_value};
use crate::near::hint;
use crate::smi::schema;
use crate::smi::validation::{
    Code, Mistake, Mistakes, Severity, Source, Validate, ValidationContext, unknown_fields,
    valid_port,
};
use crate::weft::duration::HOUR;
use crate::weft::{
    ExperimentCheck, FaultEffect, FaultEndpoints, FaultExperimentSpec, share::Hundredths,
};

/// What every mistake ends with.
const NO_EFFECT: &str = "the experiment has no effect";
/// Characters of a hypothesis, as in the schema.
const LONGEST_HYPOTHESIS: usize = 256;
/// Most checks, as in the schema.
const MOST_CHECKS: usize = 4;
/// Most labels of endpoints, as in the schema.
const MOST_LABELS: usize = 8;
const SHARES: RangeInclusive<Hundredths> = Hundredths(1)..=Hundredths(10_000);
/// Largest share beside which an equal part of the requests is left to compare with.
const COMPARED: f64 = 0.5;
const MIN_REQUESTS: u64 = 100;
const RUNS: RangeInclusive<Duration> = Duration::from_secs(10)..=Duration::from_millis(HOUR);
const DELAYS: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(30);
const HTTP_STATUSES: RangeInclusive<u16> = 400..=599;
const HTTP_STATUS: u16 = 503;
const GRPC_STATUSES: RangeInclusive<u8> = 1..=16;
/// Where no time zone is written; every database has it.
const UTC: &str = "Etc/UTC";

/// Fields of the kind that hold objects wherever they stand.
const OBJECTS: [&str; 9] = [
    "targetRef",
    "endpoints",
    "labels",
    "fault",
    "abort",
    "refuse",
    "reset",
    "errorRate",
    "schedule",
];

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::<FaultExperimentSpec>);

/// The content of a FaultExperiment. Where a mistake stands against it, it is suspended, has no
/// checks and harms no call.
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

impl Default for Experiment {
    /// One that has no effect.
    fn default() -> Self {
        Self {
            hypothesis: "".into(),
            target: ServiceId::new("", ""),
            port: None,
            routes: Vec::new(),
            sources: Vec::new(),
            endpoints: ExperimentEndpoints::default(),
            share: 0.0,
            fault: ExperimentFault {
                delay: None,
                ending: None,
            },
            duration: Duration::ZERO,
            min_requests: MIN_REQUESTS,
            checks: Vec::new(),
            schedule: None,
            suspend: true,
        }
    }
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
    /// As if nothing listened.
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

impl Validate for FaultExperimentSpec {
    type Validated = Experiment;

    const UNREADABLE: &'static str = NO_EFFECT;

    fn validate(&self, at: &ValidationContext<'_>) -> (Experiment, Vec<Mistake>) {
        let mut mistakes = Mistakes::default();
        let mut reader = FieldReader::new(at.namespace, None, &mut mistakes);
        let experiment = reader.whole_of(NO_EFFECT, |reader| self.read(reader));
        let mistakes = mistakes.into_vec();
        // Routes and callers report what matches nothing for themselves.
        let refused = |mistake: &Mistake| mistake.severity == Severity::Refuse;
        let experiment = experiment.filter(|_| !mistakes.iter().any(refused));
        let experiment = experiment.unwrap_or_else(|| Experiment {
            target: ServiceId::new(at.namespace, shown(&self.target_ref.name)),
            ..Experiment::default()
        });
        (experiment, mistakes)
    }

    fn unreadable(_: &Value, _: &ValidationContext<'_>) -> Experiment {
        Experiment::default()
    }

    fn misshapen(written: &Value, mistakes: &mut Mistakes) {
        objects("spec", written, &OBJECTS, mistakes);
    }

    fn besides(written: &Value, mistakes: &mut Mistakes) {
        unknown_fields("this kind", "spec", written, &SCHEMA, mistakes);
    }
}

impl FaultExperimentSpec {
    fn read(&self, reader: &mut FieldReader<'_>) -> Option<Experiment> {
        let (target, port) = self.target(reader);
        let no_route = self.routes.as_ref().is_some_and(Vec::is_empty);
        let no_source = self.sources.as_ref().is_some_and(Vec::is_empty);
        // An edit that takes the last one out does not mean all.
        for (field, is_empty) in [("spec.routes", no_route), ("spec.sources", no_source)] {
            if is_empty {
                let text = "is empty, so no call would be harmed; name one, or remove the field to \
                            mean all";
                reader.wrong(field, text);
            }
        }
        let routes = scope::routes(self.routes.as_deref(), reader.mistakes());
        let sources = scope::sources(self.sources.as_deref(), reader.mistakes());
        let endpoints = endpoints(self.endpoints.as_ref(), reader);
        let checks = checks(&self.checks, reader);
        let share = self.share(&checks, reader);
        let fault = fault(&self.fault, reader);
        warn_of_target(&checks, target.as_ref(), &fault, reader);
        let field = "spec.minRequests";
        let min_requests = reader.number_or(field, self.min_requests, &REQUESTS, MIN_REQUESTS);
        let zero = Duration::ZERO;
        let duration = reader.duration_or("spec.duration", Some(&self.duration), &RUNS, zero);
        Some(Experiment {
            hypothesis: self.hypothesis(reader),
            target: target?,
            port,
            routes: routes.into_iter().flatten().collect(),
            sources,
            endpoints,
            share: share?,
            fault,
            duration,
            min_requests,
            checks,
            schedule: self.schedule(reader),
            suspend: self.suspend.unwrap_or(false),
        })
    }

    fn hypothesis(&self, reader: &mut FieldReader<'_>) -> Arc<str> {
        let text = self.hypothesis.as_deref().unwrap_or_default();
        let characters = text.chars().count();
        if characters > LONGEST_HYPOTHESIS {
            let text = format!(
                "has {characters} characters, but may have {LONGEST_HYPOTHESIS}; shorten it"
            );
            reader.wrong("spec.hypothesis", &text);
        }
        text.into()
    }

    fn target(&self, reader: &mut FieldReader<'_>) -> (Option<ServiceId>, Option<u16>) {
        let written = &self.target_ref;
        if written.kind != scope::SERVICE {
            let meant = hint(&written.kind, [scope::SERVICE]);
            let kind = shown(&written.kind);
            let text = format!("is {kind:?}, but must be {}{meant}", scope::SERVICE);
            reader.wrong("spec.targetRef.kind", &text);
        }
        let service = reader.service("spec.targetRef.name", &written.name);
        let port = written.port;
        let port = port.and_then(|port| valid_port("spec.targetRef.port", port, reader.mistakes()));
        (service, port)
    }

    /// A part of the calls, which leaves an equal one where a check compares the two.
    fn share(&self, checks: &[ServiceCheck], reader: &mut FieldReader<'_>) -> Option<f64> {
        const FIELD: &str = "spec.share";
        let share = reader.fraction(FIELD, Some(&self.share), &SHARES)?;
        let compares = |check: &ServiceCheck| check.error_rate.tolerance.is_some();
        if share > COMPARED && checks.iter().any(compares) {
            let text = format!(
                "is {:?}, but a check with a tolerance compares with an equal part that is \
                 spared: write at most 50%, or take the tolerance out",
                shown(&self.share)
            );
            reader.wrong(FIELD, &text);
        }
        Some(share)
    }

    fn schedule(&self, reader: &mut FieldReader<'_>) -> Option<Schedule> {
        let written = self.schedule.as_ref()?;
        if let Err(bad) = cron::check(&written.cron) {
            let text = format!("is {:?}, but {bad}", shown(&written.cron));
            reader.wrong("spec.schedule.cron", &text);
        } else if cron::is_never(&written.cron) {
            let text = format!(
                "is {:?}, a day that no month has, so no run ever starts by it; correct the day or \
                 the month",
                shown(&written.cron)
            );
            reader.caution("spec.schedule.cron", Code::FieldIgnored, &text);
        }
        let time_zone = written.time_zone.as_deref().unwrap_or(UTC);
        if !cron::is_time_zone(time_zone) {
            let text = format!(
                "is {:?}, but must be the name of a time zone such as \"Europe/Berlin\"",
                shown(time_zone)
            );
            reader.wrong("spec.schedule.timeZone", &text);
        }
        Some(Schedule {
            cron: written.cron.as_str().into(),
            time_zone: time_zone.into(),
        })
    }
}

fn endpoints(
    written: Option<&FaultEndpoints>,
    reader: &mut FieldReader<'_>,
) -> ExperimentEndpoints {
    const LABELS: &str = "spec.endpoints.labels";
    let mut endpoints = ExperimentEndpoints::default();
    let Some(written) = written else {
        return endpoints;
    };
    let labels: Vec<_> = written.labels.iter().flatten().collect();
    if reader.fits(LABELS, &labels, MOST_LABELS) {
        for (key, value) in labels {
            if !is_label_key(key) || !is_label_value(value) {
                let text = "is no label that a pod can have";
                reader.wrong(&format!("{LABELS}[{}]", shown(key)), text);
            }
            let (key, value) = (key.as_str().into(), value.as_str().into());
            endpoints.labels.insert(key, value);
        }
    }
    if let Some(zone) = &written.zone {
        if zone.is_empty() || !is_label_value(zone) {
            let text = format!("is {:?}, but must be the name of a zone", shown(zone));
            reader.wrong("spec.endpoints.zone", &text);
        }
        endpoints.zone = Some(zone.as_str().into());
    }
    endpoints
}

fn fault(written: &FaultEffect, reader: &mut FieldReader<'_>) -> ExperimentFault {
    const FIELD: &str = "spec.fault";
    let delay = written.delay.as_deref().map(|text| {
        let field = format!("{FIELD}.delay");
        reader.duration_or(&field, Some(text), &DELAYS, Duration::ZERO)
    });
    let abort = written.abort.as_ref().map(|abort| {
        let (http, grpc) = (abort.http_status, abort.grpc_status);
        let field = format!("{FIELD}.abort.httpStatus");
        let http_status = reader.number_or(&field, http, &HTTP_STATUSES, HTTP_STATUS);
        let field = format!("{FIELD}.abort.grpcStatus");
        FaultEnding::Abort {
            http_status,
            grpc_status: grpc.and_then(|raw| reader.number(&field, raw, &GRPC_STATUSES)),
        }
    });
    let refuse = written.refuse.as_ref().map(|_| FaultEnding::Refuse);
    let reset = written.reset.as_ref().map(|_| FaultEnding::Reset);
    let endings: Vec<FaultEnding> = [abort, refuse, reset].into_iter().flatten().collect();
    if endings.len() > 1 {
        let text = "holds more than one of abort, refuse and reset, but a call ends once; leave \
                    one of them";
        reader.wrong(FIELD, text);
    }
    if endings.is_empty() && delay.is_none() {
        let text = "holds none of delay, abort, refuse and reset, so no call would be harmed; \
                    write one of them";
        reader.wrong(FIELD, text);
    }
    ExperimentFault {
        delay,
        ending: endings.first().copied(),
    }
}

/// Calls that the caller's proxy ends never reach the pods of the target, whose proxies count.
fn warn_of_target(
    checks: &[ServiceCheck],
    target: Option<&ServiceId>,
    fault: &ExperimentFault,
    reader: &mut FieldReader<'_>,
) {
    let is_target = |check: &ServiceCheck| target == Some(&check.service);
    if fault.ending.is_some() && checks.iter().any(is_target) {
        let text = "names the target itself, which harmed calls do not reach, so nothing of them is \
                    measured there; check a Service that calls it";
        reader.caution("spec.checks", Code::FieldIgnored, text);
    }
}

fn checks(written: &[ExperimentCheck], reader: &mut FieldReader<'_>) -> Vec<ServiceCheck> {
    const FIELD: &str = "spec.checks";
    if written.is_empty() {
        let text = "is empty, but an experiment without a check proves nothing; name a Service and \
                    its errorRate";
        reader.wrong(FIELD, text);
    }
    if !reader.fits(FIELD, written, MOST_CHECKS) {
        return Vec::new();
    }
    let mut checks: Vec<ServiceCheck> = Vec::with_capacity(written.len());
    for (i, written) in written.iter().enumerate() {
        let field = format!("{FIELD}[{i}]");
        let Some(service) = reader.service(&format!("{field}.service"), &written.service) else {
            continue;
        };
        if checks.iter().any(|check| check.service == service) {
            let text = format!(
                "{:?} is named twice; leave one out",
                shown(&written.service)
            );
            reader.wrong(&format!("{field}.service"), &text);
        }
        let mut rate = |name: &str, text: Option<&String>| {
            let field = format!("{field}.errorRate.{name}");
            reader.fraction(&field, text.map(String::as_str), &RATES)
        };
        let rates = &written.error_rate;
        let error_rate = RateCheck {
            tolerance: rate("tolerance", rates.tolerance.as_ref()),
            max: rate("max", rates.max.as_ref()),
        };
        if rates.tolerance.is_none() && rates.max.is_none() {
            let text = "holds neither of max and tolerance; write one or both";
            reader.wrong(&format!("{field}.errorRate"), text);
        }
        checks.push(ServiceCheck {
            service,
            error_rate,
        });
    }
    checks
}
