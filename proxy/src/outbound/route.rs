//! The route of one call: its backend, the rule that chose it, and the endpoints that serve it.
//!
//! Decided once per call, from one snapshot, before anything is sent. What the call is counted by
//! follows from the same value, so that a table of traffic cannot disagree with the traffic.
//! Attempts choose among the endpoints that it names and never another backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use policy::http_match::RequestFacts;
use policy::name::ServiceId;
use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::reason::Reason;
use policy::release::{ReleaseSet, service_of};
use policy::route::{Forward, choose};
use policy::sticky;

use crate::config::snapshot::{Destination, PodTarget, Service, Snapshot};
use crate::endpoints::endpoint::Endpoint;
use crate::failure::Failure;
use crate::http::grpc::is_grpc;
use crate::http::route_override::RouteOverride;
use crate::outbound::call_policy::{self, CallPolicy, Names};
use crate::outbound::choice::{Choice, RoutedEndpoints};
use crate::outbound::connection::Connection;
use crate::outbound::context::override_target;
use crate::outbound::opened_to::{Standing, may_call};
use crate::outbound::tenant::{self, Tenant};
use crate::proxy::Proxy;
use crate::telemetry::Telemetry;
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallCounters, CellKey};
use crate::telemetry::labels::Security;

/// Where one call goes.
pub(super) struct Route {
    pub(super) service: Arc<str>,
    pub(super) port: u16,
    pub(super) backend: Arc<str>,
    /// What chose the backend, where it is not the Service itself.
    pub(super) rule: Option<Origin>,
    pub(super) choice: Choice,
    /// Its policies, where there is one.
    pub(super) policy: Option<Arc<CallPolicy>>,
    /// The cookie for its caller's next call, so that it goes the same way.
    pub(super) cookie: Option<Box<HeaderValue>>,
    /// Its request asked to go there, and its caller learns that.
    pub(super) overridden: bool,
}

impl Route {
    /// The callee, before it is known by which pod.
    pub(super) fn call_ends(&self) -> CallEnds {
        CallEnds::Outbound {
            service: Arc::clone(&self.service),
            port: self.port,
            backend: Arc::clone(&self.backend),
            rule: self.rule.clone(),
            pod: Arc::default(),
            security: Security::none,
        }
    }

    /// The Service and port to which a split leads, if that is not the one that was called.
    /// One without a backend leads nowhere, and the sets of a release are parts of their Service.
    pub(super) fn led_to(&self) -> Option<(Arc<str>, u16)> {
        let elsewhere = !self.backend.is_empty() && service_of(&self.backend) != &*self.service;
        elsewhere.then(|| (Arc::clone(&self.backend), self.port))
    }

    /// Whether it goes to a proxy that alone knows which policies hold: its caller named no
    /// Service, but a pod by its own address.
    pub(super) fn leaves_policies_to_peer(&self) -> bool {
        self.service.is_empty()
            && matches!(&self.choice, Choice::One(endpoint) if endpoint.meshed())
    }

    /// To any endpoint of the Service, where the client has chosen one of those that are
    /// interchangeable, with the address of that one.
    pub(super) fn to_others(&self) -> Option<(SocketAddr, Self)> {
        let (chosen, others) = self.choice.others()?;
        let route = Self {
            service: Arc::clone(&self.service),
            port: self.port,
            backend: Arc::clone(&self.backend),
            rule: None,
            choice: Choice::Any(others.clone()),
            policy: self.policy.clone(),
            cookie: None,
            overridden: false,
        };
        Some((chosen, route))
    }

    /// Where calls that go this way to `endpoint` are counted.
    pub(super) fn cell(
        &self,
        telemetry: &Telemetry,
        endpoint: &Endpoint,
        protocol: Protocol,
    ) -> Arc<CallCounters> {
        if let Some(cell) = endpoint.cells.find(|key| self.leads(key, protocol)) {
            return cell;
        }
        let mut call_ends = self.call_ends();
        if let CallEnds::Outbound { pod, security, .. } = &mut call_ends {
            *pod = Arc::clone(&endpoint.pod);
            *security = Security::of(endpoint.meshed());
        }
        let cell = telemetry.cell(call_ends, protocol);
        if self.leads(cell.key(), protocol) {
            endpoint.cells.keep(&cell);
        }
        cell
    }

    /// Whether calls that go this way to an endpoint are those of `key`.
    fn leads(&self, key: &CellKey, spoken: Protocol) -> bool {
        match &key.call_ends {
            CallEnds::Outbound {
                service,
                port,
                backend,
                rule,
                ..
            } => {
                key.protocol == spoken
                    && *port == self.port
                    && *service == self.service
                    && *backend == self.backend
                    && *rule == self.rule
            }
            _ => false,
        }
    }

