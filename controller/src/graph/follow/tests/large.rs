//! How long a response of many edges takes.

use super::*;
use crate::testing::computed;

/// Workloads, and edges of each, of which a response must be there in this time.
const WORKLOADS: usize = 1_000;
const EDGES_OF_EACH: usize = 10;
const WITHIN: Duration = Duration::from_millis(200);
/// The same where the compiler hardly optimises, as for tests.
const WITHIN_HERE: u32 = if cfg!(debug_assertions) { 3 } else { 1 };
/// By how much more a response about four times as many workloads may take: what is looked at once
/// for each of them is four times as much, and once for each pair sixteen times.
const GROWTH: u32 = 8;

/// So many workloads, of which each calls ten others.
async fn large(workloads: usize) -> Graph {
    use crate::inventory::InventoryObject;
    use crate::inventory::kind::MetricsKind;
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 100_000);
    let mut inventory = Inventory::default();
    let mut put = |kind, name: &str, uid: &str, owner: Option<(MetricsKind, &str)>| {
        let thing = InventoryObject {
            uid: uid.into(),
            owner: owner.map(|(kind, name)| (kind, name.into())),
            ..InventoryObject::default()
        };
        inventory.put(kind, topology::key("shop", name), Arc::new(thing));
    };
    for number in 0..workloads {
        let name = format!("w{number}");
        let (set, pod) = (format!("{name}-rs"), format!("{name}-1"));
        let uid = format!("shop-{name}");
        put(MetricsKind::Deployment, &name, "", None);
        put(
            MetricsKind::ReplicaSet,
            &set,
            "",
            Some((MetricsKind::Deployment, &*name)),
        );
        put(
            MetricsKind::Pod,
            &pod,
            &uid,
            Some((MetricsKind::ReplicaSet, &*set)),
        );
        let called = (1..=EDGES_OF_EACH).map(|at| {
            let called = (number + at * 7) % workloads;
            topology::seen_by_client(&format!("shop/w{called}"), 9, 1)
        });
        topology::report(&reports, &format!("shop/{name}"), called.collect());
    }
    let graph = Graph::new(
        reports,
        Arc::new(RwLock::new(inventory)),
        watch::channel(None).1,
        MONTH,
        GraphMetrics::default(),
    );
    graph.look(now(), true).await;
    graph
}

/// What a response takes in the median, which is of so many edges.
fn answered(graph: &Graph, edges: usize) -> Duration {
    let answer = graph.answer(&window_of(Extent::default()), now());
    assert_eq!(answer.edges.len(), edges);
    let mut took = [(); 5].map(|()| {
        // What was made for another reader is not what is measured.
        graph.inner.written.looked();
        let began = computed();
        let text = graph.written(&window_of(Extent::default()), now()).whole();
        let took = computed() - began;
        assert!(text.len() > edges * 100);
        took
    });
    took.sort();
    took[took.len() / 2]
}

// Claims: observability-4
#[tokio::test]
async fn ten_thousand_edges_take_bounded_and_linear_time() {
    let (few, many) = (large(WORKLOADS / 4).await, large(WORKLOADS).await);
    let few = answered(&few, WORKLOADS / 4 * EDGES_OF_EACH);
    let many = answered(&many, WORKLOADS * EDGES_OF_EACH);
    eprintln!(
        "{} edges: {many:?}, a quarter: {few:?}",
        WORKLOADS * EDGES_OF_EACH
    );
    assert!(many < WITHIN * WITHIN_HERE, "{many:?}");
    assert!(many < few * GROWTH, "{many:?}, a quarter of it {few:?}");
}
