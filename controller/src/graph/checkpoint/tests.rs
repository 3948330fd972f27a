//! What is written down survives its replica.
//!
//! Claims: observe-149

use std::sync::Arc;

use parking_lot::RwLock;
use prometheus_client::metrics::counter::Counter;
use serde_json::json;
use tokio::time::sleep;

use super::*;
use crate::apiserver::lease::{LeaderElector, Stage};
use crate::graph::answer::Extent;
use crate::graph::follow::GraphWindow;
use crate::metrics::GraphMetrics;
use crate::testing::api_server::FakeApi;
use crate::testing::topology::{call, inventory, now, reports};

mod overfull;

const PLACE: &str = "/api/v1/namespaces/weft-system/configmaps";
const ROLE_PATH: &str =
    "/apis/rbac.authorization.k8s.io/v1/namespaces/weft-system/roles/weft-observe";

/// What the chart brings.
fn cluster() -> FakeApi {
    let api = FakeApi::default();
    put_role(&api, "role-1");
    api
}

fn put_role(api: &FakeApi, uid: &str) {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role",
        "metadata": {"name": ROLE, "namespace": "weft-system", "uid": uid},
    });
    api.put(ROLE_PATH, role);
}

fn checkpointer(api: &FakeApi, allowed: bool) -> Checkpointer {
    let graph = Graph::new(
        reports(),
        Arc::new(RwLock::new(inventory())),
        watch::channel(None).1,
        Duration::from_secs(30 * 24 * 3600),
        GraphMetrics::default(),
    );
    let (events, writer) = EventRecorder::new(api.client(), "me", Counter::default());
    tokio::spawn(writer.run(std::future::pending()));
    Checkpointer {
        leading: api.client(),
        client: api.client(),
        namespace: "weft-system".to_owned(),
        graph,
        leadership: Leadership::fixed(allowed),
        events,
    }
}

/// A checkpointer whose graph has seen one call.
async fn one_that_saw(api: &FakeApi, from: &str, to: &str) -> Checkpointer {
    let mut checkpointer = checkpointer(api, true);
    let reports = reports();
    call(&reports, from, to, 1, 0);
    checkpointer.graph = Graph::new(
        reports,
        Arc::new(RwLock::new(inventory())),
        watch::channel(None).1,
        Duration::from_secs(30 * 24 * 3600),
        GraphMetrics::default(),
    );
    checkpointer.graph.look(now(), true).await;
    checkpointer
}

fn persisted(checkpointer: &Checkpointer) -> Vec<(String, String)> {
    let window = GraphWindow {
        intervals: 12,
        extent: Extent {
            quiet: true,
            gone: true,
            ..Extent::default()
        },
        ..GraphWindow::default()
    };
    let later = now() + Duration::from_secs(7200);
    let edges = checkpointer.graph.answer(&window, later).edges.into_iter();
    let mut ends: Vec<_> = edges.map(|edge| (edge.from, edge.to)).collect();
    ends.sort();
    ends
}

