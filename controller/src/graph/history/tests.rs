//! What is kept how finely, and what goes first.
//!
//! Claims: observe-14, observe-143, observe-148, observe-26, observe-3

use crds::observe::{NodeKind, Protocol};

use super::*;
use crate::graph::fold::Row;
use crate::graph::key::{EdgeKey, NodeKey};
use crate::graph::sums::EdgeTotals;
use crate::testing::topology::key;

mod open;

fn edge(history: &mut History, port: u16) -> EdgeRef {
    edge_from(history, "web", port)
}

fn edge_from(history: &mut History, from: &str, port: u16) -> EdgeRef {
    let node = |name: &str| NodeKey {
        kind: NodeKind::Deployment,
        object: key("shop", name),
    };
    let key = EdgeKey {
        from: node(from),
        to: node("api"),
        service: None,
        port,
        backend: None,
        split: None,
        rule: None,
        protocol: Protocol::Http1,
        account: None,
    };
    let by = key.from.clone();
    history.edges.get(key, &by).unwrap()
}

fn folded(edge: &EdgeRef, calls: u32, open: u32) -> Folded {
    let sums = EdgeTotals {
        success: calls,
        open,
        latency: [0, calls].into(),
        ..EdgeTotals::default()
    };
    Folded {
        rows: vec![Row {
            edge: edge.clone(),
            server: false,
            sums,
        }],
        ..Folded::default()
    }
}

/// One call in every interval up to but without `end`.
fn steady(end: u64) -> (History, EdgeRef) {
    let mut history = History::default();
    let edge = edge(&mut history, 80);
    for interval in end - 800..end {
        history.take(interval, 1, folded(&edge, 1, 0));
        history.tidy(interval);
    }
    (history, edge)
}

const NOW: u64 = 12_000;

fn calls(history: &History, intervals: (u64, u64)) -> u64 {
    let window = history.window(intervals, NOW, 0);
    window
        .edges
        .values()
        .map(|counted| counted.sums.requests())
        .sum()
}

#[test]
fn every_window_counts_each_call_once() {
    let (history, _) = steady(NOW);
    for length in [2, 5, FINE, FINE + 1, 36, LONGEST] {
        let intervals = bounds(length, NOW);
        assert_eq!(
            calls(&history, intervals),
            intervals.1 - intervals.0,
            "{length}: {intervals:?}"
        );
        assert!(intervals.1 - intervals.0 >= length, "{length}");
    }
    // A long window ends with half a minute, whatever the interval.
    let (history, _) = steady(NOW + 4);
    assert_eq!(bounds(36, NOW + 4), (NOW - 36, NOW));
    assert_eq!(calls(&history, bounds(36, NOW + 4)), 36);
}

#[test]
fn repeated_intervals_start_empty_and_earlier_ones_stay() {
    let (mut history, edge) = steady(NOW);
    let bytes = history.bytes;
    history.forget_from(NOW - 30);
    assert_eq!(calls(&history, (NOW - 60, NOW - 30)), 30);
    assert_eq!(calls(&history, (NOW - 30, NOW)), 0);
    for interval in NOW - 30..NOW {
        assert!(history.lacks(interval, 1), "{interval}");
        history.take(interval, 1, folded(&edge, 1, 0));
        history.tidy(interval);
    }
    assert_eq!(calls(&history, (NOW - 60, NOW)), 60);
    assert_eq!(history.bytes, bytes);
}

#[test]
fn interval_with_new_reports_is_refolded_and_replaced() {
    let mut history = History::default();
    let edge = edge(&mut history, 80);
    assert!(history.lacks(NOW - 1, 1));
    history.take(NOW - 1, 1, folded(&edge, 3, 0));
    assert!(!history.lacks(NOW - 1, 1));
    assert!(history.lacks(NOW - 1, 2));
    history.take(NOW - 1, 2, folded(&edge, 4, 0));
    assert_eq!(calls(&history, (NOW - 2, NOW)), 4);
    assert_eq!(history.bytes, folded(&edge, 4, 0).size());
}

#[test]
fn window_says_whether_more_may_come_or_something_went() {
    let (history, edge) = steady(NOW);
    let incomplete =
        |intervals, settled, whole| history.window(intervals, settled, whole).incomplete;
    assert_eq!(incomplete((NOW - 12, NOW), NOW, 0), None);
    let open = incomplete((NOW - 12, NOW), NOW - 1, 0);
    assert_eq!(open, Some(Incomplete::Unsettled));
    // Reports that went after they were folded are not missed.
    assert_eq!(incomplete((NOW - 12, NOW), NOW, NOW - 3), None);
    let mut late = History::default();
    late.take(NOW - 1, 1, folded(&edge, 1, 0));
    // What was dropped matters more than that something may still come.
    for settled in [NOW, NOW - 1] {
        let window = late.window((NOW - 12, NOW), settled, NOW - 3);
        assert_eq!(window.incomplete, Some(Incomplete::Lost(NO_ROOM)));
    }
}

