//! Rate limits: who still has a token, and how the pods of a Service share theirs.
//!
//! Each bucket is one number, the time at which it will be full again (GCRA), so a limit
//! is exact to the request and costs eight bytes per key. A request takes a token of every
//! limit that applies to it, or none of any.
//!
//! Whoever calls chooses the values of headers. So keys are hashes of a size that is ours,
//! there are so many at most of a pod, of a limit and of a caller. Only buckets that are full
//! are forgotten, which are the same as new ones, so nobody empties the table to have his own
//! bucket filled. What finds no place shares a bucket: a crowd of made-up values limits itself
//! and takes nothing from others.
//!
//! In use: one [`Buckets`] per limit of the own pod, all under one lock; [`take_all`] with
//! those that [`crate::traffic::every`] names for the request, audited ones apart.
//! [`shares::Shares`] is the controller's.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use crate::traffic::guard::RateLimit;

pub mod shares;

/// Keys of one limit.
pub const KEYS: usize = 10_000;
/// Bytes that the keys of all limits of one pod take, whose proxy requests 20 MiB.
pub const BYTES_PER_POD: usize = 4 << 20;
/// What a key takes: 33 bytes in one map and 25 in another, which are half full after they
/// grew.
const BYTES_PER_KEY: usize = 136;
/// One caller may fill this part of a limit's keys with values of a header.
const PART_OF_CALLER: usize = 10;

/// Shares change within seconds, so no wait that is reckoned by one holds for longer.
const LONGEST_OF_SHARE: Duration = Duration::from_secs(60);

/// A search for full buckets looks at all of them; so seldom it may happen.
const SWEEP_EVERY: Duration = Duration::from_secs(1);

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
        let never = u64::MAX / 2;
        Self {
            token: never,
            whole: never,
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
}

/// When a bucket is full again, in nanoseconds since its table was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
struct Bucket(u64);

impl Bucket {
    /// The bucket after one token was taken, or how long to wait for one.
    fn taken(self, now: u64, rate: Rate) -> Result<Self, Duration> {
        let full = self.0.max(now).saturating_add(rate.token);
        match full.saturating_sub(now).checked_sub(rate.whole) {
            None | Some(0) => Ok(Self(full)),
            Some(wait) => Err(Duration::from_nanos(wait.min(rate.longest))),
        }
    }
}

/// Keys of each limit, of so many of one pod that have keys.
#[must_use]
pub fn keys_of_each(limits: usize) -> usize {
    let share = BYTES_PER_POD / BYTES_PER_KEY / limits.max(1);
    share.clamp(1, KEYS)
}

/// Caller and value of a header.
type Entry = (u64, Option<u64>);

/// Where the bucket of a key stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// The limit has one bucket.
    All,
    /// It has its own.
    Held(Entry),
    /// There is room for its own.
    Free(Entry),
    /// Its caller has as many as one may, and shares one bucket among the rest.
    OfCaller(u64),
    /// There are as many as there may be; the rest share one bucket.
    Full,
}

/// The buckets of one limit.
#[derive(Debug)]
pub struct Buckets {
    start: Instant,
    rate: Rate,
    /// Without key, and for those that find no place.
    shared: Bucket,
    /// Keys at most.
    most: usize,
    /// Requests whose key found no place of its own, since they were last asked for.
    crowded: u64,
    keys: HashMap<Entry, Bucket>,
    /// Per caller with keys of headers: how many, and its bucket for further ones.
    callers: HashMap<u64, (u32, Bucket)>,
    swept: Instant,
}

