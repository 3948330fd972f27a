//! Which holder a connection counts for once its peer has proven an identity.

use super::slot::SHED;
use super::{Holder, Occupancy, Permit, Reached, Table};

impl Permit {
    /// From here on the connection counts for the proven identity, once for all. It came in as
    /// one of its address; where that identity has its share already, it goes again.
    pub fn prove(&self, identity: &str) {
        let Some(of) = &self.of else { return };
        let mut holder = of.holder.lock();
        let mut table = of.occupancy.table.lock();
        if self.slot.proven.get().is_some() {
            return;
        }
        let proven = Holder::Identity(identity.into());
        if let Some(slot) = table.remove(&holder, of.id) {
            slot.proves(&table.requests_of(&proven));
            let slots = table.holders.entry(proven.clone()).or_default();
            slots.insert(of.id, slot);
        }
        let one_too_many = of.occupancy.hoards_with_last(&table, &proven);
        drop(table);
        *holder = proven;
        // No request has started on it.
        if one_too_many && of.occupancy.send(&self.slot, SHED) {
            (of.occupancy.reached)(Reached::Hoarder);
        }
    }
}

impl Occupancy {
    /// Whether the last connection of a holder takes what is left to others, and none of its
    /// own can go instead.
    fn hoards_with_last(&self, table: &Table, holder: &Holder) -> bool {
        let before = table.in_use(holder).saturating_sub(1);
        let full = self.staying(table).saturating_sub(1) >= self.eviction_threshold();
        if !full || !self.bounds.shared || before <= 1 {
            return false;
        }
        let hoards = self.hoards(table, holder, (before, table.taken.saturating_sub(1)));
        hoards && !self.take_from(table, holder, self.now())
    }
}
