//! Suggests the Service name that may have been meant where a policy names a missing one.
//!
//! A policy that names thousands of missing Services would have each compared with all that exist.
//! So the number of comparisons in a namespace is bounded while a World is compiled, and names
//! beyond it are reported without a suggestion.

use std::{collections::BTreeMap, sync::Arc};

use policy::name::ServiceId;

use crate::world::{ObjectKey, ServiceFacts, Store};

/// Names that are compared for one namespace: forty misspelt beside 500 Services. It takes some 20
/// ms where all have names of max length.
const MOST_COMPARED: usize = 20_000;

/// How many names were compared, by namespace.
#[derive(Debug, Default)]
pub(super) struct Hints {
    compared: BTreeMap<Arc<str>, usize>,
}

impl Hints {
    /// The end of a sentence about a Service that is not there.
    pub(super) fn hint(&mut self, missing: &ServiceId, services: &Store<ServiceFacts>) -> String {
        let namespace = &missing.namespace;
        let compared = self.compared.entry(Arc::clone(namespace)).or_default();
        let left = MOST_COMPARED.saturating_sub(*compared);
        let known = services
            .range(ObjectKey::new(namespace, "")..)
            .take_while(|(key, _)| key.namespace == *namespace)
            .take(left)
            .inspect(|_| *compared += 1);
        crds::near::hint(&missing.name, known.map(|(key, _)| &*key.name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn services(namespace: &str, number: usize) -> Store<ServiceFacts> {
        let service = |n: usize| {
            let key = ObjectKey::new(namespace, &format!("service-{n:04}"));
            (key, Arc::default())
        };
        Arc::new((0..number).map(service).collect())
    }

    #[test]
    fn names_of_a_namespace_are_compared_only_so_often() {
        const SERVICES: usize = 1000;
        let mut all = services("shop", SERVICES);
        Arc::make_mut(&mut all).extend((*services("bank", 1)).clone());
        let mut hints = Hints::default();
        let missing = |name: &str| ServiceId::new("shop", name);
        // None is near, so all are compared.
        for _ in 0..MOST_COMPARED / SERVICES {
            assert_eq!(hints.hint(&missing("another"), &all), "");
        }
        assert_eq!(hints.compared["shop"], MOST_COMPARED);
        let near = missing("service-000");
        assert_eq!(hints.hint(&near, &all), "");
        assert_eq!(hints.compared["shop"], MOST_COMPARED);
        assert_eq!(
            Hints::default().hint(&near, &all),
            "; you may mean service-0000",
            "the control"
        );
        // One namespace takes nothing from another.
        let other = ServiceId::new("bank", "service-000");
        assert_eq!(hints.hint(&other, &all), "; you may mean service-0000");
        assert_eq!(hints.compared["bank"], 1);
    }
}
