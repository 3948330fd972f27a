//! Pods that become ready or are no longer, which changes their Services' endpoints alone.
//!
//! Claims: calls-20

use super::*;
use crate::world::collect::News;

/// The pod, whose condition Ready has this status since then.
pub(super) fn ready(pod: Value, status: &str, time: &str) -> Value {
    let condition = json!({"type": "Ready", "status": status, "lastTransitionTime": time});
    cluster::set(pod, "/status/conditions", json!([condition]))
}

/// Pod `api-2` of the shop.
fn second(cluster: &cluster::Cluster, status: &str, time: &str) -> Value {
    let mut objects = cluster.objects().iter();
    let pod = objects.find(|one| one["kind"] == "Pod" && one["metadata"]["name"] == "api-2");
    ready(pod.unwrap().clone(), status, time)
}

/// The slice that Kubernetes writes for its pods, the second one ready or not.
fn slice_of_both(ready: bool) -> Value {
    let mut second = cluster::endpoint("api-2", "10.0.0.12");
    second["conditions"]["ready"] = json!(ready);
    let both = [cluster::endpoint("api-1", "10.0.0.11"), second];
    cluster::kept(cluster::slice("api-x", "api", &[("http", 8080)], &both))
}

#[test]
fn ready_pod_changes_only_its_service_once_slice_agrees() {
    let cluster = cluster::shop().with(slice_of_both(false));
    let mut collector = Collector::default();
    for object in cluster.objects() {
        cluster::apply(&mut collector, object);
    }
    let (model, ..) = Model::compile(&collector.world(), &Defaults::default());

    let pod = second(&cluster, "True", "2026-01-01T00:05:00Z");
    cluster::apply(&mut collector, &pod);
    let (index, changes) = states_only(&collector.world(), &model.index).unwrap();
    assert!(changes.services.is_empty() && changes.pods.is_empty());

    cluster::apply(&mut collector, &slice_of_both(true));
    let (index, changes) = states_only(&collector.world(), &index).unwrap();
    let key = ObjectKey::new("shop", "api");
    assert_eq!(changes.services, HashSet::from([key.clone()]));
    let candidates = index.services[&key].ports[&80].candidates.iter();
    let since: Vec<u64> = candidates.map(|one| one.endpoint.ready_since).collect();
    assert_eq!(since, [0, 1_767_225_900]);
}

#[test]
fn readiness_is_ignored_for_service_publishing_unready_pods() {
    let service = cluster::service("api", "10.96.0.1", &[("http", 80)]);
    let published = cluster::set(service, "/spec/publishNotReadyAddresses", json!(true));
    let published = cluster::shop().with(slice_of_both(true)).with(published);
    // Nor where Kubernetes does not keep the slices.
    for cluster in [published, cluster::shop()] {
        let mut collector = Collector::default();
        for object in cluster.objects() {
            cluster::apply(&mut collector, object);
        }
        let (model, ..) = Model::compile(&collector.world(), &Defaults::default());
        for time in ["2026-01-01T00:05:00Z", "2026-01-01T00:06:00Z"] {
            let pod = second(&cluster, "True", time);
            cluster::apply(&mut collector, &pod);
            let (index, changes) = states_only(&collector.world(), &model.index).unwrap();
            assert!(changes.services.is_empty() && changes.pods.is_empty());
            let api = &index.services[&ObjectKey::new("shop", "api")];
            let candidates = &api.ports[&80].candidates;
            assert_eq!(candidates.len(), 2);
            assert!(candidates.iter().all(|one| one.endpoint.ready_since == 0));
        }
    }
}

#[test]
fn unready_pod_takes_effect_before_its_slice() {
    let cluster = cluster::shop().with(slice_of_both(true));
    let mut collector = Collector::default();
    for object in cluster.objects() {
        cluster::apply(&mut collector, object);
    }
    let pod = second(&cluster, "True", "2026-01-01T00:05:00Z");
    cluster::apply(&mut collector, &pod);
    let (model, ..) = Model::compile(&collector.world(), &Defaults::default());

    let pod = second(&cluster, "False", "2026-01-01T00:06:00Z");
    let news = cluster::apply(&mut collector, &pod);
    assert_eq!(news, News::Urgent, "as of an endpoint that leaves");
    let (index, changes) = states_only(&collector.world(), &model.index).unwrap();
    let key = ObjectKey::new("shop", "api");
    assert_eq!(changes.services, HashSet::from([key.clone()]));
    let candidates = index.services[&key].ports[&80].candidates.iter();
    let ready: Vec<bool> = candidates.map(|one| one.ready).collect();
    assert_eq!(ready, [true, false]);

    cluster::apply(&mut collector, &slice_of_both(false));
    let (_, changes) = states_only(&collector.world(), &index).unwrap();
    assert!(changes.services.is_empty() && changes.pods.is_empty());
}
