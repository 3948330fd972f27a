//! TrafficPolicies: which of them decide about which Service port, and what is said of the
//! others.
//!
//! A policy is read by itself first, with what it names (`reading`). Then each port of
//! each Service asks `policy::traffic::precedence` who wins; the same answer goes to the
//! proxies and into the statuses, so that what an author reads is what happens.

mod candidate;
mod reading;
mod verdict;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use policy::{
    name::{Kind, ObjectRef, ServiceId},
    origin::Origin,
    traffic::{
        Target,
        bounds::{POLICIES_PER_NAMESPACE, POLICIES_PER_SERVICE},
        call::{Downstream, FallbackTo, Mirror},
        precedence::{Standings, order, resolve},
    },
};

pub(super) use self::candidate::{Named, surroundings};

use self::candidate::Candidate;
use super::findings::Findings;
use crate::{
    model::traffic::{Copies, Policies, PortPolicies, Surroundings},
    problem::Reason,
    world::{ObjectKey, object},
};

/// All TrafficPolicies, by what they are about.
pub(super) fn policies(named: &Named<'_>, findings: &mut Findings) -> Policies {
    let mut policies = Policies::default();
    if named.world.policies.is_empty() {
        return policies;
    }
    let candidates = candidates(named, &mut policies.watched, findings);
    let by_target = ByTarget::new(&candidates);
    let mut standings = Standings::default();
    for (key, entry) in named.services {
        let service = ServiceId::new(key.namespace.clone(), key.name.clone());
        let about = by_target.about(&service, findings);
        if about.is_empty() {
            continue;
        }
        for port in entry.ports.keys() {
            let said = about.iter().map(|candidate| &candidate.policy);
            let resolved = resolve(said, &service, *port);
            standings.add(&resolved);
            if resolved.won.is_empty() {
                continue;
            }
            let winners: BTreeSet<&Origin> =
                resolved.won.iter().map(|(origin, _)| origin).collect();
            let origins = about
                .iter()
                .filter(|one| winners.contains(&one.policy.origin))
                .map(|one| (one.policy.origin.clone(), one.origins.clone()));
            let origins: BTreeMap<Origin, Vec<(ObjectRef, i64)>> = origins.collect();
            let leads_to = leads_to(&resolved.traffic);
            copies(&resolved.traffic, &origins, &mut policies.copies);
            let port_policies = PortPolicies {
                traffic: resolved.traffic,
                origins,
                leads_to,
                published: OnceLock::new(),
                for_pods: OnceLock::new(),
            };
            policies
                .ports
                .insert((key.clone(), *port), Arc::new(port_policies));
        }
    }
    verdict::rivals(&candidates, &standings, findings);
    verdict::not_enforced(named, &candidates, &mut policies, findings);
    policies
}

/// Reads every policy, the oldest of each namespace first, and no more than are allowed.
fn candidates(
    named: &Named<'_>,
    watched: &mut BTreeMap<ObjectKey, Surroundings>,
    findings: &mut Findings,
) -> Vec<Candidate> {
    let mut by_age: Vec<_> = named.world.policies.iter().collect();
    by_age.sort_by_key(|(key, facts)| (&key.namespace, facts.meta.created, &key.name));
    let mut candidates = Vec::new();
    let mut counted: (Option<&Arc<str>>, usize) = (None, 0);
    for (key, facts) in by_age {
        let this = object(Kind::TrafficPolicy, key);
        findings.seen(this.clone(), &facts.meta, verdict::summary(facts));
        findings.targeted(&this, verdict::target(facts));
        let mut about = findings.about(&this, facts.meta.generation);
        about.judged(&facts.meta.mistakes);
        if counted.0 != Some(&key.namespace) {
            counted = (Some(&key.namespace), 0);
        }
        counted.1 += 1;
        if counted.1 > POLICIES_PER_NAMESPACE {
            let message = format!(
                "namespace {} has more than {POLICIES_PER_NAMESPACE} TrafficPolicies, and only \
                 the oldest count; this one has no effect",
                key.namespace
            );
            about.refuse(Reason::Invalid, "", message);
            continue;
        }
        let reading = reading::Reading {
            named,
            key,
            facts,
            about,
            origins: Vec::new(),
            watched,
        };
        candidates.extend(reading.candidate());
    }
    candidates
}

