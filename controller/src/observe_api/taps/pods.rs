//! Which pods an end of requests is.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::end::TapEnd;
use crate::aggregated::refusal::Refusal;
use crate::inventory::Inventory;
use crate::inventory::kind::MetricsKind;
use crate::model::{Model, PodId};
use crate::world::ObjectKey;

/// Fits no pod: a filter without names would fit all of them. As long as a uid, so that what fits
/// into a query does not reveal whether there is a pod.
const NO_POD: &str = "------------------------------------";

/// See the module header.
pub(super) struct Pods<'a> {
    model: &'a Model,
    inventory: &'a Inventory,
}

impl<'a> Pods<'a> {
    pub(super) const fn new(model: &'a Model, inventory: &'a Inventory) -> Self {
        Self { model, inventory }
    }

    /// Uid and name of those with a proxy.
    pub(super) fn of(&self, end: &TapEnd) -> Vec<(Arc<str>, PodId)> {
        let pods = self.model.meshed_pods();
        let uid = |pod: &PodId| {
            let facts = self.model.index.world.pods.get(pod)?;
            let uid = Arc::clone(&facts.uid);
            self.is_of(end, pod, &uid).then_some(uid)
        };
        pods.filter_map(|pod| Some((uid(pod)?, pod.clone())))
            .collect()
    }

    /// The same, of a filter of a tap in namespace `here`: what proxies compare with. None at all
    /// is refused, unless that would reveal what there is in another namespace.
    pub(super) fn named(
        &self,
        (name, end): (&str, &TapEnd),
        here: &str,
        as_text: fn(&(Arc<str>, PodId)) -> String,
    ) -> Result<Vec<String>, Refusal> {
        let pods = self.of(end);
        if !pods.is_empty() {
            return Ok(pods.iter().map(as_text).collect());
        }
        if *end.namespace() == *here {
            let why = format!("parameter {name}: no pod with a proxy is of {end}");
            return Err(Refusal::bad(why));
        }
        Ok(vec![match (name, end) {
            // Of these the name itself is what proxies compare with.
            ("to", TapEnd::Object(MetricsKind::Pod, pod)) => pod.to_string(),
            _ => NO_POD.to_owned(),
        }])
    }

    /// The names that requests to these pods have by their routes.
    pub(super) fn routes(&self, pods: &[(Arc<str>, PodId)]) -> BTreeSet<Arc<str>> {
        let index = &self.model.index;
        let groups = pods.iter().filter_map(|(_, pod)| {
            let facts = index.world.pods.get(pod)?;
            let entry = index.pods.get(pod)?;
            Some(index.route_groups(pod, facts, &entry.serves))
        });
        // Pods of one workload have the same.
        let groups: BTreeSet<BTreeSet<ObjectKey>> = groups.collect();
        let mut routes = BTreeSet::new();
        for groups in &groups {
            routes.extend(index.names.names(groups).all().cloned());
        }
        routes
    }

    /// Whether a Service that is called is one of the own namespace's. Of another one that must not
    /// be revealed.
    ///
    /// # Errors
    /// When it is not, with one that may have been meant.
    pub(super) fn is_there(&self, service: &ObjectKey, here: &str) -> Result<(), Refusal> {
        let services = &self.model.index.services;
        if *service.namespace != *here || services.contains_key(service) {
            return Ok(());
        }
        let known = services.keys().filter(|known| *known.namespace == *here);
        let meant = crds::near::hint(&service.name, known.map(|known| &*known.name));
        let why = format!("parameter to: there is no Service {service}{meant}");
        Err(Refusal::bad(why))
    }

    fn is_of(&self, end: &TapEnd, pod: &PodId, uid: &str) -> bool {
        match end {
            TapEnd::Account(account) => {
                let facts = self.model.index.world.pods.get(pod);
                *pod.namespace == *account.namespace
                    && facts.is_some_and(|facts| *facts.service_account == *account.name)
            }
            // Endpoints that are written by hand may name the address of any pod.
            TapEnd::Object(MetricsKind::Service, service) => {
                let entry = self.model.index.pods.get(pod);
                *pod.namespace == *service.namespace
                    && entry.is_some_and(|entry| entry.serves.iter().any(|(of, ..)| of == service))
            }
            TapEnd::Object(kind, key) => self.inventory.of(*kind, pod, uid).as_ref() == Some(key),
        }
    }

    /// Uid of an object; empty where it is not known.
    pub(super) fn uid_of(&self, kind: MetricsKind, key: &ObjectKey) -> String {
        let thing = self.inventory.get(kind, key);
        thing.map(|thing| thing.uid.to_string()).unwrap_or_default()
    }
}
