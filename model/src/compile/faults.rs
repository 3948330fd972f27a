//! Compiles FaultExperiments: what may be harmed, and the rules of runs that are under way.
//!
//! A status is no permission. Whatever phase it has, rules are made only of an experiment that can
//! be read, in a namespace whose annotation `weft.dev/faults` allows its share; callers of other
//! namespaces are harmed as far as their own annotation allows (`Workload.fault_limit`). A rule
//! harms nothing without a grant, so it is there before the run, for the pods that count.
//!
//! The target and the checked Services are of the experiment's namespace, which has one run at a
//! time: so no Service has two.

use std::{collections::BTreeMap, sync::Arc};

use crds::weft::parse_faults;
use crds::weft::validation::{Experiment, FaultEnding};
use http::StatusCode;
use policy::{
    fault::{Abort, Fault, HarmedPods, InjectedFailure, Selection},
    name::{Kind, ObjectRef, ServiceId},
    origin::Origin,
    route::{Match, Rule},
    share::Share,
    traffic::{Scoped, Sources},
};

use super::{
    bindings::has_all,
    findings::{About, Findings},
    traffic::{Named, Scope},
};
use crate::{
    model::{
        faults::{FaultRun, limit, seed},
        traffic::{Policies, PortPolicies},
    },
    problem::{Reason, few},
    world::{self, ExperimentFacts, ObjectKey, object, origin},
};

/// Millionths in a whole.
const WHOLE: f64 = 1_000_000.0;

/// Adds the rules of all runs, and reports what is wrong with experiments.
pub(super) fn add(named: &Named<'_>, policies: &mut Policies, findings: &mut Findings) {
    let mut running: BTreeMap<Arc<str>, &ObjectKey> = BTreeMap::new();
    for (key, facts) in named.world.experiments.iter() {
        let this = object(Kind::FaultExperiment, key);
        findings.seen(this.clone(), &facts.meta, String::new());
        let mut about = findings.about(&this, facts.meta.generation);
        about.add_mistakes(&facts.meta.mistakes);
        let reading = Reading {
            named,
            key,
            facts,
            about,
            origins: vec![origin(Kind::FaultExperiment, key, &facts.meta)],
        };
        let under_way = facts.order.counts();
        let first = *running.get(&key.namespace).unwrap_or(&key);
        let run = reading.run(under_way.then_some(first));
        if let Some(run) = run.filter(|_| under_way) {
            running.insert(key.namespace.clone(), key);
            run.add_to(policies, named);
        }
    }
}

/// One experiment being read.
struct Reading<'s, 'a> {
    named: &'s Named<'a>,
    key: &'s ObjectKey,
    facts: &'s ExperimentFacts,
    about: About<'a>,
    origins: Vec<(ObjectRef, i64)>,
}

/// What its run is, if it may have one.
struct Run<'s> {
    key: &'s ObjectKey,
    spec: &'s Experiment,
    routes: Match,
    sources: Sources,
    selection: Selection,
    origins: Vec<(ObjectRef, i64)>,
}

