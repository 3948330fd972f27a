//! Prints the result of `weft explain` in lines, the verdict first.

use std::collections::BTreeSet;
use std::time::SystemTime;

use crds::names::few;
use crds::observe::{
    BackendVerdict, EarlierRule, ExplainedRule, ExplanationStatus, ExplanationVerdict, Programmed,
};

use crate::output::number;

/// Refusals of proxies that are printed; those of one object are mostly alike.
const NACKS: usize = 5;

/// All lines. `wide`: also why earlier rules of routes did not fit.
pub(super) fn lines(status: &ExplanationStatus, wide: bool, now: SystemTime) -> Vec<String> {
    let mut lines = vec![first(status)];
    lines.extend(steps(status));
    if let Some(rule) = &status.rule {
        lines.extend(by_rule(rule, wide));
    }
    if status.backends.len() > 1 || status.verdict == ExplanationVerdict::Mixed {
        lines.extend(status.backends.iter().map(|one| backend(status, one)));
    }
    if let Some(programmed) = &status.programmed {
        lines.extend(waiting(programmed));
    }
    if status.verdict != ExplanationVerdict::Unknown {
        lines.extend(seen(status, now));
    }
    if let Some(fix) = &status.fix {
        let objects = " fix     -o fix prints objects that allow this";
        lines.push(match (&*fix.objects, &*fix.commands, &*fix.warnings) {
            ([], [command, ..], _) => format!(" fix     {command}"),
            ([], [], [why, ..]) => format!(" fix     {why}"),
            (_, _, []) => format!("{objects} and nothing else"),
            _ => format!("{objects}, with what to know before"),
        });
    }
    lines
}

/// If the result shows only the verdict, the end of the sentence: which users may see more.
pub(super) fn hidden(status: &ExplanationStatus) -> Option<String> {
    let owner = &status.owner;
    (status.steps.is_empty() && !owner.is_empty())
        .then(|| format!(", by namespace {owner}; its owners may see why"))
}

fn first(status: &ExplanationStatus) -> String {
    let mut first = status.verdict.as_str().to_uppercase();
    if let Some(code) = status.http_status {
        first.push_str(&format!(" {code}"));
    }
    if !status.reason.is_empty() {
        first.push_str(&format!(" {}", status.reason));
    }
    first.extend(hidden(status));
    first.extend(refusing(status));
    first
}

/// The end of the sentence, if the refusing proxies are known.
fn refusing(status: &ExplanationStatus) -> Option<String> {
    let named = status.refused_by.iter().map(|workload| {
        let key = workload.split_once(' ').map(|(_, key)| key);
        near(status, key.unwrap_or(workload))
    });
    let named: BTreeSet<&str> = named.collect();
    let some = match status.verdict {
        ExplanationVerdict::Mixed => "some calls refused ",
        _ => "",
    };
    let all = few(&named, named.len());
    (!named.is_empty()).then(|| format!(", {some}by the proxies of {all}"))
}

/// `namespace/name`, without the namespace where it is that of what is called.
fn near<'n>(status: &ExplanationStatus, key: &'n str) -> &'n str {
    match key.split_once('/') {
        Some((namespace, name)) if namespace == status.owner => name,
        _ => key,
    }
}

/// The steps of the evaluation; beside the deciding one, how many of the proxies that decide have
/// it.
fn steps(status: &ExplanationStatus) -> Vec<String> {
    let programmed = status.programmed.as_ref().filter(|counts| counts.of > 0);
    let have =
        programmed.map(|counts| format!("{} of {} proxies have it", counts.proxies, counts.of));
    let of_access = status.steps.iter().filter(|step| step.step == "access");
    let decides_alone = of_access.count() == 1;
    let mut lines = Vec::new();
    for step in &status.steps {
        let text = &step.text;
        lines.push(match (step.step.as_str(), &have) {
            ("rule", _) => format!("           {text}"),
            ("access", Some(have)) if decides_alone => format!(" access  {text} ({have})"),
            (name, _) => format!(" {name:<7} {text}"),
        });
    }
    // Beside none of several; that some lack it has a line of its own.
    if let (Some(counts), Some(have)) = (programmed, have)
        && !decides_alone
        && counts.proxies >= counts.of
    {
        lines.push(format!(" access  {have}"));
    }
    lines
}

