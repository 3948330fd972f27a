//! Rate limits: which request gets a token, and how the pods of a Service share a limit.
//!
//! Each bucket is one number, the time at which it was empty (GCRA, from the other end), so a
//! limit is exact to the request and costs eight bytes per key. A request takes a token of
//! every limit that applies to it, or none of any.
//!
//! That time is of a clock that runs as fast as the pod's share: with half of the limit half as
//! fast, without a share not at all. So another share changes the clock and no bucket, and what one
//! pod gains another one has lost: however shares move between pods, a key gets no more than the
//! limit of all together, and no new burst.
//!
//! Callers choose the values of headers. So keys are hashes of a fixed size, and their number
//! is bounded per limit and per pod; a caller may use as many as others leave free. `keys.rs`
//! decides which are forgotten. A caller without room for its first key shares a bucket with
//! others like it.
//!
//! In use: one [`Buckets`] per limit of the own pod, all under one lock; [`take_all`] with
//! those that [`crate::traffic::every`] names for the request, audited ones apart.
//! [`Buckets::offered`] is reported, and [`shares::Shares`] is the controller's.

use std::time::{Duration, Instant};

use crate::traffic::guard::{LimitKey, LimitScope, RateLimit};
use keys::{BYTES_PER_ENTRY, Bucket, Entry, Keys};
use offered::{Meter, Offered};
pub use rate::Rate;
use rate::nanos;

mod keys;
pub mod offered;
mod rate;
pub mod shares;

/// Places for the keys of one limit. Each key takes one, and so does each caller whose keys
/// are values of a header.
pub const KEYS: usize = 24_000;
/// Bytes that the keys of all limits of one pod take, whose proxy requests 20 MiB.
pub(crate) const BYTES_PER_POD: usize = 4 << 20;

/// All keys of a limit by caller are those of one, which is no caller's hash but by a chance
/// of one in 2^64.
const ALL_CALLERS: u64 = 0;

/// Where the clock of every table begins: no bucket was empty before that, the largest of which
/// is worth an hour for each of a million requests. It ends after 400 years.
const BEGIN: u64 = 1 << 62;

/// Whose bucket. Hashes of the proxy's own, seeded at random, so that no caller can aim at
/// another's: of the identity, and of the header's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// The limit has no key.
    All,
    Caller(u64),
    Header {
        caller: u64,
        value: u64,
    },
}

impl Key {
    /// Of all that makes it.
    const fn hash(self) -> u64 {
        match self {
            Self::All => 0,
            Self::Caller(caller) => caller,
            Self::Header { caller, value } => caller.rotate_left(29) ^ value,
        }
    }
}

/// Places for the keys of each limit, of so many of one pod that have keys.
#[must_use]
pub fn keys_of_each(limits: usize) -> usize {
    let share = BYTES_PER_POD / BYTES_PER_ENTRY / limits.max(1);
    share.clamp(1, KEYS)
}

/// Where the bucket of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BucketLocation {
    /// The limit has one bucket.
    All,
    /// It has its own.
    Existing(Entry),
    /// It gets its own.
    New(Entry),
    /// There is no room for one more caller; such callers share one bucket.
    Full,
}

/// The buckets of one limit.
#[derive(Debug)]
pub struct Buckets {
    start: Instant,
    rate: Rate,
    /// When the rate began, in nanoseconds since `start`, and where the clock stood then.
    since: u64,
    clock: u64,
    /// What a full bucket is worth. A share of nothing leaves it as it was.
    capacity: u64,
    /// Unused buckets were empty then, and no sooner: a larger share brings no tokens.
    unused: u64,
    /// It never had a share, so at most one request of each key has passed.
    fresh: bool,
    /// Without key, and for callers that find no room.
    shared: Bucket,
    keys: Keys,
    /// Requests that showed that there are too few places, since they were last asked for.
    overflowed: u64,
    /// Of a limit that pods keep together.
    meter: Option<Box<Meter>>,
}

/// Whose tokens are used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Emptied {
    /// Those of the request's key, or of the limit where it has none.
    Own,
    /// There are more keys than places, and what forgotten ones used is counted to this one.
    Forgotten,
    /// Those of all callers for whose keys there is no room.
    Shared,
}

/// Why a request may not pass, and when a token will be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which of the limits, in the order in which they were given: the one that takes
    /// longest.
    pub limit: usize,
    pub wait: Duration,
    pub emptied: Emptied,
}

