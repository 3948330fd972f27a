//! Reports become the figures of a workload.

use parking_lot::RwLock;
use tokio::time::Instant;

use super::*;
use crate::observe::ended_pods;
use crate::testing::topology::{
    INTERVAL_NOW, call, inventory, key, report, reports, seen_by_client, seen_by_server,
};

fn view<'a>(inventory: &'a Inventory, reports: &'a Reports) -> View<'a> {
    View {
        inventory,
        reports,
        intervals: (INTERVAL_NOW, INTERVAL_NOW + 1),
    }
}

/// What the object receives: good and bad calls.
fn received(view: &View<'_>, kind: MetricsKind, namespace: &str, name: &str) -> (u64, u64) {
    let side = if kind.has_pods() {
        Side::Server
    } else {
        Side::Client
    };
    let totals = view.totals(kind, side);
    let sums = totals.get(&(key(namespace, name), String::new()));
    sums.map_or((0, 0), |sums| (sums.success, sums.failure))
}

fn ends(
    view: &View<'_>,
    namespace: &str,
    name: &str,
    side: Option<Side>,
) -> Vec<(Direction, Side, EdgeEnd, u64)> {
    let of = (MetricsKind::Deployment, key(namespace, name));
    let edges = view.edges(&of, side, MetricsKind::Deployment);
    edges
        .into_iter()
        .map(|(edge, sums)| (edge.direction, edge.side, edge.end, sums.success))
        .collect()
}

fn deployment(namespace: &str, name: &str) -> EdgeEnd {
    EdgeEnd::Object(MetricsKind::Deployment, key(namespace, name))
}

#[test]
fn every_kind_gets_the_calls_of_its_pods_once() {
    let (inventory, reports) = (inventory(), reports());
    call(&reports, "shop/web", "shop/api", 10, 2);
    let view = view(&inventory, &reports);
    for (kind, namespace, name) in [
        (MetricsKind::Pod, "shop", "api-1"),
        (MetricsKind::ReplicaSet, "shop", "api-rs"),
        (MetricsKind::Deployment, "shop", "api"),
        (MetricsKind::Service, "shop", "api"),
        (MetricsKind::Namespace, "", "shop"),
        (MetricsKind::Node, "", "n1"),
    ] {
        assert_eq!(received(&view, kind, namespace, name), (10, 2), "{kind:?}");
    }
    assert_eq!(
        received(&view, MetricsKind::Deployment, "shop", "web"),
        (0, 0)
    );
}

#[test]
fn two_that_call_each_other_keep_two_edges_each() {
    let (inventory, reports) = (inventory(), reports());
    call(&reports, "shop/web", "shop/api", 10, 0);
    call(&reports, "shop/api", "shop/web", 3, 0);
    let view = view(&inventory, &reports);
    assert_eq!(
        ends(&view, "shop", "web", None),
        [
            (Direction::From, Side::Server, deployment("shop", "api"), 3),
            (Direction::To, Side::Client, deployment("shop", "api"), 10),
        ]
    );
}

#[test]
fn same_name_in_another_namespace_is_another_object() {
    let (inventory, reports) = (inventory(), reports());
    call(&reports, "bank/web", "shop/web", 7, 0);
    let view = view(&inventory, &reports);
    assert_eq!(
        ends(&view, "shop", "web", None),
        [(Direction::From, Side::Server, deployment("bank", "web"), 7)]
    );
    assert_eq!(
        ends(&view, "bank", "web", None),
        [(Direction::To, Side::Client, deployment("shop", "web"), 7)]
    );
    assert_eq!(
        received(&view, MetricsKind::Deployment, "bank", "web"),
        (0, 0)
    );
}

#[test]
fn call_to_oneself_shows_in_both_directions() {
    let (inventory, reports) = (inventory(), reports());
    call(&reports, "shop/web", "shop/web", 4, 0);
    let view = view(&inventory, &reports);
    assert_eq!(
        ends(&view, "shop", "web", None),
        [
            (Direction::From, Side::Server, deployment("shop", "web"), 4),
            (Direction::To, Side::Client, deployment("shop", "web"), 4),
        ]
    );
}

