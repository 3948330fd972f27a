//! Selects the lines of the manual's page "What changes for applications" that apply to an
//! explained call.
//!
//! Each is reported once, at the end of the steps, for a caller whose call ends otherwise than
//! without a mesh. It uses only what the other steps have looked up.

use crds::applications::ChangeLine;
use crds::observe::{RecentCalls, Step};
use policy::mode::MtlsMode;
use policy::protocol::Protocol;
use policy::reason::Reason;

use super::call::Called;
use super::evaluate::EvaluatedEndpoint;
use super::outcome::{BackendOutcome, Question, step};
use crate::model::{Index, modes};

/// One step for each line that the call meets.
pub(super) fn steps(
    index: &Index,
    question: &Question<'_>,
    outcomes: &[BackendOutcome<'_>],
) -> Vec<Step> {
    let any = |meets: &dyn Fn(&BackendOutcome<'_>, &EvaluatedEndpoint) -> bool| {
        outcomes
            .iter()
            .any(|outcome| outcome.evaluated.iter().any(|one| meets(outcome, one)))
    };
    let meshed = question.from.iter().any(|caller| caller.identity.is_some());
    let lines = [
        (
            ChangeLine::PodAddress,
            "a call to a pod's own address follows no TrafficSplit",
            matches!(question.to, Called::Pods(..) | Called::PastService(..)),
        ),
        (
            ChangeLine::HeadlessName,
            "the caller's proxy accepts for every address of a headless Service",
            meshed && is_headless(index, &question.to),
        ),
        (
            ChangeLine::OutsideToStrict,
            "a strict workload serves callers without an identity at its permissive ports alone",
            any(&|outcome, one| outcome.caller.identity.is_none() && is_strict(index, one)),
        ),
        (
            ChangeLine::ForeignBytes,
            "a port that is declared as HTTP carries requests alone",
            question.request.tcp && any(&|_, one| one.protocol.is_http()),
        ),
        (
            ChangeLine::HttpAndTls,
            "one port carries HTTP and TLS, as the first bytes say",
            any(&|_, one| is_http_and_tls(index, one)),
        ),
    ];
    let met = lines.into_iter().filter(|(.., meets)| *meets);
    met.map(|(line, text, _)| see(line, text)).collect()
}

/// The steps of what calls of the last minutes met.
pub fn of_seen_calls(seen: &RecentCalls) -> Vec<Step> {
    let lines = [
        (
            Reason::Limit,
            ChangeLine::BelowLimit,
            "calls below a limit may be answered 429 where few of the pods get them",
        ),
        (
            Reason::BadRequest,
            ChangeLine::ForeignBytes,
            "bytes that begin no request are refused bad-request on a port that is declared as HTTP",
        ),
    ];
    let refused = lines
        .into_iter()
        .filter(|(reason, ..)| seen.refused.contains_key(reason.as_str()));
    refused.map(|(_, line, text)| see(line, text)).collect()
}

fn see(line: ChangeLine, text: &str) -> Step {
    step("see", format!("{text} ({})", line.link()), Vec::new())
}

fn is_headless(index: &Index, to: &Called) -> bool {
    let Called::Service(key, _) = to else {
        return false;
    };
    let entry = index.services.get(key);
    entry.is_some_and(|entry| entry.facts.headless)
}

/// Whether the pod's mode is strict, whatever its mode is at this port.
fn is_strict(index: &Index, one: &EvaluatedEndpoint) -> bool {
    let facts = one.by.as_ref().and_then(|(pod, _)| {
        let facts = index.world.pods.get(pod)?;
        Some((index.world.namespace(&pod.namespace), facts))
    });
    facts.is_some_and(|(namespace, facts)| {
        modes::mtls(&index.defaults, namespace, &facts.annotations) == MtlsMode::Strict
    })
}

/// Whether Services declare the port as HTTP and as TLS, which is detected then.
fn is_http_and_tls(index: &Index, one: &EvaluatedEndpoint) -> bool {
    let declared = one.by.as_ref().and_then(|(pod, _)| {
        let entry = index.pods.get(pod)?;
        entry.declared.get(&one.endpoint.port)
    });
    declared == Some(&Protocol::Detect) && one.protocol == Protocol::Detect
}
