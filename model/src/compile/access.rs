//! Compiles TrafficTargets: what each of them allows, and which pods it protects.
//!
//! Whatever is unclear allows less: a reference to a missing object allows nothing, never
//! everything.

mod destination;
mod port_mapping;
pub(super) mod ports;
mod sources;

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use crds::smi::validation::{DestinationKind, Rule, RuleKind};
use policy::{
    access,
    http_match::HttpMatch,
    name::{Kind, ObjectRef},
};

use self::destination::Destination;
use self::ports::{Pods, Ports, port_set};
use super::{
    accounts,
    findings::{About, Findings},
    protocols::Protocols,
    routes::{Group, Routes, UDP_NOT_ENFORCED},
    slices::ByPort,
};
use crate::{
    compile::members::Members,
    model::{Defaults, Target, TargetRule, Targets, bindings::Bindings},
    problem::{Reason, few},
    world::{self, ObjectKey, TargetFacts, World, object, origin},
};

/// What the references of a target are looked up in.
pub(super) struct Named<'a> {
    pub(super) defaults: &'a Defaults,
    pub(super) routes: &'a Routes,
    pub(super) bindings: &'a Bindings,
    pub(super) members: &'a Members<'a>,
    pub(super) protocols: Protocols<'a>,
}

/// All TrafficTargets, by what they protect.
pub(super) fn targets(
    world: &World,
    named: &Named<'_>,
    endpoints: &ByPort,
    findings: &mut Findings,
) -> Targets {
    let pods = Pods::new(world, endpoints);
    let mut targets = Targets::default();
    for (key, facts) in world.targets.iter() {
        let this = object(Kind::TrafficTarget, key);
        findings.seen(this.clone(), &facts.meta, summary(facts));
        let mut about = findings.about(&this, facts.meta.generation);
        about.add_mistakes(&facts.meta.mistakes);
        let reading = Reading {
            named,
            pods: &pods,
            key,
            facts,
            about,
        };
        if let Some((to, target)) = reading.target() {
            targets.add(target, to.accounts, to.pods);
        }
    }
    targets
}

fn summary(facts: &TargetFacts) -> String {
    few(facts
        .spec
        .sources
        .iter()
        .map(|source| match &*source.namespace {
            "" => source.name.to_string(),
            namespace => format!("{namespace}/{}", source.name),
        }))
}

struct Reading<'a> {
    named: &'a Named<'a>,
    pods: &'a Pods<'a>,
    key: &'a ObjectKey,
    facts: &'a TargetFacts,
    about: About<'a>,
}

/// Most bytes of HTTP matches that one target may add up to. A group may be as large as
/// the API server takes, and each of many small targets repeats it: without a bound a
/// few megabytes of objects would become gigabytes here. Also, far more than this is no
/// message that a proxy accepts.
const MOST_BYTES: usize = 512 * 1024;

/// What the rules of a target add up to.
#[derive(Default)]
struct AllowedTraffic {
    /// `None`: no TCPRoute.
    ports: Option<Ports>,
    /// `None`: no HTTPRouteGroup.
    http: Option<Vec<HttpMatch>>,
    /// Which matches are in `http`, by group and place.
    taken: BTreeSet<(Arc<str>, usize)>,
    /// Bytes of `http` on the wire.
    bytes: usize,
    /// Ports beyond which nothing applies; `None`: no limit.
    limit: Option<Ports>,
    origins: Vec<(ObjectRef, i64)>,
}

