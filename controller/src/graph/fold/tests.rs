//! Reports become edges of workloads, from any side and however often they come.
//!
//! Claims: observe-1, observe-148, observe-3

use std::collections::BTreeMap;
use std::time::Duration;

use wire::v1;

use super::*;
use crate::graph::window::{Counted, edges};
use crate::inventory::Inventory;
use crate::observe::clock_offset::ClockOffset;
use crate::observe::reports::{INTERVAL, Reports};
use crate::testing::computed;
use crate::testing::topology::{
    INTERVAL_NOW, call, inventory, key, now, report, report_at, reports, seen_by_client,
    seen_by_server,
};

mod accounts;

fn fold(reports: &Reports) -> (Folded, Edges) {
    fold_intervals(&reports.of_interval(INTERVAL_NOW))
}

fn fold_intervals(intervals: &[PodInterval]) -> (Folded, Edges) {
    let inventory = inventory();
    let owners = Owners {
        inventory: &inventory,
        model: None,
    };
    let (mut fold, mut known) = (Fold::default(), Edges::default());
    for interval in intervals {
        fold.add(owners, interval, &mut known);
    }
    (fold.done(), known)
}

/// By both ends.
fn graph(reports: &Reports) -> BTreeMap<(String, String), Counted> {
    by_ends(&fold(reports).0)
}

fn by_ends(folded: &Folded) -> BTreeMap<(String, String), Counted> {
    let edges = edges(folded).into_iter();
    let named = |(edge, counted): (EdgeRef, Counted)| {
        let key = edge.key();
        ((key.from.to_string(), key.to.to_string()), counted)
    };
    edges.map(named).collect()
}

fn ends(from: &str, to: &str) -> (String, String) {
    (from.to_owned(), to.to_owned())
}

const WEB: &str = "shop/Deployment/web";
const API: &str = "shop/Deployment/api";

// Claims: observability-2
#[test]
fn caller_numbers_are_shown_beside_callee_numbers() {
    let reports = reports();
    call(&reports, "shop/web", "shop/api", 7, 2);
    report(&reports, "shop/api", vec![seen_by_server("shop/web", 4, 0)]);
    let graph = graph(&reports);
    assert_eq!(graph.len(), 1, "{graph:?}");
    let counted = &graph[&ends(WEB, API)];
    assert_eq!((counted.sums.success, counted.sums.failure), (7, 2));
    assert_eq!(counted.sums.requests(), 9);
    assert_eq!(counted.server.as_ref().unwrap().requests(), 13);
}

#[test]
fn ports_leading_to_same_pod_differ_by_protocol() {
    let reports = reports();
    let spoken = |protocol: v1::Protocol, edge| v1::Edge {
        protocol: protocol.into(),
        ..edge
    };
    let other = v1::Edge {
        port: 9443,
        ..seen_by_client("shop/api", 2, 0)
    };
    let called = vec![
        spoken(v1::Protocol::Http1, seen_by_client("shop/api", 9, 0)),
        spoken(v1::Protocol::Http2, other),
    ];
    report(&reports, "shop/web", called);
    let served = seen_by_server("shop/web", 2, 0);
    let served = vec![spoken(v1::Protocol::Http2, served)];
    report(&reports, "shop/api", served);
    let reported = edges(&fold(&reports).0).into_iter();
    let reported: BTreeMap<u16, Option<u64>> = reported
        .map(|(edge, counted)| {
            (
                edge.key().port,
                counted.server.as_ref().map(EdgeTotals::requests),
            )
        })
        .collect();
    assert_eq!(reported, BTreeMap::from([(80, None), (9443, Some(2))]));
}

#[test]
fn callee_counts_are_shown_when_caller_is_silent() {
    let reports = reports();
    report(&reports, "shop/api", vec![seen_by_server("bank/web", 5, 1)]);
    let mut unknown = seen_by_server("old/batch", 3, 0);
    unknown.caller = "unknown-pod".to_owned();
    report(&reports, "shop/api", vec![unknown]);
    let graph = graph(&reports);
    let counted = &graph[&ends("bank/Deployment/web", API)];
    assert_eq!((counted.sums.requests(), &counted.server), (6, &None));
    assert_eq!(counted.sums.attempts, 6);
    // A pod that is forgotten still has the account that its certificate named.
    assert!(graph.contains_key(&ends("old/ServiceAccount/batch", API)));
}

