//! Which report proves the calls of an edge.
//!
//! Claims: observe-7, observe-8

use super::*;
use crate::graph::edges::Edges;
use crate::graph::key::tests::edge;
use crate::graph::sums::Rare;

/// Rows of the edges that lead to these ports, by whether the called side counted.
fn folded(rows: &[(u16, bool, EdgeTotals)]) -> Folded {
    let mut edges = Edges::default();
    let rows = rows.iter().map(|(port, server, sums)| {
        let key = edge(*port);
        let by = key.from.clone();
        Row {
            edge: edges.get(key, &by).unwrap(),
            server: *server,
            sums: sums.clone(),
        }
    });
    Folded {
        rows: rows.collect(),
        ..Folded::default()
    }
}

/// Five calls over mutual TLS that went well, to this port of the pods.
fn five(own_port: u16) -> EdgeTotals {
    EdgeTotals {
        success: 5,
        secured: (5, 5),
        own_port,
        ..EdgeTotals::default()
    }
}

// Claims: observability-15
#[test]
fn called_side_alone_proves_calls_on_its_counted_port() {
    let plaintext = EdgeTotals {
        secured: (0, 5),
        ..five(8080)
    };
    let refused = EdgeTotals {
        success: 0,
        failure: 5,
        ..five(8080)
    };
    let under_way = EdgeTotals {
        success: 0,
        open: 1,
        ..five(8080)
    };
    let called = |own_port| (80, false, five(own_port));
    for (what, rows, proven) in [
        (
            "both",
            vec![called(8080), (8080, true, five(8080))],
            (80, true),
        ),
        (
            "both, of the same edge",
            vec![called(0), (80, true, five(8080))],
            (80, true),
        ),
        ("the called", vec![(8080, true, five(8080))], (8080, true)),
        (
            "the called, of what is open",
            vec![called(8080), (8080, true, under_way)],
            (80, true),
        ),
        ("the caller", vec![called(8080)], (80, false)),
        (
            "the called, of refused calls",
            vec![called(8080), (8080, true, refused)],
            (80, false),
        ),
        (
            "the called, of plaintext",
            vec![called(8080), (8080, true, plaintext)],
            (80, false),
        ),
        (
            "the caller, of a port that leads nowhere",
            vec![called(0), (8080, true, five(8080))],
            (80, false),
        ),
    ] {
        let rows = minute(&folded(&rows));
        let port_counts: Vec<(u16, bool)> = rows
            .iter()
            .map(|row| (row.edge.key().port, row.is_proven()))
            .collect();
        assert_eq!(port_counts, [proven], "{what}");
        assert_eq!(rows[0].requests, 5, "{what}");
    }
}

#[test]
fn minute_shows_refusals_hidden_by_caller_without_changing_numbers() {
    let because = |reason: &str| {
        let rare = Rare {
            reasons: vec![(reason.into(), 3)],
            ..Rare::default()
        };
        let served = EdgeTotals {
            failure: 3,
            rare: Some(Box::new(rare)),
            ..five(8080)
        };
        let called = EdgeTotals {
            latency: [0, 5].into(),
            ..five(8080)
        };
        let rows = [(80, false, called), (8080, true, served)];
        minute(&folded(&rows))
    };
    for (reason, refused) in [
        ("not-allowed", true),
        ("no-identity", true),
        ("connect-failed", false),
    ] {
        let rows = because(reason);
        assert_eq!(rows.len(), 1, "{reason}");
        let row = &rows[0];
        assert_eq!(row.has_refused(), refused, "{reason}");
        assert_eq!((row.is_proven(), row.failure), (true, 0), "{reason}");
        assert_eq!(row.mtls(), Some(1.0), "{reason}");
        assert!(row.p95().is_some_and(|ms| ms <= 30_000.0), "{reason}");
    }
    let unmarked = minute(&folded(&[(
        80,
        false,
        EdgeTotals {
            secured: (0, 0),
            ..five(0)
        },
    )]));
    assert_eq!((unmarked[0].p95(), unmarked[0].mtls()), (None, None));
}

