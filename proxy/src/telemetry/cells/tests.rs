//! Which cells there are, and for how long.
//!
//! Claims: attack-50, observe-139

use std::sync::Arc;
use std::time::Duration;

use policy::protocol::Protocol;

use super::{CELLS, Cells, IDLE, IDLE_NEAR_CAPACITY};
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallGroup, CallOutcome, CellCache, CellKey};
use crate::telemetry::labels::{Direction, Security};

const GOOD: CallOutcome = CallOutcome {
    status: 200,
    success: true,
    reason: None,
};

fn cell_key(port: u16) -> CellKey {
    CellKey {
        call_ends: CallEnds::External {
            port,
            remote: Arc::default(),
            security: Security::plaintext,
        },
        protocol: Protocol::Http1,
        route: None,
        group: CallGroup::None,
    }
}

impl Cells {
    fn call(&self, cell_key: CellKey) {
        let (cell, _) = self.find(cell_key);
        cell.begin();
        cell.outcome(GOOD);
        cell.leave();
    }

    /// Calls that were taken out now, and cells that are left.
    fn drained(&self) -> (u64, usize) {
        let mut calls = 0;
        self.drain(|_, counts| calls += counts.calls(|_| true));
        (calls, self.known.lock().len() - self.rest.len())
    }

    /// Does this while no look-up can find a cell in the map.
    pub(crate) fn while_locked<T>(&self, work: impl FnOnce() -> T) -> T {
        let _held = self.known.lock();
        work()
    }

    /// As if all of it had come so much earlier.
    fn age(&self, by: Duration) {
        for entry in self.known.lock().values_mut() {
            entry.used -= by;
        }
    }
}

#[test]
fn way_has_one_cell_for_all_lookups() {
    let cells = Cells::default();
    let (one, placed) = cells.find(cell_key(80));
    assert!(placed && Arc::ptr_eq(&one, &cells.find(cell_key(80)).0));
    let other = CellKey {
        protocol: Protocol::Grpc,
        ..cell_key(80)
    };
    assert!(!Arc::ptr_eq(&one, &cells.find(other).0));
}

#[test]
fn calls_over_cell_limit_lose_peer_not_protocol() {
    let cells = Cells::default();
    for port in 1..=CELLS as u16 {
        cells.call(cell_key(port));
    }
    let (rest, placed) = cells.find(cell_key(CELLS as u16 + 1));
    assert!(!placed);
    assert_eq!(rest.key().call_ends, CallEnds::Rest(Direction::outbound));
    let opaque = CellKey {
        protocol: Protocol::Opaque,
        ..cell_key(CELLS as u16 + 1)
    };
    assert!(cells.find(opaque).0.key().is_opaque());
    assert_eq!(cells.known.lock().len(), CELLS);
    let every = CELLS as u64;
    assert_eq!(cells.drained().0, every, "and none is lost");
}

#[test]
fn external_destinations_take_up_to_half_of_cells() {
    let cells = Cells::default();
    let outside = |number: usize| CellKey {
        call_ends: CallEnds::External {
            port: 80,
            remote: number.to_string().into(),
            security: Security::plaintext,
        },
        protocol: Protocol::Http1,
        route: None,
        group: CallGroup::None,
    };
    for number in 0..CELLS {
        cells.call(outside(number));
    }
    assert_eq!(cells.known.lock().len(), CELLS / 2 + 1);
    let found = |cell_key: CellKey| cells.find(cell_key).0.key().call_ends.clone();
    assert_eq!(
        found(outside(CELLS)),
        cell_key(80).call_ends,
        "one for the others"
    );
    assert_eq!(found(outside(3)), outside(3).call_ends, "a known one stays");
    assert_eq!(
        found(cell_key(81)),
        cell_key(81).call_ends,
        "an honest one beside"
    );
    assert_eq!(cells.drained().0, CELLS as u64, "and none is lost");
}

#[test]
fn routes_take_up_to_half_of_cells() {
    let cells = Cells::default();
    let routed = |number: usize| CellKey {
        route: Some(number.to_string().into()),
        ..cell_key(80)
    };
    for number in 0..CELLS {
        cells.call(routed(number));
    }
    assert_eq!(cells.known.lock().len(), CELLS / 2 + 1);
    let found = |cell_key: CellKey| cells.find(cell_key).0.key().clone();
    assert_eq!(found(routed(CELLS)), cell_key(80), "one for the others");
    assert_eq!(found(routed(3)), routed(3), "a known one stays");
    assert_eq!(
        found(cell_key(81)),
        cell_key(81),
        "another edge has its place"
    );
    assert_eq!(cells.drained().0, CELLS as u64, "and none is lost");
}

#[test]
fn reported_cell_is_dropped_after_ten_idle_minutes() {
    let cells = Cells::default();
    cells.call(cell_key(80));
    assert_eq!(cells.drained(), (1, 1));
    cells.age(IDLE);
    assert_eq!(cells.drained(), (0, 1), "no report has had it");
    assert_eq!(cells.read().len(), 1);
    assert_eq!(cells.drained(), (0, 0));
    // While there are many, earlier.
    for port in 1..=(CELLS / 2) as u16 {
        cells.call(cell_key(port));
    }
    cells.drained();
    cells.read();
    cells.age(IDLE_NEAR_CAPACITY);
    assert_eq!(cells.drained(), (0, 0));
}

#[test]
fn evicted_cell_in_use_loses_no_call() {
    let (cells, kept) = (Cells::default(), CellCache::default());
    let (cell, _) = cells.find(cell_key(80));
    kept.keep(&cell);
    cell.begin();
    cells.drained();
    cells.read();
    cells.age(IDLE);
    assert_eq!(cells.drained(), (0, 1), "a call is under way");
    cell.outcome(GOOD);
    cell.leave();
    drop(cell);
    cells.age(IDLE);
    assert_eq!(cells.drained().0, 1);
    cells.read();
    cells.age(IDLE);
    assert_eq!(cells.drained(), (0, 0));
    assert!(kept.find(|_| true).is_none(), "its holder looks it up anew");
}

#[test]
fn open_call_reports_every_interval_and_finished_once() {
    let cells = Cells::default();
    let (cell, _) = cells.find(cell_key(80));
    cell.begin();
    for _ in 0..2 {
        cells.drained();
        let read_out = cells.read();
        assert_eq!((read_out.len(), read_out[0].open), (1, 1));
    }
    cell.outcome(GOOD);
    cell.leave();
    cells.drained();
    assert_eq!(cells.read_so_far()[0].counts.calls(|_| true), 1);
    assert_eq!(cells.read()[0].counts.calls(|_| true), 1);
    assert!(cells.read().is_empty());
}
