//! The offered load of a shared rate limit at one pod.
//!
//! A pod needs what its busiest key needs, since each key has a bucket as large as the pod's share.
//! Keys are counted in cells, in two rows by different bits of their hash, so a count takes the
//! same few bytes however many keys a caller makes up. Keys that share a cell make the count too
//! large and never too small: at worst the pod seems to need more than it does, and lends nothing.
//!
//! Counted over five seconds, and of a slow limit for as long as it takes to let through
//! [`TOKENS`]: five seconds without a request show nothing of a limit of one a minute.
//!
//! Invariant: time is an argument.

use std::time::{Duration, Instant};

/// So long a pod that refused something claims more than an even part.
pub const WINDOW: Duration = Duration::from_secs(5);
/// Parts of the time that is counted over.
const INTERVALS: usize = 5;
/// Of the whole limit, and so a few for each pod of many.
const TOKENS: u32 = 20;
/// Cells of a row. Two rows take 5 KiB.
const CELLS: usize = 128;

/// What a pod is offered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offered {
    /// In thousandths of a request in the limit's time, as shares are: by the busiest key, and
    /// so much more that chance seldom exceeds it.
    pub thousandths: u64,
    /// Whether something was refused within [`WINDOW`].
    pub refused: bool,
}

impl Offered {
    /// Whether this has to be reported after that: what wavers by a quarter has not.
    #[must_use]
    pub fn differs_from(self, reported: Option<Self>) -> bool {
        reported.is_none_or(|reported| {
            let enough = reported.thousandths - reported.thousandths / 4;
            self.refused != reported.refused
                || !(enough..=reported.thousandths).contains(&self.thousandths)
        })
    }
}

/// Counts what comes to one limit.
#[derive(Clone, Debug)]
pub struct Meter {
    start: Instant,
    requests: u32,
    per: Duration,
    interval: Duration,
    /// Number of the interval that is counted now.
    current: u64,
    /// Of a row. One without keys, and one row then.
    width: usize,
    /// Row after row, by number of the interval.
    cells: Vec<[u32; INTERVALS]>,
    /// When something was refused last.
    refused: Option<Instant>,
}

impl Meter {
    /// Of a limit of so many requests in a time.
    #[must_use]
    pub fn new(now: Instant, requests: u32, per: Duration, has_keys: bool) -> Self {
        let tokens = per.saturating_mul(TOKENS) / requests.max(1);
        let (width, cells) = if has_keys { (CELLS, 2 * CELLS) } else { (1, 1) };
        Self {
            start: now,
            requests,
            per,
            interval: tokens.max(WINDOW) / INTERVALS as u32,
            current: 0,
            width,
            cells: vec![[0; INTERVALS]; cells],
            refused: None,
        }
    }

    /// Whether it counts what comes to such a limit.
    #[must_use]
    pub fn fits(&self, requests: u32, per: Duration, has_keys: bool) -> bool {
        (self.requests, self.per, self.width > 1) == (requests, per, has_keys)
    }

    /// One request, or connection, has come with a key of this hash.
    pub fn count(&mut self, now: Instant, hash: u64, is_refused: bool) {
        self.go_on(now);
        let (interval, width) = (self.interval_of(self.current), self.width);
        for (row, cells) in self.cells.chunks_mut(width).enumerate() {
            let at = (hash >> (16 * row)) as usize % width;
            if let Some(cell) = cells.get_mut(at) {
                cell[interval] = cell[interval].saturating_add(1);
            }
        }
        if is_refused {
            self.refused = Some(now);
        }
    }

    /// What was offered of late; `None` while that is not known.
    pub fn offered(&mut self, now: Instant) -> Option<Offered> {
        self.go_on(now);
        let counted = self.since(now, INTERVALS as u64);
        let refused = self
            .refused
            .is_some_and(|refused| now.saturating_duration_since(refused) < WINDOW);
        if counted < self.interval * INTERVALS as u32 / 2 && !refused {
            return None;
        }
        let all = u64::from(self.busiest(|cell| cell.iter().copied().fold(0, u32::saturating_add)));
        let mean = self.rate(1000 * all + (1_000_000 * all).isqrt(), counted);
        if !refused {
            return Some(Offered {
                thousandths: mean,
                refused,
            });
        }
        // Until the mean has risen, more would be refused.
        let (last, before) = (
            self.interval_of(self.current),
            self.interval_of(self.current + INTERVALS as u64 - 1),
        );
        let newest = u64::from(self.busiest(|cell| cell[last].saturating_add(cell[before])));
        let newest = self.rate(1000 * newest, self.since(now, 2));
        Some(Offered {
            thousandths: mean.max(newest),
            refused,
        })
    }

    /// How long the newest intervals have lasted by now, together.
    fn since(&self, now: Instant, intervals: u64) -> Duration {
        let before = (self.current + 1).saturating_sub(intervals);
        let before = u32::try_from(before).unwrap_or(u32::MAX);
        let elapsed = now.saturating_duration_since(self.start);
        let lasted = elapsed.saturating_sub(self.interval.saturating_mul(before));
        lasted.max(self.interval)
    }

    /// So many thousandths of a request in a time, as of the limit's time.
    fn rate(&self, thousandths: u64, time: Duration) -> u64 {
        let all = u128::from(thousandths) * self.per.as_nanos();
        u64::try_from(all / time.as_nanos().max(1)).unwrap_or(u64::MAX)
    }

    /// The most of any key, by what is read of a cell.
    fn busiest(&self, read: impl Fn(&[u32; INTERVALS]) -> u32) -> u32 {
        let rows = self.cells.chunks(self.width);
        let most = rows.map(|cells| cells.iter().map(&read).max().unwrap_or(0));
        most.min().unwrap_or(0)
    }

    const fn interval_of(&self, number: u64) -> usize {
        (number % INTERVALS as u64) as usize
    }

    /// Forgets what is no longer counted.
    fn go_on(&mut self, now: Instant) {
        let elapsed = now.saturating_duration_since(self.start).as_nanos();
        let number = elapsed / self.interval.as_nanos().max(1);
        let number = u64::try_from(number).unwrap_or(u64::MAX);
        let passed = number.saturating_sub(self.current).min(INTERVALS as u64);
        for behind in 0..passed {
            let interval = self.interval_of(number - behind);
            for cell in &mut self.cells {
                cell[interval] = 0;
            }
        }
        self.current = self.current.max(number);
    }
}

#[cfg(test)]
mod tests;