/// The pod that was folded last may be gone, and then its ports are not known.
#[test]
fn pod_port_stays_known_after_pod_is_gone() {
    let mut sums = five(8080);
    sums.then(&five(0));
    assert_eq!((sums.own_port, sums.success), (8080, 10));
}

/// Of the edge that leads to a port what the called side counted: of its own calls, or of those of
/// so many edges; and whether it is known that they came by its port.
type PortCounts = (u16, Option<u64>, Option<(u64, u32)>, bool);

fn port_counts(rows: &[(u16, bool, EdgeTotals)]) -> Vec<PortCounts> {
    let all = edges(&folded(rows));
    let port_counts = all.iter().map(|(edge, counted)| {
        let sums = counted.served(&all).map(EdgeTotals::requests);
        let group = counted.shared.as_ref().map(|shared| shared.edges);
        let (own, of_all) = match group {
            Some(edges) => (None, sums.map(|sums| (sums, edges))),
            None => (sums, None),
        };
        (edge.key().port, own, of_all, counted.port_known)
    });
    let mut port_counts: Vec<PortCounts> = port_counts.collect();
    port_counts.sort_unstable();
    port_counts
}

fn calls(success: u32, own_port: u16) -> EdgeTotals {
    EdgeTotals {
        success,
        own_port,
        ..EdgeTotals::default()
    }
}

#[test]
fn several_edges_to_one_port_share_its_calls() {
    // By the pods' own address, which the called side names as well, and by two Services.
    let (own, one, other) = (
        (8080, false, calls(2, 8080)),
        (80, false, calls(18, 8080)),
        (81, false, calls(5, 8080)),
    );
    let served = (8080, true, calls(25, 8080));
    let all = [own, one.clone(), other, served.clone()];
    let of_three = Some((25, 3));
    let expected: [PortCounts; 3] = [80, 81, 8080].map(|port| (port, None, of_three, true));
    assert_eq!(port_counts(&all), expected);
    // Control: calls to another port of theirs are its own edge's.
    let apart = [
        one,
        served,
        (90, false, calls(4, 9090)),
        (9090, true, calls(4, 9090)),
    ];
    let expected: [PortCounts; 2] = [(80, Some(25), None, true), (90, Some(4), None, true)];
    assert_eq!(port_counts(&apart), expected);
}

#[test]
fn shared_calls_prove_nothing_for_edges_with_unknown_ports() {
    let unknown = [
        (80, false, calls(3, 0)),
        (90, false, calls(4, 0)),
        (8080, true, calls(3, 8080)),
        (9090, true, calls(4, 9090)),
    ];
    let expected: [PortCounts; 2] = [80, 90].map(|port| (port, None, Some((7, 2)), false));
    assert_eq!(port_counts(&unknown), expected);
    // One that is known to lead there is believed before one that may.
    let [one, other, served, _] = unknown;
    let known = [(one.0, false, calls(3, 8080)), other, served];
    let expected: [PortCounts; 2] = [(80, Some(3), None, true), (90, None, None, false)];
    assert_eq!(port_counts(&known), expected);
}

#[test]
fn minute_marks_proof_and_refusal_on_every_sharing_edge() {
    let rare = Rare {
        reasons: vec![("not-allowed".into(), 3)],
        ..Rare::default()
    };
    let refused = EdgeTotals {
        failure: 3,
        rare: Some(Box::new(rare)),
        ..five(8080)
    };
    for (served, refused) in [(five(8080), false), (refused, true)] {
        let rows = [
            (80, false, five(8080)),
            (81, false, five(8080)),
            // Never came there.
            (90, false, five(9090)),
            (8080, true, served),
        ];
        let mut port_counts: Vec<(u16, bool, bool)> = minute(&folded(&rows))
            .iter()
            .map(|row| (row.edge.key().port, row.is_proven(), row.has_refused()))
            .collect();
        port_counts.sort_unstable();
        let expected = [(80, true, refused), (81, true, refused), (90, false, false)];
        assert_eq!(port_counts, expected);
    }
}