impl<'s, 'a> Reading<'s, 'a> {
    /// Reports what is wrong; `None` if nothing may be harmed. `first`: of a run that is under way
    /// the one that goes first in the namespace.
    fn run(mut self, first: Option<&ObjectKey>) -> Option<Run<'s>> {
        let facts = self.facts;
        // One that cannot be read has no checks, and its mistakes say why.
        let spec = Some(&facts.spec).filter(|spec| !spec.checks.is_empty())?;
        let share = share(spec);
        let is_allowed = self.is_allowed(share);
        let is_first = self.is_first(first);
        let target_is_there = self.is_callable("spec.targetRef.name", &spec.target, spec.port);
        let mut checks_are_there = true;
        for (i, check) in spec.checks.iter().enumerate() {
            let field = format!("spec.checks[{i}].service");
            checks_are_there &= self.is_callable(&field, &check.service, None);
        }
        let mut scope = Scope {
            named: self.named,
            key: self.key,
            about: &mut self.about,
            origins: &mut self.origins,
        };
        let routes: Vec<_> = spec.routes.iter().cloned().map(Some).collect();
        let (routes, _) = scope.routes(&routes);
        let sources = scope.sources(&spec.sources);
        let is_meant = is_allowed && is_first && target_is_there && checks_are_there;
        facts.effective().filter(|_| is_meant).map(|spec| Run {
            key: self.key,
            spec,
            routes,
            sources,
            selection: Selection {
                seed: seed(&facts.meta.uid, facts.order.run),
                share,
            },
            origins: self.origins,
        })
    }

    /// Whether the namespace lets this share of its calls be harmed.
    fn is_allowed(&mut self, share: Share) -> bool {
        let namespace = &self.key.namespace;
        let facts = self.named.world.namespace(namespace);
        let limit = limit(facts);
        if share <= limit {
            return true;
        }
        let written = facts.and_then(|facts| facts.annotations.faults.as_deref());
        let unreadable = written.and_then(|text| Some((text, parse_faults(text).err()?)));
        let message = if let Some((text, bad)) = unreadable {
            let text: String = text.chars().take(80).collect();
            format!(
                "annotation weft.dev/faults of namespace {namespace} is {text:?}, which cannot be \
                 read and allows no faults; it {bad}"
            )
        } else if limit == Share::NONE {
            format!(
                "namespace {namespace} does not allow faults; weft fault allow -n {namespace} \
                 allows them, with the right to write the Namespace"
            )
        } else {
            format!(
                "is {share}%, and namespace {namespace} allows {limit}%; lower it, or write \
                 annotation weft.dev/faults of the Namespace"
            )
        };
        self.about.refuse(Reason::NotAllowed, "spec.share", message);
        false
    }

    /// Whether no other run goes first.
    fn is_first(&mut self, first: Option<&ObjectKey>) -> bool {
        match first {
            Some(first) if first != self.key => {
                let message = format!(
                    "a run of FaultExperiment {first} is under way, and a namespace has one at a \
                     time; wait for its end, or stop it"
                );
                self.about.refuse(Reason::Conflicted, "", message);
                false
            }
            _ => true,
        }
    }

    /// Whether a Service is there that callers reach by its own address, with that port.
    fn is_callable(&mut self, field: &str, service: &ServiceId, port: Option<u16>) -> bool {
        let key = ObjectKey::from(service);
        let Some(facts) = self.named.world.services.get(&key) else {
            self.about.unresolved_with(Reason::RefNotFound, field, || {
                format!("there is no Service {}; nothing is harmed", key.name)
            });
            return false;
        };
        if facts.external_name.is_some() {
            let message = format!(
                "{} is of type ExternalName, whose calls the mesh does not carry; nothing is \
                 harmed",
                key.name
            );
            self.about
                .refuse(Reason::UnsupportedService, field, message);
            return false;
        }
        if facts.headless {
            let message = format!(
                "clients of {}, which is headless, choose its pods; calls that name no Service \
                 are spared",
                key.name
            );
            self.about.warn(Reason::UnsupportedService, field, message);
        }
        if let Some(port) = port
            && facts.ports.iter().all(|one| one.number != port)
        {
            let ports = few(facts.ports.iter().map(|one| one.number.to_string()));
            let message = format!(
                "{} has no port {port}, it has {ports}: an experiment names the port that callers \
                 use, not the container's; nothing is harmed",
                key.name
            );
            self.about
                .unresolved(Reason::PortNotFound, "spec.targetRef.port", message);
            return false;
        }
        true
    }
}