#[test]
fn side_asks_the_other_end_of_the_same_calls() {
    let (inventory, reports) = (inventory(), reports());
    // Two calls never reached the server.
    report(&reports, "shop/web", vec![seen_by_client("shop/api", 9, 0)]);
    report(&reports, "shop/api", vec![seen_by_server("shop/web", 7, 0)]);
    let view = view(&inventory, &reports);
    let one = |side| ends(&view, "shop", "api", Some(side));
    let web = || deployment("shop", "web");
    assert_eq!(
        one(Side::Server),
        [(Direction::From, Side::Server, web(), 7)]
    );
    assert_eq!(
        one(Side::Client),
        [(Direction::From, Side::Client, web(), 9)]
    );
    let totals = view.totals(MetricsKind::Deployment, Side::Client);
    assert_eq!(totals[&(key("shop", "api"), String::new())].success, 9);
}

#[test]
fn edge_end_of_unknown_or_other_kind_is_kept() {
    let (inventory, reports) = (inventory(), reports());
    let outside = v1_edge(|edge| (edge.caller, edge.identity) = (String::new(), String::new()));
    let gone = v1_edge(|edge| (edge.caller, edge.identity) = ("old".into(), "bank/batch".into()));
    let bare = v1_edge(|edge| edge.caller = "shop-bare".into());
    report(&reports, "shop/api", vec![outside, gone, bare]);
    let nowhere = wire::v1::Edge {
        pod: String::new(),
        ..seen_by_client("shop/web", 0, 1)
    };
    report(&reports, "shop/api", vec![nowhere]);
    let view = view(&inventory, &reports);
    let seen: Vec<EdgeEnd> = ends(&view, "shop", "api", None)
        .into_iter()
        .map(|(_, _, end, _)| end)
        .collect();
    assert_eq!(
        seen,
        [
            EdgeEnd::Object(MetricsKind::Pod, key("shop", "bare")),
            EdgeEnd::Namespace("bank".to_owned()),
            EdgeEnd::External,
            EdgeEnd::Object(MetricsKind::Service, key("shop", "web")),
        ]
    );
}

fn v1_edge(change: impl FnOnce(&mut wire::v1::Edge)) -> wire::v1::Edge {
    let mut edge = seen_by_server("shop/web", 1, 0);
    change(&mut edge);
    edge
}

#[test]
fn pod_that_is_gone_still_counts_for_its_owners() {
    let (mut inventory, reports) = (inventory(), reports());
    call(&reports, "shop/web", "shop/api", 5, 0);
    let now = tokio::time::Instant::now();
    inventory.end(MetricsKind::Pod, &key("shop", "api-1"), now);
    inventory.end(MetricsKind::ReplicaSet, &key("shop", "api-rs"), now);
    let view = view(&inventory, &reports);
    assert_eq!(
        received(&view, MetricsKind::Deployment, "shop", "api"),
        (5, 0)
    );
    assert!(
        inventory
            .get(MetricsKind::Pod, &key("shop", "api-1"))
            .is_none()
    );
}

#[test]
fn split_has_only_its_own_calls_by_backend() {
    let (inventory, reports) = (inventory(), reports());
    let through = |split: &str, backend: &str, good| wire::v1::Edge {
        split: split.to_owned(),
        backend: backend.to_owned(),
        ..seen_by_client("shop/api", good, 0)
    };
    let edges = vec![
        through("shop/roll", "shop/v1", 90),
        through("shop/roll", "shop/v2", 10),
        through("bank/roll", "bank/v2", 55),
        through("", "shop/api", 33),
    ];
    report(&reports, "shop/web", edges);
    let view = view(&inventory, &reports);
    let totals = view.totals(MetricsKind::TrafficSplit, Side::Client);
    let of = |backend: &str| totals[&(key("shop", "roll"), backend.to_owned())].success;
    assert_eq!((of("v1"), of("v2")), (90, 10));
    assert_eq!(
        received(&view, MetricsKind::Service, "shop", "api"),
        (188, 0)
    );
}

