//! Pods that several Services share, with different policies about them.

use super::*;
use crate::problem::Reason;

const ONE: (&str, &str) = ("api-1", "10.0.0.11");
const TWO: (&str, &str) = ("api-2", "10.0.0.12");
const THREE: (&str, &str) = ("api-3", "10.0.0.13");

/// A policy about a Service, and named like it.
fn overload(service: &str, cap: u32, second: u8) -> Value {
    let spec = json!({
        "targetRef": {"kind": "Service", "name": service}, "overload": {"maxConcurrency": cap},
    });
    cluster::created(cluster::traffic_policy(service, spec), second)
}

fn slice_of(name: &str, service: &str, pods: &[(&str, &str)]) -> Value {
    let endpoints = pods.iter().map(|(pod, ip)| cluster::endpoint(pod, ip));
    let endpoints: Vec<Value> = endpoints.collect();
    cluster::slice(name, service, &[("http", 8080)], &endpoints)
}

/// Service `second` has one pod of `api`, and each has a policy.
fn two_services() -> cluster::Cluster {
    cluster::shop()
        .with(cluster::service("second", "10.96.0.3", &[("http", 90)]))
        .with(slice_of("second-x", "second", &[ONE]))
        .with(overload("api", 10, 1))
        .with(overload("second", 20, 2))
}

/// One World after another.
struct History {
    collector: Collector,
    compiled: Compiled,
    /// The last step took no complete compile.
    was_short: bool,
}

