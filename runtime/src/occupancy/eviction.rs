//! Evicts connections: those whose permit a new one needs where nearly all are taken; without a new
//! one those whose heads take too long, that were idle too long, or that were requested to close
//! and stay; and when memory runs out, and only then, those of the holder of most bytes, whatever
//! they do, the largest first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use tokio::time::sleep;

use super::tracked::{CLOSE, CUT, SHED, TrackedConnection, WITHIN_GRACE, millis};
use super::{Holder, Occupancy, Reached, Table, TurnedAway};

/// When no holder has anything to lose, none is asked again for this long.
pub(super) const EVICTION_PAUSE: Duration = Duration::from_millis(50);
/// The holder of most loses this part of its connections at once, so that a flood
/// of newcomers does not search the whole table for each.
const BATCH: usize = 128;
/// A connection that is asked to go is gone by then; servers of HTTP/1.1 give it half of this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);
/// So often is looked.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A client that is asked to go between two requests has this long. One of HTTP/2 may never
/// respond to that, and would keep its permit for ever.
pub(super) const CLOSE_WITHIN: Duration = Duration::from_secs(2);

/// What the connections of one holder have the process hold, without those that were asked
/// to go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Weights {
    pub holder: Holder,
    /// In bytes, one for each connection, the largest last.
    pub connections: Vec<usize>,
}

/// What the connections of one holder have the process hold, in bytes.
fn weight_of(conns: &HashMap<u64, Arc<TrackedConnection>>) -> usize {
    conns.values().map(|conn| conn.weight()).sum()
}

impl Occupancy {
    /// Where all permits are taken. A listener takes one connection after the other, so a newcomer
    /// that waits keeps all others waiting. A holder of many, whose connections that were asked
    /// to go are still there, is rejected: else a queue of its connections would come in as slowly
    /// as those go. Another holder waits no longer than they may take.
    ///
    /// # Errors
    /// When the holder may not.
    pub(super) fn may_wait(
        &self,
        table: &Table,
        holder: &Holder,
        now: u64,
    ) -> Result<(), TurnedAway> {
        if !self.bounds.shared {
            return Ok(());
        }
        let most = table.holders.values().map(HashMap::len).max().unwrap_or(0);
        let own = table.holders.get(holder);
        let own = own.filter(|conns| conns.len() > 1 && conns.len() * 2 >= most);
        // Ends at the first: a flood must not cost a look at the whole table for each of it.
        let mut own = own.into_iter().flat_map(HashMap::values);
        // Only what may go by itself: of what is cut off nothing is left soon.
        let closing_for = |conn: &TrackedConnection| conn.verdict_age(now, &[CLOSE]);
        if own.any(|conn| closing_for(conn).is_some()) {
            (self.reached)(Reached::Hoarder);
            return Err(TurnedAway);
        }
        let all = table.holders.values().flat_map(HashMap::values);
        let late = |conn: &&Arc<TrackedConnection>| {
            let age = closing_for(conn);
            age.is_some_and(|age| age >= millis(ANSWERED_WITHIN)) && !conn.is_in_use()
        };
        for conn in all.filter(late) {
            self.send(conn, CUT);
        }
        Ok(())
    }

    /// Takes from the holder of most, or from the next one that has something to
    /// lose. False when none has.
    pub(super) fn evict(&self, table: &mut Table, newcomer: &Holder, now: u64) -> bool {
        let vain = millis(EVICTION_PAUSE);
        if table.asked_in_vain.is_some_and(|at| now < at + vain) {
            return false;
        }
        let mut losses = Vec::new();
        let mut spared = false;
        for (holder, conns) in &table.holders {
            let in_use = usize::MAX - conns.len();
            for conn in conns.values() {
                match conn.loss(now) {
                    Some(loss) if loss.class == WITHIN_GRACE && holder == newcomer => spared = true,
                    Some(loss) => losses.push((in_use, loss, holder, conn)),
                    None => {}
                }
            }
        }
        losses.sort_unstable_by_key(|(in_use, loss, ..)| (*in_use, *loss));
        let Some((in_use, _, first, _)) = losses.first() else {
            // Others may take what was spared.
            table.asked_in_vain = (!spared).then_some(now);
            return false;
        };
        let most = usize::MAX - in_use;
        if most < table.in_use(newcomer) {
            // A holder of more takes nothing from one with less.
            return false;
        }
        let batch = (most / BATCH).max(1);
        let mut taken = false;
        for (_, loss, holder, conn) in losses.iter().take(batch) {
            if holder == first {
                taken |= self.take(conn, *loss);
            }
        }
        taken
    }

