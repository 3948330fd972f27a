//! From whom a newcomer takes a permit where nearly all are taken.

use std::collections::HashMap;
use std::time::Duration;

use super::slot::{YOUNGER, millis};
use super::{ASK_AGAIN, BATCH, Holder, Occupancy, Reached, Table, TurnedAway};

/// Whoever goes when it is asked to has gone by then; servers of HTTP/1.1 give it half of this.
const ANSWERED_WITHIN: Duration = Duration::from_secs(1);

impl Occupancy {
    /// Where all permits are taken. A listener takes one connection after the other, so whoever
    /// waits keeps all others waiting. Who holds much of it that does not go when it is asked to
    /// is turned away: else a queue of its connections would come in as slowly as they are cut.
    ///
    /// # Errors
    /// When the holder may not.
    pub(super) fn may_wait(
        &self,
        table: &Table,
        holder: &Holder,
        now: u64,
    ) -> Result<(), TurnedAway> {
        let most = table.holders.values().map(HashMap::len).max().unwrap_or(0);
        let slots = table.holders.get(holder);
        let slots = slots.filter(|slots| slots.len() > 1 && slots.len() * 2 >= most);
        let stays = slots.into_iter().flat_map(HashMap::values).any(|slot| {
            let told = slot.told_age(now);
            told.is_some_and(|age| age >= millis(ANSWERED_WITHIN))
        });
        if stays && self.bounds.shared {
            (self.reached)(Reached::Hoarder);
            return Err(TurnedAway);
        }
        Ok(())
    }

    /// Takes from the holder of most, or from the next one that has something to
    /// lose. False when nobody has.
    pub(super) fn evict(&self, table: &mut Table, newcomer: &Holder, now: u64) -> bool {
        let vain = millis(ASK_AGAIN);
        if table.asked_in_vain.is_some_and(|at| now < at + vain) {
            return false;
        }
        let mut losses = Vec::new();
        let mut spared = false;
        for (holder, slots) in &table.holders {
            let held = usize::MAX - slots.len();
            for slot in slots.values() {
                match slot.loss(now) {
                    Some(loss) if loss.class == YOUNGER && holder == newcomer => spared = true,
                    Some(loss) => losses.push((held, loss, holder, slot)),
                    None => {}
                }
            }
        }
        losses.sort_unstable_by_key(|(held, loss, ..)| (*held, *loss));
        let Some((held, _, first, _)) = losses.first() else {
            // Others may take what was spared.
            table.asked_in_vain = (!spared).then_some(now);
            return false;
        };
        let most = usize::MAX - held;
        if most < table.held(newcomer) {
            // Whoever has more takes nothing from who has less.
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
