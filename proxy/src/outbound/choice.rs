//! `Choice`: the endpoints that a call may go to, and which of them its next attempt may use.
//!
//! Claims: calls-10

use std::net::SocketAddr;
use std::sync::Arc;

use policy::sticky::Key;
use policy::traffic::endpoint::Balance;

use crate::config::snapshot::Snapshot;
use crate::endpoints::endpoint::{Endpoint, InFlight};
use crate::endpoints::learned::{Draw, Fallback};
use crate::endpoints::location::Nearness;
use crate::endpoints::set::EndpointSet;
use crate::failure::Failure;
use crate::net::connect::ConnectTimeout;
use crate::proxy::Proxy;

pub(super) enum Choice {
    One(Arc<Endpoint>),
    /// The one that the client chose among those of a Service that it names. They are
    /// interchangeable: another one may take a call that cannot be connected to that one.
    OneOfInterchangeable {
        endpoint: Arc<Endpoint>,
        others: RoutedEndpoints,
    },
    /// The one that the client chose among those of a Service that it names.
    Named {
        endpoint: Arc<Endpoint>,
        among: RoutedEndpoints,
        /// Where it fails or is ejected, another one may be tried.
        fails_over: bool,
    },
    Any(RoutedEndpoints),
    /// Session affinity: every call of this pod in this epoch to the same endpoint.
    Session(RoutedEndpoints, u64),
    /// Every call of this tenant to the same endpoint.
    Tenant(RoutedEndpoints, Key),
    /// No backend, for this reason. Something else may answer.
    NoEndpoint(Box<Failure>),
}

/// The endpoints of one Service port.
#[derive(Clone, Debug)]
pub(super) struct RoutedEndpoints {
    /// Of the resource that lists them.
    name: Arc<str>,
    /// As they were when the call was routed.
    set: Arc<EndpointSet>,
}

impl RoutedEndpoints {
    pub(super) fn of(snapshot: &Snapshot, name: &Arc<str>) -> Self {
        Self {
            name: Arc::clone(name),
            set: endpoints(snapshot, name),
        }
    }

    #[cfg(test)]
    pub(super) fn of_set(set: EndpointSet) -> Self {
        Self {
            name: Arc::from("api"),
            set: Arc::new(set),
        }
    }

    /// The name of the resource that lists them, where they are those of a host outside the mesh.
    fn standing(&self) -> Option<&Arc<str>> {
        self.set.external.as_ref().map(|_| &self.name)
    }

    /// As they were when the call was routed.
    pub(super) const fn set(&self) -> &Arc<EndpointSet> {
        &self.set
    }

    /// Whether the endpoint is still one of them. A pod that ends has left before its proxy and
    /// its application break anything off.
    pub(super) fn lists(&self, proxy: &Proxy, endpoint: &Arc<Endpoint>) -> bool {
        is_among(&self.newest(proxy), endpoint)
    }

    /// Whether a client that names their Service means any of them, and there are several.
    pub(super) fn are_interchangeable(&self) -> bool {
        self.set.interchangeable && self.set.endpoints.len() > 1
    }

    /// As they are now.
    fn newest(&self, proxy: &Proxy) -> Arc<EndpointSet> {
        let now = proxy.config.inspect(|now| endpoints(now, &self.name));
        left_alike(&self.set, now)
    }

    /// For the next attempt. The first is decided by what routed the call; until another
    /// one is due endpoints may have left, or be known as meshed.
    fn for_attempt(&self, proxy: &Proxy, draw: &Draw<'_>) -> Arc<EndpointSet> {
        if draw.first {
            Arc::clone(&self.set)
        } else {
            self.newest(proxy)
        }
    }
}

impl Choice {
    pub(super) fn pick(&self, proxy: &Proxy, draw: &Draw<'_>) -> Option<InFlight> {
        match self {
            Self::One(endpoint) | Self::OneOfInterchangeable { endpoint, .. } => {
                one(endpoint, draw)
            }
            Self::Named {
                endpoint,
                among,
                fails_over,
            } => {
                let set = among.for_attempt(proxy, draw);
                let other = |fallback| fails_over.then(|| set.pick(&Draw { fallback, ..*draw }));
                let other = |fallback| other(fallback).flatten();
                let works = set.at(endpoint, draw);
                let works = works.or_else(|| other(Fallback::NoEndpoint));
                if draw.fallback == Fallback::NoEndpoint {
                    return works;
                }
                // Of the ejected ones the one that the client chose comes first, too.
                let chosen = works.or_else(|| one(endpoint, draw));
                chosen.or_else(|| other(Fallback::Ejected))
            }
            Self::Any(among) => among.for_attempt(proxy, draw).pick(draw),
            Self::Session(among, epoch) => {
                let set = among.for_attempt(proxy, draw);
                set.of_session(&proxy.own.name, *epoch, draw)
            }
            Self::Tenant(among, key) => among.for_attempt(proxy, draw).of_tenant(*key, draw),
            Self::NoEndpoint(_) => None,
        }
    }

