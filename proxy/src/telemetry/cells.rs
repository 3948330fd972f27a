//! The map of all cells (sets of counters), and the counts that metrics and reports have taken out
//! of them.
//!
//! The map is read when a cell is used for the first time, and by the control thread: code that
//! serves calls keeps the cell that it found. A cell without a holder that counted nothing for ten
//! minutes is forgotten, as a series is. No count gets lost by that: a cell with a holder stays.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use policy::protocol::Protocol;

use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::cell::{CallCounters, CallGroup, CellKey, Counts};
use crate::telemetry::histogram::Exemplars;
use crate::telemetry::labels::Direction;
use crate::telemetry::served::{ServedBy, ServedSums};

/// Ways that are distinguished, about 1 KiB each with their names.
const CELLS: usize = 2048;
/// A cell that counted nothing for this long is forgotten.
const IDLE: Duration = Duration::from_secs(600);
/// The same while more than half of the places are taken.
const IDLE_NEAR_CAPACITY: Duration = Duration::from_secs(30);

#[derive(Debug)]
struct Entry {
    cell: Arc<CallCounters>,
    /// The state of the cell when it was read last.
    seen: (u64, u64),
    /// What no report has had yet.
    unreported: Option<Counts>,
    used: Instant,
}

impl Entry {
    fn new(key: CellKey) -> Self {
        Self {
            cell: Arc::new(CallCounters::new(key)),
            seen: (0, 0),
            unreported: None,
            used: Instant::now(),
        }
    }

    fn take(&mut self, show: &mut impl FnMut(&CellKey, &Counts)) {
        let Some(mut counts) = self.cell.take(&mut self.seen) else {
            return;
        };
        show(self.cell.key(), &counts);
        counts.exemplars = Exemplars::default();
        self.used = Instant::now();
        match &mut self.unreported {
            Some(unreported) => unreported.add(counts),
            none => *none = Some(counts),
        }
    }

    fn read(&self, counts: Counts) -> CellReading {
        CellReading {
            key: self.cell.key().clone(),
            counts,
            open: self.cell.open(),
        }
    }
}

/// The counts of a way in one report.
#[derive(Debug)]
pub(crate) struct CellReading {
    pub key: CellKey,
    pub counts: Counts,
    /// Calls under way.
    pub open: u64,
}

/// The cells of all ways.
#[derive(Debug)]
pub struct Cells {
    known: Mutex<HashMap<CellKey, Entry>>,
    /// Sums of calls to the pod, while early reports are wanted.
    served: Mutex<Option<ServedSums>>,
    /// For ways that find no place: requests and opaque connections of each side.
    rest: [CellKey; 4],
}

impl Default for Cells {
    fn default() -> Self {
        let rest = [
            (Direction::inbound, Protocol::Detect),
            (Direction::inbound, Protocol::Opaque),
            (Direction::outbound, Protocol::Detect),
            (Direction::outbound, Protocol::Opaque),
        ]
        .map(|(direction, protocol)| CellKey {
            call_ends: CallEnds::Rest(direction),
            protocol,
            route: None,
            group: CallGroup::None,
        });
        let known = rest
            .iter()
            .map(|key| (key.clone(), Entry::new(key.clone())));
        Self {
            known: Mutex::new(known.collect()),
            served: Mutex::default(),
            rest,
        }
    }
}

impl Cells {
    /// The cell of a way, and whether the way found a place.
    pub(super) fn find(&self, mut key: CellKey) -> (Arc<CallCounters>, bool) {
        let mut known = self.known.lock();
        // A caller with many addresses takes no place of the mesh's own ways, and who calls whom
        // is worth more than by which route.
        if known.len() >= CELLS / 2 && !known.contains_key(&key) {
            key.call_ends.forget_remote();
            key.route = None;
        }
        if known.len() >= CELLS && !known.contains_key(&key) {
            let rest = self.rest.iter().find(|rest| {
                rest.call_ends.direction() == key.call_ends.direction()
                    && rest.is_opaque() == key.is_opaque()
            });
            if let Some(entry) = rest.and_then(|rest| known.get(rest)) {
                return (Arc::clone(&entry.cell), false);
            }
        }
        let entry = known
            .entry(key)
            .or_insert_with_key(|key| Entry::new(key.clone()));
        (Arc::clone(&entry.cell), true)
    }

    /// Takes out what cells have counted, and shows it.
    pub(super) fn drain(&self, mut show: impl FnMut(&CellKey, &Counts)) {
        let mut known = self.known.lock();
        let mut served = self.served.lock();
        let mut show = |key: &CellKey, counts: &Counts| {
            if let Some(served) = &mut *served {
                served.add(key, counts);
            }
            show(key, counts);
        };
        for entry in known.values_mut() {
            entry.take(&mut show);
        }
        self.forget_idle(&mut known, &mut show);
    }

    /// What came since the last call, and what is under way.
    pub(super) fn read(&self) -> Vec<CellReading> {
        let mut known = self.known.lock();
        let readings = known.values_mut().filter_map(|entry| {
            let unreported = entry.unreported.take();
            let counts = unreported.or_else(|| (entry.cell.open() > 0).then(Counts::default))?;
            Some(entry.read(counts))
        });
        readings.collect()
    }

    /// The same, to be reported again.
    pub(super) fn read_so_far(&self) -> Vec<CellReading> {
        let known = self.known.lock();
        let readings = known
            .values()
            .filter_map(|entry| Some(entry.read(entry.unreported.clone()?)));
        readings.collect()
    }

    /// Adds up from 0 what is taken out from now on of calls to the pod, or does so no longer.
    pub(super) fn sum_served(&self, wanted: bool) {
        *self.served.lock() = wanted.then(ServedSums::default);
    }

    /// What was added up so far.
    pub(super) fn served(&self) -> Option<ServedSums> {
        self.served.lock().clone()
    }

    /// Requests that wait for the head of a response now, as far as that is counted.
    pub(super) fn waiting(&self) -> Vec<(ServedBy, u64)> {
        let known = self.known.lock();
        let all = known.values().map(|entry| &entry.cell);
        all.map(|cell| (ServedBy::of(cell.key()), cell.waiting()))
            .filter(|(_, waiting)| *waiting > 0)
            .collect()
    }

    fn forget_idle(
        &self,
        known: &mut HashMap<CellKey, Entry>,
        show: &mut impl FnMut(&CellKey, &Counts),
    ) {
        let patience = if known.len() > CELLS / 2 {
            IDLE_NEAR_CAPACITY
        } else {
            IDLE
        };
        let now = Instant::now();
        let idle: Vec<CellKey> = known
            .iter()
            .filter(|(key, entry)| {
                entry.unreported.is_none()
                    && now.saturating_duration_since(entry.used) >= patience
                    && Arc::strong_count(&entry.cell) == 1
                    && !self.rest.contains(key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in idle {
            let Some(mut entry) = known.remove(&key) else {
                continue;
            };
            // Its holder may have taken it up again just now.
            match Arc::try_unwrap(entry.cell) {
                Ok(cell) => {
                    entry.cell = Arc::new(cell);
                    entry.take(show);
                    if entry.unreported.is_some() {
                        known.insert(key, entry);
                    }
                }
                Err(current) => {
                    entry.cell = current;
                    known.insert(key, entry);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
