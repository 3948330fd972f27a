use super::*;

const NOW: u64 = 1_000_000;

fn now() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(NOW)
}

fn pod(uid: &str) -> Reporter {
    Reporter {
        uid: uid.into(),
        pod: ObjectKey::new("shop", uid),
    }
}

fn report(process: u64, slots_ago: u64, edges: &[u64]) -> v1::Report {
    let edge = |(at, success): (usize, &u64)| v1::Edge {
        pod: format!("shop/p{at}"),
        success: *success,
        ..v1::Edge::default()
    };
    v1::Report {
        process,
        slot: NOW - slots_ago * SLOT,
        edges: edges.iter().enumerate().map(edge).collect(),
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

#[test]
fn slot_that_is_told_again_counts_once_and_the_fuller_one_wins() {
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
fn slots_out_of_time_are_refused_and_old_ones_forgotten() {
    let reports = Reports::new(ReportMetrics::default());
    reports.take(&pod("a"), report(1, SLOTS, &[1]), true, now());
    let ahead = v1::Report {
        slot: NOW + 3 * SLOT,
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
    let later = now() + Duration::from_secs(SLOTS * SLOT);
    let fresh = v1::Report {
        slot: NOW + SLOTS * SLOT,
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
fn too_many_edges_cost_the_oldest_slots_and_are_counted() {
    let reports = Reports::new(ReportMetrics::default());
    let edges = [1; MAX_REPORT_EDGES];
    let pods = Caps::default().report_edges / MAX_REPORT_EDGES / 2 + 1;
    for slots_ago in [3, 2, 1] {
        for at in 0..pods {
            reports.take(
                &pod(&format!("p{at}")),
                report(1, slots_ago, &edges),
                true,
                now(),
            );
        }
    }
    let held = reports.inner.state.lock().edges;
    assert!(held <= Caps::default().report_edges, "{held}");
    assert!(reports.inner.metrics.slots_dropped.get() >= 1);
    let oldest = reports.inner.state.lock().slots.keys().next().copied();
    assert!(oldest > Some(NOW / SLOT - 3));
}

#[test]
fn replicas_that_tell_each_other_hold_the_same() {
    let (one, other) = (
        Reports::new(ReportMetrics::default()),
        Reports::new(ReportMetrics::default()),
    );
    for at in 0..CHUNK as u64 + 10 {
        one.take(&pod(&format!("a{at}")), report(1, 2, &[at]), true, now());
    }
    other.take(&pod("b"), report(1, 2, &[1000]), true, now());
    let tell = |from: &Reports, to: &Reports, since| {
        let (revision, messages) = from.own_since(since);
        assert!(
            messages
                .iter()
                .all(|message| message.reports.len() <= CHUNK)
        );
        messages
            .into_iter()
            .for_each(|message| to.heard(message, now()));
        revision
    };
    let revision = tell(&one, &other, 0);
    tell(&other, &one, 0);
    assert_eq!(calls(&one), calls(&other));
    // What was heard is not told back, and what was told not again.
    assert!(one.own_since(revision).1.is_empty());
    one.take(&pod("late"), report(1, 2, &[5]), true, now());
    tell(&one, &other, revision);
    assert_eq!(calls(&one), calls(&other));
}
