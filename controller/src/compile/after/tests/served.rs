//! Services that policies lead calls to, and whether anybody serves there.

use super::*;
use crate::problem::Reason;

#[test]
fn author_is_told_when_nobody_serves_where_a_policy_leads_and_when_somebody_does() {
    let fallback = json!({
        "targetRef": {"kind": "Service", "name": "api"}, "fallback": {"service": "next"},
    });
    let endpoints = [cluster::endpoint("next-1", "10.0.0.21")];
    let slice = cluster::slice("next-x", "next", &[("http", 8080)], &endpoints);
    let cluster = cluster::shop()
        .with(cluster::pod("next-1", "10.0.0.21", "next"))
        .with(cluster::service("next", "10.96.0.2", &[("http", 80)]))
        .with(cluster::traffic_policy("p", fallback));
    let mut collector = Collector::default();
    for object in cluster.objects() {
        cluster::apply(&mut collector, object);
    }
    let defaults = Defaults::default();
    let world = Arc::new(collector.world());
    let (model, problems) = Model::compile(&world, &defaults);
    let warned = |compiled: &Compiled| {
        let mut reported = compiled.problems.list.iter();
        reported.any(|one| one.reason == Reason::NoEndpoints)
    };
    let without = Compiled::new(world, model, problems);
    assert!(warned(&without));

    cluster::apply(&mut collector, &slice);
    let with = without.after(Arc::new(collector.world()), &defaults);
    assert!(!warned(&with), "somebody came");

    cluster::delete(&mut collector, &slice);
    let without = with.after(Arc::new(collector.world()), &defaults);
    assert!(warned(&without), "nobody is left");
}

/// Both Services have pods all the time that the third one leads to as well, so it is none of
/// what else is watched.
#[test]
fn author_is_told_when_a_pod_comes_to_a_second_service_of_which_another_policy_speaks() {
    let overload = |service: &str, cap: u32, second: u8| {
        let spec = json!({
            "targetRef": {"kind": "Service", "name": service}, "overload": {"maxConcurrency": cap},
        });
        cluster::created(cluster::traffic_policy(service, spec), second)
    };
    let slice = |name: &str, service: &str, pods: &[(&str, &str)]| {
        let endpoints = pods.iter().map(|(pod, ip)| cluster::endpoint(pod, ip));
        let endpoints: Vec<Value> = endpoints.collect();
        cluster::slice(name, service, &[("http", 8080)], &endpoints)
    };
    let (one, two) = (("api-1", "10.0.0.11"), ("api-2", "10.0.0.12"));
    let next = ("next-1", "10.0.0.21");
    let cluster = cluster::shop()
        .with(cluster::pod(next.0, next.1, "next"))
        .with(cluster::service("second", "10.96.0.3", &[("http", 90)]))
        .with(slice("second-x", "second", &[next]))
        .with(cluster::service("third", "10.96.0.4", &[("http", 91)]))
        .with(slice("third-x", "third", &[one, two, next]))
        .with(overload("api", 10, 1))
        .with(overload("second", 20, 2));
    let mut collector = Collector::default();
    for object in cluster.objects() {
        cluster::apply(&mut collector, object);
    }
    let defaults = Defaults::default();
    let world = Arc::new(collector.world());
    let (model, problems) = Model::compile(&world, &defaults);
    let told = |compiled: &Compiled| {
        let (_, fresh) = Model::compile(&compiled.world, &Defaults::default());
        assert_eq!(*compiled.problems, fresh, "as from nothing");
        let reported = fresh.list.iter();
        let told = reported.filter(|one| one.reason == Reason::PartlyOverridden);
        let names = told.map(|one| one.object.name.to_string());
        names.collect::<Vec<String>>()
    };
    let apart = Compiled::new(world, model, problems);
    assert_eq!(told(&apart), [""; 0]);

    let more = slice("second-y", "second", &[one]);
    cluster::apply(&mut collector, &more);
    let shared = apart.after(Arc::new(collector.world()), &defaults);
    assert_eq!(told(&shared), ["second"], "the policy of api is older");

    let pod = cluster::pod(one.0, one.1, "api");
    cluster::delete(&mut collector, &pod);
    let gone = shared.after(Arc::new(collector.world()), &defaults);
    assert_eq!(told(&gone), [""; 0], "the pod is gone");
    cluster::apply(&mut collector, &pod);
    let shared = gone.after(Arc::new(collector.world()), &defaults);
    assert_eq!(told(&shared), ["second"], "and is back");

    cluster::delete(&mut collector, &more);
    let apart = shared.after(Arc::new(collector.world()), &defaults);
    assert_eq!(told(&apart), [""; 0], "only its slice is gone");
}
