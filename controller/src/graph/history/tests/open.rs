//! What is open while the last interval is not settled: the last settled value holds, also at both ends
//! of edges whose calls the called side cannot distinguish.
//!
//! Claims: observe-8

use super::*;

/// A connection that stays open without traffic, as that of a websocket; of the last interval the proxy
/// of another edge alone has reported.
#[test]
fn unchanged_open_call_stays_until_interval_settles() {
    for server in [false, true] {
        let mut history = History::default();
        let silent = edge(&mut history, 80);
        let other = edge(&mut history, 81);
        let interval = |edges: &[&EdgeRef]| {
            let rows = edges.iter().flat_map(|edge| folded(edge, 0, 1).rows);
            let mut all = Folded {
                rows: rows.collect(),
                ..Folded::default()
            };
            for row in &mut all.rows {
                row.server = server;
            }
            all
        };
        history.take(NOW - 2, 1, interval(&[&silent, &other]));
        history.take(NOW - 1, 1, interval(&[&other]));
        let open = |settled| {
            let window = history.window((NOW - 12, NOW), settled, 0);
            window.edges.get(&silent).map(|counted| counted.sums.open)
        };
        assert_eq!(open(NOW - 1), Some(1), "the called side: {server}");
        assert_eq!(open(NOW), None, "all have reported: it is over");
    }
}

/// What began since was in no report before, so what is reported of it by now is shown.
#[test]
fn call_started_in_unsettled_interval_is_open() {
    let mut history = History::default();
    let (old, new) = (edge(&mut history, 80), edge(&mut history, 81));
    history.take(NOW - 2, 1, folded(&old, 0, 3));
    let mut last = folded(&old, 0, 1);
    last.rows.extend(folded(&new, 0, 2).rows);
    history.take(NOW - 1, 1, last);
    let window = history.window((NOW - 12, NOW), NOW - 1, 0);
    let open = |edge: &EdgeRef| window.edges[edge].sums.open;
    assert_eq!((open(&old), open(&new)), (3, 2));
}

/// The only proxy that reported anything is gone. A window of several minutes is made of halves.
#[test]
fn settled_interval_without_reports_leaves_nothing_open() {
    let mut history = History::default();
    let edge = edge(&mut history, 80);
    let first = NOW - 5 * HALF;
    history.take(first, 1, folded(&edge, 1, 2));
    let open = |history: &History, end: u64, settled: u64| {
        let window = history.window(bounds(LONGEST, end), settled, 0);
        window.edges.get(&edge).map(|counted| counted.sums.open)
    };
    let short = history.window((first - 11, first + 1), first + 1, 0);
    assert_eq!(short.edges[&edge].sums.open, 2, "the control");
    for settled in [first + 2, first + 3] {
        let window = history.window((first - 9, first + 3), settled, 0);
        assert_eq!(window.edges[&edge].sums.open, 0, "{settled}");
    }
    assert_eq!(open(&history, NOW, NOW), Some(0));
    // The same once the interval has become one of half a minute.
    history.tidy(NOW);
    assert!(history.intervals.is_empty());
    assert_eq!(open(&history, NOW, NOW), Some(0));
}

/// The one of two that holds what the called side counted of both was quiet in the last interval.
#[test]
fn shared_edges_take_open_connections_from_last_interval() {
    let mut history = History::default();
    let edges = [edge(&mut history, 80), edge(&mut history, 81)];
    let served = edge(&mut history, 8080);
    let interval = |callers: &[&EdgeRef], open: u32| {
        let mut all = Folded::default();
        for edge in callers {
            all.rows.extend(folded(edge, 1, 0).rows);
        }
        let mut row = folded(&served, 2, open).rows.remove(0);
        row.server = true;
        all.rows.push(row);
        for row in &mut all.rows {
            row.sums.own_port = 8080;
        }
        all
    };
    for quiet in 0..2 {
        let mut history = History::default();
        history.take(NOW - 3, 1, interval(&[&edges[0], &edges[1]], 9));
        history.take(NOW - 2, 1, interval(&[&edges[1 - quiet]], 5));
        // Half of the proxies have reported.
        history.take(NOW - 1, 1, interval(&[&edges[0], &edges[1]], 1));
        let window = history.window((NOW - 12, NOW), NOW - 1, 0);
        for edge in &edges {
            let counted = &window.edges[edge];
            let open = counted.served(&window.edges).map(|served| served.open);
            assert_eq!(open, Some(5), "{quiet}");
            assert_eq!(counted.shared.as_ref().map(|shared| shared.edges), Some(2));
        }
    }
}
