//! Indexes which Services receive calls made to others: by splits, routes, fallbacks and overrides.
//!
//! Each mirror with `ReadOnly` needs this, and a namespace may hold thousands of them beside
//! hundreds of thousands of names. So there is one index, and a lookup costs the same however many
//! policies there are.

use std::collections::HashMap;

use policy::{
    name::{Kind, ObjectRef, ServiceId},
    traffic::call::FallbackTo,
};

use crate::{
    model::{Split, service_routes::RoutedTable},
    world::{ObjectKey, PolicyFacts, object},
};

/// By Service what leads calls to it: of several objects the first.
#[derive(Debug, Default)]
pub(super) struct Receivers<'a> {
    /// Of splits and of routes.
    backends: HashMap<&'a ObjectKey, &'a ObjectRef>,
    fallbacks: HashMap<&'a ServiceId, &'a ObjectKey>,
    overrides: HashMap<&'a ServiceId, &'a ObjectKey>,
}

impl<'a> Receivers<'a> {
    pub(super) fn new(
        splits: impl Iterator<Item = &'a Split>,
        routes: impl Iterator<Item = &'a RoutedTable>,
        policies: impl Iterator<Item = (&'a ObjectKey, &'a PolicyFacts)>,
    ) -> Self {
        let mut receivers = Self::default();
        for split in splits {
            for (backend, _) in &split.backends {
                receivers.backends.entry(backend).or_insert(&split.origin);
            }
        }
        for table in routes {
            for (backend, _) in &table.leads_to {
                if let Some((origin, _)) = table.origins.first() {
                    receivers.backends.entry(backend).or_insert(origin);
                }
            }
        }
        for (key, facts) in policies {
            let fallback = facts.spec.sections.fallback.as_deref();
            if let Some(FallbackTo::Service(to)) = fallback.map(|fallback| &fallback.to) {
                receivers.fallbacks.entry(to).or_insert(key);
            }
            let offers = facts.spec.overrides.iter().flatten();
            for to in offers.flat_map(|one| &one.to) {
                receivers.overrides.entry(to).or_insert(key);
            }
        }
        receivers
    }

    /// What leads calls to a Service, as text that follows its name; `None` if nothing does.
    pub(super) fn why(&self, service: &ServiceId) -> Option<String> {
        let key = ObjectKey {
            namespace: service.namespace.clone(),
            name: service.name.clone(),
        };
        if let Some(object) = self.backends.get(&key) {
            return Some(format!("is a backend of {object}"));
        }
        if let Some(key) = self.fallbacks.get(service) {
            let policy = object(Kind::TrafficPolicy, key);
            return Some(format!("is the fallback of {policy}"));
        }
        let policy = object(Kind::TrafficPolicy, self.overrides.get(service)?);
        Some(format!("may be chosen by the overrides of {policy}"))
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    fn offers(number: usize) -> PolicyFacts {
        let mut facts = PolicyFacts::default();
        let to = |n| ServiceId::new("shop", format!("next-{n}"));
        facts.spec.overrides = Some(vec![crds::weft::validation::Override {
            to: (0..number).map(to).collect(),
            sources: Vec::new(),
            forwarders: Vec::new(),
            tokens: Vec::new(),
        }]);
        facts
    }

    #[test]
    fn policies_are_read_once_however_many_mirrors_ask() {
        const NAMES: usize = 64;
        let facts = offers(NAMES);
        let keys = (0..1000).map(|n| ObjectKey::new("shop", &format!("p{n:04}")));
        let keys: Vec<ObjectKey> = keys.collect();
        let read = Cell::new(0);
        let policies = keys.iter().map(|key| {
            read.set(read.get() + 1);
            (key, &facts)
        });
        let receivers = Receivers::new(std::iter::empty(), std::iter::empty(), policies);
        for n in 0..4000 {
            let why = receivers.why(&ServiceId::new("shop", format!("next-{n}")));
            let first = "may be chosen by the overrides of TrafficPolicy shop/p0000";
            assert_eq!(why.as_deref(), (n < NAMES).then_some(first));
        }
        assert_eq!(read.get(), keys.len());
        assert_eq!(receivers.overrides.len(), NAMES);
    }
}
