//! The checks of a release: what each compares, what it has found, and whether the candidate is
//! rolled back for it.

use crds::weft::validation::{LatencyCheck, Release, ReleaseChecks};

use super::evidence::{Evidence, Test};
use super::seen::{CheckReport, Seen};
use super::state::Run;
use crate::judge::latency::{self, Threshold};
use crate::judge::{Allowed, Counts, Look, Verdict, needed};

/// The name of the one check that needs no statistics.
const RESTARTS: &str = "restarts";

/// A statistical check; its place among [`Evidence::tests`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    ErrorRate,
    ErrorRateMax,
    Latency,
    LatencyMax,
}

impl Kind {
    const fn name(self) -> &'static str {
        match self {
            Self::ErrorRate => "errorRate",
            Self::ErrorRateMax => "errorRate max",
            Self::Latency => "latency",
            Self::LatencyMax => "latency max",
        }
    }

    /// New calls of the stable set and of the candidate.
    const fn counts(self, seen: &Seen) -> (Counts, Counts) {
        let (stable, candidate) = (seen.stable, seen.candidate);
        match self {
            Self::ErrorRate | Self::ErrorRateMax => (stable.errors, candidate.errors),
            Self::Latency => (stable.latency, candidate.latency),
            Self::LatencyMax => (stable.latency_max, candidate.latency_max),
        }
    }

    fn test(self, evidence: &Evidence) -> &Test {
        &evidence.tests[self as usize]
    }
}

/// The statistical checks that are set, with what each allows.
fn statistical(checks: &ReleaseChecks) -> Vec<(Kind, Allowed)> {
    let rate = checks.error_rate.as_ref();
    let latency = checks.latency.as_ref();
    let above = |check: &LatencyCheck| {
        let allowed = Allowed::Above(latency::tolerance(check.percentile));
        check.tolerance.map(|_| allowed)
    };
    let share = |check: &LatencyCheck| {
        let allowed = Allowed::Share(latency::share(check.percentile));
        check.max.map(|_| allowed)
    };
    let all = [
        (
            Kind::ErrorRate,
            rate.and_then(|check| check.tolerance).map(Allowed::Above),
        ),
        (
            Kind::ErrorRateMax,
            rate.and_then(|check| check.max).map(Allowed::Share),
        ),
        (Kind::Latency, latency.and_then(above)),
        (Kind::LatencyMax, latency.and_then(share)),
    ];
    let set = all.into_iter();
    set.filter_map(|(kind, allowed)| Some((kind, allowed?)))
        .collect()
}

/// Judges the calls of this look. `compared`: the stable set's calls are like the candidate's.
pub(super) fn look(spec: &Release, seen: &Seen, run: &mut Run, compared: bool) {
    choose_threshold(spec, seen, run, false);
    let evidence = &mut run.evidence;
    for (kind, allowed) in statistical(&spec.checks) {
        if matches!(allowed, Allowed::Above(_)) && !compared {
            continue;
        }
        let (stable, candidate) = kind.counts(seen);
        let test = &mut evidence.tests[kind as usize];
        let look = if test.looked {
            Look::Later
        } else {
            Look::FirstOf(spec.steps.len())
        };
        test.looked |= candidate.calls > 0;
        test.judge.look(allowed, stable, candidate, look);
        test.stable.add(stable);
        test.candidate.add(candidate);
    }
    evidence.total.add(seen.candidate.errors);
    evidence.in_step = evidence.in_step.saturating_add(seen.candidate.errors.calls);
}

/// From when on calls are slow. It is read anew when a step starts, from what the stable set has
/// shown just before; a stable set that gets no calls any more leaves it as it was.
pub(super) fn choose_threshold(spec: &Release, seen: &Seen, run: &mut Run, starts: bool) {
    let latency = spec.checks.latency.as_ref();
    let Some((percentile, tolerance)) =
        latency.and_then(|check| Some((check.percentile, check.tolerance?)))
    else {
        run.evidence.threshold = None;
        return;
    };
    if let Some(recent) = &seen.recent
        && (starts || run.evidence.threshold.is_none())
    {
        run.evidence.threshold = Threshold::above(recent, percentile, tolerance);
    }
}