/// Candidates by what they are about, so that not every Service has to ask all.
struct ByTarget<'a> {
    services: BTreeMap<&'a ServiceId, Vec<&'a Candidate>>,
    namespaces: BTreeMap<&'a str, Vec<&'a Candidate>>,
    mesh: Vec<&'a Candidate>,
}

impl<'a> ByTarget<'a> {
    fn new(candidates: &'a [Candidate]) -> Self {
        let mut by_target = Self {
            services: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            mesh: Vec::new(),
        };
        for candidate in candidates {
            match &candidate.policy.target {
                Target::Port(service, _) | Target::Service(service) => {
                    by_target
                        .services
                        .entry(service)
                        .or_default()
                        .push(candidate);
                }
                Target::Namespace(namespace) => {
                    let here = by_target.namespaces.entry(namespace).or_default();
                    here.push(candidate);
                }
                Target::Mesh => by_target.mesh.push(candidate),
            }
        }
        by_target
    }

    /// The candidates that count for a Service, in order of precedence.
    fn about(&self, service: &ServiceId, findings: &mut Findings) -> Vec<&'a Candidate> {
        let own = self.services.get(service).into_iter().flatten();
        let near = self
            .namespaces
            .get(&*service.namespace)
            .into_iter()
            .flatten();
        let mut about: Vec<&Candidate> = own.chain(near).chain(&self.mesh).copied().collect();
        about.sort_by(|one, other| order(&one.policy, &other.policy));
        for late in about.drain(POLICIES_PER_SERVICE.min(about.len())..) {
            let message = format!(
                "{POLICIES_PER_SERVICE} TrafficPolicies come before this one at Service {service}, \
                 and more do not count; it has no effect there"
            );
            let mut about = findings.about(&late.object, late.generation);
            about.refuse(Reason::Invalid, "spec.targetRef", message);
        }
        about
    }
}

/// Services that callers may be sent to instead of the one that they called.
fn leads_to(traffic: &policy::traffic::Traffic) -> BTreeSet<ObjectKey> {
    let key = |service: &ServiceId| ObjectKey {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
    };
    let fallbacks = traffic
        .fallback
        .rules
        .iter()
        .filter_map(|rule| rule.then.as_ref());
    let fallbacks = fallbacks.filter_map(|scoped| match &scoped.section.to {
        FallbackTo::Service(service) => Some(service),
        FallbackTo::Response(_) => None,
    });
    let mirrors = mirrors(traffic).map(|(mirror, _)| &mirror.service);
    let overrides = traffic
        .overrides
        .rules
        .iter()
        .filter_map(|rule| rule.then.as_ref());
    let overrides = overrides.flat_map(|all| all.iter().flat_map(|one| &one.to));
    fallbacks.chain(mirrors).chain(overrides).map(key).collect()
}

fn mirrors(traffic: &policy::traffic::Traffic) -> impl Iterator<Item = (&Mirror, &Origin)> {
    let rules = traffic.mirror.rules.iter();
    rules.flat_map(|rule| {
        let scoped = rule.then.iter();
        scoped.flat_map(|scoped| scoped.section.iter().map(|one| (one, &rule.origin)))
    })
}

/// Notes who gets copies and nothing else, with what every such mirror lets it open.
fn copies(
    traffic: &policy::traffic::Traffic,
    origins: &BTreeMap<Origin, Vec<(ObjectRef, i64)>>,
    copies: &mut BTreeMap<ObjectKey, Copies>,
) {
    for (mirror, origin) in mirrors(traffic) {
        if mirror.downstream != Downstream::ReadOnly {
            continue;
        }
        let key = ObjectKey {
            namespace: mirror.service.namespace.clone(),
            name: mirror.service.name.clone(),
        };
        let new = Copies {
            allow_tcp: mirror.allow_tcp.clone(),
            origins: Vec::new(),
        };
        let first = !copies.contains_key(&key);
        let held = copies.entry(key).or_insert(new);
        if !first {
            held.allow_tcp.retain(|one| mirror.allow_tcp.contains(one));
        }
        for made_from in origins.get(origin).into_iter().flatten() {
            if !held.origins.contains(made_from) {
                held.origins.push(made_from.clone());
            }
        }
    }
}
