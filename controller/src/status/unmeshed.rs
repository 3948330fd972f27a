//! Objects that nothing carries out, because the pods that would have no proxy.
//!
//! That no proxy needs an object may be well: it was applied before its pods, or nobody has
//! called yet. Where the pods run, and none has a proxy, it is as if the object were not there,
//! as after a namespace has left the mesh; and its author must not read that it is in force.

use std::collections::BTreeMap;
use std::sync::Arc;

use crds::smi::judge::DestinationKind;
use policy::name::{Kind, ObjectRef};
use policy::traffic::Target;

use super::conditions::Unneeded;
use crate::world::{ObjectKey, World};

/// Pods of one service account that have not ended.
#[derive(Clone, Copy, Debug, Default)]
struct Pods {
    meshed: usize,
    bare: usize,
}

impl Pods {
    fn all_are_bare(self) -> bool {
        self.bare > 0 && self.meshed == 0
    }
}

/// Pods by namespace and service account, each namespace counted once.
#[derive(Debug, Default)]
pub(super) struct Unmeshed(BTreeMap<Arc<str>, BTreeMap<Arc<str>, Pods>>);

impl Unmeshed {
    /// What to say of an object that no proxy needs; `None` where that says enough.
    pub(super) fn of(&mut self, object: &ObjectRef, world: &World) -> Option<Unneeded> {
        let key = ObjectKey {
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        };
        let accounts = self.accounts(&object.namespace, world);
        let mut whole = Pods::default();
        for pods in accounts.values() {
            whole.meshed += pods.meshed;
            whole.bare += pods.bare;
        }
        let namespace = &object.namespace;
        match object.kind {
            Kind::TrafficTarget => {
                let destination = world.targets.get(&key)?.spec.destination.as_ref()?;
                let named = match destination.kind {
                    DestinationKind::IdentityBinding => whole,
                    DestinationKind::ServiceAccount | DestinationKind::Unknown => {
                        accounts.get(&destination.name).copied()?
                    }
                };
                named.all_are_bare().then(|| {
                    Unneeded::NotMeshed(format!(
                        "no pod of {} has a proxy, so nothing is allowed or refused by it: give \
                         the pods one, or delete it",
                        destination.name
                    ))
                })
            }
            Kind::TrafficSplit => {
                let root = &world.splits.get(&key)?.spec.root.written;
                Some(if whole.all_are_bare() {
                    Unneeded::NotMeshed(format!(
                        "no pod of namespace {namespace} has a proxy, and none elsewhere has \
                         called Service {root}, so its calls are not split: give its callers a \
                         proxy, or delete it"
                    ))
                } else {
                    Unneeded::Uncalled(format!("no pod with a proxy has called Service {root}"))
                })
            }
            Kind::TrafficPolicy => {
                let target = world.policies.get(&key)?.spec.target.as_ref()?;
                let is_here = !matches!(target, Target::Mesh);
                (is_here && whole.all_are_bare()).then(|| {
                    Unneeded::NotMeshed(format!(
                        "no pod of namespace {namespace} has a proxy, and none elsewhere has \
                         called what it is about, so nothing is done by it: give its pods and \
                         callers a proxy, or delete it"
                    ))
                })
            }
            _ => None,
        }
    }

    fn accounts(&mut self, namespace: &Arc<str>, world: &World) -> &BTreeMap<Arc<str>, Pods> {
        self.0.entry(namespace.clone()).or_insert_with(|| {
            let first = ObjectKey {
                namespace: namespace.clone(),
                name: "".into(),
            };
            let here = world.pods.range(first..);
            let here = here.take_while(|(key, _)| key.namespace == *namespace);
            let mut accounts: BTreeMap<Arc<str>, Pods> = BTreeMap::new();
            for (_, facts) in here.filter(|(_, facts)| !facts.ended && !facts.terminating) {
                let pods = accounts.entry(facts.service_account.clone()).or_default();
                if facts.proxy.is_some() {
                    pods.meshed += 1;
                } else {
                    pods.bare += 1;
                }
            }
            accounts
        })
    }
}
