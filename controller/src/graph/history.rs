//! The graph's counts of the last minutes, and by half minute of the last hour.
//!
//! Intervals of five seconds are kept apart for a minute and then merged into rows of half a
//! minute: 20 000 edges in every interval of five minutes would not fit. So a window of up to a
//! minute ends with any interval, and a longer one with a multiple of 30 s.
//!
//! An interval is folded again as long as reports of it come. An interval whose reports were
//! dropped early for want of room stays as it was folded, and so does the part of pods that
//! reported too much.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::edges::{EdgeRef, Edges};
use super::fold::Folded;
use super::key::NodeKey;
use super::window::{self, Incomplete, MinuteRow, Window};

/// Intervals in half a minute.
pub(crate) const HALF: u64 = 6;
/// The max window of single intervals, in intervals.
pub(crate) const FINE: u64 = 12;
/// The max window, in intervals.
pub(crate) const LONGEST: u64 = 60;
/// Intervals that stand alone: the longest such window, the time in which reports come, and half a
/// minute that is not full.
const KEPT: u64 = FINE + FINE_HISTORY + 1;
/// Intervals back for which a window of single intervals can still be shown.
pub(crate) const FINE_HISTORY: u64 = HALF + 2;
/// Halves that are kept: the longest window and one that is not full.
const HALVES: u64 = LONGEST / HALF + 2;
/// No interval that has reports has this revision.
const NEVER: u64 = 0;
/// Minutes of the history.
pub(crate) const MINUTES: u64 = 60;
/// Bytes of everything here: an hour of 20 000 edges of which a quarter calls in each interval. Where
/// more do, minutes go first, then halves, then the oldest intervals.
pub(crate) const MAX_BYTES: usize = 64 * 1024 * 1024;

/// Why a window is incomplete that lost something.
const NO_ROOM: &str = "some of what was counted had no room in the controller's memory";

/// The intervals of a window of so many intervals that ends with `end`, or where it is longer than
/// a minute with the last half of a minute before that.
pub(crate) fn bounds(length: u64, end: u64) -> (u64, u64) {
    if length <= FINE {
        return (end.saturating_sub(length), end);
    }
    let length = length.div_ceil(HALF).min(LONGEST / HALF) * HALF;
    let end = end / HALF * HALF;
    (end.saturating_sub(length), end)
}

/// A stretch of time, and which reports it was made of.
#[derive(Debug, Default)]
struct Stretch {
    folded: Folded,
    /// Of the reports, by slot: changes with them.
    revision: u64,
    bytes: usize,
}

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct History {
    /// All edges that anything here is about.
    pub(crate) edges: Edges,
    intervals: BTreeMap<u64, Stretch>,
    halves: BTreeMap<u64, Stretch>,
    minutes: BTreeMap<u64, Box<[MinuteRow]>>,
    /// The minute before which all are made.
    minutes_to: u64,
    /// The first minute that is known: before it this replica did not count, or had no room.
    minutes_from: u64,
    bytes: usize,
    /// First interval from which on nothing went for want of room.
    whole_from: u64,
    /// Minutes, half minutes and intervals that went for want of room.
    pub(crate) dropped: u64,
}

impl History {
    /// Whether an interval has to be folded, given the number of its reports' last change.
    pub(crate) fn lacks(&self, interval: u64, revision: u64) -> bool {
        // What went for want of room would go again.
        if interval < self.whole_from {
            return false;
        }
        match self.intervals.get(&interval) {
            Some(stored) => stored.revision != revision,
            // A half that is full already.
            None => !self.halves.contains_key(&(interval / HALF)),
        }
    }

    /// Drops what was counted in an interval for pods whose owner is known by now.
    pub(crate) fn let_go(&mut self, interval: u64, moved: impl Fn(&NodeKey) -> bool) {
        if let Some(stored) = self.intervals.get_mut(&interval) {
            stored.folded.let_go(moved);
        }
    }

    /// Takes an interval that was folded.
    pub(crate) fn take(&mut self, interval: u64, revision: u64, mut folded: Folded) {
        if let Some(before) = self.intervals.get(&interval)
            && !folded.dropped_reports.is_empty()
        {
            folded.keep(&before.folded);
        }
        let bytes = folded.size();
        self.bytes += bytes;
        let stretch = Stretch {
            folded,
            revision,
            bytes,
        };
        if let Some(before) = self.intervals.insert(interval, stretch) {
            self.bytes -= before.bytes;
        }
    }

    /// Edges of an interval that callers' proxies reported neither in it nor beside it.
    pub(crate) fn only_served(&self, interval: u64) -> Vec<EdgeRef> {
        let Some(stored) = self.intervals.get(&interval) else {
            return Vec::new();
        };
        let beside = [interval.checked_sub(1), interval.checked_add(1)]
            .into_iter()
            .flatten();
        let beside = beside.filter_map(|interval| self.intervals.get(&interval));
        let beside: Vec<&Folded> = beside.map(|stored| &stored.folded).collect();
        let served = window::only_served(&stored.folded, &beside).into_iter();
        served.cloned().collect()
    }

