//! A pool of something scarce, such as connections or bytes, of which no holder can take the shares
//! of the others.
//!
//! Unauthenticated holders can request everything, and refusing the last one would refuse the
//! honest one. So none is refused because the pool is full: the largest holder loses its oldest
//! share instead. Only one that would be the largest itself is refused, and then only if none of
//! its own shares is idle.
//!
//! A holder is a key: an address before anything is proven, a pod afterwards. Where no holder ever
//! proves anything, a pool may spare those whose work succeeded; see `victim`.

mod victim;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::Notify;

/// How much there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// For all together.
    pub total: usize,
    /// For one holder.
    pub per_holder: usize,
}

/// What is shared. Clones are the same pool.
pub struct Pool<K> {
    inner: Arc<Inner<K>>,
}

struct Inner<K> {
    limits: Limits,
    /// A holder that completed work is spared while it holds no more; 0 spares none.
    spared: usize,
    state: Mutex<PoolState<K>>,
    /// Shares taken away, and requests refused.
    reached: Counter<u64, AtomicU64>,
}

struct PoolState<K> {
    in_use: usize,
    /// The most that was held at one time.
    peak: usize,
    next: u64,
    holders: HashMap<K, Holder>,
    /// Holders by what they have; of two the one with the older share is last.
    order: BTreeSet<(usize, std::cmp::Reverse<u64>, K)>,
    worked: Worked<K>,
}

#[derive(Default)]
struct Holder {
    in_use: usize,
    /// By age.
    shares: BTreeMap<u64, Entry>,
}

struct Entry {
    amount: usize,
    uses: usize,
    taken: Arc<Notify>,
}

/// A share that is held until it is dropped or taken away.
pub struct Share<K: Clone + Ord + Hash> {
    pool: Pool<K>,
    holder: K,
    number: u64,
    taken: Arc<Notify>,
}

/// There is no room, and no holder has more than the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the limit is reached, and no holder has more than the caller")]
pub struct Full;

impl<K> Clone for Pool<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K> fmt::Debug for Pool<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut pool = f.debug_struct("Pool");
        pool.field("limits", &self.inner.limits);
        pool.field("held", &self.inner.state.lock().in_use);
        pool.finish_non_exhaustive()
    }
}

impl<K: Clone + Ord + Hash> fmt::Debug for Share<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Share")
            .field("number", &self.number)
            .finish_non_exhaustive()
    }
}

impl<K: Clone + Ord + Hash> Pool<K> {
    /// `reached` counts shares that are taken away and requests that are refused.
    #[must_use]
    pub fn new(limits: Limits, reached: Counter<u64, AtomicU64>) -> Self {
        Self::sparing(0, limits, reached)
    }

    /// The same, but a holder that has [`Share::completed`] work is spared while it holds no more
    /// than `spared`.
    #[must_use]
    pub fn sparing(spared: usize, limits: Limits, reached: Counter<u64, AtomicU64>) -> Self {
        Self {
            inner: Arc::new(Inner {
                limits,
                spared,
                state: Mutex::new(PoolState {
                    in_use: 0,
                    peak: 0,
                    next: 0,
                    holders: HashMap::new(),
                    order: BTreeSet::new(),
                    worked: Worked::default(),
                }),
                reached,
            }),
        }
    }

    /// A new share for `holder`, for which others may lose theirs.
    ///
    /// # Errors
    /// When the holder itself has most, and uses all of it.
    pub fn take(&self, holder: K, amount: usize) -> Result<Share<K>, Full> {
        let mut state = self.inner.state.lock();
        self.make_room(&mut state, &holder, None, amount)?;
        state.next += 1;
        let number = state.next;
        let taken = Arc::new(Notify::new());
        let entry = Entry {
            amount,
            uses: 0,
            taken: Arc::clone(&taken),
        };
        state.change(&holder, |holder| {
            holder.shares.insert(number, entry);
        });
        drop(state);
        Ok(Share {
            pool: self.clone(),
            holder,
            number,
            taken,
        })
    }

    /// What is held by all together.
    #[must_use]
    pub fn in_use(&self) -> usize {
        self.inner.state.lock().in_use
    }

    /// The most that was ever held at one time.
    #[must_use]
    pub fn peak(&self) -> usize {
        self.inner.state.lock().peak
    }

    /// Those that hold something.
    #[must_use]
    pub fn holders(&self) -> usize {
        self.inner.state.lock().holders.len()
    }

    /// Takes shares away until `amount` more fits; `keep` is never among them.
    fn make_room(
        &self,
        state: &mut PoolState<K>,
        holder: &K,
        keep: Option<u64>,
        amount: usize,
    ) -> Result<(), Full> {
        let Limits { total, per_holder } = self.inner.limits;
        loop {
            let own = state.holders.get(holder).map_or(0, |own| own.in_use);
            let wanted = own.saturating_add(amount);
            let victim = if wanted > per_holder {
                None
            } else if state.in_use.saturating_add(amount) <= total {
                return Ok(());
            } else {
                state.victim(holder, wanted, self.inner.spared, total)
            };
            self.inner.reached.inc();
            let taken = match victim {
                Some(victim) => state.take_oldest(&victim, None, true),
                None => state.take_oldest(holder, keep, false),
            };
            if !taken {
                return Err(Full);
            }
        }
    }
}

