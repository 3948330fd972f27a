//! Cells: the counters of all calls with the same caller, callee, route, security and protocol.
//!
//! A cell is the only place where a call is counted. Code that serves calls finds their cell once
//! ([`CellCache`]), and from then on a call costs a few additions: no lock, no map, no allocation.
//! The control thread takes the counts out (`telemetry::cells`); the metrics page and the reports
//! to the controller are made of them, so that the two cannot disagree.
//!
//! Imports `call_ends` and the counters of a relay, and no holder of cells.

mod counts;

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use policy::latency::{BUCKETS, bucket};
use policy::origin::Origin;
use policy::protocol::Protocol;
use policy::route::names::MAX_NAMES;

use self::counts::RULES;
use crate::net::relay::Flows;
use crate::telemetry::call_ends::CallEnds;
use crate::telemetry::histogram::{Exemplar, Exemplars};

pub(crate) use self::counts::{CallOutcome, Counts};
pub(crate) use wire::v1::early_sums::Group as CallGroup;

/// Outcomes that a cell counts without a lock. Most applications have fewer statuses.
const OUTCOMES: usize = 4;
/// Outcomes beyond these, about 1 KiB. A server that has more statuses than that loses the
/// others.
const MORE_OUTCOMES: usize = 64;
/// Ways of which one endpoint or connection retains the cells.
const KEPT: usize = 8;
/// Routes of which one way retains the cells: all names, and none.
const KEPT_ROUTES: usize = MAX_NAMES + 1;

/// What one cell is about. Ports that are not distinguished are 0.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct CellKey {
    pub call_ends: CallEnds,
    /// `Detect` where a request was refused before that was known.
    pub protocol: Protocol,
    /// By which route of the own workload, empty where none describes the request; `None` where
    /// no metric names routes, and for what is not distinguished by them.
    pub route: Option<Arc<str>>,
    /// `None` but while early reports count some calls apart; nothing else does.
    pub group: CallGroup,
}

impl CellKey {
    /// Opaque connections, whose calls are no requests.
    pub(crate) const fn is_opaque(&self) -> bool {
        matches!(self.protocol, Protocol::Opaque | Protocol::Tls)
    }
}

/// Calls of one outcome.
#[derive(Debug, Default)]
struct OutcomeCounter {
    /// Packed; 0 while unused.
    outcome: AtomicU32,
    calls: AtomicU32,
}

/// The counters of one way.
#[derive(Debug)]
pub(crate) struct CallCounters {
    key: CellKey,
    /// Calls that came this way, and calls that ended or went on another way.
    started: AtomicU64,
    ended: AtomicU64,
    cancelled: AtomicU32,
    /// Attempts by how they ended, each apart, so that none is taken for another one.
    attempts_good: AtomicU32,
    attempts_left: AtomicU32,
    attempt_failures: AtomicU32,
    audit: AtomicU32,
    /// Requests of now that wait for the head of a response, while early reports are wanted.
    waiting: AtomicU32,
    outcomes: [OutcomeCounter; OUTCOMES],
    more: Mutex<Vec<(u32, u32)>>,
    latency: [AtomicU32; BUCKETS],
    nanoseconds: AtomicU64,
    flows: Arc<Flows>,
    rules: ArcSwapOption<Vec<Allowing>>,
    exemplars: Mutex<Exemplars>,
    /// Cells of its requests by route.
    routed: ArcSwapOption<Vec<(Arc<str>, Weak<Self>)>>,
}

/// A rule that allowed calls.
#[derive(Debug)]
struct Allowing {
    rule: Origin,
    /// Since the last report of it.
    used: AtomicBool,
}

impl Allowing {
    fn by(rule: &Origin) -> Self {
        Self {
            rule: rule.clone(),
            used: AtomicBool::new(true),
        }
    }
}

impl CallCounters {
    pub(crate) fn new(key: CellKey) -> Self {
        Self {
            key,
            started: AtomicU64::default(),
            ended: AtomicU64::default(),
            cancelled: AtomicU32::default(),
            attempts_good: AtomicU32::default(),
            attempts_left: AtomicU32::default(),
            attempt_failures: AtomicU32::default(),
            audit: AtomicU32::default(),
            waiting: AtomicU32::default(),
            outcomes: Default::default(),
            more: Mutex::default(),
            latency: Default::default(),
            nanoseconds: AtomicU64::default(),
            flows: Arc::default(),
            rules: ArcSwapOption::default(),
            exemplars: Mutex::default(),
            routed: ArcSwapOption::default(),
        }
    }

    pub(crate) const fn key(&self) -> &CellKey {
        &self.key
    }

