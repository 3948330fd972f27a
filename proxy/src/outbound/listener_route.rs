//! Finds the route of a client's request at a listener of the own Gateway: by the rules of the
//! listener's routes, then as for any call to the backend's Service.
//!
//! A request belongs to the listener whose hostname fits its host best, and a connection in TLS to
//! the one whose hostname fits its server name best. A request that comes by the connection of
//! another listener is refused: its client would else reach routes past the certificate, and past
//! the rules, of the listener that it names. Splits of the backend's Service share out what it gets;
//! routes of that Service are for its own callers.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::HOST;
use http::{HeaderMap, HeaderValue};
use policy::gateway::NoListener;
use policy::http_match::RequestFacts;
use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::reason::Reason;
use policy::route::edits::Actions;
use policy::route::{Backend, Forward, Rule, choose};
use policy::sticky::Key;

use crate::config::gateway::ServedGateway;
use crate::config::snapshot::Snapshot;
use crate::failure::Failure;
use crate::outbound::call_policy::{CallPolicy, Names};
use crate::outbound::choice::{Choice, RoutedEndpoints};
use crate::outbound::edge::Edge;
use crate::outbound::edits::{Unsent, cross_origin};
use crate::outbound::route::Route;
use crate::outbound::route_query::{RouteQuery, refused as refused_by_rule};
use crate::outbound::tenant::{self, Tenant};

/// A request as the edits of its rule leave it: that is what the Service behind it is asked, so
/// splits and policies of the Service decide about that.
struct Edited {
    headers: HeaderMap,
    /// Path and query.
    target: String,
}

/// Where a call goes that came in so: `request` is its head and the host that it names, and `None`
/// of opaque bytes. `calling`: the client, as the Gateway believes it, and the own pod.
pub(super) fn find(
    edge: &Edge,
    snapshot: &Snapshot,
    request: Option<(&RequestFacts<'_>, Option<&str>)>,
    calling: (IpAddr, &str),
) -> Result<Route, Unsent> {
    let gateway = snapshot.gateway.as_ref();
    let served = gateway.and_then(|gateway| gateway.served.as_deref());
    let Some(served) = served else {
        return Err(Failure::no_configuration().into());
    };
    let facts = request.map(|(facts, _)| facts);
    let rule = match request {
        Some((facts, host)) => of_request(edge, served, facts, host)?,
        None => of_connection(edge, served)?,
    };
    let origin = &rule.origin;
    let backend = match &rule.then {
        Forward::Split(backends) => choose(backends, rand::random()),
        Forward::Redirect(redirect) => {
            if let Some((_, None)) = request
                && redirect.host.is_none()
            {
                // The address that was called is the pod's, which no client outside learns.
                let detail = "the request names no host, and the rule redirects to that; send Host";
                return Err(Failure::refused(Reason::BadRequest, detail).into());
            }
            return Err(Unsent::Redirected {
                redirect: Arc::clone(redirect),
                by: Some(origin.clone()),
            });
        }
        Forward::Refuse(reason) => return Err(refused(served, *reason, origin).into()),
        // There is no Service that was called.
        Forward::Root => return Err(refused(served, Reason::InvalidRoute, origin).into()),
    };
    let Some(backend) = backend else {
        return Err(refused(served, Reason::NoBackend, origin).into());
    };
    let cors = match (&backend.actions, facts) {
        (Some(actions), Some(facts)) => cross_origin(actions, facts, Some(origin))?,
        (None, _) | (_, None) => None,
    };
    if backend.invalid {
        return Err(refused(served, Reason::InvalidBackend, origin).into());
    }
    let mut route = to_backend(snapshot, (backend, facts), calling)?;
    // A split is what chose the backend, where there is one.
    route.rule = route.rule.or_else(|| served.object(origin).cloned());
    route.actions = backend.actions.clone();
    route.cors = cors;
    Ok(route)
}

/// The rule for a request.
fn of_request<'a>(
    edge: &Edge,
    served: &'a ServedGateway,
    facts: &RequestFacts<'_>,
    sent: Option<&str>,
) -> Result<&'a Rule<Forward>, Failure> {
    let found = served.gateway.listener_of_request(edge.came_by(), sent);
    let (named, host) = found.map_err(|none| match none {
        NoListener::BadHost => Failure::refused(none.reason(), none.detail()),
        NoListener::OfHost => no_route(served, none.detail()),
        NoListener::Misdirected => Failure::Refused {
            reason: none.reason(),
            by: Some(served.gateway.origin.clone()),
            detail: none.detail().into(),
        },
    })?;
    let rule = named.decide(host.as_deref(), Some(facts));
    rule.ok_or_else(|| no_route(served, "no route of its listener matches the request"))
}

