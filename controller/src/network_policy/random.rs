//! A property test: on random clusters the policies allow what a direct reading of the UDPRoutes
//! allows, and never more than foreign policies do.
//!
//! The direct reading goes packet by packet through targets, sources and routes as
//! docs/smi.md puts it. It shares nothing with the plan but the World's input.

use std::collections::BTreeMap;

use crds::labels::{ACCOUNT, account_hash};
use model::Defaults;
use policy::mode::AccessMode;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{
    evaluate::{Network, PluginPod},
    live::Lives,
    plan::plan,
    tests::{foreign, network, seen, udp_route},
};
use crate::testing::cluster::{self, Cluster};

mod scene;

use scene::{NAMESPACES, PORTS, Pod, Scene, Subject, Target, scene};

/// The scene as the API server holds it.
struct Stage {
    cluster: Cluster,
    defaults: Defaults,
    foreign: Lives,
    /// In the order of the scene.
    seen: Vec<PluginPod>,
}

impl Scene {
    fn stage(&self) -> Stage {
        let mut cluster = Cluster::default();
        for (name, mode) in NAMESPACES.iter().zip(self.modes) {
            let object = cluster::namespace(name);
            cluster = cluster.with(match mode {
                Some(mode) => cluster::annotate(object, "weft.dev/access", mode),
                None => object,
            });
        }
        let mut all = Vec::new();
        for (i, pod) in self.pods.iter().enumerate() {
            let object = pod.object(i);
            all.push(seen(&object));
            cluster = cluster.with(object);
        }
        for (i, target) in self.targets.iter().enumerate() {
            cluster = cluster.with(target.object(i));
        }
        // Of two with one name the later one stands, here and in the reading below.
        for binding in &self.bindings {
            let object = cluster::binding(binding.name, binding.schemes.clone());
            cluster = cluster.with(cluster::in_namespace(object, binding.namespace));
        }
        for route in &self.routes {
            let spec = route.ports.as_ref();
            let spec = spec.map_or(json!({}), |ports| json!({"matches": {"ports": ports}}));
            let object = udp_route(route.name, &spec);
            cluster = cluster.with(cluster::in_namespace(object, route.namespace));
        }
        let foreign = self
            .foreign
            .iter()
            .enumerate()
            .map(|(i, (namespace, spec))| {
                let (key, live) = foreign(&format!("f{i}"), namespace, spec.clone());
                (key, live.into())
            });
        Stage {
            cluster,
            defaults: Defaults {
                access: self.default.parse::<AccessMode>().unwrap(),
                access_pods_may_loosen: self.may_loosen,
                udp_network_policies: true,
                ..Defaults::default()
            },
            foreign: foreign.collect(),
            seen: all,
        }
    }

    // ---- the direct reading ----

    /// Whether the pods that carry the label of this account refuse UDP that no target
    /// allows, as far as they can.
    fn is_protected(&self, namespace: &str, account: &str) -> bool {
        let carriers = || {
            self.pods
                .iter()
                .filter(|p| p.carries(namespace, account) && !p.ended)
        };
        let mut members = carriers().filter(|pod| pod.meshed).peekable();
        let closed = if members.peek().is_some() {
            members.all(|pod| self.refuses(pod, namespace, account))
        } else {
            // Without pods of the mesh, any later pod counts.
            let mode = self.mode(namespace, None);
            mode == "deny"
                || mode == "auto"
                    && self.targets.iter().any(|t| {
                        t.closes()
                            && self.destinations(t).contains(&(account, None))
                            && t.namespace == namespace
                    })
        };
        // An account that no pod runs as and no target names has no policy.
        let runs = |pod: &Pod| !pod.ended && (pod.namespace, pod.account) == (namespace, account);
        let known = self.pods.iter().any(runs) && carriers().next().is_some()
            || self.targets.iter().any(|t| {
                t.namespace == namespace
                    && self
                        .destinations(t)
                        .iter()
                        .any(|(name, _)| *name == account)
            });
        closed && known
    }

