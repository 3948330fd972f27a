//! Reads one TrafficPolicy and resolves the objects that it names.

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::{
    name::{Kind, ObjectRef, ServiceId},
    traffic::{
        Policy, Section, Sections, Target,
        call::{Downstream, FallbackTo, Override},
    },
};

use super::{
    candidate::{Named, PolicyCandidate, surroundings},
    hints::Hints,
    port_scope,
    receivers::Receivers,
    scope::Scope,
};
use crate::{
    compile::findings::About,
    model::traffic::ServicePodFacts,
    problem::{Reason, few},
    world::{self, ObjectKey, PolicyFacts, ServiceFacts, object, origin},
};

/// One policy being read.
pub(super) struct Reading<'a> {
    pub(super) named: &'a Named<'a>,
    pub(super) key: &'a ObjectKey,
    pub(super) facts: &'a PolicyFacts,
    pub(super) about: About<'a>,
    pub(super) receivers: &'a Receivers<'a>,
    pub(super) hints: &'a mut Hints,
    pub(super) origins: Vec<(ObjectRef, i64)>,
    pub(super) watched: &'a mut BTreeMap<ObjectKey, ServicePodFacts>,
}

impl<'a> Reading<'a> {
    /// The policy, unless it can have no effect.
    pub(super) fn candidate(mut self) -> Option<PolicyCandidate> {
        let made_from = origin(Kind::TrafficPolicy, self.key, &self.facts.meta);
        let generation = made_from.1;
        self.origins.push(made_from);
        let facts = self.facts;
        let (routes, size) = self.scope().routes(&facts.spec.routes);
        let sources = self.scope().sources(&facts.spec.sources);
        let sections = self.sections();
        let target = self.target()?;
        let this = object(Kind::TrafficPolicy, self.key);
        let policy = Policy {
            origin: world::named(&this),
            created: self.facts.meta.created,
            target,
            enforce: self.facts.spec.enforce,
            routes,
            sources,
            sections,
        };
        Some(PolicyCandidate {
            bytes: port_scope::bytes(&policy, size.bytes),
            compiled: size.compiled,
            policy,
            object: this,
            generation,
            origins: self.origins,
        })
    }

    /// What it is about, if that is there.
    fn target(&mut self) -> Option<Target> {
        let target = self.facts.spec.target.clone()?;
        let (service, port) = match &target {
            Target::Port(service, port) => (service, Some(*port)),
            Target::Service(service) => (service, None),
            Target::Namespace(_) | Target::Mesh => return Some(target),
        };
        let facts = self.service("spec.targetRef.name", service, "; the policy has no effect")?;
        if facts.external_name.is_some() {
            let message = format!(
                "{} is of type ExternalName, whose calls the mesh does not carry; the policy has \
                 no effect",
                service.name
            );
            self.about
                .refuse(Reason::UnsupportedService, "spec.targetRef.name", message);
            return None;
        }
        if let Some(port) = port
            && !has(&facts, port)
        {
            let ports = few(facts.ports.iter().map(|port| port.number.to_string()));
            let but = if ports.is_empty() { "" } else { " but " };
            let message = format!(
                "{} has no port {port}{but}{ports}: a policy names the port that callers use, not \
                 the container's; the policy has no effect",
                service.name
            );
            self.about
                .unresolved(Reason::PortNotFound, "spec.targetRef.port", message);
            return None;
        }
        if facts.headless {
            self.headless(&service.name);
        }
        Some(target)
    }

    /// Warns of what does not hold for every caller, or does nothing, because clients of this
    /// Service choose the pods that they call.
    fn headless(&mut self, service: &str) {
        let reason = Reason::UnsupportedService;
        let written = &self.facts.spec.written;
        let otherwise = [
            Section::RateLimits,
            Section::Priority,
            Section::Overload,
            Section::Balance,
            Section::Sticky,
        ];
        if written.iter().any(|section| !otherwise.contains(section)) {
            let message = format!(
                "{service} is headless: all but rateLimits, priority and overload hold only for \
                 HTTP requests that name it as their host, and timeouts.request for those that \
                 name a pod's address as well"
            );
            self.about.warn(reason, "spec.targetRef.name", message);
        }
        for section in [Section::Balance, Section::Sticky] {
            if written.contains(&section) {
                let message = format!(
                    "clients of {service}, which is headless, choose its pods; it holds for calls \
                     that a TrafficSplit moves, and for no others"
                );
                self.about.warn(reason, &format!("spec.{section}"), message);
            }
        }
    }

    /// A Service by name, or a message about its absence, with one that may have been meant.
    fn service(
        &mut self,
        field: &str,
        service: &ServiceId,
        consequence: &str,
    ) -> Option<Arc<ServiceFacts>> {
        let services = &self.named.world.services;
        let found = services.get(&key(service)).cloned();
        if found.is_none() {
            self.about.unresolved_with(Reason::RefNotFound, field, || {
                let meant = self.hints.hint(service, services);
                format!("there is no Service {}{meant}{consequence}", service.name)
            });
        }
        found
    }

    fn scope(&mut self) -> Scope<'_, 'a> {
        Scope {
            named: self.named,
            key: self.key,
            about: &mut self.about,
            origins: &mut self.origins,
        }
    }