/// The fixed threshold of `latency.max`.
pub(super) fn max_threshold(checks: &ReleaseChecks) -> Option<Threshold> {
    let max = checks.latency.as_ref()?.max?;
    Threshold::at(max.as_secs_f64())
}

/// Restarts of the candidate's containers in the run.
pub(super) fn restarts(seen: &Seen, candidate: &str, run: &Run) -> u32 {
    all_restarts(seen, candidate).saturating_sub(run.evidence.restarts_before)
}

/// All of them, whichever run they belong to.
pub(super) fn all_restarts(seen: &Seen, candidate: &str) -> u32 {
    let restarts = seen.of(candidate).map(|pod| pod.restarts);
    restarts.fold(0, u32::saturating_add)
}

/// Why the candidate is worse than the checks allow, if it is.
pub(super) fn worse(spec: &Release, seen: &Seen, candidate: &str, run: &Run) -> Option<String> {
    let restarts = restarts(seen, candidate, run);
    if let Some(max) = spec.checks.restarts
        && restarts > max
    {
        return Some(format!(
            "restarts: containers of the candidate restarted {restarts} times, {max} are allowed"
        ));
    }
    let checks = statistical(&spec.checks);
    let needed = needed(checks.len());
    let (kind, allowed) = checks
        .into_iter()
        .find(|(kind, _)| kind.test(&run.evidence).judge.is_worse(needed))?;
    Some(reason(spec, kind, allowed, &run.evidence))
}

fn reason(spec: &Release, kind: Kind, allowed: Allowed, evidence: &Evidence) -> String {
    let Test {
        stable, candidate, ..
    } = kind.test(evidence);
    let slower = |threshold: Option<Threshold>| {
        let milliseconds = threshold.map_or(0.0, |at| (at.seconds() * 10_000.0).round() / 10.0);
        format!("slower than {milliseconds} ms")
    };
    let (name, bad) = match kind {
        Kind::ErrorRate | Kind::ErrorRateMax => ("errorRate", "bad".to_owned()),
        Kind::Latency => ("latency", slower(evidence.threshold)),
        Kind::LatencyMax => ("latency", slower(max_threshold(&spec.checks))),
    };
    let compared = match allowed {
        Allowed::Above(_) => format!("stable {} of {}", stable.bad, stable.calls),
        Allowed::Share(share) => format!("{} % are allowed", percent(share)),
    };
    let Counts { calls, bad: number } = *candidate;
    format!("{name}: {number} of {calls} {bad}, {compared}")
}

/// In percent with two digits at most.
fn percent(share: f64) -> f64 {
    (share * 10_000.0).round() / 100.0
}

/// For the status.
pub(super) fn reports(spec: &Release, seen: &Seen, candidate: &str, run: &Run) -> Vec<CheckReport> {
    let checks = statistical(&spec.checks);
    let needed = needed(checks.len());
    let statistical = checks.into_iter().map(|(kind, allowed)| {
        let test = kind.test(&run.evidence);
        CheckReport {
            name: kind.name(),
            verdict: Verdict::of(&test.judge, needed, test.candidate.calls),
            evidence: format!("{} of {needed}", short(test.judge.evidence())),
            stable: matches!(allowed, Allowed::Above(_)).then_some(test.stable),
            candidate: Some(test.candidate),
        }
    });
    let restarts = restarts(seen, candidate, run);
    let plain = spec.checks.restarts.map(|max| CheckReport {
        name: RESTARTS,
        verdict: if restarts > max {
            Verdict::Worse
        } else {
            Verdict::Unsuspicious
        },
        evidence: format!("{restarts} of {max}"),
        stable: None,
        candidate: None,
    });
    statistical.chain(plain).collect()
}

/// Evidence as users read it: `0.4`, `37`, `2.1e4`.
fn short(evidence: f64) -> String {
    if evidence >= 10_000.0 {
        format!("{evidence:.1e}")
    } else if evidence >= 10.0 {
        format!("{evidence:.0}")
    } else {
        format!("{evidence:.1}")
    }
}
