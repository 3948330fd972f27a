//! Validates a CanaryRelease and parses its meaning.
//!
//! A mistake anywhere costs the whole release: half of one would be a rollout without an author.
//! Updates of its Deployment are ordinary rolling updates then.

use std::{ops::RangeInclusive, sync::Arc, sync::LazyLock, time::Duration};

use policy::name::ServiceId;
use serde_json::Value;

use super::objects;
use super::reader::{FieldReader, shown};
use crate::label_syntax::is_dns_subdomain;
use crate::smi::validation::{
    Code, Mistake, Mistakes, Validate, ValidationContext, unknown_fields,
};
use crate::smi::{RULE_HTTP_ROUTE_GROUP, SPECS_GROUP, SplitMatch, schema};
use crate::weft::duration::{DAY, WEEK, written};
use crate::weft::{
    CanaryChecks, CanaryErrorRate, CanaryLatency, CanaryReleaseSpec, CanaryStep, share::Hundredths,
};

/// What every mistake ends with.
const NO_EFFECT: &str = "the release has no effect";
/// Most steps, as in the schema.
const MOST_STEPS: usize = 20;
/// Most groups of a step, as in the schema.
const MOST_GROUPS: usize = 16;
/// Weights of the steps where none are written. Each at most four times the one before, so that
/// no step brings the new revision far more calls than it has shown to bear.
const WEIGHTS: [u8; 4] = [5, 20, 50, 100];
/// Requests of a step where no number is written.
const MIN_REQUESTS: u64 = 100;
/// Most that a number of requests may be; the same for an experiment.
pub(super) const REQUESTS: RangeInclusive<u64> = 0..=1_000_000;
/// Shares of calls that may fail: beyond them nothing is left to judge.
pub(super) const RATES: RangeInclusive<Hundredths> = Hundredths(1)..=Hundredths(9000);
/// How far a percentile may be above another, in hundredths of a percent.
const SLOWER: RangeInclusive<Hundredths> = Hundredths(100)..=Hundredths(90_000);
const STEP: Duration = Duration::from_secs(60);
const STEPS: RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_millis(DAY);
const DEADLINE: Duration = Duration::from_millis(DAY);
const DEADLINES: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_millis(WEEK);
const LATENCIES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(60);

/// Fields of the kind that hold objects wherever they stand.
const OBJECTS: [&str; 4] = ["checks", "errorRate", "latency", "restarts"];

static SCHEMA: LazyLock<Value> = LazyLock::new(schema::<CanaryReleaseSpec>);

/// The content of a CanaryRelease. Where a mistake stands against it, it is suspended and has no
/// steps.
#[derive(Clone, Debug, PartialEq)]
pub struct Release {
    /// The Service whose calls are shared out.
    pub service: ServiceId,
    /// Name of the Deployment, in the release's namespace.
    pub deployment: Arc<str>,
    /// The steps, at least one; the weight of those without groups never falls.
    pub steps: Vec<ReleaseStep>,
    /// Requests that the candidate must have got in a step.
    pub min_requests: u64,
    /// What the candidate is judged by.
    pub checks: ReleaseChecks,
    /// Longest time of a run without its pauses.
    pub deadline: Duration,
    /// Whether updates of the Deployment are ordinary rolling updates.
    pub suspend: bool,
}

impl Default for Release {
    /// One that has no effect.
    fn default() -> Self {
        Self {
            service: ServiceId::new("", ""),
            deployment: "".into(),
            steps: Vec::new(),
            min_requests: MIN_REQUESTS,
            checks: ReleaseChecks::DEFAULT,
            deadline: DEADLINE,
            suspend: true,
        }
    }
}

/// What the candidate gets for a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReleaseStep {
    /// Percent of GET, HEAD and OPTIONS requests that are copied, from 1; only where `weight` is
    /// 0 and there are no groups.
    pub mirror: Option<u8>,
    /// Percent of calls, from 1 to 100; 0 in a step with `mirror` only.
    pub weight: u8,
    /// Shortest time of the step.
    pub duration: Duration,
    /// Whether the step ends by the command `resume` only.
    pub pause: bool,
    /// Names of HTTPRouteGroups of the release's namespace. The weight is for requests that fit
    /// one of them; all others keep the weight of the step before. Without any, for all.
    pub groups: Vec<Arc<str>>,
}

/// What the candidate is judged by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReleaseChecks {
    /// Failed calls; always `Some` today.
    pub error_rate: Option<RateCheck>,
    /// Slow calls; `None` when it is off.
    pub latency: Option<LatencyCheck>,
    /// Most restarts of containers of the candidate; always `Some` today.
    pub restarts: Option<u32>,
}

impl ReleaseChecks {
    /// What nothing written means.
    pub const DEFAULT: Self = Self {
        error_rate: Some(RateCheck {
            tolerance: Some(0.01),
            max: None,
        }),
        latency: Some(LatencyCheck {
            percentile: 99,
            tolerance: Some(0.2),
            max: None,
        }),
        restarts: Some(0),
    };
}