/// The rule of a route that decides where the call goes. What it changes of the call stands in the
/// steps.
fn by_rule(rule: &ExplainedRule, wide: bool) -> Vec<String> {
    let mut first = match rule.rule {
        Some(number) => format!(" rule    {}", placed(&rule.object, number, &rule.name)),
        None => format!(" rule    no rule of {} fits", rule.object),
    };
    if !rule.audience.is_empty() {
        let audience = &rule.audience;
        first.push_str(&format!(", for callers of namespace {audience} alone"));
    }
    let more = usize::try_from(rule.more_earlier).unwrap_or(usize::MAX);
    let tried = rule.earlier.len().saturating_add(more);
    if tried > 0 && !wide {
        first.push_str(&format!("; {tried} before it do not fit: -o wide says why"));
    }
    let mut lines = vec![first];
    if wide {
        lines.extend(rule.earlier.iter().map(earlier));
        if rule.more_earlier > 0 {
            lines.push(format!(" before  and {} more rules", rule.more_earlier));
        }
    }
    lines
}

fn earlier(rule: &EarlierRule) -> String {
    let EarlierRule {
        object,
        rule,
        name,
        wants,
        fails,
    } = rule;
    let placed = placed(object, *rule, name);
    format!(" before  {placed} wants {wants}: {fails}")
}

/// A rule by its place, and its name if it has one.
fn placed(object: &str, number: u32, name: &str) -> String {
    match name {
        "" => format!("{object} rules[{number}]"),
        name => format!("{object} rules[{number}] {name}"),
    }
}

/// The result for a part of the calls, with its pods if other pods of the backend decide otherwise.
fn backend(status: &ExplanationStatus, one: &BackendVerdict) -> String {
    let verdict = format!("{} {}", one.verdict.as_str(), one.reason);
    let mut line = format!(
        " backend {}  {}  {}  {} of {} endpoints ready",
        one.service,
        number::percent(one.share),
        verdict.trim_end(),
        one.ready,
        one.endpoints
    );
    let parts = status.backends.iter();
    let parts = parts.filter(|other| other.service == one.service);
    if parts.count() > 1 && !one.pods.is_empty() {
        let pods: Vec<&str> = one.pods.iter().map(|pod| near(status, pod)).collect();
        let judged = usize::try_from(one.judged).unwrap_or(usize::MAX);
        let pods = few(&pods, judged.max(pods.len()));
        line.push_str(&format!("; so at {pods}"));
    }
    line
}

/// What it means that some proxies lack this configuration, and what those refused that did.
fn waiting(programmed: &Programmed) -> Vec<String> {
    let mut lines = Vec::new();
    let (have, of) = (programmed.proxies, programmed.of);
    if have < of {
        lines.push(format!(
            " waiting {have} of {of} proxies have what this says; the others use the version before"
        ));
    }
    let nacks = programmed.nacks.iter().take(NACKS);
    lines.extend(nacks.map(|nack| format!(" nack    {nack}")));
    let more = programmed.nacks.len().saturating_sub(NACKS);
    if more > 0 {
        lines.push(format!(" nack    {more} more; -o json has them all"));
    }
    lines
}

fn seen(status: &ExplanationStatus, now: SystemTime) -> Option<String> {
    let seen = status.seen.as_ref()?;
    let minutes = seen.window_seconds.div_ceil(60);
    let refused: Vec<String> = seen
        .refused
        .iter()
        .map(|(reason, times)| format!("{times} refused {reason}"))
        .collect();
    let refused = if refused.is_empty() {
        String::new()
    } else {
        format!(", {}", refused.join(", "))
    };
    let last = seen
        .last
        .as_deref()
        .and_then(|text| text.parse::<k8s_openapi::jiff::Timestamp>().ok())
        .map_or_else(String::new, |last| {
            // The cluster's clock has whole seconds.
            let ago = now.duration_since(last.into()).unwrap_or_default();
            format!(", last {} ago", number::age(ago))
        });
    Some(format!(
        " seen    {minutes} min: {} calls on this edge, {} failed{refused}{last}",
        seen.requests, seen.failure
    ))
}
