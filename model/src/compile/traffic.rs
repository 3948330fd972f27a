//! Compiles TrafficPolicies: which of them apply at which Service port, and what is reported of
//! the others.
//!
//! A policy is read alone first, with the objects that it names (`reading`). Then
//! `policy::traffic::precedence` decides which wins at each port of each Service; the same result
//! goes to the proxies and into the statuses, so that a status shows what is in force.

mod about;
mod candidate;
mod conditions;
mod hints;
mod port_scope;
mod reading;
mod receivers;
mod scope;
mod shared_pods;

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::{
    name::{Kind, ObjectRef, ServiceId},
    origin::Origin,
    traffic::{
        bounds::POLICIES_PER_NAMESPACE,
        call::{Downstream, FallbackTo, Mirror},
        precedence::{PrecedenceResults, Rank, resolve},
    },
};

pub(super) use self::candidate::{Named, surroundings};
pub(super) use self::scope::Scope;
pub(super) use self::shared_pods::SharedPods;

use self::{about::ByTarget, candidate::PolicyCandidate, hints::Hints, receivers::Receivers};
use super::findings::{About, Findings};
use crate::{
    model::traffic::{Copies, Policies, PortPolicies, ServicePodFacts},
    problem::Reason,
    world::{ObjectKey, PolicyFacts, object},
};

/// All TrafficPolicies, by what they are about.
pub(super) fn policies(named: &Named<'_>, findings: &mut Findings) -> Policies {
    let mut policies = Policies::default();
    if named.world.policies.is_empty() {
        return policies;
    }
    let candidates = candidates(named, &mut policies.watched, findings);
    let mut by_target = ByTarget::new(&candidates);
    let mut results = PrecedenceResults::default();
    for (key, entry) in named.services {
        let service = ServiceId::new(key.namespace.clone(), key.name.clone());
        let ports: Vec<u16> = entry.ports.keys().copied().collect();
        let counting = by_target.at(&service, &ports, |policy, port| {
            port_scope::says(policy, key, port, named.services)
        });
        for (port, counting) in ports.iter().zip(counting) {
            let about = counting.policies;
            if about.is_empty() {
                continue;
            }
            let written = about.iter();
            let written =
                written.map(|one| port_scope::scoped(&one.policy, key, *port, named.services));
            let written: Vec<Cow<'_, policy::traffic::Policy>> = written.collect();
            let mut resolved = resolve(written.iter().map(Cow::as_ref), &service, *port);
            resolved.lost.extend(counting.lost);
            results.add(&resolved);
            if resolved.won.is_empty() {
                continue;
            }
            let winners: BTreeSet<&Origin> =
                resolved.won.iter().map(|(origin, _)| origin).collect();
            let winning = about
                .iter()
                .filter(|one| winners.contains(&one.policy.origin));
            let ranks = winning
                .clone()
                .map(|one| (one.policy.origin.clone(), Rank::of(&one.policy)));
            let ranks = ranks.collect();
            let origins = winning.map(|one| (one.policy.origin.clone(), one.origins.clone()));
            let origins: BTreeMap<Origin, Vec<(ObjectRef, i64)>> = origins.collect();
            let leads_to = leads_to(&resolved.traffic);
            copies(&resolved.traffic, &origins, &mut policies.copies);
            let port_policies = PortPolicies {
                traffic: resolved.traffic,
                origins,
                ranks,
                leads_to,
                ..PortPolicies::default()
            };
            policies
                .ports
                .insert((key.clone(), *port), Arc::new(port_policies));
        }
    }
    by_target.report(findings);
    let overridden = shared_pods::overridden(named, &policies);
    conditions::report_conflicts(&candidates, &results, &overridden, findings);
    conditions::not_enforced(named, &candidates, &mut policies, findings);
    policies
}

/// Reads every policy, the oldest of each namespace first, and no more than are allowed.
fn candidates(
    named: &Named<'_>,
    watched: &mut BTreeMap<ObjectKey, ServicePodFacts>,
    findings: &mut Findings,
) -> Vec<PolicyCandidate> {
    let mut by_age: Vec<(&ObjectKey, &Arc<PolicyFacts>)> = named.world.policies.iter().collect();
    by_age.sort_by_key(|(key, facts)| (&key.namespace, facts.meta.created, &key.name));
    let (mut counting, mut late) = (Vec::new(), Vec::new());
    for all in by_age.chunk_by(|(one, _), (other, _)| one.namespace == other.namespace) {
        let (first, others) = all.split_at(all.len().min(POLICIES_PER_NAMESPACE));
        counting.extend_from_slice(first);
        late.extend_from_slice(others);
    }
    for (key, facts) in late {
        let message = format!(
            "namespace {} has more than {POLICIES_PER_NAMESPACE} TrafficPolicies, and only the \
             oldest count; this one has no effect",
            key.namespace
        );
        noted(key, facts, findings).refuse(Reason::Invalid, "", message);
    }
    let splits = named.services.values().flat_map(|entry| &entry.splits);
    let routes = named.services.values();
    let routes = routes.flat_map(|entry| entry.routed_for_everyone());
    let routes = routes.map(|(_, table)| table);
    let by_name: BTreeMap<&ObjectKey, &Arc<PolicyFacts>> = counting.iter().copied().collect();
    let by_name = by_name.into_iter().map(|(key, facts)| (key, &**facts));
    let receivers = Receivers::new(splits, routes, by_name);
    let mut hints = Hints::default();
    let mut candidates = Vec::new();
    for (key, facts) in counting {
        let reading = reading::Reading {
            named,
            key,
            facts,
            about: noted(key, facts, findings),
            receivers: &receivers,
            hints: &mut hints,
            origins: Vec::new(),
            watched,
        };
        candidates.extend(reading.candidate());
    }
    candidates
}

/// Notes a policy, with what is wrong with it by itself.
fn noted<'a>(key: &ObjectKey, facts: &PolicyFacts, findings: &'a mut Findings) -> About<'a> {
    let this = object(Kind::TrafficPolicy, key);
    findings.seen(this.clone(), &facts.meta, conditions::summary(facts));
    findings.targeted(&this, conditions::target(facts));
    let mut about = findings.about(&this, facts.meta.generation);
    about.add_mistakes(&facts.meta.mistakes);
    about
}

/// Services that callers may be sent to instead of the one that they called.
fn leads_to(traffic: &policy::traffic::EffectivePolicy) -> BTreeSet<ObjectKey> {
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

fn mirrors(traffic: &policy::traffic::EffectivePolicy) -> impl Iterator<Item = (&Mirror, &Origin)> {
    let rules = traffic.mirror.rules.iter();
    rules.flat_map(|rule| {
        let scoped = rule.then.iter();
        scoped.flat_map(|scoped| scoped.section.iter().map(|one| (one, &rule.origin)))
    })
}

/// Notes which Services get copies and nothing else, with what every such mirror lets it open.
fn copies(
    traffic: &policy::traffic::EffectivePolicy,
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
        let copy = copies.entry(key).or_insert(new);
        if !first {
            copy.allow_tcp.retain(|one| mirror.allow_tcp.contains(one));
        }
        for made_from in origins.get(origin).into_iter().flatten() {
            if !copy.origins.contains(made_from) {
                copy.origins.push(made_from.clone());
            }
        }
    }
}
