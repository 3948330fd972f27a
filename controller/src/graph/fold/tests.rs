//! Reports become edges of workloads, whoever told of them and how often.

use std::collections::BTreeMap;
use std::time::Duration;

use wire::v1;

use super::*;
use crate::graph::window::{Counted, edges};
use crate::inventory::Inventory;
use crate::observe::clock_offset::ClockOffset;
use crate::observe::reports::{Reporter, Reports};
use crate::testing::cpu_time::computed;
use crate::testing::topology::{
    SLOT_NOW, call, inventory, key, report, reports, seen_by_client, seen_by_server,
};

fn fold(reports: &Reports) -> (Folded, Edges) {
    let inventory = inventory();
    let owners = Owners {
        inventory: &inventory,
        model: None,
    };
    let (mut fold, mut known) = (Fold::default(), Edges::default());
    let slots = reports.of_slot(SLOT_NOW);
    for slot in &slots {
        fold.add(owners, slot, &mut known);
    }
    (fold.done(), known)
}

/// By both ends.
fn graph(reports: &Reports) -> BTreeMap<(String, String), Counted> {
    let folded = fold(reports).0;
    let edges = edges(&folded).into_iter();
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

#[test]
fn caller_s_numbers_are_shown_and_the_callee_s_stand_beside_them() {
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
fn what_two_ports_of_a_service_bring_to_one_of_its_pods_is_told_apart_by_protocol() {
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
        .map(|(edge, counted)| (edge.key().port, counted.server.as_ref().map(Sums::requests)))
        .collect();
    assert_eq!(reported, BTreeMap::from([(80, None), (9443, Some(2))]));
}

/// A process of pod `shop/web-1` with a certificate of this account told of its calls.
fn report_by(reports: &Reports, process: u64, account: &str, edges: Vec<v1::Edge>) {
    let reporter = Reporter {
        uid: "shop-web".into(),
        pod: key("shop", "web-1"),
        account: Some(key("shop", account)),
    };
    let report = v1::Report {
        process,
        slot: SLOT_NOW * crate::observe::reports::SLOT,
        edges,
        ..v1::Report::default()
    };
    reports.take(&reporter, report, true, crate::testing::topology::now());
}

/// By account: requests, and those that the called side counted of them.
fn by_account(reports: &Reports) -> Vec<(String, u64, Option<u64>)> {
    let reported = edges(&fold(reports).0).into_iter();
    let reported = reported.map(|(edge, counted)| {
        let account = edge.key().account.as_ref().map(ToString::to_string);
        let served = counted.server.as_ref().map(Sums::requests);
        (account.unwrap_or_default(), counted.sums.requests(), served)
    });
    let mut reported: Vec<_> = reported.collect();
    reported.sort();
    reported
}

#[test]
fn who_was_called_does_not_choose_an_account_of_another_namespace() {
    let reports = reports();
    let lie = v1::Edge {
        identity: "bank/admin".to_owned(),
        ..seen_by_server("shop/web", 3, 0)
    };
    report(&reports, "shop/api", vec![lie]);
    assert_eq!(by_account(&reports), [(String::new(), 3, None)]);
}

#[test]
fn calls_are_told_apart_by_the_account_that_made_them_at_both_ends() {
    let reports = reports();
    let served = |account: &str, calls| v1::Edge {
        identity: format!("shop/{account}"),
        ..seen_by_server("shop/web", calls, 0)
    };
    for (process, account, calls) in [(1, "old", 7), (2, "new", 2)] {
        let called = vec![seen_by_client("shop/api", calls, 0)];
        report_by(&reports, process, account, called);
        report(&reports, "shop/api", vec![served(account, calls)]);
    }
    // Its caller's proxy was silent.
    report(&reports, "shop/api", vec![served("silent", 4)]);
    let of = |account: &str, calls, served| (format!("shop/{account}"), calls, served);
    let expected = [
        of("new", 2, Some(2)),
        of("old", 7, Some(7)),
        of("silent", 4, None),
    ];
    assert_eq!(by_account(&reports), expected);
}

#[test]
fn other_replicas_are_told_by_which_account_a_pod_reports() {
    let (one, two) = (reports(), reports());
    report_by(&one, 1, "old", vec![seen_by_client("shop/api", 1, 0)]);
    let (now, opened) = (crate::testing::topology::now(), tokio::time::Instant::now());
    let mut reported = one.own_since(0, now).1.unwrap();
    let mut clock = ClockOffset::of_stream(0, opened);
    two.receive(reported.clone(), &mut clock, now, opened);
    assert_eq!(by_account(&two), [("shop/old".to_owned(), 1, None)]);
    // A version that does not say it is understood all the same.
    let older = reports();
    reported.reports[0].account = String::new();
    older.receive(reported, &mut clock, now, opened);
    assert_eq!(by_account(&older), [(String::new(), 1, None)]);
}

#[test]
fn callee_s_numbers_are_shown_where_no_caller_told() {
    let reports = reports();
    report(&reports, "shop/api", vec![seen_by_server("bank/web", 5, 1)]);
    let mut unknown = seen_by_server("old/batch", 3, 0);
    unknown.caller = "nobody-knows".to_owned();
    report(&reports, "shop/api", vec![unknown]);
    let graph = graph(&reports);
    let counted = &graph[&ends("bank/Deployment/web", API)];
    assert_eq!((counted.sums.requests(), &counted.server), (6, &None));
    assert_eq!(counted.sums.attempts, 6);
    // A pod that is forgotten still has the account that its certificate named.
    assert!(graph.contains_key(&ends("old/ServiceAccount/batch", API)));
}

#[test]
fn late_repeated_and_swapped_reports_fold_to_the_same() {
    let (one, two) = (reports(), reports());
    call(&one, "shop/web", "shop/api", 7, 2);
    call(&one, "bank/web", "shop/api", 1, 0);
    call(&two, "bank/web", "shop/api", 1, 0);
    call(&two, "shop/web", "shop/api", 7, 2);
    assert_eq!(graph(&one), graph(&two));
    let now = crate::testing::topology::now();
    let reported = one.own_since(0, now).1.unwrap();
    for reports in [&one, &two] {
        let opened = tokio::time::Instant::now();
        let mut clock = ClockOffset::of_stream(0, opened);
        reports.receive(reported.clone(), &mut clock, now, opened);
    }
    assert_eq!(graph(&one)[&ends(WEB, API)].sums.success, 7);
}

#[test]
fn both_ends_outside_the_mesh_have_names_of_their_own() {
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
fn service_without_an_endpoint_is_the_end_of_its_calls() {
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
fn what_the_proxies_of_now_tell_is_not_lost_and_what_old_ones_lack_is_read_from_calls() {
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
fn stretches_put_together_count_every_call_once_and_open_ones_at_the_end() {
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
        let slots = reports.of_slot(SLOT_NOW);
        slots
            .iter()
            .for_each(|slot| fold.add(owners, slot, &mut known));
        fold.done()
    });
    let both = Folded::together(&parts);
    assert_eq!(both.rows.len(), 1);
    assert_eq!(
        (both.rows[0].sums.requests(), both.rows[0].sums.open),
        (18, 3)
    );
    // One that is not told of any more has nothing open.
    let last = Folded::together([&both, &Folded::default()]);
    assert_eq!(last.rows[0].sums.open, 0);
}

/// Proxies, and edges of each, of which a mesh of this size must be folded within 3 % of a
/// core: a slot every five seconds.
const PROXIES: usize = 2000;
const EDGES_OF_EACH: usize = 20;
const MOST: Duration = Duration::from_millis(150);
/// The same where the compiler hardly optimises, as for tests.
const MOST_HERE: u32 = if cfg!(debug_assertions) { 4 } else { 1 };

/// Each proxy's edges in one slot, told by a process of this number.
fn large(reports: &Reports, process: u64) {
    for pod in 0..PROXIES {
        let edge = |at: usize| v1::Edge {
            pod: format!("shop/w{}-{}", (pod / 20 + at) % 100, pod % 20),
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

#[test]
fn slot_of_two_thousand_proxies_is_folded_within_its_share_of_a_core() {
    let inventory = large_inventory();
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 100_000);
    let owners = Owners {
        inventory: &inventory,
        model: None,
    };
    large(&reports, 1);
    let slots = reports.of_slot(SLOT_NOW);
    assert_eq!(slots.len(), PROXIES);
    let mut took = [(); 3].map(|()| {
        let (mut fold, mut known) = (Fold::default(), Edges::default());
        let began = computed();
        slots
            .iter()
            .for_each(|slot| fold.add(owners, slot, &mut known));
        let folded = fold.done();
        let took = computed() - began;
        let calls: u64 = folded.rows.iter().map(|row| row.sums.requests()).sum();
        assert_eq!(calls, (PROXIES * EDGES_OF_EACH * 9) as u64);
        took
    });
    took.sort();
    let took = took[took.len() / 2];
    eprintln!("{PROXIES} proxies with {EDGES_OF_EACH} edges each: {took:?}");
    assert!(took < MOST * MOST_HERE, "{took:?}");
}

/// Certain where times are not: how often names are looked up, which is what takes long.
#[test]
fn what_a_row_is_about_is_looked_up_once_and_who_owns_a_pod_once() {
    let inventory = large_inventory();
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 100_000);
    let owners = Owners {
        inventory: &inventory,
        model: None,
    };
    for process in [1, 2] {
        large(&reports, process);
    }
    let (mut fold, mut known) = (Fold::default(), Edges::default());
    for slot in reports.of_slot(SLOT_NOW) {
        fold.add(owners, &slot, &mut known);
    }
    // Two processes of each pod tell of the same, and each pod both tells and is called.
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
        slot: SLOT_NOW * crate::observe::reports::SLOT,
        edges,
        ..v1::Report::default()
    };
    reports.take(&reporter, report, true, crate::testing::topology::now());
}

/// Whoever makes names up has so many, and what is beyond them is counted.
#[test]
fn names_that_one_workload_tells_of_are_bounded_and_lose_no_call() {
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
