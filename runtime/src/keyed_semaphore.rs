//! A semaphore with keys: bounds concurrent work, and the part of it that one source may have.
//!
//! A caller waits behind others of its own source first, so one source whose work takes long does
//! not delay the others.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, SemaphorePermit};

/// Which sources may work. The map holds sources that work or wait, and no others.
#[derive(Debug)]
pub struct KeyedSemaphore<K> {
    all: Semaphore,
    of_one: usize,
    sources: Mutex<HashMap<K, Arc<Semaphore>>>,
}

/// The right to work, until it is dropped.
#[derive(Debug)]
pub struct KeyedPermit<'a, K: Clone + Eq + Hash> {
    semaphore: &'a KeyedSemaphore<K>,
    source: K,
    own: Option<OwnedSemaphorePermit>,
    all: Option<SemaphorePermit<'a>>,
}

impl<K: Clone + Eq + Hash> KeyedSemaphore<K> {
    /// `all` at one time, of which one source may have `of_one`.
    #[must_use]
    pub fn new(all: usize, of_one: usize) -> Self {
        Self {
            all: Semaphore::new(all),
            of_one,
            sources: Mutex::new(HashMap::new()),
        }
    }

    /// Waits for a permit. May be dropped at any time.
    pub async fn acquire(&self, source: K) -> KeyedPermit<'_, K> {
        let own = Arc::clone(
            self.sources
                .lock()
                .entry(source.clone())
                .or_insert_with(|| Arc::new(Semaphore::new(self.of_one))),
        );
        // Made before it waits, so that giving up tidies as well.
        let mut permit = KeyedPermit {
            semaphore: self,
            source,
            own: None,
            all: None,
        };
        // Neither is ever closed, so both are some.
        permit.own = own.acquire_owned().await.ok();
        permit.all = self.all.acquire().await.ok();
        permit
    }

    /// Sources that work or wait.
    #[must_use]
    pub fn sources(&self) -> usize {
        self.sources.lock().len()
    }
}

impl<K: Clone + Eq + Hash> Drop for KeyedPermit<'_, K> {
    fn drop(&mut self) {
        self.all = None;
        self.own = None;
        let mut sources = self.semaphore.sources.lock();
        let unused = |own: &Arc<Semaphore>| Arc::strong_count(own) == 1;
        if sources.get(&self.source).is_some_and(unused) {
            sources.remove(&self.source);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
