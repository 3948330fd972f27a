//! A pool of threads for responses that take long to compute.
//!
//! A graph of 10 000 edges is 200 ms of work, and an explanation may look at every pod. On the one
//! thread of the replica no proxy would be sent its configuration meanwhile. So a few responses
//! are computed beside it at one time, and others wait in the order in which they came. Permits of
//! calls and streams bound how many wait.
//!
//! Streams come with as many lines at once as there are readers, whenever an interval is over. So
//! they take turns for one of the threads, and a call finds the other.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::aggregated::refusal::Refusal;

/// Responses that are made at one time. The graph is looked at by one of them only; a second one is
/// put together meanwhile of the parts that were written.
const AT_ONCE: usize = 2;
/// Of these, lines of streams.
const STREAMS_AT_ONCE: usize = 1;

/// Clones share their threads.
#[derive(Clone, Debug)]
pub(super) struct WorkerPool {
    permits: Arc<Semaphore>,
    streams: Arc<Semaphore>,
}

impl Default for WorkerPool {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_ONCE)),
            streams: Arc::new(Semaphore::new(STREAMS_AT_ONCE)),
        }
    }
}

impl WorkerPool {
    /// The result of `work`, when it is its turn. Work that has started ends, with or without a
    /// waiter, and keeps its place until then.
    ///
    /// # Errors
    /// When the replica ends meanwhile.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        let permit = taken(&self.permits).await?;
        made(permit, work).await
    }

    /// The same of a line of a stream that has started.
    ///
    /// # Errors
    /// When the replica ends meanwhile.
    pub(super) async fn run_for_stream<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Refusal> {
        // First this one: its waiters must not stand before calls.
        let turn = taken(&self.streams).await?;
        let permit = taken(&self.permits).await?;
        made((turn, permit), work).await
    }
}

async fn taken(permits: &Arc<Semaphore>) -> Result<OwnedSemaphorePermit, Refusal> {
    let permit = Arc::clone(permits).acquire_owned().await;
    permit.map_err(|closed| unmade(&closed))
}

async fn made<T: Send + 'static>(
    permits: impl Send + 'static,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Refusal> {
    let made = tokio::task::spawn_blocking(move || {
        let _permits = permits;
        work()
    });
    made.await.map_err(|error| unmade(&error))
}

fn unmade(why: &dyn std::fmt::Display) -> Refusal {
    Refusal::unavailable(format!("the answer was not made: {why}"))
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::Duration;

    use super::*;

    /// The test's runtime has one thread, as a replica's.
    #[tokio::test]
    async fn worker_pool_frees_runtime_thread_and_is_bounded() {
        let pool = WorkerPool::default();
        let (here, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let runtime = thread::current().id();
        let all = (0..8).map(|number| {
            let (pool, here, most) = (pool.clone(), Arc::clone(&here), Arc::clone(&most));
            tokio::spawn(async move {
                let work = move || {
                    assert_ne!(thread::current().id(), runtime);
                    most.fetch_max(here.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    thread::sleep(Duration::from_millis(20));
                    here.fetch_sub(1, Ordering::SeqCst);
                    number
                };
                pool.run(work).await.unwrap()
            })
        });
        let made = futures::future::join_all(all).await;
        let made: Vec<usize> = made.into_iter().map(Result::unwrap).collect();
        assert_eq!(made, [0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(most.load(Ordering::SeqCst), AT_ONCE);
    }

    #[tokio::test]
    async fn call_does_not_wait_for_all_earlier_streams() {
        let pool = WorkerPool::default();
        let ended = Arc::new(AtomicUsize::new(0));
        let lines: Vec<_> = (0..8)
            .map(|_| {
                let (pool, ended) = (pool.clone(), Arc::clone(&ended));
                tokio::spawn(async move {
                    let work = move || {
                        thread::sleep(Duration::from_millis(100));
                        ended.fetch_add(1, Ordering::SeqCst);
                    };
                    pool.run_for_stream(work).await.unwrap();
                })
            })
            .collect();
        // All of them wait, or are made.
        tokio::time::sleep(Duration::from_millis(20)).await;
        let before = pool.run(|| ()).await.map(|()| ended.load(Ordering::SeqCst));
        // Room for a busy machine: one that waited for its turn would see six.
        assert!(before.unwrap() <= 3, "lines were made before it");
        for line in lines {
            line.await.unwrap();
        }
        assert_eq!(ended.load(Ordering::SeqCst), 8);
    }
}
