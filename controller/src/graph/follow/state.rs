//! The state of the graph on one replica, behind one lock.

use std::collections::BTreeSet;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crds::observe::{NodeKind, RecentCalls};
use model::world::ObjectKey;
use parking_lot::RwLock;
use policy::name::SpiffeId;

use crate::graph::answer;
use crate::graph::edges::EdgeRef;
use crate::graph::fold::Folded;
use crate::graph::history::{self, History};
use crate::graph::key::{EdgeKey, NodeKey};
use crate::graph::memory::{Memory, Seen};
use crate::graph::wall_clock::{ClockStep, WallClock};
use crate::graph::window;
use crate::graph::workloads::{CachedWorkloads, Workloads};
use crate::inventory::Inventory;
use crate::observe::reports::{INTERVAL, interval_of};

/// What is not persisted is kept in memory for this long.
pub(super) const SHORTEST_MEMORY: Duration = Duration::from_secs(3600);

/// See the module header.
#[derive(Debug, Default)]
pub(super) struct GraphState {
    pub(super) history: History,
    pub(super) memory: Memory,
    pub(super) workloads: CachedWorkloads,
    /// The interval before which the memory has what only called sides reported.
    persisted_to: u64,
    /// Of the inventory: changes when other replicas report whose pods were.
    peer_revision: u64,
    /// The interval in which the clock was set last.
    clock_set_in: Option<u64>,
    /// As it was looked at last; `None` before it is followed.
    pub(super) clock: Option<WallClock>,
}

impl GraphState {
    /// Whether other replicas reported whose pods were since the last look. What was folded without
    /// that is wrong.
    pub(super) fn peer_pods_changed(&mut self, peer_revision: u64) -> bool {
        let is_new = self.peer_revision != peer_revision;
        if is_new {
            self.peer_revision = peer_revision;
            self.history.lack_unknown();
            self.persisted_to = 0;
        }
        is_new
    }

    /// Takes what was folded of an interval.
    pub(super) fn take(
        &mut self,
        interval: u64,
        revision: u64,
        folded: Folded,
        inventory: &RwLock<Inventory>,
    ) {
        // A pod without a known owner is no workload, and would be taken for one for weeks.
        let sure = window::sure(&folded).filter(|edge| !folded.unknown.contains(*edge));
        for edge in sure {
            self.memory.see(edge, seen_in(interval));
        }
        if !folded.dropped_reports.is_empty() {
            // What stays of before must not stand beside the same by its owners.
            let inventory = inventory.read();
            let moved = |node: &NodeKey| {
                node.kind == NodeKind::Pod
                    && NodeKey::of_workload(inventory.topmost(&node.object, "")) != *node
            };
            self.history.let_go(interval, moved);
        }
        self.history.take(interval, revision, folded);
    }

    /// Remembers what only called sides reported, of intervals whose reports are complete: sooner, and
    /// it would be an edge of its own, by other names than its caller's proxy has.
    pub(super) fn persist_served(&mut self, settled: u64) {
        let oldest = settled.saturating_sub(history::FINE);
        // What ends a call in the interval after it must be there too.
        for interval in self.persisted_to.max(oldest)..settled.saturating_sub(1) {
            for edge in self.history.only_served(interval) {
                if self.history.is_known(interval, &edge) {
                    self.memory.see(&edge, seen_in(interval));
                }
            }
            self.persisted_to = interval + 1;
        }
    }

    /// Puts together what is due and drops what is old. `retention`: how long edges without calls
    /// are remembered. Returns how many edges of the memory had no room.
    pub(super) fn tidy(&mut self, now: SystemTime, retention: Duration) -> usize {
        let mut retention = retention.max(SHORTEST_MEMORY);
        let forgets_from = |interval: u64| interval + SHORTEST_MEMORY.as_secs() / INTERVAL;
        if self
            .clock_set_in
            .is_some_and(|interval| interval_of(now) < forgets_from(interval))
        {
            // A clock that is set wrong is mostly set right again, and what is forgotten is gone.
            retention = Duration::MAX;
        }
        let truncated = self.memory.tidy(seconds(now), retention);
        self.history.tidy(interval_of(now));
        truncated
    }

