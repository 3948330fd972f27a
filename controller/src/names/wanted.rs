//! Collects which hosts have to be resolved: those that objects name, and those that proxies have
//! subscribed to and a wildcard covers that admits them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use model::compiled::Compiled;
use model::world::{ExternalFacts, ObjectKey, PodFacts, Store, World};
use model::{Model, PodId};
use wire::names::{Name, parse};

use super::dns::Families;
use crate::observe::acknowledged::ExternalNames;

/// Hosts that one object's wildcards cover and that are resolved at a time.
const MAX_NAMES_OF_OBJECT: usize = 1024;

/// What was read last.
#[derive(Debug, Default)]
pub(super) struct Wants {
    objects: Option<Store<ExternalFacts>>,
    subscribed: Arc<ExternalNames>,
    pods: Store<PodFacts>,
    families: Families,
}

impl Wants {
    /// The hosts that are wanted, unless nothing has changed that decides it.
    pub(super) fn changed(
        &mut self,
        compiled: &Compiled,
        subscribed: &Arc<ExternalNames>,
    ) -> Option<BTreeSet<Arc<str>>> {
        let world = &compiled.world;
        let objects = &world.external_services;
        if !objects.is_empty() && !Arc::ptr_eq(&self.pods, &world.pods) {
            self.pods = Arc::clone(&world.pods);
            self.families = families(world);
        }
        let known = self.objects.as_ref();
        if known.is_some_and(|known| Arc::ptr_eq(known, objects))
            && Arc::ptr_eq(&self.subscribed, subscribed)
        {
            return None;
        }
        self.objects = Some(Arc::clone(objects));
        self.subscribed = Arc::clone(subscribed);
        Some(wanted(&compiled.model, world, subscribed))
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

fn wanted(model: &Model, world: &World, subscribed: &ExternalNames) -> BTreeSet<Arc<str>> {
    let mut hosts = world.external_hosts();
    let mut counts: BTreeMap<&ObjectKey, usize> = BTreeMap::new();
    for (name, pods) in subscribed {
        let Some(Name::External { host, .. }) = parse(name) else {
            continue;
        };
        let is_admitted = |pod: &Arc<str>| {
            let pod = pod.split_once('/');
            let pod = pod.map(|(namespace, name)| PodId::new(namespace, name));
            pod.is_some_and(|pod| model.queried_host(&pod, name).is_some())
        };
        if hosts.contains(host) || !pods.iter().any(is_admitted) {
            continue;
        }
        let covers = |facts: &ExternalFacts| {
            let external = facts.effective();
            let mut patterns = external.into_iter().flat_map(|external| &external.hosts);
            patterns.any(|one| one.matches(host))
        };
        let mut objects = world.external_services.iter();
        let free = objects.find(|(key, facts)| {
            let count = counts.get(key).copied().unwrap_or_default();
            count < MAX_NAMES_OF_OBJECT && covers(facts)
        });
        if let Some((key, _)) = free {
            *counts.entry(key).or_default() += 1;
            hosts.insert(host.into());
        }
    }
    hosts
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
            ("external/e.pay.example:443", "shop/nobody"),
        ]);
        let (model, _) = shop().compile();
        let wanted = wanted(&model, &shop().world(), &names);
        let expected = ["a.pay.example", "db.example"].map(Arc::from);
        assert_eq!(wanted, BTreeSet::from(expected));
    }

    #[test]
    fn hosts_of_one_object_are_bounded() {
        let all = MAX_NAMES_OF_OBJECT + 3;
        let names: Vec<String> = (0..all)
            .map(|number| format!("external/h{number}.pay.example:443"))
            .collect();
        let names = subscribed(names.iter().map(|name| (name.as_str(), "shop/client")));
        let (model, _) = shop().compile();
        let wanted = wanted(&model, &shop().world(), &names);
        assert_eq!(wanted.len(), MAX_NAMES_OF_OBJECT + 1, "and the exact one");
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