    /// Bytes of connections, and of the bodies of requests and answers, as they pass.
    pub(crate) const fn flows(&self) -> &Arc<Flows> {
        &self.flows
    }

    /// A call comes this way. It leaves by [`CallCounters::leave`].
    pub(crate) fn begin(&self) {
        self.started.fetch_add(1, Relaxed);
    }

    /// A request that came this way counts on another cell, as if it had never come. Connections
    /// are reported by [`Counts::started`], so they begin where they stay.
    pub(crate) fn moves(&self) {
        self.started.fetch_sub(1, Relaxed);
    }

    /// A call has ended, or goes on another way. Whatever else is counted of it comes
    /// before: that is what [`CallCounters::take`] looks for.
    pub(crate) fn leave(&self) {
        self.ended.fetch_add(1, Release);
    }

    /// Calls that are under way.
    pub(crate) fn open(&self) -> u64 {
        let ended = self.ended.load(Acquire);
        self.started.load(Relaxed).saturating_sub(ended)
    }

    /// A request that has come this way waits for the head of its response, until
    /// [`CallCounters::waited`].
    pub(crate) fn waits(&self) {
        self.waiting.fetch_add(1, Release);
    }

    pub(crate) fn waited(&self) {
        self.waiting.fetch_sub(1, Relaxed);
    }

    /// Requests that wait so. All of them count as started by now.
    pub(crate) fn waiting(&self) -> u64 {
        self.waiting.load(Acquire).into()
    }

    /// One try to send a call to the backend has ended.
    pub(crate) fn attempted(&self, success: bool) {
        let counter = if success {
            &self.attempts_good
        } else {
            &self.attempt_failures
        };
        counter.fetch_add(1, Relaxed);
    }

    /// So has one whose caller left, whose result is unknown.
    pub(crate) fn left(&self) {
        self.attempts_left.fetch_add(1, Relaxed);
    }

    /// The caller of a request left before the head of an answer.
    pub(crate) fn cancel(&self) {
        self.cancelled.fetch_add(1, Relaxed);
    }

    /// Deny would have refused a call that audit let through.
    pub(crate) fn audited(&self) {
        self.audit.fetch_add(1, Relaxed);
    }

    /// A rule allowed a call.
    pub(crate) fn allowed_by(&self, rule: &Origin) {
        let current = self.rules.load();
        let known = current.as_ref().map_or(&[][..], |current| current);
        if let Some(one) = known.iter().find(|one| one.rule == *rule) {
            if !one.used.load(Relaxed) {
                one.used.store(true, Relaxed);
            }
            return;
        }
        let in_use = |one: &&Allowing| one.used.load(Relaxed);
        if known.iter().filter(in_use).count() >= RULES {
            return;
        }
        // Unused ones make room.
        self.rules.rcu(|current| {
            let current = current.iter().flat_map(|current| current.iter());
            let kept = current.filter(in_use).map(|one| Allowing::by(&one.rule));
            let rules: Vec<_> = kept.chain([Allowing::by(rule)]).collect();
            Some(Arc::new(rules))
        });
    }

    /// The rules that allowed calls since the last time.
    fn rules(&self) -> Vec<Origin> {
        let current = self.rules.load();
        let current = current.iter().flat_map(|current| current.iter());
        current
            .filter(|one| one.used.swap(false, Relaxed))
            .map(|one| one.rule.clone())
            .collect()
    }

