//! From reports of proxies to responses about the graph.
//!
//! Claims: observe-1, observe-2, observe-4

use std::time::{Duration, UNIX_EPOCH};

use tokio::sync::watch;

use super::shown::{MAX_SHARED, MAX_SHARED_BYTES, has_room};
use super::*;
use crate::observe::clock_offset::ClockOffset;
use crate::observe::ended_pods;
use crate::testing::topology::{self, call, inventory, now, reports};

mod hoarders;
mod large;
mod set_clock;
mod starting_up;

const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);

fn graph(reports: &Reports) -> Graph {
    let inventory = Arc::new(RwLock::new(inventory()));
    let latest = watch::channel(None).1;
    Graph::new(
        reports.clone(),
        inventory,
        latest,
        MONTH,
        GraphMetrics::default(),
    )
}

fn window_of(extent: Extent) -> GraphWindow {
    GraphWindow {
        intervals: 12,
        settled: false,
        end: None,
        extent,
    }
}

// Claims: observability-1
#[tokio::test]
async fn first_call_shows_at_next_look_without_duplicate() {
    let reports = reports();
    let graph = graph(&reports);
    assert!(
        graph
            .answer(&window_of(Extent::default()), now())
            .edges
            .is_empty()
    );
    // The same processes report it again, and then it is called once more.
    let repeat = || {
        let called = ("shop/web", vec![topology::seen_by_client("shop/api", 1, 0)]);
        let served = ("shop/api", vec![topology::seen_by_server("shop/web", 1, 0)]);
        for end in [called, served] {
            topology::report_at(&reports, now(), (topology::INTERVAL_NOW, 0), end);
        }
    };
    let once_more = || call(&reports, "shop/web", "shop/api", 1, 0);
    let steps: [(&dyn Fn(), u64); 4] = [(&repeat, 1), (&repeat, 1), (&once_more, 2), (&repeat, 2)];
    for (step, requests) in steps {
        step();
        graph.look(now(), false).await;
        let answer = graph.answer(&window_of(Extent::default()), now());
        assert_eq!(answer.edges.len(), 1);
        let edge = &answer.edges[0];
        let counted = (edge.requests, edge.service.as_str());
        assert_eq!(counted, (requests, "shop/api"));
        assert_eq!(
            (edge.from.as_str(), edge.to.as_str()),
            ("shop/Deployment/web", "shop/Deployment/api")
        );
        let names: Vec<&str> = answer.nodes.iter().map(|node| node.id.as_str()).collect();
        assert_eq!(names, ["shop/Deployment/api", "shop/Deployment/web"]);
    }
}

#[tokio::test]
async fn old_edge_is_quiet_and_shown_on_request() {
    let reports = reports();
    let graph = graph(&reports);
    call(&reports, "shop/web", "shop/api", 1, 0);
    graph.look(now(), false).await;
    let later = now() + Duration::from_secs(3600);
    assert!(
        graph
            .answer(&window_of(Extent::default()), later)
            .edges
            .is_empty()
    );
    let quiet = Extent {
        quiet: true,
        ..Extent::default()
    };
    let answer = graph.answer(&window_of(quiet.clone()), later);
    let edge = &answer.edges[0];
    assert!(edge.quiet && edge.requests == 0);
    let seen = topology::INTERVAL_NOW * INTERVAL;
    assert_eq!(edge.first_seen, answer::timestamp(seen));
    // Its ends are gone, so it is shown only on request.
    graph.inner.inventory.write().keep_only(
        crate::inventory::kind::MetricsKind::Deployment,
        |_| false,
        Instant::now(),
    );
    assert!(
        graph
            .answer(&window_of(quiet.clone()), later)
            .edges
            .is_empty()
    );
    let gone = Extent {
        gone: true,
        ..quiet
    };
    let answer = graph.answer(&window_of(gone), later);
    assert_eq!(answer.edges.len(), 1);
    assert!(answer.nodes.iter().all(|node| node.gone));
}