#[test]
fn open_connections_are_of_last_fully_reported_interval() {
    let mut history = History::default();
    let edge = edge(&mut history, 80);
    history.take(NOW - 2, 1, folded(&edge, 1, 9));
    // Half of the proxies have reported.
    history.take(NOW - 1, 1, folded(&edge, 1, 4));
    let open = |settled| {
        let window = history.window((NOW - 12, NOW), settled, 0);
        window.edges[&edge].sums.open
    };
    assert_eq!((open(NOW - 1), open(NOW)), (9, 4));
}

#[test]
fn hour_is_kept_by_minute_and_older_ones_go() {
    let (history, edge) = steady(NOW);
    let minutes = history.minutes(0, |_| true);
    let rows = &minutes[&edge];
    assert!(rows.len() as u64 <= MINUTES + 1, "{}", rows.len());
    assert!(rows.len() as u64 >= MINUTES - 3, "{}", rows.len());
    assert!(
        rows.iter()
            .all(|(_, row)| row.requests == 12 && row.p95().is_some())
    );
    assert!(rows.windows(2).all(|pair| pair[0].0 + 1 == pair[1].0));
    let first = NOW / FINE - 10;
    assert!(
        history.minutes(first, |_| true)[&edge]
            .iter()
            .all(|(minute, _)| *minute >= first)
    );
}

#[test]
fn minute_separates_failed_from_cancelled_requests() {
    let mut history = History::default();
    let edge = edge(&mut history, 80);
    let minute = NOW / FINE - 10;
    let mut counted = folded(&edge, 5, 0);
    (counted.rows[0].sums.failure, counted.rows[0].sums.cancelled) = (2, 4);
    history.take(minute * FINE, 1, counted);
    for interval in minute * FINE..NOW {
        history.tidy(interval);
    }
    let minutes = history.minutes(0, |_| true);
    let (_, row) = minutes[&edge][0];
    assert_eq!((row.requests, row.failure, row.cancelled), (11, 2, 4));
}

/// By a whole share access is granted, and by none it is not.
#[test]
fn minute_rounds_no_share_to_all_or_to_none() {
    let minute = NOW / FINE - 10;
    let share = |secured| {
        let mut history = History::default();
        let edge = edge(&mut history, 80);
        let mut counted = folded(&edge, 1, 0);
        counted.rows[0].sums.secured = secured;
        history.take(minute * FINE, 1, counted);
        for interval in minute * FINE..NOW {
            history.tidy(interval);
        }
        history.minutes(0, |_| true)[&edge][0].1.mtls()
    };
    assert_eq!(share((5, 5)), Some(1.0));
    assert_eq!(share((0, 5)), Some(0.0));
    assert_eq!(share((0, 0)), None);
    assert!(share((999_999, 1_000_000)).unwrap() < 1.0);
    assert!(share((1, 1_000_000)).unwrap() > 0.0);
    let half = share((1, 2)).unwrap();
    assert!((half - 0.5).abs() < 1e-4, "{half}");
}

#[test]
fn minute_with_calls_in_first_half_is_kept() {
    let mut history = History::default();
    let edge = edge(&mut history, 80);
    let minute = NOW / FINE - 10;
    history.take(minute * FINE, 1, folded(&edge, 3, 0));
    for interval in minute * FINE..NOW {
        history.tidy(interval);
    }
    let minutes = history.minutes(0, |_| true);
    let rows = minutes.get(&edge).map_or(&[][..], Vec::as_slice);
    let rows: Vec<(u64, u32)> = rows.iter().map(|(at, row)| (*at, row.requests)).collect();
    assert_eq!(rows, [(minute, 3)]);
}

// Claims: observability-4
#[test]
fn history_overflow_drops_and_counts_oldest_minutes_first() {
    let (mut history, _) = steady(NOW);
    let before = history.minutes.len() + history.halves.len();
    assert_eq!(history.dropped, 0);
    // All minutes and halves have to go, and nothing more.
    let all = history.minutes.values();
    let all: usize = all.map(|rows| size_of_val(&**rows)).sum();
    let halves: usize = history.halves.values().map(|kept| kept.bytes).sum();
    history.bytes += MAX_BYTES - history.size() + all + halves - 1;
    history.tidy(NOW - 1);
    assert!(!history.intervals.is_empty() && history.halves.is_empty());
    assert_eq!(history.dropped, before as u64);
    let oldest = history.minutes.keys().next().copied();
    assert!(oldest.is_none_or(|minute| minute > NOW / FINE - MINUTES));
    // Intervals that stand alone stay, and a window that lost something reports it.
    assert_eq!(calls(&history, (NOW - 12, NOW)), 12);
    assert!(
        history
            .window(bounds(LONGEST, NOW), NOW, 0)
            .incomplete
            .is_some()
    );
}

