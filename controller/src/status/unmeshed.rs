//! Finds policy objects that are not enforced because the pods they apply to have no proxy.
//!
//! That no proxy needs an object may be right: it was applied before its pods, or there was no
//! call yet. Where the pods run and none has a proxy, the object has no effect, as after a
//! namespace has left the mesh; its status must not report that it is in force. Where only some of
//! them have none, the status reports their number.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crds::smi::validation::DestinationKind;
use model::compiled::Compiled;
use model::problem::few;
use model::world::{ObjectKey, PodFacts, World};
use policy::name::{Kind, ObjectRef};
use policy::traffic::Target;

use super::conditions::Unneeded;

/// Pods of one service account, or behind one Service, that have not ended.
#[derive(Clone, Copy, Debug, Default)]
struct Pods {
    meshed: usize,
    bare: usize,
}

impl Pods {
    fn count(&mut self, facts: &PodFacts) {
        if facts.proxy.is_some() {
            self.meshed += 1;
        } else {
            self.bare += 1;
        }
    }

    fn all_are_bare(self) -> bool {
        self.bare > 0 && self.meshed == 0
    }

    /// What to say where no proxy has called what the pods of a namespace would call, and what
    /// does not happen then.
    fn uncalled(self, namespace: &str, (called, lost): (&str, &str)) -> Unneeded {
        if self.all_are_bare() {
            Unneeded::NotMeshed(format!(
                "no pod of namespace {namespace} has a proxy, and none elsewhere has called \
                 {called}, so {lost}: give its callers a proxy, or delete it"
            ))
        } else {
            Unneeded::Uncalled(format!("no pod with a proxy has called {called}"))
        }
    }

    /// How many of those of `name` are bare.
    fn bare_of(self, name: &str) -> String {
        format!(
            "{} of {} pods of {name}",
            self.bare,
            self.bare + self.meshed
        )
    }
}

/// Pods by namespace, each counted once, and by name of what they belong to.
type ByName = BTreeMap<Arc<str>, BTreeMap<Arc<str>, Pods>>;

/// Pods that may lack a proxy.
#[derive(Debug, Default)]
pub(super) struct Unmeshed {
    by_account: ByName,
    by_service: ByName,
}

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
                let called = format!("Service {root}");
                Some(whole.uncalled(namespace, (&called, "its calls are not split")))
            }
            Kind::HttpRoute | Kind::GrpcRoute | Kind::GatewayTcpRoute => {
                let routes = match object.kind {
                    Kind::HttpRoute => &world.http_routes,
                    Kind::GrpcRoute => &world.grpc_routes,
                    _ => &world.gateway_tcp_routes,
                };
                // At a Gateway its pods carry a route out, wherever they are.
                let mut parents = routes.get(&key)?.route.parents.iter();
                let called = "the Services that it is for";
                (parents.any(|parent| parent.service().is_some()))
                    .then(|| whole.uncalled(namespace, (called, "no call is routed by it")))
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

    /// What to say of an object that proxies carry out, where other pods that it leads to have
    /// none.
    pub(super) fn partly(&mut self, object: &ObjectRef, compiled: &Compiled) -> Option<String> {
        let world = &compiled.world;
        let key = ObjectKey {
            namespace: object.namespace.clone(),
            name: object.name.clone(),
        };
        match object.kind {
            Kind::TrafficTarget => {
                let destination = world.targets.get(&key)?.spec.destination.as_ref()?;
                if !matches!(destination.kind, DestinationKind::ServiceAccount) {
                    return None;
                }
                let accounts = self.accounts(&object.namespace, world);
                let pods = accounts.get(&destination.name).copied()?;
                (pods.bare > 0).then(|| {
                    format!(
                        "{} have no proxy, so they refuse no caller by it: give them one, or \
                         another service account",
                        pods.bare_of(&destination.name)
                    )
                })
            }
            Kind::TrafficSplit => {
                let backends = world.splits.get(&key)?.spec.backends.iter();
                let services = self.services(&object.namespace, compiled);
                let taking = backends.filter(|backend| backend.weight > 0);
                let bare = taking.filter_map(|backend| {
                    let name = &backend.service.id.as_ref()?.name;
                    let pods = services.get(name)?;
                    (pods.bare > 0).then(|| pods.bare_of(name))
                });
                let bare: Vec<String> = bare.collect();
                (!bare.is_empty()).then(|| {
                    format!(
                        "{} have no proxy, so calls go to them in plaintext and no rule protects \
                         them: give them one, or their Service the weight 0",
                        few(bare)
                    )
                })
            }
            _ => None,
        }
    }

    fn accounts(&mut self, namespace: &Arc<str>, world: &World) -> &BTreeMap<Arc<str>, Pods> {
        let known = self.by_account.entry(namespace.clone());
        known.or_insert_with(|| {
            let mut accounts: BTreeMap<Arc<str>, Pods> = BTreeMap::new();
            for (_, facts) in pods_in(namespace, world) {
                let pods = accounts.entry(facts.service_account.clone());
                pods.or_default().count(facts);
            }
            accounts
        })
    }

    fn services(&mut self, namespace: &Arc<str>, compiled: &Compiled) -> &BTreeMap<Arc<str>, Pods> {
        let known = self.by_service.entry(namespace.clone());
        known.or_insert_with(|| {
            let index = &compiled.model.index;
            let mut services: BTreeMap<Arc<str>, Pods> = BTreeMap::new();
            for (pod, facts) in pods_in(namespace, &compiled.world) {
                let entry = index.pods.get(pod).into_iter();
                let served = entry.flat_map(|entry| &entry.serves);
                // By each of its ports, and once.
                let names: BTreeSet<&Arc<str>> =
                    served.map(|(service, ..)| &service.name).collect();
                for name in names {
                    services.entry(name.clone()).or_default().count(facts);
                }
            }
            services
        })
    }
}

/// Pods of a namespace that run, or will.
fn pods_in<'a>(
    namespace: &'a Arc<str>,
    world: &'a World,
) -> impl Iterator<Item = (&'a ObjectKey, &'a Arc<PodFacts>)> {
    let first = ObjectKey {
        namespace: namespace.clone(),
        name: "".into(),
    };
    let here = world.pods.range(first..);
    let here = here.take_while(move |(key, _)| key.namespace == *namespace);
    here.filter(|(_, facts)| !facts.ended && !facts.terminating)
}