/// How many calls may be bad. One of the two is set at least. Both are parts of 1.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct RateCheck {
    /// How far the share may be above that of the calls it is compared with.
    pub tolerance: Option<f64>,
    /// How large the share may be, whatever it is compared with.
    pub max: Option<f64>,
}

/// How slow calls may be. One of `tolerance` and `max` is set at least.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LatencyCheck {
    /// 50, 90, 95 or 99.
    pub percentile: u8,
    /// How far the percentile may be above stable's, as a part of that one.
    pub tolerance: Option<f64>,
    /// How long the percentile may be, whatever stable's is.
    pub max: Option<Duration>,
}

impl Validate for CanaryReleaseSpec {
    type Validated = Release;

    const UNREADABLE: &'static str = NO_EFFECT;

    fn validate(&self, at: &ValidationContext<'_>) -> (Release, Vec<Mistake>) {
        let mut mistakes = Mistakes::default();
        let mut reader = FieldReader::new(at.namespace, None, &mut mistakes);
        let release = reader.whole_of(NO_EFFECT, |reader| {
            let service = reader.service("spec.service", &self.service);
            let deployment = deployment(&self.deployment, reader);
            let steps = steps(self.steps.as_deref(), reader);
            let min_requests = reader.number_or(
                "spec.minRequests",
                self.min_requests,
                &REQUESTS,
                MIN_REQUESTS,
            );
            let checks = checks(self.checks.as_ref(), reader);
            let deadline = self.deadline.as_deref();
            let deadline = reader.duration_or("spec.deadline", deadline, &DEADLINES, DEADLINE);
            let shortest: Duration = steps.iter().map(|step| step.duration).sum();
            if deadline < shortest {
                let text = format!(
                    "is {}, but the steps alone take {}; make it longer, or steps shorter",
                    written(deadline),
                    written(shortest)
                );
                reader.wrong("spec.deadline", &text);
            }
            Some(Release {
                service: service?,
                deployment: deployment?,
                steps,
                min_requests,
                checks,
                deadline,
                suspend: self.suspend.unwrap_or(false),
            })
        });
        let release = release.unwrap_or_else(|| self.without_effect(at));
        (release, mistakes.into_vec())
    }

    fn unreadable(_: &Value, _: &ValidationContext<'_>) -> Release {
        Release::default()
    }

    fn misshapen(written: &Value, mistakes: &mut Mistakes) {
        objects("spec", written, &OBJECTS, mistakes);
    }

    fn besides(written: &Value, mistakes: &mut Mistakes) {
        unknown_fields("this kind", "spec", written, &SCHEMA, mistakes);
    }
}

impl CanaryReleaseSpec {
    /// What it names, and nothing more.
    fn without_effect(&self, at: &ValidationContext<'_>) -> Release {
        Release {
            service: ServiceId::new(at.namespace, shown(&self.service)),
            deployment: shown(&self.deployment).into(),
            ..Release::default()
        }
    }
}

fn deployment(name: &str, reader: &mut FieldReader<'_>) -> Option<Arc<str>> {
    if is_dns_subdomain(name) {
        return Some(name.into());
    }
    let text = format!(
        "is {:?}, but must be the name of a Deployment of namespace {:?}",
        shown(name),
        reader.namespace
    );
    reader.wrong("spec.deployment", &text);
    None
}

fn steps(written: Option<&[CanaryStep]>, reader: &mut FieldReader<'_>) -> Vec<ReleaseStep> {
    const FIELD: &str = "spec.steps";
    let Some(written) = written else {
        let step = |weight| ReleaseStep {
            mirror: None,
            weight,
            duration: STEP,
            pause: false,
            groups: Vec::new(),
        };
        return Vec::from(WEIGHTS.map(step));
    };
    if written.is_empty() {
        let text = "is empty, but needs a step; name one, or leave the field out for steps of 5, \
                    20, 50 and 100 percent";
        reader.wrong(FIELD, text);
    }
    if !reader.fits(FIELD, written, MOST_STEPS) {
        return Vec::new();
    }
    let mut highest = 0;
    let mut steps = Vec::with_capacity(written.len());
    for (i, written) in written.iter().enumerate() {
        let field = format!("{FIELD}[{i}]");
        let step = step(&field, written, reader);
        if step.groups.is_empty() {
            if step.weight < highest {
                let (name, way_out) = match step.mirror {
                    Some(_) => ("mirror", "put steps that only copy before the others"),
                    None => ("weight", "weights never fall, but by matches"),
                };
                let text = format!(
                    "brings the new revision from {highest} to {} percent of the calls; {way_out}",
                    step.weight
                );
                reader.wrong(&format!("{field}.{name}"), &text);
            }
            highest = highest.max(step.weight);
        }
        steps.push(step);
    }
    steps
}