/// What was seen since is a change for a reader that was shown this window.
#[tokio::test]
async fn past_window_excludes_what_was_seen_after_it() {
    let reports = reports();
    let graph = graph(&reports);
    let end = topology::INTERVAL_NOW + 1;
    let call_in = |at, caller| {
        let called = vec![topology::seen_by_client("shop/api", 1, 0)];
        topology::report_in(&reports, at, caller, called);
    };
    call_in(end - 3, "shop/web");
    call_in(end, "shop/web");
    call_in(end, "bank/web");
    let later = now() + Duration::from_secs(30);
    graph.look(later, true).await;
    let quiet = Extent {
        quiet: true,
        ..Extent::default()
    };
    let present = GraphWindow {
        intervals: 2,
        ..window_of(quiet)
    };
    let before = GraphWindow {
        end: Some(end),
        ..present.clone()
    };
    let seen = |window: &GraphWindow| -> Vec<(String, String, bool)> {
        let edges = graph.answer(window, later).edges.into_iter();
        let mut seen: Vec<_> = edges
            .map(|edge| (edge.from, edge.last_seen, edge.quiet))
            .collect();
        seen.sort();
        seen
    };
    let quiet_since = |from: &str, at| (from.to_owned(), answer::timestamp(at * INTERVAL), true);
    let web = "shop/Deployment/web";
    assert_eq!(seen(&before), [quiet_since(web, end)]);
    let all = [
        quiet_since("bank/Deployment/web", end + 1),
        quiet_since(web, end + 1),
    ];
    assert_eq!(seen(&present), all);
}

/// Reports come in any order, and one end may count a call in the interval after the other's.
#[tokio::test]
async fn call_reported_by_both_ends_keeps_callers_edge() {
    let reports = reports();
    let graph = graph(&reports);
    let served = vec![
        topology::seen_by_server("shop/web", 1, 0),
        topology::seen_by_server("bank/web", 1, 0),
    ];
    topology::report(&reports, "shop/api", served);
    graph.look(now(), false).await;
    let called = vec![topology::seen_by_client("shop/api", 1, 0)];
    topology::report_in(&reports, topology::INTERVAL_NOW + 1, "shop/web", called);
    let later = now() + Duration::from_secs(30);
    graph.look(later, true).await;
    let quiet = Extent {
        quiet: true,
        ..Extent::default()
    };
    let window = GraphWindow {
        intervals: 2,
        ..window_of(quiet)
    };
    let answer = graph.answer(&window, later);
    let mut edges: Vec<(&str, &str)> = answer
        .edges
        .iter()
        .map(|edge| (edge.from.as_str(), edge.service.as_str()))
        .collect();
    edges.sort_unstable();
    // Of the other one the caller's proxy reported nothing.
    let only_served = ("bank/Deployment/web", "");
    assert_eq!(edges, [only_served, ("shop/Deployment/web", "shop/api")]);
}

/// From, to, and requests of each edge, those that are remembered among them.
fn known_edges(graph: &Graph, at: SystemTime) -> Vec<(String, String, u64)> {
    let extent = Extent {
        quiet: true,
        gone: true,
        ..Extent::default()
    };
    let edges = graph.answer(&window_of(extent), at).edges.into_iter();
    let mut known_edges: Vec<_> = edges
        .map(|edge| (edge.from, edge.to, edge.requests))
        .collect();
    known_edges.sort();
    known_edges
}

fn persisted(graph: &Graph) -> Vec<String> {
    let from = |(edge, _): (&EdgeRef, crate::graph::memory::Seen)| edge.key().from.to_string();
    graph.with_memory(|memory, _| memory.iter().map(from).collect())
}

/// `here` receives what was reported to `there`, and what that knows of pods that have ended.
fn exchange(here: &Graph, there: &Graph, reported: bool, ended: bool) {
    let at = Instant::now();
    if ended {
        let (_, news) = ended_pods::ended_since(&there.inner.inventory.read(), 0, at);
        ended_pods::receive(&here.inner.inventory, news.unwrap().ended, at);
    }
    if reported {
        let (_, news) = there.inner.reports.own_since(0, now());
        let mut clock = ClockOffset::of_stream(0, at);
        let reports = &here.inner.reports;
        reports.receive(news.unwrap(), &mut clock, now(), at);
    }
}

