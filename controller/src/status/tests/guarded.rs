//! Pods that a policy protects, connected or not.

use super::*;

/// The cluster of the bench with a policy for the pods of account `api`.
fn guarded(generation: i64) -> Arc<Compiled> {
    let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
    let target = cluster::target("t", "api", &["web"], rules);
    let target = cluster::set(target, "/metadata/generation", json!(generation));
    let world = cluster::shop()
        .with(target)
        .with(cluster::tcp_route("ports", &[8080]));
    let world = Arc::new(world.world());
    let (model, problems) = Model::compile(&world, &Defaults::default());
    Arc::new(Compiled::new(world, model, problems))
}

const TARGET: &str = "/apis/access.smi-spec.io/v1alpha4/namespaces/shop/traffictargets/t";

impl Bench {
    /// A bench with a TrafficTarget.
    fn guarded() -> Self {
        let bench = Self::new(&[("api", 1)]);
        let rules = json!([{"kind": "TCPRoute", "name": "ports"}]);
        bench
            .api
            .put(TARGET, cluster::target("t", "api", &["web"], rules));
        bench.models.send_replace(Some(guarded(1)));
        bench
    }

    /// A proxy that `t` protects has this generation of it.
    fn has(&self, pod: &str, stream: u64, generation: i64) {
        let target = ObjectRef::new(Kind::TrafficTarget, "shop", "t");
        let object = v1::ObjectState {
            object: Some(v1::ObjectRef::from(&target)),
            needed: generation,
            acknowledged: true,
            ..v1::ObjectState::default()
        };
        let state = v1::ProxyState {
            namespace: "shop".to_owned(),
            pod: pod.to_owned(),
            uid: format!("uid-{pod}"),
            service_account: "api".to_owned(),
            objects: vec![object],
            ..v1::ProxyState::default()
        };
        self.writer.observed.note(stream, state);
    }

    /// Both proxies that `t` protects have its first generation, and that is written.
    async fn both_have_it(&mut self) {
        self.has("api-1", 1, 1);
        self.has("api-2", 2, 1);
        self.round().await;
    }

    /// Status, reason and message of `Programmed` of the target.
    fn target_programmed(&self) -> (String, String, String) {
        let condition = self.api.read(TARGET).unwrap()["status"]["conditions"][2].clone();
        let text = |field: &str| condition[field].as_str().unwrap_or_default().to_owned();
        (text("status"), text("reason"), text("message"))
    }
}

fn is(found: &(String, String, String), status: &str, reason: &str, message: &str) {
    let (s, r, m) = found;
    assert_eq!((&**s, &**r, &**m), (status, reason, message));
}

fn has_both(bench: &Bench) {
    let programmed = bench.target_programmed();
    is(&programmed, "True", "Programmed", "2 of 2 proxies");
}

fn lacks_the_second(bench: &Bench) {
    let message = "1 of 2 proxies; not connected: shop/api-2";
    is(&bench.target_programmed(), "False", "Pending", message);
}

#[tokio::test(start_paused = true)]
async fn disconnected_protected_pod_is_counted_and_named() {
    let mut bench = Bench::guarded();
    bench.has("api-1", 1, 1);
    bench.round().await;
    lacks_the_second(&bench);
    bench.has("api-2", 2, 1);
    bench.round().await;
    has_both(&bench);
}

#[tokio::test(start_paused = true)]
async fn new_policy_is_unprogrammed_before_its_first_proxy() {
    let mut bench = Bench::guarded();
    bench.round().await;
    let (status, reason, _) = bench.target_programmed();
    assert_eq!((&*status, &*reason), ("False", "Pending"));
}

#[tokio::test(start_paused = true)]
async fn disconnected_proxy_keeps_object_programmed_until_next_generation() {
    let mut bench = Bench::guarded();
    bench.both_have_it().await;
    bench.writer.observed.ended(2, "shop/api-2");
    bench.round().await;
    has_both(&bench);
    bench.models.send_replace(Some(guarded(2)));
    bench.has("api-1", 1, 2);
    bench.round().await;
    lacks_the_second(&bench);
}

/// A pod that starts, and every pod after a crash of the controller, is without a
/// stream for a moment.
#[tokio::test(start_paused = true)]
async fn programmed_outlasts_a_moment_without_streams_and_no_longer() {
    let mut bench = Bench::guarded();
    bench.both_have_it().await;
    // Another holder of the Lease, which knows no proxy yet.
    bench.writer.observed = Observed::settled();
    bench.written = bench.writer.read_all().await;
    let again = bench.round().await.unwrap();
    assert_eq!(bench.target_programmed().0, "True");
    assert!(again <= Instant::now() + RECONNECT);
    bench.has("api-1", 1, 1);
    tokio::time::sleep_until(again).await;
    bench.round().await;
    lacks_the_second(&bench);
}

#[tokio::test(start_paused = true)]
async fn no_callers_status_waits_for_reports_of_all_proxies() {
    let mut bench = Bench::new(&[("api", 1)]);
    bench.writer.observed = Observed::default();
    bench.round().await;
    let programmed = bench.condition("Programmed");
    assert_eq!(
        (&programmed["status"], &programmed["reason"]),
        (&json!("False"), &json!("Pending")),
        "{programmed}"
    );
    tokio::time::sleep_until(bench.writer.observed.complete_at()).await;
    bench.round().await;
    let programmed = bench.condition("Programmed");
    assert_eq!(
        (&programmed["status"], &programmed["reason"]),
        (&json!("True"), &json!("NoProxies")),
        "{programmed}"
    );
}

#[tokio::test(start_paused = true)]
async fn pod_that_never_connects_shows_without_another_cause() {
    let bench = Bench::guarded();
    bench.has("api-1", 1, 1);
    bench.has("api-2", 2, 1);
    let writing = tokio::spawn(bench.writer.clone().write());
    sleep(Duration::from_secs(1)).await;
    has_both(&bench);
    let before = bench.models.borrow().clone().unwrap();
    let mut world = (*before.world).clone();
    let more = cluster::shop().with(cluster::pod("api-3", "10.0.0.13", "api"));
    world.pods = more.world().pods;
    let after = before.after(Arc::new(world), &Defaults::default());
    assert!(Arc::ptr_eq(&before.problems, &after.problems));
    bench.models.send_replace(Some(Arc::new(after)));
    sleep(COUNT_EVERY + RECONNECT + Duration::from_secs(1)).await;
    is(
        &bench.target_programmed(),
        "False",
        "Pending",
        "2 of 3 proxies; not connected: shop/api-3",
    );
    writing.abort();
}
