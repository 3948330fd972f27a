//! Explains the route of a call, as the caller's proxy decides it: splits, backends, endpoints,
//! and the fallback where there are none.

use std::collections::BTreeSet;

use crds::observe::ExplainedRule;
use http::Method;
use policy::access::Caller as Proven;
use policy::fallback::{Call as FallbackCall, Ended, due};
use policy::http_match::RequestFacts;
use policy::name::{ServiceId, SpiffeId};
use policy::origin::Origin;
use policy::reason::Reason;
use policy::release::ReleaseSet;
use policy::route::{Backend, Forward, shares};
use policy::traffic::call::{FallbackTo, Retry};
use policy::traffic::first;

use super::call::{Called, Caller, Request};
use super::external::{self, Leaving, OUTSIDE};
use super::{host, rules, service_names};
use crate::model::revoked::EndedBy;
use crate::model::{Audience, Endpoint, Index, Model, PortEntry, identity_at};
use crate::world::ObjectKey;

/// Beside calls of pods, as an ingress controller makes them: their caller chose the pod.
const BY_ADDRESS: &str = "called by the pods' own addresses, past every TrafficSplit, retry and \
                          balance of a Service: call the Service to have those";

/// One backend's part of a caller's calls.
#[derive(Debug)]
pub(super) struct BackendRoute {
    /// `namespace/name` of the Service or of the workload, with the set of a release after it.
    pub(super) label: String,
    /// Of the caller's calls, 0 to 1.
    pub(super) share: f64,
    /// The split, or the route, that says so.
    pub(super) split: Option<Origin>,
    /// Where it is a route: its rule.
    pub(super) rule: Option<ExplainedRule>,
    /// The request as pods get it, where the rule changes it.
    pub(super) sent: Option<Request>,
    /// Where the caller's proxy redirects the call to, as words.
    pub(super) redirect: Option<String>,
    /// Those that may take calls.
    pub(super) endpoints: Vec<Endpoint>,
    /// All that there are.
    pub(super) all: usize,
    /// What revokes pods among them, which get no calls.
    pub(super) revoked: BTreeSet<EndedBy>,
    /// Refused before any pod is called.
    pub(super) refused: Option<Reason>,
    /// What a policy has answer then.
    pub(super) instead: Option<Instead>,
    /// To be said beside it.
    pub(super) note: Option<String>,
    /// It leads out of the cluster, and no proxy of the mesh evaluates it.
    pub(super) outside: bool,
    /// With some host the call goes another way, and no host was said.
    pub(super) by_host: bool,
}

/// The fallback of a called Service without endpoints.
#[derive(Debug)]
pub(super) struct Instead {
    /// `TrafficPolicy namespace/name`.
    pub(super) policy: String,
    /// What becomes of the call by it.
    pub(super) text: String,
    pub(super) by: AnsweredBy,
}

/// What answers.
#[derive(Debug)]
pub(super) enum AnsweredBy {
    /// The caller's own proxy, with what the policy holds.
    Policy,
    /// Pods of another Service; where they refuse, the call ends as it would have without.
    Pods(Vec<Endpoint>),
    /// That one has no endpoint either, or is not looked at.
    NoPods,
}

impl BackendRoute {
    /// The ways that a caller's calls go.
    pub(super) fn of(model: &Model, caller: &Caller, to: &Called, request: &Request) -> Vec<Self> {
        let index = &*model.index;
        // Whatever is called: the caller's proxy reads the request first.
        if let Some(why) = request.malformed
            && caller.identity.is_some()
            && reads_requests(index, to)
        {
            let label = match to {
                Called::External(_) => OUTSIDE.to_owned(),
                Called::Service(key, _) | Called::Pods(key, ..) | Called::PastService(key, ..) => {
                    key.to_string()
                }
            };
            return vec![Self {
                refused: Some(Reason::BadRequest),
                note: Some(why.to_owned()),
                ..Self::to(label, Vec::new(), 0)
            }];
        }
        match to {
            Called::External(outside) => {
                vec![Self::leaving(external::route(
                    index, caller, outside, request,
                ))]
            }
            Called::Pods(key, pods, port) | Called::PastService(key, pods, port) => {
                let endpoints: Vec<Endpoint> = pods
                    .iter()
                    .filter_map(|pod| pod_endpoint(index, pod, *port))
                    .collect();
                let all = endpoints.len();
                let note = match to {
                    Called::PastService(..) => service_names::unmapped(index, key, *port),
                    _ => Some(BY_ADDRESS.to_owned()),
                };
                vec![Self {
                    note,
                    ..Self::to(key.to_string(), endpoints, all)
                }]
            }
            Called::Service(key, port) => {
                let audience = audience(index, caller);
                Self::of_service(index, caller, (key, *port), request, audience)
            }
        }
    }