#[tokio::test]
async fn calls_of_pod_terminated_before_replica_start_reach_owner() {
    let later = now() + Duration::from_secs(30);
    let (web, api) = ("shop/Deployment/web", "shop/Deployment/api");
    let one = || [(web.to_owned(), api.to_owned(), 1)];
    // Its caller is gone, or its callee, or both.
    for gone in [&["web-1"][..], &["api-1"], &["web-1", "api-1"]] {
        // The calls may be reported sooner than the pods are known, as a proxy does.
        for reports_first in [false, true] {
            let (there, here) = (graph(&reports()), graph(&reports()));
            call(&there.inner.reports, "shop/web", "shop/api", 1, 0);
            for name in gone {
                let (pod, at) = (topology::key("shop", name), Instant::now());
                for graph in [&there, &here] {
                    let mut inventory = graph.inner.inventory.write();
                    inventory.end(crate::inventory::kind::MetricsKind::Pod, &pod, at);
                }
                // It was not there yet.
                let long_ago = at + Duration::from_secs(600);
                here.inner.inventory.write().tidy(long_ago);
            }
            if reports_first {
                exchange(&here, &there, true, false);
                here.look(later, true).await;
                assert_ne!(known_edges(&here, later), one(), "the control");
                assert_eq!(persisted(&here), [""; 0], "no owner is known");
                exchange(&here, &there, false, true);
            } else {
                exchange(&here, &there, true, true);
            }
            // What was folded is folded again without being looked back for.
            for (graph, back) in [(&there, true), (&here, !reports_first)] {
                graph.look(later, back).await;
                assert_eq!(known_edges(graph, later), one(), "{gone:?} {reports_first}");
                assert_eq!(persisted(graph), [web]);
            }
        }
    }
}

#[tokio::test]
async fn evicted_intervals_stay_as_folded_in_graph() {
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 3);
    let graph = graph(&reports);
    call(&reports, "shop/web", "shop/api", 5, 0);
    graph.look(now(), true).await;
    // Pushes the others out.
    for _ in 0..3 {
        call(&reports, "bank/web", "bank/web", 1, 0);
    }
    assert!(reports.whole_from() > topology::INTERVAL_NOW);
    graph.look(now(), true).await;
    let answer = graph.answer(&window_of(Extent::default()), now());
    let web = answer
        .edges
        .iter()
        .find(|edge| edge.to == "shop/Deployment/api");
    assert_eq!(web.map(|edge| edge.requests), Some(5));
}

/// Its own loss, which the graphs of other replicas do not report.
#[tokio::test]
async fn graph_of_hoarding_pods_is_reported_incomplete() {
    const HOARD: u64 = 100;
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), HOARD as usize);
    let graph = graph(&reports);
    call(&reports, "shop/web", "shop/api", 5, 0);
    let hoarder = crate::observe::reports::Reporter {
        uid: "hoarder".into(),
        pod: topology::key("bank", "web-1"),
        account: None,
    };
    for at in [topology::INTERVAL_NOW - 1, topology::INTERVAL_NOW] {
        let edges =
            (0..HOARD).map(|number| topology::seen_by_client(&format!("bank/x{number}"), 1, 0));
        let report = wire::v1::Report {
            process: 1,
            slot: at * INTERVAL,
            edges: edges.collect(),
            ..wire::v1::Report::default()
        };
        reports.take(&hoarder, report, true, now());
    }
    graph.look(now(), true).await;
    let later = now() + SETTLED + Duration::from_secs(3 * INTERVAL);
    let of = |namespace: &str| {
        let extent = Extent {
            namespace: Some(namespace.into()),
            ..Extent::default()
        };
        graph.answer(&window_of(extent), later).metadata.incomplete
    };
    let says = |namespace| of(namespace).is_some_and(|why| why.contains("more than their share"));
    assert!(says("bank"), "{:?}", of("bank"));
    assert!(!says("shop"), "{:?}", of("shop"));
}

#[tokio::test]
async fn graph_response_is_shared_until_next_look_only() {
    let reports = reports();
    call(&reports, "shop/web", "shop/api", 1, 0);
    let graph = graph(&reports);
    graph.look(now(), true).await;
    let read = || graph.written(&window_of(Extent::default()), now());
    let first = read();
    assert!(Arc::ptr_eq(&first, &read()), "made twice");
    assert_eq!(graph.inner.written.count(), 1);
    graph.inner.written.looked();
    assert_eq!(graph.inner.written.count(), 0, "no reader has it");
    assert!(!Arc::ptr_eq(&first, &read()), "of the look before");
    // Of more windows than are shared each is written, and held by its reader.
    for intervals in 1..=12 {
        let window_of = GraphWindow {
            intervals,
            ..window_of(Extent::default())
        };
        graph.written(&window_of, now());
    }
    assert_eq!(graph.inner.written.count(), MAX_SHARED);
}

