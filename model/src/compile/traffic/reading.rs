//! Reads one TrafficPolicy and resolves the objects that it names.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::{
    smi::validation::{Source, SourceKind},
    weft::validation::Route,
};
use policy::{
    access,
    name::{Kind, ObjectRef, ServiceId, SpiffeId},
    route::Match,
    traffic::{
        Policy, Section, Sections, Sources, Target,
        call::{Downstream, FallbackTo, Override},
    },
};

use super::{
    candidate::{Named, PolicyCandidate, surroundings},
    hints::Hints,
    port_scope,
    receivers::Receivers,
};
use crate::{
    compile::{accounts, findings::About},
    model::traffic::ServicePodFacts,
    problem::{Reason, few},
    world::{self, ObjectKey, PolicyFacts, ServiceFacts, object, origin},
};

/// Most bytes of HTTP matches that one policy may add up to; they are repeated for every
/// section and port.
const MOST_BYTES: usize = 256 * 1024;
/// Most pods that the callers of one policy may be, by their labels.
const MOST_PODS: usize = 10_000;

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

impl Reading<'_> {
    /// The policy, unless it can have no effect.
    pub(super) fn candidate(mut self) -> Option<PolicyCandidate> {
        let made_from = origin(Kind::TrafficPolicy, self.key, &self.facts.meta);
        let generation = made_from.1;
        self.origins.push(made_from);
        let (routes, routes_len) = self.routes();
        let sources = match self.facts.spec.sources.as_slice() {
            [] => Sources::Everyone,
            sources => Sources::Only(self.callers("spec.sources", sources)),
        };
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
            bytes: port_scope::bytes(&policy, routes_len),
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

    /// The requests that are meant, and what they take in a rule; without any entry all,
    /// and what is not there is none.
    fn routes(&mut self) -> (Match, usize) {
        let routes = &self.facts.spec.routes;
        if routes.is_empty() {
            return (Match::Always, 0);
        }
        let mut matches = Vec::new();
        let mut bytes = 0;
        for (i, route) in routes.iter().enumerate() {
            let Some(route) = route else { continue };
            self.route(i, route, &mut matches, &mut bytes);
        }
        if bytes > MOST_BYTES {
            let message = format!(
                "name matches of more than {} KiB; the policy fits no request",
                MOST_BYTES / 1024
            );
            self.about.refuse(Reason::Invalid, "spec.routes", message);
            matches.clear();
            bytes = 0;
        }
        (Match::AnyOf(matches), bytes)
    }

    fn route(
        &mut self,
        index: usize,
        route: &Route,
        matches: &mut Vec<policy::http_match::HttpMatch>,
        bytes: &mut usize,
    ) {
        let field = format!("spec.routes[{index}]");
        let Some(group) = self.named.routes.group(&self.key.namespace, &route.group) else {
            let message = format!(
                "there is no HTTPRouteGroup {}; it fits no request",
                route.group
            );
            self.about
                .unresolved(Reason::RefNotFound, &format!("{field}.name"), message);
            return;
        };
        self.origins.push(group.origin.clone());
        let wanted = route.matches.as_deref();
        for (i, name) in wanted.into_iter().flatten().enumerate() {
            let named = group.matches.iter();
            let mut named = named.filter(|(known, _)| **known == **name).peekable();
            let message = if named.peek().is_none() {
                format!("{} has no match {name}", route.group)
            } else if named.all(|(_, usable)| usable.is_none()) {
                format!(
                    "match {name} of {} cannot be used, as the status of that says; it fits no \
                     request",
                    route.group
                )
            } else {
                continue;
            };
            let field = format!("{field}.matches[{i}]");
            self.about.unresolved(Reason::RefNotFound, &field, message);
        }
        if wanted.is_none() && group.all().next().is_none() {
            let message = format!(
                "{} has no match that can be used; it fits no request",
                route.group
            );
            self.about
                .unresolved(Reason::RefNotFound, &format!("{field}.name"), message);
        }
        let chosen = |name: &str| wanted.is_none_or(|names| names.iter().any(|one| **one == *name));
        for (name, usable) in &group.matches {
            if let Some(usable) = usable
                && chosen(name)
            {
                *bytes += usable.bytes;
                matches.push(usable.one.clone());
            }
        }
    }

    /// The identities that a proxy compares; what is not there stands for no caller.
    fn callers(&mut self, field: &str, sources: &[Source]) -> Vec<access::Source> {
        let mut callers = BTreeSet::new();
        let mut pods: BTreeSet<Arc<str>> = BTreeSet::new();
        for (i, source) in sources.iter().enumerate() {
            let field = format!("{field}[{i}].name");
            let namespace = match &*source.namespace {
                "" => &self.key.namespace,
                _ => &source.namespace,
            };
            match source.kind {
                None => {}
                Some(SourceKind::Authenticated) => {
                    callers.insert(access::Source::Authenticated);
                }
                Some(SourceKind::Unauthenticated) => {
                    callers.insert(access::Source::Unauthenticated);
                }
                Some(SourceKind::ServiceAccount) => {
                    let trust_domain = &self.named.defaults.trust_domain;
                    match SpiffeId::of(trust_domain, namespace, &source.name) {
                        Ok(id) => {
                            callers.insert(access::Source::Identity(id));
                            let account = ObjectKey {
                                namespace: namespace.clone(),
                                name: source.name.clone(),
                            };
                            let at = (&*field, &*self.key.namespace);
                            let world = self.named.world;
                            accounts::must_exist(world, &mut self.about, &account, at);
                        }
                        Err(error) => {
                            let message = format!("is no identity: {error}; it is ignored");
                            self.about.refuse(Reason::Invalid, &field, message);
                        }
                    }
                }
                Some(SourceKind::IdentityBinding) => {
                    let key = ObjectKey {
                        namespace: namespace.clone(),
                        name: source.name.clone(),
                    };
                    self.bound(&field, &key, &mut callers, &mut pods);
                }
            }
        }
        if pods.len() > MOST_PODS {
            let message = format!("name {} pods; only {MOST_PODS} are allowed", pods.len());
            self.about.refuse(Reason::Invalid, field, message);
            pods = pods.into_iter().take(MOST_PODS).collect();
        }
        if !pods.is_empty() {
            callers.insert(access::Source::pods(pods));
        }
        callers.into_iter().collect()
    }

    /// Adds the callers of a binding, if any.
    fn bound(
        &mut self,
        field: &str,
        key: &ObjectKey,
        callers: &mut BTreeSet<access::Source>,
        pods: &mut BTreeSet<Arc<str>>,
    ) {
        let Some(binding) = self.named.bindings.get(key) else {
            let words = || format!("there is no IdentityBinding {key}; it stands for no caller");
            self.about
                .unresolved_with(Reason::RefNotFound, field, words);
            return;
        };
        self.origins.push(binding.origin.clone());
        if !binding.usable {
            let why = "cannot be used, as its status says; it stands for no caller";
            let words = || format!("IdentityBinding {key} {why}");
            self.about
                .unresolved_with(Reason::RefNotFound, field, words);
            return;
        }
        let ids = binding.ids.iter().cloned();
        callers.extend(ids.map(access::Source::Identity));
        let selected = self.named.members.of(key);
        let known = selected.filter_map(|pod| self.named.world.pods.get(pod));
        pods.extend(known.map(|facts| facts.uid.clone()));
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
                    sources: self.callers(&format!("{field}.sources"), &one.sources),
                    forwarders: self.callers(&format!("{field}.forwarders"), &one.forwarders),
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
    fn is_served(&mut self, field: &str, service: &ServiceId) {
        if self.around(service).empty {
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
