//! Measures how much memory the program has allocated, before every read of a connection.
//!
//! The allocator counts what each thread allocates and frees, and returns that for the price of two
//! loads. The memory of its pages, with unused parts between small allocations, takes microseconds
//! to read; so it is read when a mebibyte was added or freed, and every now and then. Between two
//! readings the thread's own count is added, which is exact on the thread of the data path.

use std::cell::Cell;

use tikv_jemalloc_ctl::thread::{ThreadLocal, allocatedp, deallocatedp};
use tikv_jemalloc_ctl::{Error, epoch, epoch_mib, stats};

/// Read anew when this thread holds so much more or less, in bytes.
const MEASURE_AFTER: u64 = 1024 * 1024;

thread_local! {
    static METER: Option<Meter> = Meter::new().ok();
}

struct Meter {
    allocated: ThreadLocal<u64>,
    freed: ThreadLocal<u64>,
    epoch: epoch_mib,
    active: stats::active_mib,
    /// What this thread held when the pages were counted, and what they came to.
    counted: Cell<(u64, usize)>,
}

impl Meter {
    fn new() -> Result<Self, Error> {
        let meter = Self {
            allocated: allocatedp::read()?,
            freed: deallocatedp::read()?,
            epoch: epoch::mib()?,
            active: stats::active::mib()?,
            counted: Cell::default(),
        };
        meter.count()?;
        Ok(meter)
    }

    /// May be below zero: others free what this thread allocated, and the reverse.
    fn own(&self) -> u64 {
        self.allocated.get().wrapping_sub(self.freed.get())
    }

    fn count(&self) -> Result<usize, Error> {
        self.epoch.advance()?;
        let active = self.active.read()?;
        self.counted.set((self.own(), active));
        Ok(active)
    }

    fn in_use(&self) -> usize {
        let (then, active) = self.counted.get();
        let more = self.own().wrapping_sub(then) as i64;
        if more.unsigned_abs() >= MEASURE_AFTER
            && let Ok(active) = self.count()
        {
            return active;
        }
        active.saturating_add_signed(more as isize)
    }
}

/// Bytes that the program holds; 0 where another allocator is used.
#[must_use]
pub fn in_use() -> usize {
    METER.with(|meter| meter.as_ref().map_or(0, Meter::in_use))
}

/// Reads the pages anew, whatever this thread did since.
pub fn count() {
    METER.with(|meter| {
        if let Some(meter) = meter {
            // What was counted last stays when it cannot be read.
            let _ = meter.count();
        }
    });
}
