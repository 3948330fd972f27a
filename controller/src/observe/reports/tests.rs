//! Reports are kept within their bounds.
//!
//! Claims: attack-84, observe-104

use std::collections::{HashMap, HashSet};

use super::*;
use crate::observe::report_store::{MAX_BYTES, MAX_POD_BYTES};
use crate::settings::caps::Caps;

mod hoarders;
mod set_clock;

const NOW: u64 = 1_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn pod(uid: &str) -> Reporter {
    Reporter {
        uid: uid.into(),
        pod: ObjectKey::new("shop", uid),
        account: None,
    }
}

fn report(process: u64, intervals_ago: u64, edges: &[u64]) -> v1::Report {
    let edge = |(at, success): (usize, &u64)| v1::Edge {
        pod: format!("shop/p{at}"),
        success: *success,
        ..v1::Edge::default()
    };
    v1::Report {
        process,
        slot: NOW - intervals_ago * INTERVAL,
        edges: edges.iter().enumerate().map(edge).collect(),
        ..v1::Report::default()
    }
}

fn calls(reports: &Reports) -> u64 {
    let mut calls = 0;
    reports.each(0, u64::MAX, |_, edge| calls += edge.success);
    calls
}

fn outcomes(reports: &Reports, outcome: ReportOutcome) -> u64 {
    reports.inner.metrics.reports(outcome)
}

/// From a replica whose clock is right.
fn receive(reports: &Reports, message: v1::Reports) {
    let opened = Instant::now();
    let mut clock = ClockOffset::of_stream(0, opened);
    reports.receive(message, &mut clock, now(), opened);
}

#[test]
fn repeated_interval_counts_once_and_fuller_report_wins() {
    let reports = Reports::new(ReportMetrics::default());
    for edges in [&[5][..], &[5, 2], &[5], &[5, 2]] {
        reports.take(&pod("a"), report(1, 3, edges), true, now());
    }
    assert_eq!(calls(&reports), 7);
    // Another process of the same pod, and another pod, add to it.
    reports.take(&pod("a"), report(2, 3, &[1]), true, now());
    reports.take(&pod("b"), report(1, 3, &[1]), true, now());
    assert_eq!(calls(&reports), 9);
    assert_eq!(outcomes(&reports, ReportOutcome::Known), 2);
}

#[test]
fn untimely_reports_are_refused_and_expired_intervals_forgotten() {
    let reports = Reports::new(ReportMetrics::default());
    reports.take(&pod("a"), report(1, INTERVALS, &[1]), true, now());
    let ahead = v1::Report {
        slot: NOW + 3 * INTERVAL,
        ..report(1, 0, &[1])
    };
    reports.take(&pod("a"), ahead, true, now());
    let crooked = v1::Report {
        slot: NOW + 1,
        ..report(1, 0, &[1])
    };
    reports.take(&pod("a"), crooked, true, now());
    assert_eq!(outcomes(&reports, ReportOutcome::OutOfTime), 3);
    assert_eq!(calls(&reports), 0);
    reports.take(&pod("a"), report(1, 0, &[1]), true, now());
    let later = now() + Duration::from_secs(INTERVALS * INTERVAL);
    let fresh = v1::Report {
        slot: NOW + INTERVALS * INTERVAL,
        ..report(1, 0, &[10])
    };
    reports.take(&pod("a"), fresh, true, later);
    assert_eq!(calls(&reports), 10);
    assert_eq!(reports.inner.state.lock().keys.len(), 1);
}

#[test]
fn more_than_a_proxy_of_ours_sends_is_refused() {
    let reports = Reports::new(ReportMetrics::default());
    reports.take(
        &pod("a"),
        report(1, 1, &[1; MAX_REPORT_EDGES + 1]),
        true,
        now(),
    );
    let mut long = report(1, 1, &[1]);
    long.edges[0].service = "s".repeat(MAX_NAME + 1);
    reports.take(&pod("a"), long, true, now());
    assert_eq!(outcomes(&reports, ReportOutcome::TooLarge), 2);
    for process in 0..10 {
        reports.take(&pod("b"), report(process, 1, &[1]), true, now());
    }
    assert_eq!(calls(&reports), MAX_PROCESSES as u64);
}

