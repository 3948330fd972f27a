//! Services that policies lead calls to, and whether any pod serves there.
//!
//! Claims: calls-32, calls-33

use super::*;
use crate::problem::Reason;

#[test]
fn incremental_compile_updates_no_endpoints_warning_of_policy() {
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
    assert!(!warned(&with), "a pod came");

    cluster::delete(&mut collector, &slice);
    let without = with.after(Arc::new(collector.world()), &defaults);
    assert!(warned(&without), "no pod is left");
}
