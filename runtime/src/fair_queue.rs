//! A fair queue: runs one piece of work at a time, and gives each source the same share of time.
//!
//! Start-time fair queueing: each source has a clock of its own, which its work moves on
//! by the time that it took, and the waiting source whose clock is furthest behind is
//! next. A source that comes anew starts where the one at work started, so having been
//! away earns no credit. So a source without end of work delays another one by one piece
//! of work, however much it requests.
//!
//! Time is an argument: each piece of work reports how long it took. One long piece still
//! delays all others by that piece, so callers bound it.
//!
//! Claims: attack-67

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::sync::oneshot;

/// How many may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// All together.
    pub waiting: usize,
    /// Of one source.
    pub waiting_of_one: usize,
}

/// The source at work and those that wait. Clones are the same queue.
pub struct FairQueue<K: Clone + Eq + Hash> {
    inner: Arc<Inner<K>>,
}

struct Inner<K: Clone + Eq + Hash> {
    limits: Limits,
    state: Mutex<QueueState<K>>,
    /// Sources that could not wait.
    reached: Counter<u64, AtomicU64>,
}

struct QueueState<K: Clone + Eq + Hash> {
    busy: bool,
    /// Where the clock of the source at work stood when it began.
    clock: Duration,
    next: u64,
    waiting: usize,
    /// Those that work, wait, or have had more than their share; no others.
    sources: HashMap<K, Source<K>>,
}

struct Source<K: Clone + Eq + Hash> {
    clock: Duration,
    /// By order of arrival.
    waiting: VecDeque<(u64, oneshot::Sender<QueuePermit<K>>)>,
}

/// The right to work, until it is dropped.
pub struct QueuePermit<K: Clone + Eq + Hash> {
    slot: Option<(FairQueue<K>, K)>,
    took: Duration,
}

/// Too many wait already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many wait already, and no source has more of them than the caller's")]
pub struct Full;

impl<K: Clone + Eq + Hash> Clone for FairQueue<K> {
    fn clone(&self) -> Self {
        Self {
            inner: Arc::clone(&self.inner),
        }
    }
}

impl<K: Clone + Eq + Hash> fmt::Debug for FairQueue<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FairQueue")
            .field("limits", &self.inner.limits)
            .field("waiting", &self.inner.state.lock().waiting)
            .finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash> fmt::Debug for QueuePermit<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("QueuePermit").finish_non_exhaustive()
    }
}

impl<K: Clone + Eq + Hash> FairQueue<K> {
    /// `reached` counts sources that could not wait.
    #[must_use]
    pub fn new(limits: Limits, reached: Counter<u64, AtomicU64>) -> Self {
        Self {
            inner: Arc::new(Inner {
                limits,
                state: Mutex::new(QueueState {
                    busy: false,
                    clock: Duration::ZERO,
                    next: 0,
                    waiting: 0,
                    sources: HashMap::new(),
                }),
                reached,
            }),
        }
    }

    /// Waits for a permit. May be dropped at any time.
    ///
    /// # Errors
    /// When too many wait: as many of this source as one may have, or as many as may
    /// wait together while no other source has more of them. For a source with fewer,
    /// the last one of the source with most gives up its place.
    pub async fn take(&self, source: K) -> Result<QueuePermit<K>, Full> {
        let permit = {
            let mut state = self.inner.state.lock();
            if state.busy {
                let permit = state.enqueue(&source, self.inner.limits);
                permit.inspect_err(|_| {
                    self.inner.reached.inc();
                })?
            } else {
                state.begin(&source);
                return Ok(QueuePermit::new(self.clone(), source));
            }
        };
        // Dropped for a caller that has fewer.
        permit.await.map_err(|_| Full)
    }