    fn refuses(&self, pod: &Pod, namespace: &str, account: &str) -> bool {
        match self.mode(namespace, pod.mode) {
            "deny" => true,
            "auto" => self.targets.iter().any(|target| {
                target.closes() && self.is_destination(target, pod, namespace, account)
            }),
            _ => false,
        }
    }

    fn mode(&self, namespace: &str, pod: Option<&'static str>) -> &'static str {
        const TIGHTER: [&str; 4] = ["open", "audit", "auto", "deny"];
        let rank = |mode| TIGHTER.iter().position(|one| *one == mode);
        let at = NAMESPACES.iter().position(|one| *one == namespace).unwrap();
        let outer = self.modes[at].unwrap_or(self.default);
        match pod {
            Some(pod) if self.may_loosen || rank(pod) > rank(outer) => pod,
            _ => outer,
        }
    }

    /// Accounts that a target is about, each with the `app` that a pod must have.
    fn destinations(&self, target: &Target) -> Vec<(&str, Option<&str>)> {
        let to = &target.to;
        if to.name.is_empty() || !["", target.namespace].contains(&to.namespace) {
            return Vec::new();
        }
        if to.kind != "IdentityBinding" {
            return vec![(to.name, None)];
        }
        let Some(schemes) = self.schemes(target.namespace, to.name) else {
            return Vec::new();
        };
        let mut found: Vec<(&str, Option<&str>)> = Vec::new();
        found.extend(
            schemes["serviceAccount"]
                .as_str()
                .filter(|name| !name.is_empty())
                .map(|n| (n, None)),
        );
        for id in schemes["spiffeIdentities"].as_array().into_iter().flatten() {
            let id = id.as_str().unwrap().trim_start_matches("spiffe://");
            let here = format!("cluster.local/ns/{}/sa/", target.namespace);
            found.extend(id.strip_prefix(&here).map(|name| (name, None)));
        }
        if let Some(app) = schemes["podLabelSelector"]["matchLabels"]["app"].as_str() {
            let pods = self.pods.iter();
            let pods = pods.filter(|p| !p.ended && p.namespace == target.namespace && p.app == app);
            found.extend(pods.map(|pod| (pod.account, Some(app))));
        }
        found
    }

    fn is_destination(&self, target: &Target, pod: &Pod, namespace: &str, account: &str) -> bool {
        target.namespace == namespace
            && self
                .destinations(target)
                .iter()
                .any(|(name, app)| *name == account && app.is_none_or(|app| app == pod.app))
    }

    fn schemes(&self, namespace: &str, name: &str) -> Option<&Value> {
        let mut bindings = self.bindings.iter().rev();
        let found = bindings.find(|b| b.namespace == namespace && b.name == name)?;
        Some(&found.schemes)
    }

    /// Whether a target allows `from` to send to a port of a pod of this account.
    fn reads(&self, from: Option<&Pod>, to: &Pod, account: &str, port: u16) -> bool {
        self.targets.iter().any(|target| {
            let Some(rules) = &target.rules else {
                return false;
            };
            let bound = self.schemes(target.namespace, target.to.name);
            let kind = match target.to.kind {
                "ServiceAccount" => true,
                "IdentityBinding" => !bound.is_some_and(is_contradiction),
                _ => false,
            };
            let ports = rules.iter().any(|(kind, name)| {
                *kind == "UDPRoute" && self.has_port(target.namespace, name, port)
            });
            let within = target.limit.is_none_or(|limit| limit == i64::from(port));
            let from = || {
                target
                    .sources
                    .iter()
                    .any(|s| self.admits(target.namespace, s, from))
            };
            kind && within
                && ports
                && self.is_destination(target, to, to.namespace, account)
                && from()
        })
    }

    fn has_port(&self, namespace: &str, name: &str, port: u16) -> bool {
        let mut routes = self.routes.iter().rev();
        let route = routes.find(|r| r.namespace == namespace && r.name == name);
        route.is_some_and(|route| match route.ports.as_deref() {
            None | Some([]) => true,
            Some(ports) => ports.contains(&i64::from(port)),
        })
    }

    fn admits(&self, own: &str, source: &Subject, from: Option<&Pod>) -> bool {
        let namespace = if source.namespace.is_empty() {
            own
        } else {
            source.namespace
        };
        if namespace == "not one" {
            return false;
        }
        match (source.kind, source.name) {
            ("Group", "system:unauthenticated") => true,
            ("Group", "system:authenticated") => from.is_some_and(|from| from.label.is_some()),
            ("ServiceAccount", name) => from.is_some_and(|from| self.proves(from, namespace, name)),
            ("IdentityBinding", name) => {
                let (Some(schemes), Some(from)) = (self.schemes(namespace, name), from) else {
                    return false;
                };
                if is_contradiction(schemes) {
                    return false;
                }
                let account = schemes["serviceAccount"].as_str();
                let ids = schemes["spiffeIdentities"].as_array().into_iter().flatten();
                // A binding speaks of its own namespace only.
                let here = format!("cluster.local/ns/{namespace}/sa/");
                let mut ids = ids.filter_map(|id| {
                    let id = id.as_str().unwrap().trim_start_matches("spiffe://");
                    id.strip_prefix(&here)
                });
                let app = schemes["podLabelSelector"]["matchLabels"]["app"].as_str();
                account.is_some_and(|name| self.proves(from, namespace, name))
                    || ids.any(|name| self.proves(from, namespace, name))
                    || app == Some(from.app) && from.namespace == namespace && from.label.is_some()
            }
            _ => false,
        }
    }

    /// Whether a pod can prove to run as this account: it carries the label, and no pod does so
    /// without right.
    fn proves(&self, from: &Pod, namespace: &str, account: &str) -> bool {
        let pretended = self
            .pods
            .iter()
            .any(|p| !p.ended && p.carries(namespace, account) && p.account != account);
        from.carries(namespace, account) && !pretended
    }
}

fn is_contradiction(schemes: &Value) -> bool {
    !schemes["serviceAccount"].is_null() && !schemes["podLabelSelector"].is_null()
}

impl Pod {
    fn carries(&self, namespace: &str, account: &str) -> bool {
        self.namespace == namespace && self.label == Some(account)
    }