    /// A request was answered after this time.
    pub(crate) fn answered(&self, outcome: CallOutcome, after: Duration) {
        self.outcome(outcome);
        self.latency[bucket(after.as_secs_f64())].fetch_add(1, Relaxed);
        let nanoseconds = u64::try_from(after.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.fetch_add(nanoseconds, Relaxed);
    }

    /// One that was answered is recorded as a span.
    pub(crate) fn recorded(&self, one: Exemplar) {
        self.exemplars.lock().keep(one);
    }

    /// A call ended so.
    pub(crate) fn outcome(&self, outcome: CallOutcome) {
        let packed = outcome.packed();
        for record in &self.outcomes {
            let mut current = record.outcome.load(Relaxed);
            if current == 0 {
                let taken = record.outcome.compare_exchange(0, packed, Relaxed, Relaxed);
                current = taken.map_or_else(|current| current, |_| packed);
            }
            if current == packed {
                record.calls.fetch_add(1, Relaxed);
                return;
            }
        }
        let mut more = self.more.lock();
        if let Some((_, calls)) = more.iter_mut().find(|(current, _)| *current == packed) {
            *calls += 1;
        } else if more.len() < MORE_OUTCOMES {
            more.push((packed, 1));
        } else {
            // By whether it went well and why, which are few.
            let without = CallOutcome {
                status: 0,
                ..outcome
            }
            .packed();
            match more.iter_mut().find(|(current, _)| *current == without) {
                Some((_, calls)) => *calls += 1,
                None => more.push((without, 1)),
            }
        }
    }

    /// The cell of this way's requests of a route, if that was looked up before: without a lock,
    /// and without a look at the map of all cells.
    pub(crate) fn of_route(&self, route: &Arc<str>) -> Option<Arc<Self>> {
        let current = self.routed.load();
        let same = |(name, _): &&(Arc<str>, Weak<Self>)| Arc::ptr_eq(name, route) || name == route;
        current.as_ref()?.iter().find(same)?.1.upgrade()
    }

    /// Retains that; the route that came first makes room.
    pub(crate) fn keep_route(&self, route: &Arc<str>, cell: &Arc<Self>) {
        self.routed.rcu(|current| {
            let current = current.iter().flat_map(|current| current.iter());
            let others = current.filter(|(name, cell)| name != route && cell.strong_count() > 0);
            let this = (Arc::clone(route), Arc::downgrade(cell));
            newest(this, others.cloned(), KEPT_ROUTES)
        });
    }

    /// What was counted since the last time; `None` for nothing. `seen` is the number of started
    /// and ended calls at that time.
    pub(crate) fn take(&self, seen: &mut (u64, u64)) -> Option<Counts> {
        let ended = self.ended.load(Acquire);
        let started = self.started.load(Relaxed);
        let (sent, received) = (take(&self.flows.sent), take(&self.flows.received));
        let before = std::mem::replace(seen, (started, ended));
        let ended_tries = [
            &self.attempts_good,
            &self.attempt_failures,
            &self.attempts_left,
        ];
        let tried = ended_tries.iter().any(|one| one.load(Relaxed) > 0);
        // Of a call that went on to another cell nothing else is left here.
        let audited = self.audit.load(Relaxed) > 0;
        if before == *seen && !tried && !audited && sent == 0 && received == 0 {
            return None;
        }
        let [good, failed, left] = ended_tries.map(few);
        let mut counts = Counts {
            started: started.saturating_sub(before.0),
            cancelled: few(&self.cancelled),
            attempts: good + failed + left,
            attempt_failures: failed,
            attempts_left: left,
            audit: few(&self.audit),
            nanoseconds: take(&self.nanoseconds),
            sent,
            received,
            rules: self.rules(),
            exemplars: std::mem::take(&mut *self.exemplars.lock()),
            ..Counts::default()
        };
        counts.latency.add(self.latency.iter().map(few));
        for record in &self.outcomes {
            let calls = few(&record.calls);
            if calls > 0 {
                let outcome = CallOutcome::unpacked(record.outcome.load(Relaxed));
                counts.outcomes.push((outcome, calls));
            }
        }
        let more = self.more.lock().split_off(0);
        let more = more.into_iter();
        counts
            .outcomes
            .extend(more.map(|(packed, calls)| (CallOutcome::unpacked(packed), u64::from(calls))));
        Some(counts)
    }
}

fn take(counter: &AtomicU64) -> u64 {
    if counter.load(Relaxed) == 0 {
        return 0;
    }
    counter.swap(0, Relaxed)
}

fn few(counter: &AtomicU32) -> u64 {
    if counter.load(Relaxed) == 0 {
        return 0;
    }
    counter.swap(0, Relaxed).into()
}

/// The cells that the calls of one endpoint or connection have used. Those of unused ways are
/// forgotten all the same: a caller that finds none here looks it up where all cells are.
#[derive(Debug, Default)]
pub struct CellCache(ArcSwapOption<Vec<Weak<CallCounters>>>);

impl CellCache {
    /// The cell of the way that fits.
    pub(crate) fn find(&self, fits: impl Fn(&CellKey) -> bool) -> Option<Arc<CallCounters>> {
        let current = self.0.load();
        let mut living = current.as_ref()?.iter().filter_map(Weak::upgrade);
        living.find(|cell| fits(&cell.key))
    }

    /// Retains a cell; the oldest one makes room.
    pub(crate) fn keep(&self, cell: &Arc<CallCounters>) {
        self.0.rcu(|current| {
            let current = current.iter().flat_map(|current| current.iter());
            let living = current.filter(|cell| cell.strong_count() > 0).cloned();
            newest(Arc::downgrade(cell), living, KEPT)
        });
    }
}

/// The new one, and as many of the others as there is room for.
fn newest<T>(new: T, others: impl Iterator<Item = T>, room: usize) -> Option<Arc<Vec<T>>> {
    let kept = std::iter::once(new).chain(others).take(room);
    Some(Arc::new(kept.collect()))
}

#[cfg(test)]
mod tests;
