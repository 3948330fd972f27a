//! Slots that go because of the time: they are over for long, or the clock that numbers them was
//! set back.

use super::{Author, ReportStore};

impl ReportStore {
    /// Drops slots before `first`.
    pub(in crate::observe) fn forget_before(&mut self, first: u64) {
        while let Some((slot, stored)) = self.slots.first_key_value() {
            let slot = *slot;
            if slot >= first {
                break;
            }
            let authors: Vec<Author> = stored.keys().cloned().collect();
            for author in &authors {
                self.drop_report(slot, author);
            }
            self.slots.remove(&slot);
        }
        let before = self.changed.len();
        self.changed = self.changed.split_off(&first);
        self.given_up = self.given_up.split_off(&first);
        if self.changed.len() < before {
            self.hoarders.retain(|_, pod| pod.whole_from > first);
        }
    }

    /// Drops `slot` and later ones, which come only now: the clock was set back.
    pub(in crate::observe) fn forget_from(&mut self, slot: u64) {
        let later = self.slots.range(slot..);
        let later: Vec<(u64, Author)> = later
            .flat_map(|(slot, stored)| stored.keys().map(move |author| (*slot, author.clone())))
            .collect();
        for (slot, author) in &later {
            self.drop_report(*slot, author);
        }
        drop(self.changed.split_off(&slot));
        drop(self.given_up.split_off(&slot));
        self.whole_from = self.whole_from.min(slot);
        for pod in self.hoarders.values_mut() {
            pod.whole_from = pod.whole_from.min(slot);
        }
    }
}
