//! Builds the table of routes of each Service port, in types of `policy`: from routes of the
//! Gateway API, or else from splits.
//!
//! A split in force is kept by Service. Only this file derives its meaning for one port: for the
//! resources of proxies, for explanations, and for dry runs, so that these do not differ. What
//! routes say of a port is compiled as it is sent: see `service_routes`.
//!
//! The table of splits is not kept: a Model holds every Service of the cluster, and few of their
//! ports are queried. Only its encoded resource is kept.

use std::borrow::Cow;

use policy::{
    name::{ObjectRef, ServiceId},
    release::ReleaseSet,
    route::{Backend, Forward, Rule, Table},
};

use super::service_routes::{Audience, RoutedTable};
use super::{Index, ServiceEntry, Split, published};
use crate::world::{self, ObjectKey};

impl Index {
    /// Where calls of an audience to a port of a Service go.
    pub(crate) fn routes_at<'a>(
        &self,
        entry: &'a ServiceEntry,
        port: u16,
        audience: Audience<'_>,
    ) -> Cow<'a, Table<Forward>> {
        if let Some(routed) = entry.routed(port, audience) {
            return Cow::Borrowed(&routed.table);
        }
        let rules = self.split_rules(entry, port);
        Cow::Owned(Table {
            rules: rules.map(|rule| rule.map(Forward::split)).collect(),
            otherwise: Forward::Root,
        })
    }

    /// The splits of that table with all backends of the port, as proxies are sent them and
    /// make the same table of them. A backend of weight 0 is among them even where no other
    /// one has a weight: proxies hold its endpoints before it takes calls.
    pub(crate) fn split_rules(
        &self,
        entry: &ServiceEntry,
        port: u16,
    ) -> impl Iterator<Item = Rule<Vec<Backend>>> {
        entry.splits.iter().map(move |split| Rule {
            origin: world::named(&split.origin),
            when: split.when.clone(),
            then: self.backends_at(entry, split, port),
        })
    }

    /// A backend without the port has no share of what is sent there.
    fn backends_at(&self, entry: &ServiceEntry, split: &Split, port: u16) -> Vec<Backend> {
        let has_port = |backend: &ObjectKey| {
            self.backend(backend)
                .is_some_and(|entry| entry.ports.contains_key(&port))
        };
        let release = split.release.as_ref().zip(entry.sets.as_ref());
        let candidate = release.map(|(share, sets)| sets.weight(share.limit, port));
        let backends = split
            .backends
            .iter()
            .filter(|(backend, _)| has_port(backend));
        let backends = backends.map(|(backend, weight)| {
            let service = ServiceId::new(backend.namespace.clone(), backend.name.clone());
            let weight = candidate.map_or(*weight, |candidate| in_force(&backend.name, candidate));
            Backend::new(
                service,
                port,
                weight,
                published::endpoints_name(backend, port),
            )
        });
        backends.collect()
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

    /// The tables for callers of every namespace, with their ports. What routes of another
    /// namespace do with calls of that one is its own matter: it may call anything itself, so
    /// nothing about the Service follows from it.
    pub(crate) fn routed_for_everyone(&self) -> impl Iterator<Item = (u16, &RoutedTable)> {
        let ports = self.routes.iter().flat_map(|routes| &routes.0);
        ports.filter_map(|(port, at)| Some((*port, at.everyone.as_deref()?)))
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

    /// Whether splits or routes lead calls of the Service to another one.
    #[must_use]
    pub fn leads_to(&self, other: &ObjectKey) -> bool {
        let mut split = self.splits.iter().flat_map(|split| &split.backends);
        let mut routed = self.all_routed().flat_map(|(_, table)| &table.leads_to);
        split.any(|(backend, _)| backend == other) || routed.any(|(backend, _)| backend == other)
    }

    /// The weights by which calls of the Service are shared out: of each split, then of each rule
    /// of its routes that are for everyone.
    #[must_use]
    pub fn weights(&self) -> Vec<Vec<(ObjectKey, u32)>> {
        let splits = self.splits.iter().map(|split| split.backends.clone());
        let tables = self.routed_for_everyone();
        let rules = tables.flat_map(|(_, table)| &table.table.rules);
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

/// The weight of one set of a release, by the candidate's.
fn in_force(set: &str, candidate: u8) -> u32 {
    match ReleaseSet::parse(set) {
        Some((_, ReleaseSet::Candidate)) => candidate.into(),
        Some((_, ReleaseSet::Stable)) | None => u32::from(100 - candidate),
    }
}

#[cfg(test)]
mod tests;
