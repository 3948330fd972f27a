//! Collects the hosts that have to be resolved: those that ExternalServices name, and those that
//! proxies have subscribed to and a wildcard of an ExternalService covers.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::compiled::Compiled;
use model::world::{ExternalFacts, PodFacts, Store, World};
use model::{Model, PodId};
use policy::egress::HostPattern;
use policy::name::ObjectRef;
use wire::names::{Name, parse};

use super::dns::Families;
use super::schedule::Wanted;
use crate::observe::acknowledged::ExternalNames;

/// Hosts that one object's wildcards cover and that are resolved at a time.
const MAX_NAMES_OF_OBJECT: usize = 1024;

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct Wants {
    objects: Option<Store<ExternalFacts>>,
    subscribed: Arc<ExternalNames>,
    /// Pods have subscribed that the World does not have yet.
    has_strangers: bool,
    pods: Store<PodFacts>,
    families: Families,
}

impl Wants {
    /// The hosts that are wanted, unless nothing has changed that decides it.
    pub(super) fn changed(
        &mut self,
        compiled: &Compiled,
        subscribed: &Arc<ExternalNames>,
    ) -> Option<Wanted> {
        let world = &compiled.world;
        let objects = &world.external_services;
        let other_pods = !objects.is_empty() && !Arc::ptr_eq(&self.pods, &world.pods);
        if other_pods {
            self.pods = Arc::clone(&world.pods);
            self.families = families(world);
        }
        let known = self.objects.as_ref();
        if known.is_some_and(|known| Arc::ptr_eq(known, objects))
            && Arc::ptr_eq(&self.subscribed, subscribed)
            && !(self.has_strangers && other_pods)
        {
            return None;
        }
        self.objects = Some(Arc::clone(objects));
        self.subscribed = Arc::clone(subscribed);
        let (wanted, has_strangers) = wanted(&compiled.model, world, subscribed);
        self.has_strangers = has_strangers;
        Some(wanted)
    }

    /// Those of the pods.
    pub(super) fn families(&self) -> Families {
        self.families
    }
}

/// A cluster without any IPv6 address needs none outside; one where pods have only such, no other.
fn families(world: &World) -> Families {
    let ips = || world.pods.values().flat_map(|pod| &pod.ips);
    let v6 = ips().any(|ip| ip.is_ipv6());
    Families {
        v4: !v6 || ips().any(|ip| ip.is_ipv4()),
        v6,
    }
}

/// And whether pods have subscribed that the World does not have.
fn wanted(model: &Model, world: &World, subscribed: &ExternalNames) -> (Wanted, bool) {
    let mut wanted = exact(world);
    let named: BTreeSet<Arc<str>> = wanted.keys().cloned().collect();
    let mut counts: BTreeMap<&ObjectRef, BTreeSet<&str>> = BTreeMap::new();
    let mut has_strangers = false;
    for (name, pods) in subscribed {
        let Some(Name::External { host, .. }) = parse(name) else {
            continue;
        };
        if named.contains(host) {
            continue;
        }
        let (accounts, strangers) = accounts(world, pods);
        has_strangers |= strangers;
        for account in accounts {
            for object in model.givers(account, name) {
                let hosts = counts.entry(object).or_default();
                if hosts.len() < MAX_NAMES_OF_OBJECT || hosts.contains(host) {
                    hosts.insert(host);
                    let namespaces = wanted.entry(host.into()).or_default();
                    namespaces.insert(Arc::clone(&object.namespace));
                }
            }
        }
    }
    (wanted, has_strangers)
}

/// The hosts that objects name.
fn exact(world: &World) -> Wanted {
    let mut wanted = Wanted::default();
    for (key, facts) in world.external_services.iter() {
        let external = facts.effective().into_iter();
        let hosts = external.flat_map(|external| &external.hosts);
        for host in hosts.filter_map(HostPattern::exact) {
            let namespaces = wanted.entry(Arc::clone(host)).or_default();
            namespaces.insert(Arc::clone(&key.namespace));
        }
    }
    wanted
}