#[test]
fn edge_overflow_drops_and_counts_oldest_intervals() {
    let reports = Reports::new(ReportMetrics::default());
    let edges = [1; MAX_REPORT_EDGES];
    let pods = Caps::default().report_edges / MAX_REPORT_EDGES / 2 + 1;
    for intervals_ago in [3, 2, 1] {
        for at in 0..pods {
            reports.take(
                &pod(&format!("p{at}")),
                report(1, intervals_ago, &edges),
                true,
                now(),
            );
        }
    }
    let kept = reports.inner.state.lock().edges;
    assert!(kept <= Caps::default().report_edges, "{kept}");
    assert!(reports.inner.metrics.intervals_dropped.get() >= 1);
    let oldest = reports.inner.state.lock().intervals.keys().next().copied();
    assert!(oldest > Some(NOW / INTERVAL - 3));
}

#[test]
fn exchanging_replicas_hold_the_same_state() {
    let (one, other) = (
        Reports::new(ReportMetrics::default()),
        Reports::new(ReportMetrics::default()),
    );
    for at in 0..60 {
        one.take(&pod(&format!("a{at}")), report(1, 2, &[at]), true, now());
    }
    other.take(&pod("b"), report(1, 2, &[1000]), true, now());
    let exchange = |from: &Reports, to: &Reports, since| {
        let mut revision = since;
        while let (next, Some(message)) = from.own_since(revision, now()) {
            receive(to, message);
            revision = next;
        }
        revision
    };
    let revision = exchange(&one, &other, 0);
    exchange(&other, &one, 0);
    assert_eq!(calls(&one), calls(&other));
    // What was received is not sent back, and what was sent is not sent again.
    assert!(one.own_since(revision, now()).1.is_none());
    one.take(&pod("late"), report(1, 2, &[5]), true, now());
    exchange(&one, &other, revision);
    assert_eq!(calls(&one), calls(&other));
}

#[test]
fn replicas_hold_same_calls_each_under_own_clock() {
    let (right, fast) = (
        Reports::new(ReportMetrics::default()),
        Reports::new(ReportMetrics::default()),
    );
    let minute = Duration::from_secs(60);
    right.take(&pod("a"), report(1, 1, &[5]), true, now());
    // It has dated what a proxy with a right clock reported by its own.
    let dated = v1::Report {
        slot: NOW + 60 - INTERVAL,
        ..report(1, 0, &[7])
    };
    fast.take(&pod("b"), dated, true, now() + minute);
    let opened = Instant::now();
    let mut clocks = [0, 0].map(|intervals| ClockOffset::of_stream(intervals, opened));
    let [of_fast, of_right] = &mut clocks;
    let news = fast.own_since(0, now() + minute).1.unwrap();
    right.receive(news, of_fast, now(), opened);
    let news = right.own_since(0, now()).1.unwrap();
    fast.receive(news, of_right, now() + minute, opened);
    let calls_of = |reports: &Reports, interval: u64| {
        let mut calls = 0;
        reports.each(interval, interval + 1, |_, edge| calls += edge.success);
        calls
    };
    assert_eq!(calls_of(&right, NOW / INTERVAL - 1), 12);
    assert_eq!(calls_of(&fast, (NOW + 60) / INTERVAL - 1), 12);
    // Sent again on the next stream, by a clock that nearly is an interval further by now.
    of_fast.reopen(opened);
    let later = now() + minute + Duration::from_millis(2_600);
    let news = fast.own_since(0, later).1.unwrap();
    right.receive(news, of_fast, now(), opened);
    assert_eq!(calls(&right), 12);
    // A replica that does not say what time it has is believed.
    let unsaid = v1::Reports {
        now: 0,
        ..fast.own_since(0, now()).1.unwrap()
    };
    let other = Reports::new(ReportMetrics::default());
    receive(&other, unsaid);
    assert_eq!(outcomes(&other, ReportOutcome::OutOfTime), 1);
}

/// An edge with the longest names that Kubernetes has, all different by `salt`.
fn long_edge(salt: usize) -> v1::Edge {
    let object = |what: char| {
        let namespace = what.to_string().repeat(MAX_NAMES.0);
        let name = format!("{salt:0>width$}", width = MAX_NAMES.1);
        format!("{namespace}/{name}")
    };
    v1::Edge {
        pod: object('p'),
        identity: object('i'),
        service: object('s'),
        backend: object('b'),
        split: object('t'),
        success: 1,
        latency: vec![1; policy::latency::BUCKETS],
        ..v1::Edge::default()
    }
}

/// As much as one report may be, `salt` apart from any other.
fn long_report(intervals_ago: u64, process: u64, salt: usize) -> v1::Report {
    v1::Report {
        process,
        slot: NOW - intervals_ago * INTERVAL,
        edges: (0..280).map(|at| long_edge(salt * 1000 + at)).collect(),
        ..v1::Report::default()
    }
}

