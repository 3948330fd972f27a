//! Which holder loses a permit to a newcomer where nearly all are taken.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use super::slot::{CLOSE, CUT, TrackedConnection, YOUNGER, millis};
use super::{BATCH, EVICTION_PAUSE, Holder, Occupancy, Reached, Table, TurnedAway};

/// A connection that is asked to go is gone by then; servers of HTTP/1.1 give it half of this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

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
        let own = own.filter(|slots| slots.len() > 1 && slots.len() * 2 >= most);
        // Ends at the first: a flood must not cost a look at the whole table for each of it.
        let mut own = own.into_iter().flat_map(HashMap::values);
        // Only what may go by itself: of what is cut off nothing is left soon.
        let closing_for = |slot: &TrackedConnection| slot.verdict_age(now, &[CLOSE]);
        if own.any(|slot| closing_for(slot).is_some()) {
            (self.reached)(Reached::Hoarder);
            return Err(TurnedAway);
        }
        let all = table.holders.values().flat_map(HashMap::values);
        let late = |slot: &&Arc<TrackedConnection>| {
            let age = closing_for(slot);
            age.is_some_and(|age| age >= millis(ANSWERED_WITHIN)) && !slot.is_in_use()
        };
        for slot in all.filter(late) {
            self.send(slot, CUT);
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
        for (holder, slots) in &table.holders {
            let in_use = usize::MAX - slots.len();
            for slot in slots.values() {
                match slot.loss(now) {
                    Some(loss) if loss.class == YOUNGER && holder == newcomer => spared = true,
                    Some(loss) => losses.push((in_use, loss, holder, slot)),
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
        for (_, loss, holder, slot) in losses.iter().take(batch) {
            if holder == first {
                taken |= self.take(slot, *loss);
            }
        }
        taken
    }
}
