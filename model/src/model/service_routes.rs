//! Tables of Gateway API routes, by Service port and audience.
//!
//! Compiled as they are sent: which kind of route decides at a port, the order of rules, and what
//! is done with calls. A route of the Service's own namespace is for callers of every namespace;
//! one of another namespace is for callers of that one, and then stands in place of the others.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use policy::{
    name::ObjectRef,
    route::{Forward, Table},
};

use crate::world::ObjectKey;

/// The callers that a table is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Audience<'a> {
    /// Callers of every namespace without routes of its own.
    Everyone,
    /// Callers of one namespace: its own routes of another's Service replace those of the
    /// Service's namespace.
    Namespace(&'a str),
    /// Proxies that cannot carry out routes, and Gateways: splits alone.
    Direct,
}

/// What routes say of the ports of one Service.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ServiceRoutes(pub(crate) BTreeMap<u16, PortRoutes>);

/// What routes say of one port.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct PortRoutes {
    /// For callers of every namespace that has no table of its own.
    pub(crate) everyone: Option<Arc<RoutedTable>>,
    /// By namespace.
    pub(crate) consumers: BTreeMap<Arc<str>, Arc<RoutedTable>>,
}

/// What routes say to one audience of one port, or of several.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RoutedTable {
    pub(crate) table: Table<Forward>,
    /// Of each rule of the table which rule of its object it is; `None` where it stands for calls
    /// that fit none.
    pub(crate) places: Vec<Option<RulePlace>>,
    /// The routes that it was made from.
    pub(crate) origins: Vec<(ObjectRef, i64)>,
    /// Services and their ports that calls or copies of them go to.
    pub(crate) leads_to: BTreeSet<(ObjectKey, u16)>,
}

/// A rule within its object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RulePlace {
    /// Counted from 0.
    pub(crate) rule: u32,
    /// As its author named it.
    pub(crate) name: Option<Arc<str>>,
}

impl PortRoutes {
    /// All tables, each with the namespace that it is for; empty for everyone's.
    pub(crate) fn tables(&self) -> impl Iterator<Item = (&str, &RoutedTable)> {
        let everyone = self.everyone.iter().map(|table| ("", &**table));
        let consumers = self.consumers.iter();
        everyone.chain(consumers.map(|(namespace, table)| (&**namespace, &**table)))
    }

    pub(crate) fn tables_mut(&mut self) -> impl Iterator<Item = &mut Arc<RoutedTable>> {
        self.everyone.iter_mut().chain(self.consumers.values_mut())
    }

    /// The table for callers of a namespace, with the namespace that it is for.
    pub(crate) fn of(&self, audience: Audience<'_>) -> Option<(&str, &RoutedTable)> {
        let everyone = || self.everyone.as_deref().map(|table| ("", table));
        match audience {
            Audience::Direct => None,
            Audience::Everyone => everyone(),
            Audience::Namespace(namespace) => match self.consumers.get_key_value(namespace) {
                Some((namespace, table)) => Some((&**namespace, &**table)),
                None => everyone(),
            },
        }
    }
}
