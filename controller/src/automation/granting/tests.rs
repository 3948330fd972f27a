//! Tests of grants: which runs a replica grants, and when it stops.

use k8s_openapi::jiff::Timestamp;
use kube::core::DynamicObject;
use model::world::ObjectKey;
use model::{Defaults, Model};
use serde_json::{Value, json};

use super::*;
use crate::automation::followed::FollowedExperiment;
use crate::testing::cluster::{annotate, namespace, set, shop};

const MESH: &str = "weft-system";

fn experiment(ends_at: &str) -> Value {
    json!({
        "apiVersion": "weft.dev/v1alpha1", "kind": "FaultExperiment",
        "metadata": {
            "name": "slow", "namespace": "shop", "uid": "u", "generation": 1,
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {
            "targetRef": {"kind": "Service", "name": "api"}, "share": "10%",
            "fault": {"abort": {}}, "duration": "5m",
            "checks": [{"service": "api", "errorRate": {"max": "2%"}}],
        },
        "status": {"phase": "Running", "run": {"number": 1, "endsAt": ends_at,
            "state": "{\"g\":1}"}},
    })
}

/// What is granted at 10:00:00 of a run until 10:01:00, whose last write is a second old.
struct Scene {
    experiment: Value,
    namespace: Value,
    mesh: Value,
    written: Option<Duration>,
}

impl Scene {
    fn fine() -> Self {
        Self {
            experiment: experiment("2026-11-29T10:01:00Z"),
            namespace: annotate(namespace("shop"), "weft.dev/faults", "allowed"),
            mesh: namespace(MESH),
            written: Some(Duration::from_secs(1)),
        }
    }

    fn granted(&self) -> Vec<GrantedRun> {
        let cluster = shop()
            .with(self.namespace.clone())
            .with(self.mesh.clone())
            .with(self.experiment.clone());
        let world = Arc::new(cluster.world());
        let (model, problems) = Model::compile(&world, &Defaults::default());
        let compiled = Compiled::new(world, model, problems);
        let now = Instant::now();
        let object: DynamicObject = serde_json::from_value(self.experiment.clone()).unwrap();
        let one = FollowedExperiment {
            object,
            written: self.written.and_then(|ago| now.checked_sub(ago)),
        };
        let followed = [(ObjectKey::new("shop", "slow"), Arc::new(one))].into();
        let clock: Timestamp = "2026-11-29T10:00:00Z".parse().unwrap();
        granted(&compiled, &followed, MESH, now, clock.into())
    }
}

#[tokio::test(start_paused = true)]
async fn run_that_is_driven_and_allowed_is_granted() {
    tokio::time::advance(Duration::from_secs(60)).await;
    let granted = Scene::fine().granted();
    assert_eq!(granted.len(), 1);
    let run = &granted[0];
    assert_eq!(&*run.experiment, "shop/slow");
    let policy = wire::names::policy("shop", "api", 80);
    assert!(run.policies.contains(&policy), "{run:?}");
    let left = run.ends.saturating_duration_since(Instant::now());
    assert_eq!(left, Duration::from_secs(60));
}

#[tokio::test(start_paused = true)]
async fn any_condition_that_fails_withdraws_the_grant() {
    tokio::time::advance(Duration::from_secs(60)).await;
    let of = |change: fn(&mut Scene)| {
        let mut scene = Scene::fine();
        change(&mut scene);
        scene.granted()
    };
    let phase = |scene: &mut Scene| {
        scene.experiment = set(scene.experiment.clone(), "/status/phase", json!("Waiting"));
    };
    assert_eq!(of(phase), [], "phase");
    let past = |scene: &mut Scene| scene.experiment = experiment("2026-11-29T10:00:00Z");
    assert_eq!(of(past), [], "end");
    let silent = |scene: &mut Scene| scene.written = Some(Duration::from_secs(16));
    assert_eq!(of(silent), [], "no write");
    let dead = |scene: &mut Scene| scene.written = None;
    assert_eq!(of(dead), [], "never a write");
    let changed = |scene: &mut Scene| {
        scene.experiment = set(scene.experiment.clone(), "/metadata/generation", json!(2));
    };
    assert_eq!(of(changed), [], "spec");
    let deleted = |scene: &mut Scene| {
        let at = json!("2026-11-29T09:59:59Z");
        let experiment = scene.experiment.clone();
        scene.experiment = set(experiment, "/metadata/deletionTimestamp", at);
    };
    assert_eq!(of(deleted), [], "deletion");
    let withdrawn = |scene: &mut Scene| scene.namespace = namespace("shop");
    assert_eq!(of(withdrawn), [], "annotation");
    let stopped = |scene: &mut Scene| {
        scene.mesh = annotate(namespace(MESH), "weft.dev/faults", "stopped");
    };
    assert_eq!(of(stopped), [], "kill switch");
}

#[tokio::test(start_paused = true)]
async fn forged_end_grants_no_more_than_the_duration() {
    tokio::time::advance(Duration::from_secs(60)).await;
    let mut scene = Scene::fine();
    scene.experiment = experiment("2099-01-01T00:00:00Z");
    let left = scene.granted()[0].ends - Instant::now();
    assert_eq!(left, Duration::from_secs(300));
}