// Claims: observability-4
#[test]
fn everything_of_twenty_thousand_edges_stays_within_the_bound() {
    const BUSY: u64 = NOW - 30;
    let mut history = History::default();
    // No node has more than its share.
    let edges: Vec<EdgeRef> = (0..20_000)
        .map(|at| edge_from(&mut history, &format!("web-{}", at % 10), at / 10))
        .collect();
    assert_eq!(history.edges.size().0, 20_000);
    for interval in NOW - 180..NOW {
        // A quarter has calls in each interval and all in each half; in the end all in each interval.
        let (first, step) = match interval < BUSY {
            true => (usize::try_from(interval % 4).unwrap(), 4),
            false => (0, 1),
        };
        let called = edges.iter().skip(first).step_by(step);
        let rows = called.flat_map(|edge| folded(edge, 1, 1).rows);
        let all = Folded {
            rows: rows.collect(),
            ..Folded::default()
        };
        history.take(interval, 1, all);
        history.tidy(interval);
        assert!(history.size() <= MAX_BYTES, "{}", history.size());
        if interval < BUSY {
            assert_eq!(history.dropped, 0, "{}", history.size());
        }
    }
    assert!(history.dropped > 0, "the bound is what holds");
    assert!(history.intervals.contains_key(&(NOW - 1)));
    let counted: usize = history
        .intervals
        .values()
        .map(|kept| kept.folded.size())
        .sum();
    let halves: usize = history.halves.values().map(|kept| kept.folded.size()).sum();
    let minutes: usize = history
        .minutes
        .values()
        .map(|rows| size_of_val(&**rows))
        .sum();
    assert_eq!(history.bytes, counted + halves + minutes);
}

#[test]
fn half_minutes_dropped_after_minutes_are_counted_too() {
    let (mut history, _) = steady(NOW);
    let (minutes, halves) = (history.minutes.len(), history.halves.len());
    assert!(halves > 2);
    // So much that beside all minutes the two oldest halves have to go.
    let all = history.minutes.values();
    let all: usize = all.map(|rows| size_of_val(&**rows)).sum();
    let two = history.halves.values().take(2);
    let two: usize = two.map(|kept| kept.bytes).sum();
    history.bytes += MAX_BYTES - history.size() + all + two;
    history.tidy(NOW - 1);
    assert_eq!(
        (history.minutes.len(), history.halves.len()),
        (0, halves - 2)
    );
    assert_eq!(history.dropped, minutes as u64 + 2);
}

/// Intervals alone would be more than all of it may take.
#[test]
fn intervals_are_dropped_early_when_history_exceeds_limit() {
    let mut history = History::default();
    let edges: Vec<EdgeRef> = (0..2000).map(|port| edge(&mut history, port)).collect();
    for interval in NOW - 25..NOW {
        let mut all = Folded::default();
        for edge in &edges {
            let mut one = folded(edge, 1, 1);
            one.rows[0].sums.latency = vec![1; 1_000].into();
            all.rows.append(&mut one.rows);
        }
        history.take(interval, 1, all);
        history.tidy(interval);
        assert!(history.size() <= MAX_BYTES, "{}", history.size());
    }
    assert!(
        history.intervals.contains_key(&(NOW - 1)),
        "the newest is there"
    );
    assert!(history.dropped > 0 && history.whole_from > NOW - 25);
    // They do not come back to go again.
    let gone = NOW - 25..history.whole_from;
    assert!(
        gone.clone()
            .all(|interval| !history.intervals.contains_key(&interval))
    );
    assert!(gone.clone().count() > 0 && gone.clone().all(|interval| !history.lacks(interval, 1)));
    assert!(history.lacks(NOW, 1), "one that was not reported");
}

