//! Page `/traffic`: the policy, breakers and endpoints of each Service that the application calls.
//!
//! Per Service port: the sections of its policy, each with the object that it came from, the
//! retry budget, the breakers, and the endpoints with what was learned of them. The page shows
//! why one call in three fails, or why no endpoint is tried, before any metric does.
//!
//! A proxy may hold thousands of Services, so the page has a bound and says how many Services it
//! skips. Those may be requested by name.

mod sections;

use std::collections::{BTreeSet, HashSet};
use std::fmt::Write as _;

use policy::balance::Candidate;
use policy::traffic::call::Retry;
use policy::traffic::endpoint::Ejection;
use policy::traffic::{CallerPolicy, without_object};
use serde_json::{Value, json};

use crate::config::snapshot::{Destination, Snapshot};
use crate::endpoints::endpoint::{Endpoint, EndpointView};
use crate::endpoints::learned::{Draw, now};
use crate::endpoints::set::EndpointSet;

/// Bytes of all Services of a page: some thousand small ones, and more than the 64 policies
/// and [`MOST_ENDPOINTS`] of one take.
const MOST_BYTES: usize = 1024 * 1024;

/// Endpoints of one Service port that a page shows, those first that get least.
const MOST_ENDPOINTS: usize = 200;

/// Which Services a path requests: all by an empty text, else `namespace/name` or
/// `namespace/name:port`. `None`: it is another page.
pub(super) fn requested_services(path: &str) -> Option<&str> {
    let rest = path.strip_prefix("/traffic")?;
    if rest.is_empty() {
        Some("")
    } else {
        rest.strip_prefix('/')
    }
}

/// The page about these Services.
pub(super) fn page(snapshot: &Snapshot, services: &str) -> String {
    let (subjects, headless) = (subjects(snapshot, services), headless(snapshot));
    let (mut text, mut shown) = (String::new(), 0);
    for subject in &subjects {
        let before = text.len();
        let comma = if shown == 0 { "" } else { "," };
        let name = Value::from(subject.as_str());
        let service = service(snapshot, subject, headless.contains(subject.as_str()));
        let service = format!("{service:#}").replace('\n', "\n    ");
        // Writing to a String does not fail.
        let _ = write!(text, "{comma}\n    {name}: {service}");
        if text.len() > MOST_BYTES {
            text.truncate(before);
            break;
        }
        shown += 1;
    }
    let left_out = subjects.len() - shown;
    format!("{{\n  \"services\": {{{text}\n  }},\n  \"servicesLeftOut\": {left_out}\n}}\n")
}

/// Service ports of which anything is held, as `namespace/name:port`.
fn subjects(snapshot: &Snapshot, services: &str) -> BTreeSet<String> {
    let resources = snapshot.services.keys().chain(snapshot.endpoints.keys());
    let of_resources = resources.filter_map(|name| Some(name.split_once('/')?.1));
    let all = of_resources.chain(snapshot.policies.subjects());
    let is_requested = |subject: &&str| match subject.strip_prefix(services) {
        Some(rest) => services.is_empty() || rest.is_empty() || rest.starts_with(':'),
        None => false,
    };
    all.filter(is_requested).map(str::to_owned).collect()
}

/// Those whose clients choose the pod, as far as one of their pods was called.
fn headless(snapshot: &Snapshot) -> HashSet<&str> {
    let called = snapshot.destinations.values();
    let pods = called.filter_map(|at| match &**at {
        Destination::Pod(pod) => Some(&pod.headless),
        Destination::Service(_) | Destination::External { .. } | Destination::Refused { .. } => {
            None
        }
    });
    let names = pods.flatten().map(|(_, service)| service);
    names
        .filter_map(|name| Some(name.split_once('/')?.1))
        .collect()
}

/// What holds of a Service where no object configures retries, or ejection. Where clients choose
/// the pod that is nothing, until an object configures the other.
fn without_word(
    configured: &CallerPolicy,
    headless: bool,
) -> (Option<&'static Retry>, Option<&'static Ejection>) {
    let mut retries = configured.retry.rules.iter().flat_map(|rule| &rule.then);
    let retries = retries.any(|retry| retry.attempts > 0);
    let (ejection, _) = configured.ejection.decide(None);
    let ejects = ejection
        .as_ref()
        .is_some_and(|ejection| ejection.consecutive_failures > 0);
    (
        (!headless || ejects).then_some(&without_object::RETRY),
        (!headless || retries).then_some(&without_object::EJECTION),
    )
}