/// A hundred pods, each with a hundred edges in the oldest interval.
fn honest_pods(reports: &Reports) {
    for at in 0..100 {
        let honest = report(1, INTERVALS - 2, &[1; 100]);
        reports.take(&pod(&format!("honest{at}")), honest, true, now());
    }
}

fn honest_edges(reports: &Reports) -> usize {
    let mut honest = 0;
    reports.each(0, u64::MAX, |reporter, _| {
        honest += usize::from(reporter.uid.starts_with("honest"));
    });
    honest
}

// Claims: B7
#[test]
fn pods_reporting_maximum_edges_displace_no_other_pods() {
    let reports = Reports::new(ReportMetrics::default());
    honest_pods(&reports);
    let edges = [1; MAX_REPORT_EDGES];
    for intervals_ago in 0..INTERVALS - 2 {
        for process in 0..3 {
            for greedy in ["greedy1", "greedy2"] {
                let all = report(process, intervals_ago, &edges);
                reports.take(&pod(greedy), all, true, now());
            }
        }
    }
    assert_eq!(honest_edges(&reports), 100 * 100, "edges of honest pods");
    assert!(reports.inner.metrics.intervals_dropped.get() > 0);
}

// Claims: B7
#[test]
fn pods_reporting_maximum_name_lengths_displace_no_others() {
    let reports = Reports::new(ReportMetrics::default());
    honest_pods(&reports);
    for intervals_ago in 0..40 {
        for member in 0..8_usize {
            let all = long_report(intervals_ago, 1, member * 100 + intervals_ago as usize);
            reports.take(&pod(&format!("greedy{member}")), all, true, now());
        }
    }
    assert_eq!(honest_edges(&reports), 100 * 100, "edges of honest pods");
    let state = reports.inner.state.lock();
    assert!(state.bytes <= MAX_BYTES, "{}", state.bytes);
    for (uid, share) in &state.pods {
        assert!(share.bytes <= MAX_POD_BYTES, "{uid}: {}", share.bytes);
    }
    // What was dropped is gone entirely.
    let kept = || state.intervals.values().flat_map(HashMap::values);
    assert_eq!(kept().map(|kept| kept.bytes).sum::<usize>(), state.bytes);
    let edges = kept().flat_map(|kept| kept.edges.iter());
    let keys: HashSet<_> = edges.map(|edge| &edge.key).collect();
    assert_eq!(keys.len(), state.keys.len());
}

// Claims: B7
#[test]
fn reports_of_any_size_fit_replica_message_limit() {
    let (one, other) = (
        Reports::new(ReportMetrics::default()),
        Reports::new(ReportMetrics::default()),
    );
    for at in 0..60 {
        one.take(&pod(&format!("p{at}")), long_report(2, 1, at), true, now());
    }
    assert_eq!(outcomes(&one, ReportOutcome::Taken), 60);
    let (mut since, mut messages) = (0, 0);
    while let (next, Some(message)) = one.own_since(since, now()) {
        assert!(message.encoded_len() <= CHUNK, "{}", message.encoded_len());
        receive(&other, message);
        messages += 1;
        since = next;
    }
    assert!(messages > 20, "{messages}");
    assert_eq!(calls(&one), calls(&other));
    assert_eq!(one.own_since(since, now()), (since, None));
}

// Claims: B7
#[test]
fn report_with_a_name_that_is_none_is_refused() {
    let reports = Reports::new(ReportMetrics::default());
    let bad = [
        "shop",
        "shop/",
        "/p",
        "shop/a/b",
        "Shop/p",
        "shop/p\n",
        "shop/\u{e9}",
    ];
    for name in bad {
        let mut one = report(1, 1, &[1]);
        one.edges[0].service = name.to_owned();
        reports.take(&pod("a"), one, true, now());
    }
    let mut caller = report(1, 1, &[1]);
    caller.edges[0].caller = "x".repeat(64);
    reports.take(&pod("a"), caller, true, now());
    let refused = outcomes(&reports, ReportOutcome::Malformed);
    assert_eq!(refused, bad.len() as u64 + 1);
    assert_eq!(calls(&reports), 0);
    // Control: every name of an honest proxy, and none.
    let mut good = report(1, 1, &[1, 1]);
    good.edges[0] = v1::Edge {
        pod: "shop/api-7d4b9c6f5-x2x4z".to_owned(),
        caller: "4f0c3f7e-6c0e-4a8e-9a3e-1f2d3c4b5a69".to_owned(),
        identity: "shop/web.front".to_owned(),
        ..long_edge(1)
    };
    good.edges[1].pod = String::new();
    reports.take(&pod("a"), good, true, now());
    assert_eq!(outcomes(&reports, ReportOutcome::Taken), 1);
}