#[test]
fn shared_graph_responses_have_count_and_byte_limits() {
    let third = MAX_SHARED_BYTES / 3;
    for (kept, bytes, has_place) in [
        (&[][..], MAX_SHARED_BYTES, true),
        (&[], MAX_SHARED_BYTES + 1, false),
        (&[third, third], third, true),
        (&[third, third], third + 3, false),
        (&[1; MAX_SHARED - 1], 1, true),
        (&[1; MAX_SHARED], 1, false),
    ] {
        let has = has_room(kept.iter().copied(), bytes);
        assert_eq!(has, has_place, "{bytes} beside {kept:?}");
    }
}

/// The thread of connections never waits for the graph, nor for a waiter of it.
#[tokio::test]
async fn busy_graph_blocks_neither_runtime_nor_inventory() {
    use std::sync::mpsc::sync_channel;
    let reports = reports();
    call(&reports, "shop/web", "shop/api", 1, 0);
    let graph = graph(&reports);
    let (started, begins) = sync_channel(1);
    let (end, ends) = sync_channel::<()>(1);
    let locked = graph.clone();
    let busy = std::thread::spawn(move || {
        let _state = locked.inner.state.lock();
        started.send(()).unwrap();
        // Should this thread wait for it, that is the end.
        let _ = ends.recv_timeout(Duration::from_secs(5));
    });
    begins.recv().unwrap();
    let answering = graph.clone();
    let answer = run_blocking(move || answering.answer(&window_of(Extent::default()), now()));
    let look = graph.look(now(), true);
    let both = async { tokio::join!(answer, look) };
    let mut both = std::pin::pin!(both);
    tokio::select! {
        biased;
        _ = &mut both => panic!("the graph was not held"),
        () = tokio::time::sleep(Duration::from_millis(100)) => {}
    }
    assert_eq!(graph.take_truncated(), 0, "read at once");
    let inventory = graph.inner.inventory.try_write();
    assert!(inventory.is_some(), "held by one who waits");
    drop(inventory);
    end.send(()).unwrap();
    both.await;
    busy.join().unwrap();
}

/// Intervals, and edges in each, that one pod makes up.
const MADE_UP: (u64, u64) = (50, 1000);

#[tokio::test]
async fn pod_that_fabricates_edges_displaces_no_others() {
    let reports = Reports::with_capacity(crate::metrics::ReportMetrics::default(), 200_000);
    let graph = graph(&reports);
    let store = |at: u64, pod: &str, edges: Vec<wire::v1::Edge>| {
        let (namespace, name) = pod.split_once('/').unwrap();
        let reporter = crate::observe::reports::Reporter {
            uid: format!("{namespace}-{name}").into(),
            pod: topology::key(namespace, &format!("{name}-1")),
            account: None,
        };
        let report = wire::v1::Report {
            process: 1,
            slot: at * INTERVAL,
            edges,
            ..wire::v1::Report::default()
        };
        let at = UNIX_EPOCH + Duration::from_secs((at + 1) * INTERVAL);
        reports.take(&reporter, report, true, at);
        at
    };
    let first = topology::INTERVAL_NOW;
    let at = store(
        first,
        "shop/web",
        vec![topology::seen_by_client("shop/api", 1, 0)],
    );
    graph.look(at, true).await;
    for at in first + 1..=first + MADE_UP.0 {
        let made_up = (0..MADE_UP.1).map(|number| {
            let name = format!("shop/x{}", at * MADE_UP.1 + number);
            topology::seen_by_client(&name, 1, 0)
        });
        let at = store(at, "bank/web", made_up.collect());
        graph.look(at, false).await;
        graph.tidy(at);
    }
    let last = first + MADE_UP.0 + 1;
    let called = vec![topology::seen_by_client("shop/web", 5, 0)];
    let at = store(last, "shop/api", called);
    graph.look(at, true).await;
    graph.tidy(at);
    let answer = graph.answer(
        &window_of(Extent {
            quiet: true,
            ..Extent::default()
        }),
        at,
    );
    let of = |from: &str, to: &str| {
        let mut edges = answer.edges.iter();
        edges.find(|edge| edge.from == from && edge.to == to)
    };
    let (web, api) = ("shop/Deployment/web", "shop/Deployment/api");
    let new = of(api, web).map(|edge| edge.requests);
    assert_eq!(new, Some(5), "a first call shows");
    assert!(
        of(web, api).is_some_and(|edge| edge.quiet),
        "a remembered edge stays"
    );
    // What had no place of its own is counted all the same.
    let other = of("bank/Deployment/web", "External/other");
    assert!(
        other.is_some_and(|edge| edge.requests > MADE_UP.1),
        "{other:?}"
    );
}
