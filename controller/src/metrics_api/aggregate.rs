//! Sums what proxies reported, for the objects of a query.
//!
//! The graph folds the same reports, and cannot serve here: it knows each pod by its topmost owner
//! only, and its numbers are those of one side of each call. A query here is about pods, nodes or
//! any owner between, and has the sums of both sides.
//!
//! Invariants
//! - Every direction and every side has sums of its own; nothing that was
//!   measured at both ends is counted twice.
//! - Objects are compared by kind, namespace and name, never by name alone.
//! - An object without traffic has sums of zero, not none.

use std::collections::BTreeMap;

use model::world::ObjectKey;
use policy::latency::Histogram;

use super::query::Side;
use crate::inventory::kind::MetricsKind;
use crate::inventory::{Inventory, ObjectId};
use crate::observe::reports::{Edge, Reporter, Reports};

/// Sums of one item.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct ItemTotals {
    /// Calls that went well.
    pub success: u64,
    /// Calls that did not.
    pub failure: u64,
    /// How long HTTP requests took.
    pub latency: Histogram,
}

impl ItemTotals {
    fn add(&mut self, edge: &Edge) {
        let (success, failure) = tries(edge);
        self.success = self.success.saturating_add(success);
        self.failure = self.failure.saturating_add(failure);
        self.latency.add(edge.latency.iter().map(u64::from));
    }
}

/// What was sent over an edge and went well, and what was not, each try for itself, so that no
/// second try hides what the first one met. Tries whose callers left are in neither. Where tries
/// are not counted apart every call is one: at the pod that was called, and by proxies that are
/// older than attempts.
fn tries(edge: &Edge) -> (u64, u64) {
    let Some(attempts) = edge.attempts else {
        return (edge.success, edge.failure);
    };
    let detail = edge.detail.as_deref();
    let cancelled = detail.map_or(0, |detail| detail.cancelled);
    let failed = detail.map_or(0, |detail| detail.attempt_failures);
    let completed = u64::from(attempts).saturating_sub(cancelled);
    (completed.saturating_sub(failed), failed)
}

/// Which way calls go, seen from the object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Direction {
    /// Calls that it receives.
    From,
    /// Calls that it makes.
    To,
}

impl Direction {
    /// As the API writes it.
    pub(crate) const fn as_str(self) -> &'static str {
        match self {
            Self::From => "from",
            Self::To => "to",
        }
    }
}

/// The other end of an edge.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum EdgeEnd {
    /// An object.
    Object(MetricsKind, ObjectKey),
    /// A pod that is not known any more, of which a namespace is.
    Namespace(String),
    /// Outside the mesh, or not distinguished.
    External,
}

/// What distinguishes the edges of an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct EdgeOf {
    /// Direction.
    pub direction: Direction,
    /// The side that measured it.
    pub side: Side,
    /// Other end.
    pub end: EdgeEnd,
    /// Backend, for a TrafficSplit; else empty.
    pub backend: String,
}

/// What an object receives, by object. For TrafficSplits by backend too, else
/// that is empty.
pub(crate) type Totals = BTreeMap<(ObjectKey, String), ItemTotals>;

/// Which pod belongs to which object.
#[derive(Clone, Copy, Debug)]
pub(crate) struct View<'a> {
    /// Which objects there are.
    pub inventory: &'a Inventory,
    /// What was counted.
    pub reports: &'a Reports,
    /// Intervals of the window.
    pub intervals: (u64, u64),
}