    /// The waiting sources.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.inner.state.lock().waiting
    }

    /// Gives the permit of `source` to the next one.
    fn release(&self, source: &K, took: Duration) {
        let mut state = self.inner.state.lock();
        if let Some(ended) = state.sources.get_mut(source) {
            ended.clock = ended.clock.saturating_add(took);
        }
        while let Some((next, sender)) = state.next() {
            let permit = QueuePermit::new(self.clone(), next);
            // Not dropped under the lock: that would come here again.
            match sender.send(permit) {
                Ok(()) => return,
                Err(mut gone) => drop(gone.slot.take()),
            }
        }
    }
}

impl<K: Clone + Eq + Hash> QueueState<K> {
    fn source(&mut self, source: &K) -> &mut Source<K> {
        let clock = self.clock;
        let entry = self.sources.entry(source.clone());
        let source = entry.or_insert_with(|| Source {
            clock,
            waiting: VecDeque::new(),
        });
        if source.waiting.is_empty() {
            source.clock = source.clock.max(clock);
        }
        source
    }

    fn begin(&mut self, source: &K) {
        self.busy = true;
        self.clock = self.source(source).clock;
    }

    fn enqueue(
        &mut self,
        key: &K,
        limits: Limits,
    ) -> Result<oneshot::Receiver<QueuePermit<K>>, Full> {
        let own = self.source(key).waiting.len();
        if own >= limits.waiting_of_one || self.waiting >= limits.waiting {
            self.forget_gone();
        }
        let own = self.source(key).waiting.len();
        if own >= limits.waiting_of_one {
            return Err(Full);
        }
        if self.waiting >= limits.waiting {
            let longest = self.sources.values_mut().max_by_key(|s| s.waiting.len());
            let longest = longest.filter(|longest| longest.waiting.len() > own + 1);
            longest.ok_or(Full)?.waiting.pop_back();
            self.waiting -= 1;
        }
        let (sender, receiver) = oneshot::channel();
        self.next += 1;
        let number = self.next;
        self.source(key).waiting.push_back((number, sender));
        self.waiting += 1;
        Ok(receiver)
    }

    /// Whose turn it is; with no source left, everything begins anew.
    fn next(&mut self) -> Option<(K, oneshot::Sender<QueuePermit<K>>)> {
        let waiting = self.sources.iter().filter_map(|(key, source)| {
            let (number, _) = source.waiting.front()?;
            Some((source.clock, *number, key))
        });
        let first = waiting.min_by_key(|(clock, number, _)| (*clock, *number));
        let Some((clock, _, key)) = first else {
            self.busy = false;
            self.clock = Duration::ZERO;
            self.sources = HashMap::new();
            return None;
        };
        let key = key.clone();
        self.clock = self.clock.max(clock);
        let now = self.clock;
        let (_, sender) = self.sources.get_mut(&key)?.waiting.pop_front()?;
        self.waiting -= 1;
        self.sources
            .retain(|other, source| *other == key || source.matters(now));
        Some((key, sender))
    }

    /// Takes away waiters that have gone.
    fn forget_gone(&mut self) {
        let mut waiting = 0;
        for source in self.sources.values_mut() {
            source.waiting.retain(|(_, sender)| !sender.is_closed());
            waiting += source.waiting.len();
        }
        self.waiting = waiting;
    }
}

impl<K: Clone + Eq + Hash> Source<K> {
    fn matters(&self, now: Duration) -> bool {
        !self.waiting.is_empty() || self.clock > now
    }
}

impl<K: Clone + Eq + Hash> QueuePermit<K> {
    fn new(queue: FairQueue<K>, source: K) -> Self {
        Self {
            slot: Some((queue, source)),
            took: Duration::ZERO,
        }
    }

    /// Ends the work, which took so long.
    pub fn end(mut self, took: Duration) {
        self.took = took;
    }
}