/// Namespaces and names of the accounts that these pods have, and whether one is not known.
fn accounts<'a>(
    world: &'a World,
    pods: &'a BTreeSet<Arc<str>>,
) -> (BTreeSet<(&'a str, &'a str)>, bool) {
    let (mut accounts, mut has_strangers) = (BTreeSet::new(), false);
    for (namespace, name) in pods.iter().filter_map(|pod| pod.split_once('/')) {
        match world.pods.get(&PodId::new(namespace, name)) {
            Some(facts) => {
                accounts.insert((namespace, &*facts.service_account));
            }
            None => has_strangers = true,
        }
    }
    (accounts, has_strangers)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::cluster;

    /// The shop with an object for account `web`, which is that of pod `client`.
    fn shop() -> cluster::Cluster {
        let spec = json!({
            "hosts": ["*.pay.example", "db.example"],
            "ports": [{"port": 443, "protocol": "TLS"}],
            "sources": [{"kind": "ServiceAccount", "name": "web"}],
        });
        cluster::shop().with(cluster::external_service("pay", spec))
    }

    fn subscribed<'a>(names: impl IntoIterator<Item = (&'a str, &'a str)>) -> ExternalNames {
        let of = |(name, pod): (&str, &str)| (Arc::from(name), BTreeSet::from([Arc::from(pod)]));
        names.into_iter().map(of).collect()
    }

    #[test]
    fn subscribed_hosts_are_wanted_for_admitted_pods_alone() {
        let names = subscribed([
            ("external/a.pay.example:443", "shop/client"),
            ("external/b.pay.example:443", "shop/api-1"),
            ("external/c.pay.example:80", "shop/client"),
            ("external/d.example:443", "shop/client"),
            ("external/e.pay.example:443", "shop/unknown"),
        ]);
        let (model, _) = shop().compile();
        let (hosts, has_strangers) = wanted(&model, &shop().world(), &names);
        let hosts: Vec<&str> = hosts.keys().map(|host| &**host).collect();
        assert_eq!(hosts, ["a.pay.example", "db.example"]);
        assert!(has_strangers, "shop/unknown may come yet");
    }

    /// Else a pod could use up the names of an object that does not admit it.
    #[test]
    fn names_count_for_objects_that_admit_their_pods() {
        let spec = json!({
            "hosts": ["*.pay.example"],
            "ports": [{"port": 443, "protocol": "TLS"}],
            "sources": [{"kind": "ServiceAccount", "name": "api"}],
        });
        let shop = shop().with(cluster::external_service("a", spec));
        let all = 2 * MAX_NAMES_OF_OBJECT;
        let names: Vec<String> = (0..all)
            .map(|number| format!("external/h{number}.pay.example:443"))
            .collect();
        let others = names.iter().map(|name| (name.as_str(), "shop/api-1"));
        let own = ("external/z.pay.example:443", "shop/client");
        let names = subscribed(others.chain([own]));
        let (model, _) = shop.compile();
        let (hosts, _) = wanted(&model, &shop.world(), &names);
        assert!(hosts.contains_key("z.pay.example"));
        assert_eq!(hosts.len(), MAX_NAMES_OF_OBJECT + 2, "with the exact one");
    }

    #[test]
    fn hosts_of_one_object_are_bounded() {
        let all = MAX_NAMES_OF_OBJECT + 3;
        let names: Vec<String> = (0..all)
            .map(|number| format!("external/h{number}.pay.example:443"))
            .collect();
        let names = subscribed(names.iter().map(|name| (name.as_str(), "shop/client")));
        let (model, _) = shop().compile();
        let (hosts, _) = wanted(&model, &shop().world(), &names);
        assert_eq!(hosts.len(), MAX_NAMES_OF_OBJECT + 1, "and the exact one");
    }

    #[test]
    fn families_are_those_that_pods_have() {
        let of = |ips: &[&str]| {
            let pods = ips.iter().enumerate();
            let pods = pods.map(|(at, ip)| cluster::pod(&format!("p-{at}"), ip, "web"));
            let empty = cluster::Cluster::default();
            let Families { v4, v6 } = families(&pods.fold(empty, cluster::Cluster::with).world());
            (v4, v6)
        };
        assert_eq!(of(&[]), (true, false));
        assert_eq!(of(&["10.0.0.1"]), (true, false));
        assert_eq!(of(&["fd00::1"]), (false, true));
        assert_eq!(of(&["10.0.0.1", "fd00::1"]), (true, true));
    }
}
