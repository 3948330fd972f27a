//! Access control: which callers may call a workload, and how.
//!
//! Rules only allow. Each rule is one TrafficTarget and is evaluated by itself: the sources of one
//! never combine with the ports or routes of another, which is what happens when ports are checked
//! per connection and routes per request.
//!
//! Whatever is empty allows nothing, so a lost or half-written list refuses.

pub mod dry_run;
pub mod passes;
pub mod requests;

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::http_match::{HttpMatch, RequestFacts};
use crate::mode::Enforcement;
use crate::name::SpiffeId;
use crate::origin::Origin;
use crate::reason::Reason;

/// The caller, as proven by the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Caller<'a> {
    /// A peer that proved this identity with a certificate of the mesh.
    Mesh {
        id: &'a SpiffeId,
        /// Uid of the pod that the certificate was issued to, if the certificate has it.
        pod: Option<&'a str>,
    },
    /// All others. An address is no identity.
    Outside,
}

impl<'a> Caller<'a> {
    /// A peer whose certificate names no pod.
    #[must_use]
    pub const fn mesh(id: &'a SpiffeId) -> Self {
        Self::Mesh { id, pod: None }
    }
}

/// The callers that a rule admits.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    Identity(SpiffeId),
    /// Pods by uid, in ascending order; [`Source::pods`] sorts. A certificate that
    /// names no pod is never among them.
    Pods(Vec<Arc<str>>),
    /// Any mesh identity.
    Authenticated,
    /// Callers outside the mesh.
    Unauthenticated,
}

impl Source {
    pub fn pods(uids: impl IntoIterator<Item = impl Into<Arc<str>>>) -> Self {
        let mut uids: Vec<Arc<str>> = uids.into_iter().map(Into::into).collect();
        uids.sort_unstable();
        uids.dedup();
        Self::Pods(uids)
    }

    #[must_use]
    pub fn admits(&self, caller: Caller<'_>) -> bool {
        match (self, caller) {
            (Self::Identity(listed), Caller::Mesh { id, .. }) => listed == id,
            (Self::Pods(listed), Caller::Mesh { pod, .. }) => {
                pod.is_some_and(|pod| listed.binary_search_by(|one| (**one).cmp(pod)).is_ok())
            }
            (Self::Authenticated, Caller::Mesh { .. }) => true,
            (Self::Unauthenticated, Caller::Outside) => true,
            (Self::Identity(_) | Self::Pods(_) | Self::Authenticated, Caller::Outside)
            | (Self::Unauthenticated, Caller::Mesh { .. }) => false,
        }
    }
}

/// What a caller sends, as far as it is judged.
#[derive(Clone, Copy, Debug)]
pub enum EvaluatedTraffic<'a> {
    /// One HTTP request. Its path must be in a form that [`requests`] confirms to be what is
    /// forwarded.
    Http(&'a RequestFacts<'a>),
    /// A connection of a port that is declared to carry no HTTP: its bytes are relayed
    /// without looking at them, and HTTP rules say nothing there.
    Opaque,
    /// A connection of any other port whose bytes were not read as HTTP. A target with
    /// HTTP rules wants to see requests, and these are none, however they began and
    /// whatever a server may take them for.
    Bytes,
}

/// Container ports that a rule speaks about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ports {
    Any,
    /// In ascending order; [`Ports::only`] sorts.
    Only(Vec<u16>),
}

impl Ports {
    pub fn only(ports: impl IntoIterator<Item = u16>) -> Self {
        let mut ports: Vec<u16> = ports.into_iter().collect();
        ports.sort_unstable();
        ports.dedup();
        Self::Only(ports)
    }

    pub fn contains(&self, port: u16) -> bool {
        match self {
            Self::Any => true,
            Self::Only(ports) => ports.binary_search(&port).is_ok(),
        }
    }
}

/// One TrafficTarget that protects the workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    pub origin: Origin,
    pub sources: Vec<Source>,
    /// `None`: the target has no TCPRoute.
    pub ports: Option<Ports>,
    /// `None`: the target has no HTTPRouteGroup. Empty: no request matches.
    pub http: Option<Vec<HttpMatch>>,
    /// Nothing in this rule applies beyond these ports, and they allow nothing by
    /// themselves: `destination.port` of the oldest versions. `None`: no limit.
    pub limit: Option<Ports>,
}

impl Rule {
    pub(crate) fn admits(&self, caller: Caller<'_>) -> bool {
        self.sources.iter().any(|source| source.admits(caller))
    }