impl View<'_> {
    /// What the objects of a kind receive, measured on `side`. One without
    /// traffic is not in it.
    pub(crate) fn totals(&self, kind: MetricsKind, side: Side) -> Totals {
        let mut totals = Totals::new();
        self.each(|reporter, edge| {
            if edge.key.client != (side == Side::Client) {
                return;
            }
            let mut backend = String::new();
            let receiver = match kind {
                MetricsKind::Service => edge.key.service.clone(),
                MetricsKind::TrafficSplit => {
                    backend = backend_of(edge);
                    edge.key.split.clone()
                }
                _ if side == Side::Server => self.member(kind, reporter),
                _ => edge
                    .key
                    .pod
                    .as_ref()
                    .and_then(|pod| self.inventory.of(kind, pod, "")),
            };
            if let Some(receiver) = receiver {
                totals.entry((receiver, backend)).or_default().add(edge);
            }
        });
        totals
    }

    /// The edges of one object. Calls that it makes are measured where it calls,
    /// those that it receives where it serves, unless `side` says otherwise. Other
    /// ends are shown as `ends`.
    pub(crate) fn edges(
        &self,
        of: &ObjectId,
        side: Option<Side>,
        ends: MetricsKind,
    ) -> BTreeMap<EdgeOf, ItemTotals> {
        let (kind, object) = of;
        let mut edges: BTreeMap<EdgeOf, ItemTotals> = BTreeMap::new();
        let mut add = |direction, side, end, backend, edge: &Edge| {
            let key = EdgeOf {
                direction,
                side,
                end,
                backend,
            };
            edges.entry(key).or_default().add(edge);
        };
        self.each(|reporter, edge| {
            let key = &edge.key;
            if !kind.has_pods() {
                let (named, backend) = match kind {
                    MetricsKind::Service => (&key.service, String::new()),
                    _ => (&key.split, backend_of(edge)),
                };
                if key.client && named.as_ref() == Some(object) {
                    let end = self.end(ends, &reporter.pod, &reporter.uid);
                    add(Direction::From, Side::Client, end, backend, edge);
                }
                return;
            }
            let measured = if key.client {
                Side::Client
            } else {
                Side::Server
            };
            let (calling, serving) = if key.client {
                let serving = key
                    .pod
                    .as_ref()
                    .and_then(|pod| self.inventory.of(*kind, pod, ""));
                (self.member(*kind, reporter), serving)
            } else {
                let caller = self.inventory.pod_by_uid(&key.caller);
                let calling = match (caller, &key.account) {
                    (Some(pod), _) => self.inventory.of(*kind, pod, &key.caller),
                    (None, Some(account)) if *kind == MetricsKind::Namespace => {
                        Some(ObjectKey::new("", &account.namespace))
                    }
                    _ => None,
                };
                (calling, self.member(*kind, reporter))
            };
            let looks = |usual: Side| side.unwrap_or(usual) == measured;
            if calling.as_ref() == Some(object) && looks(Side::Client) {
                let end = if key.client {
                    self.called(ends, edge)
                } else {
                    self.end(ends, &reporter.pod, &reporter.uid)
                };
                add(Direction::To, measured, end, String::new(), edge);
            }
            if serving.as_ref() == Some(object) && looks(Side::Server) {
                let end = if key.client {
                    self.end(ends, &reporter.pod, &reporter.uid)
                } else {
                    self.caller(ends, edge)
                };
                add(Direction::From, measured, end, String::new(), edge);
            }
        });
        edges
    }

    fn each(&self, see: impl FnMut(&Reporter, &Edge)) {
        self.reports.each(self.intervals.0, self.intervals.1, see);
    }

    fn member(&self, kind: MetricsKind, reporter: &Reporter) -> Option<ObjectKey> {
        self.inventory.of(kind, &reporter.pod, &reporter.uid)
    }

    fn end(&self, kind: MetricsKind, pod: &ObjectKey, uid: &str) -> EdgeEnd {
        if let Some(key) = self.inventory.of(kind, pod, uid) {
            return EdgeEnd::Object(kind, key);
        }
        let (kind, key) = self.inventory.topmost(pod, uid);
        EdgeEnd::Object(kind, key)
    }

    /// What was called, of a client's edge.
    fn called(&self, kind: MetricsKind, edge: &Edge) -> EdgeEnd {
        let key = &edge.key;
        match (&key.pod, &key.service) {
            (Some(pod), _) => self.end(kind, pod, ""),
            // No endpoint answered, so the Service is all there is.
            (None, Some(service)) if kind == MetricsKind::Namespace => EdgeEnd::Object(
                MetricsKind::Namespace,
                ObjectKey::new("", &service.namespace),
            ),
            (None, Some(service)) => EdgeEnd::Object(MetricsKind::Service, service.clone()),
            (None, None) => EdgeEnd::External,
        }
    }

    /// The caller, of a server's edge.
    fn caller(&self, kind: MetricsKind, edge: &Edge) -> EdgeEnd {
        let key = &edge.key;
        match (self.inventory.pod_by_uid(&key.caller), &key.account) {
            (Some(pod), _) => self.end(kind, pod, &key.caller),
            (None, Some(account)) if kind == MetricsKind::Namespace => EdgeEnd::Object(
                MetricsKind::Namespace,
                ObjectKey::new("", &account.namespace),
            ),
            (None, Some(account)) => EdgeEnd::Namespace(account.namespace.to_string()),
            (None, None) => EdgeEnd::External,
        }
    }
}

fn backend_of(edge: &Edge) -> String {
    let backend = edge.key.backend.as_ref();
    backend
        .map(|backend| backend.name.to_string())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests;
