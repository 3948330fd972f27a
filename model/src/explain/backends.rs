//! Sums the explanation by backend: which share of its calls has which verdict, at which pods, and
//! which proxies refuse.

use std::collections::{BTreeMap, BTreeSet};

use crds::observe::{BackendVerdict, ExplanationVerdict};
use policy::reason::Reason;

use super::evaluate::Ruling;
use super::outcome::{BackendOutcome, Question};
use super::question::Owner;

/// Pods at which calls end alike, of which so many are named.
const NAMED: usize = 8;
/// Workloads that are named as those whose proxies refuse.
const MOST_REFUSING: usize = 64;
/// Shares are sums of fractions, and what a sum of them leaves beyond this is no share.
const DIGITS: f64 = 1e12;

/// The calls to one backend that end alike.
#[derive(Debug, Default)]
struct Alike {
    share: f64,
    /// Names of the endpoints at which they do.
    at: BTreeSet<String>,
    /// Endpoints of the backend that may take calls, and all.
    ready: usize,
    all: usize,
}

/// By backend, and for each how its calls end.
pub(super) fn verdicts(outcomes: &[BackendOutcome<'_>]) -> Vec<BackendVerdict> {
    let callers = callers(outcomes);
    let mut found: BTreeMap<(&str, ExplanationVerdict, Option<Reason>), Alike> = BTreeMap::new();
    for outcome in outcomes {
        let backend_route = &outcome.backend_route;
        let label = backend_route.label.as_str();
        let share = weight(outcome) / callers * backend_route.share;
        let of_each = share / outcome.evaluated.len().max(1) as f64;
        let ends = outcome.evaluated.iter().map(|one| {
            let (verdict, reason) = outcome.at(one);
            (verdict, reason, Some(one.name()))
        });
        let before = outcome.evaluated.is_empty().then(|| {
            let verdict = outcome.verdict();
            let refused = verdict == ExplanationVerdict::Refused;
            let reason = outcome.refusals().next().filter(|_| refused);
            (verdict, reason, None)
        });
        for (verdict, reason, name) in ends.chain(before) {
            let alike = found.entry((label, verdict, reason)).or_default();
            (alike.ready, alike.all) = (backend_route.endpoints.len(), backend_route.all);
            alike.share += of_each;
            alike.at.extend(name);
        }
    }
    let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    let found = found.into_iter();
    found
        .map(|((service, verdict, reason), alike)| BackendVerdict {
            service: service.to_owned(),
            share: (alike.share * DIGITS).round() / DIGITS,
            verdict,
            reason: reason.map_or_else(String::new, |reason| reason.to_string()),
            ready: number(alike.ready),
            endpoints: number(alike.all),
            judged: number(alike.at.len()),
            pods: alike.at.into_iter().take(NAMED).collect(),
        })
        .collect()
}

/// How many callers stand for this one's kind.
fn weight(outcome: &BackendOutcome<'_>) -> f64 {
    outcome.caller.pods.max(1) as f64
}

/// All callers, each counted once however many ways its calls go.
fn callers(outcomes: &[BackendOutcome<'_>]) -> f64 {
    let weighed = outcomes.iter();
    weighed
        .map(|outcome| weight(outcome) * outcome.backend_route.share)
        .sum()
}

/// Whose proxies refuse. Where no pod is called, a fallback refuses, or a Revocation, the caller's own
/// proxy answers; a caller without one gets no answer from any.
pub(super) fn refusing(
    question: &Question<'_>,
    outcomes: &[BackendOutcome<'_>],
    owner: Owner<'_>,
) -> Vec<String> {
    let mut by = BTreeSet::new();
    let from = &question.spec.from;
    let own = || format!("{} {}/{}", from.kind, from.namespace, from.name);
    for outcome in outcomes {
        if outcome.backend_route.refused.is_some() {
            let refuses = outcome.refusals().next().is_some();
            if refuses && outcome.caller.identity.is_some() {
                by.insert(own());
            }
            continue;
        }
        let refusing = outcome.evaluated.iter();
        let refusing = refusing.filter(|one| matches!(one.ruling, Ruling::Refused(_)));
        for one in refusing {
            if one.revoked.is_some() {
                by.insert(own());
            } else if let Some((pod, _)) = &one.by {
                let (kind, key) = owner(pod);
                by.insert(format!("{kind} {key}"));
            }
        }
    }
    by.into_iter().take(MOST_REFUSING).collect()
}
