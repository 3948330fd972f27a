//! What the last probes came to.

/// Most probes that are looked back on.
const MOST: u32 = 20;

/// The newest probe in the lowest bit, set where it failed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Probes {
    failed: u32,
    made: u32,
}

impl Probes {
    pub(super) fn add(&mut self, failed: bool) {
        self.failed = (self.failed << 1 | u32::from(failed)) & ((1 << MOST) - 1);
        self.made = (self.made + 1).min(MOST);
    }

    /// Whether there were so many, and of the last of them fewer than `percent` failed.
    pub(super) const fn are_good(self, needed: u32, percent: u8) -> bool {
        let failed = (self.failed & ((1 << needed) - 1)).count_ones();
        self.made >= needed && failed * 100 < needed * percent as u32
    }
}
