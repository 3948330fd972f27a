//! NetworkPolicies follow what is planned, and never one of the user's.

use std::time::Duration;

use crds::labels::account_hash;
use http::Method;
use model::compiled::Compiled;
use model::{Defaults, Model};
use serde_json::{Value, json};

use super::*;
use crate::network_policy::tests::{pod, udp_route};
use crate::testing::api_server::FakeApi;
use crate::testing::cluster;
use crate::testing::cluster::Cluster;

const ROLES: &str = "/apis/rbac.authorization.k8s.io/v1/clusterroles";

struct Bench {
    api: FakeApi,
    reconciler: Reconciler,
    state: Progress,
    models: watch::Sender<Option<Arc<Compiled>>>,
    enforced: watch::Receiver<Option<Arc<Enforced>>>,
    seen: usize,
}

fn role(uid: &str) -> Value {
    json!({"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": {"name": ROLE, "uid": uid}})
}

fn path(name: &str) -> String {
    format!("/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies/{name}")
}

/// The policy for account server.
fn server() -> String {
    format!("weft-udp-{}", account_hash("shop", "server"))
}

fn compiled(cluster: &Cluster) -> Arc<Compiled> {
    let world = Arc::new(cluster.world());
    let defaults = Defaults {
        udp_network_policies: true,
        ..Defaults::default()
    };
    let (model, problems) = Model::compile(&world, &defaults);
    Arc::new(Compiled::new(world, model, problems))
}

/// Account server closed by a target about UDP port 53.
fn closed() -> Cluster {
    let rules = json!([{"kind": "UDPRoute", "name": "dns"}]);
    Cluster::default()
        .with(cluster::namespace("shop"))
        .with(pod("server", "server"))
        .with(udp_route("dns", &json!({"matches": {"ports": [53]}})))
        .with(cluster::target("t", "server", &["client"], rules))
}

impl Bench {
    fn new(cluster: &Cluster) -> Self {
        let api = FakeApi::default();
        api.put(&format!("{ROLES}/{ROLE}"), role("role-1"));
        let (events, _) = EventRecorder::new(api.client(), "me", Counter::default());
        let (models, latest) = watch::channel(Some(compiled(cluster)));
        let (sender, enforced) = watch::channel(None);
        Self {
            reconciler: Reconciler {
                client: api.client(),
                latest,
                events,
                enforced: sender,
                written: Counter::default(),
            },
            state: Progress {
                listed: true,
                owner: "role-1".to_owned(),
                ..Progress::default()
            },
            api,
            models,
            enforced,
            seen: 0,
        }
    }

    async fn round(&mut self) -> Option<Instant> {
        self.reconciler.round(&mut self.state).await
    }

    /// Rounds until nothing is due.
    async fn settle(&mut self) {
        for _ in 0..10 {
            match self.round().await {
                Some(due) => sleep_until(due).await,
                None => return,
            }
        }
        panic!("never settles: {:?}", self.state.failed);
    }

    /// What the watch brings after a client wrote.
    fn write(&mut self, name: &str, mut policy: Value) {
        policy["metadata"]["name"] = name.into();
        policy["metadata"]["namespace"] = "shop".into();
        self.api.put(&path(name), policy);
        let policy = self.api.read(&path(name)).unwrap();
        self.state.take(watcher::Event::Apply(
            serde_json::from_value(policy).unwrap(),
        ));
    }

    fn delete(&mut self, name: &str) {
        let policy = self.api.read(&path(name)).unwrap();
        self.api.remove(&path(name));
        self.state.take(watcher::Event::Delete(
            serde_json::from_value(policy).unwrap(),
        ));
    }

    fn spec(&self, name: &str) -> Option<Value> {
        Some(self.api.read(&path(name))?["spec"].clone())
    }

    /// Writes since the last time, without paths.
    fn writes(&mut self) -> Vec<Method> {
        let all = self.api.writes();
        let new = all[self.seen..].iter().map(|(method, _)| method.clone());
        let new = new.collect();
        self.seen = all.len();
        new
    }

    fn about_t(&self) -> InForce {
        let enforced = self.enforced.borrow().clone().unwrap();
        enforced[&ObjectKey::new("shop", "t")].clone()
    }
}

