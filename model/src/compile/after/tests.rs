//! Long histories of a small cluster, compiled step by step and from nothing.
//!
//! Claims: calls-65, observe-138, smi-15

use std::collections::{BTreeMap, BTreeSet};

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};
use wire::capability::Capabilities;

use super::*;
use crate::fixtures as cluster;
use crate::model::Model;
use crate::model::compiled::Compiled;
use crate::model::published::EncodedResource;
use crate::world::collect::Collector;

mod costs;
mod external;
mod gateway;
mod gateways;
mod readiness;
mod releases;
mod serving_pods;
mod shared;

const SERVICES: usize = 5;
const PODS: usize = 8;
/// The Service that is in another namespace than the pods that its slices name.
const FOREIGN: usize = 4;
/// The subscriptions of one pod's proxy: a Service, a pod, and now and then an outer address, an
/// unknown one and a host outside. Few, so that most changes do not touch them.
fn destinations(pod: &ObjectKey) -> BTreeSet<String> {
    let n: usize = pod.name.trim_start_matches("pod-").parse().unwrap();
    let mut names = BTreeSet::from([
        format!("destination/10.96.0.{}:80", n % SERVICES),
        format!("destination/10.0.0.{}:8080", (n + 3) % PODS),
    ]);
    match n {
        0 => names.insert("destination/192.0.2.1:80".to_owned()),
        1 => names.insert("destination/192.0.2.9:80".to_owned()),
        2 | 3 => names.insert("external/x.wild.example:443".to_owned()),
        _ => false,
    };
    names
}

fn pick<'a>(dice: &mut StdRng, from: &[&'a str]) -> &'a str {
    from[dice.random_range(0..from.len())]
}

fn service_name(n: usize) -> String {
    format!("svc-{n}")
}

fn pod(dice: &mut StdRng) -> Value {
    let n = dice.random_range(0..PODS);
    let name = format!("pod-{n}");
    let account = format!("account-{}", n % 3);
    // Now and then an address passes from pod to pod.
    let ip = if dice.random_ratio(1, 6) {
        dice.random_range(0..PODS)
    } else {
        n
    };
    let ip = format!("10.0.0.{ip}");
    if dice.random_ratio(1, 6) {
        return gateways::pod(dice, &name, &ip);
    }
    let mut pod = if dice.random_ratio(3, 4) {
        cluster::pod(&name, &ip, &account)
    } else {
        cluster::plain_pod(&name, &ip, &account)
    };
    pod["spec"]["nodeName"] = json!(pick(dice, &["node-a", "node-b"]));
    pod["metadata"]["labels"] = json!({"tier": pick(dice, &["one", "two"])});
    if dice.random_ratio(1, 2) {
        let set = format!("set-{}", n % 2);
        pod["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "apps/v1", "kind": "StatefulSet", "name": set, "uid": "s",
            "controller": true,
        }]);
    }
    if dice.random_ratio(1, 6) {
        pod["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:01:00Z");
    }
    if dice.random() {
        let states = [("True", 5), ("True", 6), ("False", 7)];
        let (status, minute) = states[dice.random_range(0..states.len())];
        pod = readiness::ready(pod, status, &format!("2026-01-01T00:0{minute}:00Z"));
    }
    match dice.random_range(0..9) {
        0 => cluster::annotate(pod, "weft.dev/opaque-ports", "8080"),
        3 => cluster::annotate(
            pod,
            "weft.dev/log-level",
            pick(dice, &["debug", "off", "?"]),
        ),
        1 => cluster::annotate(pod, "weft.dev/access", pick(dice, &["deny", "open", "?"])),
        2 => cluster::set(pod, "/status/phase", json!("Succeeded")),
        4 => cluster::annotate(pod, "weft.dev/egress", pick(dice, &["deny", "allow", "?"])),
        _ => pod,
    }
}