fn service(snapshot: &Snapshot, subject: &str, headless: bool) -> Value {
    let nothing = CallerPolicy::default();
    let configured = snapshot.policies.of(&format!("policy/{subject}"));
    let configured = configured.map_or(&nothing, |configured| &**configured);
    let (retry, ejection) = without_word(configured, headless);
    let mut page = json!({ "sections": sections::of(configured, retry, ejection) });
    if headless {
        page["headless"] = true.into();
    }
    if let Some(set) = snapshot.endpoints_of(&format!("endpoints/{subject}")) {
        page["budget"] = json!({ "saved": saved(set, configured) });
        page["breakers"] = breakers(set).into();
        page["throttled"] = set.throttle.is_active().into();
        page["throttledPercent"] = throttled_percent(set);
        let (endpoints, left_out) = endpoints(set, configured, ejection);
        page["endpoints"] = endpoints.into();
        page["endpointsLeftOut"] = left_out.into();
    }
    page
}

/// Retries that are paid for, by the section that holds for every request.
fn saved(set: &EndpointSet, configured: &CallerPolicy) -> u32 {
    let (retry, _) = configured.retry.decide(None);
    let retry = retry.as_ref().unwrap_or(&without_object::RETRY);
    set.saved(&retry.budget)
}

fn breakers(set: &EndpointSet) -> Vec<Value> {
    let all = set.circuits.views().into_iter();
    let shown = all.map(|one| {
        json!({
            "policyOf": format!("{}:{}", one.by.service, one.by.port),
            "state": format!("{:?}", one.state),
            "requests": one.seen.sent,
            "failures": one.seen.failed,
        })
    });
    shown.collect()
}

/// What is held back of each class.
fn throttled_percent(set: &EndpointSet) -> Value {
    let all = set.throttle.percents(now()).into_iter();
    let shown = all.map(|(class, percent)| (class.as_str().to_owned(), Value::from(percent)));
    Value::Object(shown.collect())
}

/// The endpoints as calls to the Service itself see them, and how many are skipped. `otherwise`:
/// the ejection that holds where no object configures it.
fn endpoints(
    set: &EndpointSet,
    configured: &CallerPolicy,
    otherwise: Option<&Ejection>,
) -> (Vec<Value>, usize) {
    let (ejection, _) = configured.ejection.decide(None);
    let ejection = ejection.as_ref().or(otherwise);
    let (balance, _) = configured.balance.decide(None);
    let draw = Draw {
        may_retry: true,
        ejection: ejection.unwrap_or(&without_object::EJECTION_OFF),
        balance: balance.as_ref().unwrap_or(&without_object::BALANCE),
        ..Draw::DEFAULT
    };
    let all = set.endpoints.iter();
    let mut all: Vec<(&Endpoint, EndpointView)> =
        all.map(|one| (&**one, set.view(one, &draw))).collect();
    all.sort_by(|(_, one), (_, other)| share(one).total_cmp(&share(other)));
    let left_out = all.len().saturating_sub(MOST_ENDPOINTS);
    all.truncate(MOST_ENDPOINTS);
    let shown = all.into_iter().map(|(endpoint, shown)| {
        let nearness = set.nearness(endpoint, draw.balance);
        json!({
            "address": endpoint.addr.to_string(),
            "pod": endpoint.pod.to_string(),
            "meshed": endpoint.meshed(),
            "state": state(&shown),
            "sharePercent": (100.0 * share(&shown)).round() as u8,
            "load": shown.load,
            "inFlight": shown.in_flight,
            "answers": shown.recent.answers,
            "failures": shown.recent.failures,
            "nearness": nearness.map(|near| near.as_str()),
        })
    });
    (shown.collect(), left_out)
}

/// What an endpoint gets of its share.
fn share(shown: &EndpointView) -> f64 {
    match shown.candidate {
        Candidate::Works { share, .. } => share,
        Candidate::Probe | Candidate::Ejected | Candidate::Out => 0.0,
    }
}

fn state(shown: &EndpointView) -> &'static str {
    match shown.candidate {
        Candidate::Works { share, .. } if share < 1.0 => "WarmingUp",
        Candidate::Works { .. } => "Working",
        Candidate::Probe => "ProbeDue",
        Candidate::Ejected | Candidate::Out => "Resting",
    }
}

#[cfg(test)]
mod tests;
