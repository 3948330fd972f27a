//! Where calls to each Service port go, in types of `policy`: by routes, or else by splits.
//!
//! A split in force is kept by Service. Only this file derives its meaning for one port: for the
//! resources of proxies, for explanations, and for dry runs, so that these do not differ. What
//! routes say of a port is compiled as it is sent: see `service_routes`.
//!
//! The table of splits is not kept: a Model holds every Service of the cluster, and few of their
//! ports are queried. Only its encoded resource is kept.

use std::borrow::Cow;

use policy::{
    name::ServiceId,
    release::ReleaseSet,
    route::{Backend, Forward, Rule, Table},
};

use super::{Index, ServiceEntry, Split, published};
use crate::world::{self, ObjectKey};

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

/// The weight of one set of a release, by the candidate's.
fn in_force(set: &str, candidate: u8) -> u32 {
    match ReleaseSet::parse(set) {
        Some((_, ReleaseSet::Candidate)) => candidate.into(),
        Some((_, ReleaseSet::Stable)) | None => u32::from(100 - candidate),
    }
}

#[cfg(test)]
mod tests;
