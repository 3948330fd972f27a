//! Finds the route of a call, from one snapshot: by the override that its request names, by the
//! rules of the Service that was called, else to that Service itself or to the pod of the client's
//! choice.

use std::sync::Arc;
use std::time::Instant;

use http::HeaderValue;
use policy::http_match::RequestFacts;
use policy::origin::Origin;
use policy::reason::Reason;
use policy::route::edits::Actions;
use policy::route::{Forward, choose};
use policy::sticky;

use crate::config::snapshot::{Destination, PodTarget, Service, Snapshot};
use crate::failure::Failure;
use crate::http::grpc::is_grpc;
use crate::http::route_override::RouteOverride;
use crate::outbound::call_policy::{self, CallPolicy, Names};
use crate::outbound::choice::{Choice, RoutedEndpoints};
use crate::outbound::connection::Connection;
use crate::outbound::context::override_target;
use crate::outbound::edits::{Unsent, cross_origin};
use crate::outbound::egress;
use crate::outbound::opened_to::{Standing, may_call};
use crate::outbound::route::{Route, may_leave};
use crate::outbound::tenant::{self, Tenant};

/// Where a call on a connection goes: `request` is its head and the host that it names, and
/// `None` of opaque bytes.
pub(super) fn route_call(
    connection: &Connection,
    snapshot: &Snapshot,
    request: Option<(&RequestFacts<'_>, Option<&str>)>,
    route_override: Option<&RouteOverride>,
) -> Result<Route, Unsent> {
    let route = find_route(connection, snapshot, request, route_override)?;
    if let Some(name) = route.choice.standing() {
        may_leave(snapshot, Some(&**name))?;
    }
    Ok(route)
}

fn find_route(
    connection: &Connection,
    snapshot: &Snapshot,
    request: Option<(&RequestFacts<'_>, Option<&str>)>,
    route_override: Option<&RouteOverride>,
) -> Result<Route, Unsent> {
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
        Destination::External => {
            let host = request.and_then(|(_, host)| host);
            Ok(egress::route(connection, snapshot, host)?)
        }
        Destination::Refused { .. } => {
            let gone = "no Service or pod of the mesh has this address and port any more";
            Err(Failure::not_sent(Reason::UnknownDestination, gone).into())
        }
    }
}

/// To a pod by its own address, whichever Services it serves.
fn to_pod(connection: &Connection, pod: &PodTarget) -> Route {
    Route {
        service: Arc::default(),
        port: connection.addr.port(),
        backend: Arc::default(),
        backend_port: connection.addr.port(),
        rule: None,
        choice: Choice::One(Arc::clone(&pod.endpoint)),
        policy: None,
        cookie: None,
        overridden: false,
        actions: None,
        cors: None,
        external: None,
    }
}

/// To where an override or a rule sends a call of that Service, and else `otherwise`.
fn to_service(
    connection: &Connection,
    snapshot: &Snapshot,
    (name, route_override): (&str, Option<&RouteOverride>),
    facts: Option<&RequestFacts<'_>>,
    otherwise: impl FnOnce(&RouteQuery<'_>) -> Result<Route, Failure>,
) -> Result<Route, Unsent> {
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
    match query.by_rule()? {
        Some(route) => Ok(route),
        None => Ok(otherwise(&query)?),
    }
}

/// To the Service that its request asks for, before rules and tenants, where the policy of
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
        backend_port: service.port,
        rule: None,
        choice: Choice::Any(RoutedEndpoints::of(snapshot, &endpoints)),
        policy: CallPolicy::of(&snapshot.policies, names, facts, None),
        cookie: None,
        overridden: true,
        actions: None,
        cors: None,
        external: None,
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
    /// `actions`: of the rule that decides.
    fn policy(&self, serving: Option<&str>, actions: Option<&Actions>) -> Option<Arc<CallPolicy>> {
        let names = Names {
            root: self.name,
            serving,
        };
        CallPolicy::of(&self.snapshot.policies, names, self.facts, actions)
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
            backend_port: service.port,
            rule: None,
            choice,
            policy: self.policy(None, None),
            cookie: self.cookie(),
            overridden: false,
            actions: None,
            cors: None,
            external: None,
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
        let policy = self.policy(None, None);
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
            backend_port: service.port,
            rule: None,
            choice,
            policy,
            cookie: None,
            overridden: false,
            actions: None,
            cors: None,
            external: None,
        })
    }

    /// To the backend that a rule chooses, if a rule applies.
    ///
    /// # Errors
    /// When the rule leads nowhere, or answers the request itself.
    fn by_rule(&self) -> Result<Option<Route>, Unsent> {
        let service = known_service(self.snapshot, self.name)?;
        let at = service.routes.position(self.facts);
        let rule = at.and_then(|at| service.routes.rules.get(at));
        let (forward, origin) = match rule {
            Some(rule) => (&rule.then, Some(&rule.origin)),
            None => (&service.routes.otherwise, None),
        };
        let refusal = |reason| -> Result<Option<Route>, Unsent> {
            Ok(Some(self.refusal(service, reason, origin)?))
        };
        let chosen = match (forward, self.tenant) {
            (Forward::Root, _) => return Ok(None),
            (Forward::Split(backends), Some(tenant)) => sticky::backend(backends, tenant.key),
            (Forward::Split(backends), None) => choose(backends, rand::random()),
            (Forward::Refuse(reason), _) => return refusal(*reason),
            (Forward::Redirect(redirect), _) => {
                return Err(Unsent::Redirected {
                    redirect: Arc::clone(redirect),
                    by: origin.cloned(),
                });
            }
        };
        let Some(backend) = chosen else {
            return refusal(Reason::NoBackend);
        };
        let cors = match (&backend.actions, self.facts) {
            (Some(actions), Some(facts)) => cross_origin(actions, facts, origin)?,
            (None, _) | (_, None) => None,
        };
        if backend.invalid {
            return refusal(Reason::InvalidBackend);
        }
        let among = RoutedEndpoints::of(self.snapshot, &backend.endpoints);
        Ok(Some(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::clone(&backend.label),
            backend_port: backend.port,
            rule: at.and_then(|at| service.objects.get(at)).cloned(),
            choice: match self.tenant {
                Some(tenant) if tenant.endpoint => Choice::Tenant(among, tenant.key),
                _ => Choice::Any(among),
            },
            policy: self.policy(Some(&backend.endpoints), backend.actions.as_deref()),
            cookie: self.cookie(),
            overridden: false,
            actions: backend.actions.clone(),
            cors,
            external: None,
        }))
    }

    /// Where a rule has no backend: nowhere, unless something else may answer.
    fn refusal(
        &self,
        service: &Service,
        reason: Reason,
        origin: Option<&Origin>,
    ) -> Result<Route, Failure> {
        let failure = refused(reason, origin);
        // A route that is wrong is not hidden behind a fallback.
        if reason != Reason::NoBackend {
            return Err(failure);
        }
        let policy = self.policy(None, None);
        if call_policy::fallback(policy.as_deref()).is_none() {
            return Err(failure);
        }
        Ok(Route {
            service: Arc::clone(&service.label),
            port: service.port,
            backend: Arc::default(),
            backend_port: service.port,
            rule: None,
            choice: Choice::NoEndpoint(Box::new(failure)),
            policy,
            cookie: None,
            overridden: false,
            actions: None,
            cors: None,
            external: None,
        })
    }
}

/// Why a rule sends a call nowhere. Its object's status has more.
fn refused(reason: Reason, origin: Option<&Origin>) -> Failure {
    let named = origin.map(ToString::to_string).unwrap_or_default();
    let detail = match reason {
        Reason::NoRoute => format!(
            "no rule of {named}, nor of the other routes of this Service, matches the request; \
             `weft routes svc/SERVICE --rules` lists them"
        ),
        Reason::InvalidBackend => format!(
            "{named} has no backend for this share of its requests that exists and may be used; \
             the condition ResolvedRefs of the route names the field"
        ),
        Reason::InvalidRoute => format!(
            "{named} matches the request and cannot be carried out; the condition Accepted of the \
             route names the field"
        ),
        _ => format!("{named} has no backend that may take traffic"),
    };
    Failure::Refused {
        reason,
        by: origin.cloned(),
        detail: detail.into(),
    }
}

fn known_service<'a>(snapshot: &'a Snapshot, name: &str) -> Result<&'a Service, Failure> {
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