/// An edge of which every field says something.
fn full_edge() -> v1::Edge {
    v1::Edge {
        side: v1::Side::Server.into(),
        pod: "shop/api-1".to_owned(),
        caller: "uid-1".to_owned(),
        identity: "shop/web".to_owned(),
        service: "shop/api".to_owned(),
        port: 80,
        backend: "shop/api@candidate".to_owned(),
        split: "shop/api".to_owned(),
        success: 1,
        failure: 2,
        latency: vec![0, 3],
        sent: 4,
        received: 5,
        security: v1::Security::Mtls.into(),
        protocol: v1::Protocol::Grpc.into(),
        open: 6,
        opened: 7,
        cancelled: 8,
        attempts: Some(9),
        attempt_failures: 10,
        client_errors: 11,
        audit: 12,
        reasons: vec![v1::ReasonCalls {
            reason: "not-allowed".to_owned(),
            calls: 13,
        }],
        rules: vec!["shop/read".to_owned()],
        routes: vec![v1::EdgeRoute {
            route: "items".to_owned(),
            requests: 14,
        }],
        remote: "[2001:db8::1]".to_owned(),
        rule: "HTTPRoute shop/api".to_owned(),
    }
}

fn full_report() -> v1::Report {
    v1::Report {
        edges: vec![full_edge()],
        routes: vec![v1::RouteCalls {
            port: 8080,
            route: "items".to_owned(),
            success: 15,
            failure: 16,
            cancelled: 17,
            client_errors: 18,
            latency: vec![19],
        }],
        ..report(1, 1, &[])
    }
}

#[test]
fn every_field_of_a_report_reaches_other_replicas() {
    let reports = Reports::new(ReportMetrics::default());
    reports.take(&pod("a"), full_report(), true, now());
    let (_, news) = reports.own_since(0, now());
    let report = news.unwrap().reports.remove(0).report.unwrap();
    assert_eq!(report, full_report());
}

#[test]
fn malformed_or_oversized_edge_rejects_its_report() {
    let reports = Reports::new(ReportMetrics::default());
    let mut bad = [full_report(), full_report(), full_report(), full_report()];
    bad[0].edges[0].remote = "a\u{1b}[31m".to_owned();
    bad[1].edges[0].reasons[0].reason = "Not Allowed".to_owned();
    bad[2].edges[0].rules[0] = "no-namespace".to_owned();
    bad[3].routes[0].route = "a\nb".to_owned();
    for report in bad {
        reports.take(&pod("a"), report, true, now());
    }
    assert_eq!(outcomes(&reports, ReportOutcome::Malformed), 4);
    let mut large = [full_report(), full_report(), full_report()];
    large[0].edges[0].remote = "a".repeat(MAX_TEXTS.1 + 1);
    large[1].edges[0].routes = vec![v1::EdgeRoute::default(); MAX_EDGE_PARTS.2 + 1];
    large[2].routes = vec![v1::RouteCalls::default(); MAX_REPORT_ROUTES + 1];
    for report in large {
        reports.take(&pod("a"), report, true, now());
    }
    assert_eq!(outcomes(&reports, ReportOutcome::TooLarge), 3);
    reports.take(&pod("a"), full_report(), true, now());
    assert_eq!(calls(&reports), 1);
}

#[test]
fn report_with_cancelled_call_supersedes_one_without() {
    let reports = Reports::new(ReportMetrics::default());
    let left = |cancelled| v1::Report {
        edges: vec![v1::Edge {
            success: 1,
            cancelled,
            ..v1::Edge::default()
        }],
        ..report(1, 1, &[])
    };
    for cancelled in [0, 1] {
        reports.take(&pod("a"), left(cancelled), true, now());
    }
    assert_eq!(outcomes(&reports, ReportOutcome::Taken), 2);
}

#[test]
fn edge_with_only_attempts_carries_no_details() {
    let reports = Reports::new(ReportMetrics::default());
    let tried = v1::Edge {
        success: 9,
        failure: 1,
        attempts: Some(10),
        ..v1::Edge::default()
    };
    let edges = vec![tried.clone(), v1::Edge { open: 1, ..tried }];
    let report = v1::Report {
        edges,
        ..report(1, 1, &[])
    };
    reports.take(&pod("a"), report, true, now());
    let mut seen = Vec::new();
    reports.each(0, u64::MAX, |_, edge| {
        seen.push((edge.attempts, edge.detail.is_some()));
    });
    assert_eq!(seen, [(Some(10), false), (Some(10), true)]);
}
