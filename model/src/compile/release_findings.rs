//! Reports what is wrong with a release's pods or with the policies of its Service, adds the copies
//! of its mirror steps, and collects the Services whose pods send early reports.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{
    name::ServiceId,
    origin::Origin,
    release::ReleaseSet,
    route::{Match, Rule},
    traffic::{
        Scoped, Sources,
        call::{Downstream, Mirror},
        set::{Methods, Percent},
    },
};

use super::findings::{About, Findings};
use super::releases::{Claim, is_of};
use crate::{
    model::{
        Index, PodEntry, ReleasedPods, Releases, ServiceEntry,
        traffic::{Policies, PortPolicies},
    },
    problem::{Reason, few},
    world::{ObjectKey, World, named},
};

/// What releases that hold their Services decide beside routes. Adds their copies to `policies`.
pub(super) fn releases(
    world: &World,
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    pods: &BTreeMap<ObjectKey, Arc<PodEntry>>,
    claims: &[Claim<'_>],
    policies: &mut Policies,
    findings: &mut Findings,
) -> Releases {
    let mut releases = Releases::default();
    for claim in claims {
        let mut about = findings.about(&claim.object, claim.facts.meta.generation);
        let deployment = &claim.spec.deployment;
        let found = surroundings((&claim.root, &**deployment), world, services, pods);
        report_pods(claim, &found, &mut about);
        let at = (claim.root.clone(), deployment.clone());
        releases.watched.insert(at, found);
        if claim.facts.order.counts() {
            releases.counted.insert(claim.root.clone());
        }
        report_policies(claim, policies, &mut about);
        if let Some(percent) = claim.mirrored() {
            let entry = services.get(&claim.root).into_iter();
            for port in entry.flat_map(|entry| entry.ports.keys()) {
                copy(claim, *port, percent, policies);
            }
        }
    }
    let experiments = world.experiments.values();
    let running = experiments.filter(|facts| facts.order.counts());
    let checks = running.filter_map(|facts| Some(&facts.effective()?.checks));
    let checked = checks
        .flatten()
        .map(|check| ObjectKey::from(&check.service));
    releases.counted.extend(checked);
    releases
}

/// What is reported of the pods of a Deployment that serve a Service.
fn surroundings(
    (service, deployment): (&ObjectKey, &str),
    world: &World,
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    pods: &BTreeMap<ObjectKey, Arc<PodEntry>>,
) -> ReleasedPods {
    let mut found = ReleasedPods::default();
    let ports = services.get(service).into_iter();
    let ports = ports.flat_map(|entry| entry.ports.values());
    let endpoints = ports.flat_map(|at| &at.candidates);
    for pod in endpoints.filter_map(|one| one.endpoint.pod.as_ref()) {
        let facts = world.pods.get(pod).map(Arc::as_ref);
        let Some(facts) = facts.filter(|facts| is_of(service, deployment, (pod, *facts))) else {
            continue;
        };
        found.some = true;
        found.plain |= facts.proxy.is_none();
        let serves = pods.get(pod).into_iter().flat_map(|entry| &entry.serves);
        let others = serves.map(|(other, ..)| other);
        let others = others.filter(|other| *other != service);
        found.others.extend(others.cloned());
    }
    if !found.some {
        let first = ObjectKey::new(&service.namespace, "");
        let all = world.pods.range(first..);
        let mut all = all.take_while(|(pod, _)| pod.namespace == service.namespace);
        found.unselected = all.any(|(pod, facts)| {
            let serves = !facts.ended && !facts.terminating && facts.ready_since > 0;
            serves && is_of(service, deployment, (pod, &**facts))
        });
    }
    found
}

/// Whether another report on pods follows than before, as long as no release has changed.
pub(super) fn differ(
    before: &Releases,
    world: &World,
    services: &BTreeMap<ObjectKey, Arc<ServiceEntry>>,
    pods: &BTreeMap<ObjectKey, Arc<PodEntry>>,
) -> bool {
    let mut watched = before.watched.iter();
    watched.any(|((service, deployment), was)| {
        surroundings((service, &**deployment), world, services, pods) != *was
    })
}

/// The same where of the pods only readiness may differ, so that which of them serve stays.
pub(super) fn differ_by_state(world: &World, before: &Index) -> bool {
    let mut watched = before.releases.watched.iter();
    watched.any(|((service, deployment), was)| {
        let at = (service, &**deployment);
        !was.some && surroundings(at, world, &before.services, &before.pods) != *was
    })
}

fn report_pods(claim: &Claim<'_>, found: &ReleasedPods, about: &mut About<'_>) {
    const FIELD: &str = "spec.deployment";
    let (deployment, service) = (&claim.spec.deployment, &claim.root.name);
    if found.unselected {
        let message = format!(
            "Service {service} selects no pod of Deployment {deployment}, so a run has no calls \
             and nothing is checked; correct the selector, or name the Service of these pods"
        );
        about.unresolved(Reason::RefNotFound, FIELD, message);
    } else if !found.some {
        let message = format!(
            "no pod of Deployment {deployment} serves Service {service}; a run begins with the \
             first revision after one does"
        );
        about.caution(Reason::RefNotFound, FIELD, message);
    }
    if found.plain {
        let message = format!(
            "some pods of Deployment {deployment} have no proxy, so they have no gate and are not \
             counted; put them into the mesh"
        );
        about.warn(Reason::NotEnforced, FIELD, message);
    }
    if !found.others.is_empty() {
        let others = few(found.others.iter().map(|other| &*other.name));
        let message = format!(
            "its pods serve Service {others}, too, whose callers reach a new revision without \
             steps, as soon as its gates open; give each Service a Deployment of its own"
        );
        about.warn(Reason::SharedPods, FIELD, message);
    }
}

/// What policies of the Service change about steps and checks. Each is reported once, whatever the
/// number of ports.
fn report_policies(claim: &Claim<'_>, policies: &Policies, about: &mut About<'_>) {
    let mut steps = claim.spec.steps.iter();
    let mirrors = steps.any(|step| step.mirror.is_some());
    let first = |by: fn(&PortPolicies) -> Option<&Origin>| {
        let mut ports = policies.ports_of(&claim.root);
        ports.find_map(|port| by(port).cloned())
    };
    let mirror = first(|port| port.traffic.mirror.rules.first().map(|rule| &rule.origin));
    if let Some(policy) = mirror.filter(|_| mirrors) {
        let message = format!(
            "{policy} has mirror for this Service, so the mirror steps copy nothing; take the \
             section or the steps out"
        );
        about.warn(Reason::PartlyOverridden, "spec.steps", message);
    }
    let sticky = first(|port| port.traffic.sticky.rules.first().map(|rule| &rule.origin));
    if let Some(policy) = sticky {
        let message = format!(
            "{policy} has sticky for this Service, so calls depend on each other: a check may \
             err more often than it promises; take the section out for the time of runs"
        );
        about.warn(Reason::DependentCalls, "spec.service", message);
    }
}

/// Copies requests to a port to the candidate, unless a policy mirrors them.
fn copy(claim: &Claim<'_>, port: u16, percent: u8, policies: &mut Policies) {
    let ObjectKey { namespace, name } = &claim.root;
    let candidate = ReleaseSet::Candidate.of(name);
    let at = policies.ports.entry((claim.root.clone(), port));
    // No Model has them yet, so nothing shares them.
    let Some(at) = Arc::get_mut(at.or_default()) else {
        return;
    };
    if !at.traffic.mirror.rules.is_empty() {
        return;
    }
    let origin = named(&claim.object);
    let mirror = Mirror {
        service: ServiceId::new(namespace.clone(), candidate.as_str()),
        percent: Percent::at_most(percent),
        methods: Methods::SAFE,
        // It is to answer calls soon, and may do what those need.
        downstream: Downstream::Any,
        allow_tcp: Vec::new(),
    };
    at.traffic.mirror.rules.push(Rule {
        origin: origin.clone(),
        when: Match::Always,
        then: Some(Scoped {
            sources: Sources::Everyone,
            section: Arc::from([mirror]),
        }),
    });
    let made_from = (claim.object.clone(), claim.facts.meta.generation);
    at.origins.insert(origin, vec![made_from]);
    at.leads_to.insert(ObjectKey::new(namespace, &candidate));
}
