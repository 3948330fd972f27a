//! Rate limits: who still has a token, and how the pods of a Service share theirs.
//!
//! Each bucket is one number, the time at which it will be full again (GCRA), so a limit
//! is exact to the request and costs eight bytes per key. A request takes a token of every
//! limit that applies to it, or none of any.
//!
//! Whoever calls chooses the values of headers. So keys are hashes of a size that is ours,
//! and there are so many at most of a limit and of a pod, which a caller may use as far as
//! others leave them; which are forgotten is told in `keys.rs`. A caller that finds no room
//! for his first key shares a bucket with others like him.
//!
//! In use: one [`Buckets`] per limit of the own pod, all under one lock; [`take_all`] with
//! those that [`crate::traffic::every`] names for the request, audited ones apart.
//! [`shares::Shares`] is the controller's.

use std::time::{Duration, Instant};

use crate::traffic::guard::RateLimit;
use keys::{BYTES_PER_ENTRY, Bucket, Entry, Keys};

mod keys;
pub mod shares;

/// Places for the keys of one limit. Each key takes one, and so does each caller whose keys
/// are values of a header.
pub const KEYS: usize = 24_000;
/// Bytes that the keys of all limits of one pod take, whose proxy requests 20 MiB.
pub(crate) const BYTES_PER_POD: usize = 4 << 20;

/// All keys of a limit by caller are those of one, which is no caller's hash but by a chance
/// of one in 2^64.
const ALL_CALLERS: u64 = 0;

/// Nanoseconds that never pass.
const NEVER: u64 = u64::MAX / 2;

/// Shares change within seconds, so no wait that is reckoned by one holds for longer.
const LONGEST_OF_SHARE: Duration = Duration::from_secs(60);

/// Whose bucket. Hashes of the proxy's own, seeded at random, so that nobody can aim at
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

/// How fast a bucket fills, and how much it holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Nanoseconds per token; `u64::MAX`: nothing is let through.
    token: u64,
    /// Nanoseconds that a full bucket is worth.
    whole: u64,
    /// The longest wait that is told, in nanoseconds.
    longest: u64,
}

impl Rate {
    #[must_use]
    pub fn of(limit: &RateLimit) -> Self {
        Self::new(u64::from(limit.requests) * 1000, limit.per, limit.burst)
    }

    /// Of a pod that was told no share yet: one request, lest a new pod answers 429 to the
    /// first that comes.
    #[must_use]
    pub fn unshared(limit: &RateLimit) -> Self {
        // One bucket full, which never fills again.
        Self {
            token: NEVER,
            whole: NEVER,
            longest: u64::MAX,
        }
        .share_of(limit)
    }

    /// A pod's share, in thousandths of a request per `limit.per`, as [`shares`] gives it.
    /// Its burst is the same part of the whole burst, and one request at least.
    #[must_use]
    pub fn share(limit: &RateLimit, thousandths: u64) -> Self {
        let whole = u64::from(limit.requests.max(1)) * 1000;
        let burst = u64::from(limit.burst) * thousandths.min(whole) / whole;
        let burst = u32::try_from(burst).unwrap_or(u32::MAX).max(1);
        Self::new(thousandths, limit.per, burst).share_of(limit)
    }

    const fn is_unshared(self) -> bool {
        self.token == NEVER
    }

    fn share_of(mut self, limit: &RateLimit) -> Self {
        let longest = limit.per.min(LONGEST_OF_SHARE).as_nanos();
        self.longest = u64::try_from(longest).unwrap_or(u64::MAX);
        self
    }

    fn new(thousandths: u64, per: Duration, burst: u32) -> Self {
        let Some(token) = (per.as_nanos() * 1000).checked_div(thousandths.into()) else {
            return Self {
                token: u64::MAX,
                whole: 0,
                longest: u64::MAX,
            };
        };
        let token = u64::try_from(token).unwrap_or(u64::MAX);
        Self {
            token,
            whole: token.saturating_mul(burst.max(1).into()),
            longest: u64::MAX,
        }
    }

    /// The bucket after one token was taken, or how long to wait for one.
    fn take(self, bucket: Bucket, now: u64) -> Result<Bucket, Duration> {
        let full = bucket.0.max(now).saturating_add(self.token);
        match full.saturating_sub(now).checked_sub(self.whole) {
            None | Some(0) => Ok(Bucket(full)),
            Some(wait) => Err(Duration::from_nanos(wait.min(self.longest))),
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
    /// It never had a share, so at most one request of each key has passed.
    fresh: bool,
    /// Without key, and for callers that find no room.
    shared: Bucket,
    keys: Keys,
    /// Requests that showed that there are too few places, since they were last asked for.
    overflowed: u64,
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
            fresh: rate.is_unshared(),
            shared: Bucket::default(),
            keys: Keys::new(KEYS),
            overflowed: 0,
        }
    }

    /// Another rate, as when the share changed. What was taken stays taken, but no bucket is
    /// emptier than empty: a tiny share would block the next one for long. With the first
    /// share nothing lacks but the request that passed before it. A share of nothing has no
    /// bucket that could be empty, so it leaves those that the share before it had: a pod that
    /// is not ready for a moment comes back to what it left.
    pub fn set_rate(&mut self, now: Instant, rate: Rate) {
        let most = if self.fresh {
            rate.token.min(rate.whole)
        } else {
            rate.whole
        };
        if rate.whole > 0 || self.rate.is_unshared() {
            let latest = Bucket(self.nanos(now).saturating_add(most));
            self.shared = self.shared.min(latest);
            self.keys.clamp(latest);
        }
        self.fresh &= rate.is_unshared();
        self.rate = rate;
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
        if self.keys.has_room(self.nanos(now), caller) {
            BucketLocation::New(entry)
        } else {
            BucketLocation::Full
        }
    }

    /// The bucket with a token less, if one is there; takes none, and makes no key.
    fn look(&self, now: Instant, location: BucketLocation) -> Result<Bucket, Duration> {
        let bucket = match location {
            BucketLocation::All | BucketLocation::Full => self.shared,
            BucketLocation::Existing(entry) | BucketLocation::New(entry) => {
                let existing = self.keys.bucket(entry);
                existing.unwrap_or_else(|| self.keys.floor(entry.caller))
            }
        };
        self.rate.take(bucket, self.nanos(now))
    }

    /// Puts back what [`Buckets::look`] gave.
    fn put(&mut self, now: Instant, location: BucketLocation, bucket: Bucket) {
        let mut overflows = self.overflows(now, location);
        match location {
            BucketLocation::All | BucketLocation::Full => self.shared = bucket,
            BucketLocation::Existing(entry) | BucketLocation::New(entry) => {
                let nanos = self.nanos(now);
                overflows |= self.keys.set(nanos, entry, bucket);
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
                if self.keys.floor(entry.caller).0 > self.nanos(now) =>
            {
                Emptied::Forgotten
            }
            BucketLocation::All | BucketLocation::Existing(_) | BucketLocation::New(_) => {
                Emptied::Own
            }
        }
    }

    fn nanos(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.start).as_nanos()).unwrap_or(u64::MAX)
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
        let Err(wait) = table.look(now, location) else {
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