#[test]
fn window_of_selected_nodes_has_only_their_edges() {
    let (mut history, _) = steady(NOW);
    let nodes = |name: &str| NodeKey {
        kind: NodeKind::Deployment,
        object: key("bank", name),
    };
    let like = edge(&mut history, 80).key().clone();
    let (to, by) = (nodes("vault"), like.from.clone());
    let own = EdgeKey { to, ..like };
    let own = history.edges.get(own, &by).unwrap();
    let mut both = folded(&own, 7, 0);
    both.rows.extend(folded(&edge(&mut history, 80), 1, 0).rows);
    history.take(NOW - 1, 2, both);
    let bank = |nodes: &[&NodeKey]| nodes.iter().any(|node| node.namespace() == "bank");
    let window = history.window_of((NOW - 12, NOW), (NOW, 0), bank);
    let calls: Vec<u64> = window
        .edges
        .values()
        .map(|one| one.sums.requests())
        .collect();
    assert_eq!(calls, [7]);
    assert_eq!(history.window((NOW - 12, NOW), NOW, 0).edges.len(), 2);
}

/// One of a caller's proxies reports its calls to one port, another one reports nothing. What the
/// called side counted at the other port is not the first one's.
#[test]
fn silent_proxys_calls_at_another_port_stay_separate() {
    let mut history = History::default();
    let (reported, silent) = (edge(&mut history, 8080), edge(&mut history, 9000));
    let served_at = |edge: &EdgeRef, own_port, calls| Row {
        edge: edge.clone(),
        server: true,
        sums: EdgeTotals {
            success: calls,
            own_port,
            ..EdgeTotals::default()
        },
    };
    // Port of the pods that the caller knows, and by which edge its calls are counted.
    for (known, own) in [(8080, true), (0, false), (9000, false)] {
        let mut folded = folded(&reported, 5, 0);
        folded.rows[0].sums.own_port = known;
        folded.rows.push(served_at(&silent, 9000, 3));
        let edges = window::edges(&folded);
        assert_eq!(edges.contains_key(&silent), own, "{known}");
        assert_eq!(edges[&reported].sums.requests(), 5, "{known}");
        assert_eq!(edges[&reported].server.is_some(), !own, "{known}");
        let served: Vec<EdgeRef> = window::only_served(&folded, &[])
            .into_iter()
            .cloned()
            .collect();
        assert_eq!(served == std::slice::from_ref(&silent), own, "{known}");
        // The same edge is the same, wherever its pods have the port.
        folded.rows.push(served_at(&reported, 8081, 2));
        let server = window::edges(&folded)[&reported].server.clone().unwrap();
        assert_eq!(server.requests(), if own { 2 } else { 5 }, "{known}");
    }
}

/// Half minutes and refolded intervals report it as well, for as long as they are in a window.
#[test]
fn window_says_whose_reports_went_before_they_were_folded() {
    let mut history = History::default();
    let edge = edge(&mut history, 80);
    let lacking = |calls| {
        let mut counted = folded(&edge, calls, 0);
        counted.dropped_reports.note(&"shop".into());
        counted
    };
    history.take(NOW - 30, 1, folded(&edge, 5, 0));
    history.take(NOW - 30, 2, lacking(1));
    history.take(NOW - 30, 3, lacking(2));
    assert_eq!(calls(&history, (NOW - 30, NOW - 29)), 5, "the fuller sums");
    assert_eq!(history.bytes, history.intervals[&(NOW - 30)].folded.size());
    history.take(NOW - 1, 1, folded(&edge, 1, 0));
    history.tidy(NOW);
    assert!(
        !history.intervals.contains_key(&(NOW - 30)),
        "a half of a minute"
    );
    let concerns = |intervals, namespace: &str| {
        let window = history.window(intervals, NOW, 0);
        window.dropped_reports.concerns(|one| one == namespace)
    };
    assert!(concerns(bounds(LONGEST, NOW), "shop"));
    assert!(!concerns(bounds(LONGEST, NOW), "bank"));
    assert!(!concerns((NOW - 12, NOW), "shop"));
}

#[test]
fn history_says_from_which_minute_on_it_is_known() {
    let first = NOW / FINE - MINUTES;
    let (mut history, _) = steady(NOW);
    assert_eq!(
        history.known_since(first),
        None,
        "what is too old is no loss"
    );
    history.begins(NOW - LONGEST + 1);
    let started = (NOW - LONGEST) / FINE + 1;
    assert_eq!(history.known_since(first), Some(started * 60));
    assert_eq!(history.known_since(started), None);
    // The clock was set back: what comes from there on is counted.
    history.forget_from((started - 5) * FINE);
    assert_eq!(history.known_since(first), Some((started - 5) * 60));

    // The oldest minute goes for want of room, and nothing more.
    let (mut history, _) = steady(NOW);
    let oldest = history.minutes.keys().next().copied().unwrap();
    history.bytes += MAX_BYTES - history.size() + 1;
    history.tidy(NOW - 1);
    assert_eq!(history.dropped, 1);
    assert_eq!(history.known_since(oldest), Some((oldest + 1) * 60));
    assert_eq!(history.known_since(oldest + 1), None);
}