    /// Whether it was known whose the pods of this edge were when the interval was folded.
    pub(crate) fn is_known(&self, interval: u64, edge: &EdgeRef) -> bool {
        let stored = self.intervals.get(&interval);
        stored.is_some_and(|stored| !stored.folded.unknown.contains(edge))
    }

    /// Edges of the last minutes, of pods of which it was not known whose they were.
    pub(crate) fn unknown(&self) -> impl Iterator<Item = &EdgeRef> {
        let stretches = self.intervals.values().chain(self.halves.values());
        stretches.flat_map(|stored| &stored.folded.unknown)
    }

    /// Has every interval that stands alone folded again in which pods were not known.
    pub(crate) fn lack_unknown(&mut self) {
        let intervals = self.intervals.values_mut();
        for stored in intervals.filter(|stored| !stored.folded.unknown.is_empty()) {
            stored.revision = NEVER;
        }
    }

    /// What was counted in an interval, each call once: without what called sides reported of calls that
    /// their callers' proxies reported in this interval or beside it.
    pub(crate) fn calls_of(&self, interval: u64) -> Vec<(EdgeRef, window::Counted)> {
        let Some(stored) = self.intervals.get(&interval) else {
            return Vec::new();
        };
        let once = window::sure(&stored.folded).cloned();
        let once: HashSet<EdgeRef> = once.chain(self.only_served(interval)).collect();
        let edges = window::edges(&stored.folded).into_iter();
        edges.filter(|(edge, _)| once.contains(edge)).collect()
    }

    /// What was counted before this interval is never shown again.
    pub(crate) fn begins(&mut self, interval: u64) {
        self.minutes_from = self.minutes_from.max(interval.div_ceil(FINE));
    }

    /// When its first minute begins, in seconds since 1970, where that is later than minute
    /// `first`.
    pub(crate) fn known_since(&self, first: u64) -> Option<u64> {
        let from = self.minutes_from.max(self.whole_from.div_ceil(FINE));
        (from > first).then_some(from * 60)
    }

    /// Drops what stands in this interval and later ones, which come only now: the clock was set back.
    /// A half or a minute that ends after it is dropped entirely.
    pub(crate) fn forget_from(&mut self, interval: u64) {
        for stored in self.intervals.split_off(&interval).into_values() {
            self.bytes -= stored.bytes;
        }
        for stored in self.halves.split_off(&(interval / HALF)).into_values() {
            self.bytes -= stored.bytes;
        }
        for rows in self.minutes.split_off(&(interval / FINE)).into_values() {
            self.bytes -= size_of_val(&*rows);
        }
        self.minutes_to = self.minutes_to.min(interval / FINE);
        self.minutes_from = self.minutes_from.min(interval / FINE);
        self.whole_from = self.whole_from.min(interval);
    }

    /// Makes halves of intervals and minutes of halves, and drops what is old. `current`: the interval that
    /// is now.
    pub(crate) fn tidy(&mut self, current: u64) {
        let alone = current.saturating_sub(KEPT);
        while let Some((first, _)) = self.intervals.first_key_value()
            && (*first / HALF + 1) * HALF <= alone
        {
            self.make_half(*first / HALF);
        }
        self.make_minutes(alone);
        let oldest = (current / HALF).saturating_sub(HALVES);
        while let Some((half, _)) = self.halves.first_key_value()
            && *half < oldest
        {
            let half = *half;
            self.drop_half(half);
        }
        let oldest = (current / FINE).saturating_sub(MINUTES);
        while let Some((minute, _)) = self.minutes.first_key_value()
            && *minute < oldest
        {
            self.drop_minute();
        }
        self.edges.tidy();
        while self.size() > MAX_BYTES
            && let Some((minute, _)) = self.minutes.first_key_value()
        {
            self.minutes_from = self.minutes_from.max(*minute + 1);
            self.drop_minute();
            self.dropped += 1;
        }
        while self.size() > MAX_BYTES
            && let Some((half, _)) = self.halves.first_key_value()
        {
            let half = *half;
            self.drop_half(half);
            self.whole_from = self.whole_from.max((half + 1) * HALF);
            self.dropped += 1;
        }
        // The newest one stays: a window that ends now is short, and there.
        while self.size() > MAX_BYTES
            && self.intervals.len() > 1
            && let Some((interval, gone)) = self.intervals.pop_first()
        {
            self.bytes -= gone.bytes;
            self.whole_from = self.whole_from.max(interval + 1);
            self.dropped += 1;
        }
    }