fn service(dice: &mut StdRng) -> Value {
    let n = dice.random_range(0..SERVICES);
    let extra = ("more", 81);
    let ports: &[(&str, u16)] = if dice.random() {
        &[("http", 80)]
    } else {
        &[("http", 80), extra]
    };
    let mut service = cluster::service(&service_name(n), &format!("10.96.0.{n}"), ports);
    match dice.random_range(0..6) {
        0 => {
            let known = ["http", "grpc", "tcp", "https"];
            service["spec"]["ports"][0]["appProtocol"] = json!(pick(dice, &known));
        }
        1 => service["spec"]["internalTrafficPolicy"] = json!("Local"),
        2 => service["spec"]["externalIPs"] = json!(["192.0.2.1"]),
        4 => service["spec"]["trafficDistribution"] = json!("PreferClose"),
        3 if n == 0 || n == FOREIGN => {
            service["spec"]["clusterIP"] = json!("None");
            service["spec"]["clusterIPs"] = json!(["None"]);
        }
        _ => {}
    }
    if dice.random_ratio(1, 4) {
        let groups = pick(dice, &["group-0", "group-1,group-2", "gone", "", "?"]);
        service = cluster::annotate(service, "weft.dev/routes", groups);
    }
    if dice.random_ratio(1, 3) {
        service["spec"].as_object_mut().unwrap().remove("selector");
    }
    let second = dice.random_range(0..3);
    at_home(n, cluster::created(service, second))
}

fn slice(dice: &mut StdRng) -> Value {
    let n = dice.random_range(0..SERVICES);
    let name = service_name(n);
    let some = dice.random_ratio(1, 5);
    let mut endpoints: Vec<Value> = Vec::new();
    for pod in (0..PODS).filter(|pod| (pod + n).is_multiple_of(2)) {
        if some && dice.random() {
            continue;
        }
        let mut endpoint = cluster::endpoint(&format!("pod-{pod}"), &format!("10.0.0.{pod}"));
        endpoint["conditions"]["ready"] = json!(dice.random_ratio(2, 3));
        if dice.random_ratio(1, 10) {
            endpoint["targetRef"] = Value::Null;
        }
        endpoints.push(endpoint);
    }
    let part = dice.random_range(0..2);
    let slice = cluster::slice(
        &format!("{name}-{part}"),
        &name,
        &[("http", 8080)],
        &endpoints,
    );
    let kept = n.is_multiple_of(2);
    at_home(n, if kept { cluster::kept(slice) } else { slice })
}

/// In the namespace where this Service is.
fn at_home(service: usize, object: Value) -> Value {
    if service == FOREIGN {
        cluster::in_namespace(object, "other")
    } else {
        object
    }
}

fn policy(dice: &mut StdRng) -> Value {
    let n = dice.random_range(0..3);
    let generation = dice.random_range(1..4);
    let mut object = match dice.random_range(0..8) {
        5 | 6 => gateway::route(dice),
        7 => gateway::grant_or_enforced_policy(dice),
        4 => {
            let subset = dice.random_range(-1..1);
            let target = json!({"kind": "Service", "name": service_name(n)});
            let spec = json!({"targetRef": target, "balance": {"subset": subset}});
            cluster::traffic_policy(&format!("policy-{n}"), spec)
        }
        0 => {
            let rules = json!([{"kind": "HTTPRouteGroup", "name": format!("group-{n}")}]);
            cluster::target(
                &format!("target-{n}"),
                &format!("account-{n}"),
                &["web"],
                rules,
            )
        }
        1 => {
            let path = pick(dice, &["/a", "/b", "["]);
            cluster::group(
                &format!("group-{n}"),
                json!([{"name": "m", "methods": ["GET"], "pathRegex": path}]),
            )
        }
        2 => {
            let weight = dice.random_range(0..3);
            let backends = [("svc-1", weight), ("svc-2", 1)];
            cluster::split(&format!("split-{n}"), &service_name(n), &backends)
        }
        _ => {
            let labels = json!({"podLabelSelector": {"matchLabels": {"tier": "one"}}});
            cluster::binding(&format!("binding-{n}"), labels)
        }
    };
    object["metadata"]["generation"] = json!(generation);
    object
}

