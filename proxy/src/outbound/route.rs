//! Where one call goes, and which endpoint it tries next.

use std::sync::Arc;
use std::time::Instant;

use policy::http_match::RequestFacts;
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::reason::Reason;
use policy::route::{Forward, choose};

use crate::config::snapshot::{Destination, Service, Snapshot};
use crate::endpoints::endpoint::{Endpoint, InFlight};
use crate::endpoints::learned::Draw;
use crate::endpoints::set::EndpointSet;
use crate::failure::Failure;
use crate::outbound::connection::Connection;
use crate::outbound::said::{self, Names, Said};
use crate::proxy::Proxy;
use crate::telemetry::Telemetry;
use crate::telemetry::cell::{Cell, Way};
use crate::telemetry::labels::Security;
use crate::telemetry::parties::Parties;

/// Where one call goes.
pub(super) struct Route {
    pub(super) service: Arc<str>,
    pub(super) port: u16,
    pub(super) backend: Arc<str>,
    /// What chose the backend, where it is not the Service itself.
    pub(super) rule: Option<Origin>,
    choice: Choice,
    /// What policies say of it, where one does.
    pub(super) said: Option<Arc<Said>>,
}

enum Choice {
    One(Arc<Endpoint>),
    Any(Among),
    /// Session affinity: every call of this pod in this epoch to the same endpoint.
    Sticky(Among, u64),
    /// No backend, for this reason. Something else may answer.
    Nobody(Box<Failure>),
}

/// The endpoints that a call has the choice among.
struct Among {
    /// Of the resource that lists them.
    name: Arc<str>,
    /// As they were when the call was routed.
    set: Arc<EndpointSet>,
}

impl Among {
    fn of(snapshot: &Snapshot, name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            set: endpoints(snapshot, name),
        }
    }

    /// As they are now.
    fn newest(&self, proxy: &Proxy) -> Arc<EndpointSet> {
        proxy.config.inspect(|now| endpoints(now, &self.name))
    }

    /// For the next attempt. The first is decided by what routed the call; until another
    /// one is due endpoints may have left, or be known as meshed.
    fn for_attempt(&self, proxy: &Proxy, draw: &Draw<'_>) -> Arc<EndpointSet> {
        if draw.tried.is_empty() {
            Arc::clone(&self.set)
        } else {
            self.newest(proxy)
        }
    }
}

impl Route {
    /// Who is called, before it is known by which pod.
    pub(super) fn parties(&self) -> Parties {
        Parties::Outbound {
            service: Arc::clone(&self.service),
            port: self.port,
            backend: Arc::clone(&self.backend),
            rule: self.rule.clone(),
            pod: Arc::default(),
            security: Security::plaintext,
        }
    }

    /// Where calls that go this way to `endpoint` are counted.
    pub(super) fn cell(
        &self,
        telemetry: &Telemetry,
        endpoint: &Endpoint,
        protocol: Protocol,
    ) -> Arc<Cell> {
        if let Some(cell) = endpoint.cells.find(|way| self.leads(way, protocol)) {
            return cell;
        }
        let mut parties = self.parties();
        if let Parties::Outbound { pod, security, .. } = &mut parties {
            *pod = Arc::clone(&endpoint.pod);
            *security = Security::of(endpoint.meshed());
        }
        let cell = telemetry.cell(parties, protocol);
        if self.leads(cell.way(), protocol) {
            endpoint.cells.keep(&cell);
        }
        cell
    }

    /// Whether calls that go this way to an endpoint are those of `way`.
    fn leads(&self, way: &Way, spoken: Protocol) -> bool {
        let Way { parties, protocol } = way;
        match parties {
            Parties::Outbound {
                service,
                port,
                backend,
                rule,
                ..
            } => {
                *protocol == spoken
                    && *port == self.port
                    && *service == self.service
                    && *backend == self.backend
                    && *rule == self.rule
            }
            _ => false,
        }
    }

