//! Computes the conditions of TrafficPolicies: what each applies to, which other policy takes
//! precedence, and which parts no proxy enforces.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use policy::{
    origin::Origin,
    traffic::{
        Section, Target,
        precedence::{Conflict, Precedence, PrecedenceResults, Winner},
    },
};

use super::{
    about::more,
    candidate::{Named, PolicyCandidate, surroundings},
};
use crate::{
    compile::findings::Findings,
    model::traffic::{Overridden, Policies, PortPolicies},
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

/// Reports which policy decides instead of which.
pub(super) fn report_conflicts(
    candidates: &[PolicyCandidate],
    results: &PrecedenceResults,
    overridden: &BTreeMap<Origin, BTreeMap<Section, Overridden>>,
    findings: &mut Findings,
) {
    for candidate in candidates {
        let origin = &candidate.policy.origin;
        let Some(result) = results.of(origin) else {
            continue;
        };
        let mut about = findings.about(&candidate.object, candidate.generation);
        match result.conflict() {
            Conflict::None => {}
            Conflict::Conflicted(lost) => {
                about.refuse(Reason::Conflicted, "", conflict(&lost));
            }
            Conflict::PartlyOverridden(lost) => {
                for (section, Winner { origin, by }) in lost {
                    let why = why(by);
                    let message = format!("{origin}, {why}, decides this, at some port at least");
                    let field = format!("spec.{section}");
                    about.warn(Reason::PartlyOverridden, &field, message);
                }
            }
        }
        for (section, one) in overridden.get(origin).into_iter().flatten() {
            // Such a section is reported above.
            if result.lost.contains_key(section) {
                continue;
            }
            let field = format!("spec.{section}");
            about.warn(Reason::PartlyOverridden, &field, at_pods(one));
        }
    }
}

/// The message for a policy that decides nothing at pods where another policy decides, too, or
/// another Service leaves the timeout open.
fn at_pods(one: &Overridden) -> String {
    let (service, port) = (&one.service, one.port);
    let Some(winner) = &one.winner else {
        return format!(
            "callers outside the mesh have no such time at pods that Service {service}:{port} \
             selects as well: no proxy knows which Service they mean, and not all of them end \
             every request; write one at each for all requests"
        );
    };
    let why = match (one.by, one.section) {
        (Some(by), _) => why(by),
        (None, Section::Timeouts) => "which gives callers outside the mesh the longest time",
        (None, _) => "which says the lowest",
    };
    let decides = format!(
        "{winner}, {why}, decides this at pods that Service {service}:{port} selects as well"
    );
    if one.by_own {
        return format!(
            "{decides}: no proxy knows which Service they mean, and not all of them say the same; \
             let the same policies speak of all"
        );
    }
    format!("{decides}; write there what is to hold at those")
}

/// The message for a policy that decides nothing: for each section the winner, and why. What makes
/// a policy come first differs from one to the next, and to be narrower is none of it where another
/// one is closer or enforced; so the way out is the one that is there for all.
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

/// Why a policy comes before the one whose condition this is.
const fn why(by: Precedence) -> &'static str {
    match by {
        Precedence::Enforced => "which is enforced for the mesh",
        Precedence::Closer => "whose targetRef is closer",
        Precedence::Narrower => "whose routes and sources are narrower",
        Precedence::Older => "which is older",
        Precedence::Name => "which is as old and the first by name",
    }
}

/// Where no proxy enforces a section of a policy.
struct Unenforced<'a> {
    policy: &'a PolicyCandidate,
    first: &'a ObjectKey,
    last: &'a ObjectKey,
    services: usize,
    /// Of the first Service: the backends that serve in place of pods that it has not.
    backends: Vec<&'a ObjectKey>,
    /// What leads calls to those.
    leader: &'static str,
}

impl Unenforced<'_> {
    /// `plain`: some pods of the first Service have no proxy.
    fn why(&self, plain: bool) -> String {
        let (service, more) = (self.first, more(self.services));
        if !self.backends.is_empty() {
            let backends = few(self.backends.iter().map(|backend| &*backend.name));
            let leader = self.leader;
            return format!(
                "Service {service}{more} has no pods, and a {leader} leads its calls to those \
                 of {backends}, where no proxy enforces it; write a policy about those Services"
            );
        }
        let pods = if plain {
            "without a proxy, and no proxy enforces it there; put them into the mesh"
        } else {
            "of another namespace, and it says nothing of them; write a policy there"
        };
        format!("Service {service}{more} has pods {pods}")
    }
}

