//! Reports to the controller, interval by interval.
//!
//! Claims: observe-104, observe-139, observe-19

use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use policy::protocol::Protocol;
use policy::reason::Reason;
use prometheus_client::registry::Registry;
use tokio::sync::mpsc;
use wire::v1;

mod edges;

use super::{EDGES, INTERVAL, KEPT_EDGES, KEPT_INTERVALS, Reports, interval_of};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallGroup, CallOutcome, CellKey};
use crate::telemetry::early::EarlyReports;
use crate::telemetry::labels::{LimitLabels, Security};
use crate::telemetry::metrics::Metrics;

fn reports() -> Reports {
    Reports::new(Metrics::register(&mut Registry::default()))
}

fn to(pod: &str) -> CellKey {
    CellKey {
        call_ends: CallEnds::Outbound {
            service: "shop/web".into(),
            port: 80,
            backend: "shop/web".into(),
            rule: None,
            pod: pod.into(),
            security: Security::mtls,
        },
        protocol: Protocol::Http1,
        route: None,
        group: CallGroup::None,
    }
}

const GOOD: CallOutcome = CallOutcome {
    status: 200,
    success: true,
    reason: None,
};
const BAD: CallOutcome = CallOutcome {
    status: 500,
    success: false,
    ..GOOD
};

impl Reports {
    /// This interval begins, by a clock that shows the time that passed.
    fn close_at(&self, interval: u64) {
        static BEGAN: OnceLock<Instant> = OnceLock::new();
        let passed = Duration::from_secs(interval * INTERVAL);
        let began = *BEGAN.get_or_init(Instant::now);
        self.close(UNIX_EPOCH + passed, began + passed);
    }

    /// A call of a millisecond ends in this interval.
    fn count_at(&self, interval: u64, cell_key: CellKey, outcome: CallOutcome) {
        self.close_at(interval);
        self.count(cell_key, outcome);
    }

    fn count(&self, cell_key: CellKey, outcome: CallOutcome) {
        let cell = self.metrics.cell(cell_key);
        cell.begin();
        cell.answered(outcome, Duration::from_millis(1));
        cell.flows().received.fetch_add(2, Relaxed);
        cell.leave();
    }
}

fn closed(reports: &Reports) -> Vec<v1::Report> {
    let state = reports.state.lock();
    state
        .closed
        .iter()
        .map(|(_, report)| report.clone())
        .collect()
}

fn limit(reports: &Reports, limit: &'static str) -> u64 {
    reports.metrics.limits.at(&LimitLabels { limit }).get()
}

#[test]
fn calls_add_up_by_edge_and_interval() {
    let reports = reports();
    for (interval, pod, outcome) in [
        (7, "shop/a", GOOD),
        (7, "shop/a", BAD),
        (7, "shop/b", GOOD),
        (8, "shop/a", GOOD),
        (9, "shop/a", GOOD),
    ] {
        reports.count_at(interval, to(pod), outcome);
    }
    let closed = closed(&reports);
    assert_eq!(closed.len(), 2, "the open slot is not sent yet");
    assert_eq!(
        (closed[0].slot, closed[1].slot),
        (7 * INTERVAL, 8 * INTERVAL)
    );
    let a = closed[0]
        .edges
        .iter()
        .find(|edge| edge.pod == "shop/a")
        .unwrap();
    assert_eq!((a.success, a.failure, a.sent, a.received), (1, 1, 0, 4));
    assert_eq!(a.latency, [0, 0, 2]);
    assert_eq!(a.side(), v1::Side::Client);
    assert_eq!(closed[0].process, closed[1].process);
}

