//! What reports lack about pods: their owners, their accounts, and the Services that lead to them.

use std::sync::Arc;

use crate::inventory::Inventory;
use crate::model::{Model, PodEntry};
use crate::observe::reports::Reporter;
use crate::world::ObjectKey;

/// Which workload owns which pod.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Owners<'a> {
    /// Owners of pods.
    pub inventory: &'a Inventory,
    /// Which ports of pods Services lead to; `None` until there is one.
    pub model: Option<&'a Model>,
}

impl Owners<'_> {
    /// The account by whose certificate a pod reports. Where a replica does not send it, the one
    /// that the pod has: it keeps it as long as its uid.
    pub(super) fn account(&self, reporter: &Reporter) -> Option<ObjectKey> {
        let account = reporter.account.clone();
        account.or_else(|| self.account_of(&reporter.pod, &reporter.uid))
    }

    /// The account of the pod that has this name and uid now.
    pub(super) fn account_of(&self, pod: &ObjectKey, uid: &str) -> Option<ObjectKey> {
        let facts = self.model?.index.world.pods.get(pod)?;
        (*facts.uid == *uid).then(|| ObjectKey {
            namespace: Arc::clone(&pod.namespace),
            name: Arc::clone(&facts.service_account),
        })
    }

    /// The port of a pod that a Service's port leads to; 0 if that is not known.
    pub(super) fn own_port(&self, pod: &ObjectKey, service: &ObjectKey, port: u16) -> u16 {
        let led_to_by = self.entry(pod).into_iter().flat_map(PodEntry::led_to_by);
        let mut found = led_to_by.filter(|(at, there, _)| at == service && *there == port);
        found.next().map_or(0, |(_, _, own)| *own)
    }

    /// The Service port behind which a pod's own port stands, if there is one only.
    pub(super) fn only_service(&self, pod: &ObjectKey, own_port: u16) -> Option<(ObjectKey, u16)> {
        let serves = self.entry(pod).into_iter().flat_map(|entry| &entry.serves);
        let mut serves = serves.filter(|(_, _, own)| *own == own_port);
        let (service, port, _) = serves.next()?;
        serves.next().is_none().then(|| (service.clone(), *port))
    }

    fn entry(&self, pod: &ObjectKey) -> Option<&PodEntry> {
        let index = self.model.map(|model| &model.index)?;
        index.pods.get(pod).map(|entry| &**entry)
    }
}