/// Warns of what only a proxy in front of the pods could enforce, where there is none, and
/// where a split leads to pods of another Service.
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
    // By policy, section, and whether a split leads elsewhere.
    let mut unenforced: BTreeMap<_, Unenforced<'_>> = BTreeMap::new();
    let (ports, watched) = (&policies.ports, &mut policies.watched);
    for ((key, number), port) in ports {
        for (origin, section) in carried_out_by_pods(port, has_splits(named, key)) {
            let at = (&**origin.namespace(), &**origin.name());
            let Some(&policy) = by_name.get(&at) else {
                continue;
            };
            let found = *watched
                .entry(key.clone())
                .or_insert_with(|| surroundings(key, named.services, named.pods));
            let backends = if found.empty {
                split_to(named, ports, (key, *number), &policy.policy.origin)
            } else {
                Vec::new()
            };
            let not_by_proxies = (found.plain || found.foreign) && section != Section::Priority;
            if !not_by_proxies && backends.is_empty() {
                continue;
            }
            let one = unenforced
                .entry((at, section, found.empty))
                .or_insert(Unenforced {
                    policy,
                    first: key,
                    last: key,
                    services: 1,
                    backends,
                    leader: leader(named, key),
                });
            if one.last != key {
                one.last = key;
                one.services += 1;
            }
        }
    }
    for ((_, section, _), one) in unenforced {
        let plain = watched.get(one.first).is_some_and(|found| found.plain);
        let mut about = findings.about(&one.policy.object, one.policy.generation);
        let field = format!("spec.{section}");
        about.warn(Reason::NotEnforced, &field, one.why(plain));
    }
}

/// What only proxies in front of the pods carry out, by whose policy. A priority counts where a
/// split may lead past them: callers go by it, too, so pods without a proxy are no matter for it.
fn carried_out_by_pods(
    port: &PortPolicies,
    is_split: bool,
) -> impl Iterator<Item = (&Origin, Section)> {
    let traffic = &port.traffic;
    let limits = traffic.rate_limits.rules.iter();
    let limits = limits.map(|rule| (&rule.origin, Section::RateLimits));
    let overload = traffic.overload.rules.iter();
    let overload = overload.map(|rule| (&rule.origin, Section::Overload));
    let priority = traffic.priority.rules.iter();
    let priority = priority.filter(move |_| is_split);
    let priority = priority.map(|rule| (&rule.origin, Section::Priority));
    limits.chain(overload).chain(priority)
}

fn has_splits(named: &Named<'_>, service: &ObjectKey) -> bool {
    let entry = named.services.get(service);
    entry.is_some_and(|entry| {
        !entry.splits.is_empty() || entry.routed_for_everyone().next().is_some()
    })
}

fn leader(named: &Named<'_>, service: &ObjectKey) -> &'static str {
    let entry = named.services.get(service);
    match entry {
        Some(entry) if entry.splits.is_empty() => "route",
        _ => "TrafficSplit",
    }
}

/// Services that splits and routes lead calls of a port to, and of which this policy does not
/// speak.
fn split_to<'a>(
    named: &Named<'a>,
    ports: &BTreeMap<(ObjectKey, u16), Arc<PortPolicies>>,
    (root, number): (&ObjectKey, u16),
    origin: &Origin,
) -> Vec<&'a ObjectKey> {
    let services = named.services;
    let entry = services.get(root).into_iter();
    let splits = entry.clone().flat_map(|entry| &entry.splits);
    let split = splits.flat_map(|split| split.backends.iter().map(|(backend, _)| backend));
    let split = split.map(|backend| (backend, number));
    let routed = entry.flat_map(|entry| entry.routed_for_everyone());
    let routed = routed.filter(|(port, _)| *port == number);
    let routed = routed.flat_map(|(_, table)| &table.leads_to);
    let routed = routed.map(|(backend, port)| (backend, *port));
    let elsewhere = split.chain(routed).filter(|(backend, number)| {
        let serves = services.get(*backend);
        let serves = serves.is_some_and(|entry| entry.ports.contains_key(number));
        let policies = ports.get(&((*backend).clone(), *number));
        let spoken_of = policies.is_some_and(|port| port.origins.contains_key(origin));
        *backend != root && serves && !spoken_of
    });
    let elsewhere: BTreeSet<&ObjectKey> = elsewhere.map(|(backend, _)| backend).collect();
    elsewhere.into_iter().collect()
}