    /// The ways to a Service by what is for this audience; none to a port that it has not.
    pub(super) fn of_service(
        index: &Index,
        caller: &Caller,
        (key, port): (&ObjectKey, u16),
        request: &Request,
        audience: Audience<'_>,
    ) -> Vec<Self> {
        let Some(entry) = index.services.get(key) else {
            return Vec::new();
        };
        let Some(at) = entry.ports.get(&port) else {
            return Vec::new();
        };
        let root = || {
            let over = Self::over(index, caller, key, port, 1.0);
            let note = service_names::unmapped(index, key, port).or(over.note);
            vec![Self { note, ..over }]
        };
        // A caller without a proxy is carried by Kubernetes, which knows neither splits nor
        // policies.
        if caller.identity.is_none() {
            return root();
        }
        // Bytes to a headless Service go to the pod whose address was called.
        if entry.facts.headless && (request.tcp || at.protocol.is_opaque()) {
            return root();
        }
        let facts = RequestFacts {
            method: &request.method,
            path: &request.path,
            query: request.query.as_deref(),
            headers: &request.headers,
        };
        let seen = (!request.tcp && !at.protocol.is_opaque()).then_some(&facts);
        let table = index.routes_at(entry, port, audience);
        let by_host = host::may_decide_otherwise(&table, seen);
        let decided = table.decide(seen);
        let backend_routes = Self::forwarded(index, caller, key, request, decided);
        let backend_routes = backend_routes.unwrap_or_else(root);
        let routes = entry.routes.as_ref().and_then(|routes| routes.0.get(&port));
        let rule = rules::explained(routes.and_then(|at| at.of(audience)), seen);
        let called = (key, port);
        let instead = |ended: Reason| Instead::of(index, caller, called, seen, ended);
        let backend_routes = backend_routes.into_iter().map(|backend_route| Self {
            instead: backend_route.refused.and_then(instead),
            rule: rule.clone(),
            by_host,
            ..backend_route
        });
        backend_routes.collect()
    }

    /// The ways by what a table decided; `None`: to the Service itself.
    pub(super) fn forwarded(
        index: &Index,
        caller: &Caller,
        key: &ObjectKey,
        request: &Request,
        (forward, split): (&Forward, Option<&Origin>),
    ) -> Option<Vec<Self>> {
        let nowhere = || Self {
            split: split.cloned(),
            ..Self::to(key.to_string(), Vec::new(), 0)
        };
        Some(match forward {
            Forward::Root => return None,
            Forward::Split(backends) => shares(backends)
                .map(|(backend, share)| Self {
                    split: split.cloned(),
                    ..Self::taken(index, caller, request, (backend, share))
                })
                .collect(),
            Forward::Refuse(reason) => vec![Self {
                refused: Some(*reason),
                ..nowhere()
            }],
            Forward::Redirect(redirect) => vec![Self {
                redirect: Some(rules::redirect_words(redirect)),
                ..nowhere()
            }],
        })
    }

    /// The endpoints whose proxies evaluate: of what was called, or of the fallback.
    pub(super) fn called_endpoints(&self) -> &[Endpoint] {
        match &self.instead {
            Some(Instead {
                by: AnsweredBy::Pods(endpoints),
                ..
            }) => endpoints,
            _ => &self.endpoints,
        }
    }

    /// Whether something answers in place of what was called.
    pub(super) fn is_answered(&self) -> bool {
        let instead = self.instead.as_ref();
        instead.is_some_and(|instead| !matches!(instead.by, AnsweredBy::NoPods))
    }

