//! Finds the pods whose proxies a tap queries, by the object that its query names as caller or as
//! called side.

use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use model::world::ObjectKey;
use model::{Model, PodId};

use crate::aggregated::refusal::Refusal;
use crate::inventory::Inventory;
use crate::inventory::kind::MetricsKind;

/// Fits no pod: a filter without names would fit all of them. As long as a uid, so that what fits
/// into a query does not reveal whether there is a pod.
const NO_POD: &str = "------------------------------------";

/// One end of requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TapEnd {
    /// The pods of an object, which may be a Service, a Namespace or a Pod itself.
    Object(MetricsKind, ObjectKey),
    /// The pods of a service account.
    Account(ObjectKey),
}

impl TapEnd {
    /// `Kind/name` in this namespace, or `Kind/namespace/name`.
    pub(super) fn parse(text: &str, here: &str) -> Option<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let (kind, namespace, name) = match *parts {
            ["Namespace", name] => ("Namespace", "", name),
            [kind, name] => (kind, here, name),
            [kind, namespace, name] if kind != "Namespace" => (kind, namespace, name),
            _ => return None,
        };
        if name.is_empty() {
            return None;
        }
        let key = ObjectKey::new(namespace, name);
        if kind == "ServiceAccount" {
            return Some(Self::Account(key));
        }
        let known = |known: &MetricsKind| {
            known.name() == kind && !matches!(known, MetricsKind::Node | MetricsKind::TrafficSplit)
        };
        Some(Self::Object(MetricsKind::all().find(known)?, key))
    }

    /// The namespace of its pods.
    pub(super) fn namespace(&self) -> &str {
        match self {
            Self::Object(MetricsKind::Namespace, key) => &key.name,
            Self::Object(_, key) | Self::Account(key) => &key.namespace,
        }
    }

    /// The object that Events about it are about.
    pub(super) fn object(&self) -> (MetricsKind, ObjectKey) {
        match self {
            Self::Object(kind, key) => (*kind, key.clone()),
            Self::Account(key) => (MetricsKind::Namespace, ObjectKey::new("", &key.namespace)),
        }
    }
}

impl fmt::Display for TapEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Object(MetricsKind::Namespace, key) => write!(f, "Namespace {}", key.name),
            Self::Object(kind, key) => write!(f, "{} {key}", kind.name()),
            Self::Account(key) => write!(f, "ServiceAccount {key}"),
        }
    }
}

/// Finds the pods of an end.
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