fn step(field: &str, written: &CanaryStep, reader: &mut FieldReader<'_>) -> ReleaseStep {
    match (written.mirror, written.weight) {
        (Some(_), Some(_)) => reader.wrong(
            field,
            "holds both of mirror and weight; make two steps of them",
        ),
        (None, None) => reader.wrong(
            field,
            "holds neither of mirror and weight; write one of them",
        ),
        _ => {}
    }
    let mut percent = |name: &str, raw: Option<i64>| {
        raw.and_then(|raw| reader.number(&format!("{field}.{name}"), raw, &(1..=100_u8)))
    };
    let mirror = percent("mirror", written.mirror);
    let weight = percent("weight", written.weight).unwrap_or(0);
    let groups = groups(field, written.matches.as_deref(), reader);
    if written.mirror.is_some() && written.weight.is_none() && !groups.is_empty() {
        let text = "limits weight only, and this step has mirror; leave it out";
        reader.wrong(&format!("{field}.matches"), text);
    }
    let duration = written.duration.as_deref();
    ReleaseStep {
        mirror,
        weight,
        duration: reader.duration_or(&format!("{field}.duration"), duration, &STEPS, STEP),
        pause: written.pause.unwrap_or(false),
        groups,
    }
}

fn groups(
    step: &str,
    written: Option<&[SplitMatch]>,
    reader: &mut FieldReader<'_>,
) -> Vec<Arc<str>> {
    let written = written.unwrap_or_default();
    let list = format!("{step}.matches");
    if !reader.fits(&list, written, MOST_GROUPS) {
        return Vec::new();
    }
    let mut groups: Vec<Arc<str>> = Vec::with_capacity(written.len());
    for (i, written) in written.iter().enumerate() {
        let field = format!("{list}[{i}]");
        let group = written.api_group.as_deref().unwrap_or(SPECS_GROUP);
        if group != SPECS_GROUP {
            let text = format!("is {:?}, but must be {SPECS_GROUP}", shown(group));
            reader.wrong(&format!("{field}.apiGroup"), &text);
        }
        if written.kind != RULE_HTTP_ROUTE_GROUP {
            let kind = shown(&written.kind);
            let text = format!("is {kind:?}, but must be {RULE_HTTP_ROUTE_GROUP}");
            reader.wrong(&format!("{field}.kind"), &text);
        }
        if !is_dns_subdomain(&written.name) {
            let text = "must be the name of an HTTPRouteGroup";
            reader.wrong(&format!("{field}.name"), text);
        } else if groups.iter().any(|group| **group == *written.name) {
            let text = format!("{:?} is named twice; leave one out", shown(&written.name));
            reader.wrong(&format!("{field}.name"), &text);
        } else {
            groups.push(written.name.as_str().into());
        }
    }
    groups
}

fn checks(written: Option<&CanaryChecks>, reader: &mut FieldReader<'_>) -> ReleaseChecks {
    let mut checks = ReleaseChecks::DEFAULT;
    let Some(written) = written else {
        return checks;
    };
    if let Some(written) = &written.error_rate {
        checks.error_rate = Some(error_rate(written, reader));
    }
    if let Some(written) = &written.latency {
        checks.latency = latency(written, reader);
    }
    if let Some(written) = &written.restarts {
        let field = "spec.checks.restarts.max";
        checks.restarts = Some(reader.number_or(field, written.max, &(0..=1000_u32), 0));
    }
    checks
}

fn error_rate(written: &CanaryErrorRate, reader: &mut FieldReader<'_>) -> RateCheck {
    const FIELD: &str = "spec.checks.errorRate";
    let mut rate = |name: &str, text: Option<&String>| {
        let field = format!("{FIELD}.{name}");
        reader.fraction(&field, text.map(String::as_str), &RATES)
    };
    let tolerance = rate("tolerance", written.tolerance.as_ref());
    let max = rate("max", written.max.as_ref());
    RateCheck {
        // What is set is taken whole.
        tolerance: tolerance.or_else(|| max.is_none().then_some(0.01)),
        max,
    }
}

fn latency(written: &CanaryLatency, reader: &mut FieldReader<'_>) -> Option<LatencyCheck> {
    const FIELD: &str = "spec.checks.latency";
    const PERCENTILES: [i64; 5] = [0, 50, 90, 95, 99];
    let tolerance = written.tolerance.as_deref();
    let tolerance = reader.fraction(&format!("{FIELD}.tolerance"), tolerance, &SLOWER);
    let max = written.max.as_deref().and_then(|text| {
        let field = format!("{FIELD}.max");
        let zero = Duration::ZERO;
        let read = reader.duration_or(&field, Some(text), &LATENCIES, zero);
        (read > zero).then_some(read)
    });
    let percentile = written.percentile.unwrap_or(99);
    let known = u8::try_from(percentile).ok();
    let Some(known) = known.filter(|_| PERCENTILES.contains(&percentile)) else {
        let text = format!("is {percentile}, but must be 50, 90, 95 or 99, or 0 for no check");
        reader.wrong(&format!("{FIELD}.percentile"), &text);
        return None;
    };
    if known == 0 {
        for (name, is_set) in [
            ("tolerance", written.tolerance.is_some()),
            ("max", written.max.is_some()),
        ] {
            if is_set {
                let text = "has no effect beside percentile 0, which is off; take one of them out";
                reader.caution(&format!("{FIELD}.{name}"), Code::FieldIgnored, text);
            }
        }
        return None;
    }
    Some(LatencyCheck {
        percentile: known,
        tolerance: tolerance.or_else(|| max.is_none().then_some(0.2)),
        max,
    })
}