impl Reading<'_> {
    /// What the target protects, and the target, unless it protects no pod.
    fn target(mut self) -> Option<(Destination, Target)> {
        let origin = origin(Kind::TrafficTarget, self.key, &self.facts.meta);
        let to = self.destination();
        let callers = self.callers();
        let mut traffic = self.traffic();
        self.limit_to_destination_port(&mut traffic);
        let to = to?;
        let rules = &self.facts.spec.rules;
        // Rules about UDP alone, which the mesh does not carry, decide nothing about TCP.
        let protects = rules.is_empty() || rules.iter().any(|rule| rule.kind != RuleKind::UdpRoute);
        let sources = callers.sources();
        let no_traffic = traffic.ports.is_none() && traffic.http.is_none();
        if !to.usable || sources.is_empty() || no_traffic {
            let target = Target {
                origin,
                protects,
                rule: None,
            };
            return Some((to, target));
        }
        let mapped = self.mapped(&to, &traffic);
        self.warn_of_undeclared(&to, &traffic, &mapped);
        self.warn_of_skipped(&to);
        traffic.origins.push(origin.clone());
        traffic.origins.extend(callers.origins);
        traffic.origins.extend(to.origin.clone());
        let rule = TargetRule {
            rule: access::Rule {
                origin: world::named(&origin.0),
                sources,
                ports: traffic.ports.as_ref().map(port_set),
                http: traffic.http,
                limit: traffic.limit.as_ref().map(port_set),
            },
            origins: traffic.origins,
            mapped,
            published: OnceLock::new(),
        };
        let target = Target {
            origin,
            protects,
            rule: Some(rule),
        };
        Some((to, target))
    }

    /// What the target is about, if it names workloads of its own namespace.
    fn destination(&mut self) -> Option<Destination> {
        let destination = self.facts.spec.destination.as_ref()?;
        let here = |name: &Arc<str>| ObjectKey {
            namespace: self.key.namespace.clone(),
            name: name.clone(),
        };
        let named = here(&destination.name);
        if destination.kind == DestinationKind::IdentityBinding {
            return self.bound_destination(&named);
        }
        if destination.kind == DestinationKind::ServiceAccount {
            let world = self.named.protocols.world;
            let at = ("spec.destination.name", &*self.key.namespace);
            accounts::must_exist(world, &mut self.about, &named, at);
        }
        Some(Destination {
            name: destination.name.clone(),
            accounts: vec![named],
            pods: Vec::new(),
            origin: None,
            usable: destination.kind != DestinationKind::Unknown,
        })
    }

    /// The workloads of a binding of this namespace.
    fn bound_destination(&mut self, key: &ObjectKey) -> Option<Destination> {
        const FIELD: &str = "spec.destination.name";
        let Some(binding) = self.named.bindings.get(key) else {
            let message = format!("there is no IdentityBinding {}; no pod is meant", key.name);
            self.about.unresolved(Reason::RefNotFound, FIELD, message);
            return None;
        };
        let elsewhere = binding.callers_only.iter().chain(&binding.foreign);
        let elsewhere: Vec<String> = elsewhere.map(ToString::to_string).collect();
        if !elsewhere.is_empty() {
            let message = format!(
                "{} of IdentityBinding {} is no service account of this namespace; no pod is \
                 protected by it",
                few(&elsewhere),
                key.name
            );
            self.about
                .unresolved(Reason::ForeignIdentity, FIELD, message);
        }
        let account = |name: &Arc<str>| ObjectKey {
            namespace: key.namespace.clone(),
            name: name.clone(),
        };
        Some(Destination {
            name: key.name.clone(),
            accounts: binding.accounts.iter().map(account).collect(),
            pods: self.named.members.of(key).cloned().collect(),
            origin: Some(binding.origin.clone()),
            usable: binding.usable,
        })
    }

    fn traffic(&mut self) -> AllowedTraffic {
        let mut traffic = AllowedTraffic::default();
        for (i, rule) in self.facts.spec.rules.iter().enumerate() {
            let field = format!("spec.rules[{i}]");
            match rule.kind {
                RuleKind::HttpRouteGroup => self.http(&field, rule, &mut traffic),
                RuleKind::TcpRoute => self.tcp(&field, rule, &mut traffic),
                RuleKind::Unknown => {}
                RuleKind::UdpRoute => {
                    if self
                        .named
                        .routes
                        .udp(&self.key.namespace, &rule.name)
                        .is_none()
                    {
                        let message = format!("there is no UDPRoute {}", rule.name);
                        let field = format!("{field}.name");
                        self.about.unresolved(Reason::RefNotFound, &field, message);
                    }
                    if !self.named.defaults.udp_network_policies {
                        let message = UDP_NOT_ENFORCED.to_owned();
                        self.about.warn(Reason::NotEnforced, &field, message);
                    }
                }
            }
        }
        traffic
    }

    fn http(&mut self, field: &str, rule: &Rule, traffic: &mut AllowedTraffic) {
        // Present from here on, even if nothing is found: absent would mean that any
        // request may pass where a TCPRoute allows the port.
        traffic.http.get_or_insert_default();
        let Some(group) = self.named.routes.group(&self.key.namespace, &rule.name) else {
            let message = format!("there is no HTTPRouteGroup {}", rule.name);
            self.about
                .unresolved(Reason::RefNotFound, &format!("{field}.name"), message);
            return;
        };
        traffic.origins.push(group.origin.clone());
        let Some(matches) = &rule.matches else {
            self.take(field, rule, group, 0..group.matches.len(), traffic);
            return;
        };
        for (j, wanted) in matches.iter().enumerate() {
            match group.matches.iter().position(|(name, _)| *name == **wanted) {
                Some(index) => self.take(field, rule, group, index..index + 1, traffic),
                None => {
                    let message = format!("HTTPRouteGroup {} has no match {wanted:?}", rule.name);
                    let field = format!("{field}.matches[{j}]");
                    self.about.unresolved(Reason::RefNotFound, &field, message);
                }
            }
        }
    }

    /// Adds matches of a group, each once, as long as there is room.
    fn take(
        &mut self,
        field: &str,
        rule: &Rule,
        group: &Group,
        range: std::ops::Range<usize>,
        traffic: &mut AllowedTraffic,
    ) {
        let http = traffic.http.get_or_insert_default();
        for index in range {
            let Some((_, Some(usable))) = group.matches.get(index) else {
                continue;
            };
            if !traffic.taken.insert((rule.name.clone(), index)) {
                continue;
            }
            if traffic.bytes + usable.bytes > MOST_BYTES {
                let message = format!(
                    "names matches of more than {} KiB; what goes beyond allows nothing: use \
                     several TrafficTargets",
                    MOST_BYTES / 1024
                );
                self.about.refuse(Reason::Invalid, field, message);
                return;
            }
            traffic.bytes += usable.bytes;
            http.push(usable.one.clone());
        }
    }

    fn tcp(&mut self, field: &str, rule: &Rule, traffic: &mut AllowedTraffic) {
        // Present from here on, even if nothing is found: absent would lift the limit
        // on ports from the HTTP rules.
        let ports = traffic
            .ports
            .get_or_insert_with(|| Ports::Only(BTreeSet::new()));
        match self.named.routes.tcp(&self.key.namespace, &rule.name) {
            Some(route) => {
                ports.add(route.ports.as_ref());
                traffic.origins.push(route.origin.clone());
            }
            None => {
                let message = format!("there is no TCPRoute {}", rule.name);
                self.about
                    .unresolved(Reason::RefNotFound, &format!("{field}.name"), message);
            }
        }
    }
}