    /// How near an endpoint is that was picked, where calls go by that.
    pub(super) fn nearness(&self, endpoint: &Endpoint, balance: &Balance) -> Option<Nearness> {
        match self {
            Self::Any(among) => among.set.nearness(endpoint, balance),
            Self::One(_)
            | Self::OneOfInterchangeable { .. }
            | Self::Named { .. }
            | Self::Session(..)
            | Self::Tenant(..)
            | Self::NoEndpoint(_) => None,
        }
    }

    /// The same for a call of which nothing is learned.
    pub(super) fn aside(&self) -> Option<Arc<Endpoint>> {
        self.set()?.aside()
    }

    /// Whether an endpoint that was chosen a while ago still works, as what it was.
    pub(super) fn still_works(
        &self,
        proxy: &Proxy,
        endpoint: &Arc<Endpoint>,
        draw: &Draw<'_>,
    ) -> bool {
        match self {
            Self::One(_) | Self::OneOfInterchangeable { .. } | Self::NoEndpoint(_) => true,
            Self::Named { among, .. }
            | Self::Any(among)
            | Self::Session(among, _)
            | Self::Tenant(among, _) => {
                let now = among.newest(proxy);
                is_among(&now, endpoint) && now.at(endpoint, draw).is_some()
            }
        }
    }

    /// Those that serve, where there is a choice among them.
    pub(super) fn set(&self) -> Option<&Arc<EndpointSet>> {
        self.among().map(RoutedEndpoints::set)
    }

    /// The same with the name under which they are listed.
    pub(super) const fn among(&self) -> Option<&RoutedEndpoints> {
        match self {
            Self::One(_) | Self::OneOfInterchangeable { .. } | Self::NoEndpoint(_) => None,
            Self::Named { among, .. }
            | Self::Any(among)
            | Self::Session(among, _)
            | Self::Tenant(among, _) => Some(among),
        }
    }

    /// The name of their resource, where they are those of a host outside the mesh.
    pub(super) fn standing(&self) -> Option<&Arc<str>> {
        self.among()?.standing()
    }

    /// Those that may take a call which the one of the client's choice cannot be connected for.
    pub(super) fn others(&self) -> Option<(SocketAddr, &RoutedEndpoints)> {
        match self {
            Self::OneOfInterchangeable { endpoint, others } => Some((endpoint.addr, others)),
            Self::One(_)
            | Self::Named { .. }
            | Self::Any(_)
            | Self::Session(..)
            | Self::Tenant(..)
            | Self::NoEndpoint(_) => None,
        }
    }

    /// Whether it is one endpoint of the client's choice, without any policy.
    pub(super) const fn is_one(&self) -> bool {
        matches!(self, Self::One(_) | Self::OneOfInterchangeable { .. })
    }

    /// How long an application without a proxy may take to accept a connection: it may have a
    /// full queue, or not be there, and where another one may be tried that is soon.
    pub(super) fn connect_timeout(&self) -> ConnectTimeout {
        let several = |among: &RoutedEndpoints| among.set.endpoints.len() > 1;
        let others = match self {
            Self::One(_) | Self::NoEndpoint(_) => false,
            Self::OneOfInterchangeable { others, .. } => several(others),
            Self::Named {
                among, fails_over, ..
            } => *fails_over && several(among),
            Self::Any(among) | Self::Session(among, _) | Self::Tenant(among, _) => several(among),
        };
        if others {
            ConnectTimeout::Replaceable
        } else {
            ConnectTimeout::Application
        }
    }

    /// Whether calls that are like this one are to go to the same endpoint.
    pub(super) const fn is_kept(&self) -> bool {
        matches!(
            self,
            Self::Named { .. } | Self::Session(..) | Self::Tenant(..)
        )
    }

