//! Releases while pods and their statuses change: the sets and the weight of both follow in one
//! Model, whichever way is taken.

use super::*;

const PODS: u32 = 6;

/// A pod of one of two revisions of Deployment `svc`, in some state.
fn pod(dice: &mut StdRng) -> Value {
    let n = dice.random_range(0..PODS);
    let pod = cluster::pod(&format!("pod-{n}"), &format!("10.0.0.{n}"), "account");
    let deployment = if dice.random_ratio(9, 10) {
        "svc"
    } else {
        "other"
    };
    let pod = cluster::of_revision(pod, deployment, pick(dice, &["v1", "v2"]));
    let pod = match dice.random_range(0..5) {
        0 => pod,
        _ => cluster::gated(pod, [dice.random_ratio(3, 4), dice.random_ratio(1, 3)]),
    };
    if dice.random_ratio(1, 8) {
        return cluster::set(
            pod,
            "/metadata/deletionTimestamp",
            json!("2026-01-01T00:01:00Z"),
        );
    }
    pod
}

/// The slice of all pods, each ready or not.
fn slice(dice: &mut StdRng) -> Value {
    let endpoints: Vec<Value> = (0..PODS)
        .map(|n| {
            let mut endpoint = cluster::endpoint(&format!("pod-{n}"), &format!("10.0.0.{n}"));
            let ready = dice.random_ratio(2, 3);
            endpoint["conditions"] =
                json!({"ready": ready, "serving": true, "terminating": !ready && dice.random()});
            endpoint
        })
        .collect();
    cluster::kept(cluster::slice(
        "svc-x",
        "svc",
        &[("http", 8080)],
        &endpoints,
    ))
}

fn release(dice: &mut StdRng) -> Value {
    let known = [
        "Idle",
        "Waiting",
        "Progressing",
        "Paused",
        "Promoting",
        "RolledBack",
    ];
    let status = json!({
        "phase": pick(dice, &known), "stable": {"revision": "v1"},
        "candidate": {"revision": pick(dice, &["v1", "v2"])},
        "run": {"number": 1, "step": dice.random_range(0..3), "weight": dice.random_range(0..101)},
    });
    let spec = json!({
        "service": "svc", "deployment": "svc", "steps": [{"mirror": 5}, {"weight": 20}],
    });
    cluster::release("rel", spec, status)
}

fn split(dice: &mut StdRng) -> Value {
    let split = cluster::split("split", "svc", &[("next", 1)]);
    // Older or younger than the release.
    let second = dice.random_range(0..2);
    let matches = json!([{"kind": "HTTPRouteGroup", "name": "group"}]);
    let split = cluster::created(split, second);
    if dice.random() {
        cluster::set(split, "/spec/matches", matches)
    } else {
        split
    }
}

fn step(dice: &mut StdRng, collector: &mut Collector) {
    let object = match dice.random_range(0..24) {
        0..10 => pod(dice),
        10..18 => slice(dice),
        18..22 => cluster::created(release(dice), 1),
        _ => split(dice),
    };
    if dice.random_ratio(1, 8) {
        cluster::delete(collector, &object);
    } else {
        cluster::apply(collector, &object);
    }
}

/// What the proxy of a pod is sent, which calls the Service.
fn sent(model: &Model, pod: &ObjectKey) -> Option<SentResources> {
    let names = BTreeSet::from(["destination/10.96.0.1:80".to_owned()]);
    let all = Capabilities::named(&Capabilities::of_everything());
    Some(owned(model.resolve(pod, &names, &all)?.resources))
}

fn base() -> Collector {
    let group = json!([{"name": "m", "methods": ["GET"]}]);
    let cluster = cluster::Cluster::default()
        .with(cluster::namespace("shop"))
        .with(cluster::service("svc", "10.96.0.1", &[("http", 80)]))
        .with(cluster::service("next", "10.96.0.2", &[("http", 80)]))
        .with(cluster::group("group", group))
        .with(cluster::pod("client", "10.0.1.1", "web"));
    let mut collector = Collector::default();
    for object in cluster.objects() {
        cluster::apply(&mut collector, object);
    }
    collector
}