#[test]
fn only_the_window_counts() {
    let (inventory, reports) = (inventory(), reports());
    call(&reports, "shop/web", "shop/api", 5, 0);
    for intervals in [
        (INTERVAL_NOW - 6, INTERVAL_NOW),
        (INTERVAL_NOW + 1, INTERVAL_NOW + 7),
    ] {
        let view = View {
            intervals,
            ..view(&inventory, &reports)
        };
        assert_eq!(
            received(&view, MetricsKind::Deployment, "shop", "api"),
            (0, 0)
        );
    }
}

#[test]
fn retried_failures_count_and_local_refusals_are_no_attempts() {
    let (inventory, reports) = (inventory(), reports());
    let tried = |good, bad, attempts, failed, cancelled| wire::v1::Edge {
        attempts: Some(attempts),
        attempt_failures: failed,
        cancelled,
        ..seen_by_client("shop/api", good, bad)
    };
    let edges = vec![
        // Three of ten were good only at the second try; two callers left.
        tried(10, 0, 15, 3, 2),
        // No backend was chosen.
        tried(0, 7, 0, 0, 0),
        // A proxy that does not tell them apart.
        seen_by_client("shop/api", 5, 1),
    ];
    report(&reports, "shop/web", edges);
    let view = view(&inventory, &reports);
    let seen = received(&view, MetricsKind::Service, "shop", "api");
    assert_eq!(seen, (10 + 5, 3 + 1));
}

/// As `weft_requests_total`, which leaves them out too.
// Claims: R8
#[test]
fn cancelled_call_counts_as_neither_outcome_on_either_side() {
    let (inventory, reports) = (inventory(), reports());
    let left = |edge: wire::v1::Edge| wire::v1::Edge {
        cancelled: 4,
        ..edge
    };
    let of_client = wire::v1::Edge {
        attempts: Some(5 + 1 + 4),
        attempt_failures: 1,
        ..left(seen_by_client("shop/api", 5, 1))
    };
    // Of an older proxy.
    let uncounted = left(seen_by_client("shop/api", 3, 2));
    report(&reports, "shop/web", vec![of_client, uncounted]);
    report(
        &reports,
        "shop/api",
        vec![left(seen_by_server("shop/web", 8, 3))],
    );
    let view = view(&inventory, &reports);
    for kind in [
        MetricsKind::Service,
        MetricsKind::Pod,
        MetricsKind::Deployment,
    ] {
        let name = if kind == MetricsKind::Pod {
            "api-1"
        } else {
            "api"
        };
        assert_eq!(received(&view, kind, "shop", name), (8, 3), "{kind:?}");
    }
}

/// As a replica that began after the end of both pods.
#[test]
fn calls_of_pods_known_to_peer_reach_owners() {
    let (mut there, reports) = (inventory(), reports());
    call(&reports, "shop/web", "shop/api", 10, 2);
    let at = Instant::now();
    let pods = ["web-1", "api-1"].map(|name| key("shop", name));
    for pod in &pods {
        there.end(MetricsKind::Pod, pod, at);
    }
    let here = RwLock::new(Inventory::default());
    let calls = |here: &Inventory| {
        let view = view(here, &reports);
        let receives = received(&view, MetricsKind::Deployment, "shop", "api");
        (receives, ends(&view, "shop", "web", None))
    };
    assert_eq!(calls(&here.read()), ((0, 0), Vec::new()), "the control");
    let (_, ended) = ended_pods::ended_since(&there, 0, at);
    ended_pods::receive(&here, ended.unwrap().ended, at);
    let to = (Direction::To, Side::Client, deployment("shop", "api"), 10);
    assert_eq!(calls(&here.read()), ((10, 2), vec![to]));
}