// Claims: observability-2
#[test]
fn late_repeated_and_swapped_reports_fold_to_the_same() {
    let (one, two, three) = (reports(), reports(), reports());
    let web = |good, bad| ("shop/web", vec![seen_by_client("shop/api", good, bad)]);
    let api = || ("shop/api", vec![seen_by_server("shop/web", 7, 2)]);
    let bank = || ("bank/web", vec![seen_by_client("shop/api", 1, 0)]);
    let deliver = |reports: &Reports, at, (process, by)| {
        report_at(reports, at, (INTERVAL_NOW, process), by);
    };
    // The caller's proxy restarted within the interval.
    for by in [(0, web(7, 2)), (1, web(1, 0)), (0, api()), (0, bank())] {
        deliver(&one, now(), by);
    }
    let expected = graph(&one);
    let counted = &expected[&ends(WEB, API)];
    assert_eq!((counted.sums.success, counted.sums.failure), (8, 2));
    assert_eq!(counted.server.as_ref().map(EdgeTotals::requests), Some(9));
    let counted = &expected[&ends("bank/Deployment/web", API)];
    assert_eq!((counted.sums.requests(), expected.len()), (1, 2));
    for by in [(0, api()), (1, web(1, 0)), (0, web(7, 2))] {
        deliver(&two, now(), by);
    }
    for by in [(0, api()), (0, web(7, 2))] {
        deliver(&two, now(), by);
    }
    // All of the interval overtook what it had while it was open.
    deliver(&two, now(), (0, web(3, 1)));
    deliver(&two, now() + Duration::from_secs(4 * INTERVAL), (0, bank()));
    assert_eq!(graph(&two), expected);
    // Another replica sends all of it, twice.
    let reported = one.own_since(0, now()).1.unwrap();
    for reports in [&one, &two, &three, &three] {
        let opened = tokio::time::Instant::now();
        let mut clock = ClockOffset::of_stream(0, opened);
        reports.receive(reported.clone(), &mut clock, now(), opened);
        assert_eq!(graph(reports), expected);
    }
    // Nor does it matter in which order they are held.
    let mut intervals = two.of_interval(INTERVAL_NOW);
    for _ in 0..intervals.len() {
        intervals.rotate_left(1);
        assert_eq!(by_ends(&fold_intervals(&intervals).0), expected);
    }
}

#[test]
fn external_hosts_and_outside_callers_have_own_nodes() {
    let reports = reports();
    let outside = |remote: &str, side: v1::Side| v1::Edge {
        side: side.into(),
        success: 1,
        port: 443,
        remote: remote.to_owned(),
        ..v1::Edge::default()
    };
    let client = v1::Side::Client;
    let edges = vec![outside("api.example.com", client), outside("", client)];
    report(&reports, "shop/web", edges);
    let edges = vec![outside("10.9.9.9", v1::Side::Server)];
    report(&reports, "shop/api", edges);
    let graph = graph(&reports);
    for ends in [
        ends(WEB, "External/api.example.com"),
        ends(WEB, "External/other"),
        ends("Outside/10.9.9.9", API),
    ] {
        assert!(graph.contains_key(&ends), "{ends:?} in {:?}", graph.keys());
    }
    assert_eq!(graph.len(), 3);
}

#[test]
fn service_without_endpoint_is_end_node_of_calls() {
    let reports = reports();
    let mut edge = seen_by_client("shop/api", 0, 4);
    edge.pod = String::new();
    edge.reasons = vec![v1::ReasonCalls {
        reason: "no-endpoint".to_owned(),
        calls: 4,
    }];
    report(&reports, "shop/web", vec![edge]);
    let graph = graph(&reports);
    let sums = &graph[&ends(WEB, "shop/Service/api")].sums;
    let rare = sums.rare.as_ref().unwrap();
    assert_eq!(rare.reasons, [("no-endpoint".into(), 4)]);
}