    fn make_half(&mut self, half: u64) {
        let mut parts = Vec::new();
        for interval in half * HALF..(half + 1) * HALF {
            if let Some(part) = self.intervals.remove(&interval) {
                self.bytes -= part.bytes;
                parts.push(part.folded);
            }
        }
        let folded = Folded::together(&parts);
        let bytes = folded.size();
        self.bytes += bytes;
        let stretch = Stretch {
            folded,
            revision: 0,
            bytes,
        };
        self.halves.insert(half, stretch);
        // Reports that came late: the minute was made without them.
        if half / 2 < self.minutes_to {
            self.make_minute(half / 2);
        }
    }

    /// Makes minutes of which no interval stands alone any more. Either half may be missing: it had no
    /// calls.
    fn make_minutes(&mut self, alone: u64) {
        let end = alone / FINE;
        let halves = self.halves.keys().map(|half| half / 2);
        let new = halves.filter(|minute| (self.minutes_to..end).contains(minute));
        let mut new: Vec<u64> = new.collect();
        new.dedup();
        for minute in new {
            self.make_minute(minute);
        }
        self.minutes_to = self.minutes_to.max(end);
    }

    fn make_minute(&mut self, minute: u64) {
        let halves = self.halves.range(minute * 2..minute * 2 + 2);
        let both = Folded::together(halves.map(|(_, half)| &half.folded));
        let rows = window::minute(&both);
        self.bytes += size_of_val(&*rows);
        if let Some(before) = self.minutes.insert(minute, rows) {
            self.bytes -= size_of_val(&*before);
        }
    }

    fn drop_half(&mut self, half: u64) {
        if let Some(gone) = self.halves.remove(&half) {
            self.bytes -= gone.bytes;
        }
    }

    fn drop_minute(&mut self) {
        if let Some((_, gone)) = self.minutes.pop_first() {
            self.bytes -= size_of_val(&*gone);
        }
    }

    /// What was counted in these intervals. `settled`: the first interval of which reports may
    /// still come; `whole_from`: the first of which the reports did not go early.
    pub(crate) fn window(&self, intervals: (u64, u64), settled: u64, whole_from: u64) -> Window {
        self.window_of(intervals, (settled, whole_from), |_| true)
    }

    /// The same of edges with these ends and of routes of these nodes.
    pub(crate) fn window_of(
        &self,
        intervals: (u64, u64),
        (settled, whole_from): (u64, u64),
        keep: impl Fn(&[&NodeKey]) -> bool,
    ) -> Window {
        let fine = |from: u64, to: u64| {
            let stored = self.intervals.range(from..to);
            stored.map(|(_, stored)| &stored.folded)
        };
        let halves = self.halves.range(intervals.0 / HALF..intervals.1 / HALF);
        let halves = halves
            .filter(|(half, _)| **half * HALF >= intervals.0)
            .map(|(_, stored)| &stored.folded);
        // Up to here all reports are there, and what is open by then holds until the rest come.
        let whole_to = intervals.1.min(settled).max(intervals.0);
        // Without reports of the last such interval, nothing was open.
        let nothing = Folded::default();
        let last = whole_to.saturating_sub(1);
        let is_reported =
            self.intervals.contains_key(&last) || self.halves.contains_key(&(last / HALF));
        let unreported = (!is_reported).then_some(&nothing);
        let whole = halves.chain(fine(intervals.0, whole_to)).chain(unreported);
        let folded = Folded::of(whole, fine(whole_to, intervals.1), keep);
        let edges = window::edges(&folded);
        let lost = self.whole_from.max(self.lost(whole_from));
        let incomplete = if lost > intervals.0 {
            Some(Incomplete::Lost(NO_ROOM))
        } else if intervals.1 > settled {
            Some(Incomplete::Unsettled)
        } else {
            None
        };
        Window {
            intervals,
            incomplete,
            dropped_reports: folded.dropped_reports,
            edges,
            routes: folded.routes,
        }
    }

    /// What was dropped before it was folded.
    fn lost(&self, whole_from: u64) -> u64 {
        let folded = |interval: u64| {
            self.intervals.contains_key(&interval) || self.halves.contains_key(&(interval / HALF))
        };
        match whole_from.checked_sub(1) {
            Some(last) if !folded(last) => whole_from,
            _ => 0,
        }
    }

    /// The minutes from this one on, by edge, of the edges that `keep` accepts.
    pub(crate) fn minutes(
        &self,
        first: u64,
        keep: impl Fn(&EdgeRef) -> bool,
    ) -> HashMap<EdgeRef, Vec<(u64, &MinuteRow)>> {
        let mut by_edge: HashMap<EdgeRef, Vec<(u64, &MinuteRow)>> = HashMap::new();
        for (minute, rows) in self.minutes.range(first..) {
            for row in rows.iter().filter(|row| keep(&row.edge)) {
                let stored = by_edge.entry(row.edge.clone()).or_default();
                stored.push((*minute, row));
            }
        }
        by_edge
    }

    /// Bytes of everything.
    pub(crate) fn size(&self) -> usize {
        self.bytes + self.edges.size().1
    }
}

#[cfg(test)]
mod tests;
