//! Compiles CanaryReleases: which one leads the calls of which Service, the two sets of its
//! endpoints, and the rules that share its calls out between them.
//!
//! A release is in precedence what an unconditional TrafficSplit of its Service is: the older one
//! decides, also while no run is. Rules with matches come before it. What the candidate gets at
//! most is in the release's status; how much of that it gets follows from the pods that serve, at
//! each port, and needs no decision when a pod is lost.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::labels::POD_TEMPLATE_HASH;
use crds::weft::ReleasePhase;
use crds::weft::validation::{Release, ReleaseStep};
use policy::{
    name::{Kind, ObjectRef},
    release::{Limit, ReleaseSet},
    route::Match,
};

use super::findings::{About, Findings};
use super::routes::{Group, MOST_BYTES, MOST_COMPILED, Routes, Usable};
use crate::{
    model::{
        CandidateShare, Endpoint, EndpointState, PortEntry, ServiceEntry, Sets, Split,
        peers::owner_above,
    },
    problem::Reason,
    world::{ObjectKey, PodFacts, ReleaseFacts, ServiceFacts, World, object},
};

/// A release that may lead the calls of a Service.
pub(super) struct Claim<'a> {
    pub(super) object: ObjectRef,
    pub(super) facts: &'a ReleaseFacts,
    pub(super) spec: &'a Release,
    /// The Service.
    pub(super) root: ObjectKey,
}

/// The releases that can be used by themselves, the oldest first.
pub(super) fn claims<'a>(
    world: &'a World,
    routes: &Routes,
    findings: &mut Findings,
) -> Vec<Claim<'a>> {
    let mut by_age: Vec<(&ObjectKey, &Arc<ReleaseFacts>)> = world.releases.iter().collect();
    by_age.sort_by_key(|(key, facts)| (facts.meta.created, *key));
    let mut claims: Vec<Claim<'a>> = Vec::new();
    for (key, facts) in by_age {
        let object = object(Kind::CanaryRelease, key);
        findings.seen(object.clone(), &facts.meta, summary(facts));
        let mut about = findings.about(&object, facts.meta.generation);
        about.add_mistakes(&facts.meta.mistakes);
        let Some(spec) = facts.effective() else {
            continue;
        };
        let root = ObjectKey::from(&spec.service);
        let fits = check_groups(spec, key, routes, &mut about);
        if !may_be_led(world, &root, &mut about) || !fits {
            continue;
        }
        let same = |one: &&Claim<'_>| {
            one.root.namespace == root.namespace && one.spec.deployment == spec.deployment
        };
        // Of one Service, precedence decides below.
        let other = claims.iter().filter(|one| one.root != root).find(same);
        if let Some(other) = other {
            let message = format!(
                "{} releases Deployment {} already, and comes first by age or name; delete one of \
                 them",
                other.object, spec.deployment
            );
            about.refuse(Reason::Conflicted, "spec.deployment", message);
            continue;
        }
        claims.push(Claim {
            object,
            facts,
            spec,
            root,
        });
    }
    claims
}

fn summary(facts: &ReleaseFacts) -> String {
    facts.spec.deployment.to_string()
}

/// Whether calls to the Service can be led to its pods by their revisions.
fn may_be_led(world: &World, root: &ObjectKey, about: &mut About<'_>) -> bool {
    const FIELD: &str = "spec.service";
    let Some(service) = world.services.get(root) else {
        let message = format!("there is no Service {}", root.name);
        about.unresolved(Reason::RefNotFound, FIELD, message);
        return false;
    };
    let unfit = if service.external_name.is_some() {
        Some("is of type ExternalName, so it has no pods of its own")
    } else if service.headless {
        Some("is headless, so its clients choose the pod and no weight applies")
    } else if service.publish_not_ready {
        Some("publishes addresses that are not ready, so all its callers reach the candidate")
    } else if !service.has_selector {
        Some("has no selector, so its pods are not known by their revisions")
    } else if service.internal_local {
        Some("has internalTrafficPolicy Local, so not every caller reaches pods of both revisions")
    } else {
        None
    };
    if let Some(why) = unfit {
        let message = format!(
            "{} {why}; name another Service of the Deployment",
            root.name
        );
        about.refuse(Reason::UnsupportedService, FIELD, message);
        return false;
    }
    if service.affinity_seconds > 0 {
        let message = format!(
            "{} has sessionAffinity, which no call keeps to during a run; use sticky of a \
             TrafficPolicy",
            root.name
        );
        about.warn(Reason::FieldIgnored, FIELD, message);
    }
    true
}