    /// Whether no pod is called, because the policy holds the answer.
    pub(super) fn is_held(&self) -> bool {
        let instead = self.instead.as_ref();
        instead.is_some_and(|instead| matches!(instead.by, AnsweredBy::Policy))
    }

    /// To a backend of a split or route.
    pub(super) fn taken(
        index: &Index,
        caller: &Caller,
        request: &Request,
        (backend, share): (&Backend, f64),
    ) -> Self {
        let service = ObjectKey::from(&backend.service);
        if backend.invalid {
            return Self {
                share,
                refused: Some(Reason::InvalidBackend),
                ..Self::to(service.to_string(), Vec::new(), 0)
            };
        }
        let actions = backend.actions.as_deref();
        Self {
            sent: actions.map(|actions| request.edited(actions)),
            ..Self::over(index, caller, &service, backend.port, share)
        }
    }

    /// To the endpoints of a Service's port.
    fn over(index: &Index, caller: &Caller, service: &ObjectKey, port: u16, share: f64) -> Self {
        if let Some(outside) = external::of_service(index, caller, (service, port)) {
            return Self {
                share,
                ..Self::leaving(outside)
            };
        }
        let entry = index.backend(service);
        let local = entry.is_some_and(|entry| entry.facts.internal_local);
        let at = entry.and_then(|entry| entry.ports.get(&port));
        let all = at.map_or(0, |at| at.candidates.len());
        let node = local
            .then_some(&*caller.node)
            .filter(|node| !node.is_empty());
        let endpoints = at.map_or_else(Vec::new, |at| usable(at, node));
        let affinity = entry.map_or(0, |entry| entry.facts.affinity_seconds);
        let note = if local {
            Some("internalTrafficPolicy Local: endpoints of the caller's own node only".to_owned())
        } else {
            (affinity > 0).then(|| format!("session affinity for {affinity} s"))
        };
        Self {
            share,
            refused: endpoints.is_empty().then_some(Reason::NoEndpoint),
            revoked: at.map_or_else(BTreeSet::new, |at| revoked(index, at)),
            note,
            ..Self::to(shown(service), endpoints, all)
        }
    }

    fn leaving(way: Leaving) -> Self {
        Self {
            split: way.object,
            outside: way.refused.is_none(),
            refused: way.refused,
            note: way.note,
            ..Self::to(way.label, Vec::new(), 0)
        }
    }

    fn to(label: String, endpoints: Vec<Endpoint>, all: usize) -> Self {
        Self {
            label,
            share: 1.0,
            revoked: BTreeSet::new(),
            split: None,
            rule: None,
            sent: None,
            redirect: None,
            endpoints,
            all,
            refused: None,
            instead: None,
            note: None,
            outside: false,
            by_host: false,
        }
    }
}

impl Instead {
    /// What the policies of a called Service have answer calls of this caller that ended so.
    fn of(
        index: &Index,
        caller: &Caller,
        (called, port): (&ObjectKey, u16),
        seen: Option<&RequestFacts<'_>>,
        ended: Reason,
    ) -> Option<Self> {
        let proven = Proven::Mesh {
            id: caller.identity.as_ref()?,
            pod: caller.uid.as_deref(),
        };
        let policies = index.policies.of(called, port)?;
        let (fallback, origin) = first(&policies.traffic.fallback, proven, seen)?;
        // No caller has made the call yet, so its method does not matter.
        let call = FallbackCall {
            method: &Method::GET,
            once: true,
        };
        due(fallback.on, &Retry::DEFAULT, call, Ended::Failed(ended))?;
        let policy = origin.to_string();
        let (text, by) = match &fallback.to {
            // A connection of bytes has no answer that could be held.
            FallbackTo::Response(_) if seen.is_none() => return None,
            FallbackTo::Response(response) => {
                let status = response.status.as_u16();
                (
                    format!("{policy} answers {status} instead"),
                    AnsweredBy::Policy,
                )
            }
            FallbackTo::Service(other) => {
                let (text, by) = Self::pods(index, caller, (called, port), other);
                (format!("{policy} asks Service {other} instead, {text}"), by)
            }
        };
        Some(Self { policy, text, by })
    }

