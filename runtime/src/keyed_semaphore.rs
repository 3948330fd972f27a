//! A semaphore with keys: bounds concurrent work, and the part of it that one source may have.
//!
//! A caller waits behind others of its own source first, so one source whose work takes long does
//! not delay the others. Where a source may have one permit, waiting sources take turns: each is
//! delayed by one piece of work of every other one, however much those request.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Which sources may work.
#[derive(Debug)]
pub struct KeyedSemaphore<K> {
    all: Arc<Semaphore>,
    of_one: usize,
    sources: Arc<Sources<K>>,
}

/// Sources that work or wait, and no others.
type Sources<K> = Mutex<HashMap<K, Arc<Semaphore>>>;

/// The right to work, until it is dropped.
#[derive(Debug)]
pub struct KeyedPermit<K: Clone + Eq + Hash> {
    sources: Arc<Sources<K>>,
    source: K,
    own: Option<OwnedSemaphorePermit>,
    all: Option<OwnedSemaphorePermit>,
}

impl<K: Clone + Eq + Hash> KeyedSemaphore<K> {
    /// `all` at one time, of which one source may have `of_one`.
    #[must_use]
    pub fn new(all: usize, of_one: usize) -> Self {
        Self {
            all: Arc::new(Semaphore::new(all)),
            of_one,
            sources: Arc::new(Mutex::new(HashMap::new())),
        }
    }

    /// Waits for a permit. May be dropped at any time.
    pub async fn acquire(&self, source: K) -> KeyedPermit<K> {
        let own = Arc::clone(
            self.sources
                .lock()
                .entry(source.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(self.of_one))),
        );
        // Made before it waits, so that giving up tidies as well.
        let mut permit = KeyedPermit {
            sources: Arc::clone(&self.sources),
            source,
            own: None,
            all: None,
        };
        // Neither is ever closed, so both are some.
        permit.own = own.acquire_owned().await.ok();
        permit.all = Arc::clone(&self.all).acquire_owned().await.ok();
        permit
    }

    /// Callers of one source that work or wait.
    #[must_use]
    pub fn callers_of(&self, source: &K) -> usize {
        let sources = self.sources.lock();
        // Each has a reference, and the map one more.
        sources
            .get(source)
            .map_or(0, |own| Arc::strong_count(own) - 1)
    }

    /// Sources that work or wait.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.lock().len()
    }
}

impl<K: Clone + Eq + Hash> Drop for KeyedPermit<K> {
    fn drop(&mut self) {
        self.all = None;
        self.own = None;
        let mut sources = self.sources.lock();
        let unused = |own: &Arc<Semaphore>| Arc::strong_count(own) == 1;
        if sources.get(&self.source).is_some_and(unused) {
            sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use futures::FutureExt as _;
    use tokio::time::timeout;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn source_at_share_leaves_permits_to_others() {
        let semaphore = KeyedSemaphore::new(4, 2);
        let soon = Duration::from_millis(1);
        let first = semaphore.acquire("a").await;
        let second = semaphore.acquire("a").await;
        assert!(timeout(soon, semaphore.acquire("a")).await.is_err());
        let other = timeout(soon, semaphore.acquire("b")).await.unwrap();
        let third = timeout(soon, semaphore.acquire("c")).await.unwrap();
        assert!(
            timeout(soon, semaphore.acquire("d")).await.is_err(),
            "four in all"
        );
        drop(first);
        let again = timeout(soon, semaphore.acquire("a")).await.unwrap();
        drop((second, other, third, again));
        assert_eq!(semaphore.sources(), 0);
    }

    // Claims: attack-67
    #[test]
    fn endless_source_delays_another_by_only_one_item() {
        let semaphore = KeyedSemaphore::new(1, 1);
        let at_work = semaphore.acquire("flood").now_or_never().unwrap();
        let mut flood: Vec<_> = (0..4)
            .map(|_| Box::pin(semaphore.acquire("flood")))
            .collect();
        assert!(flood.iter_mut().all(|f| f.now_or_never().is_none()));
        let mut honest = Box::pin(semaphore.acquire("honest"));
        assert!((&mut honest).now_or_never().is_none(), "one at a time");
        assert_eq!(semaphore.callers_of(&"flood"), 5);
        assert_eq!(semaphore.callers_of(&"honest"), 1);
        drop(at_work);
        assert!(flood.iter_mut().all(|f| f.now_or_never().is_none()));
        let permit = honest.now_or_never().expect("is next");
        assert!(flood.iter_mut().all(|f| f.now_or_never().is_none()));
        drop(permit);
        assert!((&mut flood[0]).now_or_never().is_some());
        drop(flood);
        assert_eq!(semaphore.callers_of(&"flood"), 0);
        assert_eq!(semaphore.sources(), 0);
    }
}