/// The rule for a connection of opaque bytes.
fn of_connection<'a>(edge: &Edge, served: &'a ServedGateway) -> Result<&'a Rule<Forward>, Failure> {
    let own = edge.listener(served);
    let rule = own.and_then(|own| own.decide(edge.server_name.as_deref(), None));
    rule.ok_or_else(|| no_route(served, "no route of its listener is for the connection"))
}

/// To the Service of a backend, as any client of it would go there.
fn to_backend(
    snapshot: &Snapshot,
    (backend, facts): (&Backend, Option<&RequestFacts<'_>>),
    (client, pod): (IpAddr, &str),
) -> Result<Route, Unsent> {
    let (id, port) = (&backend.service, backend.port);
    let name = wire::names::service(&id.namespace, &id.name, port);
    let service = snapshot.services.get(&*name);
    let decides = !snapshot.policies.is_empty()
        || service.is_some_and(|service| !service.routes.rules.is_empty());
    let actions = backend.actions.as_deref().filter(|_| decides);
    let edited = actions.zip(facts).and_then(Edited::of);
    let asked = edited.as_ref().zip(facts);
    let asked = asked.map(|(edited, came)| edited.facts(came));
    let facts = asked.as_ref().or(facts);
    let Some(service) = service else {
        return Ok(to_endpoints(snapshot, backend, (&name, facts)));
    };
    let tenant = tenant::of(snapshot, &name, facts, pod);
    let query = RouteQuery {
        snapshot,
        name: &name,
        facts,
        tenant: tenant.as_ref(),
        actions: backend.actions.as_deref(),
    };
    let mut route = match query.by_rule()? {
        Some(route) => route,
        None => {
            // Affinity is that of clients, which all come by the Gateway, and by the proxies that it
            // believes.
            let client = service.affinity.as_ref().map(|_| Tenant {
                key: Key::of(client.to_string().as_bytes()),
                endpoint: true,
                cookie: None,
            });
            RouteQuery {
                tenant: query.tenant.or(client.as_ref()),
                ..query
            }
            .service()?
        }
    };
    route.speaks = Some(service.protocol);
    Ok(route)
}

impl Edited {
    /// `None`: it stays as it came.
    fn of((actions, came): (&Actions, &RequestFacts<'_>)) -> Option<Self> {
        let mut all = actions.edits.iter();
        if !all.any(|one| one.rewrite.is_some() || !one.request.is_empty()) {
            return None;
        }
        let mut headers = came.headers.clone();
        actions.edit_request(&mut headers);
        let host = actions.host();
        if let Some(host) = host.and_then(|host| HeaderValue::from_str(host).ok()) {
            headers.insert(HOST, host);
        }
        let sent = match came.query {
            Some(query) => format!("{}?{query}", came.path),
            None => came.path.to_owned(),
        };
        let target = actions.path_and_query(&sent).into_owned();
        Some(Self { headers, target })
    }

    fn facts<'a>(&'a self, came: &RequestFacts<'a>) -> RequestFacts<'a> {
        let (path, query) = match self.target.split_once('?') {
            Some((path, query)) => (path, Some(query)),
            None => (&*self.target, None),
        };
        RequestFacts {
            method: came.method,
            path,
            query,
            headers: &self.headers,
        }
    }
}

/// The same where nothing is known of the Service but its endpoints.
fn to_endpoints(
    snapshot: &Snapshot,
    backend: &Backend,
    (name, facts): (&str, Option<&RequestFacts<'_>>),
) -> Route {
    let names = Names {
        root: name,
        serving: None,
    };
    let actions = backend.actions.as_deref();
    let among = RoutedEndpoints::of(snapshot, &backend.endpoints);
    Route {
        policy: CallPolicy::of(&snapshot.policies, names, facts, actions),
        speaks: Some(Protocol::Detect),
        ..Route::to(&backend.label, backend.port, Choice::Any(among))
    }
}

/// Clients outside learn no more than that: what the Gateway serves is shown by its status.
fn no_route(served: &ServedGateway, detail: &'static str) -> Failure {
    Failure::Refused {
        reason: Reason::NoRoute,
        by: Some(served.gateway.origin.clone()),
        detail: detail.into(),
    }
}

/// Why a rule sends a call nowhere.
fn refused(served: &ServedGateway, reason: Reason, origin: &Origin) -> Failure {
    match reason {
        Reason::NoRoute => no_route(served, "no rule of its routes matches the request"),
        reason => refused_by_rule(reason, Some(origin)),
    }
}
