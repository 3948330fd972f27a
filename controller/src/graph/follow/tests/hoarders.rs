//! What stays of pods that reported too much, and how often.

use super::*;
use crate::inventory::InventoryObject;
use crate::inventory::kind::MetricsKind;

/// So many calls that one pod reports in an interval; twice as many are more than its share.
const HOARD: u64 = 90;

/// One pod reports so many in this interval.
fn hoard(reports: &Reports, interval: u64) {
    let hoarder = crate::observe::reports::Reporter {
        uid: "bank-web".into(),
        pod: topology::key("bank", "web-1"),
        account: None,
    };
    let edges = (0..HOARD).map(|at| topology::seen_by_client(&format!("bank/x{at}"), 1, 0));
    let report = wire::v1::Report {
        process: 1,
        slot: interval * INTERVAL,
        edges: edges.collect(),
        ..wire::v1::Report::default()
    };
    reports.take(&hoarder, report, true, now());
}

/// It becomes known that a pod of `bank` is of this Deployment.
fn learn(graph: &Graph, name: &str) {
    let owned = InventoryObject {
        uid: format!("bank-{name}").into(),
        owner: Some((MetricsKind::Deployment, name.into())),
        ..InventoryObject::default()
    };
    let mut inventory = graph.inner.inventory.write();
    for (kind, name, object) in [
        (
            MetricsKind::Deployment,
            name.to_owned(),
            InventoryObject::default(),
        ),
        (MetricsKind::Pod, format!("{name}-1"), owned),
    ] {
        inventory.put(kind, topology::key("bank", &name), Arc::new(object));
    }
}

/// A window that no report can change any more.
fn settled(graph: &Graph, extent: Extent) -> crds::observe::Graph {
    let settled = GraphWindow {
        settled: true,
        ..window_of(extent)
    };
    graph.answer(&settled, now() + SETTLED)
}

/// What a pod loses by its own excess was folded before, and others report of the same interval
/// afterwards.
#[tokio::test]
async fn folded_calls_survive_dropped_reports_and_interval_refold() {
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 100);
    let graph = graph(&reports);
    let before = topology::INTERVAL_NOW - 1;
    hoard(&reports, before);
    graph.look(now(), true).await;
    hoard(&reports, topology::INTERVAL_NOW);
    assert!(!reports.dropped_reports(before).is_empty());
    for late in 1..=2 {
        let called = vec![topology::seen_by_client("shop/api", 1, 0)];
        topology::report_in(&reports, before, "shop/web", called);
        graph.look(now(), true).await;
        let of = |namespace: &str| {
            let extent = Extent {
                namespace: Some(namespace.into()),
                ..Extent::default()
            };
            settled(&graph, extent)
        };
        let calls = |namespace: &str| -> u64 {
            let graph = of(namespace);
            graph.edges.iter().map(|edge| edge.requests).sum()
        };
        assert_eq!((calls("bank"), calls("shop")), (2 * HOARD, late));
        let incomplete = of("bank").metadata.incomplete;
        assert!(
            incomplete
                .as_ref()
                .is_some_and(|why| why.contains("more than their share")),
            "{incomplete:?}"
        );
        assert_eq!(of("shop").metadata.incomplete, None);
    }
}

/// What stays of before was reported of a pod whose owner was unknown. What comes now is its
/// owner's.
#[tokio::test]
async fn folded_edge_is_unique_once_owner_is_known() {
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 100);
    let graph = graph(&reports);
    let before = topology::INTERVAL_NOW - 1;
    let called = vec![topology::seen_by_client("bank/api", 1, 0)];
    topology::report_in(&reports, before, "bank/other", called);
    hoard(&reports, before);
    graph.look(now(), true).await;
    hoard(&reports, topology::INTERVAL_NOW);
    assert!(!reports.dropped_reports(before).is_empty());
    learn(&graph, "api");
    let late = vec![topology::seen_by_client("shop/api", 1, 0)];
    topology::report_in(&reports, before, "shop/web", late);
    graph.look(now(), true).await;
    let graph_edges = settled(&graph, Extent::default());
    let to: Vec<&str> = graph_edges
        .edges
        .iter()
        .map(|edge| edge.to.as_str())
        .collect();
    assert!(to.contains(&"bank/Deployment/api"), "{to:?}");
    assert!(!to.contains(&"bank/Pod/api-1"), "{to:?}");
    // Of no known owner yet, and no less than before.
    let unknown = to.iter().filter(|to| to.starts_with("bank/Pod/x"));
    assert_eq!(unknown.count() as u64, HOARD, "{to:?}");
}

/// The same of a caller of which only the account was reported.
#[tokio::test]
async fn account_edge_is_unique_once_pod_is_known() {
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 100);
    let graph = graph(&reports);
    let before = topology::INTERVAL_NOW - 1;
    let served = vec![topology::seen_by_server("bank/late", 1, 0)];
    topology::report_in(&reports, before, "bank/other", served);
    hoard(&reports, before);
    graph.look(now(), true).await;
    let callers = || -> Vec<(String, u64)> {
        let graph_edges = settled(&graph, Extent::default()).edges.into_iter();
        let graph_edges = graph_edges.filter(|edge| edge.to == "bank/Pod/other-1");
        graph_edges.map(|edge| (edge.from, edge.requests)).collect()
    };
    assert_eq!(callers(), [("bank/ServiceAccount/late".to_owned(), 1)]);
    hoard(&reports, topology::INTERVAL_NOW);
    assert!(!reports.dropped_reports(before).is_empty());
    learn(&graph, "late");
    let more = vec![topology::seen_by_client("shop/api", 1, 0)];
    topology::report_in(&reports, before, "shop/web", more);
    graph.look(now(), true).await;
    assert_eq!(callers(), [("bank/Deployment/late".to_owned(), 1)]);
}
