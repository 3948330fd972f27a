//! Pods that several Services share, of which policies say different things.

use super::*;
use crate::problem::Reason;

const ONE: (&str, &str) = ("api-1", "10.0.0.11");
const TWO: (&str, &str) = ("api-2", "10.0.0.12");

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

/// One World after another.
struct History {
    collector: Collector,
    compiled: Compiled,
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
        self.compiled = self.compiled.after(world, &Defaults::default());
    }

    /// Policies whose authors are told that another one decides a part of theirs.
    fn overridden(&self) -> Vec<String> {
        let (_, fresh) = Model::compile(&self.compiled.world, &Defaults::default());
        assert_eq!(*self.compiled.problems, fresh, "as from nothing");
        let reported = fresh.list.iter();
        let told = reported.filter(|one| one.reason == Reason::PartlyOverridden);
        let names = told.map(|one| one.object.name.to_string());
        names.collect()
    }
}

/// Both Services have pods all the time that the third one leads to as well, so it is none of
/// what else is watched.
#[test]
fn author_is_told_when_a_pod_comes_to_a_second_service_of_which_another_policy_speaks() {
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