    /// Whether endpoints that fail are ejected. Where the client chose among those of a Service,
    /// only a policy of that Service ejects them.
    pub(super) const fn ejects(&self) -> bool {
        !matches!(
            self,
            Self::Named {
                fails_over: false,
                ..
            }
        )
    }

    /// Why it leads to no endpoint.
    pub(super) fn no_endpoint(&self) -> Option<&Failure> {
        match self {
            Self::NoEndpoint(why) => Some(why),
            Self::One(_)
            | Self::OneOfInterchangeable { .. }
            | Self::Named { .. }
            | Self::Any(_)
            | Self::Session(..)
            | Self::Tenant(..) => None,
        }
    }
}

fn is_among(set: &EndpointSet, endpoint: &Arc<Endpoint>) -> bool {
    let mut all = set.endpoints.iter();
    all.any(|other| Arc::ptr_eq(other, endpoint))
}

/// That one, unless it was tried.
fn one(endpoint: &Arc<Endpoint>, draw: &Draw<'_>) -> Option<InFlight> {
    (!draw.tried.contains(&endpoint.addr)).then(|| endpoint.begin())
}

/// The endpoints as they are now; none where calls to them leave the mesh in another way than one
/// that was routed to these. Its host, and whether it is encrypted, were decided with them.
fn left_alike(routed: &EndpointSet, now: Arc<EndpointSet>) -> Arc<EndpointSet> {
    if now.external == routed.external {
        now
    } else {
        Arc::default()
    }
}

fn endpoints(snapshot: &Snapshot, name: &str) -> Arc<EndpointSet> {
    snapshot
        .endpoints_of(name)
        .map(Arc::clone)
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use policy::egress::ExternalTarget;
    use policy::origin::Origin;

    use super::*;
    use crate::endpoints::registry::{PodRef, Registry};

    /// Else its retry would leave in plaintext, or with the host that its caller wrote.
    #[test]
    fn routed_call_goes_to_no_endpoint_outside_by_retry() {
        let registry = Registry::default();
        let endpoint = registry.at(([10, 0, 0, 1], 80).into(), None, PodRef::default(), false);
        let set = |host: Option<&str>| {
            let external = host.map(|host| {
                Arc::new(ExternalTarget {
                    object: Origin::new("ExternalService", "shop", "pay"),
                    host: host.into(),
                    tls: None,
                    denied: false,
                    gateway: None,
                })
            });
            let set = EndpointSet::default().with(vec![Arc::clone(&endpoint)]);
            set.standing_for(external)
        };
        for (routed, now, left) in [
            (None, None, 1),
            (Some("a.example"), Some("a.example"), 1),
            (None, Some("a.example"), 0),
            (Some("a.example"), None, 0),
            (Some("a.example"), Some("b.example"), 0),
        ] {
            let found = left_alike(&set(routed), Arc::new(set(now)));
            assert_eq!(found.endpoints.len(), left, "{routed:?} {now:?}");
        }
    }

    #[test]
    fn connect_timeout_is_short_only_with_alternative_endpoint() {
        let registry = Registry::default();
        let endpoint =
            |at: u8| registry.at(([10, 0, 0, at], 80).into(), None, PodRef::default(), false);
        let among = |count: u8| {
            RoutedEndpoints::of_set(
                EndpointSet::default().with((1..=count).map(endpoint).collect()),
            )
        };
        let named = |fails_over| Choice::Named {
            endpoint: endpoint(1),
            among: among(2),
            fails_over,
        };
        for (case, choice, limit) in [
            (
                "a pod",
                Choice::One(endpoint(1)),
                ConnectTimeout::Application,
            ),
            (
                "the only one",
                Choice::Any(among(1)),
                ConnectTimeout::Application,
            ),
            (
                "one of two",
                Choice::Any(among(2)),
                ConnectTimeout::Replaceable,
            ),
            (
                "a session's",
                Choice::Session(among(2), 0),
                ConnectTimeout::Replaceable,
            ),
            (
                "the client's choice",
                named(false),
                ConnectTimeout::Application,
            ),
            ("its first choice", named(true), ConnectTimeout::Replaceable),
            (
                "one of those that are interchangeable",
                Choice::OneOfInterchangeable {
                    endpoint: endpoint(1),
                    others: among(2),
                },
                ConnectTimeout::Replaceable,
            ),
        ] {
            assert_eq!(choice.connect_timeout(), limit, "{case}");
        }
    }
}
