//! What authors of TrafficPolicies are told: what they are about, who else decides, and
//! what nobody enforces.

use std::collections::BTreeMap;

use policy::traffic::{
    Section, Target,
    precedence::{Precedence, Rivalry, Standings, Winner},
};

use super::{
    about::more,
    candidate::{Named, PolicyCandidate, surroundings},
};
use crate::{
    compile::findings::Findings,
    model::traffic::Policies,
    problem::{Reason, few},
    world::{ObjectKey, PolicyFacts},
};

/// The sections, for `kubectl get`.
pub(super) fn summary(facts: &PolicyFacts) -> String {
    let written = facts.spec.written.iter();
    let names: Vec<&str> = written.map(|section| section.as_str()).collect();
    few(names)
}

/// What the policy is about, for `kubectl get`.
pub(super) fn target(facts: &PolicyFacts) -> String {
    match &facts.spec.target {
        None => "none".to_owned(),
        Some(Target::Port(service, port)) => format!("Service/{}:{port}", service.name),
        Some(Target::Service(service)) => format!("Service/{}", service.name),
        Some(Target::Namespace(namespace)) => format!("Namespace/{namespace}"),
        Some(Target::Mesh) => "Mesh".to_owned(),
    }
}

/// Says who decides instead of whom.
pub(super) fn rivals(
    candidates: &[PolicyCandidate],
    standings: &Standings,
    findings: &mut Findings,
) {
    for candidate in candidates {
        let Some(standing) = standings.of(&candidate.policy.origin) else {
            continue;
        };
        let mut about = findings.about(&candidate.object, candidate.generation);
        match standing.rivalry() {
            Rivalry::None => {}
            Rivalry::Conflicted(lost) => {
                about.refuse(Reason::Conflicted, "", conflict(&lost));
            }
            Rivalry::PartlyOverridden(lost) => {
                for (section, Winner { origin, by }) in lost {
                    let why = why(by);
                    let message = format!("{origin}, {why}, decides this, at some port at least");
                    let field = format!("spec.{section}");
                    about.warn(Reason::PartlyOverridden, &field, message);
                }
            }
        }
    }
}

/// What is told to who decides nothing: of each section who does, and why. What makes a policy
/// come first differs from one to the next, and to be narrower is none of it where another one
/// is closer or enforced; so the way out is the one that is there for all.
fn conflict(lost: &[(Section, Winner)]) -> String {
    let mut by_winner: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (section, Winner { origin, by }) in lost {
        let winner = format!("{origin}, {}", why(*by));
        by_winner.entry(winner).or_default().push(section.as_str());
    }
    let decide = by_winner
        .iter()
        .map(|(winner, sections)| format!("{winner}, decides {}", sections.join(", ")));
    let decide: Vec<String> = decide.collect();
    format!(
        "it decides nothing: {}; delete it, or take out there what it is to decide",
        decide.join("; ")
    )
}

/// Why a policy comes before the one whose author is told.
const fn why(by: Precedence) -> &'static str {
    match by {
        Precedence::Enforced => "which is enforced for the mesh",
        Precedence::Closer => "whose targetRef is closer",
        Precedence::Narrower => "whose routes and sources are narrower",
        Precedence::Older => "which is older",
        Precedence::Name => "which is as old and the first by name",
    }
}

/// Warns of what only a proxy in front of the pods could enforce, where there is none.
pub(super) fn not_enforced(
    named: &Named<'_>,
    candidates: &[PolicyCandidate],
    policies: &mut Policies,
    findings: &mut Findings,
) {
    let by_name: BTreeMap<(&str, &str), &PolicyCandidate> = candidates
        .iter()
        .map(|one| {
            let origin = &one.policy.origin;
            ((&**origin.namespace(), &**origin.name()), one)
        })
        .collect();
    // By policy and section: the first Service, the one before, and how many.
    let mut plain: BTreeMap<_, (&PolicyCandidate, &ObjectKey, &ObjectKey, usize)> = BTreeMap::new();
    let Policies { ports, watched, .. } = policies;
    for ((key, _), port) in &*ports {
        let traffic = &port.traffic;
        let limits = traffic.rate_limits.rules.iter();
        let limits = limits.map(|rule| (&rule.origin, Section::RateLimits));
        let overload = traffic.overload.rules.iter();
        let overload = overload.map(|rule| (&rule.origin, Section::Overload));
        for (origin, section) in limits.chain(overload) {
            let found = *watched
                .entry(key.clone())
                .or_insert_with(|| surroundings(key, named.services, named.pods));
            let at = (&**origin.namespace(), &**origin.name());
            let (true, Some(one)) = (found.plain || found.foreign, by_name.get(&at)) else {
                continue;
            };
            let (.., last, services) = plain.entry((at, section)).or_insert((*one, key, key, 1));
            if *last != key {
                *last = key;
                *services += 1;
            }
        }
    }
    for ((_, section), (one, service, _, services)) in plain {
        let plain = watched.get(service).is_some_and(|found| found.plain);
        let pods = if plain {
            "without a proxy, and nobody enforces it there; put them into the mesh"
        } else {
            "of another namespace, and it says nothing of them; write a policy there"
        };
        let message = format!("Service {service}{} has pods {pods}", more(services));
        let mut about = findings.about(&one.object, one.generation);
        about.warn(Reason::NotEnforced, &format!("spec.{section}"), message);
    }
}
