//! Decides which listeners of a Gateway can be served, and which routes attach to them.
//!
//! Two listeners that no connection could tell apart are both refused: none of them wins. A route
//! attaches by its references and by what a listener allows, whatever becomes of that listener
//! otherwise.

mod hosts;

use std::collections::BTreeMap;
use std::sync::Arc;

use policy::egress::HostPattern;
use policy::gateway::{ListenerProtocol, target_port};
use policy::well_known::PROXY_PORTS;

pub use self::hosts::HostSet;
use crate::gateway::{FromNamespaces, GatewaySpec, Listener};
use crate::parents::ParentRef;
use crate::route::{Route, RouteKind};

/// What holds of one listener among the others of its Gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerState {
    /// Kinds of routes that may attach.
    pub supported_kinds: Vec<RouteKind>,
    /// Kinds that it allows and that cannot attach, with the place of the first.
    pub unsupported_kinds: Option<UnsupportedKinds>,
    /// Why it cannot be served; `None` where it can. Its certificates are not looked at here.
    pub refused: Option<Refusal>,
}

/// Kinds that a listener names and that cannot attach to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnsupportedKinds {
    /// As they are written.
    pub kinds: Vec<Arc<str>>,
}

/// Why a listener cannot be served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// One of the API.
    pub reason: ListenerReason,
    /// Path of the field, such as `spec.listeners[0].protocol`.
    pub path: String,
    /// What is wrong, and the way out.
    pub message: String,
}

/// Why a listener is not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ListenerReason {
    /// Another one has its port and hostname.
    HostnameConflict,
    /// Another one has its port, and another protocol.
    ProtocolConflict,
    /// Its port cannot be served.
    PortUnavailable,
    /// Its protocol is not served.
    UnsupportedProtocol,
    /// It says what Weft does not carry out.
    UnsupportedValue,
}

/// To which listeners a route is attached by one of its references.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attached {
    /// Place of the listener in the Gateway.
    pub listener: usize,
    /// The hosts that the route is for there, each once; `None` among them: every host. Listeners that
    /// take nothing away share them.
    pub hostnames: Arc<[Option<HostPattern>]>,
}

/// Why a reference attaches a route to no listener, the furthest that one came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Detached {
    /// No listener has the name and port that are meant.
    NoMatchingParent,
    /// None of those allows the route, by its kind or namespace.
    NotAllowedByListeners,
    /// None of those is for a host of the route.
    NoMatchingListenerHostname,
}

impl ListenerReason {
    /// As in a status.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::HostnameConflict => "HostnameConflict",
            Self::ProtocolConflict => "ProtocolConflict",
            Self::PortUnavailable => "PortUnavailable",
            Self::UnsupportedProtocol => "UnsupportedProtocol",
            Self::UnsupportedValue => "UnsupportedValue",
        }
    }

    /// Whether other listeners stand in the way.
    #[must_use]
    pub const fn is_conflict(self) -> bool {
        matches!(self, Self::HostnameConflict | Self::ProtocolConflict)
    }
}

/// The kinds of routes that a protocol can have.
#[must_use]
pub const fn kinds_of(protocol: ListenerProtocol) -> &'static [RouteKind] {
    match protocol {
        ListenerProtocol::Http | ListenerProtocol::Https => &[RouteKind::Http, RouteKind::Grpc],
        ListenerProtocol::Tls => &[RouteKind::Tls],
        ListenerProtocol::Tcp => &[RouteKind::Tcp],
    }
}

/// What holds of each listener, in their order.
#[must_use]
pub fn states(gateway: &GatewaySpec) -> Vec<ListenerState> {
    let all = &gateway.listeners;
    let states = all.iter().enumerate().map(|(nth, listener)| {
        let (supported_kinds, unsupported_kinds) = kinds(listener);
        ListenerState {
            supported_kinds,
            unsupported_kinds,
            refused: refused(nth, listener, all),
        }
    });
    states.collect()
}

/// None attaches to a listener that says what Weft does not carry out.
fn kinds(listener: &Listener) -> (Vec<RouteKind>, Option<UnsupportedKinds>) {
    if listener.broken.is_some() {
        return (Vec::new(), None);
    }
    let can = listener.served.map_or(&[][..], kinds_of);
    let written = &listener.allowed.kinds;
    if written.is_empty() {
        return (can.to_vec(), None);
    }
    let mut supported = Vec::new();
    let mut unsupported = Vec::new();
    for one in written {
        match one.route().filter(|kind| can.contains(kind)) {
            Some(kind) if supported.contains(&kind) => {}
            Some(kind) => supported.push(kind),
            None => unsupported.push(Arc::clone(&one.kind)),
        }
    }
    let unsupported = (!unsupported.is_empty()).then_some(UnsupportedKinds { kinds: unsupported });
    (supported, unsupported)
}

fn refused(nth: usize, listener: &Listener, all: &[Listener]) -> Option<Refusal> {
    let here = |field: &str| format!("spec.listeners[{nth}].{field}");
    let refusal = |reason, path, message| {
        Some(Refusal {
            reason,
            path,
            message,
        })
    };
    if let Some((reason, message)) = conflict(nth, listener, all) {
        let field = match reason {
            ListenerReason::HostnameConflict => "hostname",
            _ => "protocol",
        };
        return refusal(reason, here(field), message);
    }
    if let Some(broken) = &listener.broken {
        let reason = ListenerReason::UnsupportedValue;
        return refusal(reason, broken.path.clone(), broken.message.clone());
    }
    if listener.served.is_none() {
        let message = format!(
            "is {}, but Weft serves HTTP, HTTPS, TLS and TCP only",
            listener.protocol
        );
        return refusal(
            ListenerReason::UnsupportedProtocol,
            here("protocol"),
            message,
        );
    }
    let taken = unavailable(listener.port, all)?;
    refusal(ListenerReason::PortUnavailable, here("port"), taken)
}