/// Reports groups that do not exist, and steps with too many matches; false where there are any of
/// these.
fn check_groups(spec: &Release, key: &ObjectKey, routes: &Routes, about: &mut About<'_>) -> bool {
    let mut fits = true;
    for (i, step) in spec.steps.iter().enumerate() {
        for (j, name) in step.groups.iter().enumerate() {
            if routes.group(&key.namespace, name).is_none() {
                let field = format!("spec.steps[{i}].matches[{j}].name");
                let message = format!("there is no HTTPRouteGroup {name}; no request fits it");
                about.unresolved(Reason::RefNotFound, &field, message);
            }
        }
        if let Some(message) = excess(step, key, routes) {
            let field = format!("spec.steps[{i}].matches");
            about.refuse(Reason::Invalid, &field, message);
            fits = false;
        }
    }
    fits
}

/// Why the matches of a step are too many; `None` if they are not.
fn excess(step: &ReleaseStep, key: &ObjectKey, routes: &Routes) -> Option<String> {
    let sum = |of: fn(&Usable) -> usize| -> usize {
        let named = step.groups.iter();
        let groups = named.filter_map(|name| routes.group(&key.namespace, name));
        groups.flat_map(Group::all).map(of).sum()
    };
    if sum(|one| one.bytes) > MOST_BYTES {
        return Some(format!(
            "name matches of more than {} KiB; the release has no effect",
            MOST_BYTES / 1024
        ));
    }
    (sum(|one| one.one.compiled_size()) > MOST_COMPILED).then(|| {
        format!(
            "name matches whose expressions take more than {} MiB when compiled; the release has \
             no effect: write plain paths and values in place of expressions",
            MOST_COMPILED / (1024 * 1024)
        )
    })
}

impl Claim<'_> {
    /// Its rules among those of splits. Without a run there is one without a backend, which holds
    /// its place against younger ones.
    pub(super) fn splits(&self, routes: &Routes) -> Vec<Split> {
        let order = &self.facts.order;
        let Some(revision) = order.candidate.clone().filter(|_| order.leads_calls()) else {
            return vec![self.rule(Match::Always, Vec::new(), None)];
        };
        let share = |limit| CandidateShare {
            deployment: self.spec.deployment.clone(),
            revision: revision.clone(),
            limit,
        };
        let always = |limit| self.rule(Match::Always, Vec::new(), Some(share(limit)));
        match order.phase {
            ReleasePhase::RolledBack => vec![always(Limit::Refused(order.weight))],
            ReleasePhase::Promoting => vec![always(Limit::Step(100))],
            _ => match self.step() {
                Some((step, before)) if !step.groups.is_empty() => {
                    let (when, groups) = self.matches(step, routes);
                    let most = Some(share(Limit::Step(order.weight)));
                    let fitting = self.rule(when, groups, most);
                    vec![fitting, always(Limit::Step(before))]
                }
                _ => vec![always(Limit::Step(order.weight))],
            },
        }
    }

    /// The step in force, and the weight of the last one before it that is for all calls.
    fn step(&self) -> Option<(&ReleaseStep, u8)> {
        let place = usize::try_from(self.facts.order.step)
            .ok()?
            .checked_sub(1)?;
        let step = self.spec.steps.get(place)?;
        let before = self.spec.steps.iter().take(place);
        let before = before.filter(|one| one.groups.is_empty());
        Some((step, before.map(|one| one.weight).max().unwrap_or(0)))
    }

    /// The percentage of requests that are copied now.
    pub(super) fn mirrored(&self) -> Option<u8> {
        let order = &self.facts.order;
        let is_step = matches!(
            order.phase,
            ReleasePhase::Progressing | ReleasePhase::Paused
        );
        let (step, _) = self.step().filter(|_| is_step && order.leads_calls())?;
        step.mirror
    }

    /// The matches of all groups together, and those groups.
    fn matches(&self, step: &ReleaseStep, routes: &Routes) -> (Match, Vec<(ObjectRef, i64)>) {
        let namespace = &self.object.namespace;
        let named = step.groups.iter();
        let groups: BTreeMap<&str, &Group> = named
            .filter_map(|name| Some((&**name, routes.group(namespace, name)?)))
            .collect();
        let matches = groups.values().copied().flat_map(Group::all);
        let fits = matches.map(|usable| usable.one.clone()).collect();
        let origins = groups.values().map(|group| group.origin.clone()).collect();
        (Match::AnyOf(fits), origins)
    }

    fn rule(
        &self,
        when: Match,
        groups: Vec<(ObjectRef, i64)>,
        release: Option<CandidateShare>,
    ) -> Split {
        let ObjectKey { namespace, name } = &self.root;
        let sets = ReleaseSet::ALL.map(|set| ObjectKey::new(namespace, &set.of(name)));
        let sets = sets.into_iter().filter(|_| release.is_some());
        let mut origins = vec![(self.object.clone(), self.facts.meta.generation)];
        origins.extend(groups);
        Split {
            origin: self.object.clone(),
            origins,
            created: self.facts.meta.created,
            when,
            backends: sets.map(|set| (set, 0)).collect(),
            release,
        }
    }
}