#[test]
fn new_report_fields_survive_and_old_reports_derive_theirs() {
    let reports = reports();
    let edge = v1::Edge {
        cancelled: 1,
        attempts: Some(12),
        attempt_failures: 5,
        client_errors: 3,
        open: 2,
        opened: 4,
        security: v1::Security::Mtls.into(),
        protocol: v1::Protocol::Http2.into(),
        ..seen_by_client("shop/api", 7, 2)
    };
    report(&reports, "shop/web", vec![edge]);
    let served = v1::Edge {
        audit: 6,
        rules: vec!["shop/read".to_owned()],
        routes: vec![v1::EdgeRoute {
            route: "items".to_owned(),
            requests: 9,
        }],
        ..seen_by_server("shop/web", 9, 0)
    };
    report(&reports, "shop/api", vec![served]);
    let graph = graph(&reports);
    let sums = &graph[&ends(WEB, API)].sums;
    assert_eq!((sums.requests(), sums.cancelled), (10, 1));
    assert_eq!((sums.attempts, sums.attempt_failures), (12, 5));
    assert_eq!((sums.client_errors, sums.open, sums.opened), (3, 2, 4));
    assert_eq!(sums.secured, (10, 10));
    // Only the called side knows by which rule a call passed.
    let rare = sums.rare.as_ref().unwrap();
    assert_eq!(
        (rare.audit, rare.rules.as_slice()),
        (6, &[key("shop", "read")][..])
    );
    assert_eq!(rare.routes, [("items".into(), 9)]);
    let old = reports_of_old();
    let sums = &super::tests::graph(&old)[&ends(WEB, API)].sums;
    assert_eq!(
        (sums.attempts, sums.attempt_failures, sums.secured),
        (9, 2, (0, 0))
    );
}

fn reports_of_old() -> Reports {
    let reports = reports();
    report(&reports, "shop/web", vec![seen_by_client("shop/api", 7, 2)]);
    reports
}

#[test]
fn merged_intervals_count_calls_once_and_last_open_calls() {
    let (one, two) = (reports(), reports());
    for (reports, open) in [(&one, 5), (&two, 3)] {
        let edge = v1::Edge {
            open,
            ..seen_by_client("shop/api", 7, 2)
        };
        report(reports, "shop/web", vec![edge]);
    }
    let inventory = inventory();
    let owners = Owners {
        inventory: &inventory,
        model: None,
    };
    let mut known = Edges::default();
    let parts = [one, two].map(|reports| {
        let mut fold = Fold::default();
        let intervals = reports.of_interval(INTERVAL_NOW);
        intervals
            .iter()
            .for_each(|interval| fold.add(owners, interval, &mut known));
        fold.done()
    });
    let both = Folded::together(&parts);
    assert_eq!(both.rows.len(), 1);
    assert_eq!(
        (both.rows[0].sums.requests(), both.rows[0].sums.open),
        (18, 3)
    );
    // One that is no longer reported has nothing open.
    let last = Folded::together([&both, &Folded::default()]);
    assert_eq!(last.rows[0].sums.open, 0);
}

/// Proxies, and edges of each, of which a mesh of this size must be folded within 3 % of a
/// core: an interval every five seconds.
const PROXIES: usize = 2000;
const EDGES_OF_EACH: usize = 20;
const MOST: Duration = Duration::from_millis(150);
/// The same where the compiler hardly optimises, as for tests.
const MOST_HERE: u32 = if cfg!(debug_assertions) { 4 } else { 1 };

/// Each proxy's edges in one interval, reported by a process of this number. So many proxies of a
/// workload call the same pods.
fn large(reports: &Reports, process: u64, alike: usize) {
    for pod in 0..PROXIES {
        let edge = |at: usize| v1::Edge {
            pod: format!("shop/w{}-{}", (pod / 20 + at) % 100, pod % 20 / alike),
            service: format!("shop/w{}", (pod / 20 + at) % 100),
            backend: format!("shop/w{}", (pod / 20 + at) % 100),
            attempts: Some(9),
            protocol: v1::Protocol::Http1.into(),
            security: v1::Security::Mtls.into(),
            ..seen_by_client("shop/api", 7, 2)
        };
        let edges = (0..EDGES_OF_EACH).map(edge).collect();
        report_of(reports, (pod, process), edges);
    }
}

// Claims: observability-4
#[test]
fn interval_of_two_thousand_proxies_folds_within_core_share() {
    let inventory = large_inventory();
    let owners = Owners {
        inventory: &inventory,
        model: None,
    };
    // As in most meshes, and where no two proxies report the same.
    for alike in [20, 1] {
        let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 100_000);
        large(&reports, 1, alike);
        let intervals = reports.of_interval(INTERVAL_NOW);
        assert_eq!(intervals.len(), PROXIES);
        let mut took = [(); 3].map(|()| {
            let (mut fold, mut known) = (Fold::default(), Edges::default());
            let began = computed();
            intervals
                .iter()
                .for_each(|interval| fold.add(owners, interval, &mut known));
            let looked_up = fold.looked_up;
            let folded = fold.done();
            let took = computed() - began;
            assert_eq!(looked_up, PROXIES * EDGES_OF_EACH / alike);
            let calls: u64 = folded.rows.iter().map(|row| row.sums.requests()).sum();
            assert_eq!(calls, (PROXIES * EDGES_OF_EACH * 9) as u64);
            took
        });
        took.sort();
        let took = took[took.len() / 2];
        eprintln!("{PROXIES} proxies with {EDGES_OF_EACH} edges each, {alike} alike: {took:?}");
        assert!(took < MOST * MOST_HERE, "{alike} alike: {took:?}");
    }
}