/// It went nowhere, so it went in plaintext neither.
#[test]
fn call_without_endpoint_reports_no_security() {
    let reports = reports();
    let of = |call_ends| CellKey {
        call_ends,
        protocol: Protocol::Http1,
        route: None,
        group: CallGroup::None,
    };
    let lacked = CallEnds::Unserved {
        service: "shop/web".into(),
        port: 81,
        remote: Arc::default(),
    };
    let external = CallEnds::External {
        port: 443,
        remote: "api.example.com".into(),
        security: Security::plaintext,
    };
    reports.count_at(1, of(CallEnds::to_service("shop/web".into(), 80)), BAD);
    reports.count(of(lacked), BAD);
    reports.count(to("shop/a"), GOOD);
    reports.count(of(external), GOOD);
    reports.close_at(2);
    let edges = &closed(&reports)[0].edges;
    let of = |port: u32, pod: &str| {
        let mut edges = edges.iter();
        let edge = edges.find(|edge| edge.port == port && edge.pod == pod);
        edge.unwrap().security()
    };
    assert_eq!(of(80, ""), v1::Security::NotTold);
    assert_eq!(of(81, ""), v1::Security::NotTold);
    assert_eq!(of(80, "shop/a"), v1::Security::Mtls);
    assert_eq!(of(443, ""), v1::Security::Plaintext);
}

#[test]
fn backward_clock_loses_no_call_nor_reopens_interval() {
    let reports = reports();
    for interval in [9, 3, 10] {
        reports.count_at(interval, to("shop/a"), GOOD);
    }
    let closed = closed(&reports);
    assert_eq!(closed.len(), 1);
    assert_eq!(
        (closed[0].slot, closed[0].edges[0].success),
        (9 * INTERVAL, 2)
    );
}

#[test]
fn clock_that_was_set_back_is_followed() {
    let reports = reports();
    for interval in [1000, 900, 901, 902] {
        reports.count_at(interval, to("shop/a"), GOOD);
    }
    let closed = closed(&reports);
    let reported = closed
        .iter()
        .map(|report| (report.slot / INTERVAL, report.edges[0].success));
    let reported: Vec<(u64, u64)> = reported.collect();
    assert_eq!(reported, [(1000, 1), (900, 1), (901, 1)]);
    assert_eq!(reports.state.lock().before_set, 1);
}

#[test]
fn full_report_table_keeps_counts_without_peer() {
    let reports = reports();
    for at in 0..EDGES + 10 {
        reports.count_at(1, to(&format!("shop/p{at}")), GOOD);
    }
    reports.count_at(1, to("shop/p0"), GOOD);
    reports.count_at(2, to("shop/p0"), GOOD);
    let first = &closed(&reports)[0];
    let calls: u64 = first.edges.iter().map(|edge| edge.success).sum();
    assert_eq!(calls, EDGES as u64 + 11);
    assert_eq!(first.edges.len(), EDGES + 1);
    let rest = first.edges.iter().find(|edge| edge.pod.is_empty()).unwrap();
    assert_eq!((rest.success, rest.service.as_str()), (10, ""));
    assert_eq!(limit(&reports, "report-edges"), 10);
}

#[test]
fn kept_intervals_are_bounded_by_number_and_edges() {
    let reports = reports();
    for interval in 0..KEPT_INTERVALS as u64 + 5 {
        reports.count_at(interval + 1, to("shop/a"), GOOD);
    }
    assert_eq!(closed(&reports).len(), KEPT_INTERVALS);
    assert_eq!(limit(&reports, "report-slots"), 0, "old slots go in order");
    for interval in 100..110 {
        for at in 0..EDGES {
            reports.count_at(interval, to(&format!("shop/p{at}")), GOOD);
        }
    }
    let kept: usize = closed(&reports)
        .iter()
        .map(|report| report.edges.len())
        .sum();
    assert!(kept <= KEPT_EDGES, "{kept}");
    assert!(limit(&reports, "report-slots") > 0);
}

#[tokio::test(start_paused = true)]
async fn new_stream_gets_earlier_reports_again() {
    let reports = Arc::new(reports());
    let (now, at) = (SystemTime::now(), Instant::now());
    let ago = [3, 2, 1].map(|intervals| Duration::from_secs(intervals * INTERVAL));
    for ago in ago {
        reports.close(now - ago, at - ago);
        reports.count(to("shop/a"), GOOD);
    }
    for _ in 0..2 {
        let mut received = stream(&reports);
        // The task itself closes the interval that was open: that of today is later.
        for ago in ago {
            let interval = interval_of(now - ago) * INTERVAL;
            assert_eq!(next(&mut received).await.slot, interval);
        }
    }
}

/// A new stream to a controller.
fn stream(reports: &Arc<Reports>) -> mpsc::Receiver<v1::Report> {
    let (stream, received) = mpsc::channel(1);
    let feeding = Arc::clone(reports);
    tokio::spawn(async move { feeding.feed(stream).await });
    received
}