    /// Whether the last connection of a holder takes what is left to others, and none of its
    /// own can go instead.
    pub(super) fn hoards_with_last(&self, table: &Table, holder: &Holder) -> bool {
        let before = table.in_use(holder).saturating_sub(1);
        let full = self.staying(table).saturating_sub(1) >= self.eviction_threshold();
        if !full || !self.bounds.shared || before <= 1 {
            return false;
        }
        let hoards = self.hoards(table, holder, (before, table.taken.saturating_sub(1)));
        hoards && !self.take_from(table, holder, self.now())
    }

    /// Cuts off connections that take too long over a head or do not go when asked, and closes
    /// those that were idle too long, for ever.
    pub async fn watch(self: Arc<Self>) {
        loop {
            sleep(LOOK_EVERY).await;
            self.look();
        }
    }

    fn look(&self) {
        let now = self.now();
        let table = self.table.lock();
        for conn in table.holders.values().flat_map(HashMap::values) {
            let ignores = conn
                .verdict_age(now, &[CLOSE, CUT])
                .is_some_and(|age| age >= millis(CLOSE_WITHIN));
            // No newcomer needs the permit of what yields, or it would be gone.
            let in_use = conn.is_in_use() || conn.yields();
            let goes_on = in_use || conn.age(now) < millis(CLOSE_WITHIN);
            // It is used all the same, as through a tunnel: its place is taken.
            if ignores && goes_on && conn.leaves.swap(false, Relaxed) {
                self.leaving.fetch_sub(1, Relaxed);
            }
            if in_use {
                continue;
            }
            let overdue = conn
                .head_age(now)
                .map(|age| age >= millis(self.bounds.head_within));
            let rested = conn.age(now) >= millis(self.bounds.idle_within);
            if overdue == Some(true) && self.send(conn, CUT) {
                (self.reached)(Reached::SlowHead);
            }
            if overdue.is_none() && !conn.is_silent() && rested {
                self.send(conn, CLOSE);
            }
            // What was in use when it was asked has its time from then on.
            if ignores && !goes_on {
                self.send(conn, CUT);
            }
        }
    }

    /// What every holder has the process hold.
    #[must_use]
    pub fn weights(&self) -> Vec<Weights> {
        let table = self.table.lock();
        let of = |(holder, conns): (&Holder, &HashMap<u64, Arc<TrackedConnection>>)| {
            let weights = conns.values().map(|conn| conn.weight());
            let mut connections: Vec<_> = weights.filter(|weight| *weight > 0).collect();
            connections.sort_unstable();
            Weights {
                holder: holder.clone(),
                connections,
            }
        };
        table.holders.iter().map(of).collect()
    }

    /// Which holder has the process hold most bytes, and about how many. Connections that were
    /// asked to go do not count.
    #[must_use]
    pub fn heaviest(&self) -> Option<(usize, Holder)> {
        let table = self.table.lock();
        let heaviest = table
            .holders
            .iter()
            .map(|(holder, conns)| (weight_of(conns), holder))
            .max_by_key(|(weight, _)| *weight)?;
        Some((heaviest.0, heaviest.1.clone()))
    }

    /// Notes of each holder what it has the process hold, and whether that is less than
    /// `bytes`.
    pub fn weigh(&self, bytes: usize) {
        let table = self.table.lock();
        for (holder, requests) in &table.requests {
            let weight = table.holders.get(holder).map_or(0, weight_of);
            requests.note_weight(weight, weight < bytes);
        }
    }

    /// About what all connections have the process hold, in bytes.
    #[must_use]
    pub fn weight(&self) -> usize {
        let table = self.table.lock();
        table.holders.values().map(weight_of).sum()
    }

    /// Connections that were cut off by [`Self::shed`] and are not gone.
    #[must_use]
    pub fn leaving(&self) -> usize {
        let table = self.table.lock();
        let conns = table.holders.values().flat_map(HashMap::values);
        conns.filter(|conn| conn.is_shed()).count()
    }

    /// Cuts off connections of `holder`, the largest first, until they held `bytes`;
    /// gives how many.
    pub fn shed(&self, holder: &Holder, bytes: usize) -> usize {
        let table = self.table.lock();
        let conns = table.holders.get(holder).into_iter();
        let mut conns: Vec<_> = conns
            .flat_map(HashMap::values)
            .map(|conn| (conn.weight(), conn))
            .filter(|(weight, _)| *weight > 0)
            .collect();
        conns.sort_unstable_by_key(|(weight, _)| std::cmp::Reverse(*weight));
        let (mut freed, mut shed) = (0, 0);
        for (weight, conn) in conns {
            if freed >= bytes {
                break;
            }
            freed += weight;
            shed += 1;
            self.send(conn, SHED);
        }
        shed
    }
}