    /// The sections of which everything is there.
    fn sections(&mut self) -> Sections {
        let mut sections = self.facts.spec.sections.clone();
        let fallback = sections.fallback.clone();
        if let Some(FallbackTo::Service(service)) = fallback.as_deref().map(|one| &one.to)
            && !self.serves("spec.fallback.service", service, "; there is no fallback")
        {
            sections.fallback = None;
        }
        if let Some(mirrors) = sections.mirror.clone() {
            let usable = mirrors.iter().enumerate().map(|(i, mirror)| {
                let field = format!("spec.mirror[{i}].service");
                self.serves(&field, &mirror.service, "; no copies are made")
                    && (mirror.downstream == Downstream::Any
                        || self.is_guarded(&field, &mirror.service))
            });
            let usable: Vec<bool> = usable.collect();
            if usable.contains(&false) {
                sections.mirror = None;
            }
        }
        let written = self.facts.spec.overrides.as_deref();
        sections.overrides = written.map(|overrides| {
            let read = overrides.iter().enumerate().map(|(i, one)| {
                let field = format!("spec.overrides[{i}]");
                for (j, service) in one.to.iter().enumerate() {
                    // Never by another Service.
                    let consequence = "; who chooses it is answered 503";
                    self.serves(&format!("{field}.to[{j}]"), service, consequence);
                }
                Override {
                    to: one.to.clone(),
                    sources: self
                        .scope()
                        .callers(&format!("{field}.sources"), &one.sources),
                    forwarders: self
                        .scope()
                        .callers(&format!("{field}.forwarders"), &one.forwarders),
                    tokens: one.tokens.clone(),
                }
            });
            read.collect()
        });
        sections
    }

    /// Whether a Service is there and can be called. Ports that it lacks of the one that the policy
    /// is about are reported, and `here` has it left out at those.
    fn serves(&mut self, field: &str, service: &ServiceId, consequence: &str) -> bool {
        let Some(facts) = self.service(field, service, consequence) else {
            return false;
        };
        if facts.external_name.is_some() {
            let message = format!(
                "{} is of type ExternalName, whose calls the mesh does not carry{consequence}",
                service.name
            );
            self.about
                .refuse(Reason::UnsupportedService, field, message);
            return false;
        }
        let missing = self.ports_missing_at(service);
        if missing.is_empty() {
            self.is_served(field, service);
        } else {
            self.about.unresolved_with(Reason::PortNotFound, field, || {
                let missing = crate::problem::few(missing.iter().map(u16::to_string));
                format!("{} has no port {missing}{consequence}", service.name)
            });
        }
        true
    }

    /// Warns where no pod serves: pods may come any time, and what is sent there fails until then.
    /// A Service that stands for a host outside needs none.
    fn is_served(&mut self, field: &str, service: &ServiceId) {
        let leads_outside = self.named.world.external_of(&key(service)).is_some();
        if self.around(service).empty && !leads_outside {
            let message = format!(
                "{} has no endpoints, and what is sent there fails until it has; look at its \
                 selector, and whether its pods run",
                service.name
            );
            self.about.warn(Reason::NoEndpoints, field, message);
        }
    }

    /// What is reported about the pods of a Service, which is read again when they change.
    fn around(&mut self, service: &ServiceId) -> ServicePodFacts {
        let (key, named) = (key(service), self.named);
        let watched = self.watched.entry(key.clone());
        *watched.or_insert_with(|| surroundings(&key, named.services, named.pods))
    }

    /// Ports of the one that the policy is about that a Service lacks.
    fn ports_missing_at(&self, service: &ServiceId) -> Vec<u16> {
        let ports = |service: &ServiceId| {
            let entry = self.named.services.get(&key(service));
            entry
                .into_iter()
                .flat_map(|entry| entry.ports.keys().copied())
        };
        let mut missing: Vec<u16> = match &self.facts.spec.target {
            Some(Target::Port(_, port)) => vec![*port],
            Some(Target::Service(own)) => ports(own).collect(),
            Some(Target::Namespace(_) | Target::Mesh) | None => Vec::new(),
        };
        // Both are in order, so each port is looked at once however many there are.
        let mut there = ports(service).peekable();
        missing.retain(|port| {
            while there.next_if(|one| one < port).is_some() {}
            there.peek() != Some(port)
        });
        missing
    }

    /// Whether pods that get copies get nothing else, and cannot write past a proxy.
    fn is_guarded(&mut self, field: &str, service: &ServiceId) -> bool {
        let found = self.around(service);
        let why = if found.plain {
            "has pods without a proxy, which could write where they like".to_owned()
        } else if found.foreign {
            "has pods of another namespace, over which it has no say".to_owned()
        } else if found.shared {
            "has pods that another Service selects, too".to_owned()
        } else if let Some(why) = self.receivers.why(service) {
            why
        } else {
            return true;
        };
        let message = format!(
            "{} {why}; ReadOnly copies go only to pods of the mesh that receive nothing else: \
             give the copies a Service of their own, or write downstream: Any",
            service.name
        );
        self.about.refuse(Reason::NotGuarded, field, message);
        false
    }
}

fn has(facts: &ServiceFacts, number: u16) -> bool {
    facts.ports.iter().any(|port| port.number == number)
}

fn key(service: &ServiceId) -> ObjectKey {
    ObjectKey {
        namespace: service.namespace.clone(),
        name: service.name.clone(),
    }
}
