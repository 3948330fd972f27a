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

use super::{Index, ServiceEntry, routes::Audience};
use crate::world::ObjectKey;

/// What routes say of the ports of one Service.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct ServiceRoutes(pub(crate) BTreeMap<u16, PortRoutes>);

/// What routes say of one port.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct PortRoutes {
    /// For callers of every namespace that has no table of its own.
    pub(crate) everyone: Option<RoutedTable>,
    /// By namespace.
    pub(crate) consumers: BTreeMap<Arc<str>, RoutedTable>,
}

/// What routes say of one port to one audience.
#[derive(Debug, PartialEq)]
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
        let everyone = self.everyone.iter().map(|table| ("", table));
        let consumers = self.consumers.iter();
        everyone.chain(consumers.map(|(namespace, table)| (&**namespace, table)))
    }

    pub(crate) fn tables_mut(&mut self) -> impl Iterator<Item = &mut RoutedTable> {
        self.everyone.iter_mut().chain(self.consumers.values_mut())
    }

    /// The table for callers of a namespace, with the namespace that it is for.
    pub(crate) fn of(&self, audience: Audience<'_>) -> Option<(&str, &RoutedTable)> {
        let everyone = || self.everyone.as_ref().map(|table| ("", table));
        match audience {
            Audience::Direct => None,
            Audience::Everyone => everyone(),
            Audience::Namespace(namespace) => match self.consumers.get_key_value(namespace) {
                Some((namespace, table)) => Some((&**namespace, table)),
                None => everyone(),
            },
        }
    }
}

impl ServiceEntry {
    /// The table of routes that decides about calls of an audience to a port; `None` where none
    /// does, and splits do.
    pub(crate) fn routed(&self, port: u16, audience: Audience<'_>) -> Option<&RoutedTable> {
        let at = self.routes.as_ref()?.0.get(&port)?;
        at.of(audience).map(|(_, table)| table)
    }

    /// All tables of routes, with their ports.
    pub(crate) fn all_routed(&self) -> impl Iterator<Item = (u16, &RoutedTable)> {
        let ports = self.routes.iter().flat_map(|routes| &routes.0);
        ports.flat_map(|(port, at)| at.tables().map(move |(_, table)| (*port, table)))
    }

    /// Services and their ports that routes lead callers of an audience to, from any port.
    pub(crate) fn routed_to(
        &self,
        audience: Audience<'_>,
    ) -> impl Iterator<Item = &(ObjectKey, u16)> {
        let ports = self.routes.iter().flat_map(|routes| routes.0.values());
        let tables = ports.filter_map(move |at| at.of(audience));
        tables.flat_map(|(_, table)| &table.leads_to)
    }
}

impl ServiceEntry {
    /// Whether splits or routes lead calls of the Service to another one.
    #[must_use]
    pub fn leads_to(&self, other: &ObjectKey) -> bool {
        let mut split = self.splits.iter().flat_map(|split| &split.backends);
        let mut routed = self.all_routed().flat_map(|(_, table)| &table.leads_to);
        split.any(|(backend, _)| backend == other) || routed.any(|(backend, _)| backend == other)
    }

    /// The weights by which calls of the Service are shared out: of each split, then of each rule
    /// of its routes.
    #[must_use]
    pub fn weights(&self) -> Vec<Vec<(ObjectKey, u32)>> {
        let splits = self.splits.iter().map(|split| split.backends.clone());
        let rules = self.all_routed().flat_map(|(_, table)| &table.table.rules);
        let routed = rules.filter_map(|rule| match &rule.then {
            Forward::Split(backends) => Some(backends),
            Forward::Root | Forward::Refuse(_) | Forward::Redirect(_) => None,
        });
        let routed = routed.map(|backends| {
            let weights = backends.iter();
            weights
                .map(|backend| (ObjectKey::from(&backend.service), backend.weight))
                .collect()
        });
        splits.chain(routed).collect()
    }
}

impl Index {
    /// The objects that callers of a namespace get from a Service port: its routes or else its
    /// splits, and the policies of where calls may go.
    pub(crate) fn is_sent_to_callers(
        &self,
        object: &ObjectRef,
        (service, port): (&ObjectKey, u16),
        namespace: &str,
    ) -> bool {
        let Some(entry) = self.services.get(service) else {
            return false;
        };
        let routed = entry.routed(port, Audience::Namespace(namespace));
        let is_origin = |origins: &[(ObjectRef, i64)]| {
            let mut origins = origins.iter();
            origins.any(|(origin, _)| origin == object)
        };
        let by_rules = match routed {
            Some(table) => is_origin(&table.origins),
            None => entry.splits.iter().any(|split| is_origin(&split.origins)),
        };
        by_rules
            || self
                .policies_for_callers(&(service.clone(), port), Audience::Namespace(namespace))
                .into_iter()
                .filter_map(|at| self.policies.ports.get(at))
                .any(|port| {
                    let mut needs = port.caller_needs().keys();
                    needs.any(|(origin, _)| origin == object)
                })
    }
}