/// Another listener that no connection could be distinguished by. Those whose protocol is not
/// served open no port.
fn conflict(nth: usize, listener: &Listener, all: &[Listener]) -> Option<(ListenerReason, String)> {
    let own = listener.served?;
    let others = all.iter().enumerate().filter(|(place, other)| {
        *place != nth && other.port == listener.port && other.served.is_some()
    });
    let mut same_hosts = None;
    for (_, other) in others {
        let theirs = other.served?;
        // Connections of both begin with the name of the host, by which they are distinguished.
        let by_name = own.reads_server_name() && theirs.reads_server_name();
        let same_host = own == ListenerProtocol::Tcp || other.hostname == listener.hostname;
        if own != theirs && (!by_name || same_host) {
            let message = format!(
                "listener {} has port {} and protocol {theirs}, so connections could not be \
                 distinguished; give one of them another port",
                other.name, other.port
            );
            return Some((ListenerReason::ProtocolConflict, message));
        }
        if own == theirs && same_host {
            same_hosts = same_hosts.or(Some(other));
        }
    }
    let other = same_hosts?;
    let message = format!(
        "listener {} has the same port and hostname; give one of them another hostname or port",
        other.name
    );
    Some((ListenerReason::HostnameConflict, message))
}

/// Why pods cannot listen for a port.
fn unavailable(port: u16, all: &[Listener]) -> Option<String> {
    let Some(target) = target_port(port) else {
        return Some("is no port; name one from 1 to 65535".to_owned());
    };
    if PROXY_PORTS.contains(&target) {
        return Some(format!(
            "is {port}, which pods of Weft use themselves; name another one"
        ));
    }
    let is_same_target = |other: &&Listener| {
        other.served.is_some() && other.port < port && target_port(other.port) == Some(target)
    };
    let other = all.iter().find(is_same_target)?;
    Some(format!(
        "is {port}, on which pods listen for port {} of listener {}; name another one",
        other.port, other.name
    ))
}

/// The listeners to which a route of a namespace with these labels is attached by one of its
/// references, which is to this Gateway.
///
/// # Errors
/// Why there is none.
pub fn attach(
    route: &Route,
    parent: &ParentRef,
    (gateway, states): (&GatewaySpec, &[ListenerState]),
    labels: &BTreeMap<Arc<str>, Arc<str>>,
) -> Result<Vec<Attached>, Detached> {
    let mut why = Detached::NoMatchingParent;
    let mut attached = Vec::new();
    let own = hosts_of(route);
    for (nth, (listener, state)) in gateway.listeners.iter().zip(states).enumerate() {
        let is_meant = parent.port.is_none_or(|port| port == listener.port)
            && parent
                .section_name
                .as_ref()
                .is_none_or(|name| *name == listener.name);
        if !is_meant {
            continue;
        }
        let from = &listener.allowed.from;
        let is_allowed = state.supported_kinds.contains(&route.kind)
            && match from {
                FromNamespaces::All => true,
                FromNamespaces::None => false,
                FromNamespaces::Same => route.namespace == gateway.namespace,
                FromNamespaces::Selector(selector) => selector.selects(labels),
            };
        if !is_allowed {
            why = why.max(Detached::NotAllowedByListeners);
            continue;
        }
        let hostnames = common_hosts(&own, listener.hostname.as_ref());
        if hostnames.is_empty() {
            why = why.max(Detached::NoMatchingListenerHostname);
            continue;
        }
        attached.push(Attached {
            listener: nth,
            hostnames,
        });
    }
    if attached.is_empty() {
        Err(why)
    } else {
        Ok(attached)
    }
}

/// The hosts that a route is for, each once. What is no hostname is for no host.
fn hosts_of(route: &Route) -> Arc<[Option<HostPattern>]> {
    if route.kind == RouteKind::Tcp || route.hostnames.is_empty() {
        return vec![None].into();
    }
    let mut own = Vec::new();
    for raw in &route.hostnames {
        let one = raw.parse::<HostPattern>().ok();
        if one.is_some() && !own.contains(&one) {
            own.push(one);
        }
    }
    own.into()
}

/// The hosts that both a route, which is for these, and a listener are for; empty where they have
/// none in common.
fn common_hosts(
    own: &Arc<[Option<HostPattern>]>,
    listener: Option<&HostPattern>,
) -> Arc<[Option<HostPattern>]> {
    let Some(listener) = listener else {
        return Arc::clone(own);
    };
    let mut common = Vec::new();
    for one in own.iter() {
        let both = match one {
            None => Some(listener.clone()),
            Some(one) => intersection(listener, one),
        };
        if both.is_some() && !common.contains(&both) {
            common.push(both);
        }
    }
    if *common == **own {
        Arc::clone(own)
    } else {
        common.into()
    }
}

/// The hosts that two patterns are both for.
#[must_use]
pub fn intersection(one: &HostPattern, other: &HostPattern) -> Option<HostPattern> {
    let is_within = |inner: &HostPattern, outer: &HostPattern| match (inner, outer) {
        (HostPattern::Exact(name), outer) => outer.matches(name),
        (HostPattern::Below(inner_suffix), HostPattern::Below(outer_suffix)) => {
            inner_suffix == outer_suffix || outer.matches(inner_suffix)
        }
        (HostPattern::Below(_), HostPattern::Exact(_)) => false,
    };
    if is_within(one, other) {
        Some(one.clone())
    } else if is_within(other, one) {
        Some(other.clone())
    } else {
        None
    }
}

#[cfg(test)]
mod tests;
