//! TrafficTargets: what each of them allows, and whom it protects.
//!
//! Every doubt is settled towards allowing less: a reference that leads nowhere
//! stands for nothing, never for everything.

use std::collections::{BTreeMap, BTreeSet};

use policy::name::{Kind, ObjectRef, SpiffeId};
use std::sync::OnceLock;
use wire::v1;

use super::{endpoints::ByPort, few, object, origin, routes::Routes};
use crate::{
    model::{Defaults, Mapped, Target, TargetRule},
    problem::{About, Findings, Reason},
    world::{ObjectKey, PodFacts, RuleFacts, SubjectFacts, TargetFacts, World},
};

const SERVICE_ACCOUNT: &str = crds::smi::SUBJECT_SERVICE_ACCOUNT;
const GROUP: &str = crds::smi::SUBJECT_GROUP;
const AUTHENTICATED: &str = crds::smi::GROUP_AUTHENTICATED;
const UNAUTHENTICATED: &str = crds::smi::GROUP_UNAUTHENTICATED;
/// A rule about UDP, which the mesh does not carry.
const UDP_ROUTE: &str = "UDPRoute";

/// All TrafficTargets by the account that they protect.
pub(super) fn by_account(
    world: &World,
    defaults: &Defaults,
    routes: &Routes,
    endpoints: &ByPort,
    findings: &mut Findings,
) -> BTreeMap<ObjectKey, Vec<Target>> {
    let pods = Pods::new(world, endpoints);
    let mut accounts: BTreeMap<ObjectKey, Vec<Target>> = BTreeMap::new();
    for (key, facts) in world.targets.iter() {
        let this = object(Kind::TrafficTarget, key);
        findings.seen(this.clone(), &facts.meta, summary(facts));
        let about = findings.about(&this, facts.meta.generation);
        let reading = Reading {
            defaults,
            routes,
            pods: &pods,
            key,
            facts,
            about,
        };
        if let Some((account, target)) = reading.target() {
            accounts.entry(account).or_default().push(target);
        }
    }
    accounts
}

fn summary(facts: &TargetFacts) -> String {
    few(facts.sources.iter().map(|source| match &*source.namespace {
        "" => source.name.to_string(),
        namespace => format!("{namespace}/{}", source.name),
    }))
}

/// Pods by account, and the ports that Services give them.
struct Pods<'a> {
    by_account: BTreeMap<ObjectKey, Vec<(&'a ObjectKey, &'a PodFacts)>>,
    /// Service port to container port, by pod.
    served: BTreeMap<&'a ObjectKey, BTreeSet<(u16, u16)>>,
}

impl<'a> Pods<'a> {
    fn new(world: &'a World, endpoints: &'a ByPort) -> Self {
        let mut by_account: BTreeMap<ObjectKey, Vec<_>> = BTreeMap::new();
        for (key, facts) in world.pods.iter().filter(|(_, facts)| !facts.ended) {
            let account = ObjectKey {
                namespace: key.namespace.clone(),
                name: facts.service_account.clone(),
            };
            by_account
                .entry(account)
                .or_default()
                .push((key, facts.as_ref()));
        }
        let mut served: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        for ((service, number), found) in endpoints {
            for found in found {
                // A Service of another namespace has no say in what a port means.
                let Some(pod) = &found.pod else { continue };
                if pod.namespace == service.namespace {
                    served.entry(pod).or_default().insert((*number, found.port));
                }
            }
        }
        Self { by_account, served }
    }

    /// The container ports that `number` means on a pod: itself, unless it is no
    /// container port and a Service gives the pod such a port.
    fn container_ports(&self, pod: &ObjectKey, facts: &PodFacts, number: u16) -> Vec<u16> {
        let served = self.served.get(pod);
        let mut pairs = served.into_iter().flatten();
        if facts.ports.contains_key(&number) || pairs.any(|(_, own)| *own == number) {
            return vec![number];
        }
        let through = served.into_iter().flatten().filter(|(at, _)| *at == number);
        let through: Vec<u16> = through.map(|(_, own)| *own).collect();
        if through.is_empty() {
            vec![number]
        } else {
            through
        }
    }
}

struct Reading<'a> {
    defaults: &'a Defaults,
    routes: &'a Routes,
    pods: &'a Pods<'a>,
    key: &'a ObjectKey,
    facts: &'a TargetFacts,
    about: About<'a>,
}