/// What a new stream gets next, which waits for nothing.
async fn next(received: &mut mpsc::Receiver<v1::Report>) -> v1::Report {
    let report = tokio::time::timeout(Duration::from_millis(1), received.recv()).await;
    report.expect("no report came").unwrap()
}

#[tokio::test(start_paused = true)]
async fn new_report_stream_omits_intervals_before_clock_set() {
    let reports = Arc::new(reports());
    let (now, at) = (SystemTime::now(), Instant::now());
    let ago = |intervals: u64| Duration::from_secs(intervals * INTERVAL);
    let behind = Duration::from_secs(60);
    for intervals in (3..23).rev() {
        reports.close(now - behind - ago(intervals), at - ago(intervals));
        reports.count(to("shop/a"), GOOD);
    }
    reports.close(now - ago(2), at - ago(2));
    reports.count(to("shop/b"), GOOD);
    for _ in 0..2 {
        let first = next(&mut stream(&reports)).await;
        assert_eq!(first.slot, interval_of(now - ago(2)) * INTERVAL);
        assert_eq!(first.edges[0].pod, "shop/b");
    }
    assert_eq!(closed(&reports).len(), 21, "open streams have all");
}

#[tokio::test]
async fn ending_pod_sends_its_open_interval_at_once() {
    let reports = Arc::new(reports());
    let (stream, mut received) = mpsc::channel(1);
    let feeding = Arc::clone(&reports);
    tokio::spawn(async move { feeding.feed(stream).await });
    tokio::task::yield_now().await;
    reports.count(to("shop/a"), GOOD);
    reports.leave();
    let wait = std::time::Duration::from_secs(2);
    let report = tokio::time::timeout(wait, received.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(report.edges[0].success, 1);
}

/// Requests of a caller that take a route; `None` where no metric names routes.
fn by_route(caller: &str, route: Option<&str>) -> CellKey {
    CellKey {
        call_ends: CallEnds::Inbound {
            port: 80,
            caller: caller.into(),
            at: None,
            security: Security::mtls,
        },
        protocol: Protocol::Http1,
        route: route.map(Into::into),
        group: CallGroup::None,
    }
}

fn requests_of(edge: &v1::Edge) -> Vec<(&str, u64)> {
    let routes = edge.routes.iter();
    let mut routes: Vec<_> = routes
        .map(|one| (one.route.as_str(), one.requests))
        .collect();
    routes.sort_unstable();
    routes
}

#[test]
fn routes_count_within_edges_and_over_all_callers() {
    let reports = reports();
    for (caller, route, outcome) in [
        ("shop/web", Some("cart/read"), GOOD),
        ("shop/web", Some("cart/read"), BAD),
        ("shop/web", Some(""), GOOD),
        ("shop/app", Some("cart/read"), GOOD),
        // Refused before it was evaluated.
        ("shop/app", None, BAD),
    ] {
        reports.count_at(1, by_route(caller, route), outcome);
    }
    reports.close_at(2);
    let report = &closed(&reports)[0];
    assert_eq!(report.edges.len(), 2, "{report:?}");
    let of = |caller: &str| {
        let mut edges = report.edges.iter();
        edges.find(|edge| edge.identity == caller).unwrap()
    };
    let (web, app) = (of("shop/web"), of("shop/app"));
    assert_eq!(
        (web.success, web.failure, app.success, app.failure),
        (2, 1, 1, 1)
    );
    assert_eq!(requests_of(web), [("", 1), ("cart/read", 2)]);
    assert_eq!(requests_of(app), [("cart/read", 1)]);
    let rows: Vec<_> = report
        .routes
        .iter()
        .map(|row| (row.port, row.route.as_str(), row.success, row.failure))
        .collect();
    assert_eq!(rows, [(80, "", 1, 0), (80, "cart/read", 2, 1)]);
    assert_eq!(report.routes[1].latency, [0, 0, 3]);
    assert_eq!(limit(&reports, "report-routes"), 0);
}

#[test]
fn open_request_reports_its_route_before_it_ends() {
    let reports = reports();
    reports.close_at(1);
    let watching = by_route("shop/web", Some("cart/watch"));
    reports.metrics.cell(watching).begin();
    reports.close_at(2);
    let report = &closed(&reports)[0];
    let [edge] = &report.edges[..] else {
        panic!("{report:?}")
    };
    assert_eq!((edge.success, edge.open), (0, 1));
    assert_eq!(requests_of(edge), [("cart/watch", 0)]);
    assert!(report.routes.is_empty(), "nothing was served yet");
}

#[test]
fn without_names_a_report_says_nothing_of_routes() {
    let reports = reports();
    reports.count_at(1, by_route("shop/web", None), GOOD);
    reports.close_at(2);
    let report = &closed(&reports)[0];
    assert!(report.routes.is_empty() && report.edges[0].routes.is_empty());
}

#[test]
fn routes_beyond_report_limit_count_for_edge_only() {
    let reports = reports();
    for number in 0..300 {
        let cell_key = by_route("shop/web", Some(&format!("cart/{number:03}")));
        reports.count_at(1, cell_key.clone(), GOOD);
        if number < 3 {
            reports.count(cell_key, GOOD);
        }
    }
    reports.close_at(2);
    let report = &closed(&reports)[0];
    let [edge] = &report.edges[..] else {
        panic!("{report:?}")
    };
    assert_eq!((edge.success, edge.routes.len()), (303, 16));
    let reported = requests_of(edge);
    assert_eq!(
        reported.iter().map(|(_, requests)| requests).sum::<u64>(),
        303
    );
    assert_eq!(reported[1], ("cart/000", 2), "the most used ones stay");
    assert_eq!(reported[0].0, "", "and the others have none");
    assert_eq!(report.routes.len(), 256);
    assert!(report.routes.iter().any(|row| row.route == "cart/002"));
    assert_eq!(limit(&reports, "report-routes"), 1);
    assert!(super::weight(report) > (256 + 16) / 4, "and they take room");
}

/// Both are made of what is taken out of the cells.
#[test]
fn early_sums_equal_the_report_of_the_interval() {
    let reports = reports();
    let early = EarlyReports::new(reports.metrics.clone());
    reports.close_at(7);
    reports.count(by_route("shop/web", None), BAD);
    reports.close_at(8);
    early.want(true);
    let beyond = CallOutcome {
        status: 429,
        reason: Some(Reason::Limit),
        ..BAD
    };
    let copy = CellKey {
        group: CallGroup::Copies,
        ..by_route("shop/web", Some("cart/read"))
    };
    for _ in 0..3 {
        for (key, outcome) in [
            (by_route("shop/web", None), GOOD),
            (by_route("shop/web", Some("cart/read")), BAD),
            (by_route("shop/api", Some("")), beyond),
            (copy.clone(), GOOD),
            (to("shop/a"), BAD),
        ] {
            reports.count(key, outcome);
        }
        // A look takes nothing away from the report.
        early.look(tokio::time::Instant::now());
    }
    let sums = early.look(tokio::time::Instant::now()).unwrap().sums;
    reports.close_at(9);
    let edges = closed(&reports).pop().unwrap().edges;
    let served = edges.iter().filter(|edge| edge.side() == v1::Side::Server);
    let (mut calls, mut failed, mut latency) = (0, 0, Vec::new());
    for edge in served {
        let reason = |reason: &v1::ReasonCalls| (reason.reason == "limit").then_some(reason.calls);
        let limited: u64 = edge.reasons.iter().filter_map(reason).sum();
        calls += edge.success + edge.failure;
        failed += edge.failure - limited;
        latency.extend(edge.latency.iter().map(|count| u64::from(*count)));
    }
    let sum = |of: fn(&v1::EarlySums) -> u64| sums.iter().map(of).sum::<u64>();
    assert_eq!((calls, failed), (12, 3));
    assert_eq!(
        (sum(|row| row.calls), sum(|row| row.failed)),
        (calls, failed)
    );
    let timed = sum(|row| row.latency.iter().sum());
    assert_eq!(timed, latency.iter().sum::<u64>());
    let groups: Vec<_> = sums.iter().map(|row| (row.group(), row.calls)).collect();
    assert_eq!(groups, [(CallGroup::None, 9), (CallGroup::Copies, 3)]);
    assert_eq!(
        edges
            .iter()
            .filter(|edge| edge.identity == "shop/web")
            .count(),
        1
    );
}
