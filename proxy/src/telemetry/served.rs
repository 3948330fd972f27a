//! Sums the calls to the pod by port and by an experiment's group, for early reports.
//!
//! They are made of what is taken out of the cells, as the metrics page and the reports are, so
//! that a call is in all of them or in none.

use std::collections::BTreeMap;

use policy::latency::Histogram;
use policy::reason::Reason;

use crate::telemetry::cell::{CallGroup, CellKey, Counts};
use crate::telemetry::labels::Direction;

/// Rows, of 300 bytes each; a controller takes as many. Ports beyond these are summed as those
/// that are not distinguished.
const ROWS: usize = 32;
/// Groups, which have a row each for such ports.
const GROUPS: usize = 4;

/// What is summed together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ServedBy {
    /// 0 where it is not distinguished.
    pub port: u16,
    pub group: CallGroup,
}

impl ServedBy {
    pub(super) fn of(key: &CellKey) -> Self {
        Self {
            port: key.call_ends.port(),
            group: key.group,
        }
    }
}

/// One row.
#[derive(Clone, Debug, Default)]
pub(super) struct ServedCalls {
    /// Requests and opaque connections that have ended, cancelled requests not among them.
    pub calls: u64,
    /// Those of them that failed, but for those beyond a limit.
    pub failed: u64,
    pub cancelled: u64,
    /// Requests that came.
    pub started: u64,
    /// Requests by time to the head of the response.
    pub latency: Histogram,
}

/// All rows.
#[derive(Clone, Debug, Default)]
pub(super) struct ServedSums {
    rows: BTreeMap<ServedBy, ServedCalls>,
    /// A port found no row of its own.
    is_full: bool,
}

impl ServedSums {
    /// Adds what was taken out of one cell.
    pub(super) fn add(&mut self, key: &CellKey, counts: &Counts) {
        if key.call_ends.direction() != Direction::inbound {
            return;
        }
        let by = ServedBy::of(key);
        let row = self.row_of(by);
        self.is_full |= row != by;
        let row = self.rows.entry(row).or_default();
        row.calls += counts.calls(|_| true);
        row.failed +=
            counts.calls(|outcome| !outcome.success && outcome.reason != Some(Reason::Limit));
        row.cancelled += counts.cancelled;
        row.latency.add(counts.latency.counts().iter().copied());
        if !key.is_opaque() {
            row.started += counts.started;
        }
    }

    /// Where calls are summed.
    pub(super) fn row_of(&self, by: ServedBy) -> ServedBy {
        let has_room = self.rows.len() < ROWS - GROUPS || self.rows.contains_key(&by);
        let port = if has_room { by.port } else { 0 };
        ServedBy { port, ..by }
    }

    pub(super) const fn rows(&self) -> &BTreeMap<ServedBy, ServedCalls> {
        &self.rows
    }

    /// Whether a port found no row of its own.
    pub(super) const fn is_full(&self) -> bool {
        self.is_full
    }
}