impl<K: Clone + Eq + Hash> Drop for QueuePermit<K> {
    fn drop(&mut self) {
        if let Some((queue, source)) = self.slot.take() {
            queue.release(&source, self.took);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt as _;

    use super::*;

    const LIMITS: Limits = Limits {
        waiting: 6,
        waiting_of_one: 5,
    };

    fn queue() -> FairQueue<&'static str> {
        FairQueue::new(LIMITS, Counter::default())
    }

    #[test]
    fn endless_source_delays_another_by_only_one_item() {
        let queue = queue();
        let at_work = queue.take("flood").now_or_never().unwrap().unwrap();
        let mut flood: Vec<_> = (0..4).map(|_| Box::pin(queue.take("flood"))).collect();
        assert!(flood.iter_mut().all(|f| f.now_or_never().is_none()));
        let mut honest = Box::pin(queue.take("honest"));
        assert!((&mut honest).now_or_never().is_none(), "one at a time");
        at_work.end(Duration::from_millis(50));
        let permit = honest.now_or_never().expect("is next").unwrap();
        assert!(flood.iter_mut().all(|f| f.now_or_never().is_none()));
        drop(permit);
        assert!((&mut flood[0]).now_or_never().is_some());
    }

    #[test]
    fn time_is_shared_equally_and_not_by_number() {
        let queue = queue();
        let took = |source| Duration::from_millis(if source == "dear" { 50 } else { 10 });
        let mut permit = queue.take("dear").now_or_never().unwrap().unwrap();
        let mut waiting = Vec::new();
        let mut worked = HashMap::new();
        let mut at_work = "dear";
        for source in ["dear", "cheap", "dear", "cheap"] {
            waiting.push((source, Box::pin(queue.take(source))));
        }
        for _ in 0..120 {
            for (_, waits) in &mut waiting {
                assert!(waits.now_or_never().is_none());
            }
            *worked.entry(at_work).or_insert(Duration::ZERO) += took(at_work);
            permit.end(took(at_work));
            let mut next = None;
            waiting.retain_mut(|(source, waits)| match waits.now_or_never() {
                Some(permit) => {
                    next = Some((*source, permit.unwrap()));
                    false
                }
                None => true,
            });
            (at_work, permit) = next.expect("a caller waits");
            waiting.push((at_work, Box::pin(queue.take(at_work))));
        }
        let (dear, cheap) = (worked["dear"], worked["cheap"]);
        assert!(
            dear.abs_diff(cheap) <= Duration::from_millis(60),
            "{dear:?} {cheap:?}"
        );
    }

    #[test]
    fn bounded_queue_evicts_from_source_with_more() {
        let queue = queue();
        let at_work = queue.take("flood").now_or_never().unwrap().unwrap();
        let mut flood: Vec<_> = (0..5).map(|_| Box::pin(queue.take("flood"))).collect();
        assert!(flood.iter_mut().all(|f| f.now_or_never().is_none()));
        assert_eq!(
            queue.take("flood").now_or_never().unwrap().unwrap_err(),
            Full
        );
        let mut others = ["a", "b", "c"].map(|name| Box::pin(queue.take(name)));
        assert!(others.iter_mut().all(|f| f.now_or_never().is_none()));
        assert_eq!(queue.waiting(), LIMITS.waiting);
        assert_eq!((&mut flood[4]).now_or_never().unwrap().unwrap_err(), Full);
        assert_eq!((&mut flood[3]).now_or_never().unwrap().unwrap_err(), Full);
        assert!((&mut flood[2]).now_or_never().is_none());
        // Places of abandoned waiters are free.
        drop(flood);
        let mut again = Box::pin(queue.take("flood"));
        assert!((&mut again).now_or_never().is_none());
        assert_eq!(queue.waiting(), 4);
        drop(others);
        at_work.end(Duration::from_millis(1));
        drop(again.now_or_never().expect("all others are gone").unwrap());
        assert_eq!(queue.waiting(), 0);
        assert!(queue.inner.state.lock().sources.is_empty());
        assert!(queue.take("flood").now_or_never().is_some());
    }
}
