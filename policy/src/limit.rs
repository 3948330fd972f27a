//! Rate limits: who still has a token, and how the pods of a Service share theirs.
//!
//! Each bucket is one number, the time at which it will be full again (GCRA), so a limit
//! is exact to the request and costs eight bytes per key. A request takes a token of every
//! limit that applies to it, or none of any.
//!
//! Whoever calls chooses the values of headers. So keys are hashes of a size that is ours,
//! there are so many at most in all and per caller, buckets that are full are forgotten
//! first, and what finds no place shares a bucket: a crowd of made-up values limits itself
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
/// Values of a header that one caller may fill keys with.
pub const KEYS_PER_CALLER: u32 = 1000;

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

/// The buckets of one limit.
#[derive(Debug)]
pub struct Buckets {
    start: Instant,
    rate: Rate,
    /// Without key, and for those that find no place.
    shared: Bucket,
    keys: HashMap<(u64, Option<u64>), Bucket>,
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

    /// Keys in use.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Whether a token is there; takes none, and makes no key.
    fn look(&self, now: Instant, key: Key) -> Result<Bucket, Duration> {
        self.held(key).taken(self.nanos(now), self.rate)
    }

    /// The bucket that stands for a key now.
    fn held(&self, key: Key) -> Bucket {
        let (caller, value) = match key {
            Key::All => return self.shared,
            Key::Caller(caller) => (caller, None),
            Key::Header { caller, value } => (caller, Some(value)),
        };
        if let Some(bucket) = self.keys.get(&(caller, value)) {
            return *bucket;
        }
        match self.callers.get(&caller) {
            Some((keys, own)) if value.is_some() && *keys >= KEYS_PER_CALLER => *own,
            _ if self.keys.len() >= KEYS => self.shared,
            _ => Bucket::default(),
        }
    }

    /// Puts back what [`Buckets::look`] gave.
    fn put(&mut self, now: Instant, key: Key, bucket: Bucket) {
        let (caller, value) = match key {
            Key::All => return self.shared = bucket,
            Key::Caller(caller) => (caller, None),
            Key::Header { caller, value } => (caller, Some(value)),
        };
        if let Some(held) = self.keys.get_mut(&(caller, value)) {
            *held = bucket;
            return;
        }
        if value.is_some()
            && let Some((keys, own)) = self.callers.get_mut(&caller)
            && *keys >= KEYS_PER_CALLER
        {
            *own = bucket;
            self.sweep(now);
            return;
        }
        if self.keys.len() >= KEYS {
            self.shared = bucket;
            self.sweep(now);
            return;
        }
        self.keys.insert((caller, value), bucket);
        if value.is_some() {
            self.callers.entry(caller).or_default().0 += 1;
        }
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
        if let Some(Err(wait)) = tables.get(limit).map(|table| table.look(now, key))
            && refused.is_none_or(|longest| wait > longest.wait)
        {
            refused = Some(Refused { limit, wait });
        }
    }
    if let Some(refused) = refused {
        return Err(refused);
    }
    for (limit, key) in keys {
        if let Some(table) = tables.get_mut(limit)
            && let Ok(bucket) = table.look(now, key)
        {
            table.put(now, key, bucket);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