/// Certain where times are not: how often names are looked up, which is what takes long.
#[test]
fn row_and_pod_owner_are_looked_up_once() {
    let inventory = large_inventory();
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 100_000);
    let owners = Owners {
        inventory: &inventory,
        model: None,
    };
    for process in [1, 2] {
        large(&reports, process, 1);
    }
    let (mut fold, mut known) = (Fold::default(), Edges::default());
    for interval in reports.of_interval(INTERVAL_NOW) {
        fold.add(owners, &interval, &mut known);
    }
    // Two processes of each pod report the same, and each pod both reports and is called.
    let looked_up = (fold.looked_up, fold.nodes.looked_up);
    assert_eq!(looked_up, (PROXIES * EDGES_OF_EACH, 2 * PROXIES));
    let calls: u64 = fold.rows.iter().map(|row| row.sums.requests()).sum();
    assert_eq!(calls, (2 * PROXIES * EDGES_OF_EACH * 9) as u64);
}

/// A hundred Deployments with twenty pods each.
fn large_inventory() -> Inventory {
    use crate::inventory::InventoryObject;
    use crate::inventory::kind::MetricsKind;
    let mut inventory = Inventory::default();
    let mut put = |kind, name: String, owner: Option<(MetricsKind, String)>| {
        let thing = InventoryObject {
            uid: name.as_str().into(),
            owner: owner.map(|(kind, name)| (kind, name.into())),
            ..InventoryObject::default()
        };
        inventory.put(kind, key("shop", &name), Arc::new(thing));
    };
    for workload in 0..PROXIES / 20 {
        put(MetricsKind::Deployment, format!("w{workload}"), None);
        let owner = Some((MetricsKind::Deployment, format!("w{workload}")));
        put(MetricsKind::ReplicaSet, format!("w{workload}-rs"), owner);
        for pod in 0..20 {
            let owner = Some((MetricsKind::ReplicaSet, format!("w{workload}-rs")));
            put(MetricsKind::Pod, format!("w{workload}-{pod}"), owner);
        }
    }
    inventory
}

fn report_of(reports: &Reports, (pod, process): (usize, u64), edges: Vec<v1::Edge>) {
    let name = format!("w{}-{}", pod / 20, pod % 20);
    let reporter = crate::observe::reports::Reporter {
        uid: name.as_str().into(),
        pod: key("shop", &name),
        account: None,
    };
    let report = v1::Report {
        process,
        slot: INTERVAL_NOW * crate::observe::reports::INTERVAL,
        edges,
        ..v1::Report::default()
    };
    reports.take(&reporter, report, true, crate::testing::topology::now());
}

/// A pod that makes names up has so many, and what is beyond them is counted.
#[test]
fn names_per_workload_are_bounded_without_losing_calls() {
    let (reports, edges, names) = (reports(), 200_u32, 32_u64);
    let edge = |port: u32| v1::Edge {
        port,
        reasons: (0..names)
            .map(|at| v1::ReasonCalls {
                reason: format!("made-up-{port}-{at}"),
                calls: 1,
            })
            .collect(),
        failure: names,
        ..seen_by_client("shop/api", 0, 0)
    };
    report(&reports, "shop/web", (1..=edges).map(edge).collect());
    let folded = fold(&reports).0;
    let rare: Vec<_> = folded
        .rows
        .iter()
        .filter_map(|row| row.sums.rare.as_ref())
        .collect();
    let reported: Vec<_> = rare.iter().flat_map(|rare| &rare.reasons).collect();
    let made_up = reported.iter().filter(|(name, _)| &**name != OTHER).count();
    assert_eq!(made_up, MAX_NAMES_OF_NODE);
    let calls: u32 = reported.iter().map(|(_, calls)| calls).sum();
    assert_eq!(u64::from(calls), u64::from(edges) * names);
}
