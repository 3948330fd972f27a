//! Builds the problems that the status shows of Gateways, of their listeners and classes, and of
//! routes for each of their Gateways.

use std::collections::BTreeSet;

use gateway_api::conditions::GATEWAY_CONTROLLER;
use policy::name::Kind;

use super::{
    attached::{Candidate, Reference},
    own::OwnGateway,
};
use crate::{
    compile::{
        findings::{Finding, Findings},
        service_routes::{
            reports::{of_reference, of_rules},
            rules::Resolved,
        },
    },
    problem::{Condition, ListenerReport, ParentReport, Reason, few},
    world::{World, object},
};

/// Reports on the classes of Weft.
pub(super) fn classes(world: &World, findings: &mut Findings) {
    for (key, facts) in world.gateway_classes.iter() {
        if !world.is_own_class(&key.name) {
            continue;
        }
        let this = object(Kind::GatewayClass, key);
        findings.seen(this.clone(), &facts.meta, String::new());
        if facts.spec.has_parameters {
            let message = "names an object, but no class of Weft has parameters; leave it out, and \
                           use spec.infrastructure.parametersRef of Gateways";
            let (reason, field) = (Reason::InvalidParameters, "spec.parametersRef");
            let finding = Finding::refuse(reason, field, message.to_owned());
            let mut about = findings.about(&this, facts.meta.generation);
            about.found(&finding);
        }
    }
}