    pub(crate) fn reaches(&self, port: u16) -> bool {
        self.limit.as_ref().is_none_or(|limit| limit.contains(port))
    }

    fn allows(&self, port: u16, traffic: EvaluatedTraffic<'_>) -> bool {
        match traffic {
            EvaluatedTraffic::Http(request) => self.allows_request(port, request),
            EvaluatedTraffic::Opaque => self.allows_bytes(port),
            EvaluatedTraffic::Bytes => self.http.is_none() && self.allows_bytes(port),
        }
    }

    /// A TCPRoute beside an HTTPRouteGroup narrows it to its ports; alone it
    /// admits whatever runs over them.
    fn allows_request(&self, port: u16, request: &RequestFacts<'_>) -> bool {
        self.reaches(port)
            && match (&self.http, &self.ports) {
                (Some(http), ports) => {
                    ports.as_ref().is_none_or(|ports| ports.contains(port))
                        && http.iter().any(|one| one.matches(request))
                }
                (None, Some(ports)) => ports.contains(port),
                (None, None) => false,
            }
    }

    fn allows_bytes(&self, port: u16) -> bool {
        let allows = |ports: &Ports| ports.contains(port);
        self.reaches(port) && self.ports.as_ref().is_some_and(allows)
    }

    fn evaluates_requests_on(&self, port: u16) -> bool {
        self.http.is_some()
            && self.reaches(port)
            && self.ports.as_ref().is_none_or(|ports| ports.contains(port))
    }
}

/// Everything that decides about calls to one workload.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Access {
    pub enforcement: Enforcement,
    pub rules: Vec<Rule>,
}

/// The verdict on one call. What is done with it, what is counted and what is logged are
/// read from this one value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict<'a> {
    /// It passes, by the first rule that allows it; where nothing is enforced also
    /// without one.
    Allow { by: Option<&'a Origin> },
    /// It passes, and deny would refuse it for this.
    Audit { reason: Reason },
    /// It does not pass. `by` is what refused it, if that was an object: so far rules
    /// only allow, and what none of them allows is refused by none.
    Refuse {
        reason: Reason,
        by: Option<&'a Origin>,
    },
}

impl<'a> Verdict<'a> {
    #[must_use]
    pub const fn is_allowed(&self) -> bool {
        match self {
            Self::Allow { .. } | Self::Audit { .. } => true,
            Self::Refuse { .. } => false,
        }
    }

    /// The object that decided, if one did.
    #[must_use]
    pub const fn by(&self) -> Option<&'a Origin> {
        match self {
            Self::Allow { by } | Self::Refuse { by, .. } => *by,
            Self::Audit { .. } => None,
        }
    }
}

impl Access {
    /// Headers that rules look at, in small letters.
    #[must_use]
    pub fn header_names(&self) -> BTreeSet<String> {
        let matches = self.rules.iter().filter_map(|rule| rule.http.as_ref());
        let names = matches.flatten().flat_map(HttpMatch::header_names);
        names.map(str::to_ascii_lowercase).collect()
    }

    /// Judges one call.
    pub fn decide(
        &self,
        caller: Caller<'_>,
        port: u16,
        traffic: EvaluatedTraffic<'_>,
    ) -> Verdict<'_> {
        let mut admitting = self.rules.iter().filter(|rule| rule.admits(caller));
        let by = admitting.find(|rule| rule.allows(port, traffic));
        let reason = match caller {
            Caller::Mesh { .. } => Reason::NotAllowed,
            Caller::Outside => Reason::NoIdentity,
        };
        match (by, self.enforcement) {
            (Some(rule), _) => Verdict::Allow {
                by: Some(&rule.origin),
            },
            (None, Enforcement::Open) => Verdict::Allow { by: None },
            (None, Enforcement::Audit) => Verdict::Audit { reason },
            (None, Enforcement::Enforce) => Verdict::Refuse { reason, by: None },
        }
    }

    /// True when some request of this caller could be allowed on the port by a target
    /// with HTTP rules.
    pub fn may_request(&self, caller: Caller<'_>, port: u16) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.admits(caller) && rule.evaluates_requests_on(port))
    }

    /// True when requests on this port are judged one by one. In open mode nothing is
    /// judged.
    pub fn has_http_rule(&self, port: u16) -> bool {
        self.enforcement != Enforcement::Open
            && self
                .rules
                .iter()
                .any(|rule| rule.evaluates_requests_on(port))
    }
}

#[cfg(test)]
mod tests;
