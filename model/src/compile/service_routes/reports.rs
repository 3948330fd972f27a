//! Builds the problems that the status of a route shows, for each Service that is its parent.
//!
//! A route some of whose rules cannot be served is accepted, as the Gateway API has it: a warning
//! names each field, and `PartiallyInvalid` the rules. Without any other rule it is refused.

use gateway_api::{
    conditions::MESH_CONTROLLER,
    route::{ParentRef, Route, RouteKind, RouteRule},
};
use policy::name::ObjectRef;

use super::{
    parents::{Candidate, Parent},
    rules::ResolvedByParent,
    settled::Settled,
};
use crate::{
    compile::findings::{Finding, Findings},
    problem::{Condition, ConditionType, ParentReport, Reason, few},
    world::named,
};

/// Reports on one route, the candidate of this place.
pub(super) fn report(
    (nth, candidate): (usize, &Candidate<'_>),
    resolved: &ResolvedByParent,
    settled: &[Settled],
    findings: &mut Findings,
) {
    let this = candidate.object();
    let parents = candidate.parents.iter();
    let summary = few(parents.map(|parent| parent.service.to_string()));
    findings.seen(this.clone(), candidate.meta, summary);
    let of_all = of_every_parent(candidate);
    let mut reports = Vec::new();
    for parent in &candidate.parents {
        let mut found = of_all.clone();
        found.extend(of_parent(parent));
        found.extend(beaten(candidate, parent, settled));
        let at = (nth, parent.service.namespace.clone());
        if let Some(resolved) = resolved.get(&at) {
            found.extend(resolved.unresolved.iter().cloned());
        }
        let mut about = findings.about(&this, candidate.meta.generation);
        for finding in &found {
            about.found(finding);
        }
        reports.push(parent_report((&this, candidate), parent, &found));
    }
    findings.of_parents(&this, reports);
}

fn parent_report(
    (this, candidate): (&ObjectRef, &Candidate<'_>),
    parent: &Parent<'_>,
    found: &[Finding],
) -> ParentReport {
    ParentReport {
        ports: parent.in_force().collect(),
        ..of_reference(
            (this, candidate.meta.generation),
            candidate.route,
            (MESH_CONTROLLER, parent.reference),
            found,
        )
    }
}

/// What is reported of a route for one of its references, by what was found.
pub(in crate::compile) fn of_reference(
    (this, generation): (&ObjectRef, i64),
    route: &Route,
    (controller, parent): (&'static str, &ParentRef),
    found: &[Finding],
) -> ParentReport {
    let mut own = Findings::default();
    let mut about = own.about(this, generation);
    for finding in found {
        about.found(finding);
    }
    let [accepted, resolved_refs] = own.conditions(this);
    ParentReport {
        controller,
        parent: parent.clone(),
        partially_invalid: partially_invalid(route).filter(|_| accepted.status),
        accepted: as_in_status(accepted, ConditionType::Accepted),
        resolved_refs: as_in_status(resolved_refs, ConditionType::ResolvedRefs),
        ports: Vec::new(),
        listeners: Vec::new(),
    }
}

/// A condition that holds has its own name as reason, whatever it warns of: other controllers and
/// tools of the Gateway API expect that.
fn as_in_status(condition: Condition, of: ConditionType) -> Condition {
    if condition.status {
        Condition {
            reason: of.as_str(),
            ..condition
        }
    } else {
        condition
    }
}

/// What holds of the route whichever parent is meant.
fn of_every_parent(candidate: &Candidate<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    if !candidate.route.hostnames.is_empty() {
        let message = "has no meaning where the parent is a Service: all requests to it are \
                       matched, whatever host they name; match the header host, or take it out";
        let finding = Finding::warn(Reason::FieldIgnored, "spec.hostnames", message.to_owned());
        found.push(finding);
    }
    found.extend(of_rules(candidate.route));
    found
}

/// What holds of its rules by themselves.
pub(in crate::compile) fn of_rules(route: &Route) -> Vec<Finding> {
    let mut found = Vec::new();
    let rules = counting(route);
    if rules.len() < route.rules.len() {
        let message = "connections have nothing to tell rules apart by, so only the first rule \
                       counts; take the others out";
        let finding = Finding::warn(Reason::FieldIgnored, "spec.rules[1]", message.to_owned());
        found.push(finding);
    }
    let others_hold = rules.iter().any(|rule| rule.broken.is_none());
    for rule in rules {
        let Some(broken) = &rule.broken else {
            continue;
        };
        let (reason, path) = (Reason::UnsupportedValue, &broken.path);
        let message = format!("{}; {}", broken.message, without(rule));
        found.push(if others_hold {
            Finding::warn(reason, path, message)
        } else {
            Finding::refuse(reason, path, message)
        });
    }
    found
}

/// What becomes of the requests of a rule that cannot be served.
fn without(rule: &RouteRule) -> &'static str {
    match (rule.lacks_match, rule.matches.is_empty()) {
        (true, true) => "no request fits this rule, so that other rules decide: correct it",
        (true, false) => {
            "no request fits this match, so that other rules decide, and requests that fit another \
             match of this rule get 500: correct it"
        }
        (false, _) => "requests that fit this rule get 500",
    }
}

/// The rules that decide about calls.
pub(in crate::compile) fn counting(route: &Route) -> &[RouteRule] {
    match route.kind {
        RouteKind::Tcp | RouteKind::Tls => route.rules.get(..1).unwrap_or_default(),
        RouteKind::Http | RouteKind::Grpc => &route.rules,
    }
}

/// What holds of it as one parent sees it.
fn of_parent(parent: &Parent<'_>) -> Vec<Finding> {
    if let Some(refused) = &parent.refused {
        return vec![refused.clone()];
    }
    let nothing_left = parent.in_force().next().is_none();
    let lost = parent.lost.values().map(|lost| {
        let (field, message) = (&parent.field, lost.message.clone());
        if nothing_left {
            Finding::refuse(lost.reason, field, message)
        } else {
            Finding::warn(lost.reason, field, message)
        }
    });
    lost.collect()
}

/// Parts of its rules that policies decide at a parent.
fn beaten(candidate: &Candidate<'_>, parent: &Parent<'_>, settled: &[Settled]) -> Vec<Finding> {
    if settled.is_empty() {
        return Vec::new();
    }
    let route = named(&candidate.object());
    let this = (&parent.service, &route);
    // They are sorted, and may be many.
    let first = settled.partition_point(|one| (&one.service, &one.route) < this);
    let here = settled.iter().skip(first);
    let here = here.take_while(|one| (&one.service, &one.route) == this);
    let found = here.map(|one| {
        let message = format!(
            "{}, which is enforced for the mesh, decides this at some port of Service {}",
            one.by, one.service
        );
        let field = format!("spec.rules[{}].{}", one.rule, one.part);
        Finding::warn(Reason::PartlyOverridden, &field, message)
    });
    found.collect()
}

/// The condition of a route some of whose rules cannot be served while others hold.
fn partially_invalid(route: &Route) -> Option<Condition> {
    let rules = counting(route).iter().enumerate();
    let (broken, whole): (Vec<_>, Vec<_>) = rules.partition(|(_, rule)| rule.broken.is_some());
    if broken.is_empty() || whole.is_empty() {
        return None;
    }
    let places = broken.iter().map(|(nth, rule)| match &rule.name {
        Some(name) => format!("spec.rules[{nth}] ({name})"),
        None => format!("spec.rules[{nth}]"),
    });
    let unread = if broken.iter().any(|(_, rule)| rule.lacks_match) {
        ", no request fits a match that cannot be read"
    } else {
        ""
    };
    Some(Condition {
        status: true,
        reason: Reason::UnsupportedValue.as_str(),
        message: format!(
            "Dropped Rule {}: requests that fit it get 500{unread}, and the other rules hold",
            few(places)
        ),
    })
}