impl History {
    fn of(cluster: &cluster::Cluster) -> Self {
        let mut collector = Collector::default();
        for object in cluster.objects() {
            cluster::apply(&mut collector, object);
        }
        let world = Arc::new(collector.world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        Self {
            collector,
            compiled: Compiled::new(world, model, problems),
            was_short: false,
        }
    }

    fn apply(&mut self, objects: &[Value]) {
        for object in objects {
            cluster::apply(&mut self.collector, object);
        }
        self.compile();
    }

    fn delete(&mut self, object: &Value) {
        cluster::delete(&mut self.collector, object);
        self.compile();
    }

    fn compile(&mut self) {
        let world = Arc::new(self.collector.world());
        let before = &self.compiled.model.index;
        self.was_short = pods_and_places(&world, before).is_some();
        self.compiled = self.compiled.after(world, &Defaults::default());
    }

    /// Policies whose condition reports that another one decides a part of theirs.
    fn overridden(&self) -> Vec<String> {
        let (_, fresh) = Model::compile(&self.compiled.world, &Defaults::default());
        assert_eq!(*self.compiled.problems, fresh, "as from nothing");
        let reported = fresh.list.iter();
        let overridden = reported.filter(|one| one.reason == Reason::PartlyOverridden);
        let names = overridden.map(|one| one.object.name.to_string());
        let mut names: Vec<String> = names.collect();
        names.sort();
        names
    }
}

/// Both Services have pods all the time that the third one leads to as well, so it is none of
/// what else is watched.
#[test]
fn override_is_reported_when_pod_joins_second_service() {
    let next = ("next-1", "10.0.0.21");
    let cluster = cluster::shop()
        .with(cluster::pod(next.0, next.1, "next"))
        .with(cluster::service("second", "10.96.0.3", &[("http", 90)]))
        .with(slice_of("second-x", "second", &[next]))
        .with(cluster::service("third", "10.96.0.4", &[("http", 91)]))
        .with(slice_of("third-x", "third", &[ONE, TWO, next]))
        .with(overload("api", 10, 1))
        .with(overload("second", 20, 2));
    let mut history = History::of(&cluster);
    assert_eq!(history.overridden(), [""; 0]);

    let more = slice_of("second-y", "second", &[ONE]);
    history.apply(std::slice::from_ref(&more));
    assert_eq!(
        history.overridden(),
        ["second"],
        "the policy of api is older"
    );

    let pod = cluster::pod(ONE.0, ONE.1, "api");
    history.delete(&pod);
    assert_eq!(history.overridden(), [""; 0], "the pod is gone");
    history.apply(&[pod]);
    assert_eq!(history.overridden(), ["second"], "and is back");

    history.delete(&more);
    assert_eq!(history.overridden(), [""; 0], "only its slice is gone");
}

/// All pods of the two Services are read again, as a slice changes or names a pod that does, so
/// that what these serve is the same set before and after: no others are evaluated.
#[test]
fn additional_pod_of_both_services_avoids_full_compile() {
    let mut history = History::of(&two_services());
    assert_eq!(history.overridden(), ["second"]);
    let first = cluster::pod(ONE.0, ONE.1, "api");
    let third = cluster::pod(THREE.0, THREE.1, "api");
    // As they come: the pod is there before its Services' slices name it, one after the other.
    for (what, object) in [
        ("the pod", third.clone()),
        ("of one", slice_of("api-y", "api", &[THREE])),
        ("of both", slice_of("second-y", "second", &[THREE])),
    ] {
        history.apply(&[object]);
        assert!(history.was_short, "{what}");
        assert_eq!(history.overridden(), ["second"], "{what}");
    }
    history.delete(&first);
    assert!(history.was_short, "there is another one");
    assert_eq!(history.overridden(), ["second"]);

    // Control: the last one, and the first that comes again.
    history.delete(&third);
    assert!(!history.was_short);
    assert_eq!(history.overridden(), [""; 0]);
    history.apply(&[first]);
    assert!(!history.was_short);
    assert_eq!(history.overridden(), ["second"]);
}

/// Others of the two Services that stay are not read again: their slices are as they were.
#[test]
fn pod_leaving_third_service_recompiles_fully_without_shared_pod() {
    let third = slice_of("third-x", "third", &[ONE]);
    for (second, is_short) in [(vec![ONE, TWO, THREE], true), (vec![ONE, THREE], false)] {
        let cluster = cluster::shop()
            .with(cluster::pod(THREE.0, THREE.1, "api"))
            .with(slice_of("api-y", "api", &[THREE]))
            .with(cluster::service("second", "10.96.0.3", &[("http", 90)]))
            .with(slice_of("second-x", "second", &second))
            .with(cluster::service("third", "10.96.0.4", &[("http", 91)]))
            .with(third.clone())
            .with(slice_of("third-y", "third", &[THREE]))
            .with(overload("third", 30, 1))
            .with(overload("api", 10, 2))
            .with(overload("second", 20, 3));
        let mut history = History::of(&cluster);
        assert_eq!(history.overridden(), ["api", "second"]);
        history.delete(&third);
        assert_eq!(history.was_short, is_short, "{second:?}");
        assert_eq!(history.overridden(), ["api", "second"]);
    }
}

/// There is one without a proxy all the time, so that is none of what else is watched.
#[test]
fn override_is_reported_while_shared_pod_has_proxy() {
    let plain = |(name, ip): (&str, &str)| cluster::plain_pod(name, ip, "api");
    let cluster = two_services()
        .with(slice_of("second-x", "second", &[ONE, TWO]))
        .with(plain(ONE))
        .with(plain(TWO));
    let mut history = History::of(&cluster);
    assert_eq!(history.overridden(), [""; 0]);
    history.apply(&[cluster::pod(ONE.0, ONE.1, "api")]);
    assert_eq!(history.overridden(), ["second"]);
    history.apply(&[plain(ONE)]);
    assert_eq!(history.overridden(), [""; 0]);

    // Control: one more without a proxy changes nothing.
    history.apply(&[
        plain(THREE),
        slice_of("api-y", "api", &[THREE]),
        slice_of("second-y", "second", &[THREE]),
    ]);
    assert!(history.was_short);
    assert_eq!(history.overridden(), [""; 0]);
}

#[test]
fn random_history_of_shared_pods_matches_full_compile() {
    const STEPS: usize = 300;
    let services = ["api", "second", "third"];
    let pods = (1..7).map(|n| (format!("api-{n}"), format!("10.0.0.1{n}")));
    let pods: Vec<(String, String)> = pods.collect();
    let cluster = two_services()
        .with(cluster::service("third", "10.96.0.4", &[("http", 91)]))
        .with(overload("third", 30, 0));
    let mut history = History::of(&cluster);
    let mut seeds = oracle::seeds::seeds(1);
    let mut dice = StdRng::seed_from_u64(14 + seeds.next().unwrap());
    let (mut short, mut overridden) = (0, BTreeSet::new());
    for _ in 0..STEPS {
        let (name, ip) = &pods[dice.random_range(0..pods.len())];
        match dice.random_range(0..9) {
            0 => history.delete(&cluster::pod(name, ip, "api")),
            1 => history.apply(&[cluster::plain_pod(name, ip, "api")]),
            2 | 3 => history.apply(&[cluster::pod(name, ip, "api")]),
            _ => {
                let service = pick(&mut dice, &services);
                let slice = slice_of(&format!("{service}-{name}"), service, &[(&**name, &**ip)]);
                if dice.random() {
                    history.apply(&[slice]);
                } else {
                    history.delete(&slice);
                }
            }
        }
        overridden.insert(history.overridden());
        short += usize::from(history.was_short);
    }
    assert!((20..STEPS - 5).contains(&short), "{short} were short");
    assert!(overridden.len() > 1, "{overridden:?}");
}
