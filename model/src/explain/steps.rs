//! Writes an explanation as text for users, step by step.

use std::collections::BTreeSet;

use crds::names::few;
use crds::observe::Step;
use policy::mode::Enforcement;
use policy::path::PathForms;
use policy::reason::Reason;

use super::about::About;
use super::call::{Called, Request};
use super::declared;
use super::evaluate::{EvaluatedEndpoint, Ruling};
use super::outcome::{BackendOutcome, Question, step};
use super::question::CallerView;
use super::route::BackendRoute;
use crate::model::protocols::spoken;
use crate::model::{Index, Model, modes};

/// Caller, route, wire, access, and each rule.
pub(super) fn steps(
    model: &Model,
    question: &Question<'_>,
    outcomes: &[BackendOutcome<'_>],
) -> Vec<Step> {
    let mut steps = vec![who(question)];
    steps.extend(routes(outcomes));
    steps.extend(overrides(&model.index, question));
    steps.extend(wire(&model.index, outcomes));
    steps.extend(access(&model.index, &question.request, outcomes));
    let evaluated = outcomes.iter().flat_map(|outcome| &outcome.evaluated);
    let mut seen: BTreeSet<(String, String)> = BTreeSet::new();
    for rule in evaluated.flat_map(|one| &one.rules) {
        let text = rule.fails.clone();
        let text = text.unwrap_or_else(|| "allows this call".to_owned());
        if seen.insert((rule.origin.to_string(), text.clone())) {
            let text = format!("{}: {text}", rule.origin.label());
            steps.push(step("rule", text, vec![rule.origin.to_string()]));
        }
    }
    steps
}

fn who(question: &Question<'_>) -> Step {
    let from = &question.spec.from;
    if question.view == CallerView::AccountOnly {
        let text = format!("{}/{}, as it was asked", from.namespace, from.name);
        return step("who", text, Vec::new());
    }
    let callers = question.from.iter().map(|caller| match &caller.identity {
        None if from.outside => "without an identity".to_owned(),
        None if caller.past => format!(
            "{}, whose traffic capture leaves this call out: no identity",
            pods(caller.pods)
        ),
        None => format!("{} without a proxy: no identity", pods(caller.pods)),
        Some(id) if caller.pods == 0 => format!("no pod yet; {}", id.as_str()),
        Some(id) => format!("{}, meshed; {}", pods(caller.pods), id.as_str()),
    });
    let callers: Vec<String> = callers.collect();
    let name = if from.outside {
        "outside the mesh".to_owned()
    } else {
        format!("{}/{}", from.namespace, from.name)
    };
    step("who", format!("{name}: {}", callers.join("; ")), Vec::new())
}

fn pods(count: usize) -> String {
    match count {
        1 => "1 pod".to_owned(),
        count => format!("{count} pods"),
    }
}

fn routes(outcomes: &[BackendOutcome<'_>]) -> Vec<Step> {
    let mut steps = Vec::new();
    let mut seen = BTreeSet::new();
    for outcome in outcomes {
        let backend_route = &outcome.backend_route;
        let split = backend_route.split.as_ref().map(ToString::to_string);
        let share = match &split {
            Some(split) => format!(
                "{split} gives {} {:.0} %",
                backend_route.label,
                backend_route.share * 100.0
            ),
            None => backend_route.label.clone(),
        };
        let mut text = way(backend_route, &share, split.as_deref().unwrap_or_default());
        if let Some(note) = &backend_route.note {
            text = format!("{text}; {note}");
        }
        for by in &backend_route.revoked {
            text = format!("{text}; {by}");
        }
        for edit in backend_route.rule.iter().flat_map(|rule| &rule.edits) {
            text = format!("{text}; {edit}");
        }
        let mut objects: Vec<String> = split.into_iter().collect();
        objects.extend(backend_route.revoked.iter().map(|one| one.by.to_string()));
        if let (Some(ended), Some(instead)) = (backend_route.refused, &backend_route.instead) {
            text = format!("{text}; {ended}: {}", instead.text);
            objects.push(instead.policy.clone());
        }
        if seen.insert(text.clone()) {
            steps.push(step("route", text, objects));
        }
    }
    steps
}

/// Where calls go, or why they go nowhere. `share` names the backend, and what it gets by `split`.
fn way(backend_route: &BackendRoute, share: &str, split: &str) -> String {
    match backend_route.refused {
        Some(Reason::BadRequest) => {
            format!("{share}: the caller's own proxy refuses the request")
        }
        Some(Reason::EgressDenied) => {
            format!("{share}: the caller's own proxy refuses the call")
        }
        Some(Reason::NoRoute) => {
            format!("{split}: no rule of the routes for this port fits the request")
        }
        Some(Reason::InvalidRoute) => {
            format!("{split}: the rule that fits cannot be served, as the route's status says")
        }
        Some(Reason::InvalidBackend) => format!(
            "{share}: there is no such backend, or it may not be named, as the route's status says"
        ),
        Some(Reason::NoBackend) => {
            format!("{split} leaves no backend that has this port and a weight")
        }
        _ if backend_route.outside => {
            format!("{share}: leaves the mesh, no proxy of the mesh evaluates rules for it")
        }
        _ => match &backend_route.redirect {
            Some(redirect) => format!("{split}: the call is answered with {redirect}"),
            None => format!(
                "{share}; {} of {} endpoints may take calls",
                backend_route.endpoints.len(),
                backend_route.all
            ),
        },
    }
}

/// That a request may choose to go elsewhere. Whether it does is not looked at: its right may be a
/// token, or come from the request that it is made for.
fn overrides(index: &Index, question: &Question<'_>) -> Option<Step> {
    let Called::Service(key, port) = &question.to else {
        return None;
    };
    let meshed = question.from.iter().any(|caller| caller.identity.is_some());
    let traffic = &index.policies.of(key, *port)?.traffic;
    let (Some(offered), Some(origin)) = traffic.overrides.decide(None) else {
        return None;
    };
    let to: BTreeSet<String> = offered
        .iter()
        .flat_map(|one| &one.to)
        .map(ToString::to_string)
        .collect();
    if question.request.tcp || !meshed || to.is_empty() {
        return None;
    }
    let text = format!(
        "{origin} lets requests with weft-route choose {}; that is not followed here",
        few(&to, to.len())
    );
    Some(step("route", text, vec![origin.to_string()]))
}

fn wire(index: &Index, outcomes: &[BackendOutcome<'_>]) -> Vec<Step> {
    let mut said = About::of(outcomes);
    for outcome in outcomes {
        let meshed = outcome.caller.identity.is_some();
        for one in &outcome.evaluated {
            let security = match (&one.ruling, meshed) {
                (Ruling::NotEvaluated(why), _) => format!("plaintext: {why}"),
                (Ruling::Refused(_), _) if one.by.is_none() => {
                    "no application's: the port is the proxy's own".to_owned()
                }
                (_, false) if outcome.caller.past => {
                    "plaintext: the caller's traffic capture leaves this call out".to_owned()
                }
                (_, true) => format!("mutual TLS as {}", one.endpoint.identity),
                (_, false) => "plaintext: the caller has no proxy".to_owned(),
            };
            let port = one.endpoint.port;
            let text = format!("{security}; {} on port {port}", spoken(one.protocol));
            // Where no proxy judges, the declared protocol does not matter.
            match declared_by(index, one) {
                Some(by) => said.say((outcome, one), format!("{text}: {}", by.text), by.service),
                None => said.say((outcome, one), text, None),
            }
        }
    }
    said.steps("wire")
}

fn declared_by(index: &Index, one: &EvaluatedEndpoint) -> Option<declared::By> {
    let (pod, _) = one.by.as_ref()?;
    let facts = index.world.pods.get(pod)?;
    Some(declared::by(index, pod, facts, one.endpoint.port))
}

fn access(index: &Index, request: &Request, outcomes: &[BackendOutcome<'_>]) -> Vec<Step> {
    let mut said = About::of(outcomes);
    for outcome in outcomes {
        for one in &outcome.evaluated {
            if let Some((text, targets)) = closed_by(index, request, one) {
                said.say((outcome, one), text, targets);
            }
        }
    }
    said.steps("access")
}

/// What a pod's mode makes of the call, and the targets that protect it; nothing where no proxy
/// judges.
fn closed_by(
    index: &Index,
    request: &Request,
    one: &EvaluatedEndpoint,
) -> Option<(String, Vec<String>)> {
    let (pod, origins) = one.by.as_ref()?;
    let facts = index.world.pods.get(pod)?;
    let namespace = index.world.namespace(&pod.namespace);
    let mode = modes::access(&index.defaults, namespace, &facts.annotations);
    let set = modes::access_set_by(namespace, &facts.annotations);
    let targets = origins.iter().map(|(object, _)| object);
    let targets = targets.filter(|object| object.kind == policy::name::Kind::TrafficTarget);
    let mut targets: Vec<String> = targets
        .map(|target| format!("{} {}/{}", target.kind, target.namespace, target.name))
        .collect();
    let enforced = match one.enforcement {
        Enforcement::Open => "open".to_owned(),
        Enforcement::Audit => "what no rule allows is counted and passes".to_owned(),
        Enforcement::Enforce if targets.is_empty() => {
            "closed, and no TrafficTarget protects it".to_owned()
        }
        Enforcement::Enforce => format!("closed by {}", targets.join(", ")),
    };
    let ruling = match one.ruling {
        Ruling::Refused(reason) => {
            let fault = match &one.revoked {
                Some(by) => format!(": {by}"),
                None => fault(request, reason),
            };
            format!("; {}: refused, {reason}{fault}", one.endpoint.port)
        }
        Ruling::Audited(reason) => format!(
            "; {}: passes, deny would refuse it, {reason}",
            one.endpoint.port
        ),
        Ruling::Allowed | Ruling::NotEvaluated(_) => String::new(),
    };
    targets.extend(one.revoked.iter().map(|one| one.by.to_string()));
    Some((format!("{mode} ({set}), {enforced}{ruling}"), targets))
}

/// What is wrong with a request that is refused as one, as the end of a sentence.
fn fault(request: &Request, reason: Reason) -> String {
    if reason != Reason::BadRequest {
        return String::new();
    }
    if request.tcp {
        return " (bytes are no HTTP)".to_owned();
    }
    let path = || Some(PathForms::of(&request.path).error()?.refusal());
    let why = request.malformed.map(ToOwned::to_owned).or_else(path);
    why.map_or_else(String::new, |why| format!(" ({why})"))
}