fn surroundings(dice: &mut StdRng) -> Value {
    if dice.random() {
        return cluster::node(
            pick(dice, &["node-a", "node-b"]),
            pick(dice, &["zone-a", "zone-b"]),
        );
    }
    let namespace = cluster::namespace("shop");
    match dice.random_range(0..5) {
        0 => cluster::annotate(namespace, "weft.dev/access", "deny"),
        3 => cluster::annotate(namespace, "weft.dev/egress", pick(dice, &["audit", "?"])),
        2 => cluster::annotate(namespace, "weft.dev/log-level", pick(dice, &["warn", "?"])),
        1 => cluster::annotate(namespace, "weft.dev/opaque-ports", "8080"),
        _ => namespace,
    }
}

/// One step of a history. Endpoints change most, as in real life.
fn step(dice: &mut StdRng, collector: &mut Collector) {
    let object = match dice.random_range(0..26) {
        0..10 => slice(dice),
        10..14 => pod(dice),
        14..16 => service(dice),
        16..19 => policy(dice),
        19..22 => match external::step(dice, collector) {
            Some(object) => object,
            None => return,
        },
        22..25 => match gateways::step(dice, collector) {
            Some(object) => object,
            None => return,
        },
        _ => surroundings(dice),
    };
    if dice.random_ratio(1, 8) {
        cluster::delete(collector, &object);
    } else {
        cluster::apply(collector, &object);
    }
}

type SentResources = BTreeMap<String, EncodedResource>;

/// Proxies of pods with even numbers carry out routes and egress, and serve a Gateway. The
/// certificates that a pod serves stand here with their fingerprints as versions.
fn sent_to(model: &Model, pod: &ObjectKey) -> Option<SentResources> {
    let mut all = vec![
        "extended-rule",
        "telemetry",
        "routes",
        "place",
        "traffic-policy/subset",
    ];
    if pod.name.ends_with(['0', '2', '4', '6']) {
        all.extend(["service-routes", "egress", "egress-gateways", "gateway"]);
    }
    let all: Vec<String> = all.into_iter().map(str::to_owned).collect();
    let set = model.resolve(pod, &destinations(pod), &Capabilities::named(&all))?;
    let mut sent = owned(set.resources);
    for (secret, fingerprint) in set.certificates {
        let resource = wire::v1::Resource {
            name: format!("certificate/{secret}"),
            version: fingerprint.to_string(),
            content: None,
        };
        let origins = Vec::new();
        let name = resource.name.clone();
        sent.insert(name, EncodedResource { resource, origins });
    }
    Some(sent)
}

fn owned(resources: BTreeMap<String, Arc<EncodedResource>>) -> SentResources {
    let own = |(name, published): (String, Arc<EncodedResource>)| (name, (*published).clone());
    resources.into_iter().map(own).collect()
}