impl Refused {
    /// The value of `retry-after`: whole seconds, rounded up, one at least.
    #[must_use]
    pub fn retry_after(&self) -> u64 {
        self.wait.as_millis().div_ceil(1000).max(1) as u64
    }
}

impl Buckets {
    #[must_use]
    pub fn new(now: Instant, rate: Rate) -> Self {
        Self {
            start: now,
            rate,
            since: 0,
            clock: BEGIN,
            capacity: rate.whole,
            unused: BEGIN.saturating_sub(rate.burst()),
            fresh: rate.is_unshared() || rate.whole == 0,
            shared: Bucket::default(),
            keys: Keys::new(KEYS),
            overflowed: 0,
            meter: None,
        }
    }

    /// Another rate, as when the share changed. What was taken stays taken, and a larger share
    /// brings no tokens but those of the time to come; of a smaller one no bucket holds more
    /// than is full. With the first share nothing lacks but the request that passed before it.
    /// A share of nothing has no bucket, so it leaves those that the share before it had: a
    /// pod that is not ready for a moment comes back to what it left.
    pub fn set_rate(&mut self, now: Instant, rate: Rate) {
        if rate == self.rate {
            return;
        }
        (self.since, self.clock) = (self.nanos(now), self.clock(now));
        let former = std::mem::replace(&mut self.rate, rate);
        if former.token != rate.token {
            self.count_in(former.token, rate.token);
        }
        if rate.whole == 0 {
            return;
        }
        let full = self.full(self.clock);
        if self.fresh {
            let more = rate.burst().saturating_sub(self.capacity);
            self.move_all(|empty| empty.saturating_sub(more));
            self.unused = full.saturating_sub(more);
            self.fresh = rate.is_unshared();
        } else {
            self.unused = full;
        }
        self.capacity = rate.whole;
    }

    /// Tokens take other nanoseconds of the clock: as many are left.
    fn count_in(&mut self, former: u64, token: u64) {
        let clock = self.clock;
        let scaled = |time: u64| {
            let scaled = u128::from(time) * u128::from(token) / u128::from(former.max(1));
            u64::try_from(scaled).unwrap_or(u64::MAX)
        };
        self.capacity = scaled(self.capacity);
        self.unused = clock.saturating_sub(scaled(clock.saturating_sub(self.unused)));
        self.move_all(|empty| clock.saturating_sub(scaled(clock.saturating_sub(empty))));
    }

    /// When all buckets were empty, which keeps their order.
    fn move_all(&mut self, at: impl Fn(u64) -> u64) {
        self.shared = Bucket(at(self.shared.0));
        self.keys.move_all(|bucket| Bucket(at(bucket.0)));
    }

    /// From now on it is counted how much is offered to a limit that pods keep together, and
    /// not to another one.
    pub fn meter(&mut self, now: Instant, limit: &RateLimit) {
        if limit.scope == LimitScope::Instance {
            self.meter = None;
            return;
        }
        let has_keys = limit.key != LimitKey::None;
        let fits = |meter: &Meter| meter.fits(limit.requests, limit.per, has_keys);
        let is_there = self.meter.as_deref().is_some_and(fits);
        if !is_there {
            let meter = Meter::new(now, limit.requests, limit.per, has_keys);
            self.meter = Some(Box::new(meter));
        }
    }

    /// What has been offered to a limit that pods keep together; `None` while that is not known.
    pub fn offered(&mut self, now: Instant) -> Option<Offered> {
        self.meter.as_mut()?.offered(now)
    }

    /// Another number of places for keys, as [`keys_of_each`] gives it.
    pub fn set_most(&mut self, most: usize) {
        self.keys.set_most(most);
    }

    /// How many requests showed since this was asked last that there are too few places for
    /// keys: their key began with what a forgotten one had used, or cost one that was not full,
    /// or found no room.
    pub const fn take_overflowed(&mut self) -> u64 {
        std::mem::replace(&mut self.overflowed, 0)
    }

    /// Keys in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where a key has its bucket now. Makes none.
    fn location(&mut self, now: Instant, key: Key) -> BucketLocation {
        let (caller, value) = match key {
            Key::All => return BucketLocation::All,
            Key::Caller(caller) => (ALL_CALLERS, caller),
            Key::Header { caller, value } => (caller, value),
        };
        let entry = Entry { caller, value };
        if self.keys.bucket(entry).is_some() {
            return BucketLocation::Existing(entry);
        }
        let spare = self.spare(now);
        if self.keys.has_room(spare, caller) {
            BucketLocation::New(entry)
        } else {
            BucketLocation::Full
        }
    }