    fn object(&self, number: usize) -> Value {
        let name = format!("p{number}");
        let ip = format!("10.0.0.{}", number + 1);
        let make = if self.meshed {
            cluster::pod
        } else {
            cluster::plain_pod
        };
        let mut labels = json!({"app": self.app});
        if let Some(label) = self.label {
            labels[ACCOUNT] = account_hash(self.namespace, label).into();
        }
        let mut object = cluster::set(make(&name, &ip, self.account), "/metadata/labels", labels);
        if let Some(mode) = self.mode {
            object = cluster::annotate(object, "weft.dev/access", mode);
        }
        if self.ended {
            object = cluster::set(object, "/status/phase", json!("Succeeded"));
        }
        cluster::in_namespace(object, self.namespace)
    }
}

impl Target {
    /// Whether it closes its destination for UDP in mode auto.
    fn closes(&self) -> bool {
        self.rules.as_ref().is_none_or(|rules| {
            rules.is_empty() || rules.iter().any(|(kind, _)| *kind == "UDPRoute")
        })
    }

    fn object(&self, number: usize) -> Value {
        let subject = |subject: &Subject| {
            let mut object = json!({"kind": subject.kind, "name": subject.name});
            if !subject.namespace.is_empty() {
                object["namespace"] = subject.namespace.into();
            }
            object
        };
        let rules = self.rules.as_ref().map_or(json!("unreadable"), |rules| {
            let rule = |(kind, name): &(&str, &str)| json!({"kind": kind, "name": name});
            rules.iter().map(rule).collect()
        });
        let object = cluster::target(&format!("t{number}"), "", &[], rules);
        let sources: Vec<Value> = self.sources.iter().map(subject).collect();
        let mut to = subject(&self.to);
        if let Some(limit) = self.limit {
            to["port"] = limit.into();
        }
        let object = cluster::set(object, "/spec/sources", json!(sources));
        let object = cluster::set(object, "/spec/destination", to);
        cluster::in_namespace(object, self.namespace)
    }
}

fn check(scene: &Scene) -> Result<Reached, TestCaseError> {
    let stage = scene.stage();
    let plan = plan(
        &stage.cluster.compile_with(&stage.defaults).0,
        &stage.foreign,
    );
    let both = network(&plan, &stage.foreign, &stage.cluster);
    let theirs = Network {
        policies: both.policies[plan.policies.len()..].to_vec(),
        namespaces: both.namespaces.clone(),
    };
    let mut reached = Reached::default();
    let running = || (0..scene.pods.len()).filter(|i| !scene.pods[*i].ended);
    for to in running() {
        let (pod, seen) = (&scene.pods[to], &stage.seen[to]);
        let is_foreign = theirs.isolating(seen).next().is_some();
        // The policies go by account: one foreign pod keeps them off all.
        let touched = |i: usize| {
            let label = pod
                .label
                .is_some_and(|label| scene.pods[i].carries(pod.namespace, label));
            label && theirs.isolating(&stage.seen[i]).next().is_some()
        };
        let protected = pod
            .label
            .is_some_and(|label| scene.is_protected(pod.namespace, label))
            && !running().any(touched);
        let senders = running().map(|i| (Some(&scene.pods[i]), Some(&stage.seen[i])));
        for (from, from_seen) in senders.chain([(None, None)]) {
            for port in PORTS {
                for protocol in ["TCP", "SCTP"] {
                    let now = both.allows(from_seen, seen, protocol, port);
                    let before = theirs.allows(from_seen, seen, protocol, port);
                    prop_assert_eq!(now, before, "{} {} {:?}", protocol, port, pod);
                }
                let now = both.allows(from_seen, seen, "UDP", port);
                let before = theirs.allows(from_seen, seen, "UDP", port);
                let expected = match pod.label {
                    _ if is_foreign => before,
                    Some(label) if protected => scene.reads(from, pod, label, port),
                    _ => true,
                };
                prop_assert_eq!(
                    now,
                    expected,
                    "UDP {} from {:?} to {:?}, foreign {}, protected {}\n{:#?}",
                    port,
                    from,
                    pod,
                    is_foreign,
                    protected,
                    plan.policies
                );
                *reached.0.entry((is_foreign, protected, now)).or_default() += 1;
            }
        }
    }
    Ok(reached)
}

/// How often a packet met which case: foreign, protected, allowed.
#[derive(Default)]
struct Reached(BTreeMap<(bool, bool, bool), usize>);

#[test]
fn network_policies_allow_exactly_udp_routes_without_widening_foreign() {
    let config = ProptestConfig {
        cases: 10_000,
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let mut runner = proptest::test_runner::TestRunner::new(config);
    let total = std::cell::RefCell::new(Reached::default());
    let outcome = runner.run(&scene(), |scene| {
        for (case, times) in check(&scene)?.0 {
            *total.borrow_mut().0.entry(case).or_default() += times;
        }
        Ok(())
    });
    outcome.unwrap_or_else(|error| panic!("{error}"));
    let total = total.into_inner().0;
    println!("(foreign, protected, allowed): packets {total:?}");
    // What is never met is not tested.
    for case in [
        (true, false, false),
        (true, false, true),
        (false, true, false),
        (false, true, true),
        (false, false, true),
    ] {
        assert!(
            total.get(&case).is_some_and(|times| *times > 1000),
            "{case:?}: {total:?}"
        );
    }
}