    pub(super) fn pick(&self, proxy: &Proxy, draw: &Draw<'_>) -> Option<InFlight> {
        match &self.choice {
            Choice::One(endpoint) => {
                (!draw.tried.contains(&endpoint.addr)).then(|| endpoint.begin())
            }
            Choice::Any(among) => among.for_attempt(proxy, draw).pick(draw),
            Choice::Sticky(among, epoch) => {
                let set = among.for_attempt(proxy, draw);
                set.sticky(&proxy.own.name, *epoch, draw)
            }
            Choice::Nobody(_) => None,
        }
    }

    /// Whether an endpoint that was chosen a while ago may still be called, as what it was.
    pub(super) fn still_has(&self, proxy: &Proxy, endpoint: &Arc<Endpoint>) -> bool {
        match &self.choice {
            Choice::One(_) | Choice::Nobody(_) => true,
            Choice::Any(among) | Choice::Sticky(among, _) => {
                let now = among.newest(proxy);
                let mut all = now.endpoints.iter();
                all.any(|other| Arc::ptr_eq(other, endpoint))
            }
        }
    }

    /// Those that serve, where there is a choice among them.
    pub(super) const fn set(&self) -> Option<&Arc<EndpointSet>> {
        match &self.choice {
            Choice::One(_) | Choice::Nobody(_) => None,
            Choice::Any(among) | Choice::Sticky(among, _) => Some(&among.set),
        }
    }

    /// Why it leads to nobody.
    pub(super) fn nobody(&self) -> Option<&Failure> {
        match &self.choice {
            Choice::Nobody(why) => Some(why),
            Choice::One(_) | Choice::Any(_) | Choice::Sticky(..) => None,
        }
    }

    /// To the endpoints of another Service than the one that was called.
    pub(super) fn elsewhere(
        &self,
        snapshot: &Snapshot,
        (service, port): (&ServiceId, u16),
        facts: Option<&RequestFacts<'_>>,
    ) -> Self {
        let name: Arc<str> = wire::names::endpoints(&service.namespace, &service.name, port).into();
        let names = Names {
            root: &name,
            serving: None,
        };
        Self {
            service: Arc::clone(&self.service),
            port: self.port,
            backend: service.to_string().into(),
            rule: None,
            said: Said::of(&snapshot.policies, names, facts),
            choice: Choice::Any(Among::of(snapshot, &name)),
        }
    }
}

impl Connection {
    pub(super) fn route(
        &self,
        snapshot: &Snapshot,
        request: Option<(&RequestFacts<'_>, Option<&str>)>,
    ) -> Result<Route, Failure> {
        let destination = snapshot
            .destinations
            .get(&self.addr)
            .unwrap_or(&self.destination);
        match &**destination {
            Destination::Service(name) => {
                Self::route_service(snapshot, name, request.map(|(facts, _)| facts))
            }
            Destination::Pod(pod) => {
                let host = request.and_then(|(_, host)| host).map(canonical_host);
                let headless = host
                    .and_then(|host| pod.headless.iter().find(|(hosts, _)| hosts.contains(&host)));
                let mut said = None;
                if let Some((_, service)) = headless {
                    // Only a split moves a call away from the pod that it names.
                    let facts = request.map(|(facts, _)| facts);
                    if let Some(route) = Self::split(snapshot, service, facts)? {
                        return Ok(route);
                    }
                    // Of this the times hold: where there is no choice of an endpoint
                    // nothing is tried again, and nobody rests.
                    let names = Names {
                        root: service,
                        serving: None,
                    };
                    said = Said::of(&snapshot.policies, names, facts);
                }
                Ok(Route {
                    service: Arc::default(),
                    port: self.addr.port(),
                    backend: Arc::default(),
                    rule: None,
                    choice: Choice::One(Arc::clone(&pod.endpoint)),
                    said,
                })
            }
            Destination::External | Destination::Refused(_) => Err(Failure::not_sent(
                Reason::UnknownDestination,
                "the address has left the mesh",
            )),
        }
    }

    fn route_service(
        snapshot: &Snapshot,
        name: &str,
        facts: Option<&RequestFacts<'_>>,
    ) -> Result<Route, Failure> {
        if let Some(route) = Self::split(snapshot, name, facts)? {
            return Ok(route);
        }
        let service = known(snapshot, name)?;
        let among = Among::of(snapshot, &service.endpoints);
        let choice = match &service.affinity {
            Some(affinity) => Choice::Sticky(among, affinity.epoch(Instant::now())),
            None => Choice::Any(among),
        };
        Ok(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::clone(&service.label),
            rule: None,
            choice,
            said: Said::of(
                &snapshot.policies,
                Names {
                    root: name,
                    serving: None,
                },
                facts,
            ),
        })
    }

