//! From whom a newcomer takes a permit where nearly all are taken.

use super::slot::{YOUNGER, millis};
use super::{ASK_AGAIN, BATCH, Holder, Occupancy, Table};

impl Occupancy {
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
