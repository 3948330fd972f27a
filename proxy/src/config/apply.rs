//! Applies a batch of the controller: makes a new snapshot out of the old one.
//!
//! A resource that cannot be used is refused with a reason, and a bad change affects nothing else.
//! Of routes, endpoints and the own workload the proxy keeps the previous version: without one it
//! could decide nothing. Of rules that allow calls it keeps nothing: the refused part may be what
//! narrows them, and a proxy that starts now would have none of it either.

use std::collections::{BTreeSet, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use policy::access::{self, Access, Ports};
use policy::access_log::{AccessLog, NotAnAccessLog};
use policy::log_filter::LogFilter;
use policy::mode::Enforcement;
use policy::name::SpiffeId;
use policy::route::names::Names;
use policy::share::Share;
use policy::trace::Tracing;
use policy::traffic::pod::PodGuard;
use prost::Message as _;
use wire::{convert, v1};

mod egress;
mod gateway;
mod lists;
mod services;

use crate::config::apply::lists::{endpoint_of, meshed_address, positions_of};
use crate::config::apply::services::{routed_service_of, service_of};
use crate::config::snapshot::{Destination, PodTarget, Snapshot, Version, Workload};
use crate::config::vouched::Vouched;
use crate::endpoints::location::Location;
use crate::endpoints::registry::Registry;
use crate::telemetry::trace::TracingConfig;

/// Ports of the own pod that count as declared; further ports are distinguished only once they
/// are served.
const DECLARED_PORTS: usize = 256;
/// Longer ranges define how ports are treated, not which there are.
const DECLARED_RANGE: u16 = 64;

/// Attributes that spans have of their workload.
const MAX_ATTRIBUTES: usize = 32;
/// Bytes of the name and of the value of one of them.
const MAX_ATTRIBUTE_LEN: usize = 512;

/// Whether a batch changes what stands at addresses.
pub(super) fn changes_destinations(batch: &v1::Batch) -> bool {
    let set = batch.set.iter().map(|resource| &resource.name);
    let mut named = set.chain(&batch.remove);
    batch.full || named.any(|name| name.starts_with(wire::names::DESTINATION))
}

/// The address that a destination resource is named after.
fn address_in(name: &str) -> Option<SocketAddr> {
    match wire::names::parse(name)? {
        wire::names::Name::Destination { ip, port } => Some(SocketAddr::new(ip, port)),
        _ => None,
    }
}

fn workload_of(workload: &v1::Workload) -> Result<Workload, String> {
    let identity = SpiffeId::try_from(workload.identity.as_str())
        .map_err(|error| format!("identity: {error}"))?;
    Ok(Workload {
        identity,
        enforcement: convert::enforcement(workload.enforcement),
        mtls: convert::mtls(workload.mtls),
        permissive_ports: convert::permissive_ports(&workload.permissive_ports)
            .map_err(|error| error.to_string())?,
        ports: convert::port_protocols(&workload.ports).map_err(|error| error.to_string())?,
        location: Location::new(&workload.zone, &workload.node),
        // More than all is no limit that this version knows.
        fault_limit: Share::of_millionths(workload.fault_limit).unwrap_or(Share::NONE),
    })
}

fn destination_of(
    destination: v1::Destination,
    registry: &Registry,
) -> Result<Destination, String> {
    Ok(
        match destination.target.ok_or("a destination of unknown kind")? {
            v1::destination::Target::Service(name) => Destination::Service(name.into()),
            v1::destination::Target::Pod(pod) => {
                let endpoint = pod.endpoint.as_ref().ok_or("a pod without an address")?;
                Destination::Pod(PodTarget {
                    endpoint: endpoint_of(endpoint, registry)?,
                    protocol: convert::protocol(pod.protocol),
                    headless: pod
                        .headless
                        .into_iter()
                        .map(|headless| (headless.hosts, headless.service.into()))
                        .collect(),
                })
            }
            v1::destination::Target::External(external) => Destination::External {
                inside: external.inside,
            },
            v1::destination::Target::Refused(refused) => Destination::Refused {
                reason: refused.reason,
                service: refused.service.into(),
            },
        },
    )
}

fn log_filter_of(message: &v1::Telemetry) -> Result<LogFilter, String> {
    match message.log_filter.as_str() {
        "" => Ok(LogFilter::default()),
        filter => filter.parse().map_err(|bad| format!("log_filter {bad}")),
    }
}

/// Which requests are written down. `None`: as the proxy was started.
fn access_log_of(message: &v1::Telemetry) -> Result<Option<AccessLog>, String> {
    match message.access_log.as_str() {
        "" => Ok(None),
        log => {
            let read = log.parse().map(Some);
            read.map_err(|bad: NotAnAccessLog| format!("access_log {bad}"))
        }
    }
}

/// Which traces are recorded. `None`: none, and headers pass as they came.
fn tracing_of(message: v1::Telemetry) -> Result<Option<Arc<TracingConfig>>, String> {
    let Some(message) = message.tracing else {
        return Ok(None);
    };
    let tracing = Tracing::try_from(&message).map_err(|bad| format!("tracing.{bad}"))?;
    let attributes = message.resource.into_iter();
    let fitting = attributes.filter(|one| one.name.len().max(one.value.len()) <= MAX_ATTRIBUTE_LEN);
    let resource = fitting.map(|one| (one.name, one.value));
    Ok(Some(Arc::new(TracingConfig {
        tracing,
        resource: resource.take(MAX_ATTRIBUTES).collect(),
    })))
}

impl Snapshot {
    /// The snapshot after `batch`, and what of it was refused.
    #[must_use]
    pub fn after(&self, batch: v1::Batch, registry: &Registry) -> (Self, Vec<v1::Nack>) {
        let mut next = self.clone();
        let mut nacks = Vec::new();
        let before = (next.workload.clone(), next.rules_fingerprint());
        if batch.full {
            next.stream += 1;
            next.keep_only(&batch);
        }
        for name in &batch.remove {
            next.remove(name);
        }
        for resource in batch.set {
            let (name, version) = (resource.name.clone(), resource.version.clone());
            let bytes = resource.encoded_len();
            match next.set(resource, registry) {
                Ok(()) => {
                    next.versions.insert(name, Version { version, bytes });
                }
                Err(reason) => nacks.push(v1::Nack {
                    name,
                    version,
                    reason,
                }),
            }
        }
        if before.0 != next.workload {
            let own = next.workload.as_ref().map(|own| &own.identity);
            next.policies.look_as(own);
        }
        next.look_from(self.local_info());
        if before != (next.workload.clone(), next.rules_fingerprint()) {
            next.policy_revision += 1;
            next.access = Arc::new(Access {
                enforcement: next
                    .workload
                    .as_ref()
                    .map_or(Enforcement::Enforce, |workload| workload.enforcement),
                rules: next.rules.values().cloned().collect(),
            });
            next.declared = Arc::new(next.declared_ports());
        }
        next.extend_read_only(self);
        if self.takes_copies() != next.takes_copies()
            || self.egress != next.egress
            || self.vouched != next.vouched
            || self.revocations != next.revocations
            || !next.serves_as(self)
        {
            next.policy_revision += 1;
        }
        next.note_meshed_services(registry);
        (next, nacks)
    }

    /// Drops what a full batch does not name.
    fn keep_only(&mut self, batch: &v1::Batch) {
        let kept: HashSet<&str> = batch
            .unchanged
            .iter()
            .map(String::as_str)
            .chain(batch.set.iter().map(|resource| resource.name.as_str()))
            .collect();
        let held = self.versions.keys().map(String::as_str);
        // It has no version while it is what an unreadable one made of it.
        let held = held.chain([wire::names::EGRESS]);
        let gone: Vec<String> = held
            .filter(|name| !kept.contains(*name))
            .map(str::to_owned)
            .collect();
        for name in gone {
            self.remove(&name);
        }
    }

    pub(super) fn declared_ports(&self) -> BTreeSet<u16> {
        let workload = self.workload.iter();
        let ranges = workload
            .flat_map(|workload| workload.ports.iter())
            .filter(|(range, _)| range.last() - range.first() < DECLARED_RANGE);
        let rules = self.rules.values();
        let rules = rules.flat_map(|rule| rule.ports.iter().chain(&rule.limit));
        let mut ports = BTreeSet::new();
        for port in ranges
            .flat_map(|(range, _)| range.first()..=range.last())
            .chain(rules.flat_map(|ports| {
                match ports {
                    Ports::Any => &[],
                    Ports::Only(ports) => ports.as_slice(),
                }
                .iter()
                .copied()
            }))
        {
            if ports.len() == DECLARED_PORTS {
                break;
            }
            ports.insert(port);
        }
        ports
    }

    /// An address of a Service is meshed when one of its endpoints is: a plaintext call to it may
    /// reach that endpoint.
    pub(super) fn note_meshed_services(&self, registry: &Registry) {
        for (addr, destination) in &self.destinations {
            let Destination::Service(name) = &**destination else {
                continue;
            };
            let service = self.services.get(name);
            let set = service.and_then(|service| self.endpoints.get(&service.endpoints));
            // Without endpoints nothing new is known.
            if let Some(set) = set.filter(|set| !set.endpoints.is_empty()) {
                let meshed = set.endpoints.iter().any(|endpoint| endpoint.meshed());
                registry.note_meshed(*addr, meshed);
            }
        }
    }

    pub(super) fn rules_fingerprint(&self) -> Vec<(String, Option<String>)> {
        self.rules
            .keys()
            .map(|name| {
                let current = self.versions.get(name);
                (name.clone(), current.map(|current| current.version.clone()))
            })
            .collect()
    }

    pub(super) fn remove(&mut self, name: &str) {
        self.versions.remove(name);
        self.rules.remove(name);
        if let Some(addr) = address_in(name) {
            self.destinations.remove(&addr);
        } else if name.starts_with("service/") {
            self.services.remove(name);
        } else if name.starts_with("endpoints/") || name.starts_with(wire::names::EXTERNAL) {
            self.endpoints.remove(name);
        } else if name.starts_with("policy/") {
            self.policies.remove(name);
        } else if name == wire::names::TELEMETRY {
            self.log_filter = None;
            self.access_log = None;
            self.tracing = None;
        } else if name == wire::names::GUARD {
            self.guard = None;
        } else if name == wire::names::ROUTES {
            self.names = None;
        } else if name == wire::names::PLACE {
            self.positions = None;
        } else if name == wire::names::EGRESS {
            self.egress = Arc::default();
        } else if name == wire::names::REVOCATIONS {
            self.revocations = None;
        } else if name == wire::names::GATEWAY {
            self.remove_gateway();
        } else if name.starts_with(wire::names::CERTIFICATE) {
            self.remove_certificate(name);
        }
        // The own workload and the roots are never taken away: without them
        // nothing could be decided.
    }

    pub(super) fn set(
        &mut self,
        resource: v1::Resource,
        registry: &Registry,
    ) -> Result<(), String> {
        let name = resource.name.clone();
        // Whatever comes under this name, what was allowed under it is so no more.
        let allowed = self.rules.remove(&name).is_some();
        let set = self.set_content(resource, registry);
        if allowed && set.is_err() {
            self.versions.remove(&name);
        }
        set
    }

    fn set_content(&mut self, resource: v1::Resource, registry: &Registry) -> Result<(), String> {
        let name = resource.name;
        let Some(content) = resource.content else {
            return Err("the resource has a kind that this proxy does not know".to_owned());
        };
        match content {
            v1::resource::Content::Bundle(bundle) => {
                if bundle.roots.is_empty() {
                    return Err("a trust bundle without roots".to_owned());
                }
                self.vouched = Vouched::read(&bundle)?;
                self.renew_within = Duration::from_millis(bundle.renew_within);
                self.roots = bundle.roots;
            }
            v1::resource::Content::Workload(workload) => {
                self.workload = Some(Arc::new(workload_of(&workload)?));
                self.early_reports = workload.early_reports;
            }
            v1::resource::Content::Rule(rule) | v1::resource::Content::ExtendedRule(rule) => {
                let rule = access::Rule::try_from(&rule).map_err(|bad| bad.to_string())?;
                self.rules.insert(name, rule);
            }
            v1::resource::Content::Destination(destination) => {
                self.set_destination(&name, destination, registry)?;
            }
            v1::resource::Content::Service(service) => {
                let service = service_of(&name, &service, registry)?;
                self.services.insert(name.into(), Arc::new(service));
            }
            v1::resource::Content::RoutedService(routed) => {
                let service = routed_service_of(&name, &routed, registry)?;
                self.services.insert(name.into(), Arc::new(service));
            }
            v1::resource::Content::Endpoints(endpoints) => {
                self.set_endpoints(name, &endpoints, registry)?;
            }
            v1::resource::Content::Policy(policy) => {
                let own = self.workload.as_ref().map(|own| &own.identity);
                self.policies.set(&name, &policy, own)?;
            }
            v1::resource::Content::Telemetry(message) => {
                let log_filter = log_filter_of(&message)?;
                let access_log = access_log_of(&message)?;
                self.tracing = tracing_of(message)?;
                (self.log_filter, self.access_log) = (Some(log_filter), access_log);
            }
            v1::resource::Content::Routes(routes) => {
                let names = Names::try_from(&routes).map_err(|bad| bad.to_string())?;
                self.names = Some(Arc::new(names));
            }
            v1::resource::Content::Place(message) => {
                self.positions = Some(positions_of(message)?);
            }
            v1::resource::Content::Egress(egress) => self.set_egress(&egress)?,
            v1::resource::Content::Revocations(message) => {
                let revocations = convert::revocations(&message);
                self.revoke(revocations.map_err(|bad| bad.to_string())?);
            }
            v1::resource::Content::Gateway(gateway) => self.set_gateway(&gateway)?,
            v1::resource::Content::ListenerCertificate(certificate) => {
                self.set_certificate(&name, certificate)?;
            }
            v1::resource::Content::Guard(guard) => {
                let guard = PodGuard::try_from(&guard).map_err(|bad| bad.to_string())?;
                self.set_guard(&guard);
            }
        }
        Ok(())
    }

    fn set_destination(
        &mut self,
        name: &str,
        destination: v1::Destination,
        registry: &Registry,
    ) -> Result<(), String> {
        let addr = address_in(name).ok_or_else(|| format!("{name} names no address"))?;
        let meshed = match &destination.target {
            Some(v1::destination::Target::Pod(pod)) => {
                pod.endpoint.as_ref().and_then(meshed_address)
            }
            _ => None,
        };
        let destination = destination_of(destination, registry).inspect_err(|_| {
            if let Some(meshed) = meshed {
                registry.note_meshed(meshed, true);
                registry.note_meshed(addr, true);
                self.forget_plaintext(addr);
            }
        })?;
        match &destination {
            Destination::Pod(pod) => {
                registry.note_meshed(pod.endpoint.addr, pod.endpoint.meshed());
            }
            Destination::External { .. } => registry.note_meshed(addr, false),
            // Its endpoints decide, or it has none.
            Destination::Service(_) | Destination::Refused { .. } => {}
        }
        self.destinations.insert(addr, Arc::new(destination));
        Ok(())
    }

    /// Forgets a destination that is called in plaintext: by what was refused a pod of the mesh
    /// is there.
    fn forget_plaintext(&mut self, addr: SocketAddr) {
        let plaintext = |current: &Arc<Destination>| match &**current {
            Destination::External { .. } => true,
            Destination::Pod(pod) => !pod.endpoint.meshed(),
            Destination::Service(_) | Destination::Refused { .. } => false,
        };
        if self.destinations.get(&addr).is_some_and(plaintext) {
            self.remove(&wire::names::destination(addr.ip(), addr.port()));
        }
    }
}

#[cfg(test)]
mod tests;
