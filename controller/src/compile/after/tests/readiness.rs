//! Pods that become ready, which is news of their Services' endpoints alone.

use super::*;

/// The pod, ready since then.
pub(super) fn since(pod: Value, time: &str) -> Value {
    let condition = json!({"type": "Ready", "status": "True", "lastTransitionTime": time});
    cluster::set(pod, "/status/conditions", json!([condition]))
}

#[test]
fn a_pod_that_became_ready_is_news_once_its_slice_says_so_and_then_of_its_service_alone() {
    let api = |ready: bool| {
        let mut second = cluster::endpoint("api-2", "10.0.0.12");
        second["conditions"]["ready"] = json!(ready);
        let both = [cluster::endpoint("api-1", "10.0.0.11"), second];
        cluster::slice("api-x", "api", &[("http", 8080)], &both)
    };
    let cluster = cluster::shop().with(api(false));
    let mut collector = Collector::default();
    for object in cluster.objects() {
        cluster::apply(&mut collector, object);
    }
    let (model, ..) = Model::compile(&collector.world(), &Defaults::default());

    let mut objects = cluster.objects().iter();
    let pod = objects.find(|one| one["kind"] == "Pod" && one["metadata"]["name"] == "api-2");
    let pod = since(pod.unwrap().clone(), "2026-01-01T00:05:00Z");
    cluster::apply(&mut collector, &pod);
    let (index, changes) = states_only(&collector.world(), &model.index).unwrap();
    assert!(changes.services.is_empty() && changes.pods.is_empty());

    cluster::apply(&mut collector, &api(true));
    let (index, changes) = states_only(&collector.world(), &index).unwrap();
    let key = ObjectKey::new("shop", "api");
    assert_eq!(changes.services, HashSet::from([key.clone()]));
    let candidates = index.services[&key].ports[&80].candidates.iter();
    let since: Vec<u64> = candidates.map(|one| one.endpoint.ready_since).collect();
    assert_eq!(since, [0, 1_767_225_900]);
}

#[test]
fn readiness_is_no_news_of_a_service_that_publishes_pods_that_are_not_ready() {
    let service = cluster::service("api", "10.96.0.1", &[("http", 80)]);
    let published = cluster::set(service, "/spec/publishNotReadyAddresses", json!(true));
    let cluster = cluster::shop().with(published);
    let mut collector = Collector::default();
    for object in cluster.objects() {
        cluster::apply(&mut collector, object);
    }
    let (model, ..) = Model::compile(&collector.world(), &Defaults::default());

    let mut objects = cluster.objects().iter();
    let pod = objects.find(|one| one["kind"] == "Pod" && one["metadata"]["name"] == "api-2");
    for time in ["2026-01-01T00:05:00Z", "2026-01-01T00:06:00Z"] {
        let pod = since(pod.unwrap().clone(), time);
        cluster::apply(&mut collector, &pod);
        let (index, changes) = states_only(&collector.world(), &model.index).unwrap();
        assert!(changes.services.is_empty() && changes.pods.is_empty());
        let api = &index.services[&ObjectKey::new("shop", "api")];
        let candidates = &api.ports[&80].candidates;
        assert_eq!(candidates.len(), 2);
        assert!(candidates.iter().all(|one| one.endpoint.ready_since == 0));
    }
}