impl Run<'_> {
    /// Adds its rules at the ports of the target and of the checked Services.
    fn add_to(self, policies: &mut Policies, named: &Named<'_>) {
        let this = world::named(&object(Kind::FaultExperiment, self.key));
        let target = ObjectKey::from(&self.spec.target);
        let fault = Arc::new(Fault {
            selection: self.selection,
            delay: self.spec.fault.delay,
            failure: self.spec.fault.ending.and_then(failure),
            pods: self.pods(&target, named),
        });
        if fault.pods.is_some() {
            policies.faults.selective.insert(target.clone());
        }
        let of_target = ports(named, &target).into_iter();
        let of_target: Vec<u16> = of_target
            .filter(|port| self.spec.port.is_none_or(|one| one == *port))
            .collect();
        let run = FaultRun {
            seed: self.selection.seed,
            target: target.clone(),
            ports: of_target.clone(),
        };
        policies.faults.runs.insert(self.key.clone(), run);
        for port in of_target {
            let scoped = Scoped {
                sources: self.sources.clone(),
                section: Arc::clone(&fault),
            };
            self.at(policies, &this, (&target, port), |traffic| {
                traffic.traffic.fault.rules.push(Rule {
                    origin: this.clone(),
                    when: self.routes.clone(),
                    then: Some(scoped),
                });
            });
        }
        for check in &self.spec.checks {
            let service = ObjectKey::from(&check.service);
            for port in ports(named, &service) {
                self.at(policies, &this, (&service, port), |traffic| {
                    traffic.traffic.groups.rules.push(Rule {
                        origin: this.clone(),
                        when: Match::Always,
                        then: Some(self.selection),
                    });
                });
            }
        }
    }

    /// Changes what holds at a port. It was made a moment ago, so nothing shares it yet.
    fn at(
        &self,
        policies: &mut Policies,
        this: &Origin,
        (service, port): (&ObjectKey, u16),
        change: impl FnOnce(&mut PortPolicies),
    ) {
        let here = policies.ports.entry((service.clone(), port)).or_default();
        if let Some(here) = Arc::get_mut(here) {
            change(here);
            here.origins.insert(this.clone(), self.origins.clone());
        }
    }

    /// The pods that are harmed; `None`: all.
    fn pods(&self, target: &ObjectKey, named: &Named<'_>) -> Option<HarmedPods> {
        let asked = &self.spec.endpoints;
        if asked.labels.is_empty() && asked.zone.is_none() {
            return None;
        }
        let entry = named.services.get(target).into_iter();
        let candidates = entry.flat_map(|entry| entry.ports.values());
        let candidates = candidates.flat_map(|port| &port.candidates);
        let meant = candidates.filter_map(|candidate| {
            let facts = named.world.pods.get(candidate.endpoint.pod.as_ref()?)?;
            let is_near = asked
                .zone
                .as_ref()
                .is_none_or(|zone| **zone == *named.world.zone(&facts.node));
            (is_near && has_all(facts, &asked.labels)).then(|| facts.uid.clone())
        });
        Some(HarmedPods::new(meant))
    }
}

/// The share of a valid experiment.
fn share(spec: &Experiment) -> Share {
    // It is rounded up: a share that is not quite allowed must not become one that is.
    let millionths = (spec.share * WHOLE - 1e-3).ceil();
    if (0.0..=WHOLE).contains(&millionths) {
        Share::of_millionths(millionths as u32).unwrap_or(Share::NONE)
    } else {
        Share::NONE
    }
}

/// `None` for a status that HTTP has not, which validation refuses.
fn failure(ending: FaultEnding) -> Option<InjectedFailure> {
    Some(match ending {
        FaultEnding::Abort {
            http_status,
            grpc_status,
        } => InjectedFailure::Abort(Abort {
            http_status: StatusCode::from_u16(http_status).ok()?,
            grpc_status,
        }),
        FaultEnding::Refuse => InjectedFailure::Refuse,
        FaultEnding::Reset => InjectedFailure::Reset,
    })
}

fn ports(named: &Named<'_>, service: &ObjectKey) -> Vec<u16> {
    let entry = named.services.get(service).into_iter();
    entry
        .flat_map(|entry| entry.ports.keys().copied())
        .collect()
}
