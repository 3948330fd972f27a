//! From whom a newcomer takes a place where nearly all are taken.

use super::seat::{YOUNGER, millis};
use super::{ASK_AGAIN, BATCH, Holder, Occupancy, Table};

impl Occupancy {
    /// Takes from the holder of most, or from the next one that has something to
    /// lose. False when nobody has.
    pub(super) fn make_room(&self, table: &mut Table, newcomer: &Holder, now: u64) -> bool {
        let vain = millis(ASK_AGAIN);
        if table.asked_in_vain.is_some_and(|at| now < at + vain) {
            return false;
        }
        let mut losses = Vec::new();
        let mut spared = false;
        for (holder, seats) in &table.holders {
            let held = usize::MAX - seats.len();
            for seat in seats.values() {
                match seat.loss(now) {
                    Some(loss) if loss.class == YOUNGER && holder == newcomer => spared = true,
                    Some(loss) => losses.push((held, loss, holder, seat)),
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
        for (_, loss, holder, seat) in losses.iter().take(batch) {
            if holder == first {
                taken |= self.take(seat, *loss);
            }
        }
        taken
    }
}
