//! Evaluates a call at a called pod: the checks of its proxy, in the same order.

use policy::access::{Access, Caller as Proven, EvaluatedTraffic, Source, Verdict};
use policy::explain::Part;
use policy::http_match::RequestFacts;
use policy::mode::{Enforcement, MtlsMode};
use policy::name::ObjectRef;
use policy::origin::Origin;
use policy::path::PathForms;
use policy::protocol::Protocol;
use policy::reason::Reason;
use policy::well_known::{ADMIN_PORT, PROXY_PORTS};

use super::call::{Caller, Request};
use super::host;
use crate::model::revoked::EndedBy;
use crate::model::{Endpoint, Index, Model, PodId, Target, modes};
use crate::world::{ObjectKey, PodFacts};

/// What is done with the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ruling {
    Allowed,
    /// It passes, and deny would refuse it for this.
    Audited(Reason),
    Refused(Reason),
    /// No proxy evaluates it; why.
    NotEvaluated(&'static str),
}

impl Ruling {
    pub(super) fn refusal(self) -> Option<Reason> {
        match self {
            Self::Refused(reason) => Some(reason),
            Self::Allowed | Self::Audited(_) | Self::NotEvaluated(_) => None,
        }
    }
}

/// One rule's part in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RuleVerdict {
    pub(super) origin: Origin,
    /// `None`: it allows the call.
    pub(super) fails: Option<String>,
}

/// What one endpoint says.
#[derive(Clone, Debug)]
pub(super) struct EvaluatedEndpoint {
    pub(super) endpoint: Endpoint,
    pub(super) ruling: Ruling,
    pub(super) protocol: Protocol,
    pub(super) enforcement: Enforcement,
    /// Plaintext is refused altogether, whatever rules say.
    pub(super) strict: bool,
    /// Every rule of the pod.
    pub(super) rules: Vec<RuleVerdict>,
    /// Some rule may tell pods of one account apart.
    pub(super) names_pods: bool,
    /// It refuses, lets the call in with some host, and no host was said.
    pub(super) by_host: bool,
    /// What revokes the caller or the called pod: the caller's proxy finds that no handshake succeeds,
    /// and no rule is looked at.
    pub(super) revoked: Option<EndedBy>,
    /// The pod whose proxy judges, and the objects that it judges by.
    pub(super) by: Option<(PodId, Vec<(ObjectRef, i64)>)>,
}

impl EvaluatedEndpoint {
    /// `namespace/name` of the pod, or the address where none stands behind it.
    pub(super) fn name(&self) -> String {
        match &self.endpoint.pod {
            Some(pod) => pod.to_string(),
            None => self.endpoint.ip.to_string(),
        }
    }
}

/// Why no access rule is evaluated.
const LEFT_OUT: &str = "the port is left out of traffic capture, so no proxy evaluates rules";
const AT_GATEWAY: &str = "a Gateway listens here, which evaluates its own routes: weft explain \
                          outside gateway/NAME METHOD URL shows them";

/// Judges one endpoint.
pub(super) fn endpoint(
    model: &Model,
    caller: &Caller,
    endpoint: &Endpoint,
    request: &Request,
) -> EvaluatedEndpoint {
    let index = &*model.index;
    let found = endpoint.pod.as_ref();
    let found = found.and_then(|pod| Some((pod, index.world.pods.get(pod)?)));
    let Some((pod, facts)) = found else {
        return not_evaluated(endpoint, "no pod of the cluster stands behind this address");
    };
    let Some(proxy) = &facts.proxy else {
        return not_evaluated(endpoint, "the pod has no proxy");
    };
    if PROXY_PORTS.contains(&endpoint.port) {
        return at_own_port(caller, endpoint);
    }
    if proxy.is_gateway {
        return not_evaluated(endpoint, AT_GATEWAY);
    }
    if proxy.skips(endpoint.port) {
        return not_evaluated(endpoint, LEFT_OUT);
    }
    let pod_access = PodAccess::of(index, pod, facts);
    let protocol = index.pod_protocols(pod, facts).lookup(endpoint.port);
    let namespace = index.world.namespace(&pod.namespace);
    let mtls = modes::mtls_at(
        &index.defaults,
        namespace,
        &facts.annotations,
        endpoint.port,
    );
    let proven = match &caller.identity {
        Some(id) => Proven::Mesh {
            id,
            pod: caller.uid.as_deref(),
        },
        None => Proven::Outside,
    };
    let strict = mtls == MtlsMode::Strict && caller.identity.is_none();
    let revoked = revoked(index, caller, pod);
    let (ruling, rules, by_host) = match &revoked {
        Some(_) => (Ruling::Refused(Reason::Revoked), Vec::new(), false),
        None => pod_access.evaluate(proven, (endpoint.port, protocol, strict), request),
    };
    EvaluatedEndpoint {
        endpoint: endpoint.clone(),
        ruling,
        protocol,
        enforcement: pod_access.access.enforcement,
        strict,
        rules,
        names_pods: pod_access.names_pods(),
        by_host,
        revoked,
        by: Some((pod.clone(), pod_access.origins)),
    }
}

/// What ends every handshake between the proxies of both, whatever rules and modes say.
fn revoked(index: &Index, caller: &Caller, pod: &PodId) -> Option<EndedBy> {
    caller.identity.as_ref()?;
    let own = caller.revoked.clone();
    own.or_else(|| index.ended_by(pod))
}

/// An endpoint at which no rule is evaluated, and why.
fn not_evaluated(endpoint: &Endpoint, why: &'static str) -> EvaluatedEndpoint {
    EvaluatedEndpoint {
        endpoint: endpoint.clone(),
        ruling: Ruling::NotEvaluated(why),
        protocol: Protocol::Detect,
        enforcement: Enforcement::Open,
        strict: false,
        rules: Vec::new(),
        names_pods: false,
        by_host: false,
        revoked: None,
        by: None,
    }
}