    fn pods(
        index: &Index,
        caller: &Caller,
        (called, port): (&ObjectKey, u16),
        other: &ServiceId,
    ) -> (String, AnsweredBy) {
        // A user who may know of the called one need not know of that.
        if other.namespace != called.namespace {
            let text = "which is of another namespace and not followed here";
            return (text.to_owned(), AnsweredBy::NoPods);
        }
        let key = ObjectKey::from(other);
        let backend_route = BackendRoute::over(index, caller, &key, port, 1.0);
        let (ready, all) = (backend_route.endpoints.len(), backend_route.all);
        let text = format!("of which {ready} of {all} endpoints may take calls");
        let by = match backend_route.refused {
            Some(_) => AnsweredBy::NoPods,
            None => AnsweredBy::Pods(backend_route.endpoints),
        };
        (text, by)
    }
}

/// Which routes are for a caller. Those of Services are not for Gateways, whose own have decided.
fn audience<'a>(index: &Index, caller: &'a Caller) -> Audience<'a> {
    let is_gateway = caller.example.as_ref().is_some_and(|pod| {
        let facts = index.world.pods.get(pod);
        facts.is_some_and(|facts| index.gateway_of(pod, facts).is_some())
    });
    if is_gateway {
        return Audience::Direct;
    }
    let namespace = caller.identity.as_ref().and_then(SpiffeId::namespace);
    namespace.map_or(Audience::Everyone, Audience::Namespace)
}

/// A backend as users read it: a set of a release is no object that they have.
fn shown(backend: &ObjectKey) -> String {
    match ReleaseSet::parse(&backend.name) {
        Some((service, set)) => format!("{}/{service} {set}", backend.namespace),
        None => backend.to_string(),
    }
}

/// Whether a caller's proxy reads requests that go there, and does not relay them as bytes.
fn reads_requests(index: &Index, to: &Called) -> bool {
    match to {
        Called::External(_) => true,
        Called::Service(key, port) => {
            let entry = index.services.get(key);
            let at = entry.and_then(|entry| entry.ports.get(port));
            at.is_some_and(|at| !at.protocol.is_opaque())
        }
        Called::Pods(_, pods, port) | Called::PastService(_, pods, port) => {
            let mut endpoints = pods
                .iter()
                .filter_map(|pod| pod_endpoint(index, pod, *port));
            endpoints.any(|endpoint| !endpoint.opaque)
        }
    }
}

/// The endpoints that may take calls: those that are ready, without any those that still
/// answer while they end.
fn usable(at: &PortEntry, node: Option<&str>) -> Vec<Endpoint> {
    let here = || {
        let candidates = at.candidates.iter();
        candidates.filter(|candidate| node.is_none_or(|node| *candidate.node == *node))
    };
    let ready = here().filter(|candidate| candidate.ready);
    let ready: Vec<Endpoint> = ready.map(|one| one.endpoint.clone()).collect();
    if !ready.is_empty() {
        return ready;
    }
    let last = here().filter(|candidate| candidate.last_resort);
    last.map(|one| one.endpoint.clone()).collect()
}

/// What revokes pods of a port.
fn revoked(index: &Index, at: &PortEntry) -> BTreeSet<EndedBy> {
    let candidates = at.candidates.iter();
    let pods = candidates.filter_map(|one| one.endpoint.pod.as_ref());
    pods.filter_map(|pod| index.ended_by(pod)).collect()
}

/// A pod's own address.
fn pod_endpoint(index: &Index, pod: &ObjectKey, port: u16) -> Option<Endpoint> {
    let facts = index.world.pods.get(pod)?;
    Some(Endpoint {
        ip: *facts.ips.first()?,
        port,
        identity: identity_at(&index.defaults, pod, facts, port),
        pod: Some(pod.clone()),
        pod_uid: facts.uid.clone(),
        zone: String::new(),
        ready_since: 0,
        opaque: index.pod_protocols(pod, facts).lookup(port).is_opaque(),
    })
}