    /// The backend that a split chooses, if a split applies.
    fn split(
        snapshot: &Snapshot,
        name: &str,
        facts: Option<&RequestFacts<'_>>,
    ) -> Result<Option<Route>, Failure> {
        let service = known(snapshot, name)?;
        let (forward, origin) = service.routes.decide(facts);
        let chosen = match forward {
            Forward::Root => return Ok(None),
            Forward::Split(backends) => choose(backends, rand::random()).ok_or(Reason::NoBackend),
            Forward::Refuse(reason) => Err(*reason),
        };
        let backend = match chosen {
            Ok(backend) => backend,
            Err(reason) => return Self::to_nobody(snapshot, name, facts, (reason, origin)),
        };
        Ok(Some(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::clone(&backend.label),
            rule: origin.cloned(),
            choice: Choice::Any(Among::of(snapshot, &backend.endpoints)),
            said: Said::of(
                &snapshot.policies,
                Names {
                    root: name,
                    serving: Some(&backend.endpoints),
                },
                facts,
            ),
        }))
    }
}

impl Connection {
    /// Where a split has no backend: nowhere, unless something else may answer.
    fn to_nobody(
        snapshot: &Snapshot,
        name: &str,
        facts: Option<&RequestFacts<'_>>,
        (reason, origin): (Reason, Option<&Origin>),
    ) -> Result<Option<Route>, Failure> {
        let named = origin.map(ToString::to_string).unwrap_or_default();
        let failure = Failure::Refused {
            reason,
            by: origin.cloned(),
            detail: format!("{named} has no backend that may take traffic").into(),
        };
        let names = Names {
            root: name,
            serving: None,
        };
        let said = Said::of(&snapshot.policies, names, facts);
        if said::fallback(said.as_deref()).is_none() {
            return Err(failure);
        }
        let service = known(snapshot, name)?;
        Ok(Some(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::default(),
            rule: None,
            choice: Choice::Nobody(Box::new(failure)),
            said,
        }))
    }
}

pub(crate) fn known<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Service, Failure> {
    snapshot
        .services
        .get(name)
        .map(|service| &**service)
        .ok_or_else(|| {
            Failure::not_sent(Reason::UnknownDestination, format!("{name} is not known"))
        })
}

fn endpoints(snapshot: &Snapshot, name: &str) -> Arc<EndpointSet> {
    snapshot
        .endpoints_of(name)
        .map(Arc::clone)
        .unwrap_or_default()
}

/// Host without port and trailing dot, in lower case.
fn canonical_host(host: &str) -> String {
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.trim_end_matches('.').to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::canonical_host;

    #[test]
    fn a_host_is_compared_without_port_dot_and_case() {
        for host in [
            "Web.shop.svc",
            "web.shop.svc.",
            "web.shop.svc:8080",
            "WEB.shop.svc.:80",
        ] {
            assert_eq!(canonical_host(host), "web.shop.svc", "{host}");
        }
    }
}