impl<K: Clone + Ord + Hash> PoolState<K> {
    /// Changes one holder and keeps the order.
    fn change(&mut self, key: &K, change: impl FnOnce(&mut Holder)) {
        let holder = self.holders.entry(key.clone()).or_default();
        if let Some(rank) = holder.rank(key) {
            self.order.remove(&rank);
        }
        self.in_use -= holder.in_use;
        change(holder);
        holder.in_use = holder.shares.values().map(|entry| entry.amount).sum();
        self.in_use += holder.in_use;
        self.peak = self.peak.max(self.in_use);
        match holder.rank(key) {
            Some(rank) => {
                self.order.insert(rank);
            }
            None => {
                self.holders.remove(key);
                if self.holders.len() < self.holders.capacity() / 8 {
                    self.holders.shrink_to_fit();
                }
            }
        }
    }

    /// Takes the oldest share of a holder away, first among those that are not in use.
    fn take_oldest(&mut self, key: &K, keep: Option<u64>, used_as_well: bool) -> bool {
        let Some(holder) = self.holders.get(key) else {
            return false;
        };
        let others = || holder.shares.iter().filter(|(at, _)| Some(**at) != keep);
        let idle = others().find(|(_, entry)| entry.uses == 0);
        let oldest = idle.or_else(|| others().next().filter(|_| used_as_well));
        let Some(number) = oldest.map(|(number, _)| *number) else {
            return false;
        };
        self.change(key, |holder| {
            if let Some(entry) = holder.shares.remove(&number) {
                entry.taken.notify_one();
            }
        });
        true
    }
}

impl Holder {
    /// Its oldest share of which nothing is in use.
    fn idle(&self) -> Option<u64> {
        let mut idle = self.shares.iter().filter(|(_, entry)| entry.uses == 0);
        idle.next().map(|(number, _)| *number)
    }

    fn rank<K: Clone>(&self, key: &K) -> Option<(usize, std::cmp::Reverse<u64>, K)> {
        let oldest = self.shares.keys().next()?;
        Some((self.in_use, std::cmp::Reverse(*oldest), key.clone()))
    }
}

impl<K: Clone + Ord + Hash> Share<K> {
    /// Resolves when the share is taken away; its holder must then let go of
    /// what it stands for. For one waiter.
    pub async fn taken(&self) {
        self.taken.notified().await;
    }

    /// Requests so much more.
    ///
    /// # Errors
    /// When it is not there, or the share was taken away.
    pub fn grow(&self, amount: usize) -> Result<(), Full> {
        let mut state = self.pool.inner.state.lock();
        let holder = state.holders.get(&self.holder);
        if holder.is_none_or(|holder| !holder.shares.contains_key(&self.number)) {
            return Err(Full);
        }
        self.pool
            .make_room(&mut state, &self.holder, Some(self.number), amount)?;
        self.entry(&mut state, |entry| entry.amount += amount);
        Ok(())
    }

    /// Gives so much back.
    pub fn shrink(&self, amount: usize) {
        self.entry(&mut self.pool.inner.state.lock(), |entry| {
            entry.amount = entry.amount.saturating_sub(amount);
        });
    }

    /// Marks that work for it begins, so that its holder's idle ones go first.
    pub fn begin(&self) {
        self.entry(&mut self.pool.inner.state.lock(), |entry| entry.uses += 1);
    }

    /// Marks that as much work has ended.
    pub fn end(&self) {
        self.entry(&mut self.pool.inner.state.lock(), |entry| {
            entry.uses = entry.uses.saturating_sub(1);
        });
    }

    /// Marks that work for it came to a good end, which the pool keeps of its holder where it
    /// spares any.
    pub fn completed(&self) {
        if self.pool.inner.spared > 0 {
            let mut state = self.pool.inner.state.lock();
            state.next += 1;
            let now = state.next;
            state.worked.note(&self.holder, now);
        }
    }

    fn entry(&self, state: &mut PoolState<K>, change: impl FnOnce(&mut Entry)) {
        if !state.holders.contains_key(&self.holder) {
            return;
        }
        state.change(&self.holder, |holder| {
            if let Some(entry) = holder.shares.get_mut(&self.number) {
                change(entry);
            }
        });
    }
}

impl<K: Clone + Ord + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut state = self.pool.inner.state.lock();
        if state.holders.contains_key(&self.holder) {
            state.change(&self.holder, |holder| {
                holder.shares.remove(&self.number);
            });
        }
    }
}

/// Holders that are remembered. API servers are a few.
const MAX_WORKED: usize = 1024;

/// Holders that completed work last, also when they hold nothing by now, and when they did.
struct Worked<K> {
    last: HashMap<K, u64>,
    order: BTreeMap<u64, K>,
}

impl<K> Default for Worked<K> {
    fn default() -> Self {
        Self {
            last: HashMap::new(),
            order: BTreeMap::new(),
        }
    }
}

impl<K: Clone + Ord + Hash> Worked<K> {
    /// Records that this one completed work `now`, a number that no other had before.
    fn note(&mut self, holder: &K, now: u64) {
        if let Some(before) = self.last.insert(holder.clone(), now) {
            self.order.remove(&before);
        }
        self.order.insert(now, holder.clone());
        if self.order.len() > MAX_WORKED
            && let Some((_, longest_ago)) = self.order.pop_first()
        {
            self.last.remove(&longest_ago);
        }
    }

    /// When it last completed work.
    fn last(&self, holder: &K) -> Option<u64> {
        self.last.get(holder).copied()
    }
}

#[cfg(test)]
mod tests;