/// A Service with the sets that its rules share its calls out between, and without routes.
pub(super) fn service_entry(
    world: &World,
    key: &ObjectKey,
    facts: &Arc<ServiceFacts>,
    ports: BTreeMap<u16, PortEntry>,
    splits: Vec<Split>,
) -> ServiceEntry {
    let mut shares = splits.iter().filter_map(|split| split.release.as_ref());
    let sets = shares
        .next()
        .map(|share| Box::new(sets(world, (key, facts), &ports, share)));
    ServiceEntry {
        facts: Arc::clone(facts),
        ports,
        splits,
        routes: None,
        sets,
    }
}

fn sets(
    world: &World,
    (key, facts): (&ObjectKey, &Arc<ServiceFacts>),
    ports: &BTreeMap<u16, PortEntry>,
    share: &CandidateShare,
) -> Sets {
    let is_candidate = |one: &&EndpointState| {
        let pod = one.endpoint.pod.as_ref();
        let pod = pod.and_then(|pod| Some((pod, &**world.pods.get(pod)?)));
        pod.is_some_and(|(pod, facts)| {
            is_of(key, &share.deployment, (pod, facts))
                && facts.labels.get(POD_TEMPLATE_HASH) == Some(&share.revision)
        })
    };
    let entry = |make: &dyn Fn(&PortEntry) -> Vec<EndpointState>| {
        let ports = ports.iter();
        let ports = ports.map(|(port, at)| (*port, PortEntry::new(at.protocol, make(at))));
        Arc::new(ServiceEntry {
            facts: Arc::clone(facts),
            ports: ports.collect(),
            splits: Vec::new(),
            routes: None,
            sets: None,
        })
    };
    Sets {
        stable: entry(&|at| {
            let endpoints = at.candidates.iter();
            endpoints
                .filter(|one| !is_candidate(one))
                .cloned()
                .collect()
        }),
        candidate: entry(&|at| {
            let endpoints = at.candidates.iter();
            endpoints.filter(is_candidate).map(without_gate).collect()
        }),
    }
}

/// The endpoint as it would be if its pod had no gate. Opening the gate changes nothing of it, so
/// it is warmed up once.
fn without_gate(one: &EndpointState) -> EndpointState {
    let endpoint = Endpoint {
        ready_since: one.gated.unwrap_or(one.endpoint.ready_since),
        ..one.endpoint.clone()
    };
    EndpointState {
        endpoint,
        ready: one.ready || one.gated.is_some(),
        ..one.clone()
    }
}

/// Whether a pod is of this Deployment, in the namespace of its Service.
pub(super) fn is_of(
    service: &ObjectKey,
    deployment: &str,
    (pod, facts): (&ObjectKey, &PodFacts),
) -> bool {
    pod.namespace == service.namespace && owner_above(facts) == Some(("Deployment", deployment))
}
