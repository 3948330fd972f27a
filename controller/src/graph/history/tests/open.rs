//! What is open at both ends of edges whose calls the called side cannot tell apart.

use super::*;

/// The one of two that holds what the called side counted of both was quiet in the last slot.
#[test]
fn what_is_open_of_edges_that_share_it_is_that_of_the_last_slot_too() {
    let mut history = History::default();
    let edges = [edge(&mut history, 80), edge(&mut history, 81)];
    let served = edge(&mut history, 8080);
    let slot = |callers: &[&EdgeRef], open: u32| {
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
        history.take(NOW - 3, 1, slot(&[&edges[0], &edges[1]], 9));
        history.take(NOW - 2, 1, slot(&[&edges[1 - quiet]], 5));
        // Half of the proxies have told.
        history.take(NOW - 1, 1, slot(&[&edges[0], &edges[1]], 1));
        let window = history.window((NOW - 12, NOW), NOW - 1, 0);
        for edge in &edges {
            let counted = &window.edges[edge];
            let open = counted.served(&window.edges).map(|served| served.open);
            assert_eq!(open, Some(5), "{quiet}");
            assert_eq!(counted.shared.as_ref().map(|shared| shared.edges), Some(2));
        }
    }
}