/// A port of the pod's proxy itself: its pages are for every client, and its other ports for none.
fn at_own_port(caller: &Caller, endpoint: &Endpoint) -> EvaluatedEndpoint {
    let own = not_evaluated(
        endpoint,
        "the port is the proxy's own, which traffic capture leaves alone, so no proxy evaluates rules",
    );
    if endpoint.port == ADMIN_PORT {
        return EvaluatedEndpoint {
            protocol: Protocol::Http1,
            ..own
        };
    }
    // The caller's proxy reports the reason; a caller without one finds its connection closed.
    let reason = match caller.identity {
        Some(_) => Reason::BadRequest,
        None => Reason::ConnectionLost,
    };
    EvaluatedEndpoint {
        ruling: Ruling::Refused(reason),
        ..own
    }
}

/// What a pod's proxy holds for its inbound side.
#[derive(Debug)]
pub(super) struct PodAccess {
    access: Access,
    origins: Vec<(ObjectRef, i64)>,
}

impl PodAccess {
    pub(super) const fn access(&self) -> &Access {
        &self.access
    }

    /// Whether some rule may tell pods of one account apart.
    pub(super) fn names_pods(&self) -> bool {
        let mut sources = self.access.rules.iter().flat_map(|rule| &rule.sources);
        sources.any(|source| matches!(source, Source::Pods(_)))
    }

    pub(super) fn of(index: &Index, pod: &ObjectKey, facts: &PodFacts) -> Self {
        let targets: Vec<&Target> = index.targets.of(pod, facts).collect();
        let enforcement = index.enforcement(pod, facts, &targets);
        let mut origins: Vec<(ObjectRef, i64)> =
            targets.iter().map(|target| target.origin.clone()).collect();
        let rules = targets.iter().filter_map(|target| target.rule.as_ref());
        // Nothing is refused when open, and no rule is sent.
        let rules = rules.filter(|_| enforcement != Enforcement::Open);
        let rules = rules.map(|rule| {
            origins.extend(rule.origins.iter().cloned());
            rule.on(pod)
        });
        let rules = rules.collect();
        origins.sort();
        origins.dedup();
        Self {
            access: Access { enforcement, rules },
            origins,
        }
    }

    /// The ruling, what each rule says, and whether some host would let the call in.
    fn evaluate(
        &self,
        caller: Proven<'_>,
        (port, protocol, strict): (u16, Protocol, bool),
        request: &Request,
    ) -> (Ruling, Vec<RuleVerdict>, bool) {
        let access = &self.access;
        let is_request = !request.tcp && !protocol.is_opaque();
        let sent = RequestFacts {
            method: &request.method,
            path: &request.path,
            query: None,
            headers: &request.headers,
        };
        let path = PathForms::of(&request.path);
        let lets_in_some_host =
            || is_request && !strict && host::may_let_in(access, caller, port, &sent, &path);
        // What comes is read before its sender is looked at.
        let reasons = if is_request {
            if request.malformed.is_some() {
                return (Ruling::Refused(Reason::BadRequest), Vec::new(), false);
            }
            access.explain_request(caller, port, &sent, &path).ok()
        } else if protocol.is_opaque() {
            Some(access.explain(caller, port, EvaluatedTraffic::Opaque))
        } else if protocol.is_http() {
            // What is declared to be HTTP is read as HTTP, and these bytes are none.
            None
        } else {
            Some(access.explain(caller, port, EvaluatedTraffic::Bytes))
        };
        let Some(reasons) = reasons else {
            let ruling = Ruling::Refused(Reason::BadRequest);
            return (ruling, Vec::new(), lets_in_some_host());
        };
        if strict {
            return (Ruling::Refused(Reason::NoIdentity), Vec::new(), false);
        }
        let ruling = match reasons.verdict {
            Verdict::Allow { .. } => Ruling::Allowed,
            Verdict::Audit { reason } => Ruling::Audited(reason),
            Verdict::Refuse { reason, .. } => Ruling::Refused(reason),
        };
        let rules = reasons.rules.iter().map(|answer| RuleVerdict {
            origin: answer.rule.origin.clone(),
            fails: answer.fails.map(|part| words(part, port, request)),
        });
        let by_host = ruling.refusal().is_some() && lets_in_some_host();
        (ruling, rules.collect(), by_host)
    }
}

/// What fails, for people.
fn words(part: Part<'_>, port: u16, request: &Request) -> String {
    let method = &request.method;
    match part {
        Part::Source => "the caller is none of its sources".to_owned(),
        Part::Limit => format!("source fits; port {port} lies beyond destination.port"),
        Part::Port => format!("source fits; port {port} is none of its TCPRoutes'"),
        Part::Routes => "source fits; it has no routes that allow anything".to_owned(),
        Part::Bytes => {
            "source and port fit; it describes requests, these bytes are none".to_owned()
        }
        Part::Unusable(one) => format!("source and port fit; match {} cannot be used", one.name()),
        Part::Path(_) => "source and port fit; the path fits no match".to_owned(),
        Part::Method(one) => format!(
            "source and port fit; method {method} fits no match ({}: {})",
            one.name(),
            one.methods().join(", ")
        ),
        Part::Header(one, name) => format!(
            "source, port, path and method fit; header {name} does not fit match {}",
            one.name()
        ),
        Part::Query(one, name) => format!(
            "source, port, path, method and headers fit; query parameter {name} does not fit match {}",
            one.name()
        ),
    }
}