/// Whom a target is about.
struct Destination {
    account: ObjectKey,
    /// Whether the target may allow something; it protects the account either way.
    usable: bool,
}

/// What the rules of a target add up to.
#[derive(Default)]
struct Traffic {
    /// `None`: no TCPRoute.
    ports: Option<Ports>,
    /// `None`: no HTTPRouteGroup.
    http: Option<Vec<v1::HttpMatch>>,
    /// Ports beyond which nothing applies; `None`: no limit.
    limit: Option<Ports>,
    origins: Vec<(ObjectRef, i64)>,
}

#[derive(Clone, PartialEq)]
enum Ports {
    Any,
    Only(BTreeSet<u16>),
}

impl Ports {
    fn add(&mut self, more: Option<&BTreeSet<u16>>) {
        match (&mut *self, more) {
            (Self::Only(ports), Some(more)) => ports.extend(more),
            (_, None) => *self = Self::Any,
            (Self::Any, Some(_)) => {}
        }
    }
}

impl Reading<'_> {
    /// The protected account and the target, unless it protects nobody.
    fn target(mut self) -> Option<(ObjectKey, Target)> {
        let origin = origin(Kind::TrafficTarget, self.key, &self.facts.meta);
        if let Some(why) = &self.facts.meta.unreadable {
            self.about
                .refuse(Reason::Unreadable, "", format!("{why}; it allows nothing"));
            let target = Target {
                origin,
                protects: true,
                rule: None,
            };
            return Some((self.destination()?.account, target));
        }
        let destination = self.destination();
        let sources = self.sources();
        let mut traffic = self.traffic();
        self.limit_to_destination_port(&mut traffic);
        let Destination { account, usable } = destination?;
        let rules = &self.facts.rules;
        // Rules about UDP alone say nothing about TCP.
        let protects = rules.is_empty() || rules.iter().any(|rule| &*rule.kind != UDP_ROUTE);
        let no_traffic = traffic.ports.is_none() && traffic.http.is_none();
        if !usable || sources.is_empty() || no_traffic {
            return Some((
                account,
                Target {
                    origin,
                    protects,
                    rule: None,
                },
            ));
        }
        let mapped = self.mapped(&account, &traffic);
        self.warn_of_skipped(&account);
        traffic.origins.push(origin.clone());
        let rule = TargetRule {
            rule: v1::Rule {
                origin: Some((&origin.0).into()),
                sources,
                ports: traffic.ports.as_ref().map(port_set),
                http: traffic.http.map(|matches| v1::HttpMatches { matches }),
                limit: traffic.limit.as_ref().map(port_set),
            },
            origins: traffic.origins,
            mapped,
            published: OnceLock::new(),
        };
        Some((
            account,
            Target {
                origin,
                protects,
                rule: Some(rule),
            },
        ))
    }

    /// The account that the target is about, if it names one of its own namespace.
    fn destination(&mut self) -> Option<Destination> {
        let Some(destination) = &self.facts.destination else {
            self.about
                .refuse(Reason::Invalid, "spec.destination", "is missing".to_owned());
            return None;
        };
        if !(destination.namespace.is_empty() || destination.namespace == self.key.namespace) {
            let message = format!(
                "{:?} is not this object's namespace; it has no effect",
                destination.namespace
            );
            let field = "spec.destination.namespace";
            self.about
                .refuse(Reason::ForeignDestination, field, message);
            return None;
        }
        let usable = &*destination.kind == SERVICE_ACCOUNT;
        if !usable {
            let message = format!(
                "{:?} is not {SERVICE_ACCOUNT}; nothing is allowed",
                destination.kind
            );
            self.about
                .refuse(Reason::UnsupportedKind, "spec.destination.kind", message);
        }
        if destination.name.is_empty() {
            let message = "must not be empty".to_owned();
            self.about
                .refuse(Reason::Invalid, "spec.destination.name", message);
            return None;
        }
        let account = ObjectKey {
            namespace: self.key.namespace.clone(),
            name: destination.name.clone(),
        };
        Some(Destination { account, usable })
    }

    fn sources(&mut self) -> Vec<v1::Source> {
        if self.facts.sources.is_empty() {
            let message = "is empty: nobody is allowed".to_owned();
            self.about.refuse(Reason::Invalid, "spec.sources", message);
        }
        self.warn_of_missing_namespaces();
        let mut sources = Vec::new();
        for (i, source) in self.facts.sources.iter().enumerate() {
            match self.source(source) {
                Ok(who) => {
                    let source = v1::Source { who: Some(who) };
                    if !sources.contains(&source) {
                        sources.push(source);
                    }
                }
                Err((reason, field, message)) => {
                    let message = format!("{message}; this source is ignored");
                    self.about
                        .refuse(reason, &format!("spec.sources[{i}].{field}"), message);
                }
            }
        }
        sources
    }

    /// SMI leaves open what a source without a namespace is. Another mesh may take
    /// it for nobody, or for the account of that name in every namespace.
    fn warn_of_missing_namespaces(&mut self) {
        let sources = self.facts.sources.iter();
        let without: BTreeSet<&str> = sources
            .filter(|source| &*source.kind == SERVICE_ACCOUNT && source.namespace.is_empty())
            .map(|source| &*source.name)
            .collect();
        if !without.is_empty() {
            let message = format!(
                "no namespace is given for {}; taken for this object's, {}",
                few(without),
                self.key.namespace
            );
            self.about
                .caution(Reason::NamespaceDefaulted, "spec.sources", message);
        }
    }

    fn source(
        &self,
        source: &SubjectFacts,
    ) -> Result<v1::source::Who, (Reason, &'static str, String)> {
        match &*source.kind {
            SERVICE_ACCOUNT => {
                let namespace = match &*source.namespace {
                    "" => &self.key.namespace,
                    _ => &source.namespace,
                };
                let id = SpiffeId::of(&self.defaults.trust_domain, namespace, &source.name);
                id.map(|id| v1::source::Who::SpiffeId(id.as_str().to_owned()))
                    .map_err(|error| {
                        let message = format!("{:?} is no service account: {error}", source.name);
                        (Reason::Invalid, "name", message)
                    })
            }
            GROUP => match &*source.name {
                AUTHENTICATED => Ok(v1::source::Who::Authenticated(true)),
                UNAUTHENTICATED => Ok(v1::source::Who::Unauthenticated(true)),
                other => {
                    let message = format!("{other:?} is not {AUTHENTICATED} or {UNAUTHENTICATED}");
                    Err((Reason::Invalid, "name", message))
                }
            },
            other => {
                let message = format!("{other:?} is not {SERVICE_ACCOUNT} or {GROUP}");
                Err((Reason::UnsupportedKind, "kind", message))
            }
        }
    }

    fn traffic(&mut self) -> Traffic {
        if self.facts.rules.is_empty() {
            let message = "is empty: nothing is allowed".to_owned();
            self.about.refuse(Reason::Invalid, "spec.rules", message);
        }
        let mut traffic = Traffic::default();
        for (i, rule) in self.facts.rules.iter().enumerate() {
            let field = format!("spec.rules[{i}]");
            match &*rule.kind {
                crds::smi::RULE_HTTP_ROUTE_GROUP => self.http(&field, rule, &mut traffic),
                crds::smi::RULE_TCP_ROUTE => self.tcp(&field, rule, &mut traffic),
                UDP_ROUTE => {
                    if self.routes.udp(&self.key.namespace, &rule.name).is_none() {
                        let message = format!("there is no UDPRoute {}", rule.name);
                        let field = format!("{field}.name");
                        self.about.unresolved(Reason::RefNotFound, &field, message);
                    }
                    let message = "the mesh does not carry UDP; this rule has no effect";
                    self.about
                        .warn(Reason::NotEnforced, &field, message.to_owned());
                }
                other => {
                    let message = format!("{other:?} is no kind of route; this rule is ignored");
                    let field = format!("{field}.kind");
                    self.about.refuse(Reason::UnsupportedKind, &field, message);
                }
            }
        }
        traffic
    }

    fn http(&mut self, field: &str, rule: &RuleFacts, traffic: &mut Traffic) {
        // Present from here on, even if nothing is found: absent would mean that any
        // request may pass where a TCPRoute allows the port.
        let http = traffic.http.get_or_insert_default();
        let Some(group) = self.routes.group(&self.key.namespace, &rule.name) else {
            let message = format!("there is no HTTPRouteGroup {}", rule.name);
            self.about
                .unresolved(Reason::RefNotFound, &format!("{field}.name"), message);
            return;
        };
        traffic.origins.push(group.origin.clone());
        let Some(matches) = &rule.matches else {
            http.extend(group.all().cloned());
            return;
        };
        if matches.is_empty() {
            let message = "is empty: this rule allows nothing; leave it out to mean every match";
            let field = format!("{field}.matches");
            self.about
                .refuse(Reason::Invalid, &field, message.to_owned());
        }
        for (j, wanted) in matches.iter().enumerate() {
            match group.matches.iter().find(|(name, _)| *name == **wanted) {
                Some((_, usable)) => http.extend(usable.clone()),
                None => {
                    let message = format!("HTTPRouteGroup {} has no match {wanted:?}", rule.name);
                    let field = format!("{field}.matches[{j}]");
                    self.about.unresolved(Reason::RefNotFound, &field, message);
                }
            }
        }
    }

    fn tcp(&mut self, field: &str, rule: &RuleFacts, traffic: &mut Traffic) {
        // Present from here on, even if nothing is found: absent would lift the limit
        // on ports from the HTTP rules.
        let ports = traffic
            .ports
            .get_or_insert_with(|| Ports::Only(BTreeSet::new()));
        match self.routes.tcp(&self.key.namespace, &rule.name) {
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

    /// `destination.port` of the oldest versions: nothing is allowed on another port,
    /// and nothing is allowed by it alone.
    fn limit_to_destination_port(&mut self, traffic: &mut Traffic) {
        let Some(port) = self.facts.destination.as_ref().and_then(|to| to.port) else {
            return;
        };
        let port = u16::try_from(port).ok().filter(|port| *port != 0);
        if port.is_none() {
            self.about.refuse(
                Reason::Invalid,
                "spec.destination.port",
                "is no port; nothing is allowed".to_owned(),
            );
        }
        traffic.limit = Some(Ports::Only(port.into_iter().collect()));
    }

    /// The container ports for those pods on which a written port is a Service's.
    fn mapped(&mut self, account: &ObjectKey, traffic: &Traffic) -> BTreeMap<ObjectKey, Mapped> {
        let mut mapped = BTreeMap::new();
        let mut told = BTreeSet::new();
        for (pod, facts) in self.pods.by_account.get(account).into_iter().flatten() {
            let ports = self.own_ports(pod, facts, traffic.ports.as_ref(), &mut told, "spec.rules");
            let limit = self.own_ports(
                pod,
                facts,
                traffic.limit.as_ref(),
                &mut told,
                "spec.destination.port",
            );
            if (&ports, &limit) != (&traffic.ports, &traffic.limit) {
                let ports = ports.as_ref().map(port_set);
                let limit = limit.as_ref().map(port_set);
                mapped.insert((*pod).clone(), Mapped { ports, limit });
            }
        }
        mapped
    }

    /// Written ports as the container ports of one pod.
    fn own_ports(
        &mut self,
        pod: &ObjectKey,
        facts: &PodFacts,
        written: Option<&Ports>,
        told: &mut BTreeSet<(u16, &'static str)>,
        field: &'static str,
    ) -> Option<Ports> {
        let Some(Ports::Only(written)) = written else {
            return written.cloned();
        };
        let mut ports = BTreeSet::new();
        for port in written {
            let own = self.pods.container_ports(pod, facts, *port);
            if own != [*port] && told.insert((*port, field)) {
                let message = format!(
                    "{port} is a Service port; taken for container port {}",
                    few(own.iter().map(ToString::to_string))
                );
                self.about.warn(Reason::ServicePortMapped, field, message);
            }
            ports.extend(own);
        }
        Some(Ports::Only(ports))
    }

    fn warn_of_skipped(&mut self, account: &ObjectKey) {
        let pods = self.pods.by_account.get(account).into_iter().flatten();
        let skipped: BTreeSet<String> = pods
            .filter_map(|(_, facts)| facts.proxy.as_ref())
            .flat_map(|proxy| proxy.skip_inbound_ports.iter().map(ToString::to_string))
            .collect();
        if !skipped.is_empty() {
            let message = format!(
                "pods of {} skip port {}: no rule applies there",
                account.name,
                few(skipped)
            );
            self.about.warn(Reason::PortSkipped, "", message);
        }
    }
}

fn port_set(ports: &Ports) -> v1::PortSet {
    match ports {
        Ports::Any => v1::PortSet {
            any: true,
            ports: Vec::new(),
        },
        Ports::Only(ports) => v1::PortSet {
            any: false,
            ports: ports.iter().copied().map(u32::from).collect(),
        },
    }
}
