//! Whose traffic it is, from the lists of the API server to the answer.
//!
//! Claims: observe-141

use std::collections::BTreeMap;

use model::compiled::Compiled;

use super::*;
use crate::inventory::InventoryObject;
use crate::inventory::kind::MetricsKind;
use crate::testing::cluster;

/// An API server that lists these objects by path, and whose watches never say anything.
fn lists(objects: BTreeMap<String, Vec<Value>>) -> kube::Client {
    let objects = Arc::new(objects);
    let service = tower::service_fn(move |request: Request<Body>| {
        let objects = Arc::clone(&objects);
        async move {
            if request.uri().query().unwrap_or_default().contains("watch=") {
                std::future::pending::<()>().await;
            }
            let items = objects.get(request.uri().path()).cloned();
            let list = json!({"kind": "List", "metadata": {"resourceVersion": "1"},
                "items": items.unwrap_or_default()});
            Ok::<_, Infallible>(Response::new(Body::from(list.to_string().into_bytes())))
        }
    });
    kube::Client::new(service, "default")
}

/// What is followed of these objects and of the pods of a cluster, once it is whole.
async fn follow(objects: BTreeMap<String, Vec<Value>>, cluster: &cluster::Cluster) -> Followed {
    let (model, problems) = cluster.compile();
    let compiled = Compiled::new(Arc::new(cluster.world()), model, problems);
    let (_publish, latest) = watch::channel(Some(Arc::new(compiled)));
    let followed = Followed::start(
        &lists(objects),
        latest,
        Default::default(),
        Default::default(),
    );
    let listed = async {
        while !followed.is_whole() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let listed = tokio::time::timeout(Duration::from_secs(10), listed).await;
    listed.unwrap();
    followed
}

#[tokio::test]
async fn every_owner_kind_reports_traffic_of_its_pods() {
    let owners = [
        ("apis/apps/v1", "StatefulSet", "statefulsets", "db"),
        ("apis/apps/v1", "DaemonSet", "daemonsets", "agent"),
        ("apis/batch/v1", "Job", "jobs", "import"),
        (
            "api/v1",
            "ReplicationController",
            "replicationcontrollers",
            "old",
        ),
        // A kind that is not served, with the name of one that is.
        ("apis/apps.example/v1", "StatefulSet", "clones", "db"),
    ];
    let mut objects = BTreeMap::new();
    let mut cluster = cluster::shop();
    for (i, (at, kind, plural, name)) in owners.iter().enumerate() {
        let meta = json!({"name": name, "namespace": "shop", "uid": format!("{plural}-uid")});
        objects.insert(format!("/{at}/{plural}"), vec![json!({"metadata": meta})]);
        let api_version = at.trim_start_matches("apis/").trim_start_matches("api/");
        let owner = json!([{"apiVersion": api_version, "kind": kind, "name": name,
            "uid": format!("{plural}-uid"), "controller": true}]);
        let pod = cluster::pod(&format!("pod-{i}"), &format!("10.0.9.{i}"), name);
        let pod = cluster::set(pod, "/metadata/ownerReferences", owner);
        cluster = cluster.with(cluster::set(
            pod,
            "/metadata/uid",
            json!(format!("uid-{i}")),
        ));
    }
    let followed = follow(objects, &cluster).await;
    let bench = Bench::about(followed).await;
    for i in 0..owners.len() {
        let edge = seen_by_server("bank/web", i as u64 + 1, 0);
        bench.store_report(&format!("uid-{i}"), &format!("pod-{i}"), edge);
    }
    for (i, (_, kind, plural, name)) in owners.iter().enumerate().take(4) {
        let path = format!("/apis/metrics.smi-spec.io/v1alpha1/namespaces/shop/{plural}/{name}");
        let (status, body) = bench.fetch("reader", &path).await;
        assert_eq!(
            (status, &body["resource"]["kind"]),
            (200, &json!(kind)),
            "{body}"
        );
        let success = json!({"name": "success_count", "value": (i + 1).to_string()});
        assert_eq!(body["metrics"][3], success, "{kind}");
        let (status, edges) = bench.fetch("reader", &format!("{path}/edges")).await;
        assert_eq!(
            (status, edges["items"].as_array().unwrap().len()),
            (200, 1),
            "{edges}"
        );
    }
    let clones = "/apis/metrics.smi-spec.io/v1alpha1/namespaces/shop/clones/db";
    assert_eq!(bench.fetch("reader", clones).await.0, 404);
}

/// What owns a Job or a ReplicaSet is not watched: their own metadata names it.
#[tokio::test]
async fn cronjob_and_rollout_are_known_by_what_they_own() {
    let owned = |name: &str, api_version: &str, kind: &str, owner: &str| {
        let owners = json!([{"apiVersion": api_version, "kind": kind, "name": owner,
            "uid": format!("{owner}-uid"), "controller": true}]);
        let meta = json!({"name": name, "namespace": "shop", "uid": format!("{name}-uid"),
            "ownerReferences": owners});
        json!({"metadata": meta})
    };
    let argo = "argoproj.io/v1alpha1";
    let objects = BTreeMap::from([
        (
            "/apis/batch/v1/jobs".to_owned(),
            vec![owned("report-29387460", "batch/v1", "CronJob", "report")],
        ),
        (
            "/apis/apps/v1/replicasets".to_owned(),
            vec![
                owned("web-5d8", argo, "Rollout", "web"),
                owned("cart-5d8", "clones.example/v1", "Rollout", "cart"),
            ],
        ),
    ]);
    let followed = follow(objects, &cluster::shop()).await;
    let inventory = followed.inventory.read();
    let exists = |kind, name: &str| inventory.exists(kind, &ObjectKey::new("shop", name));
    assert!(exists(MetricsKind::CronJob, "report"));
    assert!(exists(MetricsKind::Rollout, "web"));
    assert!(!exists(MetricsKind::Rollout, "cart"), "of another group");
}

#[tokio::test]
async fn selector_holds_on_every_page() {
    let followed = Followed::default();
    for i in 0..7 {
        let tier = if i % 2 == 0 { "front" } else { "back" };
        let thing = InventoryObject {
            labels: [("tier".to_owned(), tier.to_owned())].into(),
            ..InventoryObject::default()
        };
        let key = ObjectKey::new("shop", &format!("d{i}"));
        let mut inventory = followed.inventory.write();
        inventory.put(MetricsKind::Deployment, key, Arc::new(thing));
    }
    let bench = Bench::about(followed).await;
    let (mut pages, mut next) = (Vec::new(), String::new());
    loop {
        let query = format!("?labelSelector=tier%3Dfront&limit=2&continue={next}");
        let (status, body) = bench
            .fetch("reader", &format!("{DEPLOYMENTS}{query}"))
            .await;
        assert_eq!(status, 200, "{body}");
        let items = body["items"].as_array().unwrap().iter();
        let names = items.map(|item| item["resource"]["name"].as_str().unwrap().to_owned());
        pages.push(names.collect::<Vec<_>>());
        match body["metadata"]["continue"].as_str() {
            Some(token) if pages.len() < 9 => next = token.to_owned(),
            _ => break,
        }
    }
    assert_eq!(pages, [vec!["d0", "d2"], vec!["d4", "d6"]]);
}