#[tokio::test(start_paused = true)]
async fn network_policy_exists_exactly_while_its_cause_does() {
    let mut bench = Bench::new(&closed());
    bench.settle().await;
    assert_eq!(bench.writes(), [Method::POST]);
    let written = bench.api.read(&path(&server())).unwrap();
    assert_eq!(written["spec"]["ingress"][1]["ports"][0]["port"], 53);
    assert_eq!(written["metadata"]["ownerReferences"][0]["uid"], "role-1");
    assert_eq!(bench.about_t().lacks, None);
    assert!(bench.about_t().message.contains(&server()));
    bench.settle().await;
    assert_eq!(bench.writes(), [] as [Method; 0], "nothing to do");

    bench.models.send_replace(Some(compiled(
        &closed().with(udp_route("dns", &json!({"matches": {"ports": [54]}}))),
    )));
    bench.settle().await;
    assert_eq!(bench.writes(), [Method::PUT]);
    let spec = bench.spec(&server()).unwrap();
    assert_eq!(spec["ingress"][1]["ports"][0]["port"], 54);

    let open = Cluster::default()
        .with(cluster::namespace("shop"))
        .with(pod("server", "server"));
    bench.models.send_replace(Some(compiled(&open)));
    bench.settle().await;
    assert_eq!(bench.writes(), [Method::DELETE]);
    assert_eq!(bench.spec(&server()), None);
}

#[tokio::test(start_paused = true)]
async fn altered_network_policy_is_restored_at_limited_rate() {
    let mut bench = Bench::new(&closed());
    bench.settle().await;
    let right = bench.api.read(&path(&server())).unwrap();
    let start = Instant::now();
    for edit in ["/spec/ingress", "/metadata/ownerReferences"] {
        let edited = cluster::set(right.clone(), edit, json!([]));
        bench.write(&server(), edited);
        bench.settle().await;
        let now = bench.api.read(&path(&server())).unwrap();
        assert_eq!(now["spec"], right["spec"], "{edit}");
        assert_eq!(
            now["metadata"]["ownerReferences"],
            right["metadata"]["ownerReferences"]
        );
    }
    // Without its label it is still known as ours.
    let bare = cluster::set(right.clone(), "/metadata/labels", json!({}));
    let bare = cluster::set(
        bare,
        "/metadata/managedFields",
        json!([{"manager": MANAGER}]),
    );
    let bare = cluster::set(bare, "/spec/ingress", json!([]));
    bench.write(&server(), bare);
    bench.settle().await;
    assert_eq!(bench.spec(&server()).unwrap(), right["spec"]);
    bench.delete(&server());
    bench.settle().await;
    assert_eq!(bench.spec(&server()).unwrap(), right["spec"]);
    assert!(start.elapsed() >= 3 * PACE, "{:?}", start.elapsed());
    assert_eq!(bench.writes().len(), 5);
}

#[tokio::test(start_paused = true)]
async fn a_foreign_policy_withdraws_ours_and_is_not_touched() {
    let mut bench = Bench::new(&closed());
    bench.settle().await;
    let theirs = json!({"metadata": {}, "spec": {"podSelector": {}}});
    bench.write("theirs", theirs);
    // Though ours was written just now.
    assert_eq!(bench.round().await, None);
    assert_eq!(bench.writes(), [Method::POST, Method::DELETE]);
    assert_eq!(bench.spec(&server()), None);
    assert_eq!(bench.spec("theirs").unwrap(), json!({"podSelector": {}}));
    assert_eq!(bench.about_t().lacks, Some("ForeignNetworkPolicy"));
    assert!(bench.about_t().message.contains("theirs"));
    assert_eq!(bench.state.reported.len(), 1);

    bench.delete("theirs");
    sleep(Duration::from_secs(2)).await;
    bench.settle().await;
    assert_eq!(bench.writes(), [Method::POST]);
    assert_eq!(bench.about_t().lacks, None);
}

#[tokio::test(start_paused = true)]
async fn foreign_policy_with_our_name_is_kept_and_reported() {
    let mut bench = Bench::new(&closed());
    let theirs = json!({"metadata": {}, "spec": {"podSelector": {"matchLabels": {"a": "b"}}}});
    bench.write(&server(), theirs);
    bench.settle().await;
    assert_eq!(bench.writes(), [] as [Method; 0]);
    assert_eq!(bench.about_t().lacks, Some("NetworkPolicyNotWritten"));
}

#[tokio::test(start_paused = true)]
async fn a_role_that_was_made_anew_becomes_the_owner() {
    let mut bench = Bench::new(&closed());
    bench.settle().await;
    // Kubernetes removes the policies with their owner.
    bench.api.put(&format!("{ROLES}/{ROLE}"), role("role-2"));
    bench.delete(&server());
    bench.settle().await;
    let written = bench.api.read(&path(&server())).unwrap();
    assert_eq!(written["metadata"]["ownerReferences"][0]["uid"], "role-2");
    // Without the role nothing is written, and nothing is said to be in force.
    bench.api.remove(&format!("{ROLES}/{ROLE}"));
    bench.delete(&server());
    sleep(Duration::from_secs(2)).await;
    assert!(bench.round().await.is_some(), "it is tried again");
    assert_eq!(bench.spec(&server()), None);
    assert_eq!(bench.about_t().lacks, Some("Pending"));
}