// Claims: B8, attack-108
#[test]
fn incremental_compile_equals_full_compile_and_names_affected_proxies() {
    let defaults = cluster::with_gateways();
    let pods: Vec<ObjectKey> = (0..PODS)
        .map(|n| ObjectKey::new("shop", &format!("pod-{n}")))
        .collect();
    let [mut shorter, mut middle, mut untouched, mut refreshed] = [0; 4];
    let mut of_gateways = 0;
    for seed in oracle::seeds::seeds(12) {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut collector = Collector::default();
        for _ in 0..60 {
            step(&mut dice, &mut collector);
        }
        let world = Arc::new(collector.world());
        let (model, problems) = Model::compile(&world, &defaults);
        let mut compiled = Compiled::new(world, model, problems);
        let mut seen: BTreeMap<
            ObjectKey,
            (u64, crate::model::changes::Interest, Option<SentResources>),
        > = BTreeMap::new();
        for _ in 0..250 {
            for _ in 0..dice.random_range(1..4) {
                step(&mut dice, &mut collector);
            }
            let world = Arc::new(collector.world());
            if states_only(&world, &compiled.model.index).is_some() {
                shorter += 1;
            } else {
                let before = &compiled.model.index;
                middle += usize::from(pods_and_places(&world, before).is_some());
            }
            compiled = compiled.after(world.clone(), &defaults);
            let (fresh, problems) = Model::compile(&world, &defaults);
            assert_eq!(*compiled.problems, problems, "seed {seed}");
            let kept = &compiled.model;
            for object in problems.reports.keys() {
                assert_eq!(
                    needs(kept, object),
                    needs(&fresh, object),
                    "{object}, seed {seed}"
                );
            }
            let by_uid = Compiled::new(world.clone(), fresh.clone(), problems);
            for pod in &pods {
                let uid = format!("uid-{}", pod.name);
                let known = |compiled: &Compiled| compiled.pod_by_uid(&uid).cloned();
                assert_eq!(known(&compiled), known(&by_uid), "{pod}, seed {seed}");
            }
            for pod in &pods {
                let expected = sent_to(&fresh, pod);
                if let Some((number, interest, before)) = seen.get(pod)
                    && !compiled.concerns(*number, interest)
                {
                    untouched += 1;
                    assert_eq!(
                        *before, expected,
                        "{pod}, seed {seed}: a change was not sent"
                    );
                    continue;
                }
                if let Some((number, interest, Some(previous))) = seen.get_mut(pod)
                    && let Some(services) = compiled.states_since(*number, interest)
                {
                    let mut resources: BTreeMap<String, Arc<EncodedResource>> = previous
                        .iter()
                        .map(|(name, previous)| (name.clone(), Arc::new(previous.clone())))
                        .collect();
                    compiled.model.refresh(pod, &services, &mut resources);
                    refreshed += 1;
                    let now = owned(resources);
                    assert_eq!(
                        Some(&now),
                        expected.as_ref(),
                        "{pod}, seed {seed}: refreshed"
                    );
                }
                // Some look late, as busy proxies do.
                if dice.random_ratio(1, 3) {
                    continue;
                }
                let now = sent_to(&compiled.model, pod);
                assert_eq!(now, expected, "{pod}, seed {seed}");
                let gateway = now.as_ref().and_then(|now| now.get("gateway"));
                of_gateways += usize::from(gateway.is_some());
                let interest = compiled.model.interest(pod, &destinations(pod));
                seen.insert(pod.clone(), (compiled.number(), interest, now));
            }
        }
    }
    assert!(
        shorter > 300,
        "the shorter way was gone only {shorter} times"
    );
    assert!(middle > 300, "the middle way was gone only {middle} times");
    assert!(refreshed > 100, "only {refreshed} times endpoints were all");
    assert!(of_gateways > 20, "only {of_gateways} times a Gateway's");
    assert!(untouched > 100, "only {untouched} times one was left alone");
}

/// Who an object protects, and whose calls it reaches through each destination.
fn needs(
    model: &Model,
    object: &policy::name::ObjectRef,
) -> (BTreeSet<ObjectKey>, Vec<(String, [bool; 2])>) {
    let through = model.called_through(object).into_iter();
    let reached = through.map(|name| {
        let from = ["shop", "other"];
        let reached = from.map(|from| model.reaches(object, from, &name));
        (name, reached)
    });
    (model.protected_by(object), reached.collect())
}

/// ConfigMap is in the table of kinds in tests only.
#[test]
fn only_pod_and_slice_changes_avoid_full_compile() {
    let cluster = cluster::shop();
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "m", "namespace": "shop"}, "data": {"a": "1"}});
    let mut collector = Collector::default();
    for object in cluster.objects() {
        cluster::apply(&mut collector, object);
    }
    let world = collector.world();
    let (model, ..) = Model::compile(&world, &Defaults::default());
    let pod = cluster::pod("late", "10.0.0.99", "web");
    cluster::apply(&mut collector, &pod);
    assert!(pods_and_places(&collector.world(), &model.index).is_some());
    cluster::apply(&mut collector, &map);
    assert!(pods_and_places(&collector.world(), &model.index).is_none());
    assert!(states_only(&collector.world(), &model.index).is_none());
}
