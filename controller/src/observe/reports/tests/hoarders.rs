//! Pods that report more than their share, and which windows that shortens.
//!
//! Claims: calls-61

use super::*;

/// Pods of one tenant, of which each fills the newest intervals as far as it is let.
fn greedy_pods(reports: &Reports) {
    let edges = [1; MAX_REPORT_EDGES];
    for at in 0..50 {
        for process in 0..MAX_PROCESSES as u64 {
            for slots_ahead in [0, 1] {
                let all = report_ahead(process, slots_ahead, &edges);
                reports.take(&pod(&format!("greedy{at}")), all, true, now());
            }
        }
    }
}

fn report_ahead(process: u64, intervals: u64, edges: &[u64]) -> v1::Report {
    v1::Report {
        slot: NOW + intervals * INTERVAL,
        ..report(process, 0, edges)
    }
}

#[test]
fn pods_filling_newest_intervals_shorten_only_their_window() {
    let reports = Reports::new(ReportMetrics::default());
    honest_pods(&reports);
    greedy_pods(&reports);
    assert!(reports.inner.state.lock().edges <= Caps::default().report_edges);
    assert_eq!(reports.whole_from(), 0, "slots of everybody");
    assert_eq!(honest_edges(&reports), 100 * 100, "edges of honest pods");
    let hoarders = reports.hoarders(0);
    assert!(!hoarders.is_empty());
    for (reporter, whole_from) in &hoarders {
        assert!(reporter.uid.starts_with("greedy"), "{reporter:?}");
        assert!(*whole_from > NOW / INTERVAL, "{whole_from}");
    }
    assert!(
        reports.hoarders(NOW / INTERVAL + 2).is_empty(),
        "later ones"
    );
    let dropped = reports.inner.metrics.intervals_dropped.get();
    assert!(dropped >= hoarders.len() as u64, "{dropped}");
    // What they lost is forgotten with its intervals.
    let passed = INTERVALS + 2;
    let later = now() + Duration::from_secs(passed * INTERVAL);
    let fresh = report_ahead(1, passed, &[1]);
    reports.take(&pod("honest0"), fresh, true, later);
    assert!(reports.hoarders(0).is_empty());
}

#[test]
fn pod_above_share_is_hoarder_despite_room() {
    let reports = Reports::new(ReportMetrics::default());
    for intervals_ago in 0..45 {
        reports.take(
            &pod("greedy"),
            report(1, intervals_ago, &[1; MAX_REPORT_EDGES]),
            true,
            now(),
        );
    }
    assert_eq!(reports.whole_from(), 0);
    assert_eq!(reports.hoarders(0).len(), 1);
}

#[test]
fn too_many_modest_pods_shorten_window_of_all() {
    let reports = Reports::with_capacity(ReportMetrics::default(), 300);
    for intervals_ago in [3, 2, 1] {
        for at in 0..10 {
            let modest = report(1, intervals_ago, &[1; 12]);
            reports.take(&pod(&format!("p{at}")), modest, true, now());
        }
    }
    assert_eq!(reports.whole_from(), NOW / INTERVAL - 2);
    assert!(reports.hoarders(0).is_empty());
}

#[test]
fn scarce_edges_evict_edge_heavy_pod_not_long_names() {
    let reports = Reports::with_capacity(ReportMetrics::default(), 4_000);
    reports.take(&pod("long"), long_report(1, 1, 1), true, now());
    for at in 0..5 {
        let many = report(1, 1, &[1; 800]);
        reports.take(&pod(&format!("many{at}")), many, true, now());
    }
    let mut long = 0;
    reports.each(0, u64::MAX, |reporter, _| {
        long += usize::from(&*reporter.uid == "long");
    });
    assert_eq!(long, 280);
    assert!(reports.inner.metrics.intervals_dropped.get() > 0);
}

#[test]
fn intervals_ahead_are_accepted_within_clock_tolerance() {
    let is_taken = |slots_ahead, own| {
        let reports = Reports::new(ReportMetrics::default());
        let ahead = report_ahead(1, slots_ahead, &[1]);
        reports.take(&pod("a"), ahead, own, now());
        calls(&reports) == 1
    };
    assert!(is_taken(1, true) && !is_taken(2, true));
    // The clock of the replica that sends it may be ahead too.
    assert!(is_taken(2, false) && !is_taken(3, false));
}

#[test]
fn only_names_of_objects_are_taken_as_rules() {
    let reports = Reports::new(ReportMetrics::default());
    for (number, (rule, taken)) in [
        ("", 1),
        ("HTTPRoute shop/web", 2),
        ("TCPRoute.gateway.networking.k8s.io shop/web", 3),
        ("Widget shop/web", 3),
        ("HTTPRoute shop", 3),
        ("HTTPRoute shop/web more", 3),
        ("HTTPRoute ", 3),
    ]
    .into_iter()
    .enumerate()
    {
        let mut report = report(1, 3, &[1]);
        report.edges[0].rule = rule.to_owned();
        reports.take(&pod(&format!("p{number}")), report, true, now());
        assert_eq!(calls(&reports), taken, "{rule:?}");
    }
}