#[test]
fn incremental_compile_of_releases_equals_full_compile() {
    let defaults = Defaults::default();
    let (mut shorter, mut middle, mut refreshed) = (0, 0, 0);
    for seed in oracle::seeds::seeds(12) {
        let mut dice = StdRng::seed_from_u64(seed);
        let mut collector = base();
        for _ in 0..30 {
            step(&mut dice, &mut collector);
        }
        let world = Arc::new(collector.world());
        let (model, problems) = Model::compile(&world, &defaults);
        let mut compiled = Compiled::new(world, model, problems);
        let client = ObjectKey::new("shop", "client");
        let pods = (0..PODS).map(|n| ObjectKey::new("shop", &format!("pod-{n}")));
        let pods: Vec<ObjectKey> = pods.chain([client]).collect();
        for _ in 0..200 {
            step(&mut dice, &mut collector);
            let world = Arc::new(collector.world());
            let before = compiled.model.clone();
            let index = &before.index;
            if states_only(&world, index).is_some() {
                shorter += 1;
            } else {
                middle += usize::from(pods_and_places(&world, index).is_some());
            }
            let number = compiled.number();
            let names = ["destination/10.96.0.1:80".to_owned()];
            compiled = compiled.after(Arc::clone(&world), &defaults);
            let (fresh, problems) = Model::compile(&world, &defaults);
            assert_eq!(*compiled.problems, problems, "seed {seed}");
            for pod in &pods {
                let expected = sent(&fresh, pod);
                assert_eq!(sent(&compiled.model, pod), expected, "{pod}, seed {seed}");
                let Some(was) = sent(&before, pod) else {
                    continue;
                };
                let interest = before.interest(pod, &names);
                if !compiled.concerns(number, &interest) {
                    assert_eq!(Some(was), expected, "{pod}, seed {seed}: was not sent");
                } else if let Some(services) = compiled.states_since(number, &interest) {
                    let was = was.into_iter();
                    let mut resources = was.map(|(name, one)| (name, Arc::new(one))).collect();
                    compiled.model.refresh(pod, &services, &mut resources);
                    refreshed += 1;
                    assert_eq!(Some(owned(resources)), expected, "{pod}, seed {seed}");
                }
            }
        }
    }
    assert!(shorter > 200, "the shorter way was gone {shorter} times");
    assert!(middle > 200, "the middle way was gone {middle} times");
    assert!(refreshed > 100, "only {refreshed} times endpoints were all");
}

/// A stable pod and a candidate, whose gate has this state.
fn two(state: [bool; 2]) -> [Value; 2] {
    let old = cluster::of_revision(cluster::pod("old", "10.0.0.1", "a"), "svc", "v1");
    let new = cluster::of_revision(cluster::pod("new", "10.0.0.2", "a"), "svc", "v2");
    [old, cluster::gated(new, state)]
}

#[test]
fn gated_pod_changes_sets_and_weight_without_its_slice() {
    let mut collector = base();
    let mut waits = cluster::endpoint("new", "10.0.0.2");
    waits["conditions"] = json!({"ready": false, "serving": false, "terminating": false});
    let endpoints = [cluster::endpoint("old", "10.0.0.1"), waits];
    let slice = cluster::slice("svc-x", "svc", &[("http", 8080)], &endpoints);
    let status = json!({
        "phase": "Progressing", "candidate": {"revision": "v2"}, "run": {"step": 2, "weight": 20},
    });
    let spec = json!({"service": "svc", "deployment": "svc"});
    let objects = two([false, false]).into_iter();
    let objects = objects.chain([cluster::kept(slice), cluster::release("rel", spec, status)]);
    for object in objects {
        cluster::apply(&mut collector, &object);
    }
    let (model, _) = Model::compile(&collector.world(), &Defaults::default());
    let mut index = Arc::clone(&model.index);
    // Ready behind its gate, and lost again.
    for (containers, candidates, weight) in [(true, 1, 20), (false, 0, 0)] {
        let [_, new] = two([containers, false]);
        cluster::apply(&mut collector, &new);
        let (next, changes) = states_only(&collector.world(), &index).unwrap();
        let key = ObjectKey::new("shop", "svc");
        assert_eq!(changes.services, HashSet::from([key.clone()]));
        index = Arc::new(next);
        let model = Model {
            index: Arc::clone(&index),
        };
        let resolved = cluster::resolve_newest(&model, "client", &["10.96.0.1:80"]);
        let endpoints = resolved.endpoints("endpoints/shop/svc@candidate:80");
        assert_eq!(endpoints.endpoints.len(), candidates);
        let split = &resolved.service("service/shop/svc:80").splits[0];
        let weights: Vec<u32> = split.backends.iter().map(|one| one.weight).collect();
        assert_eq!(weights, [100 - weight, weight]);
    }
}