/// Reports on all Gateways of Weft, and on the routes that are for one of them.
pub(super) fn report(
    own: &[OwnGateway<'_>],
    (candidates, resolved): (&[Candidate<'_>], &[Resolved]),
    findings: &mut Findings,
) {
    let mut attached: Vec<Vec<u32>> = own.iter().map(|one| vec![0; one.states.len()]).collect();
    for (candidate, resolved) in candidates.iter().zip(resolved) {
        for (gateway, listener) in report_route(candidate, resolved, own, findings) {
            attached[gateway][listener] += 1;
        }
    }
    for (gateway, attached) in own.iter().zip(&attached) {
        report_gateway(gateway, attached, findings);
    }
}

fn report_gateway(gateway: &OwnGateway<'_>, attached: &[u32], findings: &mut Findings) {
    let (this, meta) = (object(Kind::Gateway, gateway.key), &gateway.facts.meta);
    let listeners = &gateway.facts.spec.listeners;
    let summary = listeners
        .iter()
        .map(|one| format!("{} {}", one.protocol, one.port));
    findings.seen(this.clone(), meta, few(summary));
    let mut about = findings.about(&this, meta.generation);
    if let Some(refused) = &gateway.refused {
        about.found(refused);
    } else if gateway.states.iter().any(|state| state.refused.is_some()) {
        // Also those without a certificate.
        let idle = (0..listeners.len()).filter(|place| !gateway.is_served(*place));
        let message = format!(
            "not all listeners can be served; see the conditions of {}",
            few(idle.map(|place| &listeners[place].name))
        );
        let (reason, field) = (Reason::ListenersNotValid, "spec.listeners");
        about.found(&Finding::warn(reason, field, message));
    }
    let reports = (0..listeners.len()).map(|place| listener(gateway, place, attached[place]));
    findings.of_listeners(&this, reports.collect());
}

fn listener(gateway: &OwnGateway<'_>, place: usize, attached_routes: u32) -> ListenerReport {
    let state = &gateway.states[place];
    let refused = state.refused.as_ref();
    let holds = |reason| Condition {
        status: true,
        reason,
        message: String::new(),
    };
    let fails = |reason, path: &str, message: &str| Condition {
        status: false,
        reason,
        message: format!("{path}: {message}"),
    };
    let accepted = refused.map_or_else(
        || holds("Accepted"),
        |one| fails(one.reason.as_str(), &one.path, &one.message),
    );
    // True is the bad state.
    let conflict = refused.filter(|one| one.reason.is_conflict());
    let conflicted = match conflict {
        Some(one) => Condition {
            status: true,
            ..fails(one.reason.as_str(), &one.path, &one.message)
        },
        None => Condition {
            status: false,
            ..holds("NoConflicts")
        },
    };
    let resolved_refs = if let Some(kinds) = &state.unsupported_kinds {
        let path = format!("spec.listeners[{place}].allowedRoutes.kinds");
        let message = format!(
            "{} cannot attach to this listener; leave out what it cannot have",
            few(&kinds.kinds)
        );
        fails(Reason::InvalidRouteKinds.as_str(), &path, &message)
    } else if let Some(wrong) = &gateway.certificates[place].wrong {
        fails(wrong.reason.as_str(), &wrong.field, &wrong.message)
    } else {
        holds("ResolvedRefs")
    };
    ListenerReport {
        name: gateway.facts.spec.listeners[place].name.clone(),
        supported_kinds: state.supported_kinds.clone(),
        attached_routes,
        accepted,
        resolved_refs,
        conflicted,
        is_served: gateway.is_served(place),
    }
}

/// Reports on one route, and returns the listeners to which it is attached: those where it is
/// accepted.
fn report_route(
    candidate: &Candidate<'_>,
    resolved: &Resolved,
    own: &[OwnGateway<'_>],
    findings: &mut Findings,
) -> BTreeSet<(usize, usize)> {
    let this = candidate.object();
    let parents = candidate.references.iter();
    let summary = few(parents.map(|one| format!("Gateway {}", own[one.gateway].key)));
    findings.seen(this.clone(), candidate.meta, summary);
    let of_all = of_rules(candidate.route);
    let mut attached = BTreeSet::new();
    let mut reports = Vec::new();
    for reference in &candidate.references {
        let mut found = of_all.clone();
        found.extend(of_attachment(reference, own));
        found.extend(resolved.unresolved.iter().cloned());
        found.extend(candidate.overridden.iter().cloned());
        let mut about = findings.about(&this, candidate.meta.generation);
        for finding in &found {
            about.found(finding);
        }
        let generation = candidate.meta.generation;
        let report = of_reference(
            (&this, generation),
            candidate.route,
            (GATEWAY_CONTROLLER, reference.reference),
            &found,
        );
        let gateway = &own[reference.gateway];
        let listeners = reference.attached.iter().map(|one| one.listener);
        let accepted = listeners.filter(|_| report.accepted.status);
        attached.extend(accepted.clone().map(|place| (reference.gateway, place)));
        let names = accepted.map(|place| gateway.facts.spec.listeners[place].name.clone());
        reports.push(ParentReport {
            listeners: names.collect(),
            ..report
        });
    }
    findings.of_parents(&this, reports);
    attached
}

/// What holds of a route at one of its Gateways.
fn of_attachment(reference: &Reference<'_>, own: &[OwnGateway<'_>]) -> Vec<Finding> {
    if let Some(refused) = &reference.refused {
        return vec![refused.clone()];
    }
    let gateway = &own[reference.gateway];
    // Where every listener is refused, routes attach all the same.
    if let Some(refused) = &gateway.refused
        && refused.reason != Reason::ListenersNotValid
    {
        let message = format!(
            "Gateway {} is not accepted ({}); see its conditions",
            gateway.key,
            refused.reason.as_str()
        );
        let (reason, field) = (Reason::NoMatchingParent, &reference.field);
        return vec![Finding::refuse(reason, field, message)];
    }
    // It may have lost listeners besides, to which it is not even attached.
    let mut attached = reference.attached.iter();
    let decides_nowhere = attached.all(|one| reference.lost.contains_key(&one.listener));
    let lost = reference.lost.values().map(|lost| {
        // Of TCPRoutes all that are attached are accepted, as the Gateway API has it.
        if decides_nowhere && lost.reason != Reason::Conflicted {
            Finding::refuse(lost.reason, &lost.field, lost.message.clone())
        } else {
            lost.clone()
        }
    });
    lost.collect()
}