    /// To the endpoints of another Service than the one that was called, as they are now.
    pub(super) fn elsewhere(
        &self,
        proxy: &Proxy,
        (service, port): (&ServiceId, u16),
        facts: Option<&RequestFacts<'_>>,
    ) -> Self {
        let snapshot = proxy.config.snapshot();
        let name: Arc<str> = wire::names::endpoints(&service.namespace, &service.name, port).into();
        // A set of a release has the policies of its Service, and a breaker of its own.
        let set = ReleaseSet::parse(&service.name);
        let root = set.map(|(whole, _)| wire::names::endpoints(&service.namespace, whole, port));
        let names = Names {
            root: root.as_deref().unwrap_or(&name),
            serving: root.is_some().then_some(&*name),
        };
        Self {
            service: Arc::clone(&self.service),
            port: self.port,
            backend: service.to_string().into(),
            rule: None,
            policy: CallPolicy::of(&snapshot.policies, names, facts),
            choice: Choice::Any(RoutedEndpoints::of(&snapshot, &name)),
            cookie: None,
            overridden: false,
        }
    }
}

/// Where a call on a connection goes: `request` is its head and the host that it names, and
/// `None` of opaque bytes.
pub(super) fn route_call(
    connection: &Connection,
    snapshot: &Snapshot,
    request: Option<(&RequestFacts<'_>, Option<&str>)>,
    route_override: Option<&RouteOverride>,
) -> Result<Route, Failure> {
    let standing = connection.opened.standing(snapshot);
    let facts = request.map(|(facts, _)| facts);
    match connection.opened.target(snapshot, standing) {
        Destination::Service(name) => {
            let called = (&**name, route_override);
            to_service(connection, snapshot, called, facts, |query| query.service())
        }
        Destination::Pod(pod) => {
            let host = request.and_then(|(_, host)| host);
            match host.and_then(|host| headless(pod, host)) {
                Some(name) => {
                    let called = (name, route_override);
                    let may_call = may_call(pod, standing);
                    // Clients of gRPC balance by themselves, and have to see what fails.
                    let balances = facts.is_some_and(|facts| is_grpc(facts.headers));
                    let may_move =
                        standing == Standing::There && !balances && !connection.has_answered();
                    to_service(connection, snapshot, called, facts, |query| {
                        query.pod(pod, may_call, may_move)
                    })
                }
                None => {
                    may_call(pod, standing)?;
                    Ok(to_pod(connection, pod))
                }
            }
        }
        Destination::External | Destination::Refused { .. } => Err(Failure::not_sent(
            Reason::UnknownDestination,
            "no Service or pod of the mesh has this address and port any more",
        )),
    }
}

/// To a pod by its own address, whichever Services it serves.
fn to_pod(connection: &Connection, pod: &PodTarget) -> Route {
    Route {
        service: Arc::default(),
        port: connection.addr.port(),
        backend: Arc::default(),
        rule: None,
        choice: Choice::One(Arc::clone(&pod.endpoint)),
        policy: None,
        cookie: None,
        overridden: false,
    }
}

/// To where an override or a split sends a call of that Service, and else `otherwise`.
fn to_service(
    connection: &Connection,
    snapshot: &Snapshot,
    (name, route_override): (&str, Option<&RouteOverride>),
    facts: Option<&RequestFacts<'_>>,
    otherwise: impl FnOnce(&RouteQuery<'_>) -> Result<Route, Failure>,
) -> Result<Route, Failure> {
    if let Some(route) = to_override(connection, snapshot, (name, route_override), facts)? {
        return Ok(route);
    }
    let tenant = tenant::of(snapshot, name, facts, &connection.proxy.own.pod);
    let query = RouteQuery {
        snapshot,
        name,
        facts,
        tenant: tenant.as_ref(),
    };
    match query.split()? {
        Some(route) => Ok(route),
        None => otherwise(&query),
    }
}

/// To the Service that its request asks for, before splits and tenants, where the policy of
/// the called one grants that. Without an endpoint there, the called one does not serve it.
fn to_override(
    connection: &Connection,
    snapshot: &Snapshot,
    (name, route_override): (&str, Option<&RouteOverride>),
    facts: Option<&RequestFacts<'_>>,
) -> Result<Option<Route>, Failure> {
    if route_override.is_none() {
        return Ok(None);
    }
    let service = known_service(snapshot, name)?;
    let target = override_target(&connection.proxy, snapshot, service, (name, route_override));
    let Some(target) = target else {
        return Ok(None);
    };
    let endpoints: Arc<str> =
        wire::names::endpoints(&target.namespace, &target.name, service.port).into();
    let names = Names {
        root: name,
        serving: Some(&endpoints),
    };
    Ok(Some(Route {
        service: Arc::clone(&service.label),
        port: service.port,
        backend: target.to_string().into(),
        rule: None,
        choice: Choice::Any(RoutedEndpoints::of(snapshot, &endpoints)),
        policy: CallPolicy::of(&snapshot.policies, names, facts),
        cookie: None,
        overridden: true,
    }))
}

/// A call to a Service that looks for its way.
#[derive(Clone, Copy)]
struct RouteQuery<'a> {
    snapshot: &'a Snapshot,
    /// Of the Service's resource.
    name: &'a str,
    /// `None` for opaque bytes.
    facts: Option<&'a RequestFacts<'a>>,
    tenant: Option<&'a Tenant>,
}

impl RouteQuery<'_> {
    fn policy(&self, serving: Option<&str>) -> Option<Arc<CallPolicy>> {
        let names = Names {
            root: self.name,
            serving,
        };
        CallPolicy::of(&self.snapshot.policies, names, self.facts)
    }

    fn cookie(&self) -> Option<Box<HeaderValue>> {
        self.tenant.and_then(|tenant| tenant.cookie.clone())
    }

    /// To the Service itself.
    fn service(&self) -> Result<Route, Failure> {
        let service = known_service(self.snapshot, self.name)?;
        let among = RoutedEndpoints::of(self.snapshot, &service.endpoints);
        let choice = match (self.tenant, &service.affinity) {
            (Some(tenant), _) if tenant.endpoint => Choice::Tenant(among, tenant.key),
            (_, Some(affinity)) => Choice::Session(among, affinity.epoch(Instant::now())),
            (_, None) => Choice::Any(among),
        };
        Ok(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::clone(&service.label),
            rule: None,
            choice,
            policy: self.policy(None),
            cookie: self.cookie(),
            overridden: false,
        })
    }

    /// To that pod of it, which the client chose, and it alone knows why. So without a policy what
    /// fails stays there, and what cannot be connected as well, unless endpoints are interchangeable.
    /// `may_call`: whether that pod may be called. `may_move`: whether another one may be.
    fn pod(
        &self,
        pod: &PodTarget,
        may_call: Result<(), Failure>,
        may_move: bool,
    ) -> Result<Route, Failure> {
        let service = known_service(self.snapshot, self.name)?;
        let policy = self.policy(None);
        let endpoint = Arc::clone(&pod.endpoint);
        let choice = match call_policy::fails_over(policy.as_deref()) {
            None => {
                may_call?;
                let others =
                    may_move.then(|| RoutedEndpoints::of(self.snapshot, &service.endpoints));
                match others.filter(RoutedEndpoints::are_interchangeable) {
                    Some(others) => Choice::OneOfInterchangeable { endpoint, others },
                    None => Choice::One(endpoint),
                }
            }
            Some(_) if may_call.is_err() => {
                Choice::Any(RoutedEndpoints::of(self.snapshot, &service.endpoints))
            }
            Some(fails_over) => Choice::Named {
                endpoint,
                among: RoutedEndpoints::of(self.snapshot, &service.endpoints),
                fails_over,
            },
        };
        Ok(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::clone(&service.label),
            rule: None,
            choice,
            policy,
            cookie: None,
            overridden: false,
        })
    }

    /// To the backend that a split chooses, if a split applies.
    fn split(&self) -> Result<Option<Route>, Failure> {
        let service = known_service(self.snapshot, self.name)?;
        let (forward, origin) = service.routes.decide(self.facts);
        let chosen = match (forward, self.tenant) {
            (Forward::Root, _) => return Ok(None),
            (Forward::Split(backends), Some(tenant)) => sticky::backend(backends, tenant.key),
            (Forward::Split(backends), None) => choose(backends, rand::random()),
            (Forward::Refuse(reason), _) => {
                return self.refusal(service, *reason, origin).map(Some);
            }
        };
        let Some(backend) = chosen else {
            let none = self.refusal(service, Reason::NoBackend, origin);
            return none.map(Some);
        };
        let among = RoutedEndpoints::of(self.snapshot, &backend.endpoints);
        Ok(Some(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::clone(&backend.label),
            rule: origin.cloned(),
            choice: match self.tenant {
                Some(tenant) if tenant.endpoint => Choice::Tenant(among, tenant.key),
                _ => Choice::Any(among),
            },
            policy: self.policy(Some(&backend.endpoints)),
            cookie: self.cookie(),
            overridden: false,
        }))
    }

    /// Where a split has no backend: nowhere, unless something else may answer.
    fn refusal(
        &self,
        service: &Service,
        reason: Reason,
        origin: Option<&Origin>,
    ) -> Result<Route, Failure> {
        let named = origin.map(ToString::to_string).unwrap_or_default();
        let failure = Failure::Refused {
            reason,
            by: origin.cloned(),
            detail: format!("{named} has no backend that may take traffic").into(),
        };
        let policy = self.policy(None);
        if call_policy::fallback(policy.as_deref()).is_none() {
            return Err(failure);
        }
        Ok(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::default(),
            rule: None,
            choice: Choice::NoEndpoint(Box::new(failure)),
            policy,
            cookie: None,
            overridden: false,
        })
    }
}

pub(crate) fn known_service<'a>(
    snapshot: &'a Snapshot,
    name: &str,
) -> Result<&'a Service, Failure> {
    let known = snapshot.services.get(name).map(|service| &**service);
    known.ok_or_else(|| {
        Failure::not_sent(Reason::UnknownDestination, format!("{name} is not known"))
    })
}

/// The headless Service of a pod that a request to its address names.
fn headless<'a>(pod: &'a PodTarget, host: &str) -> Option<&'a str> {
    if pod.headless.is_empty() {
        return None;
    }
    let host = canonical_host(host);
    let mut all = pod.headless.iter();
    let named = all.find(|(hosts, _)| hosts.contains(&host));
    named.map(|(_, name)| &**name)
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