/// Why a request may not pass, and when a token will be there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Which of the limits, in the order in which they were given: the one that takes
    /// longest.
    pub limit: usize,
    pub wait: Duration,
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
            shared: Bucket::default(),
            most: KEYS,
            crowded: 0,
            keys: HashMap::new(),
            callers: HashMap::new(),
            swept: now,
        }
    }

    /// Another rate, as when the share changed. What was taken stays taken, but no bucket is
    /// emptier than empty: a tiny share would block the next one for long.
    pub fn set_rate(&mut self, now: Instant, rate: Rate) {
        let empty = Bucket(self.nanos(now).saturating_add(rate.whole));
        let own = self.callers.values_mut().map(|(_, own)| own);
        let all = self.keys.values_mut().chain(own).chain([&mut self.shared]);
        for bucket in all {
            *bucket = (*bucket).min(empty);
        }
        self.rate = rate;
    }

    /// Another number of keys. Those that are more keep their buckets until they are full.
    pub fn set_most(&mut self, most: usize) {
        self.most = most;
    }

    /// How many requests found no place for their key since this was asked last.
    pub const fn take_crowded(&mut self) -> u64 {
        std::mem::replace(&mut self.crowded, 0)
    }

    /// Keys in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The bucket with a token less, if one is there; takes none, and makes no key.
    fn look(&self, now: Instant, place: Place) -> Result<Bucket, Duration> {
        let held = match place {
            Place::All | Place::Full => Some(self.shared),
            Place::Held(entry) => self.keys.get(&entry).copied(),
            Place::Free(_) => None,
            Place::OfCaller(caller) => self.callers.get(&caller).map(|(_, own)| *own),
        };
        held.unwrap_or_default().taken(self.nanos(now), self.rate)
    }

    /// Where a key has its bucket now.
    fn place(&self, key: Key) -> Place {
        let (caller, value) = match key {
            Key::All => return Place::All,
            Key::Caller(caller) => (caller, None),
            Key::Header { caller, value } => (caller, Some(value)),
        };
        let entry = (caller, value);
        if self.keys.contains_key(&entry) {
            return Place::Held(entry);
        }
        let of_caller = value.and_then(|_| self.callers.get(&caller));
        let part = (self.most / PART_OF_CALLER).max(1);
        if of_caller.is_some_and(|(keys, _)| *keys as usize >= part) {
            return Place::OfCaller(caller);
        }
        let is_known = value.is_none() || of_caller.is_some() || self.callers.len() < self.most;
        if self.keys.len() < self.most && is_known {
            Place::Free(entry)
        } else {
            Place::Full
        }
    }

    /// Puts back what [`Buckets::look`] gave.
    fn put(&mut self, now: Instant, place: Place, bucket: Bucket) {
        match place {
            Place::All => self.shared = bucket,
            Place::Held(entry) | Place::Free(entry) => {
                let is_new = self.keys.insert(entry, bucket).is_none();
                if is_new && entry.1.is_some() {
                    self.callers.entry(entry.0).or_default().0 += 1;
                }
            }
            Place::OfCaller(caller) => {
                if let Some((_, own)) = self.callers.get_mut(&caller) {
                    *own = bucket;
                }
                self.crowds(now);
            }
            Place::Full => {
                self.shared = bucket;
                self.crowds(now);
            }
        }
    }

    fn crowds(&mut self, now: Instant) {
        self.crowded += 1;
        self.sweep(now);
    }

    /// Forgets buckets that are full: a new one is the same.
    fn sweep(&mut self, now: Instant) {
        if now.saturating_duration_since(self.swept) < SWEEP_EVERY {
            return;
        }
        self.swept = now;
        let nanos = self.nanos(now);
        let callers = &mut self.callers;
        self.keys.retain(|(caller, value), bucket| {
            let kept = bucket.0 > nanos;
            if !kept
                && value.is_some()
                && let Some((keys, _)) = callers.get_mut(caller)
            {
                *keys = keys.saturating_sub(1);
            }
            kept
        });
        callers.retain(|_, (keys, own)| *keys > 0 || own.0 > nanos);
        // As when there were few limits of the pod, and are many now.
        if self.keys.capacity() > 4 * self.most {
            self.keys.shrink_to(self.most);
            self.callers.shrink_to(self.most);
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
        let place = table.place(key);
        let Err(wait) = table.look(now, place) else {
            continue;
        };
        if matches!(place, Place::OfCaller(_) | Place::Full) {
            table.crowds(now);
        }
        if refused.is_none_or(|longest| wait > longest.wait) {
            refused = Some(Refused { limit, wait });
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    for (limit, key) in keys {
        let Some(table) = tables.get_mut(limit) else {
            continue;
        };
        let place = table.place(key);
        if let Ok(bucket) = table.look(now, place) {
            table.put(now, place, bucket);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