    /// The bucket with a token less, if one is there; takes none, and makes no key.
    fn look(&self, now: Instant, location: BucketLocation) -> Result<Bucket, Duration> {
        let existing = match location {
            BucketLocation::All | BucketLocation::Full => Some(self.shared),
            BucketLocation::Existing(entry) | BucketLocation::New(entry) => self.keys.bucket(entry),
        };
        let (clock, token) = (self.clock(now), self.rate.token);
        let full = self.full(clock);
        // What came since it was full is not lost while it is less than a token: calls that
        // come evenly, and more often than tokens, get them all.
        let kept = existing.filter(|bucket| bucket.0.saturating_add(token) > full);
        let empty = match (kept, location) {
            (Some(bucket), _) => bucket.0,
            (None, BucketLocation::New(entry)) => full.max(self.keys.floor(entry.caller).0),
            (None, _) => full,
        };
        let next = empty.saturating_add(token);
        if self.rate.whole > 0 && next <= clock {
            return Ok(Bucket(next));
        }
        let wait = self.rate.until(next.saturating_sub(clock).max(1));
        Err(Duration::from_nanos(wait))
    }

    /// Puts back what [`Buckets::look`] gave.
    fn put(&mut self, now: Instant, location: BucketLocation, bucket: Bucket) {
        let mut overflows = self.overflows(now, location);
        match location {
            BucketLocation::All | BucketLocation::Full => self.shared = bucket,
            BucketLocation::Existing(entry) | BucketLocation::New(entry) => {
                let spare = self.spare(now);
                overflows |= self.keys.set(spare, entry, bucket);
            }
        }
        self.overflowed += u64::from(overflows);
    }

    /// Whether this place shows that there are too few.
    fn overflows(&self, now: Instant, location: BucketLocation) -> bool {
        let is_held = matches!(location, BucketLocation::All | BucketLocation::Existing(_));
        !is_held && self.emptied(now, location) != Emptied::Own
    }

    /// Whose tokens are used up, if none is left at this place.
    fn emptied(&self, now: Instant, location: BucketLocation) -> Emptied {
        match location {
            BucketLocation::Full => Emptied::Shared,
            BucketLocation::Existing(entry) | BucketLocation::New(entry)
                if self.keys.floor(entry.caller).0 > self.spare(now) =>
            {
                Emptied::Forgotten
            }
            BucketLocation::All | BucketLocation::Existing(_) | BucketLocation::New(_) => {
                Emptied::Own
            }
        }
    }

    /// When a bucket was empty that is full now.
    fn full(&self, clock: u64) -> u64 {
        self.unused.max(clock.saturating_sub(self.capacity))
    }

    /// A bucket that was empty by then is the same as an unused one.
    fn spare(&self, now: Instant) -> u64 {
        self.full(self.clock(now)).saturating_sub(self.rate.token)
    }

    fn clock(&self, now: Instant) -> u64 {
        let passed = self.nanos(now).saturating_sub(self.since);
        self.clock.saturating_add(self.rate.passed(passed))
    }

    fn nanos(&self, now: Instant) -> u64 {
        nanos(now.saturating_duration_since(self.start))
    }
}

/// Takes a token of each of these limits, or none of any. `keys` names a limit of `tables`
/// and the request's key there, each limit once.
pub fn take_all(
    tables: &mut [Buckets],
    now: Instant,
    keys: impl Iterator<Item = (usize, Key)> + Clone,
) -> Result<(), Refused> {
    let mut refused: Option<Refused> = None;
    for (limit, key) in keys.clone() {
        let Some(table) = tables.get_mut(limit) else {
            continue;
        };
        let location = table.location(now, key);
        let looked = table.look(now, location);
        if let Some(meter) = &mut table.meter {
            meter.count(now, key.hash(), looked.is_err());
        }
        let Err(wait) = looked else {
            continue;
        };
        table.overflowed += u64::from(table.overflows(now, location));
        if refused.is_none_or(|longest| wait > longest.wait) {
            let emptied = table.emptied(now, location);
            refused = Some(Refused {
                limit,
                wait,
                emptied,
            });
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    for (limit, key) in keys {
        let Some(table) = tables.get_mut(limit) else {
            continue;
        };
        let location = table.location(now, key);
        if let Ok(bucket) = table.look(now, location) {
            table.put(now, location, bucket);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