fn ends(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

// Claims: observability-3
#[tokio::test]
async fn persisted_edge_survives_replica_and_foreign_writes() {
    let api = cluster();
    let first = one_that_saw(&api, "shop/web", "shop/api").await;
    assert!(first.write().await);
    // Another one that never read writes too.
    let second = one_that_saw(&api, "bank/web", "shop/api").await;
    assert!(second.write().await);
    let third = checkpointer(&api, false);
    assert!(third.read(&mut Versions::default()).await);
    let both = [
        ends("bank/Deployment/web", "shop/Deployment/api"),
        ends("shop/Deployment/web", "shop/Deployment/api"),
    ];
    assert_eq!(persisted(&third), both);
    // What is as it was is not written again.
    let writes = api.writes().len();
    assert!(second.write().await);
    assert_eq!(api.writes().len(), writes);
}

#[tokio::test]
async fn what_was_read_already_is_not_fetched_again() {
    let api = cluster();
    let first = one_that_saw(&api, "shop/web", "shop/api").await;
    assert!(first.write().await);
    let fetched = || {
        let paths = (0..SHARDS).map(|shard| format!("{PLACE}/{}", name(shard)));
        paths.map(|path| api.whole_reads(&path)).sum::<usize>()
    };
    let reader = checkpointer(&api, false);
    let (mut versions, before) = (Versions::default(), fetched());
    for _ in 0..3 {
        assert!(reader.read(&mut versions).await);
        assert_eq!(fetched() - before, SHARDS);
    }
    let second = one_that_saw(&api, "bank/web", "shop/api").await;
    assert!(second.write().await);
    let before = fetched();
    assert!(reader.read(&mut versions).await);
    assert!(fetched() > before);
    assert_eq!(persisted(&reader).len(), 2);
    // Nor is what is gone.
    let before = fetched();
    for shard in 0..SHARDS {
        api.remove(&format!("{PLACE}/{}", name(shard)));
    }
    assert!(reader.read(&mut versions).await);
    assert_eq!(fetched(), before);
}

#[tokio::test(start_paused = true)]
async fn graph_reports_when_all_persisted_edges_are_loaded() {
    let api = cluster();
    let reader = checkpointer(&api, false);
    assert!(!reader.graph.startup().has_loaded());
    let (_stop, stopping) = watch::channel(false);
    let task = tokio::spawn(reader.clone().run(stopping));
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert!(reader.graph.startup().has_loaded());
    task.abort();
    let nothing = Graph::new(
        reports(),
        Arc::new(RwLock::new(inventory())),
        watch::channel(None).1,
        Duration::ZERO,
        GraphMetrics::default(),
    );
    assert!(nothing.startup().has_loaded(), "nothing is written down");
}

#[tokio::test]
async fn persisted_edges_are_polled_faster_until_first_load() {
    for is_read in [true, false] {
        let reader = checkpointer(&cluster(), false);
        assert_eq!(reader.pause(), LOAD_INTERVAL);
        if is_read {
            reader.graph.startup().set_loaded();
        } else {
            // No query waits for it any more.
            reader.graph.startup().grow();
        }
        assert_eq!(reader.pause(), LOOK_EVERY, "read: {is_read}");
    }
}

#[tokio::test]
async fn failed_load_is_named_with_advice_until_resolved() {
    let api = cluster();
    let reader = checkpointer(&api, false);
    let unknown = reader.graph.startup().why_unread();
    api.break_down();
    assert!(!reader.read(&mut Versions::default()).await);
    let why = reader.graph.startup().why_unread();
    for words in ["ConfigMap weft-graph-0 ", "weft-system", "500", ROLE] {
        assert!(why.contains(words) && !unknown.contains(words), "{why}");
    }
    reader.graph.startup().set_loaded();
    assert_eq!(reader.graph.startup().why_unread(), unknown);
}

#[tokio::test(start_paused = true)]
async fn final_write_of_holder_reaches_earlier_started_replicas() {
    let api = cluster();
    let reader = checkpointer(&api, false);
    let (_stop, stopping) = watch::channel(false);
    let task = tokio::spawn(reader.clone().run(stopping));
    tokio::time::sleep(Duration::from_secs(5)).await;
    let ending = one_that_saw(&api, "shop/web", "shop/api").await;
    assert!(persisted(&reader).is_empty());
    assert!(ending.write().await);
    tokio::time::sleep(LOOK_EVERY).await;
    assert_eq!(
        persisted(&reader),
        [ends("shop/Deployment/web", "shop/Deployment/api")]
    );
    // What is as it was is not taken in again.
    reader.graph.with_memory(|memory, _| {
        *memory = crate::graph::memory::Memory::default();
    });
    tokio::time::sleep(LOOK_EVERY).await;
    assert!(persisted(&reader).is_empty());
    task.abort();
}

#[tokio::test(start_paused = true)]
async fn only_holder_writes_at_start_hourly_and_at_shutdown() {
    let api = cluster();
    let holder = one_that_saw(&api, "shop/web", "shop/api").await;
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(holder.clone().run(stopping));
    // What it finds, and then what it wrote, as if that had been taken away.
    let shard = format!("{PLACE}/weft-graph-0");
    tokio::time::sleep(Duration::from_secs(5)).await;
    assert_eq!(api.writes().len(), SHARDS);
    api.remove(&shard);
    tokio::time::sleep(Duration::from_secs(3000)).await;
    assert!(api.read(&shard).is_none());
    tokio::time::sleep(Duration::from_secs(700)).await;
    assert!(api.read(&shard).is_some());
    holder.graph.with_memory(|memory, edges| {
        let mut more = crate::graph::memory::Memory::default();
        std::mem::swap(memory, &mut more);
        let _ = edges.size();
    });
    api.remove(&shard);
    stop.send_replace(true);
    task.await.unwrap();
    assert!(api.read(&shard).is_some(), "written at its end");
    let api = cluster();
    let mut other = one_that_saw(&api, "shop/web", "shop/api").await;
    other.leadership = Leadership::fixed(false);
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(other.run(stopping));
    tokio::time::sleep(Duration::from_secs(8000)).await;
    stop.send_replace(true);
    task.await.unwrap();
    assert!(api.writes().is_empty());
}

#[tokio::test]
async fn unreadable_shard_is_set_aside_and_reported_others_continue() {
    let api = cluster();
    let broken = ConfigMap {
        metadata: ObjectMeta {
            name: Some("weft-graph-0".to_owned()),
            ..ObjectMeta::default()
        },
        binary_data: Some(BTreeMap::from([(
            KEY.to_owned(),
            ByteString(b"no gzip".to_vec()),
        )])),
        ..ConfigMap::default()
    };
    let path = format!("{PLACE}/weft-graph-0");
    api.put(&path, serde_json::to_value(broken).unwrap());
    let checkpointer = one_that_saw(&api, "shop/web", "shop/api").await;
    assert!(checkpointer.read(&mut Versions::default()).await);
    assert!(checkpointer.write().await);
    let aside = api.read(&format!("{PLACE}/weft-graph-broken-0")).unwrap();
    let object: ConfigMap = serde_json::from_value(aside).unwrap();
    assert_eq!(object.binary_data.unwrap()[KEY].0, b"no gzip");
    let good: ConfigMap = serde_json::from_value(api.read(&path).unwrap()).unwrap();
    assert!(checkpointer.take(&good).await.is_ok());
    tokio::time::sleep(Duration::from_millis(300)).await;
    let events = api.below("/apis/events.k8s.io/v1/");
    assert!(
        events
            .iter()
            .any(|event| event["reason"] == "GraphUnreadable"),
        "{events:?}"
    );
    assert_eq!(persisted(&checkpointer).len(), 1);
}

#[tokio::test]
async fn checkpoints_are_deleted_with_their_role() {
    let api = cluster();
    let checkpointer = one_that_saw(&api, "shop/web", "shop/api").await;
    let owners = || {
        let object = api.below(PLACE);
        let owners = object
            .iter()
            .map(|object| object["metadata"]["ownerReferences"].clone());
        owners.collect::<Vec<_>>()
    };
    let owner = |uid: &str| {
        json!([{
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "name": ROLE, "uid": uid,
        }])
    };
    assert!(checkpointer.write().await);
    assert_eq!(owners(), vec![owner("role-1"); SHARDS]);
    // Of a chart that was deleted and installed again.
    put_role(&api, "role-2");
    assert!(checkpointer.write().await);
    assert_eq!(owners(), vec![owner("role-2"); SHARDS]);
    // When the mesh leaves, the last writing leaves nothing behind.
    api.remove(ROLE_PATH);
    for shard in 0..SHARDS {
        api.remove(&format!("{PLACE}/{}", name(shard)));
    }
    assert!(!checkpointer.write().await);
    assert!(owners().is_empty());
}

// Claims: observability-3
#[tokio::test(start_paused = true)]
async fn new_holder_writes_at_shutdown_after_releasing_lease() {
    let api = cluster();
    let mut holder = one_that_saw(&api, "shop/web", "shop/api").await;
    let (elector, leadership) = LeaderElector::new(api.client(), "weft-system", "one", "me");
    holder.leadership = leadership;
    let (stop, stopping) = watch::channel(false);
    let task = tokio::spawn(holder.run(stopping));
    // It has looked, and does not lead.
    sleep(Duration::from_secs(5)).await;
    let (end, ends) = watch::channel(false);
    let (_stage, stages) = watch::channel(Stage::default());
    let lease = tokio::spawn(elector.run(stop::requested(ends), stages));
    sleep(Duration::from_secs(5)).await;
    // What it wrote when it took the Lease.
    let shard = format!("{PLACE}/weft-graph-0");
    api.remove(&shard);
    end.send_replace(true);
    lease.await.unwrap();
    stop.send_replace(true);
    task.await.unwrap();
    assert!(api.read(&shard).is_some());
}

/// The one before was killed an hour after it wrote, and this one may be killed before it has
/// held the Lease for an hour.
#[tokio::test(start_paused = true)]
async fn new_holder_soon_writes_known_and_earlier_persisted_edges() {
    let api = cluster();
    let before = one_that_saw(&api, "bank/web", "shop/api").await;
    assert!(before.write().await);
    let mut next = one_that_saw(&api, "shop/web", "shop/api").await;
    let (elector, leadership) = LeaderElector::new(api.client(), "weft-system", "one", "me");
    next.leadership = leadership;
    let (_stop, stopping) = watch::channel(false);
    let task = tokio::spawn(next.run(stopping));
    let written = async || {
        let reader = checkpointer(&api, false);
        assert!(reader.read(&mut Versions::default()).await);
        persisted(&reader)
    };
    sleep(Duration::from_secs(600)).await;
    let old = ends("bank/Deployment/web", "shop/Deployment/api");
    let new = ends("shop/Deployment/web", "shop/Deployment/api");
    assert_eq!(
        written().await,
        std::slice::from_ref(&old),
        "it does not lead"
    );
    let (_end, ending) = watch::channel(false);
    let (_stage, stages) = watch::channel(Stage::default());
    let lease = tokio::spawn(elector.run(stop::requested(ending), stages));
    sleep(LOOK_EVERY).await;
    assert_eq!(written().await, [old, new]);
    task.abort();
    lease.abort();
}

// Claims: observability-3
#[tokio::test(start_paused = true)]
async fn last_write_of_predecessor_reaches_new_holder() {
    let api = cluster();
    let holder = checkpointer(&api, true);
    let (_stop, stopping) = watch::channel(false);
    let task = tokio::spawn(holder.clone().run(stopping));
    sleep(Duration::from_secs(5)).await;
    let before = one_that_saw(&api, "shop/web", "shop/api").await;
    assert!(before.write().await);
    sleep(LOOK_EVERY).await;
    let known = [ends("shop/Deployment/web", "shop/Deployment/api")];
    assert_eq!(persisted(&holder), known);
    task.abort();
}

/// It has its own Lease back at once, and what was seen since the last writing is known to the
/// other replica alone.
#[tokio::test(start_paused = true)]
async fn edges_lost_by_holder_are_written_by_replica() {
    let api = cluster();
    assert!(checkpointer(&api, true).write().await);
    let mut other = one_that_saw(&api, "shop/web", "shop/api").await;
    other.leadership = Leadership::fixed(false);
    let (_stop, stopping) = watch::channel(false);
    let task = tokio::spawn(other.run(stopping));
    sleep(LOOK_EVERY * 5 / 2).await;
    let writes = || api.writes().len();
    assert_eq!(
        writes(),
        SHARDS,
        "what no replica wrote since is the holder's"
    );
    // As one does at its beginning: it adds an edge to one shard and knows nothing else.
    let anew = one_that_saw(&api, "bank/web", "shop/api").await;
    for shard in 0..SHARDS {
        api.remove(&format!("{PLACE}/{}", name(shard)));
    }
    assert!(anew.write().await);
    let written = async || {
        let reader = checkpointer(&api, false);
        assert!(reader.read(&mut Versions::default()).await);
        persisted(&reader)
    };
    let new = ends("bank/Deployment/web", "shop/Deployment/api");
    let old = ends("shop/Deployment/web", "shop/Deployment/api");
    assert_eq!(written().await, std::slice::from_ref(&new));
    sleep(LOOK_EVERY).await;
    assert_eq!(written().await, [new, old]);
    // Once: a complete shard is left alone.
    let before = writes();
    sleep(5 * LOOK_EVERY).await;
    assert_eq!(writes(), before);
    task.abort();
}