    /// Looks at the clock, which shows `now` at the moment `at`. From the first look on responses
    /// report when it is set. Returns how it was set since the last look.
    pub(super) fn look_at_clock(&mut self, now: SystemTime, at: Instant) -> Option<ClockStep> {
        let Some(clock) = &mut self.clock else {
            self.clock = Some(WallClock::new(now, at));
            return None;
        };
        let step = clock.look(now, at)?;
        // Before any query finds the clock looked at.
        self.clock_set_in = Some(interval_of(now));
        Some(step)
    }

    /// Whether the clock was set in this interval or after it, or since the last look.
    pub(super) fn clock_is_set(&self, first: u64) -> bool {
        let clock = self.clock.as_ref();
        clock.is_some_and(|clock| clock.is_set(SystemTime::now(), Instant::now()))
            || self.clock_set_in.is_some_and(|interval| first <= interval)
    }

    /// The clock was set, and its interval is this one. What stands in intervals that come only now would
    /// be taken for what is counted in them, or keep it out, until the clock is there again. So it
    /// goes; what is before them stays where it is.
    pub(super) fn clock_was_set(&mut self, current: u64) {
        self.history.forget_from(current);
        self.persisted_to = self.persisted_to.min(current);
        self.clock_set_in = Some(current);
    }

    /// What was counted in the max window on the edges that `chosen` accepts.
    pub(super) fn calls_between(
        &self,
        now: SystemTime,
        chosen: impl Fn(&EdgeKey) -> bool,
    ) -> RecentCalls {
        let current = interval_of(now);
        let intervals = (current.saturating_sub(history::LONGEST), current);
        let window = self.history.window(intervals, current, 0);
        let mut seen = RecentCalls {
            window_seconds: history::LONGEST * INTERVAL,
            ..RecentCalls::default()
        };
        let mut last = 0;
        for (edge, counted) in window.edges.iter().filter(|(edge, _)| chosen(edge.key())) {
            seen.requests += counted.sums.requests();
            seen.failure += u64::from(counted.sums.failure);
            for (reason, calls) in counted.sums.rare.iter().flat_map(|rare| &rare.reasons) {
                *seen.refused.entry(reason.to_string()).or_default() += u64::from(*calls);
            }
            last = last.max(self.memory.get(edge).map_or(0, |seen| seen.last));
        }
        seen.last = (last > 0).then(|| answer::timestamp(last));
        seen
    }

    /// Accounts of the callers that these nodes ever had, as far as they are in the memory or were
    /// there in the last minutes, and how many there were of which none is known.
    pub(super) fn callers_of(
        &self,
        nodes: &BTreeSet<NodeKey>,
        workloads: &Workloads,
    ) -> (BTreeSet<ObjectKey>, usize) {
        let persisted = self.memory.iter().map(|(edge, _)| edge);
        let edges = persisted.chain(self.history.unknown());
        let edges = edges.map(EdgeRef::key);
        let mut accounts = BTreeSet::new();
        let mut unknown = BTreeSet::new();
        for edge in edges.filter(|edge| nodes.contains(&edge.to)) {
            let own = (edge.from.kind == NodeKind::ServiceAccount).then_some(&edge.from.object);
            if let Some(account) = edge.account.as_ref().or(own) {
                accounts.insert(account.clone());
                continue;
            }
            let workload = workloads.get(&edge.from);
            let identities = workload
                .into_iter()
                .flat_map(|workload| &workload.identities);
            let known: BTreeSet<ObjectKey> = identities.filter_map(|id| account_of(id)).collect();
            if known.is_empty() {
                unknown.insert(&edge.from);
            }
            accounts.extend(known);
        }
        (accounts, unknown.len())
    }
}

/// When an interval's calls were.
const fn seen_in(interval: u64) -> Seen {
    Seen {
        first: interval * INTERVAL,
        last: (interval + 1) * INTERVAL,
    }
}

/// Seconds since 1970.
pub(crate) fn seconds(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn account_of(id: &str) -> Option<ObjectKey> {
    let id = SpiffeId::try_from(id).ok()?;
    Some(ObjectKey::new(id.namespace()?, id.service_account()?))
}
